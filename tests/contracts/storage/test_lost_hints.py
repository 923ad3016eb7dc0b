"""Long polls when the hint was lost, as between two storages whose Redis is away: found by looking again."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.testing import eventually
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.lease import lease_results


async def test_a_long_poll_finds_work_whose_hint_was_lost_within_two_seconds(store):
    user = await store.user()
    leases = SqlLeases(store.database, duration=timedelta(seconds=30), loop_lag=timedelta)
    elsewhere = MemoryBus()  # of a storage that the hint of the one that commits does not reach
    poll = asyncio.create_task(lease_results(leases, elsewhere, asyncio.Event(), 5, timedelta(seconds=20)))
    await eventually(lambda: elsewhere._listeners)
    await store.execution(user, 3)
    committed = time.monotonic()
    found = await asyncio.wait_for(poll, 10)
    assert len(found) == 3
    assert time.monotonic() - committed < 2.5
