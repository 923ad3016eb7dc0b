"""Scenario 20: prompts that end whichever process calls for them, among others that must not suffer."""

from __future__ import annotations

import asyncio
from collections import Counter

from nanobatch_runtime.lifecycle import cancel
from soak.recorded import marker
from soak.report import Report
from soak.stage import Generator, Ground, Setup, Stage, stage

_POISON = "{{fault:kill}} a boat"
_OWN_DEATHS = 3
"""R11: processes that a poison prompt may end by itself: two whole generators, and one that calls for nothing else."""


async def poison(ground: Ground, *, results: int = 1000, prompts: int = 10) -> Report:
    """``prompts`` of the results end the process that calls for them: they fail as WORKER_LOST, and nobody beside them."""
    report = ground.report
    async with stage(ground, Setup(slots=32 if results > 200 else 8, watchers=1)) as on:
        keepers = [asyncio.create_task(_kept(on, one)) for one in on.generators]
        chosen = set(on.random.sample(range(results), prompts))
        for start in range(0, results, 100):
            bad = {n - start for n in chosen}
            count = min(100, results - start)
            await on.create(count, words=[_POISON if n in bad else "a boat" for n in range(count)])
        await on.ended(within=180 + results)
        for keeper in keepers:
            await cancel(keeper)
        # A process dies as soon as its call comes in, whatever else it has in flight; suspects wait for a spare one.
        on.verdict(report, results=results, failures_allowed=prompts, faults_hit_work=False, recovery_promised=False)
        ended = Counter(on.rows(f"select state, error_code from results where prompt_text like '%{_POISON}'"))
        report.hold(f"{prompts} poison prompts: {dict(ended)}", kept=ended == {("FAILED", "WORKER_LOST"): prompts})
        innocent = on.rows(
            f"select state, error_code, count(*) from results where prompt_text not like '%{_POISON}'"
            " and state <> 'COMPLETED' group by 1, 2"
        )
        report.hold(f"innocents that did not become pictures: {innocent}", kept=not innocent)
        deaths = Counter(
            marker(call["prompt"]) for call in on.provider.calls() if call["fault"] == "kill" and call["finished"]
        )
        report.hold(
            f"processes that each poison prompt ended by itself: {sorted(deaths.values())}",
            kept=len(deaths) == prompts and max(deaths.values()) <= _OWN_DEATHS,
        )
        report.none_of(sum(deaths.values()), "processes ended by poison")
    return report


async def _kept(on: Stage, one: Generator) -> None:
    """Start a generator again whenever it has died, as whatever runs it would."""
    while True:
        assert one.process is not None
        await asyncio.to_thread(one.process.wait)
        on.note("kill", one.caller)
        one.start()
