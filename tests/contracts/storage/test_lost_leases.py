"""Leases that ran out: who finds them, what they count, and who may try again."""

from datetime import timedelta

from queue_steps import TTL, now_of, overtaken

from nanobatch_storage.adapters.lost_sql import EVERY as LOOK_FOR_LOST_EVERY
from nanobatch_storage.domain import (
    Actor,
    Charged,
    ExecutionState,
    FailureClass,
    ResultState,
    Settings,
    UnknownPolicy,
)


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


async def test_a_start_lets_all_old_leases_run_out_at_once(store, queue, user):
    execution = await store.execution(user, 3)
    await queue.started(2)
    await queue.leases.expire_all()
    assert len(await queue.take(5)) == 3
    assert [r.crashes for r in await store.results(user, execution.id)] == [1, 1, 0]
