"""Scenario 28: one user calls ten times as often as is allowed, at two gateways, while Redis is there, away, and back."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_client import Client
from soak.report import Report
from soak.stage import KEY, MODEL, Ground, Setup, Stage, stage

_MINUTE = 60.0
_TOO_MUCH_WITH, _TOO_MUCH_WITHOUT, _TOO_LATE = 1.1, 1.5, 1.5
"""Times what is allowed, with Redis and without; times what a call of another user took before."""
_CALLERS = 20


async def limits(
    ground: Ground, *, allowed: int = 1200, calm: float = 15.0, on: float = 75.0, off: float = 45.0, back: float = 30.0
) -> Report:
    """Ten times ``allowed`` reads a minute. A minute that has a second without Redis in it counts as one without."""
    report = ground.report
    doors = {
        "NANOBATCH_AUTH": "token",
        "NANOBATCH_ADMIN_TOKEN": secrets.token_hex(32),
        "NANOBATCH_SERVICE_TOKEN": secrets.token_hex(32),
        "NANOBATCH_LIMIT_READ": str(allowed),
    }
    setup = Setup(generators=1, watchers=0, latency="0.1", environment=doors)
    async with stage(ground, setup) as there, _users(there, doors["NANOBATCH_ADMIN_TOKEN"]) as (rude, other):
        polite = asyncio.create_task(other.every(_MINUTE / (allowed * 0.4)))
        await asyncio.sleep(calm)
        calm_until = time.monotonic()
        flood = [asyncio.create_task(rude.every(_CALLERS * _MINUTE / (10 * allowed))) for _ in range(_CALLERS)]
        try:
            await asyncio.sleep(on)
            away = time.monotonic()
            there.redis.kill()
            await asyncio.sleep(off)
            there.redis.start()
            await asyncio.sleep(back)
        finally:
            for task in (polite, *flood):
                task.cancel()
            done = await asyncio.gather(polite, *flood, return_exceptions=True)
        there.verdict(report, extra_calls_allowed=False)
    broken = [error for error in done if not isinstance(error, asyncio.CancelledError)]
    report.hold(f"callers that ended: {broken[:3]}", kept=not broken)
    _judge(report, rude, other, allowed, calm_until, away)
    return report


def _judge(report: Report, rude: Caller, other: Caller, allowed: int, calm_until: float, away: float) -> None:
    seconds = rude.asked[-1] - rude.asked[0]
    pressure = len(rude.asked) / seconds * _MINUTE / allowed
    report.hold(f"the user asked for {pressure:.1f} times what is allowed", kept=pressure > 2 * _TOO_MUCH_WITHOUT)
    before = [at for at in rude.admitted if at < away]
    for name, found, most in (
        ("with Redis", before, _TOO_MUCH_WITH),
        ("with a part without Redis", rude.admitted, _TOO_MUCH_WITHOUT),
    ):
        times = _most_in_a_minute(found) / allowed
        report.hold(f"any minute {name}: {times:.2f} times what is allowed, {most} at most", kept=times <= most)
    report.hold(
        f"{rude.refused.total()} refusals: {dict(rude.refused)}, {rude.without_hint} without a time to come again",
        kept=set(rude.refused) == {"RESOURCE_EXHAUSTED"} and not rude.without_hint,
    )
    report.hold(f"the other user is refused nothing: {dict(other.refused)}", kept=not other.refused)
    quiet = _p99([took for at, took in other.took if at < calm_until])
    loud = _p99([took for at, took in other.took if at >= calm_until])
    # A floor keeps the noise of single milliseconds out.
    limit = max(_TOO_LATE * quiet, 0.05)
    report.timely(
        f"the other user's calls: p99 {loud * 1e3:.0f} ms, {quiet * 1e3:.0f} before (n={len(other.took)})",
        kept=loud <= limit,
    )
    report.none_of(rude.refused.total(), "calls too many")


def _most_in_a_minute(times: Sequence[float]) -> int:
    ordered = sorted(times)
    return max((n + 1 - bisect_left(ordered, at - _MINUTE) for n, at in enumerate(ordered)), default=0)


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


@dataclass
class Caller:
    """A user who asks after a run of their own, at each gateway in turn."""

    stubs: Sequence[ExecutionServiceStub]
    token: str
    execution: str
    asked: list[float] = field(default_factory=list)
    admitted: list[float] = field(default_factory=list)
    took: list[tuple[float, float]] = field(default_factory=list)
    """When a call was made, and how long it took."""
    refused: Counter[str] = field(default_factory=Counter)
    without_hint: int = 0

    async def every(self, seconds: float) -> None:
        """Call once in so many seconds, for ever."""
        while True:
            began = time.monotonic()
            await self._call(began)
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

    async def _call(self, began: float) -> None:
        self.asked.append(began)
        stub = self.stubs[len(self.asked) % len(self.stubs)]
        shown = (("authorization", f"Bearer {self.token}"),)
        try:
            await stub.GetExecution(pb.GetExecutionRequest(execution_id=self.execution), timeout=10, metadata=shown)
        except grpc.aio.AioRpcError as error:
            self.refused[error.code().name] += 1
            self.without_hint += not _says_when(error)
        else:
            self.admitted.append(began)
            self.took.append((began, time.monotonic() - began))


def _says_when(error: grpc.aio.AioRpcError) -> bool:
    told = rpc_status.from_call(error)
    hint = error_details_pb2.RetryInfo()
    return told is not None and any(
        detail.Unpack(hint) and hint.retry_delay.ToMilliseconds() > 0 for detail in told.details
    )


@asynccontextmanager
async def _users(on: Stage, admin: str) -> AsyncIterator[tuple[Caller, Caller]]:
    stubs = [on.stub(number) for number in range(len(on.gateways))]
    target = f"127.0.0.1:{on.gateway_ports[0]}"
    made: list[Caller] = []
    async with Client(target, token=admin) as operator:
        for name in ("rude", "polite"):
            user = await operator.create_user(name)
            token = (await operator.create_token("soak", user_id=user.id)).secret
            async with Client(target, token=token) as client:
                run = await client.create_execution([f"[{len(made)}-0] a boat"], model=MODEL, api_key=f"{KEY}-{name}")
            on.executions.append(run.id)
            made.append(Caller(stubs, token, run.id))
        await on.when(lambda: on.final() >= len(made))
    yield made[0], made[1]
