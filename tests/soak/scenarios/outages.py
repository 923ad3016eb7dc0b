"""Scenarios 6 and 12: PostgreSQL restarts, Redis vanishes. Dependencies that come back only delay."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress

import psycopg

from soak.faultproxy import Mode
from soak.report import Report
from soak.scenarios.workers import create
from soak.stage import Ground, Setup, Stage, stage


async def postgres_restarts(
    ground: Ground, *, results: int = 600, restarts: int = 3, terminating: float = 20.0, down: float = 30.0
) -> Report:
    """Immediate stops, all backends ended each second for a while, and an outage longer than any lease."""
    report = ground.report
    async with stage(ground, Setup(lease_seconds=10)) as on:
        await create(on, results)
        recoveries = []
        async for _ in on.over_the_run(restarts, results // 2):
            ground.postgres.stop(signal.SIGQUIT)
            ground.postgres.start()
            recoveries.append(await first_progress(on))
        until = time.monotonic() + terminating
        while time.monotonic() < until:
            ground.postgres.run(
                f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{on.database}'"
            )
            await asyncio.sleep(1)
        if down:
            event = on.note("outage")
            ground.postgres.stop()
            await asyncio.sleep(down)
            ground.postgres.start()
            event["until"] = time.monotonic() + 1
            recoveries.append(await first_progress(on))
        await on.ended(within=180 + results / 4)
        on.verdict(report, results=results, extra_calls_allowed=bool(down))
        slowest = max(recoveries)
        report.timely(
            f"first progress at most 5 s after it is back: {slowest:.1f} s, n={len(recoveries)}", kept=slowest <= 5
        )
    return report


async def first_progress(on: Stage) -> float:
    """Return the seconds until another result is final; 0 where none is left."""
    started, before = time.monotonic(), on.final()

    def moved() -> bool:
        with suppress(psycopg.OperationalError):
            return on.final() > before or not (on.counts().keys() & {"PENDING", "PROCESSING"})
        return False

    await on.when(moved, within=60)
    return time.monotonic() - started


async def redis_gone(
    ground: Ground, *, results: int = 400, more: int = 50, flushes: int = 10, hang: float = 10.0, down: float = 5.0
) -> Report:
    """FLUSHALL again and again, a kill, a hang, a slow link: nothing is lost, and no watcher either."""
    report = ground.report
    async with stage(ground, Setup(storages=2, proxies=frozenset({"redis"}))) as on:
        calm = await submit_times(on, 5)
        await create(on, results)
        async for _ in on.over_the_run(flushes, results // 3):
            on.redis.run("FLUSHALL")
        on.redis.kill()
        killed = await submit_times(on, 5)
        await asyncio.sleep(down)
        on.redis.start()
        on.redis.freeze()
        hanging = await submit_times(on, 5)
        await asyncio.sleep(hang)
        on.redis.thaw()
        on.proxies["redis"].delay = 0.3
        await create(on, more)
        on.proxies["redis"].mode = Mode.BLACKHOLE
        await on.ended(within=180 + results / 4)
        on.proxies["redis"].mode = Mode.PASS
        on.verdict(report, extra_calls_allowed=False)
        worst = max(*killed, *hanging)
        # R9 says twice the normal; a floor keeps the noise of single milliseconds out.
        limit = max(2 * max(calm), 0.5)
        report.timely(
            f"creating takes {worst:.2f} s at most without Redis, {max(calm):.2f} s with it", kept=worst <= limit
        )
    report.none_of(flushes + 3, "losses of Redis")
    return report


async def submit_times(on: Stage, count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.monotonic()
        await on.create(1)
        times.append(time.monotonic() - started)
    return times
