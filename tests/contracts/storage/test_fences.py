"""Who may still write: a start, an extension or an end under a lease that is old, over or of somebody else."""

import uuid
from datetime import timedelta

import pytest
from queue_steps import TTL, now_of, overtaken, ref

from nanobatch_storage.domain import (
    Charged,
    FailureClass,
    LeaseRef,
    ResultState,
)
from nanobatch_storage.errors import LeaseLostError


async def test_an_old_and_a_new_lease_of_one_result_are_told_apart_in_one_extension(store, queue, user):
    await store.execution(user, 1)
    (old,) = await queue.take()
    store.clock.advance(TTL)
    (new,) = await queue.take()
    assert await queue.leases.extend([ref(old), ref(new)]) == [ref(old)]
    assert await queue.leases.extend([ref(new), ref(old)]) == [ref(old)]


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


async def test_rubbish_ids_are_lost_leases_and_no_database_error(store, queue):
    for rubbish in (LeaseRef("", ""), LeaseRef("x'; --", "y"), LeaseRef(str(uuid.uuid4()), "no")):
        with pytest.raises(LeaseLostError):
            await queue.start(rubbish)
