"""Scenarios 9 and 10: orderly stops that nobody notices, and a gateway that is killed."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from asking import Asking

from nanobatch.gateway.v1 import execution_service_pb2
from nanobatch_client import Client
from soak.ground import KEY, MODEL
from soak.report import Report
from soak.scenarios.workers import create
from soak.stage import Ground, Setup, Stage, stage

T = TypeVar("T")

_GRACE = 40.0
_OWN_PROMPTS = 100_000
"""Where the markers of the load's own prompts begin."""


async def rolling_restarts(
    ground: Ground, *, results: int = 400, rounds: int = 3, calls_a_second: float = 20
) -> Report:
    """SIGTERM every process in turn, rounds over, under load: exits 0 in its grace, no call fails, none is made twice."""
    report = ground.report
    setup = Setup(storages=2, slots=4, latency="uniform:0.5:3", lease_seconds=5, watchers=1)
    async with stage(ground, setup) as on:
        each = results // (rounds * (len(on.storage_ports) + len(on.gateway_ports) + len(on.generators)))
        stops, cut_short = [], 0
        async with loaded(on, calls_a_second) as load:
            for _ in range(rounds):
                for number in range(len(on.storages)):
                    load.execution = await on.create(each)
                    stops.append(await load.creating(stopped(on.storages[number])))
                    on.storages[number] = on.start_storage(number)
                    await on.serving(on.storage_ports[number])
                for number in range(len(on.gateways)):
                    await on.create(each)
                    stops.append(await load.creating(stopped(on.gateways[number])))
                    on.gateways[number] = on.start_gateway(number)
                    await on.serving(on.gateway_ports[number])
                for one in on.generators:
                    assert one.process is not None
                    # A stop that meets no call in flight would prove nothing.
                    await on.create(each)
                    await on.when(one.is_busy)
                    stops.append(await load.creating(stopped(one.process)))
                    cut_short += one.is_busy()
                    one.start()
            await on.ended(within=180 + results)
        on.verdict(report, results=each * len(stops) + load.created, extra_calls_allowed=False)
        slowest = max(seconds for _, seconds in stops)
        codes = sorted({code for code, _ in stops})
        report.hold(
            f"{len(stops)} stops: exit codes {codes}, the slowest took {slowest:.1f} s",
            kept=codes == [0] and slowest < _GRACE,
        )
        report.hold(f"{cut_short} generators left calls behind that were out", kept=not cut_short)
        load.judge(report)
    report.none_of(len(stops), "orderly stops")
    return report


async def stopped(process: subprocess.Popen) -> tuple[int, float]:
    """SIGTERM it; returns its exit code and how long it took."""
    started = time.monotonic()
    process.terminate()
    try:
        code = await asyncio.to_thread(process.wait, _GRACE)
    except subprocess.TimeoutExpired:
        code = -1
    return code, time.monotonic() - started


class Load:
    """Unary calls through the SDK, as its users make them, at each gateway in turn. Made by :func:`loaded`."""

    def __init__(self, on: Stage, asking: Asking, per_second: float) -> None:
        self._on, self._asking, self._pause = on, asking, len(on.gateway_ports) / per_second
        self._stop = asyncio.Event()
        self.execution = ""
        self.created = 0
        """Executions of its own, of one result each."""

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in self._on.gateway_ports:
                tasks.create_task(self._read())

    async def _read(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(self._pause)
            if self.execution:
                await self._asking.read(self.execution)

    async def creating(self, stop: Awaitable[T]) -> T:
        """Create an execution while something stops; returns what the stop does."""
        told, execution_id = await asyncio.gather(
            stop, self._asking.create(f"[{_OWN_PROMPTS + self.created}-0] a boat")
        )
        if execution_id:
            self.created += 1
            self._on.executions.append(execution_id)
            self._on.watchers.follow(execution_id, self._on.setup.watchers)
        return told

    def judge(self, report: Report) -> None:
        """Hold that calls of every kind were made, and that none failed."""
        made, failed, never = self._asking.made, self._asking.failed, self._asking.never_made
        report.hold(
            f"{made.total()} unary calls of {len(made)} kinds, {len(failed)} failed {failed[:3]}"
            + (f"; never made: {sorted(never)}" if never else ""),
            kept=not failed and not never,
        )


@asynccontextmanager
async def loaded(on: Stage, per_second: float) -> AsyncIterator[Load]:
    """Ask the gateways so often, until the context ends."""
    # As clients are told to: with the addresses of all gateways. Those that answer are used in turn.
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in on.gateway_ports)
    async with Client(target) as client:
        load = Load(on, Asking(client, on.folder, model=MODEL, api_key=KEY), per_second)
        running = asyncio.create_task(load.run())
        try:
            yield load
        finally:
            load.stop()
            await running


async def gateway_kills(ground: Ground, *, results: int = 300, kills: int = 20, watchers: int = 50) -> Report:
    """SIGKILL one of two gateways again and again: watchers go on at the other, and a repeated creation is one."""
    report = ground.report
    setup = Setup(
        generators=1, slots=12, gateways=2, latency="uniform:0.3:0.9", watchers=max(1, watchers // -(-results // 100))
    )
    async with stage(ground, setup) as on:
        await create(on, results)
        executions = set(on.executions)
        resumed: list[float] = []
        async for n in on.over_the_run(kills, results):
            number = n % 2
            request_id = str(uuid.UUID(int=on.random.getrandbits(128), version=4))
            creating = asyncio.create_task(on.create(1, request_id=request_id))
            on.gateways[number].kill()
            on.gateways[number].wait()
            executions.add(await creating)
            started = time.monotonic()
            await asyncio.gather(*(told(on, one, 1 - number) for one in list(executions)[:1]))
            resumed.append(time.monotonic() - started)
            on.gateways[number] = on.start_gateway(number)
            await on.serving(on.gateway_ports[number])
        await on.ended(within=180 + results / 3)
        on.verdict(report, extra_calls_allowed=False)
        ((rows,),) = on.rows("select count(*) from executions")
        report.hold(f"{len(executions)} creations are {rows} executions", kept=rows == len(executions))
        slowest = on.watchers.slowest_resume
        report.timely(
            f"watchers went on after {slowest:.2f} s at most, {on.watchers.resumes} resumes", kept=slowest <= 2.0
        )
    report.none_of(kills, "kills of a gateway")
    return report


async def told(on: Stage, execution_id: str, gateway: int) -> None:
    """Read at the gateway that is left."""
    request = execution_service_pb2.GetExecutionRequest(execution_id=execution_id)
    await on.stub(gateway).GetExecution(request, timeout=10, wait_for_ready=True)
