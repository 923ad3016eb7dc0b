"""What operators see of the product at work: real processes, their metrics and their logs."""

import asyncio

import grpc
import pytest
from contract import methods
from processes import cluster, free_port, product
from scrape import Scraped, scrape, status
from told import metrics_told

from nanobatch_client.models import ExecutionState
from nanobatch_runtime import metrics
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
GEMINI = {"provider": "gemini", "model": MODEL}


async def end_of(client, execution_id):
    async for _ in client.watch(execution_id):
        pass
    return await client.get_execution(execution_id)


async def test_one_process_shows_what_its_services_have_done(tmp_path, gemini, connect):
    address = f"127.0.0.1:{free_port()}"
    environment = {"NANOBATCH_METRICS": address, "NANOBATCH_DRAIN_SECONDS": "1"}  # what is cancelled is still out
    with product(tmp_path, upstream_url=gemini.url, environment=environment) as running:
        client = await connect(running.target)
        execution = await client.create_execution(["a boat", "a kite"], model=MODEL, api_key=KEY)
        done = await end_of(client, execution.id)
        failing = await client.create_execution(["a kite [fail:blocked]", "a kite [fail:damagedx1]"], model="sandbox")
        await end_of(client, failing.id)
        waiting = await client.create_execution(["slow [delay:60]"] * 3, model="sandbox")
        await eventually(lambda: scrape(address).total("nanobatch_queue_wanted", provider="sandbox") == 3, within=30)
        assert status(address, "/readyz") == status(address, "/healthz") == 200
        seen = await asyncio.to_thread(scrape, address)
        held = seen.total("nanobatch_leases_held", phase="CALLING")
        await client.cancel_execution(waiting.id)
        await client.__aexit__(None, None, None)
    completed = done.stats.completed
    assert completed == 2
    assert held == 3
    sandbox = {"provider": "sandbox", "model": "sandbox"}
    assert seen.total("nanobatch_attempts_total", outcome="BLOCKED", **sandbox) == 1
    assert seen.total("nanobatch_attempts_total", outcome="NOT_STORED", charged="YES", **sandbox) == 1
    assert seen.total("nanobatch_attempts_total", outcome="COMPLETED", **sandbox) == 1
    assert seen.total("nanobatch_attempts_total", outcome="COMPLETED", charged="YES", **GEMINI) == completed
    assert seen.total("nanobatch_attempts_total", **GEMINI) == len(gemini.calls)
    assert seen.total("nanobatch_cost_micros_total", **GEMINI) == done.stats.total_cost_micros
    assert seen.total("nanobatch_call_seconds_count", **GEMINI) == completed
    assert seen.total("nanobatch_leases_total", **GEMINI) >= 2
    assert seen.total("nanobatch_queue_wait_seconds_count", **GEMINI) == seen.total("nanobatch_leases_total", **GEMINI)
    assert seen.total("nanobatch_event_lag_seconds_count") > 0
    for service in ("nanobatch.gateway.v1.ExecutionService", "nanobatch.storage.v1.ExecutionService"):
        assert seen.total("nanobatch_rpcs_total", service=service, method="CreateExecution", code="OK") == 3
    assert seen.total("nanobatch_rpcs_running", method="WatchExecution") == 0
    assert seen.total("nanobatch_slots") == 32
    # Nothing of anybody's in any label.
    for secret in (KEY, "a boat", execution.id):
        assert secret not in seen.text
    # All that is in the list is there, but for what is read only with a Redis or while something waits.
    shown = {sample.name for sample in seen.samples}
    types = metrics.types()
    there = {name for name, kind in types.items() if (f"{name}_count" if kind == "histogram" else name) in shown}
    absent = set(types) - there
    assert absent <= {"nanobatch_redis_up", "nanobatch_credentials_cooling", "nanobatch_http_requests_total"}, absent


def assert_as_told(service: str, seen: Scraped) -> None:
    """What a service shows is what the docs say, and what has no labels it shows before anything has happened."""
    told = {name for name, each in metrics_told().items() if each.is_shown_by(service)}
    parts = {f"{name}_count" if kind == "histogram" else name: name for name, kind in metrics.types().items()}
    shown = {parts[sample.name] for sample in seen.samples if sample.name in parts}
    assert shown <= told, service
    assert {name for name in told if not metrics_told()[name].labels} <= shown, service
    own = methods(f"nanobatch.{service}.v1") if service != "web" else []  # the page serves HTTP alone
    for method in own:
        where = {"service": method.descriptor.containing_service.full_name, "method": method.descriptor.name}
        assert list(seen.values("nanobatch_rpcs_total", code="INTERNAL", **where)) == [0], where


async def test_each_service_has_a_port_and_is_ready_when_it_serves(tmp_path, redis_server, connect):
    ports = {name: f"127.0.0.1:{free_port()}" for name in ("gateway", "generator", "storage", "web")}
    with cluster(tmp_path, NANOBATCH_REDIS_URL=redis_server.url) as services:
        services.gateway(NANOBATCH_METRICS=ports["gateway"])
        await eventually(lambda: status(ports["gateway"], "/healthz") == 200, within=30)
        assert status(ports["gateway"], "/readyz") == 503  # it waits for storage
        assert_as_told("gateway", scrape(ports["gateway"]))
        page = {"NANOBATCH_WEB": f"127.0.0.1:{free_port()}", "NANOBATCH_GATEWAY_TARGET": services.target}
        services.web(NANOBATCH_METRICS=ports["web"], **page)
        services.storage(NANOBATCH_METRICS=ports["storage"])
        services.generator("one", at=services.generator_target, NANOBATCH_METRICS=ports["generator"])
        for name, address in ports.items():
            await eventually(lambda address=address: status(address, "/readyz") == 200, within=60)
            assert_as_told(name, await asyncio.to_thread(scrape, address))
        ports.pop("web")  # it has no Redis
        for name, address in ports.items():
            await eventually(
                lambda name=name, address=address: scrape(address).total("nanobatch_redis_up", service=name)
            )
        client = await connect(services.target)
        execution = await client.create_execution([f"boat {n}" for n in range(5)], model="sandbox")
        assert (await end_of(client, execution.id)).state is ExecutionState.COMPLETED
        await client.__aexit__(None, None, None)
        assert scrape(ports["generator"]).total("nanobatch_attempts_total", outcome="COMPLETED") == 5
        assert scrape(ports["storage"]).total("nanobatch_leases_total", provider="sandbox") == 5
        assert scrape(ports["gateway"]).total("nanobatch_event_lag_seconds_count") > 0
        for name, address in ports.items():
            assert_as_told(name, scrape(address))
        await redis_server_gone(redis_server, ports)


async def redis_server_gone(redis_server, ports):
    redis_server.kill()
    for name, address in ports.items():
        await eventually(
            lambda name=name, address=address: list(scrape(address).values("nanobatch_redis_up", service=name)) == [0.0]
        )


async def test_what_strangers_call_makes_no_label(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    token = "a-service-token-of-at-least-32-characters"  # of this test
    with cluster(tmp_path, NANOBATCH_SERVICE_TOKEN=token) as services:
        services.storage(NANOBATCH_METRICS=address)
        await eventually(lambda: status(address, "/readyz") == 200, within=30)
        async with grpc.aio.insecure_channel(services.storage_target) as channel:
            for number in range(20):
                call = channel.unary_unary(f"/nanobatch.storage.v1.LeaseService/Made{number}Up")
                with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                    await call(b"", timeout=10)
        # A call is counted once it has ended, and its client may hear of the end first.
        await eventually(
            lambda: scrape(address).total("nanobatch_rpcs_total", method="unknown", code="UNAUTHENTICATED") == 20
        )
        seen = scrape(address)
        assert not [method for method in seen.labels("nanobatch_rpcs_total", "method") if "Made" in method]
