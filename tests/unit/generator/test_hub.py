"""The replica, with a storage that is a list of updates."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_generator.domain import Estimate, Update, Waiting
from nanobatch_generator.hub import Hub
from nanobatch_runtime.errors import NanobatchError, NotFoundError, OutOfRangeError, UnavailableError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.testing import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Message:
    row_id: str
    revision: int
    stats: int
    percent: int | None = None
    waiting: Waiting | None = None


class Messages:
    def __init__(self):
        self.copies = 0

    def with_stats(self, message, stats):
        self.copies += 1
        return Message(message.row_id, message.revision, stats)

    def progress(self, estimate, stats):
        return Message(estimate.result_id, 0, stats, estimate.percent, estimate.waiting)


class Changes:
    """Rows by id; ``step`` changes one. ``error`` breaks every subscription, ``done`` ends it well."""

    def __init__(self):
        self.rows = {}
        self.revision = 0
        self.error = None
        self.done = False
        self.subscriptions = []
        self.news = asyncio.Event()

    def step(self, row_id, **fields):
        self.revision += 1
        message = Message(row_id, self.revision, self.revision)
        self.rows[row_id] = Update(self.revision, row_id, message, self.revision, **fields)
        self.wake()

    def wake(self):
        self.news.set()
        self.news = asyncio.Event()

    async def follow(self, execution_id, after_revision):
        self.subscriptions.append(after_revision)
        cursor = after_revision
        while True:
            news = self.news
            for update in sorted(self.rows.values(), key=lambda update: update.revision):
                if update.revision > cursor:
                    cursor = update.revision
                    yield update
            if self.error is not None:
                raise self.error
            if self.done and cursor == self.revision:
                return
            if news is self.news:
                await news.wait()


@pytest.fixture
async def parts():
    changes, messages = Changes(), Messages()
    hub = Hub("execution", changes, messages, patience=timedelta(seconds=0.3))
    task = asyncio.create_task(hub.follow())
    yield hub, changes, messages
    await cancel(task)


async def test_random_cuts_leave_no_gap_and_no_repeat(parts):
    hub, changes, _ = parts
    dice = random.Random(3)
    seen = {number: {} for number in range(10)}

    async def watch(number):
        highest = 0
        while True:
            left = dice.randint(1, 8)
            async with aclosing(hub.watch(highest)) as messages:
                async for message in messages:
                    assert message.revision > highest
                    highest = message.revision
                    seen[number][message.row_id] = message
                    left -= 1
                    if not left:
                        break
                else:
                    return

    async with asyncio.TaskGroup() as tasks:
        for number in seen:
            tasks.create_task(watch(number))
        for step in range(300):
            changes.step(f"row {dice.randint(0, 40)}")
            if step % 3 == 0:
                await asyncio.sleep(0)
        changes.done = True
        changes.wake()
    final = {row_id: update.revision for row_id, update in changes.rows.items()}
    for rows in seen.values():
        assert {row_id: message.revision for row_id, message in rows.items()} == final
    assert changes.subscriptions == [0]


async def test_late_watchers_get_the_newest_counts_and_share_the_copies(parts):
    hub, changes, messages = parts
    for number in range(5):
        changes.step(f"row {number}")
    await eventually(lambda: hub._replica.revision == 5)
    for _ in range(3):
        async with aclosing(hub.watch(0)) as watch:
            received = [await anext(watch) for _ in range(5)]
        assert {message.stats for message in received} == {5}
    assert messages.copies == 4  # the newest row carried them already


async def test_an_outage_that_is_too_long_sends_watchers_elsewhere(parts):
    hub, changes, _ = parts
    changes.step("row")
    async with aclosing(hub.watch(0)) as watch:
        await anext(watch)
        changes.error = UnavailableError("down")
        changes.wake()
        with pytest.raises(NanobatchError) as caught:
            await asyncio.wait_for(anext(watch), 5)
    assert (caught.value.reason, caught.value.metadata) == ("WATCH_MOVED", {"revision": "1"})
    assert set(changes.subscriptions[1:]) == {1}  # from where it was


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NotFoundError("gone"), "EXECUTION_NOT_FOUND"), (OutOfRangeError("restored"), "REVISION_UNKNOWN")],
)
async def test_what_no_repeat_can_mend_ends_the_watch(parts, error, reason):
    hub, changes, _ = parts
    changes.error = error
    changes.wake()
    with pytest.raises(NanobatchError) as caught:
        await asyncio.wait_for(anext(hub.watch(0)), 5)
    assert caught.value.reason == reason


async def test_no_guess_follows_a_final_row_and_none_is_replayed(parts):
    hub, changes, _ = parts
    changes.step("row", running=True)
    await eventually(lambda: hub._replica.revision == 1)
    hub.estimate([Estimate("row", percent=40)], NOW, idle=False)
    async with aclosing(hub.watch(0)) as watch:
        assert (await anext(watch)).revision == 1
        hub.estimate([Estimate("row", percent=50)], NOW, idle=False)
        assert (await anext(watch)).percent == 50
        changes.step("row")
        assert (await anext(watch)).revision == 2
        hub.estimate([Estimate("row", percent=60)], NOW, idle=False)
        changes.step("other")
        assert (await anext(watch)).row_id == "other"


async def test_why_it_waits_is_said_once_to_each_and_taken_back(parts):
    hub, changes, _ = parts
    wait = Waiting(1, NOW + timedelta(seconds=30))
    changes.step("row", waiting=wait)
    await eventually(lambda: hub._replica.revision == 1)
    async with aclosing(hub.watch(1)) as first, aclosing(hub.watch(1)) as second:
        heard = asyncio.create_task(anext(first))
        await eventually(lambda: hub.watched)
        for _ in range(3):
            hub.estimate([], NOW, idle=True)
        assert (await asyncio.wait_for(heard, 5)).waiting == wait
        assert (await asyncio.wait_for(anext(second), 5)).waiting == wait  # it came later, and is told all the same
        hub.estimate([], NOW + timedelta(seconds=31), idle=True)
        for watch in (first, second):
            assert (await asyncio.wait_for(anext(watch), 5)).waiting is None
