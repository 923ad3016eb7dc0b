"""WatchExecution through a real gateway: one unbroken stream, whatever happens behind it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import grpc
import http2
import psutil
import pytest

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_gateway.adapters.progress_grpc import GeneratorPresence
from nanobatch_gateway.feed import WatchLimits
from nanobatch_runtime.errors import NanobatchError, UnavailableError
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.testing import eventually

QUICK = WatchLimits(
    meet=timedelta(seconds=2),
    both_down=timedelta(milliseconds=300),
    first_wait=timedelta(milliseconds=20),
    longest_wait=timedelta(milliseconds=50),
)


class Watcher:
    """Reads a watch to its end and keeps what came."""

    def __init__(self, call: AsyncIterator[pb.WatchExecutionResponse]) -> None:
        self.revisions: list[int] = []
        self.progress = 0
        self.error: grpc.aio.AioRpcError | None = None
        self.call = call
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for update in self.call:
                if update.revision:
                    self.revisions.append(update.revision)
                else:
                    self.progress += 1
        except grpc.aio.AioRpcError as error:
            self.error = error


@pytest.fixture
async def watching(world):
    watchers: list[Watcher] = []

    def start(execution_id: str, **fields: int) -> Watcher:
        request = pb.WatchExecutionRequest(execution_id=execution_id, **fields)
        watchers.append(Watcher(world.executions.WatchExecution(request)))
        return watchers[-1]

    yield start
    for watcher in watchers:
        await cancel(watcher.task)


async def ended(watcher: Watcher) -> None:
    async with asyncio.timeout(10):
        await watcher.task


async def test_a_watch_relays_the_generator_with_progress_and_ends_with_the_execution(world, watching) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    await journal.add(3)
    watcher = watching(execution_id, after_revision=1)
    await eventually(lambda: watcher.revisions == [2, 3])
    await journal.add()
    await journal.end()
    await ended(watcher)
    assert watcher.error is None
    assert watcher.revisions == [2, 3, 4]
    assert watcher.progress == 1
    assert world.generator.watches == [0]  # for whoever comes later, too
    assert world.storage.watches == []


async def test_final_states_still_arrive_when_the_generator_is_taken_away_and_it_is_used_again_when_back(
    world, watching
) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    watcher = watching(execution_id)
    await journal.add(5)
    await eventually(lambda: len(watcher.revisions) == 5)

    await world.generator.stop()
    await eventually(lambda: world.storage.open_watches == 1)
    await journal.add(5)
    await eventually(lambda: len(watcher.revisions) == 10)
    assert watcher.progress == 1  # live estimates stopped with the generator

    await world.generator.start()
    await eventually(lambda: world.generator.watches == [0, 10])
    await eventually(lambda: world.storage.open_watches == 0)
    await eventually(lambda: watcher.progress == 2)
    await journal.add(5)
    await journal.end()
    await ended(watcher)
    assert watcher.error is None
    assert watcher.revisions == list(range(1, 16))


async def test_nothing_is_lost_or_repeated_while_the_generator_comes_and_goes(world, watching) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    watchers = [watching(execution_id) for _ in range(5)]

    async def write() -> None:
        for _ in range(200):
            await journal.add()
            await asyncio.sleep(0.002)

    writing = asyncio.create_task(write())
    for _ in range(5):
        await world.generator.stop()
        await eventually(lambda: world.storage.open_watches == 1)  # one for all of them
        await world.generator.start()
        await eventually(lambda: world.generator.open_watches == 1)
    await writing
    await journal.end()
    for watcher in watchers:
        await ended(watcher)
        assert watcher.error is None
        assert watcher.revisions == list(range(1, 201))


async def test_a_source_that_repeats_itself_is_not_heard_twice(world, watching) -> None:
    world.generator.overlap = 3
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    await journal.add(5)
    watcher = watching(execution_id, after_revision=4)
    await eventually(lambda: watcher.revisions == [5])
    await world.generator.stop()
    await eventually(lambda: world.storage.open_watches == 1)
    await world.generator.start()
    await eventually(lambda: world.generator.watches == [0, 5])
    await journal.add(2)
    await journal.end()
    await ended(watcher)
    assert watcher.revisions == [5, 6, 7]


async def test_many_watchers_cut_at_random_share_one_subscription_without_gap_or_repeat(world) -> None:
    dice = random.Random(7)
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    seen: list[list[int]] = [[] for _ in range(12)]

    async def follow(revisions: list[int]) -> None:
        while True:
            left = dice.randint(1, 9)
            after = revisions[-1] if revisions else 0
            request = pb.WatchExecutionRequest(execution_id=execution_id, after_revision=after)
            call = world.executions.WatchExecution(request)
            async for update in call:
                if update.revision:
                    assert update.revision > after
                    revisions.append(update.revision)
                    left -= 1
                if not left:
                    call.cancel()
                    break
            else:
                return

    async with asyncio.TaskGroup() as tasks:
        for revisions in seen:
            tasks.create_task(follow(revisions))
        for _ in range(150):
            await journal.add()
            await asyncio.sleep(0.002)
        await eventually(lambda: all(revisions[-1] == 150 for revisions in seen))
        assert world.generator.watches == [0]
        await journal.end()
    assert all(revisions == list(range(1, 151)) for revisions in seen)


async def test_nobody_slips_in_through_the_subscription_of_another(world, watching, refused) -> None:
    execution_id = world.storage.new_execution()
    await world.storage.journals[execution_id].add(2)
    owner = watching(execution_id)
    await eventually(lambda: owner.revisions == [1, 2])
    world.storage.foreign.add(execution_id)
    stranger, nobody = watching(execution_id), watching(new_id())
    for watcher in (stranger, nobody):
        await ended(watcher)
    assert stranger.revisions == []
    assert refused(stranger.error).status == refused(nobody.error).status
    await world.storage.journals[execution_id].add()
    await eventually(lambda: owner.revisions == [1, 2, 3])


async def test_a_watch_that_has_lasted_long_ends_resumably(idle_world, refused) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    journal = idle_world.storage.journals[execution_id]
    await journal.add(3)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack, watch_lasting=timedelta(milliseconds=200))
        revisions: list[int] = []
        for _ in range(3):
            after = revisions[-1] if revisions else 0
            request = pb.WatchExecutionRequest(execution_id=execution_id, after_revision=after)
            watcher = Watcher(idle_world.executions.WatchExecution(request))
            await ended(watcher)
            error = refused(watcher.error)
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_MOVED")
            revisions += watcher.revisions
            assert error.metadata == {"revision": str(revisions[-1])}
            await journal.add(2)
        assert revisions == list(range(1, 8))
        assert idle_world.generator.watches == [0]  # the feed behind them stayed


async def test_who_comes_after_the_end_is_served_from_what_is_there_until_it_was_reopened(world, watching) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    await journal.add(3)
    await journal.end()
    for after, revisions in ((0, [1, 2, 3]), (1, [2, 3]), (3, [])):
        watcher = watching(execution_id, after_revision=after)
        await ended(watcher)
        assert watcher.error is None
        assert watcher.revisions == revisions
    assert world.generator.watches == [0]
    journal.ended = False
    await journal.add(2)
    await journal.end()
    again = watching(execution_id, after_revision=3)
    await ended(again)
    assert again.revisions == [4, 5]
    assert world.generator.watches == [0, 0]


async def test_who_joins_late_is_told_why_the_execution_waits(world, watching) -> None:
    execution_id = world.storage.new_execution()
    await world.storage.journals[execution_id].add(2)
    first = watching(execution_id)
    await eventually(lambda: first.progress == 1)
    late = watching(execution_id, after_revision=2)
    await eventually(lambda: late.progress == 1)
    assert late.revisions == []
    assert world.generator.watches == [0]


async def test_a_watch_begins_at_storage_where_no_generator_is_up(idle_world) -> None:
    await idle_world.storage.start()
    execution_id = idle_world.storage.new_execution()
    await idle_world.storage.journals[execution_id].add(2)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack, watch_limits=WatchLimits(meet=timedelta(milliseconds=20)))
        watcher = Watcher(idle_world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)))
        await eventually(lambda: watcher.revisions == [1, 2])
        assert idle_world.storage.watches == [0]
        await idle_world.generator.start()
        await eventually(lambda: idle_world.generator.watches == [2])
        await idle_world.storage.journals[execution_id].end()
        await ended(watcher)
        assert watcher.error is None


async def test_a_generator_that_is_connected_but_refuses_is_not_hammered(world, watching) -> None:
    def refuse() -> None:
        raise UnavailableError("I am draining.", reason="WATCH_MOVED")

    world.generator.before_watch = refuse
    execution_id = world.storage.new_execution()
    watcher = watching(execution_id)
    await world.storage.journals[execution_id].add(3)
    await eventually(lambda: watcher.revisions == [1, 2, 3])
    await asyncio.sleep(0.5)  # the time in which a busy loop would have tried hundreds of times
    assert 1 < len(world.generator.watches) < 60
    world.generator.before_watch = lambda: None
    await eventually(lambda: world.generator.open_watches == 1)
    await world.storage.journals[execution_id].end()
    await ended(watcher)
    assert watcher.revisions == [1, 2, 3]


async def test_the_gateway_is_told_when_a_generator_comes_and_goes(idle_world) -> None:
    async def there() -> bool:
        try:
            async with asyncio.timeout(0.05):
                await presence.wait()
        except TimeoutError:
            return False
        return True

    async def away() -> bool:
        return not await there()

    async with open_channel(idle_world.generator.address) as channel, GeneratorPresence(channel).watching() as presence:
        assert await away()
        for _ in range(2):
            await idle_world.generator.start()
            await eventually(there)
            await idle_world.generator.stop()
            await eventually(away, within=3)


async def test_a_surprise_in_the_generator_is_unseen_by_the_client(world, watching) -> None:
    def surprise() -> None:
        raise NanobatchError("Something went wrong.", metadata={"incident": "abc"})

    world.generator.before_watch = surprise
    execution_id = world.storage.new_execution()
    watcher = watching(execution_id)
    await world.storage.journals[execution_id].add(2)
    await world.storage.journals[execution_id].end()
    await ended(watcher)
    assert watcher.error is None
    assert watcher.revisions == [1, 2]


async def test_where_both_are_down_the_watch_ends_resumably(idle_world, refused) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    await idle_world.storage.journals[execution_id].add(2)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack, watch_limits=QUICK)
        watcher = Watcher(idle_world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)))
        await eventually(lambda: watcher.revisions == [1, 2])
        await idle_world.generator.stop()
        await idle_world.storage.stop()
        await ended(watcher)
    error = refused(watcher.error)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_MOVED")
    assert error.metadata == {"revision": "2"}


async def test_a_short_absence_of_both_is_unseen(world, watching) -> None:
    execution_id = world.storage.new_execution()
    journal = world.storage.journals[execution_id]
    watcher = watching(execution_id)
    await journal.add(2)
    await eventually(lambda: watcher.revisions == [1, 2])
    await world.generator.stop()
    await world.storage.stop()
    await journal.add(2)
    await world.storage.start()
    await eventually(lambda: watcher.revisions == [1, 2, 3, 4])
    await journal.end()
    await ended(watcher)
    assert watcher.error is None


async def test_a_draining_gateway_ends_its_watches_resumably(idle_world, refused) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    await idle_world.storage.journals[execution_id].add(4)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack)
        watcher = Watcher(idle_world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)))
        await eventually(lambda: watcher.revisions == [1, 2, 3, 4])
        await idle_world.app.server.drain()
        await ended(watcher)
        await eventually(lambda: idle_world.generator.open_watches == 0)
    error = refused(watcher.error)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "WATCH_MOVED")
    assert error.metadata == {"revision": "4"}


async def test_unknown_executions_and_revisions_are_told_with_the_revision(world, watching, refused) -> None:
    unknown = watching(new_id(), after_revision=7)
    execution_id = world.storage.new_execution()
    future = watching(execution_id, after_revision=99)
    negative = watching(execution_id, after_revision=-1)
    malformed = watching("nonsense")
    for watcher in (unknown, future, negative, malformed):
        await ended(watcher)
    error = refused(unknown.error)
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
    assert error.metadata == {"revision": "7"}
    error = refused(future.error)
    assert (error.code, error.reason) == (grpc.StatusCode.OUT_OF_RANGE, "REVISION_UNKNOWN")
    assert error.metadata == {"revision": "0"}  # the highest one
    assert refused(negative.error).fields == [("after_revision", "OUT_OF_RANGE")]
    assert refused(malformed.error).fields == [("execution_id", "MALFORMED")]


async def test_a_watcher_that_stops_reading_is_cut_and_can_resume(idle_world, refused) -> None:
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    journal = idle_world.storage.journals[execution_id]
    await journal.add(400, prompt="x" * 60_000)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack, stall=timedelta(seconds=1))
        request = pb.WatchExecutionRequest(execution_id=execution_id)
        call = idle_world.executions.WatchExecution(request)
        first = await call.read()
        assert first.progress.percent == 50
        await eventually(lambda: idle_world.generator.watches == [0])
        await eventually(lambda: idle_world.generator.open_watches == 0)  # nothing is held for it any more
        highest = 0
        caught: grpc.aio.AioRpcError | None = None
        while caught is None:
            try:
                highest = (await call.read()).revision
            except grpc.aio.AioRpcError as error:
                caught = error
        error = refused(caught)
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW")
        assert 0 < int(error.metadata["revision"]) <= highest < 400
        await journal.end()
        rest = Watcher(
            idle_world.executions.WatchExecution(
                pb.WatchExecutionRequest(execution_id=execution_id, after_revision=highest)
            )
        )
        await ended(rest)
        assert rest.revisions == list(range(highest + 1, 401))


async def test_watchers_that_never_read_cost_a_mebibyte_at_most_and_are_cut(idle_world) -> None:
    count, process = 50, psutil.Process()
    await idle_world.storage.start()
    await idle_world.generator.start()
    execution_id = idle_world.storage.new_execution()
    journal = idle_world.storage.journals[execution_id]
    await journal.add(400, prompt="x" * 60_000)  # 24 MB: more than any socket takes
    request = pb.WatchExecutionRequest(execution_id=execution_id)
    async with AsyncExitStack() as stack:
        await idle_world.open(stack, stall=timedelta(seconds=2), watch_limits=WatchLimits(linger=timedelta(0)))
        reading = idle_world.executions.WatchExecution(request)
        async for update in reading:  # who keeps the replica there, warm and paid for
            if update.revision == 400:
                break
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what was freed would hide what is taken
        before = process.memory_info().rss
        sockets = [socket.create_connection(("127.0.0.1", idle_world.app.port)) for _ in range(count)]
        for stalled in sockets:
            stack.callback(stalled.close)
            stalled.sendall(http2.opening() + http2.request(1, http2.WATCH, request.SerializeToString()))
        await eventually(lambda: len(idle_world.storage.asked) > count)
        reading.cancel()  # from here on it is theirs alone
        peak, cut = 0, False
        while not cut:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.02)
            cut = idle_world.generator.open_watches == 0
        assert (peak - before) / count / 2**20 < 1
        print(f"{(peak - before) / count / 2**20:.2f} MiB a stalled watcher, n={count}")


async def test_a_client_that_leaves_takes_its_upstream_calls_along(world) -> None:
    execution_id = world.storage.new_execution()
    calls = [world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)) for _ in range(3)]
    for call in calls:
        await call.read()
    assert world.generator.open_watches == 1
    for call in calls:
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call.code()
    await eventually(lambda: world.generator.open_watches == 0)
    await eventually(_no_watch_tasks)


def _no_watch_tasks() -> bool:
    return not [task for task in asyncio.all_tasks() if task.get_name().startswith("watch-")]


async def test_a_watch_deadline_of_the_client_ends_it(world) -> None:
    execution_id = world.storage.new_execution()
    call = world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id), timeout=0.3)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: world.generator.open_watches == 0)
    assert world.storage.watches in ([], [0])
