"""Scenario 17: a storm of 429s on one key of two, then a day's quota that is used up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from soak.report import Report
from soak.stage import KEY, Ground, Setup, Stage, stage

LIMITED, FREE, DAILY = f"{KEY}-limited", f"{KEY}-free", f"{KEY}-daily"
_RATE, _BURST = 5, 10
_OVER = 0.1
"""R12: so many calls more than the quota allows at most, once it was met."""
_STARTED = 1.5
"""Seconds in which a call may still be sent whose attempt was opened before."""
_QUIET = 2.0
"""Seconds in which no call may come; nothing else can tell that none comes any more."""


async def storm(ground: Ground, *, results: int = 300) -> Report:
    """Two keys on three generators: one with a token bucket that nobody is told, one without; then a daily quota ends."""
    report = ground.report
    setup = Setup(
        slots=16,
        latency="uniform:0.5:1",
        watchers=1,
        upstream=("--quota", f"bucket:{_RATE}:{_BURST}", "--quota-of", LIMITED),
        # The pace begins at what is wanted of the key, far above its quota.
        environment={"NANOBATCH_CREDENTIAL_WINDOW": "24"},
    )
    async with stage(ground, setup) as on:
        for key in (LIMITED, FREE):  # both keys are checked, and every process is loaded
            await on.create(1, key=key)
        await on.ended(within=60)
        alone = await _rate(on, await _many(on, results, FREE))
        limited = await _many(on, results, LIMITED)
        await on.when(lambda: any(call["status"] == 429 for call in on.provider.calls()), within=120)
        beside = await _rate(on, await _many(on, results, FREE))
        await on.ended(within=120 + results / _RATE * 3)
        sent = on.calls_of(limited)
        refused, late = (sum(call["status"] == 429 for call in part) for part in (sent, sent[len(sent) // 2 :]))
        daily = await _used_up(on, report)
        on.verdict(report)
        report.hold(
            f"{len(sent)} calls for {results} results under a quota of {_RATE} a second, {refused} answered 429,"
            f" {late} of them in the second half",
            kept=refused > 0 and late <= _OVER * (len(sent) / 2 - late),
        )
        ((failures,),) = on.rows("select max(failures) from results")
        report.hold(f"no refusal counts as a failure: {failures}", kept=failures == 0)
        report.timely(
            f"the free key makes {beside:.1f} pictures a second beside it, {alone:.1f} alone",
            kept=beside >= 0.95 * alone,
        )
        report.none_of(refused + daily, "refused calls")
    return report


async def _used_up(on: Stage, report: Report) -> int:
    """Meet the end of a day's quota; returns how many calls met it."""
    first = await on.create(20, key=DAILY, words="{{fault:429-day}} a boat")
    paused = f"select pause_reason, resume_time from executions where id = '{first}' and state = 'PAUSED'"
    await on.when(lambda: bool(on.rows(paused)))
    ((reason, until),) = on.rows(paused)
    report.hold(
        f"the execution is paused until {until}: {reason}", kept=(reason, until) == ("DAILY_QUOTA", _midnight())
    )
    seen = on.note("paused")["at"]
    second = await on.create(5, key=DAILY)  # another list under the same key
    await asyncio.sleep(_STARTED + _QUIET)
    met = on.calls_of([first, second])
    late = [round(call["arrived"] - seen, 2) for call in met if call["arrived"] > seen + _STARTED]
    report.hold(
        f"{len(met)} calls met the end of the day's quota, {len(late)} later than {_STARTED:g} s after it was known {late}",
        kept=bool(met) and not late,
    )
    for one in (first, second):
        await on.call("CancelExecution", pb.CancelExecutionRequest(execution_id=one))
    await on.ended(within=60)
    return len(met)


def _midnight() -> datetime:
    """Return when Gemini's day ends."""
    pacific = ZoneInfo("America/Los_Angeles")
    today = datetime.now(UTC).astimezone(pacific)
    return (today + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


async def _many(on: Stage, results: int, key: str) -> list[str]:
    return [await on.create(min(100, results - start), key=key) for start in range(0, results, 100)]


async def _rate(on: Stage, executions: list[str]) -> float:
    """Return how many pictures a second these executions made, from their first call to their last."""
    names = ",".join(executions)
    left = f"select count(*) from executions where id = any('{{{names}}}') and state <> 'COMPLETED'"
    await on.when(lambda: on.rows(left) == [(0,)], within=300)
    calls = on.calls_of(executions)
    return len(calls) / (max(call["ended"] for call in calls) - min(call["arrived"] for call in calls))
