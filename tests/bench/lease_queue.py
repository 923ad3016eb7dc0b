"""The queue on PostgreSQL: what a lease costs as it grows, how much of it a storage does in a second, how it scales."""

from __future__ import annotations

import asyncio
import hashlib
import statistics
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from pathlib import Path

import grpc
import psutil
from google.protobuf.duration_pb2 import Duration
from postgres_server import PostgresServer, private_postgres
from processes import Cluster, cluster, free_port, upstream
from queue_seed import seed
from redis_server import private_redis

from nanobatch.gateway.v1 import image_pb2
from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceStub
from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from nanobatch_storage import migrate
from nanobatch_storage.adapters.accounts_sql import SqlAccounts
from nanobatch_storage.adapters.control_sql import SqlControl
from nanobatch_storage.adapters.database import Database, open_database
from nanobatch_storage.adapters.executions_sql import SqlExecutions
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import Actor, LeaseRef, NewExecution, NewPrompt, Settings

_SIZES = (1_000, 100_000, 1_000_000)
_PICTURE = b"p" * 2_000
MODEL = "gemini-2.5-flash-image"
_WAVES = 30
"""So many calls of each slot: with ten, the begin and the end of a run, where slots are free, were a sixth of it."""


async def bench_lease(folder: Path, rounds: int) -> None:
    """Lease of one result while a thousand to a million wait in 100 active executions; sizes take turns."""
    with private_postgres() as server, ExitStack() as running:
        async with AsyncExitStack() as stack:
            direct: dict[int, Callable[[], Awaitable[object]]] = {}
            remote: dict[int, Callable[[], Awaitable[object]]] = {}
            for size in _SIZES:
                url = server.url(server.create())
                await migrate.upgrade(url)
                await asyncio.to_thread(seed, url, pending=size)
                database = await stack.enter_async_context(open_database(url))
                leases = SqlLeases(database, duration=timedelta(minutes=30))
                direct[size] = lambda leases=leases: leases.take(1)  # type: ignore[misc]
                services = running.enter_context(cluster(folder / str(size), NANOBATCH_DATABASE_URL=url))
                services.folder.mkdir()
                services.storage()
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(services.storage_target))
                stub, request = LeaseServiceStub(channel), pb.LeaseResultsRequest(max_results=1)
                remote[size] = lambda stub=stub, request=request: stub.LeaseResults(request, wait_for_ready=True)  # type: ignore[misc]
            for name, takes in (("use case", direct), ("through gRPC", remote)):
                times = await _in_turns(takes, 100 * rounds)
                p95 = {size: _part(found, 0.95) for size, found in times.items()}
                shown = ", ".join(f"{size:,}: {_part(times[size], 0.5):.1f}/{p95[size]:.1f}" for size in _SIZES)
                print(f"  {name}, p50/p95 in ms: {shown}")
                ratio = p95[_SIZES[-1]] / p95[_SIZES[0]]
                print(
                    f"lease p95, 1 million against 1 thousand, {name}: {ratio:.2f} (goal: at most 1.3), n={100 * rounds}"
                )


async def _in_turns(takes: dict[int, Callable[[], Awaitable[object]]], count: int) -> dict[int, list[float]]:
    times: dict[int, list[float]] = {size: [] for size in takes}
    for number in range(count + 20):
        for size, take in takes.items():
            started = time.perf_counter()
            await take()
            if number >= 20:  # until then connections open and plans are made
                times[size].append((time.perf_counter() - started) * 1000)
    return times


def _part(values: list[float], part: float) -> float:
    return sorted(values)[int(len(values) * part)]


async def bench_queue(folder: Path, rounds: int) -> None:
    """Workers that lease, extend, start and complete small pictures as fast as storages on PostgreSQL let them."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with private_postgres() as server, private_redis() as redis:
        for number in range(rounds):
            for storages, found in speeds.items():  # in turns: how quick the machine is changes by the minute
                url = server.url(server.create())
                await migrate.upgrade(url)
                await asyncio.to_thread(seed, url, pending=20_000)
                own = {"NANOBATCH_DATABASE_URL": url, "NANOBATCH_REDIS_URL": redis.url}
                with cluster(folder / f"queue-{number}-{storages}", **own) as services:
                    services.folder.mkdir()
                    found.append(await _drive(services, storages, seconds=10))
    for storages, found in speeds.items():
        print(
            f"queue operations a second, {storages} storage{'s' * (storages > 1)}: {statistics.median(found):.0f},"
            f" {min(found):.0f} to {max(found):.0f} (goal: at least 500), n={rounds}"
        )


async def _drive(services: Cluster, storages: int, *, seconds: float) -> float:
    targets = [services.storage_target, *(f"127.0.0.1:{free_port()}" for _ in range(1, storages))]
    processes = [
        psutil.Process(services.storage(f"storage-{place}", NANOBATCH_STORAGE_GRPC=target).pid)
        for place, target in enumerate(targets)
    ]
    calls: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(target)) for target in targets * 4][:4]
        for channel in channels:
            await LeaseServiceStub(channel).LeaseResults(pb.LeaseResultsRequest(max_results=1), wait_for_ready=True)
        until = time.monotonic() + 2
        await asyncio.gather(*(_work(LeaseServiceStub(channel), until, Counter()) for channel in channels))
        used, own, started = _cpu(processes), time.process_time(), time.monotonic()
        until = started + seconds
        await asyncio.gather(*(_work(LeaseServiceStub(channel), until, calls) for channel in channels))
        took, cpu, client = time.monotonic() - started, _cpu(processes) - used, time.process_time() - own
    total = sum(calls.values())
    mix = ", ".join(f"{count / took:.0f} {name}" for name, count in calls.items())
    costs = [1000 * each / calls["complete"] for each in (cpu, client)]
    print(f"  {storages}: {total / took:.0f} calls a second ({mix}); ", end="")
    print(f"CPU-ms a picture: storages {costs[0]:.1f}, client {costs[1]:.1f}")
    return total / took


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


async def _work(stub: LeaseServiceStub, until: float, calls: Counter[str]) -> None:
    while time.monotonic() < until:
        found = (await stub.LeaseResults(pb.LeaseResultsRequest(max_results=8, wait=Duration(seconds=1)))).leases
        calls["lease"] += 1
        await asyncio.gather(*(_finish(stub, lease, calls) for lease in found))


async def _finish(stub: LeaseServiceStub, lease: pb.Lease, calls: Counter[str]) -> None:
    ref = pb.LeaseRef(result_id=lease.result_id, lease_id=lease.lease_id)
    opened = await stub.StartAttempt(pb.StartAttemptRequest(lease=ref, bucket_id=lease.bucket_id))
    lost = (await stub.ExtendLeases(pb.ExtendLeasesRequest(leases=[ref]))).lost
    if lost:
        raise SystemExit("a lease was lost though nobody was slow")
    await stub.CompleteResult(_completion(ref, opened.attempt_id))
    calls.update(("start", "extend", "complete"))


async def _completion(ref: pb.LeaseRef, attempt_id: str) -> AsyncIterator[pb.CompleteResultRequest]:
    picture = pb.NewImage(
        id=str(uuid.uuid4()), kind=image_pb2.IMAGE_KIND_MASTER, mime_type="image/png", width=1, height=1,
        size_bytes=len(_PICTURE), sha256=hashlib.sha256(_PICTURE).hexdigest(),
    )  # fmt: skip
    yield pb.CompleteResultRequest(header=pb.CompletionHeader(lease=ref, attempt_id=attempt_id, images=[picture]))
    yield pb.CompleteResultRequest(chunk=_PICTURE)


async def bench_scaling(folder: Path, rounds: int) -> None:
    """Calls of 1 s, pictures of 20 KB, 10 at a time in each generator, window 64: one generator against four."""
    ratios = []
    for number in range(rounds):
        speeds = {}
        for generators in (1, 4):
            speeds[generators] = await _scale(folder / f"scaling-{number}-{generators}", generators)
        ratios.append(speeds[4] / speeds[1])
        print(f"  {speeds[1]:.1f} and {speeds[4]:.1f} pictures a second")
    print(f"four generators against one: {statistics.median(ratios):.2f} (goal: at least 3.6), n={rounds}")


async def _scale(folder: Path, generators: int) -> float:
    folder.mkdir()  # noqa: ASYNC240  # nothing else runs yet
    settings = {
        "NANOBATCH_CREDENTIAL_WINDOW": "64",
        "NANOBATCH_GENERATOR_CONCURRENCY": "10",
    }
    with (
        private_postgres() as server,
        upstream(folder, picture_bytes=20_000, latency="1") as fake,
        cluster(folder, NANOBATCH_DATABASE_URL=server.url(server.create()), **settings) as services,
    ):
        services.storage()
        services.gateway()
        for number in range(generators):
            at = services.generator_target if number == 0 else "127.0.0.1:0"
            services.generator(f"generator-{number}", fake.url, at=at)
        async with Client(services.target) as client:
            await _made(client, 1 + generators * 10)
            count = _WAVES * 10 * generators
            skip = len(fake.calls())
            ended = await _made(client, count)
            calls = fake.calls()[skip:]
    if len(calls) != count:
        raise SystemExit(f"{len(calls)} calls for {count} pictures")
    # From the first call on: how fast a run is created is no matter of the generators' number.
    first = min(call["arrived"] for call in calls) + time.time() - time.monotonic()  # the machine's one steady clock
    return count / (ended - first)


async def _made(client: Client, count: int) -> float:
    """Have pictures made, up to a hundred a run, all runs at once; returns when the last of them ended."""

    async def run(prompts: int) -> float:
        execution = None
        while execution is None:
            try:
                execution = await client.create_execution(
                    [f"prompt {n}" for n in range(prompts)], model=MODEL, api_key="bench-key"
                )
            except NanobatchError:
                await asyncio.sleep(0.1)
        while not (done := await client.get_execution(execution.id)).end_time:  # noqa: ASYNC110  # cheaper than a watch
            await asyncio.sleep(1)  # the end is told to the microsecond, however late it is asked for
        if done.stats.completed != prompts:
            raise SystemExit(f"only {done.stats.completed} of {prompts} were made")
        return done.end_time.timestamp()

    sizes = [100] * (count // 100) + [count % 100] * bool(count % 100)
    return max(await asyncio.gather(*map(run, sizes)))


async def bench_flood(folder: Path, rounds: int) -> None:
    """One prompt behind ten thousand of another user on one bucket of ten: from a slot's freeing to its lease."""
    waits = []
    with private_postgres() as server:
        for _ in range(rounds):
            waits += await _flood(server)
    print(f"a single prompt behind 10,000: leased {max(waits) * 1000:.0f} ms after a slot was free at most", end=" ")
    print(f"(median {statistics.median(waits) * 1000:.0f}; goal: 1000), n={len(waits)}")


async def _flood(server: PostgresServer) -> list[float]:
    url = server.url(server.create())
    await migrate.upgrade(url)
    waits = []
    async with open_database(url) as database:
        leases = SqlLeases(database, duration=timedelta(minutes=5), ahead=0)
        ledger, executions = SqlLedger(database), SqlExecutions(database, window=10)
        flood, small = await _user(database), await _user(database)
        for _ in range(100):
            await executions.create(flood, _run(100))
        held = list((await leases.take(10)).leases)
        for _ in range(10):
            single, _created = await executions.create(small, _run(1))
            if (await leases.take(5)).leases:
                raise SystemExit("more was leased than the window allows")
            lease = held.pop(0)
            await ledger.release([LeaseRef(lease.result.id, lease.result.lease_id or "")])
            freed = time.perf_counter()
            (taken,) = (await leases.take(5)).leases
            waits.append(time.perf_counter() - freed)
            if taken.execution.id != single.id:
                raise SystemExit("the flood was served before the single prompt")
            await ledger.release([LeaseRef(taken.result.id, taken.result.lease_id or "")])
            await _cancel(database, small, single.id)
            held += (await leases.take(5)).leases
    return waits


async def _user(database: Database) -> Actor:
    actor = Actor(str(uuid.uuid4()))
    await SqlAccounts(database).ensure_user(actor, "somebody")
    return actor


async def _cancel(database: Database, actor: Actor, execution_id: str) -> None:
    await SqlControl(database, window=10).cancel(actor, execution_id)


def _run(count: int) -> NewExecution:
    prompts = tuple(NewPrompt(f"prompt {number}") for number in range(count))
    return NewExecution("sandbox", "sandbox", Settings(), prompts, "one bucket for all")
