"""Scenarios 9 and 10: orderly stops that nobody notices, and a gateway that is killed."""

from __future__ import annotations

import asyncio
import subprocess
import time
import uuid

from nanobatch.gateway.v1 import execution_service_pb2
from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from soak.report import Report
from soak.scenarios.workers import create
from soak.stage import Ground, Setup, Stage, stage

_GRACE = 40.0


async def rolling_restarts(
    ground: Ground, *, results: int = 400, rounds: int = 3, calls_a_second: float = 20
) -> Report:
    """SIGTERM every process in turn, rounds over, under load: exits 0 in its grace, no call fails, none is made twice."""
    report = ground.report
    setup = Setup(storages=2, slots=4, latency="uniform:0.5:3", lease_seconds=5, watchers=1)
    async with stage(ground, setup) as on:
        load = Load(on, calls_a_second)
        each = results // (rounds * (len(on.storage_ports) + len(on.gateway_ports) + len(on.generators)))
        stops, cut_short = [], 0
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(load.run())
            for _ in range(rounds):
                for number in range(len(on.storages)):
                    load.execution = await on.create(each)
                    stops.append(await stopped(on.storages[number]))
                    on.storages[number] = on.start_storage(number)
                    await on.serving(on.storage_ports[number])
                for number in range(len(on.gateways)):
                    await on.create(each)
                    stops.append(await stopped(on.gateways[number]))
                    on.gateways[number] = on.start_gateway(number)
                    await on.serving(on.gateway_ports[number])
                for one in on.generators:
                    assert one.process is not None
                    # A stop that meets no call in flight would prove nothing.
                    await on.create(each)
                    await on.when(one.is_busy)
                    stops.append(await stopped(one.process))
                    cut_short += one.is_busy()
                    one.start()
            await on.ended(within=180 + results)
            load.stop()
            await asking
        on.verdict(report, results=each * len(stops), extra_calls_allowed=False)
        slowest = max(seconds for _, seconds in stops)
        codes = sorted({code for code, _ in stops})
        report.hold(
            f"{len(stops)} stops: exit codes {codes}, the slowest took {slowest:.1f} s",
            kept=codes == [0] and slowest < _GRACE,
        )
        report.hold(f"{cut_short} generators left calls behind that were out", kept=not cut_short)
        report.hold(
            f"{load.made} unary calls, {len(load.failed)} failed {load.failed[:3]}",
            kept=not load.failed and load.made > 0,
        )
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
    """Unary calls through the SDK, as its users make them, at each gateway in turn."""

    def __init__(self, on: Stage, per_second: float) -> None:
        self._on, self._pause = on, 1 / per_second
        self._stop = asyncio.Event()
        self.execution = ""
        self.made = 0
        self.failed: list[str] = []

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        # As clients are told to: with the addresses of all gateways. Those that answer are used in turn.
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._on.gateway_ports)
        async with asyncio.TaskGroup() as tasks:
            for _ in self._on.gateway_ports:
                tasks.create_task(self._ask(target))

    async def _ask(self, target: str) -> None:
        async with Client(target) as client:
            await self._ask_on(client)

    async def _ask_on(self, client: Client) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(self._pause * len(self._on.gateway_ports))
            if not self.execution:
                continue
            try:
                await client.get_execution(self.execution)
            except NanobatchError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            self.made += 1


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
