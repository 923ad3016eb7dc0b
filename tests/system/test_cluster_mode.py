"""Cluster mode with real processes: what may start, in which order, and what Redis may do meanwhile."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from fakes.gemini import FakeGemini
from grpc_health.v1 import health_pb2, health_pb2_grpc
from postgres_server import private_postgres
from processes import Cluster, cluster, free_port
from redis_server import private_redis

from nanobatch_client.models import ExecutionState, ProgressUpdate, ResultState
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def on_database(folder, server, **environment: str) -> Iterator[Cluster]:
    name = server.create()
    with cluster(folder, NANOBATCH_DATABASE_URL=server.url(name), NANOBATCH_LEASE_SECONDS="5", **environment) as made:
        yield made
        for log in folder.glob("*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()[-4000:]
    server.drop(name)


async def health(target: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)).status


async def serving(target: str) -> bool:
    return await health(target) == SERVING


async def test_storage_waits_for_its_database_says_so_once_and_may_be_stopped_meanwhile(tmp_path):
    with private_postgres(durable=True) as server:
        name = server.create()
        server.stop()
        with cluster(tmp_path, NANOBATCH_DATABASE_URL=server.url(name)) as services:
            first = services.storage()
            assert await health(services.storage_target) == NOT_SERVING
            first.terminate()
            assert await asyncio.to_thread(first.wait, 20) == 0
            assert services.log("storage").count("storage.waits_for_database") == 1
            assert "refused" in services.log("storage")  # by whom, and why

            services.storage("later")
            services.gateway()
            assert await health(services.storage_target) == NOT_SERVING
            assert await health(services.target) == NOT_SERVING
            # Before that the database may come within the gateway's first call: gRPC repeats it, and nothing was missed.
            await eventually(lambda: "gateway.waits_for_storage" in services.log("gateway"), within=30)
            server.start()
            await eventually(lambda: serving(services.storage_target), within=90)
            await eventually(lambda: serving(services.target), within=90)
            assert services.log("later").count("storage.waits_for_database") == 1
            assert "storage.database_met" in services.log("later")
            # A line for each reason, not for each try: nobody there, too slow, somebody who waits as well.
            assert services.log("gateway").count("gateway.waits_for_storage") <= 3


async def test_a_second_storage_without_redis_ends_with_one_line_and_a_killed_one_leaves_no_claim(
    tmp_path, postgres_server
):
    with on_database(tmp_path, postgres_server) as services:
        first = services.storage()
        await eventually(lambda: serving(services.storage_target), within=90)
        second = services.storage("second", NANOBATCH_STORAGE_GRPC=f"127.0.0.1:{free_port()}")
        assert await asyncio.to_thread(second.wait, 40) == 1
        lines = [line for line in services.log("second").splitlines() if "cannot_serve" in line]
        assert len(lines) == 1
        assert "NANOBATCH_REDIS_URL" in lines[0]
        first.kill()
        await asyncio.to_thread(first.wait)
        services.storage("third")
        await eventually(lambda: serving(services.storage_target), within=90)


async def test_a_redis_url_that_is_none_ends_every_service_with_two_and_its_variable(tmp_path):
    with cluster(tmp_path, NANOBATCH_REDIS_URL="http://s3cret@cache") as services:
        started = {"storage": services.storage(), "gateway": services.gateway(), "one": services.generator("one")}
        for name, process in started.items():
            assert await asyncio.to_thread(process.wait, 30) == 2
            assert services.log(name).startswith("NANOBATCH_REDIS_URL: write ")
            assert "s3cret" not in services.log(name)


async def test_a_gateway_or_generator_with_another_redis_than_storage_or_none_ends_with_one_line(
    tmp_path, postgres_server, redis_server
):
    with (
        private_redis() as other,
        on_database(tmp_path, postgres_server, NANOBATCH_REDIS_URL=redis_server.url) as services,
    ):
        services.storage()
        started = {}
        for which, url in (("another", other.url), ("none", "")):
            own = {"NANOBATCH_REDIS_URL": url}
            started[f"gateway-{which}"] = services.gateway(
                f"gateway-{which}", NANOBATCH_GATEWAY_GRPC="127.0.0.1:0", **own
            )
            started[f"generator-{which}"] = services.generator(f"generator-{which}", **own)
        right = services.gateway("right")
        for name, process in started.items():
            assert await asyncio.to_thread(process.wait, 90) == 1
            lines = [line for line in services.log(name).splitlines() if "set NANOBATCH_REDIS_URL" in line]
            assert 1 <= len(lines) <= 2
        await eventually(lambda: serving(services.target), within=90)
        assert right.poll() is None


@pytest.mark.timeout(240)
async def test_whatever_happens_to_redis_no_call_fails_and_watchers_lose_nothing(
    tmp_path, postgres_server, redis_server, connect
):
    redis_server.kill()  # every service may start before it
    async with FakeGemini(picture_bytes=30_000) as upstream:
        upstream._latency = 0.4
        with on_database(
            tmp_path,
            postgres_server,
            NANOBATCH_REDIS_URL=redis_server.url,
            NANOBATCH_GENERATOR_CONCURRENCY="2",
            NANOBATCH_LIMIT_SPEND="0",
        ) as services:
            other = f"127.0.0.1:{free_port()}"
            services.storage()
            services.storage("other", NANOBATCH_STORAGE_GRPC=other)
            services.gateway()
            # What the generator commits at one storage is watched at the other.
            services.generator("one", upstream.url, NANOBATCH_STORAGE_TARGET=other)
            client = await connect(services.target, within=90)
            execution = await client.create_execution([f"boat {n}" for n in range(30)], model=MODEL, api_key=KEY)
            finals: list[str] = []

            async def watch() -> None:
                async for update in client.watch(execution.id):
                    result = getattr(update, "result", None)
                    if result is not None and result.state is ResultState.COMPLETED:
                        finals.append(result.id)

            async def call() -> None:
                while True:  # every one of them must succeed
                    await client.get_execution(execution.id)
                    more = await client.create_execution(["one more"], model="sandbox")
                    await client.cancel_execution(more.id)  # two slots would never be done with all of them

            watching, calling = asyncio.create_task(watch()), asyncio.create_task(call())
            for trouble in (redis_server.start, flushed(redis_server), redis_server.freeze, None):
                before = len(finals)
                if trouble is not None:
                    trouble()
                await eventually(lambda before=before: len(finals) >= before + 3, within=60)
            redis_server.thaw()
            redis_server.kill()
            await asyncio.wait_for(watching, 120)
            calling.cancel()
            (ended,) = await asyncio.gather(calling, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended
            done = await client.get_execution(execution.id)
            await client.__aexit__(None, None, None)
            assert done.state is ExecutionState.COMPLETED
            assert len(finals) == len(set(finals)) == 30
            assert len(upstream.calls) == 30
            for name in ("storage", "other"):
                assert 1 <= len(re.findall("redis.away", services.log(name))) <= 3
                assert "redis.back" in services.log(name)
            for process in services.running:
                process.send_signal(signal.SIGTERM)
            assert [await asyncio.to_thread(process.wait, 30) for process in services.running] == [0] * 4


def flushed(server):
    return lambda: server.run("FLUSHALL")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("shared", [True, False], ids=["with redis", "without"])
async def test_watchers_at_one_generator_see_live_percentages_of_calls_that_another_makes(
    tmp_path, postgres_server, redis_server, connect, shared
):
    redis = {"NANOBATCH_REDIS_URL": redis_server.url} if shared else {}
    async with FakeGemini(picture_bytes=30_000) as first, FakeGemini(picture_bytes=30_000) as second:
        first._latency = second._latency = 8
        with on_database(tmp_path, postgres_server, NANOBATCH_GENERATOR_CONCURRENCY="1", **redis) as services:
            services.storage(), services.gateway()
            services.generator("here", first.url, at=services.generator_target)
            services.generator("elsewhere", second.url)
            client = await connect(services.target, within=90)
            await eventually(lambda: serving(services.generator_target), within=90)
            execution = await client.create_execution(["a", "b"], model=MODEL, api_key=KEY)
            told: dict[str, list[int]] = {}
            async for update in client.watch(execution.id):
                if isinstance(update, ProgressUpdate) and update.progress.result_id:
                    told.setdefault(update.progress.result_id, []).append(update.progress.percent)
            await client.__aexit__(None, None, None)
            assert len(first.calls) == len(second.calls) == 1
            assert len(told) == (2 if shared else 1)
            for percents in told.values():
                assert percents == sorted(percents)
                assert 3 <= len(percents) <= 20  # about one a second


async def test_a_picture_store_that_cannot_be_written_to_is_told_at_the_start(tmp_path, s3_server):
    store = {**s3_server.environment("no-such-bucket"), "AWS_SECRET_ACCESS_KEY": "s3cret-of-the-store"}
    with cluster(tmp_path, **store) as services:
        assert await asyncio.to_thread(services.storage().wait, 60) == 1
        (line,) = [line for line in services.log("storage").splitlines() if "cannot_serve" in line]
        assert "NANOBATCH_BLOB_URL: s3://no-such-bucket/pictures" in line
        assert "NoSuchBucket" in line or "404" in line
        assert "s3cret" not in services.log("storage")
