from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import pytest

from nanobatch_generator.domain import LeaseRef, StorageDownError
from nanobatch_generator.heartbeat import Heartbeat
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.testing import eventually

REF = LeaseRef("result", "lease")
LEASE = timedelta(seconds=0.3)


class Extender:
    def __init__(self):
        self.beats = []
        self.threads = set()
        self.lost = []
        self.error = None
        self.closed = False

    def extend(self, refs, timeout):
        self.threads.add(threading.current_thread().name)
        if self.error is not None:
            raise self.error
        self.beats.append((time.monotonic(), tuple(refs)))
        return [ref for ref in refs if ref in self.lost]

    def close(self):
        self.closed = True


@pytest.fixture
async def heart():
    extender, lost = Extender(), []
    heartbeat = Heartbeat(extender)
    task = asyncio.create_task(heartbeat.run(lost.append))
    yield heartbeat, extender, lost
    await cancel(task)
    assert extender.closed
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


async def test_a_blocked_loop_loses_no_lease(heart):
    heartbeat, extender, _ = heart
    heartbeat.hold(REF, LEASE)
    await eventually(lambda: extender.beats)
    before = len(extender.beats)
    time.sleep(4 * LEASE.total_seconds())  # noqa: ASYNC251  # blocks the loop: that is the point
    assert len(extender.beats) - before >= 6
    gaps = [later[0] - earlier[0] for earlier, later in zip(extender.beats, extender.beats[1:], strict=False)]
    assert max(gaps) < LEASE.total_seconds()
    assert extender.threads == {"heartbeat"}


async def test_a_lost_lease_is_said_once_and_held_no_longer(heart):
    heartbeat, extender, lost = heart
    other = LeaseRef("other", "lease")
    extender.lost = [REF]
    heartbeat.hold(REF, LEASE)
    heartbeat.hold(other, LEASE)
    await eventually(lambda: lost)
    await eventually(lambda: len(extender.beats) >= 3)
    assert lost == [REF]
    assert extender.beats[-1][1] == (other,)


async def test_an_outage_is_survived(heart):
    heartbeat, extender, lost = heart
    extender.error = StorageDownError("down")
    heartbeat.hold(REF, LEASE)
    await eventually(lambda: extender.threads)
    extender.error = None
    await eventually(lambda: extender.beats)
    assert lost == []


async def test_a_dropped_lease_is_left_alone(heart):
    heartbeat, extender, _ = heart
    heartbeat.hold(REF, LEASE)
    await eventually(lambda: extender.beats)
    heartbeat.drop(REF)
    other = LeaseRef("other", "lease")
    heartbeat.hold(other, LEASE)
    await eventually(lambda: extender.beats[-1][1] == (other,))


async def test_a_heart_does_not_die_unseen():
    extender = Extender()
    extender.error = ZeroDivisionError("a bug")
    heartbeat = Heartbeat(extender)
    heartbeat.hold(REF, LEASE)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(heartbeat.run(lambda _: None), 5)
