"""What a call leaves behind when it completes, fails, is cancelled or costs too much."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from queue_steps import PRICE, TTL, now_of, ref
from sqlalchemy import text

from nanobatch_storage.domain import (
    Charged,
    ExecutionState,
    FailureClass,
    PauseReason,
    ResultState,
)
from nanobatch_storage.errors import LeaseLostError


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
