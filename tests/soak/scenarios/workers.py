"""Scenarios 1, 2, 3 and all of them together: generators killed and frozen, answers lost."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from soak import ghost
from soak.report import Report
from soak.stage import Generator, Ground, Setup, Stage, stage
from soak.wires import LostAnswers, LostCommits

FREEZE = 1.8
"""Times the lease."""
SLOW: dict[str, Any] = {"slots": 4, "latency": "uniform:0.6:1.2"}
"""As slow as kills are: a process is killed once it has worked, some two seconds after the one before. Were the work done
sooner, the last kills would all fall on its last few results, with no generator living long enough to begin a call."""
_START_SECONDS = 15.0
"""A generator that had no work after this long found none."""


async def kills(ground: Ground, *, kills: int = 50, results: int = 1000) -> Report:
    """SIGKILL one of three generators, again and again, and start a new one in its place."""
    report = ground.report
    async with stage(ground, Setup(**SLOW)) as on:
        await create(on, results)
        async for _ in on.over_the_run(kills, results):
            victim = await victim_with_work(on)
            victim.kill()
            victim.start()
        await on.ended(within=120 + results / 5)
        on.verdict(report, results=results)
    report.none_of(kills, "kills")
    return report


async def freezes(ground: Ground, *, freezes: int = 10, results: int = 400) -> Report:
    """SIGSTOP a generator for 1.8 leases; what it held is done elsewhere, and nothing that it says late may count."""
    report = ground.report
    # Slow enough that the others leave something to freeze for: a freeze lasts for 1.8 leases.
    async with stage(ground, Setup(slots=4, latency="uniform:1:2")) as on:
        refused = await ghost.late_writes(on)
        report.hold(f"a late owner's writes are refused: {refused}", kept=all(refused.values()))
        await create(on, results)
        async for _ in on.over_the_run(freezes, results):
            victim = await victim_with_work(on)
            await victim.freeze(FREEZE * on.setup.lease_seconds)
        await on.ended(within=120 + results / 5)
        on.verdict(report, results=results + 1)  # and the ghost's
        lost = sum(on.log_of(f"g{one.number}").count("lease.lost") for one in on.generators)
        report.hold(f"late writes of frozen generators were refused: {lost} leases lost", kept=lost > 0)
    report.none_of(freezes, "freezes")
    return report


async def lost_answers(ground: Ground, *, results: int = 400, share: float = 0.1) -> Report:
    """Lose the answer to a tenth of all COMMITs, and of all answers to uploads, leases and creations."""
    report = ground.report
    setup = Setup(proxies=frozenset({"database", "storage", "gateway"}))
    async with stage(ground, setup) as on:
        lose(on, share)
        # A creation whose every answer is lost at the one gateway is repeated at the other: still one execution.
        on.proxies["gateway"].listen(LostAnswers.losing(1.0, ground.seed + 2, answer_bytes=1))
        await create(on, results)
        on.proxies["gateway"].listen(LostAnswers.losing(share / 5, ground.seed + 3, answer_bytes=100))
        await on.ended(within=120 + results / 2)
        quiet(on)
        lost = {hop: proxy.lost_answers for hop, proxy in on.proxies.items()}
        on.verdict(report, results=results, extra_calls_allowed=False)
        report.hold(
            f"answers were lost: {lost}",
            kept=min(lost["database"], lost["storage"]) >= results * share / 4 and lost["gateway"] > 0,
        )
        report.none_of(sum(lost.values()), "lost answers")
    return report


async def everything(ground: Ground, *, kills: int = 50, freezes: int = 10, results: int = 1000) -> Report:
    """Kills of any process, freezes, lost answers, a restart of PostgreSQL and FLUSHALL, in one run."""
    report = ground.report
    async with stage(ground, Setup(proxies=frozenset({"database", "storage"}), **SLOW)) as on:
        lose(on, 0.01)
        await create(on, results)
        plan = ["kill"] * kills + ["freeze"] * freezes + ["restart", "flush", "flush"]
        on.random.shuffle(plan)
        frozen: list[asyncio.Task[None]] = []
        step = 0
        async for _ in on.over_the_run(len(plan), results):
            await act(on, plan[step], frozen)
            step += 1
        await asyncio.gather(*frozen)
        await on.ended(within=180 + results / 4)
        quiet(on)
        # Nobody leases anything while PostgreSQL or the one storage is away.
        on.verdict(report, results=results, recovery_promised=False)
        report.say(f"note   lost answers {[(hop, proxy.lost_answers) for hop, proxy in on.proxies.items()]}")
    report.none_of(kills + freezes, "kills and freezes")
    return report


async def act(on: Stage, deed: str, frozen: list[asyncio.Task[None]]) -> None:
    """Do one of the plan's deeds. One process in ten that is killed is storage or a gateway."""
    match deed:
        case "kill":
            dice = on.random.random()
            if dice < 0.05:
                on.note("storage-kill")
                on.storages[0].kill()
                on.storages[0].wait()
                on.storages[0] = on.start_storage(0)
            elif dice < 0.1:
                number = on.random.randrange(len(on.gateways))
                on.note("gateway-kill")
                on.gateways[number].kill()
                on.gateways[number].wait()
                on.gateways[number] = on.start_gateway(number)
            else:
                victim = await victim_with_work(on)
                victim.kill()
                victim.start()
        case "freeze":
            victim = await victim_with_work(on)
            frozen.append(asyncio.create_task(victim.freeze(FREEZE * on.setup.lease_seconds)))
        case "restart":
            on.note("restart")
            on.ground.postgres.stop(signal.SIGQUIT)
            on.ground.postgres.start()
        case _:
            on.note("flush")
            on.redis.run("FLUSHALL")


async def create(on: Stage, results: int) -> None:
    """Create executions of a hundred, and wait until calls are out."""
    for start in range(0, results, 100):
        await on.create(min(100, results - start))
    await on.when(lambda: on.final() > 0)


async def victim_with_work(on: Stage) -> Generator:
    """Choose a generator that has work, once those that were started anew have had some, too.

    Kills that come faster than generators start hit the same few prompts again and again. These become suspects, which are
    called one at a time, each in a process of its own: a run would measure how fast processes start, and nothing else.
    """
    until = time.monotonic() + _START_SECONDS

    def is_time() -> bool:
        have_worked = [one.has_worked() for one in on.generators]
        is_short_of_work = on.counts().get("PENDING", 0) < on.setup.slots * len(on.generators)
        return all(have_worked) or is_short_of_work or time.monotonic() > until

    await on.when(is_time)
    busy: list[Generator] = []

    def is_busy() -> bool:
        busy[:] = [one for one in on.generators if awake(one)]
        return bool(busy)

    await on.when(is_busy)
    return on.random.choice(busy)


def awake(one: Generator) -> bool:
    return one.process is not None and one.process.poll() is None and one.is_busy()


def lose(on: Stage, share: float) -> None:
    seed = on.ground.seed
    on.proxies["database"].listen(LostCommits.losing(share, seed))
    on.proxies["storage"].listen(LostAnswers.losing(share, seed + 1))


def quiet(on: Stage) -> None:
    """Let everything through again."""
    for proxy in on.proxies.values():
        proxy.listen(None)
