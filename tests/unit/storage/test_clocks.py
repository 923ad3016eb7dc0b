from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.metrics import REGISTRY
from nanobatch_storage.clocks import Clocks


async def test_a_slow_drift_is_told_at_the_limit_each_time_that_it_doubles_and_when_it_is_over():
    theirs, ours = ManualClock(), ManualClock()

    async def ask() -> datetime:
        return theirs.now()

    clocks, apart = Clocks(ask, ours), 0.0

    async def drift(to: float, by: float) -> list[tuple[str, float | None]]:
        """Drift in small steps, with a look after each, and return what is said meanwhile."""
        nonlocal apart
        with capture_logs() as said:
            while abs(apart - to) > 1e-6:
                apart = round(apart + by, 1)
                theirs.advance(timedelta(seconds=by))
                await clocks.look()
        return [(one["event"], one.get("database_ahead_seconds")) for one in said]

    assert await drift(4.9, 0.1) == []
    assert await drift(5.2, 0.1) == [("clocks.apart", 5.1)]
    assert await drift(4.2, -0.1) == []  # about the limit: no word for each look
    assert await drift(6.0, 0.1) == []
    assert await drift(50.0, 0.1) == [("clocks.apart", 10.3), ("clocks.apart", 20.7), ("clocks.apart", 41.5)]
    assert await drift(0.0, -0.1) == [("clocks.together", None)]
    assert await drift(-6.0, -0.1) == [("clocks.apart", -5.1)]


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)])
async def test_clocks_that_come_apart_are_shown_and_told_once_and_once_more_when_they_go_together(step):
    theirs, ours = ManualClock(), ManualClock()

    async def ask() -> datetime:
        return theirs.now()

    clocks = Clocks(ask, ours)
    with clocks.shown(), capture_logs() as said:

        async def look() -> float | None:
            await clocks.look()
            return REGISTRY.get_sample_value("nanobatch_clock_offset_seconds")

        assert await look() == 0
        theirs.advance(timedelta(seconds=4))  # a slow answer is no wrong clock
        assert await look() == 4
        theirs.advance(step - timedelta(seconds=4))
        for _ in range(3):
            assert await look() == step.total_seconds()
        assert [(one["event"], one.get("database_ahead_seconds")) for one in said] == [
            ("clocks.apart", step.total_seconds())
        ]
        ours.advance(step)  # it was ours that was right before: now both are wrong, and together
        assert await look() == 0
        assert [one["event"] for one in said] == ["clocks.apart", "clocks.together"]
