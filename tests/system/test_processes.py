"""One service per process, on PostgreSQL, over TCP: started in any order, scaled, stopped, killed, frozen."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator

import grpc
import psutil
import psycopg
import pytest
from fakes.gemini import FakeGemini
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import Cluster, cluster

from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
LEASE_SECONDS = 2


class Database:
    """The services' database, looked at from outside."""

    def __init__(self, server, name: str) -> None:
        self._server, self._name = server, name

    def rows(self, query: str) -> list[tuple]:
        with psycopg.connect(
            host="127.0.0.1", port=self._server.port, user="nanobatch", dbname=self._name, autocommit=True
        ) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def database(postgres_server) -> Iterator[Database]:
    name = postgres_server.create()
    yield Database(postgres_server, name)
    postgres_server.drop(name)


@pytest.fixture
def services(tmp_path, postgres_server, database) -> Iterator[Cluster]:
    with cluster(
        tmp_path,
        NANOBATCH_DATABASE_URL=postgres_server.url(database._name),
        NANOBATCH_LEASE_SECONDS=str(LEASE_SECONDS),
        NANOBATCH_GENERATOR_CONCURRENCY="5",
    ) as made:
        yield made
        for log in tmp_path.glob("*.log"):
            assert "Traceback" not in log.read_text(), log.read_text()[-4000:]


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[FakeGemini, FakeGemini]]:
    """An upstream for each of two generators, so that it is known who made which call."""
    async with FakeGemini(picture_bytes=30_000) as first, FakeGemini(picture_bytes=30_000) as second:
        yield first, second


async def test_services_come_up_in_any_order_two_generators_share_the_work_and_a_stop_costs_no_call(
    services, upstreams, connect, database
):
    first, second = upstreams
    for upstream in upstreams:
        upstream._latency = 0.2
    gateway = services.gateway()
    assert await health(services.target) == health_pb2.HealthCheckResponse.NOT_SERVING  # storage is not there yet
    one, two = services.generator("one", first.url), services.generator("two", second.url)
    storage = services.storage()
    client = await connect(services.target)
    await eventually(lambda: serving(services.target))

    execution = await client.create_execution([f"boat {n}" for n in range(60)], model=MODEL, api_key=KEY)
    await eventually(lambda: min(len(first.calls), len(second.calls)) >= 8, within=30)
    started = time.monotonic()
    one.terminate()
    assert await asyncio.to_thread(one.wait, 20) == 0
    assert time.monotonic() - started < 10
    done = await asyncio.wait_for(end_of(client, execution.id), 60)
    await client.__aexit__(None, None, None)

    assert (done.state, done.stats.completed) == (ExecutionState.COMPLETED, 60)
    assert len(first.calls) + len(second.calls) == 60  # nothing twice, and none extra on a graceful stop
    assert (first.prompts() + second.prompts()).most_common(1)[0][1] == 1
    # What was opened and not sent when the stop came was given back, and is no call.
    sent = database.rows("select charged, count(*) from attempts where outcome <> 'RELEASED' group by 1")
    assert sent == [("YES", 60)]
    assert len(first.checks) + len(second.checks) == 1
    for process in (gateway, two, storage):
        process.terminate()
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert database.rows("select count(*) from results where state = 'PROCESSING'") == [(0,)]


async def test_kill_dash_nine_of_a_generator_repeats_only_what_was_in_flight(services, upstreams, connect, database):
    first, second = upstreams
    for upstream in upstreams:
        upstream._latency = 0.3
    services.storage(), services.gateway()
    one, _ = services.generator("one", first.url), services.generator("two", second.url)
    client = await connect(services.target)
    execution = await client.create_execution([f"boat {n}" for n in range(60)], model=MODEL, api_key=KEY)
    await eventually(lambda: len(first.calls) >= 10 and first.in_flight, within=30)
    children = psutil.Process(one.pid).children(recursive=True)
    answered = sum(call.finished for call in first.calls)
    one.kill()
    await asyncio.to_thread(one.wait)
    done = await asyncio.wait_for(end_of(client, execution.id), 60)
    results = [result async for result in client.list_results(execution.id)]
    await client.__aexit__(None, None, None)

    assert done.state is ExecutionState.COMPLETED
    assert [result.state for result in results] == [ResultState.COMPLETED] * 60
    calls = len(first.calls) + len(second.calls)
    # A call that was answered and not committed yet counts as in flight too: at most the generator's slots, twice.
    assert 60 < calls <= 60 + (len(first.calls) - answered) + 5
    written = ledger_of(database)
    assert (written["open"], written["paid"]) == (0, 60)
    assert calls <= written["calls"] <= calls + 5  # written before it is sent: the kill may have come between
    assert not psutil.wait_procs(children, timeout=10)[1]  # its decoders end with it


async def test_a_frozen_generator_comes_back_late_and_changes_nothing(services, upstreams, connect, database, tmp_path):
    first, second = upstreams
    first._latency, second._latency = 0.5, 0.1
    services.storage(), services.gateway()
    one = services.generator("one", first.url)
    client = await connect(services.target)
    execution = await client.create_execution([f"boat {n}" for n in range(20)], model=MODEL, api_key=KEY)
    await eventually(lambda: len(first.calls) >= 8 and first.in_flight == 5, within=30)
    one.send_signal(signal.SIGSTOP)
    frozen = len(first.calls)
    services.generator("two", second.url)
    done = await asyncio.wait_for(end_of(client, execution.id), 60)
    assert done.stats.completed == 20
    before = snapshot(database)
    one.send_signal(signal.SIGCONT)
    # All that it held is refused: it says so of each, and takes no further call.
    await eventually(lambda: len(re.findall(r"lease\.lost", services.log("one"))) >= 5, within=20)
    one.terminate()
    assert await asyncio.to_thread(one.wait, 20) == 0

    assert snapshot(database) == before
    results = [result async for result in client.list_results(execution.id)]
    after = await client.get_execution(execution.id)
    await client.__aexit__(None, None, None)
    assert len({result.image_id for result in results}) == 20
    assert after.stats == done.stats
    counted = database.rows("select count(*), sum(cost_micros), sum(uncertain_micros) from results")
    assert counted == [(20, after.stats.total_cost_micros, after.stats.uncertain_cost_micros)]
    calls = len(first.calls) + len(second.calls)
    assert len(first.calls) == frozen
    # Called again: what was out when it froze, and what had been answered and was not stored yet.
    stored = len(re.findall(r"result\.finished", services.log("one")))
    assert calls == 20 + frozen - stored
    assert ledger_of(database) == {"calls": calls, "open": 0, "paid": 20}
    assert database.rows("select count(*) from images where kind = 'MASTER'") == [(20,)]
    assert len(list((tmp_path / "data/pictures").rglob("*.png"))) == 20
    assert not [path for path in (tmp_path / "one/spool").rglob("*") if path.is_file() and path.stat().st_size]


def ledger_of(database: Database) -> dict[str, int]:
    ((calls, still_open, paid),) = database.rows(
        "select count(*), count(*) filter (where charged is null), count(*) filter (where charged = 'YES') from attempts"
    )
    return {"calls": calls, "open": still_open, "paid": paid}


def snapshot(database: Database) -> list[list[tuple]]:
    return [database.rows(f"table {table} order by id") for table in ("executions", "results", "attempts", "images")]


async def health(target: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        return (await stub.Check(request, wait_for_ready=True, timeout=30)).status


async def serving(target: str) -> bool:
    return await health(target) == health_pb2.HealthCheckResponse.SERVING


async def end_of(client, execution_id):
    async for _ in client.watch(execution_id):
        pass
    return await client.get_execution(execution_id)
