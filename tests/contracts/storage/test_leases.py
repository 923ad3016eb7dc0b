"""The queue: leases, fences, attempts and money, on both databases."""

import asyncio
import itertools
import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from nanobatch_runtime.errors import FailedPreconditionError, InvalidArgumentError
from nanobatch_runtime.testing import eventually
from nanobatch_storage import pacing
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.lost_sql import EVERY as LOOK_FOR_LOST_EVERY
from nanobatch_storage.domain import (
    Actor,
    Charged,
    Completion,
    EndedCall,
    ExecutionState,
    Failure,
    FailureClass,
    Image,
    ImageKind,
    LeaseRef,
    NewPicture,
    PauseReason,
    ResultState,
    Settings,
    UnknownPolicy,
    Usage,
)
from nanobatch_storage.errors import LeaseLostError, WindowFullError
from nanobatch_storage.pictures import blob_path

TTL = timedelta(seconds=30)
PRICE = Usage(input_tokens=12, image_output_tokens=1290, cost_micros=38_704, reported=True)


@dataclass
class Queue:
    """Leases and ledger with the steps that most tests take."""

    store: object
    leases: SqlLeases
    ledger: SqlLedger
    lag: timedelta = timedelta(0)
    owner: str = ""
    buckets: dict = field(default_factory=dict)

    async def take(self, slots=1, suspects=0):
        leases = list((await self.leases.take(slots, suspects)).leases)
        self.buckets |= {lease.result.lease_id: lease.execution.bucket_id for lease in leases}
        return leases

    async def started(self, slots=1, suspects=0):
        """Lease and start attempts: pairs of (lease reference, attempt id)."""
        return [(ref(lease), await self.start(ref(lease))) for lease in await self.take(slots, suspects)]

    async def start(self, lease, ended=None):
        return await self.ledger.start(lease, self.buckets.get(lease.lease_id, str(uuid.uuid4())), ended)

    async def complete(self, lease, attempt_id, usage=PRICE):
        completion = Completion(lease, attempt_id, (picture(),), usage, timedelta(seconds=2), "response")
        return (await self.ledger.complete(completion, [stored(p, self.owner) for p in completion.pictures])).state

    async def fail(self, lease, attempt_id, kind, *, charged=Charged.NO, usage=None, retry_after=None):
        failure = Failure(kind, kind.value, "A sentence.", charged, usage or Usage(), retry_after)
        return (await self.ledger.fail(lease, attempt_id, failure))[0]

    async def confirmed(self, execution):
        await self.ledger.confirm_key(execution.bucket_id)
        return execution


def ref(lease):
    return LeaseRef(lease.result.id, lease.result.lease_id)


def picture():
    return NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1024, 1024, 7, "a" * 64)


def stored(new, owner):
    return Image(
        new.id, owner, new.kind, new.mime_type, new.width, new.height, new.size_bytes, new.sha256,
        blob_path(owner, new.id, new.mime_type), None, None, None,
    )  # fmt: skip


@pytest.fixture
async def queue(store):
    made = Queue(store, None, SqlLedger(store.database))
    made.leases = SqlLeases(store.database, duration=TTL, ahead=0, loop_lag=lambda: made.lag)
    return made


@pytest.fixture
async def user(store, queue):
    actor = await store.user()
    queue.owner = actor.user_id
    return actor


async def now_of(store, actor, execution):
    return (await store.executions.get(actor, execution.id)).execution


async def test_an_old_and_a_new_lease_of_one_result_are_told_apart_in_one_extension(store, queue, user):
    await store.execution(user, 1)
    (old,) = await queue.take()
    store.clock.advance(TTL)
    (new,) = await queue.take()
    assert await queue.leases.extend([ref(old), ref(new)]) == [ref(old)]
    assert await queue.leases.extend([ref(new), ref(old)]) == [ref(old)]


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


async def test_a_completion_counts_costs_and_closes_the_execution(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 2, max_cost_micros=200_000))
    for lease, attempt in await queue.started(2):
        assert await queue.complete(lease, attempt) is ResultState.COMPLETED
    done = await now_of(store, user, execution)
    assert (done.state, done.completed, done.cost_micros) == (ExecutionState.COMPLETED, 2, 2 * 38_704)
    assert (done.reserved_micros, done.open_attempts, done.uncertain_micros) == (0, 0, 0)
    assert done.end_time is not None
    assert not (await store.executions.get(user, execution.id)).has_key  # the unsaved key is wiped


async def test_a_completion_whose_answer_was_lost_is_recognised(store, queue, user):
    execution = await store.execution(user, 2)
    ((lease, attempt),) = await queue.started(1)
    await queue.complete(lease, attempt)
    before = await now_of(store, user, execution)
    assert await queue.complete(lease, attempt) is ResultState.COMPLETED
    assert (await queue.ledger.check(lease, attempt)).done is ResultState.COMPLETED
    assert await now_of(store, user, execution) == before


async def test_no_call_starts_in_the_last_second_of_a_lease(store, queue, user):
    """Storage was away, and no heartbeat has arrived yet: the call would outlive its lease, and somebody else call again."""
    await store.execution(user, 2)
    (late, in_time) = await queue.take(2)
    store.clock.advance(TTL - timedelta(seconds=2))
    await queue.start(ref(in_time))
    store.clock.advance(timedelta(seconds=1))
    with pytest.raises(LeaseLostError):
        await queue.start(ref(late))
    (again,) = await queue.take()  # it went back at once
    assert again.result.id == late.result.id


async def test_a_start_whose_answer_was_lost_may_be_asked_for_again_until_the_lease_is_over(store, queue, user):
    await store.execution(user, 1)
    (lease,) = await queue.take()
    attempt = await queue.start(ref(lease))
    store.clock.advance(TTL - timedelta(milliseconds=500))
    assert await queue.start(ref(lease)) == attempt


async def test_a_start_whose_answer_was_lost_opens_one_attempt(store, queue, user):
    execution = await store.execution(user, 1)
    (lease,) = [ref(one) for one in await queue.take()]
    assert await queue.start(lease) == await queue.start(lease)
    assert (await now_of(store, user, execution)).open_attempts == 1


async def test_who_asks_again_after_a_cancel_or_a_pause_is_refused_and_gives_back_what_was_never_sent(
    store, queue, user
):
    execution = await queue.confirmed(await store.paid(user, 3))
    first, second = [ref(one) for one in await queue.take(2)]
    attempt = await queue.start(first)
    assert await queue.start(first) == attempt
    await queue.start(second)
    await store.control.pause(user, execution.id)
    with pytest.raises(LeaseLostError):
        await queue.start(first)
    await queue.ledger.release([first])
    await store.control.cancel(user, execution.id)
    with pytest.raises(LeaseLostError):
        await queue.start(second)
    await queue.ledger.release([second])
    current = await now_of(store, user, execution)
    assert (current.open_attempts, current.reserved_micros, current.uncertain_micros) == (0, 0, 0)
    assert not (await store.executions.get(user, execution.id)).has_key


async def overtaken(store, queue):
    """A zombie: its lease ran out and somebody else has the result now."""
    ((zombie, attempt),) = await queue.started(1)
    store.clock.advance(TTL + timedelta(seconds=1))
    ((heir, new_attempt),) = await queue.started(1)
    assert heir.result_id == zombie.result_id
    return (zombie, attempt), (heir, new_attempt)


async def test_a_zombies_late_writes_are_all_refused(store, queue, user):
    execution = await store.execution(user, 1)
    (zombie, attempt), heir = await overtaken(store, queue)
    before = await now_of(store, user, execution)
    with pytest.raises(LeaseLostError):
        await queue.complete(zombie, attempt)
    with pytest.raises(LeaseLostError):
        await queue.ledger.check(zombie, attempt)
    with pytest.raises(LeaseLostError):
        await queue.fail(zombie, attempt, FailureClass.TRANSIENT)
    with pytest.raises(LeaseLostError):
        await queue.start(zombie)
    assert await queue.leases.extend([zombie]) == [zombie]
    assert await queue.ledger.release([zombie]) == []
    assert await now_of(store, user, execution) == before
    assert await queue.complete(*heir) is ResultState.COMPLETED


async def test_what_was_given_back_or_completed_has_not_failed(store, queue, user):
    await store.paid(user, 2)
    ((done, first),) = await queue.started()
    await queue.complete(done, first)
    ((given_back, second),) = await queue.started()
    await queue.ledger.release([given_back])
    for lease, attempt_id in ((done, first), (given_back, second)):
        with pytest.raises(LeaseLostError):
            await queue.fail(lease, attempt_id, FailureClass.TRANSIENT, charged=Charged.MAYBE)


async def test_an_expired_lease_that_nobody_overtook_may_still_complete(store, queue, user):
    await store.execution(user, 1)
    ((lease, attempt),) = await queue.started(1)
    store.clock.advance(TTL * 10)
    assert await queue.complete(lease, attempt) is ResultState.COMPLETED


async def test_an_expired_lease_starts_no_call(store, queue, user):
    await store.execution(user, 1)
    (lease,) = [ref(one) for one in await queue.take()]
    store.clock.advance(TTL)
    with pytest.raises(LeaseLostError):
        await queue.start(lease)


async def test_extended_leases_last_and_lost_ones_are_named(store, queue, user):
    await store.execution(user, 3)
    refs = [ref(lease) for lease in await queue.take(2)]
    stranger = LeaseRef(refs[0].result_id, str(uuid.uuid4()))
    unknown = LeaseRef(str(uuid.uuid4()), str(uuid.uuid4()))
    store.clock.advance(TTL - timedelta(seconds=1))
    assert await queue.leases.extend([refs[1], unknown]) == [unknown]
    assert await queue.leases.extend([stranger]) == [stranger]
    store.clock.advance(timedelta(seconds=2))
    again = await queue.take(5)
    assert refs[1].result_id not in {lease.result.id for lease in again}
    assert refs[0].result_id in {lease.result.id for lease in again}


async def test_a_lost_lease_with_an_open_call_is_a_crash_that_may_have_been_charged(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 1))
    await overtaken(store, queue)
    (result,) = await store.results(user, execution.id)
    current = await now_of(store, user, execution)
    assert (result.crashes, result.failures, result.attempts) == (1, 0, 1)
    assert (current.uncertain_micros, current.reserved_micros, current.open_attempts) == (40_000, 40_000, 1)


async def test_a_lost_lease_without_a_call_costs_nothing(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 1))
    await queue.take()
    store.clock.advance(TTL + timedelta(seconds=1))
    await queue.take()
    (result,) = await store.results(user, execution.id)
    current = await now_of(store, user, execution)
    assert (result.crashes, result.attempts) == (0, 0)
    assert (current.uncertain_micros, current.reserved_micros) == (0, 40_000)


async def crash(store, queue, times, suspects=0):
    """Let a generator die ``times`` times with all that it could lease out."""
    for _ in range(times):
        assert await queue.started(10, suspects)
        store.clock.advance(TTL + timedelta(seconds=1))


class TestSuspects:
    async def test_after_two_crashes_a_result_is_only_for_those_who_can_run_it_alone(self, store, queue, user):
        execution = await store.execution(user, 1)
        await crash(store, queue, 2)
        assert await queue.take(10) == []
        (result,) = await store.results(user, execution.id)
        assert (result.state, result.crashes, result.attempts) == (ResultState.PENDING, 2, 2)
        current = await now_of(store, user, execution)
        assert (current.processing, current.reserved_micros) == (0, 0)  # it waits without a place and a reservation
        (lease,) = await queue.take(10, suspects=1)
        assert lease.result.crashes == 2

    async def test_suspects_that_wait_hold_up_nobody(self, store, queue, user):
        await store.execution(user, 14)
        await crash(store, queue, 2)  # ten suspects ahead of four others
        await queue.take(10)
        first = await queue.take(10)
        second = await queue.take(10, suspects=2)
        assert [lease.result.crashes for lease in (*first, *second)].count(2) == 2
        others = {lease.result.batch_index for lease in (*first, *second) if not lease.result.crashes}
        assert others | {lease.result.batch_index for lease in await queue.take(10)} == {10, 11, 12, 13}

    async def test_only_the_death_of_its_own_process_ends_a_suspect(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 2))
        await crash(store, queue, 2)
        (poison, attempt), (innocent, other_attempt) = await queue.started(10, suspects=2)
        lost = await queue.fail(poison, attempt, FailureClass.WORKER_LOST, charged=Charged.MAYBE)
        assert lost is ResultState.FAILED
        assert await queue.complete(innocent, other_attempt) is ResultState.COMPLETED
        current = await now_of(store, user, execution)
        assert (current.state, current.completed, current.failed) == (ExecutionState.COMPLETED, 1, 1)
        assert (current.uncertain_micros, current.reserved_micros) == (5 * 40_000, 0)
        assert [r.crashes for r in await store.results(user, execution.id)] == [3, 2]

    async def test_generators_that_die_prove_nothing_but_not_for_ever(self, store, queue, user):
        execution = await store.execution(user, 1)
        await crash(store, queue, 9, suspects=1)
        assert (await store.results(user, execution.id))[0].state is ResultState.PROCESSING
        await crash(store, queue, 1, suspects=1)
        assert await queue.take(1, suspects=1) == []
        (result,) = await store.results(user, execution.id)
        assert (result.error_code, result.error_charged) == ("WORKER_LOST", Charged.MAYBE)
        assert (result.state, result.crashes, result.failures) == (ResultState.FAILED, 10, 0)
        assert (await now_of(store, user, execution)).state is ExecutionState.FAILED

    async def test_a_retry_by_hand_clears_the_suspicion(self, store, queue, user):
        execution = await store.execution(user, 1)
        await crash(store, queue, 2)
        ((lease, attempt),) = await queue.started(1, suspects=1)
        await queue.fail(lease, attempt, FailureClass.WORKER_LOST, charged=Charged.MAYBE)
        await store.control.retry(user, execution.id, store.retry())
        assert len(await queue.take()) == 1


async def test_a_crash_is_final_where_the_user_wants_no_repeat_of_unknown_calls(store, queue, user):
    execution = await store.execution(user, 1, settings=Settings(on_unknown=UnknownPolicy.FAIL))
    await queue.started(1)
    store.clock.advance(TTL + timedelta(seconds=1))
    assert await queue.take() == []
    (result,) = await store.results(user, execution.id)
    assert result.error_code == "OUTCOME_UNKNOWN"


async def test_while_the_loop_was_blocked_no_lease_counts_as_expired(store, queue, user):
    await store.execution(user, 1)
    await queue.take()
    store.clock.advance(TTL + timedelta(seconds=5))
    queue.lag = timedelta(seconds=10)
    assert await queue.take() == []
    queue.lag = timedelta(0)
    store.clock.advance(LOOK_FOR_LOST_EVERY)
    assert len(await queue.take()) == 1


async def test_while_leases_are_out_somebody_looks_a_few_times_a_second_whether_they_run_out(store, queue, user):
    execution = await store.execution(user, 1)
    await queue.take()
    assert (await queue.leases.take(1)).look_again_at == store.clock.now() + LOOK_FOR_LOST_EVERY
    await store.control.cancel(user, execution.id)
    assert (await queue.leases.take(1)).look_again_at is None


async def test_a_lease_is_found_that_was_written_down_long_after_the_time_it_counts_from(store, queue, user):
    """Whoever wrote it down waited so long that all others were looked through meanwhile."""
    execution = await store.execution(user, 1)
    await queue.take()
    (held,) = await store.results(user, execution.id)
    store.clock.advance(timedelta(seconds=20))
    assert await queue.take() == []
    before = store.clock.now() - timedelta(seconds=15)
    await store.change(execution.id, 0, ResultState.PROCESSING, ready_at=before, lease_expires_at=before)
    store.clock.advance(LOOK_FOR_LOST_EVERY)
    assert await queue.take() == []  # it is not looked for there
    store.clock.advance(timedelta(seconds=40))
    (found,) = await queue.take()  # the look at everything
    assert (found.result.id, found.result.lease_id != held.lease_id) == (held.id, True)


async def test_a_lease_that_ran_out_is_found_though_the_clock_went_back_in_between(store, queue, user):
    first = await store.execution(user, 1)
    await queue.take()
    store.clock.advance(timedelta(seconds=20))
    assert await queue.take() == []  # up to here all was looked through
    await store.control.cancel(user, first.id)
    store.clock.advance(-timedelta(hours=1))
    await store.execution(user, 1)
    (held,) = await queue.take()
    store.clock.advance(TTL)
    (found,) = await queue.take()
    assert found.result.id == held.result.id


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


async def test_leases_that_ran_out_during_a_pause_keep_nobody_looking_and_are_found_at_once_after_it(
    store, queue, user
):
    execution, other = await store.execution(user, 1), await store.paid(await store.user(), 1)
    await queue.take(1)
    await store.control.pause(user, execution.id)
    await store.control.cancel(Actor(other.user_id), other.id)
    store.clock.advance(TTL + timedelta(hours=1))
    assert (await queue.leases.take(1)).look_again_at is None
    store.clock.advance(timedelta(seconds=30))
    assert (await queue.leases.take(1)).look_again_at is None
    await store.control.resume(user, execution.id, None, None)
    (found,) = await queue.take()
    assert found.execution.id == execution.id


async def test_a_retry_is_found_before_what_has_not_begun(store, queue, user):
    execution = await store.execution(user, 60)
    await store.set_bucket(execution.bucket_id, window=100)
    begun = [one for _ in range(5) for one in await queue.take(10)]
    assert (await now_of(store, user, execution)).first_pending >= 16  # what waits no more is passed over
    await queue.ledger.release([ref(begun[4])])
    assert [one.result.batch_index for one in await queue.take(2)] == [4, 50]


async def test_a_start_lets_all_old_leases_run_out_at_once(store, queue, user):
    execution = await store.execution(user, 3)
    await queue.started(2)
    await queue.leases.expire_all()
    assert len(await queue.take(5)) == 3
    assert [r.crashes for r in await store.results(user, execution.id)] == [1, 1, 0]


async def test_released_leases_go_back_at_once_and_count_nothing(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 2))
    started, unstarted = await queue.started(1), [ref(lease) for lease in await queue.take()]
    await queue.ledger.release([started[0][0], *unstarted])
    current = await now_of(store, user, execution)
    assert (current.pending, current.processing, current.reserved_micros, current.open_attempts) == (2, 0, 0, 0)
    assert [r.attempts for r in await store.results(user, execution.id)] == [0, 0]
    assert len(await queue.take(5)) == 2


class TestCap:
    async def test_no_lease_reserves_beyond_the_cap(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 10, max_cost_micros=100_000))
        assert len(await queue.take(10)) == 2  # 2 x 40,000; a third would pass it
        assert (await now_of(store, user, execution)).reserved_micros == 80_000
        assert (await now_of(store, user, execution)).state is ExecutionState.PROCESSING

    async def test_it_pauses_when_nothing_is_out_and_nothing_more_fits(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 10, max_cost_micros=100_000))
        for lease, attempt in await queue.started(10):
            await queue.complete(lease, attempt)
        assert await queue.take(10) == []
        current = await now_of(store, user, execution)
        assert (current.state, current.pause_reason) == (ExecutionState.PAUSED, PauseReason.SPEND_CAP)
        assert (current.completed, current.pending, current.cost_micros) == (2, 8, 77_408)

    async def test_what_may_have_been_charged_counts_as_spent(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 5, max_cost_micros=100_000))
        for lease, attempt in await queue.started(2):
            await queue.fail(lease, attempt, FailureClass.UNKNOWN, charged=Charged.MAYBE)
        store.clock.advance(timedelta(minutes=5))
        assert await queue.take(5) == []
        current = await now_of(store, user, execution)
        assert (current.pause_reason, current.uncertain_micros) == (PauseReason.SPEND_CAP, 80_000)

    async def test_a_raised_cap_goes_on(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 3, max_cost_micros=40_000))
        ((lease, attempt),) = await queue.started(5)
        await queue.complete(lease, attempt)
        await queue.take()
        await store.control.resume(user, execution.id, None, 1_000_000)
        assert len(await queue.take(5)) == 2

    async def test_a_bill_above_its_reservation_is_recorded_and_pauses(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 3, max_cost_micros=40_000))
        ((lease, attempt),) = await queue.started(1)
        await queue.complete(lease, attempt, replace(PRICE, cost_micros=90_000))
        current = await now_of(store, user, execution)
        assert (current.state, current.cost_micros) == (ExecutionState.PAUSED, 90_000)

    async def test_many_at_once_never_overspend(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 60, max_cost_micros=500_000))

        async def worker():
            while True:
                leases = await queue.started(3)
                if not leases:
                    return
                for lease, attempt in leases:
                    await queue.complete(lease, attempt, replace(PRICE, cost_micros=40_000))

        await asyncio.gather(*(worker() for _ in range(6)))
        await queue.take(1)
        current = await now_of(store, user, execution)
        assert current.cost_micros == 480_000
        assert (current.state, current.completed) == (ExecutionState.PAUSED, 12)


class TestFailures:
    async def test_a_transient_failure_waits_and_comes_again(self, store, queue, user):
        execution = await store.execution(user, 1)
        ((lease, attempt),) = await queue.started(1)
        assert await queue.fail(lease, attempt, FailureClass.TRANSIENT) is ResultState.PENDING
        store.clock.advance(timedelta(seconds=2))
        ((lease, attempt),) = await queue.started(1)
        await queue.fail(lease, attempt, FailureClass.TRANSIENT)
        store.clock.advance(timedelta(seconds=4))
        ((lease, attempt),) = await queue.started(1)
        assert await queue.fail(lease, attempt, FailureClass.TRANSIENT) is ResultState.FAILED
        (result,) = await store.results(user, execution.id)
        assert (result.attempts, result.error_code, result.error_message) == (3, "TRANSIENT", "A sentence.")
        assert (await now_of(store, user, execution)).state is ExecutionState.FAILED

    async def test_a_failure_told_twice_counts_once(self, store, queue, user):
        execution = await store.execution(user, 1)
        ((lease, attempt),) = await queue.started(1)
        await queue.fail(lease, attempt, FailureClass.TRANSIENT)
        before = await now_of(store, user, execution)
        assert await queue.fail(lease, attempt, FailureClass.TRANSIENT) is ResultState.PENDING
        assert await now_of(store, user, execution) == before

    async def test_a_rate_limit_holds_back_the_whole_bucket_and_that_alone(self, store, queue, user):
        limited = await queue.confirmed(await store.paid(user, 5))
        free = await store.execution(user, 2)
        by_execution = {}
        for lease in await queue.take(2):
            by_execution[lease.execution.id] = ref(lease)
        lease = by_execution[limited.id]
        attempt = await queue.start(lease)
        wait = timedelta(seconds=26)
        assert await queue.fail(lease, attempt, FailureClass.RATE_LIMITED, retry_after=wait) is ResultState.PENDING
        assert {one.execution.id for one in await queue.take(10)} == {free.id}
        (first, *_) = await store.results(user, limited.id)
        assert first.failures == 0
        await store.control.cancel(user, free.id)  # while leases are out, somebody looks whether they run out
        store.clock.advance(timedelta(seconds=25))
        assert (await queue.leases.take(10)).look_again_at == store.clock.now() + timedelta(seconds=1)
        store.clock.advance(timedelta(seconds=1))
        assert len(await queue.take(10)) == 1  # one goes first

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            (FailureClass.KEY_INVALID, PauseReason.INVALID_KEY),
            (FailureClass.KEY_UNUSABLE, PauseReason.INVALID_KEY),
            (FailureClass.MODEL_GONE, PauseReason.MODEL_GONE),
            (FailureClass.QUOTA_DAY, PauseReason.DAILY_QUOTA),
        ],
    )
    async def test_a_bad_key_pauses_every_execution_of_its_bucket_and_no_call_starts_after(
        self, store, queue, user, kind, reason
    ):
        one = await queue.confirmed(await store.paid(user, 5, fingerprint="c" * 64))
        other = await store.user()
        two = await store.paid(other, 5, fingerprint="c" * 64)
        assert one.bucket_id == two.bucket_id
        (lease, attempt), *rest = await queue.started(4)
        unstarted = [ref(lease) for lease in await queue.take(2)]
        await queue.fail(lease, attempt, kind)
        for actor, execution in ((user, one), (other, two)):
            current = await now_of(store, actor, execution)
            assert (current.state, current.pause_reason) == (ExecutionState.PAUSED, reason)
        for waiting in unstarted:
            with pytest.raises(LeaseLostError):
                await queue.start(waiting)
        for started, its_attempt in rest:  # what is out comes home
            assert await queue.complete(started, its_attempt) is ResultState.COMPLETED
        assert await queue.take(10) == []

    async def test_a_daily_quota_resumes_by_itself_when_it_resets(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 2))
        ((lease, attempt),) = await queue.started(1)
        await queue.fail(lease, attempt, FailureClass.QUOTA_DAY)
        paused = await now_of(store, user, execution)
        assert await queue.leases.resume_due() == []
        store.clock.advance(paused.resume_time - store.clock.now())
        assert await queue.leases.resume_due() == [execution.id]
        assert len(await queue.take(5)) >= 1

    async def test_a_failure_before_the_call_needs_no_attempt(self, store, queue, user):
        execution = await store.paid(user, 2)
        (lease,) = [ref(one) for one in await queue.take(5)]
        assert await queue.fail(lease, None, FailureClass.KEY_INVALID) is ResultState.PENDING
        current = await now_of(store, user, execution)
        assert (current.pause_reason, current.reserved_micros) == (PauseReason.INVALID_KEY, 0)
        assert [r.attempts for r in await store.results(user, execution.id)] == [0, 0]


class TestCancelledWhileOut:
    async def out(self, store, queue, user):
        execution = await queue.confirmed(await store.paid(user, 3))
        ((lease, attempt),) = await queue.started(1)
        (unstarted,) = [ref(one) for one in await queue.take(1)]
        cancellation = await store.control.cancel(user, execution.id)
        assert cancellation.in_flight == 1
        assert cancellation.maybe_charged_micros == 40_000
        return execution, lease, attempt, unstarted

    async def test_no_call_starts_after_it(self, store, queue, user):
        _, _, _, unstarted = await self.out(store, queue, user)
        with pytest.raises(LeaseLostError):
            await queue.start(unstarted)
        assert await queue.take(10) == []

    async def test_a_late_picture_is_kept_with_its_cost_and_the_state_stays(self, store, queue, user):
        execution, lease, attempt, _ = await self.out(store, queue, user)
        assert (await store.executions.get(user, execution.id)).has_key
        assert await queue.complete(lease, attempt) is ResultState.CANCELLED
        current = await now_of(store, user, execution)
        assert (current.state, current.cancelled, current.cost_micros) == (ExecutionState.CANCELLED, 3, 38_704)
        assert (current.open_attempts, current.reserved_micros) == (0, 0)
        first = (await store.results(user, execution.id))[0]
        assert first.image_id is not None
        assert not (await store.executions.get(user, execution.id)).has_key  # wiped with the last call

    async def test_a_late_failure_closes_the_call(self, store, queue, user):
        execution, lease, attempt, _ = await self.out(store, queue, user)
        assert await queue.fail(lease, attempt, FailureClass.TRANSIENT) is ResultState.CANCELLED
        assert (await now_of(store, user, execution)).open_attempts == 0

    async def test_its_heart_may_beat_on_and_a_call_that_died_closes_by_itself(self, store, queue, user):
        execution, lease, attempt, _ = await self.out(store, queue, user)
        store.clock.advance(TTL - timedelta(seconds=1))
        assert await queue.leases.extend([lease]) == []
        store.clock.advance(TTL - timedelta(seconds=1))
        assert await queue.ledger.close_abandoned() == []
        store.clock.advance(timedelta(seconds=2))
        assert await queue.ledger.close_abandoned() == [execution.id]
        current = await now_of(store, user, execution)
        assert (current.open_attempts, current.uncertain_micros, current.reserved_micros) == (0, 40_000, 0)
        with pytest.raises(LeaseLostError):
            await queue.complete(lease, attempt)


async def test_a_pause_lets_calls_that_are_out_come_home_and_starts_none(store, queue, user):
    execution = await store.execution(user, 4)
    ((lease, attempt),) = await queue.started(1)
    (unstarted,) = [ref(one) for one in await queue.take(1)]
    await store.control.pause(user, execution.id)
    with pytest.raises(LeaseLostError):
        await queue.start(unstarted)
    assert await queue.complete(lease, attempt) is ResultState.COMPLETED
    assert await queue.take(5) == []
    current = await now_of(store, user, execution)
    assert (current.pending, current.processing, current.completed) == (3, 0, 1)
    await store.control.resume(user, execution.id, None, None)
    assert len(await queue.take(5)) == 3


async def test_rubbish_ids_are_lost_leases_and_no_database_error(store, queue):
    for rubbish in (LeaseRef("", ""), LeaseRef("x'; --", "y"), LeaseRef(str(uuid.uuid4()), "no")):
        with pytest.raises(LeaseLostError):
            await queue.start(rubbish)


async def test_counts_are_the_rows_after_any_mixture(store, queue, user):
    execution = await queue.confirmed(await store.paid(user, 30))
    kinds = [FailureClass.TRANSIENT, FailureClass.BLOCKED, FailureClass.EMPTY, FailureClass.UNKNOWN]

    async def one(lease, number):
        try:
            attempt = await queue.start(lease)
            if number % 3:
                await queue.complete(lease, attempt)
            else:
                await queue.fail(lease, attempt, kinds[number % 4])
        except LeaseLostError:
            pass  # cancelled meanwhile

    async def worker(number):
        for step in range(12):
            for lease in await queue.take(2):
                await one(ref(lease), number + step)

    await asyncio.gather(*(worker(number) for number in range(4)), store.control.cancel(user, execution.id))
    results = await store.results(user, execution.id)
    current = await now_of(store, user, execution)
    counts = {state: sum(1 for r in results if r.state is state) for state in ResultState}
    assert (current.pending, current.processing, current.completed, current.failed, current.cancelled) == tuple(
        counts[state] for state in ResultState
    )
    assert sum(r.cost_micros for r in results) == current.cost_micros
    assert len({r.revision for r in results}) == 30
    async with store.database.read() as tx:
        query = text("select count(*), coalesce(sum(cost_micros), 0) from attempts where charged is not null")
        closed, cost = (await tx.connection.execute(query)).one()
    assert (closed, cost) == (sum(r.attempts for r in results), current.cost_micros)


async def unless_refused(step):
    try:
        return await step
    except (LeaseLostError, WindowFullError, FailedPreconditionError, InvalidArgumentError):
        return None


async def work_on(queue, over, ended):
    for step in itertools.count():
        if over.is_set():
            return
        await asyncio.sleep(0)  # SQLite looks for work without giving way
        for lease in [ref(one) for one in await queue.take(3)]:
            call = await unless_refused(queue.start(lease))
            if call is None:
                continue
            if step % 4 == 0:
                await unless_refused(queue.fail(lease, call, FailureClass.BLOCKED))
            elif await unless_refused(queue.complete(lease, call)) is ResultState.COMPLETED:
                ended.add(lease.result_id)


async def shake(store, user, execution, number):
    control = store.control
    for step in range(12):
        found = [r.id for r in await store.results(user, execution.id) if r.state is ResultState.CANCELLED]
        asked = {
            0: lambda: control.pause(user, execution.id),
            1: lambda: control.resume(user, execution.id, None, None),
            2: lambda: control.cancel(user, execution.id),
            3: lambda found=found: control.retry(user, execution.id, store.retry(result_ids=tuple(found))),
        }
        await unless_refused(asked[(number + step) % 4]())
        for _ in range(100):  # the work gets its turn
            await asyncio.sleep(0)


async def test_storms_of_control_against_work_leave_nothing_held_and_undo_nothing(store, queue, user):
    """Real concurrency on PostgreSQL: a deadlock that is not repeated away, or a lock taken out of order, shows here."""
    execution = await store.execution(user, 80)
    over, ended = asyncio.Event(), set()
    work = [asyncio.create_task(work_on(queue, over, ended)) for _ in range(4)]
    await asyncio.gather(*(shake(store, user, execution, number) for number in range(4)))
    left = [r.id for r in await store.results(user, execution.id) if r.state is ResultState.CANCELLED]
    await unless_refused(store.control.retry(user, execution.id, store.retry(result_ids=tuple(left))))
    await unless_refused(store.control.resume(user, execution.id, None, None))
    await eventually(lambda: ended, within=30)  # however little the storm let through
    over.set()
    await asyncio.gather(*work)
    await store.control.cancel(user, execution.id)
    assert await queue.take(10) == []
    current = await now_of(store, user, execution)
    assert current.is_final
    assert (current.open_attempts, current.reserved_micros, current.finishing, current.processing) == (0, 0, 0, 0)
    results = {r.id: r for r in await store.results(user, execution.id)}
    assert ended
    assert {results[result_id].state for result_id in ended} == {ResultState.COMPLETED}
    await store.control.delete(user, execution.id)
