"""Users' limits over two gateways that share a Redis: on, off, hanging, emptied, back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from nanobatch_gateway.adapters.counters_redis import open_counters
from nanobatch_gateway.domain import LOCAL_CALLER, TooManyCallsError
from nanobatch_gateway.limits import CallClass, SharedLimits
from nanobatch_runtime.testing import eventually

ALLOWED = 100
ALLOWANCES = dict.fromkeys(CallClass, ALLOWED)


@asynccontextmanager
async def gateway(url: str) -> AsyncIterator[SharedLimits]:
    async with open_counters(url) as counters, SharedLimits(ALLOWANCES, counters).beating() as limits:
        yield limits


@pytest.fixture
async def gateways(redis_server) -> AsyncIterator[tuple[SharedLimits, SharedLimits]]:
    async with gateway(redis_server.url) as one, gateway(redis_server.url) as other:
        await eventually(lambda: one._gateways == other._gateways == 2 and one._answers and other._answers)
        yield one, other


def refilled(since: float) -> float:
    """Return what has become free again meanwhile: the window slides."""
    return ALLOWED * (time.monotonic() - since) / 60


async def flood(limits: SharedLimits, calls: int = ALLOWED * 5) -> int:
    """Return how many of so many calls were let through; ten at a time."""

    async def some() -> int:
        through = 0
        for _ in range(calls // 10):
            try:
                await limits.admit(LOCAL_CALLER, CallClass.SPEND)
            except TooManyCallsError:
                continue
            through += 1
        return through

    return sum(await asyncio.gather(*(some() for _ in range(10))))


async def test_two_gateways_count_together(gateways, monkeypatch):
    # However busy this machine is: late answers, which count by each gateway's share, are tested below.
    monkeypatch.setattr("nanobatch_gateway.adapters.counters_redis._TAKE_SECONDS", 10)
    one, other = gateways
    began = time.monotonic()
    through = sum(await asyncio.gather(flood(one), flood(other)))
    assert ALLOWED * 0.9 <= through <= ALLOWED * 1.1 + refilled(began)


async def test_a_refusal_of_the_shared_counters_says_when_to_come_again(gateways):
    one, other = gateways
    await flood(one)
    with pytest.raises(TooManyCallsError) as refused:
        await used_up(other)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after.total_seconds() <= 60


async def used_up(limits: SharedLimits) -> None:
    """Call until it is refused: some calls have become free meanwhile."""
    while True:
        await limits.admit(LOCAL_CALLER, CallClass.SPEND)


@pytest.mark.parametrize("outage", ["killed", "frozen", "emptied"])
async def test_whatever_happens_to_redis_the_sum_stays_within_one_and_a_half(gateways, redis_server, outage):
    one, other = gateways
    began = time.monotonic()
    through = await flood(one)  # the worst case: one gateway has let all of it through
    epochs = one._epoch, other._epoch
    if outage == "killed":
        redis_server.kill()
    elif outage == "frozen":
        redis_server.freeze()
    else:
        redis_server.run("FLUSHALL")
        await eventually(lambda: one._epoch != epochs[0] and other._epoch != epochs[1])
    through += sum(await asyncio.gather(flood(one), flood(other)))
    assert through <= ALLOWED * 1.5 + refilled(began)
    if outage == "killed":
        redis_server.start()
    redis_server.thaw()
    await eventually(lambda: one._answers and other._answers)
    through += sum(await asyncio.gather(flood(one), flood(other)))
    assert through <= ALLOWED * 1.5 + refilled(began)
    assert through >= ALLOWED


async def test_nobody_waits_for_a_redis_that_hangs(gateways, redis_server):
    one, _ = gateways
    await one.admit(LOCAL_CALLER, CallClass.READ)
    redis_server.freeze()
    took = []
    for _ in range(20):
        started = time.monotonic()
        await one.admit(LOCAL_CALLER, CallClass.READ)
        took.append(time.monotonic() - started)
    assert max(took) < 0.4  # a tenth of a second, and what a busy machine adds
    assert sorted(took)[-2] < 0.05  # only the first one waited at all
    redis_server.thaw()


async def test_a_gateway_that_has_gone_is_not_counted_for_ever(redis_server, monkeypatch):
    monkeypatch.setattr("nanobatch_gateway.adapters.counters_redis._SILENT_AFTER_SECONDS", 2)
    async with gateway(redis_server.url) as one:
        async with gateway(redis_server.url):
            await eventually(lambda: one._gateways == 2)
        await eventually(lambda: one._gateways == 1)
