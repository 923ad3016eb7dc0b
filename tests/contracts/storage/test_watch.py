"""Watching: every change, none twice, whatever writes and wherever it is cut."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.testing import eventually
from nanobatch_storage import changes, control, topics
from nanobatch_storage.adapters.changes_sql import SqlChangeLog
from nanobatch_storage.domain import Execution, ExecutionState, ResultState, Waiting, WaitReason
from nanobatch_storage.errors import ExecutionNotFoundError, RevisionUnknownError
from nanobatch_storage.views import ResultView, WaitingNotice


class DeafBus(MemoryBus):
    """Loses every hint."""

    async def publish(self, topic):
        pass


def watch(store, actor, execution_id, after=0, *, bus=None, draining=None, page=200, lasting=timedelta(hours=1)):
    return changes.watch(
        SqlChangeLog(store.database, page=page),
        bus or store.bus,
        draining or asyncio.Event(),
        actor=actor,
        execution_id=execution_id,
        after_revision=after,
        lasting=lasting,
    )


@asynccontextmanager
async def collecting(stream):
    """Collect what a stream gives in the background; the second value is the task, done when the stream has ended."""
    seen = []

    async def collect():
        async for change in stream:
            seen.append(change)  # noqa: PERF401  # tests look at it while it grows

    task = asyncio.create_task(collect())
    try:
        yield seen, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def replica(seen):
    """What a client that keeps the last of everything knows in the end."""
    state = {}
    for change in seen:
        match change.what:
            case ResultView(result=result):
                state[result.id] = (result.state, result.revision)
            case Execution():
                state["execution"] = (change.what.state, change.what.own_revision)
    return state


async def truth(store, actor, execution_id):
    execution = (await store.executions.get(actor, execution_id)).execution
    state = {result.id: (result.state, result.revision) for result in await store.results(actor, execution_id)}
    return {**state, "execution": (execution.state, execution.own_revision)}


async def finish(store, execution, *, state=ResultState.COMPLETED):
    for number in range(execution.total):
        await store.change(execution.id, number, state)


async def test_a_final_execution_is_replayed_and_the_stream_ends(store):
    user = await store.user()
    execution = await store.execution(user, 3)
    await finish(store, execution)
    seen = [change async for change in watch(store, user, execution.id)]
    assert [change.revision for change in seen] == [5, 6, 7, 8]
    assert isinstance(seen[-1].what, Execution)
    assert seen[-1].what.state is ExecutionState.COMPLETED
    assert all(change.execution.completed == 3 for change in seen)
    assert [change async for change in watch(store, user, execution.id, 8)] == []


async def test_small_pages_give_the_same_as_one(store):
    user = await store.user()
    execution = await store.execution(user, 5)
    await store.control.pause(user, execution.id)
    await store.control.resume(user, execution.id, None, None)
    await finish(store, execution, state=ResultState.FAILED)
    for page in (1, 2, 3, 200):
        seen = [change.revision async for change in watch(store, user, execution.id, page=page)]
        assert seen == sorted(set(seen))
        assert replica([c async for c in watch(store, user, execution.id, page=page)]) == await truth(
            store, user, execution.id
        )


async def test_a_change_reaches_a_watcher_at_once(store):
    user = await store.user()
    execution = await store.execution(user, 20)
    came = []
    async with collecting(watch(store, user, execution.id)) as (seen, _):
        await eventually(lambda: len(seen) == 21)
        for number in range(10):
            before = len(seen)
            await store.change(execution.id, number, ResultState.PROCESSING)
            committed = time.perf_counter()
            while len(seen) == before:  # noqa: ASYNC110  # the time to the event is what is measured
                await asyncio.sleep(0)
            came.append(time.perf_counter() - committed)
    assert sorted(came)[5] < 0.5, came  # without the hint it is one to two seconds


async def test_a_lost_hint_costs_two_seconds_at_most(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    async with collecting(watch(store, user, execution.id, bus=DeafBus())) as (seen, task):
        await eventually(lambda: len(seen) == 2)
        await finish(store, execution)
        await eventually(task.done, within=3)
    assert seen[-1].what.state is ExecutionState.COMPLETED


async def test_nothing_is_missed_or_repeated_while_eight_writers_change_results(store):
    user = await store.user()
    execution = await store.execution(user, 40)
    dice = random.Random(1)
    numbers = asyncio.Queue()
    for number in range(40):
        numbers.put_nowait(number)

    async def work():
        while not numbers.empty():
            number = numbers.get_nowait()
            for state in dice.choice(
                [
                    (ResultState.PROCESSING, ResultState.COMPLETED),
                    (ResultState.PROCESSING, ResultState.PENDING, ResultState.PROCESSING, ResultState.FAILED),
                ]
            ):
                await store.change(execution.id, number, state)

    async def follow():
        """Watch with connections that break at random, going on from the highest revision each time."""
        seen, cursor, cuts = [], 0, 0
        while True:
            stream, breaks_after = watch(store, user, execution.id, cursor, page=7), dice.randint(1, 12)
            async for change in stream:
                assert change.revision > cursor
                cursor = change.revision
                seen.append(change)
                breaks_after -= 1
                if not breaks_after:
                    await stream.aclose()
                    cuts += 1
                    break
            else:
                return seen, cuts

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    await asyncio.gather(*(work() for _ in range(8)))
    async with asyncio.timeout(20):
        followed = await asyncio.gather(*followers)
    expected = await truth(store, user, execution.id)
    assert expected["execution"][0] is ExecutionState.COMPLETED
    for seen, cuts in followed:
        assert cuts > 3
        assert replica(seen) == expected


async def test_a_watcher_cut_anywhere_in_a_bulk_cancel_loses_nothing(store):
    user = await store.user()
    execution = await store.execution(user, 6)
    await store.control.cancel(user, execution.id)
    expected = await truth(store, user, execution.id)
    whole = [change async for change in watch(store, user, execution.id)]
    revisions = [change.revision for change in whole]
    assert revisions == [8, 9, 10, 11, 12, 13, 14]
    for cut in range(len(whole) + 1):
        cursor = revisions[cut - 1] if cut else 0
        rest = [change async for change in watch(store, user, execution.id, cursor)]
        assert replica(whole[:cut] + rest) == expected
        assert [change.revision for change in rest] == revisions[cut:]


async def test_the_stream_stays_while_a_call_is_out_and_then_ends(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.call_out(execution.id, 0)
    await store.control.cancel(user, execution.id)
    async with collecting(watch(store, user, execution.id)) as (seen, task):
        await eventually(lambda: seen and seen[-1].execution.state is ExecutionState.CANCELLED)
        assert not task.done()
        await store.set_execution(execution.id, open_attempts=0)
        await store.bus.publish(topics.execution(execution.id))
        await eventually(task.done)
    assert task.exception() is None


async def test_a_revision_from_the_future_is_refused_with_the_highest_one(store):
    user = await store.user()
    execution = await store.execution(user, 3)
    with pytest.raises(RevisionUnknownError) as caught:
        await anext(watch(store, user, execution.id, 5))
    assert caught.value.metadata == {"revision": "4"}


async def test_deletion_ends_a_watch(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.call_out(execution.id, 0)
    await store.control.cancel(user, execution.id)
    async with collecting(watch(store, user, execution.id)) as (seen, task):
        await eventually(lambda: len(seen) == 2)
        await store.set_execution(execution.id, open_attempts=0)
        await control.delete_execution(store.control, store.blobs, store.bus, user, execution.id)
        await eventually(task.done)
        with pytest.raises(ExecutionNotFoundError) as caught:
            task.result()
    assert caught.value.metadata == {"revision": str(seen[-1].revision)}


async def test_a_draining_server_says_where_to_go_on(store):
    user, draining = await store.user(), asyncio.Event()
    execution = await store.execution(user, 2)
    async with collecting(watch(store, user, execution.id, draining=draining)) as (seen, task):
        await eventually(lambda: len(seen) == 3)
        draining.set()
        await eventually(task.done)
        with pytest.raises(UnavailableError) as caught:
            task.result()
    assert (caught.value.reason, caught.value.metadata) == ("WATCH_MOVED", {"revision": "3"})


async def test_a_cooldown_is_told_once_and_its_end_too(store):
    user = await store.user()
    execution = await store.paid(user, 4)
    until = store.clock.now() + timedelta(minutes=1)

    def notices(seen):
        return [(c.revision, c.what.waiting) for c in seen if isinstance(c.what, WaitingNotice)]

    async with collecting(watch(store, user, execution.id)) as (seen, _):
        await eventually(lambda: len(seen) == 5)
        assert notices(seen) == []
        await store.set_bucket(execution.bucket_id, cooldown_until=until, cooldown_reason=WaitReason.OVERLOADED)
        await store.bus.publish(topics.execution(execution.id))
        await eventually(lambda: len(notices(seen)) == 1)
        await store.change(execution.id, 0, ResultState.PENDING)
        await eventually(lambda: len(seen) == 7)
        store.clock.advance(timedelta(minutes=2))
        await eventually(lambda: len(notices(seen)) == 2)
    assert notices(seen) == [(0, Waiting(WaitReason.OVERLOADED, until)), (0, None)]
    assert seen[-2].what.waiting == Waiting(WaitReason.OVERLOADED, until)


async def test_a_watcher_that_leaves_leaves_no_ear_behind(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    async with collecting(watch(store, user, execution.id)) as (seen, _):
        await eventually(lambda: len(seen) == 2)
        assert store.bus._listeners
    assert not store.bus._listeners


async def test_a_watch_that_has_lasted_long_ends_resumably(store):
    user = await store.user()
    execution = await store.execution(user, 2)
    watched = watch(store, user, execution.id, bus=DeafBus(), lasting=timedelta(0))
    with pytest.raises(changes.WatchMovedError) as caught:
        _ = [change async for change in watched]
    assert caught.value.metadata == {"revision": str(execution.revision)}
