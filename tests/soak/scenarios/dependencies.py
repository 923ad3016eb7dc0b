"""Scenarios 5, 11 and 24: a database that is half there, storages that are killed, an object store in trouble."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
from google.protobuf.message import Message
from s3_server import S3Server, private_s3

from nanobatch.gateway.v1 import (
    account_service_pb2,
    analytics_service_pb2,
    image_service_pb2,
)
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.account_service_pb2_grpc import AccountServiceStub
from nanobatch.gateway.v1.analytics_service_pb2_grpc import AnalyticsServiceStub
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceStub
from nanobatch_runtime.failpoints import VARIABLE
from nanobatch_runtime.rpc.status import from_rpc_error
from soak.faultproxy import Mode
from soak.ground import Ground, Setup
from soak.report import Report
from soak.scenarios.outages import first_progress
from soak.scenarios.workers import create
from soak.stage import Stage, stage
from soak.storeusers import used
from soak.troubledstore import KINDS, TroubledStore

_CALL_LIMIT = 20.0
"""Longest that a call inside may take (nanobatch_runtime.rpc.channel)."""
_ROUNDS = 10
"""Of more work, for a storage that is to die at its third picture."""
_COLLECTED = 45.0
"""Storage collects what only the collector can close every half minute (nanobatch_storage.sweep.collect_garbage)."""
_PATIENCE = 60.0
"""Of who asks: not what ends a call."""
_PRECISE = {"OK", "UNAVAILABLE DATABASE_UNAVAILABLE", "UNAVAILABLE STORAGE_UNAVAILABLE"}
"""What a call may be answered while the database is not there."""
_READ = {
    "OK",
    "UNAVAILABLE PICTURE_STORE_UNAVAILABLE",
    "UNAVAILABLE STORAGE_UNAVAILABLE",
    "DATA_LOSS PICTURE_LOST",
}
"""What a download may end in while the store goes wrong: the last where it says that there is no such object."""
_RECOVERY = 5.0
"""R8: seconds from a database that is back to the next result."""
_POOL = 20
"""Connections of one storage (docs/operations.md)."""


async def half_open_database(ground: Ground, *, results: int = 300, lease: float = 8.0, long: float = 3.0) -> Report:
    """Nothing, or no answer, passes between storage and PostgreSQL for half a lease, a lease, and longer than any."""
    report = ground.report
    setup = Setup(lease_seconds=lease, proxies=frozenset({"database"}), watchers=1)
    async with stage(ground, setup) as on:
        await create(on, results)
        questions, recoveries = Questions(on), []
        plan = [(Mode.BLACKHOLE, 0.5), (Mode.HALF_OPEN, 0.5), (Mode.BLACKHOLE, 1.0), (Mode.HALF_OPEN, long)]
        async for n in on.over_the_run(len(plan), results // 2):
            mode, leases = plan[n]
            event = on.note("outage") if leases >= 1 else {}
            on.proxies["database"].mode = mode
            creation = on.creation(1)
            asking = asyncio.create_task(questions.ask(leases * lease, creation))
            try:
                await asyncio.sleep(leases * lease)
                on.proxies["database"].mode = Mode.PASS
                recoveries.append(await first_progress(on))
                # A call may be answered late by what was stuck in the meantime.
                event["until"] = time.monotonic() + 1
            finally:
                await asking
            await on.created(creation)  # the same again: whether it was carried out, nobody was told
            if n == 1:
                extra = len(on.provider.calls()) - on.final() - sum(on.provider.out().values())
                report.hold(f"below a lease: {max(0, extra)} calls more than results", kept=extra <= setup.slots * 3)
        await on.ended(within=180 + results / 2)
        on.verdict(report, results=results + len(plan))
        questions.judge(report)
        waited, left = await sessions_left(on)
        report.hold(
            f"{sum(left.values())} connections of storage {waited:.0f} s after the end, {_POOL} may be: {left}",
            kept=sum(left.values()) <= _POOL,
        )
        report.timely(
            f"first progress at most {_RECOVERY:.0f} s after it is back: {max(recoveries):.1f} s, n={len(recoveries)}",
            kept=max(recoveries) <= _RECOVERY,
        )
    return report


async def sessions_left(on: Stage) -> tuple[float, dict[str, int]]:
    """Give storage time to collect the tries to connect that it gave up; returns how long, and its sessions by state."""
    began = time.monotonic()
    while True:
        left = dict(
            on.rows(
                "select coalesce(state, 'starting'), count(*) from pg_stat_activity "
                "where application_name = 'nanobatch-storage' group by 1"
            )
        )
        waited = time.monotonic() - began
        if sum(left.values()) <= _POOL or waited > _COLLECTED:
            return waited, left
        await asyncio.sleep(1)


class Questions:
    """Calls of every kind at the gateways, for as long as an outage lasts, and how they were answered."""

    def __init__(self, on: Stage) -> None:
        """The reads are about a result that has its picture."""
        self._on = on
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._longest = ("", 0.0)
        ((result, execution, image),) = on.rows(
            "select id::text, execution_id::text, image_id::text from results where state = 'COMPLETED' limit 1"
        )
        self._reads: dict[str, tuple[type, Message]] = {
            "GetExecution": (ExecutionServiceStub, pb.GetExecutionRequest(execution_id=execution)),
            "ListExecutions": (ExecutionServiceStub, pb.ListExecutionsRequest()),
            "ListResults": (ExecutionServiceStub, pb.ListResultsRequest(execution_id=execution)),
            "GetResult": (ExecutionServiceStub, pb.GetResultRequest(result_id=result)),
            "GetImage": (ImageServiceStub, image_service_pb2.GetImageRequest(image_id=image)),
            "GetUsage": (AnalyticsServiceStub, analytics_service_pb2.GetUsageRequest()),
            "ListTokens": (AccountServiceStub, account_service_pb2.ListTokensRequest()),
        }

    async def ask(self, seconds: float, creation: pb.CreateExecutionRequest) -> None:
        """Ask for so long: a read of each kind again and again, and a creation, whose every repeat is the same one."""
        until = time.monotonic() + seconds
        kinds = {**self._reads, "CreateExecution": (ExecutionServiceStub, creation)}
        async with asyncio.TaskGroup() as tasks:
            for name, (stub, request) in kinds.items():
                tasks.create_task(self._ask(name, stub, request, until))

    async def _ask(self, name: str, stub: type, request: Message, until: float) -> None:
        while time.monotonic() < until:
            started = time.monotonic()
            try:
                await getattr(stub(self._on.channel()), name)(request, timeout=_PATIENCE)
                answer = "OK"
            except grpc.aio.AioRpcError as error:
                answer = f"{error.code().name} {from_rpc_error(error).reason}"
            self._answers[name][answer] += 1
            self._longest = max(self._longest, (name, time.monotonic() - started), key=lambda told: told[1])
            await asyncio.sleep(0.1)

    def judge(self, report: Report) -> None:
        """Hold that calls of each kind were refused in time where an outage is long, and that a refusal says what is away."""
        wrong = {name: told for name, told in self._answers.items() if told.keys() - _PRECISE}
        answers = sum(self._answers.values(), Counter())
        report.hold(
            f"calls of {len(self._answers)} kinds were answered {dict(answers)}"
            + (f"; not so {wrong}" if wrong else ""),
            kept=not wrong and all(told.keys() - {"OK"} for told in self._answers.values()),
        )
        name, longest = self._longest
        report.hold(
            f"every call was answered within its limit: the longest, {name}, after {longest:.1f} s",
            kept=longest <= _CALL_LIMIT + 2,
        )


async def storage_kills(ground: Ground, *, results: int = 600, kills: int = 20) -> Report:
    """SIGKILL one of two storages, then the only one; every second one dies by itself between a picture's bytes and row."""
    for storages in (2, 1):
        ground.report.say(f"note   with {storages} of them")
        await _storage_kills(ground, storages, results, kills)
    return ground.report


async def _storage_kills(ground: Ground, storages: int, results: int, kills: int) -> None:
    report = ground.report
    # Slow enough that work is left after twenty starts of a storage.
    setup = Setup(storages=storages, lease_seconds=15, slots=4, latency="uniform:0.5:1.5")
    async with stage(ground, setup) as on:
        await create(on, results)
        places, wanted, more = 0, results, list[asyncio.Task[str]]()
        async for n in on.over_the_run(kills, results):
            number = n % storages
            on.note("storage kill")
            if n % 4 >= 2:
                # One that dies at its third picture from its start on, in the middle of it or just behind it.
                on.storages[number].kill()
                on.storages[number].wait()
                place = "picture_written" if n % 8 < 4 else "picture_renamed"
                dying = on.start_storage(number, **{VARIABLE: f"{place}=kill@3"})
                for _ in range(_ROUNDS):
                    await on.when(lambda d=dying, w=wanted: d.poll() is not None or on.final() >= w, within=120)
                    if dying.poll() is not None:
                        break
                    # All was done before it had its third picture. It may die before it has answered.
                    more.append(asyncio.create_task(on.create(setup.slots * setup.generators)))
                    wanted += setup.slots * setup.generators
                places += dying.poll() is not None
                dying.kill()
                dying.wait()
            else:
                on.storages[number].kill()
                on.storages[number].wait()
            on.storages[number] = on.start_storage(number)
            await on.serving(on.storage_ports[number])
            await asyncio.gather(*more)
        await on.ended(within=180 + results / 3)
        on.verdict(report, results=wanted, extra_calls_allowed=False)
        report.hold(f"{places} of {kills} died between bytes and row", kept=places > 0)
    report.none_of(kills, "kills of a storage")


@asynccontextmanager
async def objects(ground: Ground) -> AsyncIterator[tuple[S3Server, str, TroubledStore]]:
    """Run an object store behind something that troubles it; yields it, the name of a bucket, and the trouble."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(private_s3())
        trouble = await stack.enter_async_context(TroubledStore(server.url, ground.seed).listening())
        yield server, server.bucket(), trouble


async def store_in_trouble(
    ground: Ground, *, results: int = 300, share: float = 0.2, kills: int = 4, away: float = 15.0
) -> Report:
    """A fifth of all requests go wrong in six ways, storages die between bytes and row, and for a while nothing answers.

    Meanwhile pictures are downloaded, and what no row names is swept.
    """
    report = ground.report
    async with objects(ground) as (server, bucket, trouble):
        store = server.environment(bucket, trouble.port)
        # Few places in flight, so that the run outlasts its troubles.
        setup = Setup(
            storages=2,
            generators=2,
            slots=3,
            latency="uniform:0.5:1.5",
            lease_seconds=15,
            environment=store,
        )
        async with stage(ground, setup) as on, used(on, server, bucket, store) as (readers, sweeper):
            await create(on, results)
            trouble.share = share
            async for n in on.over_the_run(kills, results // 2):
                number = n % 2
                on.note("storage kill")
                on.storages[number].kill()
                on.storages[number].wait()
                trouble.share = 0.0  # a start is refused where the store is: that is another test's business
                log, word = f"s{number + 1}", "storage.listening"
                before = on.log_of(log).count(word)
                dying = {VARIABLE: "picture_renamed=kill@3"} if n % 2 else {}
                on.storages[number] = on.start_storage(number, **dying)
                # Not its health: one that dies soon may be gone before it was asked.
                await on.when(lambda log=log, word=word, before=before: on.log_of(log).count(word) > before)
                trouble.share = share
            await on.when(lambda: on.final() >= results * 0.6, within=300)
            trouble.kinds, trouble.share = ("refused",), 1.0
            await asyncio.sleep(away)
            trouble.share = 0.0
            for number, process in enumerate(on.storages):
                if process.poll() is not None:  # died of its failpoint
                    on.storages[number] = on.start_storage(number)
            back = await first_progress(on)
            await on.ended(within=180 + results / 2)
            await on.when(lambda: sweeper.is_done, within=120)
            report.hold(
                f"{sweeper.passes} sweeps, {sweeper.failed} that the store broke off: {sweeper.removed} nameless objects went",
                kept=sweeper.failed > 0,
            )
            read = readers.ended
            report.hold(
                f"downloads of pictures that are there: {dict(read)}", kept=not read.keys() - _READ and len(read) > 1
            )
            server.mirror(bucket, "pictures/", on.folder / "data/pictures")
            on.verdict(report, results=results, extra_calls_allowed=False)
            done = {kind or "none": count for kind, count in sorted(trouble.done.items())}
            report.hold(f"requests by trouble: {done}", kept=all(trouble.done[kind] for kind in KINDS))
            report.timely(f"first progress {back:.1f} s after the store is back", kept=back <= 10)
        report.none_of(sum(trouble.done.values()) - trouble.done[""], "requests that went wrong")
    return report
