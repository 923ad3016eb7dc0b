from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.metrics import REGISTRY
from nanobatch_storage.clocks import Clocks


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
