"""Who is handed what: leases, windows, confirmed keys and turns, on both databases."""

import asyncio
from datetime import timedelta

import pytest
from queue_steps import TTL, now_of, ref

from nanobatch_storage import pacing
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.domain import (
    EndedCall,
    ExecutionState,
    FailureClass,
    ResultState,
    Settings,
)
from nanobatch_storage.errors import LeaseLostError, WindowFullError


async def test_a_lease_marks_the_row_and_gives_every_row_its_own_revision(store, queue, user):
    execution = await store.execution(user, 5)
    leases = await queue.take(3)
    assert [lease.result.batch_index for lease in leases] == [0, 1, 2]
    assert len({lease.result.lease_id for lease in leases}) == 3
    current = await now_of(store, user, execution)
    assert (current.state, current.pending, current.processing) == (ExecutionState.PROCESSING, 2, 3)
    revisions = [r.revision for r in await store.results(user, execution.id)]
    assert len(set(revisions)) == 5
    assert max(current.own_revision, *revisions) == current.revision


async def test_nothing_is_leased_twice_however_many_ask_at_once(store, queue, user):
    await store.execution(user, 40, settings=Settings())
    taken = await asyncio.gather(*(queue.take(5) for _ in range(12)))
    ids = [lease.result.id for batch in taken for lease in batch]
    assert len(ids) == len(set(ids))
    assert len(ids) == 10  # the bucket's window


async def test_a_bucket_never_has_more_in_flight_than_its_window_over_all_executions(store, queue, user):
    one, two = await store.execution(user, 8), await store.execution(user, 8)
    assert one.bucket_id == two.bucket_id
    assert len(await queue.take(32)) == 10
    assert await queue.take(32) == []


async def test_a_finished_call_makes_room_for_the_next(store, queue, user):
    await store.execution(user, 12)
    first = (await queue.started(10))[0]
    await queue.complete(*first)
    assert len(await queue.take(5)) in {1, 2}  # the window may have grown by it


async def test_an_ended_call_makes_room_while_its_picture_is_still_being_finished(store, queue, user, monkeypatch):
    monkeypatch.setattr(pacing, "counts", lambda *_: False)  # a window that grows makes room as well
    execution = await store.execution(user, 14)
    (lease, attempt), (other, other_attempt), *_ = await queue.started(10)
    await queue.ledger.end_call(lease, attempt)
    await queue.ledger.end_call(lease, attempt)  # told twice, counted once
    assert len(await queue.take(5)) == 1
    await queue.complete(lease, attempt)
    assert await queue.take(5) == []
    await queue.ledger.end_call(other, other_attempt)
    await queue.fail(other, other_attempt, FailureClass.BLOCKED)
    assert len(await queue.take(5)) == 1
    current = await now_of(store, user, execution)
    assert (current.finishing, current.open_attempts) == (0, 8)
    await queue.ledger.end_call(lease, attempt)  # late news of a closed attempt change nothing
    assert await now_of(store, user, execution) == current


class TestStandingBy:
    @pytest.fixture
    def ahead(self, store, queue):
        queue.leases = SqlLeases(store.database, duration=TTL, ahead=0.25)
        return queue

    async def test_a_few_are_leased_ahead_of_the_window_and_may_not_start_before_a_call_ends(self, store, ahead, user):
        await store.execution(user, 20)
        leases = await ahead.take(32)
        assert [lease.standby for lease in leases] == [False] * 10 + [True] * 3
        calls = [(ref(lease), await ahead.start(ref(lease))) for lease in leases[:10]]
        waiting = ref(leases[10])
        with pytest.raises(WindowFullError):
            await ahead.start(waiting)
        await ahead.ledger.end_call(*calls[0])
        assert await ahead.start(waiting)
        assert await ahead.take(32) == []  # those that stand by are filled up a few at a time
        await ahead.ledger.end_call(*calls[1])
        assert await ahead.start(ref(leases[11]))
        assert [lease.standby for lease in await ahead.take(32)] == [True, True]

    async def test_the_end_of_a_call_need_not_be_told_while_a_quarter_of_the_window_is_free(self, store, ahead, user):
        await store.execution(user, 20)
        assert [lease.roomy for lease in await ahead.take(5)] == [True] * 5
        assert [lease.roomy for lease in await ahead.take(32)] == [True] * 3 + [False] * 5

    async def test_an_ended_call_gives_its_place_in_the_same_transaction(self, store, ahead, user):
        execution = await store.execution(user, 20)
        leases = await ahead.take(32)
        calls = [(ref(lease), await ahead.start(ref(lease))) for lease in leases[:10]]
        first, second, third = (ref(lease) for lease in leases[10:])
        ended = EndedCall(*calls[0])
        assert await ahead.start(first, ended)
        with pytest.raises(WindowFullError):
            await ahead.start(second, ended)  # it gave its place once
        await ahead.fail(*calls[1], FailureClass.TRANSIENT)
        assert await ahead.start(second)
        with pytest.raises(WindowFullError):
            await ahead.start(third, EndedCall(calls[2][0], "no such attempt"))
        current = await now_of(store, user, execution)
        assert (current.open_attempts, current.finishing) == (11, 1)

    async def test_many_who_start_at_once_never_pass_the_window(self, store, ahead, user):
        execution = await store.execution(user, 40)
        ahead.leases = SqlLeases(store.database, duration=TTL, ahead=2.0)
        refs = [ref(lease) for lease in await ahead.take(40)]
        assert len(refs) == 30
        outcomes = await asyncio.gather(*(ahead.start(one) for one in refs), return_exceptions=True)
        assert sum(isinstance(outcome, str) for outcome in outcomes) == 10
        assert (await now_of(store, user, execution)).open_attempts == 10

    async def test_a_cooldown_or_another_key_sends_those_that_stand_by_back(self, store, ahead, user):
        execution = await ahead.confirmed(await store.paid(user, 20))
        first, second, third, *_ = [ref(lease) for lease in await ahead.take(32)]
        attempt = await ahead.start(first)
        await ahead.fail(first, attempt, FailureClass.RATE_LIMITED, retry_after=timedelta(seconds=9))
        with pytest.raises(LeaseLostError):
            await ahead.start(second)
        store.clock.advance(timedelta(seconds=9))
        await store.control.resume(user, execution.id, store.credential(), None)
        with pytest.raises(LeaseLostError):
            await ahead.start(third)
        current = await now_of(store, user, execution)
        assert (current.processing, current.open_attempts) == (10, 0)


async def test_an_unconfirmed_key_is_tried_with_one_result_and_opens_after_confirmation(store, queue, user):
    execution = await store.paid(user, 20)
    (only,) = await queue.take(32)
    assert only.check_key
    assert only.credential is not None
    assert await queue.take(32) == []
    await queue.ledger.confirm_key(execution.bucket_id)
    more = await queue.take(32)
    assert len(more) == 9
    assert not any(lease.check_key for lease in more)


async def test_a_confirmation_holds_for_a_day(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 20))
    store.clock.advance(timedelta(hours=25))
    (only,) = await queue.take(32)
    assert only.check_key
    assert only.execution.id == execution.id


async def test_the_user_with_fewest_in_flight_is_next(store, queue, user):
    other = await store.user()
    await store.execution(user, 100)
    await queue.take(5)
    small = await store.execution(other, 1, fingerprint="e" * 64)
    assert [lease.execution.id for lease in await queue.take(1)] == [small.id]


async def test_what_waits_is_found_below_the_first_that_was_known_to_wait(store, queue, user):
    """The version before moves results without noting it: they come after what is known to wait, whoever looked meanwhile."""
    execution = await store.execution(user, 40)
    await store.set_bucket(execution.bucket_id, window=100)
    taken = await queue.take(39)
    await store.change(execution.id, 3, ResultState.PENDING, ready_at=store.clock.now(), lease_id=None)
    await store.set_execution(execution.id, first_pending=39)
    await store.set_bucket(execution.bucket_id, window=20)
    for minutes in range(3):  # no room, however often somebody looks
        assert await queue.take() == [], minutes
        store.clock.advance(timedelta(minutes=1))
        await queue.leases.extend([ref(one) for one in taken])
    await store.set_bucket(execution.bucket_id, window=100)
    assert [one.result.batch_index for _ in range(2) for one in await queue.take()] == [39, 3]
    assert (await now_of(store, user, execution)).first_pending <= 3


async def test_a_retry_is_found_before_what_has_not_begun(store, queue, user):
    execution = await store.execution(user, 60)
    await store.set_bucket(execution.bucket_id, window=100)
    begun = [one for _ in range(5) for one in await queue.take(10)]
    assert (await now_of(store, user, execution)).first_pending >= 16  # what waits no more is passed over
    await queue.ledger.release([ref(begun[4])])
    assert [one.result.batch_index for one in await queue.take(2)] == [4, 50]


async def test_released_leases_go_back_at_once_and_count_nothing(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 2))
    started, unstarted = await queue.started(1), [ref(lease) for lease in await queue.take()]
    await queue.ledger.release([started[0][0], *unstarted])
    current = await now_of(store, user, execution)
    assert (current.pending, current.processing, current.reserved_micros, current.open_attempts) == (2, 0, 0, 0)
    assert [r.attempts for r in await store.results(user, execution.id)] == [0, 0]
    assert len(await queue.take(5)) == 2
