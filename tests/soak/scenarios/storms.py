"""Scenario 15b: cancel, pause, resume, retry and delete in loops against completion, at every execution at once."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as pb
from soak.report import Report
from soak.stage import ENDED, KEY, Ground, Setup, Stage, stage

GRACE = 2.0
"""Seconds after the answer to a cancel in which a call may still start."""
CALM = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
"""Refusals that a caller may get: too late, gone, nothing to retry."""
_SHAKERS = 2
"""Callers of each execution, who know nothing of each other."""


@dataclass
class Target:
    """An execution, and when it was cancelled and retried: (asked, answered)."""

    number: int
    id: str
    cancels: list[tuple[float, float]] = field(default_factory=list)
    retries: list[tuple[float, float]] = field(default_factory=list)
    deleted: bool = False

    def may_call(self, at: float) -> bool:
        """Whether a call at this time was wanted: no cancel behind it, or a retry since."""
        return not any(
            answered + GRACE < at and not any(again > asked and begun < at for begun, again in self.retries)
            for asked, answered in self.cancels
        )


async def storms(ground: Ground, *, executions: int = 20, results: int = 12, seconds: float = 30.0) -> Report:
    """Shake every execution from two sides for ``seconds``, then cancel them all."""
    report, told = ground.report, Counter[str]()
    async with stage(ground, Setup(slots=8, latency="uniform:0.1:0.6", watchers=0)) as on:
        targets = [Target(n, await on.create(results, key=f"{KEY}-{n % 4}")) for n in range(executions)]
        # Slow machines take a while to start; a storm over nothing would prove nothing.
        await on.when(lambda: len(on.provider.calls()) >= executions, within=120)
        until = time.monotonic() + seconds
        shakers = (shake(on, target, until, told, n) for target in targets for n in range(_SHAKERS))
        await asyncio.gather(*shakers)
        await asyncio.gather(*(ask(on, target, "cancel", told) for target in targets))
        held = "select count(*) from executions where open_attempts + reserved_micros + finishing + processing + pending > 0"
        await on.when(lambda: on.rows(held) == [(0,)], within=60)
        await asyncio.sleep(GRACE + 1)  # nothing else can tell that no call comes any more
        calls = on.provider.calls()
        late = [
            (target.number, round(call["arrived"] - max(done for _, done in target.cancels), 2))
            for target in targets
            for call in calls
            if re.search(rf"\[{target.number}-\d+\]", call["prompt"] or "") and not target.may_call(call["arrived"])
        ]
        report.hold(f"{len(calls)} calls, {len(late)} later than {GRACE:g} s after a cancel {late[:5]}", kept=not late)
        rude = {name: n for name, n in told.items() if name.startswith("error")}
        report.hold(f"{sum(told.values())} requests: {dict(sorted(told.items()))}", kept=not rude and bool(calls))
        wrong = on.rows(
            "select e.id from executions e join results r on r.execution_id = e.id group by e.id having"
            " e.completed <> count(*) filter (where r.state = 'COMPLETED') or"
            " e.cancelled <> count(*) filter (where r.state = 'CANCELLED') or"
            " e.failed <> count(*) filter (where r.state = 'FAILED') or count(distinct r.revision) <> count(*)"
        )
        report.hold("counts are rows, each with a revision of its own; no reservation or place is left", kept=not wrong)
        open_ones = on.rows("select count(*) from attempts where charged is null")
        report.hold(f"attempts still open: {open_ones[0][0]}", kept=open_ones == [(0,)])
        report.say(
            f"deadlocks in the server's log, repeated unseen: {ground.postgres.log().count('deadlock detected')}"
        )
    return report


async def shake(on: Stage, target: Target, until: float, told: Counter[str], number: int) -> None:
    dice = random.Random(f"{on.ground.seed}-{target.number}-{number}")
    while time.monotonic() < until and not target.deleted:
        await asyncio.sleep(dice.uniform(0.05, 0.6))
        what = dice.choices(["cancel", "pause", "resume", "retry", "delete"], [3, 3, 5, 6, 0.2])[0]
        await ask(on, target, what, told)


async def ask(on: Stage, target: Target, what: str, told: Counter[str]) -> None:
    """Ask for one thing, and hold its answer against what was promised."""
    began = time.monotonic()
    try:
        match what:
            case "cancel":
                answer = await on.call("CancelExecution", pb.CancelExecutionRequest(execution_id=target.id))
                target.cancels.append((began, time.monotonic()))
                if answer.execution.state not in ENDED:
                    told["error: not final after cancel"] += 1
            case "pause":
                await on.call("PauseExecution", pb.PauseExecutionRequest(execution_id=target.id))
            case "resume":
                await on.call("ResumeExecution", pb.ResumeExecutionRequest(execution_id=target.id))
            case "retry":
                request = pb.ListResultsRequest(execution_id=target.id, page_size=1000)
                found = (await on.call("ListResults", request)).results
                ids = [one.id for one in found if one.state == execution_pb2.RESULT_STATE_CANCELLED]
                retry = pb.RetryExecutionRequest(
                    execution_id=target.id, result_ids=ids[: len(ids) // 2 + 1], api_key=f"{KEY}-{target.number % 4}"
                )
                await on.call("RetryExecution", retry)
                target.retries.append((began, time.monotonic()))
            case _:
                await on.call("DeleteExecution", pb.DeleteExecutionRequest(execution_id=target.id))
                target.deleted = True
    except grpc.aio.AioRpcError as error:
        told[what if error.code() in CALM else f"error: {what} {error.code().name} {error.details()}"] += 1
    else:
        told[what] += 1
