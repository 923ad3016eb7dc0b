"""Scenario 14: a crowd of watchers, some slow, some that read nothing, some that come and go; then no generator at all."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
import http2
import psutil
from processes import free_port
from scrape import scrape

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from soak.checker import FINAL
from soak.recorded import marker
from soak.report import Report
from soak.stage import Ground, Setup, Stage, stage

_MIB = 2**20
_IDLE_MIB, _VISITS_MIB, _STALLED_MIB = 64, 10, 1
"""R15: for a thousand that wait, for all that come and go, for each that does not read."""
_SOON, _TOLD_SECONDS = 1.0, 2.0
_CUT_SECONDS = 30.0
"""How long a gateway lets a message lie before it cuts the stream."""
_LEFT_SECONDS, _OTHERS = 30.0, 10
"""How long what visitors leave may take to go, and how much of it may be of somebody else."""
_LONG = " " + "boats of all colours " * 120
"""A prompt is told with each change of its result: these fill what lies between gateway and reader."""
_TINY = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
"""A client that gives its slow reader little room."""


async def audience(
    ground: Ground,
    *,
    idle: int = 1000,
    visits: int = 5000,
    slow: int = 50,
    stalled: int = 20,
    results: int = 100,
) -> Report:
    """One gateway with all of them; meanwhile ten ordinary watchers are to be told of each picture in time."""
    report = ground.report
    look = f"127.0.0.1:{free_port()}"
    setup = Setup(
        generators=2, gateways=1, slots=6, watchers=0, latency="uniform:3:5",
        environment={"NANOBATCH_LIMIT_STREAMS": "0", "NANOBATCH_LIMIT_WATCH": "0"},
    )  # fmt: skip
    async with stage(ground, setup) as on, AsyncExitStack() as stack:
        on.gateways[0].terminate()
        await asyncio.to_thread(on.gateways[0].wait, 30)
        on.gateways[0] = on.start_gateway(0, NANOBATCH_METRICS=look)
        await on.ready()
        gateway = psutil.Process(on.gateways[0].pid)
        memory = Memory(report, gateway)
        quiet = await _paused(on)
        await _visited(on, quiet, 300)  # what the first of them cost once is nobody's share

        async with memory.within(f"{idle} watchers that wait", _IDLE_MIB):
            waiting = await stack.enter_async_context(_crowd(on, quiet, idle, _follow))
            await on.when(lambda: waiting.met == idle)
        before = await _held(gateway, look)
        async with memory.within(f"{visits} that came and went", _VISITS_MIB):
            await _visited(on, quiet, visits)
        await _nothing_is_left(report, gateway, look, before, f"{visits} that came and went")

        busy = await on.create(results, words="a boat" + _LONG)
        on.watchers.follow(busy, 10, drop_after=(10**6, 10**6))
        async with memory.within(f"{slow} slow ones and {stalled} that read nothing", (slow + stalled) * _STALLED_MIB):
            slowly = await stack.enter_async_context(_crowd(on, busy, slow, _read_slowly, options=_TINY))
            for _ in range(stalled):
                stack.enter_context(_reads_nothing(on, busy))
            await on.when(lambda: slowly.met == slow)
            await on.when(lambda: on.final() >= results * 0.4, within=300)
        await _without_generators(on, report, waiting)
        await on.when(lambda: on.rows(f"select state from executions where id = '{busy}'") == [("COMPLETED",)], 300)
        await _cut(report, look, stalled)
        report.hold(f"slow ones that were cut: {slowly.ended}", kept=not slowly.ended)
        await on.call("CancelExecution", pb.CancelExecutionRequest(execution_id=quiet))
        await on.when(lambda: waiting.told + len(waiting.ended) == idle, within=60)
        report.hold(
            f"of {idle} that waited {waiting.told} were told of the end; cut: {waiting.ended[:3]}",
            kept=waiting.told == idle,
        )
        await on.ended(within=120)
        lags = _lags(on, busy)
        on.verdict(report, extra_calls_allowed=False, failures_allowed=0)
    p99 = sorted(lags)[math.ceil(0.99 * len(lags)) - 1]
    report.timely(
        f"from the provider's answer to ten ordinary watchers: p99 {p99:.2f} s (n={len(lags)})", kept=p99 <= _SOON
    )
    return report


class Memory:
    """What a process grows by, step by step."""

    def __init__(self, report: Report, process: psutil.Process) -> None:
        self._report, self._process = report, process

    @asynccontextmanager
    async def within(self, what: str, mib: float) -> AsyncIterator[None]:
        """Hold what is done in the context to so many MiB of growth."""
        before = self._process.memory_info().rss
        yield
        grown = (self._process.memory_info().rss - before) / _MIB
        self._report.hold(f"the gateway grows by {grown:.1f} MiB for {what}, {mib} at most", kept=grown <= mib)


@dataclass
class Audience:
    """Streams of one kind."""

    met: int = 0
    """How many have been told something."""
    ended: list[str] = field(default_factory=list)
    """What cut the others."""
    told: int = 0
    """How many have been told that the run has ended."""


Kind = Callable[[ExecutionServiceStub, str, Audience], Awaitable[None]]


@asynccontextmanager
async def _crowd(
    on: Stage, execution: str, count: int, kind: Kind, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[Audience]:
    """Have so many watch, over connections of fifty each; where each is to be alone, it has one of its own."""
    made = Audience()
    async with AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []
        try:
            for number in range(count):
                if options or number % 50 == 0:
                    own = [*options, ("grpc.use_local_subchannel_pool", 1)]
                    target = f"127.0.0.1:{on.gateway_ports[0]}"
                    channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options=own))
                tasks.append(
                    asyncio.create_task(_attended(partial(kind, ExecutionServiceStub(channel), execution), made))
                )
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _attended(kind: Callable[[Audience], Awaitable[None]], made: Audience) -> None:
    try:
        await kind(made)
    except grpc.aio.AioRpcError as error:
        made.ended.append(f"{error.code().name} {error.details()}")


async def _follow(stub: ExecutionServiceStub, execution: str, made: Audience) -> None:
    first = True
    async for _ in stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution)):
        made.met += first
        first = False
    made.told += 1


async def _read_slowly(stub: ExecutionServiceStub, execution: str, made: Audience) -> None:
    call = stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution))
    await call.read()
    made.met += 1
    async for _ in call:
        await asyncio.sleep(1)


def _reads_nothing(on: Stage, execution: str) -> socket.socket:
    """Ask for a watch, and never look at what comes."""
    request = pb.WatchExecutionRequest(execution_id=execution).SerializeToString()
    made = socket.create_connection(("127.0.0.1", on.gateway_ports[0]))
    made.sendall(http2.narrow_opening() + http2.request(1, http2.WATCH, request))
    return made


async def _paused(on: Stage) -> str:
    """Make a run in which nothing happens."""
    execution = await on.create(40, words="{{latency:2}} a boat")
    await on.when(lambda: sum(on.provider.out().values()) > 0)
    await on.call("PauseExecution", pb.PauseExecutionRequest(execution_id=execution))
    await on.when(lambda: not any(on.provider.out().values()))
    return execution


async def _visited(on: Stage, execution: str, visits: int) -> None:
    """Open a watch, read a message, leave; twenty at a time."""
    left = iter(range(visits))

    async def visitor() -> None:
        for _ in left:
            call = on.stub(0).WatchExecution(pb.WatchExecutionRequest(execution_id=execution))
            await call.read()
            call.cancel()

    await asyncio.gather(*(visitor() for _ in range(20)))


async def _without_generators(on: Stage, report: Report, waiting: Audience) -> None:
    """Stop all generators, change something, start them again: whoever watches is told, and stays."""
    for one in on.generators:
        one.process.send_signal(signal.SIGTERM)
    for one in on.generators:
        await asyncio.to_thread(one.process.wait, 60)
    other = await on.create(2)
    async with _crowd(on, other, 5, _follow) as audience:
        await on.when(lambda: audience.met == 5)
        began = time.monotonic()
        await on.call("CancelExecution", pb.CancelExecutionRequest(execution_id=other))
        await on.when(lambda: audience.told == 5, within=60)
        took = time.monotonic() - began
    report.timely(f"without any generator a cancel is told within {took:.1f} s", kept=took <= _TOLD_SECONDS)
    report.hold(f"watchers that were cut as generators went: {waiting.ended[:3]}", kept=not waiting.ended)
    for one in on.generators:
        one.start()


async def _held(process: psutil.Process, look: str) -> dict[str, int]:
    """Return how many tasks, files and threads the process has."""
    seen = await asyncio.to_thread(scrape, look)
    tasks = int(seen.total("nanobatch_tasks"))
    return {"tasks": tasks, "descriptors": process.num_fds(), "threads": process.num_threads()}


async def _nothing_is_left(
    report: Report, process: psutil.Process, look: str, before: dict[str, int], what: str
) -> None:
    """Wait until what the process holds is what it was, but for a few calls of others that may just be going on."""
    deadline = time.monotonic() + _LEFT_SECONDS
    while True:
        now = await _held(process, look)
        kept = all(now[kind] <= before[kind] + _OTHERS for kind in before)
        if kept or time.monotonic() > deadline:
            break
        await asyncio.sleep(1)
    report.hold(f"the gateway holds {now} after {what}, {before} before", kept=kept)


async def _cut(report: Report, look: str, stalled: int) -> None:
    """Wait until the gateway has cut all that read nothing."""
    deadline, cut = time.monotonic() + 2 * _CUT_SECONDS, 0.0
    while cut < stalled and time.monotonic() < deadline:
        seen = await asyncio.to_thread(scrape, look)
        cut = seen.total("nanobatch_rpcs_total", method="WatchExecution", code="RESOURCE_EXHAUSTED")
        await asyncio.sleep(1)
    report.hold(f"{cut:.0f} of {stalled} that read nothing were cut", kept=cut == stalled)


def _lags(on: Stage, execution: str) -> list[float]:
    """Return the seconds from each answer of the provider until each ordinary watcher knew."""
    answered = {marker(call["prompt"]): call["ended"] for call in on.provider.calls()}
    rows = on.rows(f"select id::text, prompt_text from results where execution_id = '{execution}'")
    markers = {name: marker(text) for name, text in rows}
    messages = [
        json.loads(line)
        for path in on.watchers.folder.glob(f"{execution}-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [
        message["at"] - answered[markers[message["result"]]]
        for message in messages
        if message.get("state") in FINAL and message.get("result") in markers
    ]
