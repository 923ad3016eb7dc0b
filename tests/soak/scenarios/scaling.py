"""Generators are scaled under load: new ones get their share of the streams that are opened, without a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from processes import free_port
from scrape import scrape

from soak.report import Report
from soak.stage import Ground, Setup, Stage, stage

_SHARE, _WITHIN = 0.15, 60.0
"""What each has to take of all new streams, and after how many seconds."""
_LOOK_SECONDS = 5.0


async def scale_up(ground: Ground, *, generators: int = 4, rate: float = 6.0, after: float = 20.0) -> Report:
    """One generator, then ``generators`` under one name, while ``rate`` runs a second are made and watched.

    Each run is a stream from a gateway to a generator. The streams that are opened in ``after`` seconds, once the new ones
    have been there for a minute, are counted at the generators themselves.
    """
    report = ground.report
    setup = Setup(generators=generators, slots=4, watchers=1, latency="uniform:0.1:0.3", one_name=True)
    async with stage(ground, setup) as on:
        looks = [f"127.0.0.1:{free_port()}" for _ in on.generators]
        await _start(on, looks, 0, 1)
        load = asyncio.create_task(_load(on, rate))
        try:
            await on.when(lambda: on.final() >= 10)
            await _start(on, looks, 1, len(on.generators))
            began, before = time.monotonic(), await _opened(looks)
            soonest, at_first = None, before
            while (waited := time.monotonic() - began) < _WITHIN:
                await asyncio.sleep(min(_LOOK_SECONDS, max(0.1, _WITHIN - waited)))
                now = await _opened(looks)
                if soonest is None and _least(before, now) > _SHARE:
                    soonest = time.monotonic() - began
                before = now
            await asyncio.sleep(after)
            last = await _opened(looks)
            if load.done():
                load.result()
        finally:
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load
        await on.ended(within=120)
        on.verdict(report, extra_calls_allowed=False)
    report.hold(
        f"{len(looks)} generators after {_WITHIN:.0f} s take of {_sum(before, last)} new streams {_shares(before, last)}; "
        f"{_SHARE:.0%} each are promised",
        kept=_least(before, last) > _SHARE,
    )
    when = "not" if soonest is None else f"first {soonest:.0f} s after they were there"
    report.say(f"note   {when}; of all {_sum(at_first, before)} in that minute {_shares(at_first, before)}")
    return report


async def _start(on: Stage, looks: Sequence[str], first: int, end: int) -> None:
    """Start some, and let the name resolve to them as soon as they serve: as a headless service does."""
    for one, look in list(zip(on.generators, looks, strict=True))[first:end]:
        one.start(NANOBATCH_METRICS=look)
    for one in on.generators[first:end]:
        await on.serving(one.port, one.host)
        on.names.addresses = [*on.names.addresses, one.host]


async def _load(on: Stage, rate: float) -> None:
    while True:
        await on.create(1)
        await asyncio.sleep(on.random.uniform(0.5, 1.5) / rate)


async def _opened(looks: Sequence[str]) -> list[float]:
    """Return how many streams each has been asked for since it was started."""
    names = {"service": "nanobatch.generator.v1.GeneratorService", "method": "WatchProgress"}
    found = await asyncio.gather(*(asyncio.to_thread(scrape, look) for look in looks))
    return [one.total("nanobatch_rpcs_total", **names) + one.total("nanobatch_rpcs_running", **names) for one in found]


def _sum(before: Sequence[float], after: Sequence[float]) -> int:
    return int(sum(after) - sum(before))


def _least(before: Sequence[float], after: Sequence[float]) -> float:
    return min(b - a for a, b in zip(before, after, strict=True)) / max(1, _sum(before, after))


def _shares(before: Sequence[float], after: Sequence[float]) -> str:
    total = max(1, _sum(before, after))
    return ", ".join(f"{(b - a) / total:.0%}" for a, b in zip(before, after, strict=True))
