"""Scenarios 8, 16, 18 and 21: a death at every boundary of a result's road, hung and cut calls, a blocked loop."""

from __future__ import annotations

import time
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from nanobatch_runtime.failpoints import VARIABLE
from soak.report import Report
from soak.stage import Ground, Setup, Stage, stage


@dataclass(frozen=True)
class Boundary:
    """A failpoint, whose process dies there, and how many calls that costs besides."""

    name: str
    extra: int
    in_storage: bool = False

    @property
    def before_spool(self) -> bool:
        """Whether nothing of the result is on a disk yet."""
        return BOUNDARIES.index(self) < [one.name for one in BOUNDARIES].index("spooled")


BOUNDARIES = (
    Boundary("leased", 0),
    Boundary("attempt_written", 0),
    Boundary("request_sent", 1),
    Boundary("first_answer_byte", 1),
    Boundary("answer_complete", 1),
    # From here on the picture lies on a disk that survives.
    Boundary("spooled", 0),
    Boundary("decoded", 0),
    Boundary("picture_written", 0, in_storage=True),
    Boundary("picture_renamed", 0, in_storage=True),
    Boundary("before_commit", 0, in_storage=True),
    Boundary("after_commit", 0, in_storage=True),
    Boundary("before_hint", 0, in_storage=True),
)
SHORT = ("request_sent", "answer_complete", "spooled", "before_commit", "after_commit")
_RESULTS = 8


async def boundaries(ground: Ground, *, names: tuple[str, ...] = (), hits: tuple[int, ...] = (1, 7, 8)) -> Report:
    """Kill at each of twelve places, at the first, the seventh and the last result: exactly the calls of the table."""
    report = ground.report
    chosen = [one for one in BOUNDARIES if not names or one.name in names]
    # Short leases where a death costs the lease; longer than any restart where the spool is to win.
    for lease, part in (
        (2.0, [one for one in chosen if one.before_spool]),
        (30.0, [one for one in chosen if not one.before_spool]),
    ):
        if not part:
            continue
        setup = Setup(generators=1, slots=1, gateways=1, lease_seconds=lease, latency="0.1", watchers=1)
        async with stage(ground, setup) as on:
            await on.create(1)  # the key is checked now
            await on.ended(within=60)
            for boundary in part:
                for hit in hits:
                    await _die_at(on, boundary, hit, report)
            on.verdict(report, faults_hit_work=False)
    report.none_of(len(chosen) * len(hits), "deaths at a boundary")
    return report


async def _die_at(on: Stage, boundary: Boundary, hit: int, report: Report) -> None:
    one = on.generators[0]
    told = {VARIABLE: f"{boundary.name}=kill@{hit}"}
    if boundary.in_storage:
        on.storages[0].terminate()
        on.storages[0].wait(30)
        on.storages[0] = on.start_storage(0, **told)
        await on.serving(on.storage_ports[0])
    else:
        assert one.process is not None
        one.process.terminate()
        one.process.wait(30)
        one.start(**told)
    before = len(on.provider.calls())
    await on.create(_RESULTS)
    dies = on.storages[0] if boundary.in_storage else one.process
    assert dies is not None
    await on.when(lambda: dies.poll() is not None, within=60)
    if boundary.in_storage:
        on.note("storage-kill")
        on.storages[0] = on.start_storage(0)
    else:
        on.note("kill", one.caller)
        one.start()
    await on.ended(within=90)
    extra = len(on.provider.calls()) - before - _RESULTS
    report.hold(f"{boundary.name} at hit {hit}: {extra} extra, {boundary.extra} expected", kept=extra == boundary.extra)


async def hung_calls(ground: Ground, *, results: int = 100, timeout: int = 10) -> Report:
    """A tenth of the calls never answers, or stops in the middle: ended at their deadline, others untouched."""
    report = ground.report
    async with stage(ground, Setup(generators=2, slots=16, gateways=1, lease_seconds=10, latency="0.3")) as on:
        started = time.monotonic()
        limit = Duration(seconds=timeout)
        healthy = await on.create(results, timeout=limit)
        await on.create(results // 20, words="{{fault:hangx1}} a boat", timeout=limit)
        await on.create(results // 20, words="{{fault:stallx1}} a boat", timeout=limit)
        await on.when(lambda: on.rows(f"select 1 from executions where id = '{healthy}' and state = 'COMPLETED'") != [])
        undisturbed = time.monotonic() - started
        await on.ended(within=120)
        on.verdict(report)
        hung = [call for call in on.provider.calls() if call["fault"] in {"hang", "stall"}]
        longest = max(call["ended"] - call["arrived"] for call in hung)
        report.hold(
            f"{len(hung)} hung calls ended after {longest:.1f} s at most, limit {timeout} s",
            kept=longest <= timeout + 1,
        )
        ((maybe,),) = on.rows("select count(*) from attempts where charged = 'MAYBE'")
        report.hold(f"{maybe} attempts are MAYBE for {len(hung)} hung calls", kept=maybe == len(hung))
        report.say(f"note   {results} healthy results beside them took {undisturbed:.1f} s")
        report.none_of(len(hung), "hung calls")
    return report


async def cut_after_acceptance(ground: Ground, *, results: int = 100) -> Report:
    """The provider takes the money and resets the connection, a tenth of the time: MAYBE, repeated once, under the cap."""
    report = ground.report
    async with stage(ground, Setup(generators=2, slots=8, gateways=1, latency="uniform:0.2:0.5")) as on:
        await on.create(results, max_cost_micros=39_000 * 2 * results)
        cut = await on.create(results // 10, words="{{fault:resetx1}} a boat")
        twice = await on.create(5, words="{{fault:resetx2}} a boat")
        await on.ended(within=180)
        on.verdict(report, failures_allowed=5)
        prompts: dict[str, int] = {}
        for call in on.provider.calls():
            if call["fault"] == "reset":
                prompts[call["prompt"]] = prompts.get(call["prompt"], 0) + 1
        calls = [row[0] for row in on.rows(f"select attempts from results where execution_id = '{cut}'")]
        report.hold(f"a cut call is repeated once: {sorted(set(calls))} calls", kept=set(calls) == {2})
        worst = on.rows(f"select state, attempts, error_code from results where execution_id = '{twice}'")
        report.hold(
            f"cut twice ends after two calls: {sorted(set(worst))}", kept={row[:2] for row in worst} == {("FAILED", 2)}
        )
        report.none_of(sum(prompts.values()), "cut calls")
    return report


async def blocked_loop(ground: Ground, *, results: int = 300, every: int = 50) -> Report:
    """A generator's loop is blocked for 1.5 leases, one call in so many: the heart beats on, and no lease is lost."""
    report = ground.report
    setup = Setup(generators=2, slots=8, gateways=1, lease_seconds=4, latency="uniform:0.3:0.9", watchers=1)
    async with stage(ground, setup) as on:
        seconds = 1.5 * setup.lease_seconds
        for one in on.generators:
            assert one.process is not None
            one.process.terminate()
            one.process.wait(30)
            one.start(**{VARIABLE: f"attempt_written=block:{seconds}@{every // 2}/{every}"})
        for start in range(0, results, 100):
            await on.create(min(100, results - start))
        await on.ended(within=180 + results)
        on.verdict(report, results=results)
        blocked = sum(on.log_of(f"g{one.number}").count("lease.lost") for one in on.generators)
        calls = len([call for call in on.provider.calls() if call["prompt"]])
        report.hold(f"{calls - results} extra calls, {blocked} leases lost", kept=calls - results <= 0.01 * results)
        report.none_of(results // every, "blocked loops")
    return report
