"""Tasks that are out at a provider: stored the moment they are known, asked for by whoever is next, paid for once."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.lost_sql import EVERY as LOOK_FOR_LOST_EVERY
from nanobatch_storage.adapters.tables import attempts, jobs
from nanobatch_storage.domain import Charged, Failure, FailureClass, LeaseRef, PauseReason, ResultState
from nanobatch_storage.errors import LeaseLostError

TTL = timedelta(seconds=30)


class Tasks:
    """A run with one call out, whose task is known."""

    def __init__(self, store, user):
        self.store, self.user = store, user
        self.leases = SqlLeases(store.database, duration=TTL, ahead=0)
        self.ledger = SqlLedger(store.database)

    async def begin(self, **changes):
        self.execution = await self.store.paid(self.user, 1, **changes)
        await self.ledger.confirm_key(self.execution.bucket_id)
        (lease,) = await self.take()
        self.first = ref(lease)
        self.attempt = await self.ledger.start(self.first, self.execution.bucket_id)
        self.task = f"task-{uuid.uuid4()}"
        await self.ledger.note_job(self.first, self.attempt, self.task)
        return self

    async def take(self):
        return (await self.leases.take(5)).leases

    async def heir(self):
        self.store.clock.advance(TTL + timedelta(seconds=1))
        (lease,) = await self.take()
        return lease

    async def now(self):
        return (await self.store.executions.get(self.user, self.execution.id)).execution

    async def result(self):
        return (await self.store.results(self.user, self.execution.id))[0]

    async def count(self, table, *conditions):
        async with self.store.database.read() as tx:
            return (
                await tx.connection.execute(select(func.count()).select_from(table).where(*conditions))
            ).scalar_one()


def ref(lease):
    return LeaseRef(lease.result.id, lease.result.lease_id)


@pytest.fixture
async def tasks(store):
    return await Tasks(store, await store.user()).begin(max_cost_micros=40_000)


async def test_the_next_lease_takes_the_task_over_with_its_attempt_and_its_reservation(tasks):
    before = await tasks.now()
    lease = await tasks.heir()
    assert lease.job is not None
    assert (lease.job.attempt_id, lease.job.task_id) == (tasks.attempt, tasks.task)
    assert lease.job.elapsed == TTL + timedelta(seconds=1)
    after = await tasks.now()
    money = ("reserved_micros", "open_attempts", "uncertain_micros")
    assert [getattr(after, name) for name in money] == [getattr(before, name) for name in money] == [40_000, 1, 0]
    result = await tasks.result()
    assert (result.crashes, result.attempts) == (0, 0)
    assert await tasks.count(attempts) == 1


async def test_whoever_had_it_before_is_fenced_out_and_the_heir_closes_the_attempt(tasks):
    heir = ref(await tasks.heir())
    failure = Failure(FailureClass.BLOCKED, "CONTENT_BLOCKED", "A sentence.", Charged.NO)
    for write in (
        tasks.ledger.fail(tasks.first, tasks.attempt, failure),
        tasks.ledger.note_job(tasks.first, tasks.attempt, "another"),
        tasks.ledger.start(tasks.first, tasks.execution.bucket_id),
    ):
        with pytest.raises(LeaseLostError):
            await write
    state, _ = await tasks.ledger.fail(heir, tasks.attempt, failure)
    assert state is ResultState.FAILED
    current = await tasks.now()
    assert (current.reserved_micros, current.open_attempts, current.cost_micros) == (0, 0, 0)
    assert await tasks.count(jobs, jobs.c.poll_at.is_not(None)) == 0
    assert (await tasks.result()).job_id is None


async def test_telling_it_twice_changes_nothing_and_a_closed_attempt_takes_none(tasks):
    await tasks.ledger.note_job(tasks.first, tasks.attempt, tasks.task)
    assert await tasks.count(jobs) == 1
    with pytest.raises(LeaseLostError):
        await tasks.ledger.note_job(tasks.first, str(uuid.uuid4()), "x")
    await tasks.ledger.fail(
        tasks.first, tasks.attempt, Failure(FailureClass.BLOCKED, "CONTENT_BLOCKED", "A sentence.", Charged.NO)
    )
    with pytest.raises(LeaseLostError):
        await tasks.ledger.note_job(tasks.first, tasks.attempt, tasks.task)


async def test_a_stop_gives_it_back_at_once_with_the_task_still_out(tasks):
    assert await tasks.ledger.release([tasks.first]) == [tasks.execution.id]
    tasks.store.clock.advance(LOOK_FOR_LOST_EVERY)
    (lease,) = await tasks.take()
    assert lease.job is not None
    assert (await tasks.now()).open_attempts == 1


async def test_a_full_cap_does_not_keep_a_paid_task_from_being_asked_for(tasks):
    lease = await tasks.heir()  # the cap has room for this one call, which is reserved
    assert lease.job is not None
    assert (await tasks.now()).pause_reason is not PauseReason.SPEND_CAP


async def test_a_cancelled_task_that_nobody_asks_for_any_more_may_have_been_charged(tasks):
    await tasks.store.control.cancel(tasks.user, tasks.execution.id)
    tasks.store.clock.advance(TTL + timedelta(seconds=1))
    assert await tasks.take() == ()
    assert await tasks.ledger.close_abandoned() == [tasks.execution.id]
    current = await tasks.now()
    assert (current.open_attempts, current.uncertain_micros, current.reserved_micros) == (0, 40_000, 0)
