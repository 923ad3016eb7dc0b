"""What a user may spend in a day, on both databases."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import update

from nanobatch_storage.accounts import UserUpdate
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.tables import users
from nanobatch_storage.adapters.users_sql import SqlUsers
from nanobatch_storage.domain import (
    Charged,
    Completion,
    ExecutionState,
    Failure,
    FailureClass,
    Image,
    ImageKind,
    LeaseRef,
    NewPicture,
    PauseReason,
    Usage,
)
from nanobatch_storage.pictures import blob_path

PRICE = 38_704
CAP = 200_000  # five worst cases of 40,000


class Spender:
    """A capped user and a generator that works for them."""

    def __init__(self, store, actor):
        self.store, self.actor = store, actor
        self.leases = SqlLeases(store.database, duration=timedelta(seconds=30), ahead=0)
        self.ledger = SqlLedger(store.database)

    async def run(self, count, **changes):
        execution = await self.store.paid(self.actor, count, **changes)
        await self.ledger.confirm_key(execution.bucket_id)
        return execution

    async def started(self, slots):
        calls = []
        for lease in (await self.leases.take(slots)).leases:
            ref = LeaseRef(lease.result.id, lease.result.lease_id)
            calls.append((ref, await self.ledger.start(ref, lease.execution.bucket_id)))
        return calls

    async def complete(self, ref, attempt, cost=PRICE):
        picture = NewPicture(str(uuid.uuid4()), ImageKind.MASTER, "image/png", 1, 1, 7, "a" * 64)
        path = blob_path(self.actor.user_id, picture.id, "image/png")
        image = Image(
            picture.id, self.actor.user_id, picture.kind, "image/png", 1, 1, 7, "a" * 64, path, None, None, None
        )
        usage = Usage(cost_micros=cost, reported=True)
        await self.ledger.complete(Completion(ref, attempt, (picture,), usage, timedelta(seconds=1), ""), [image])

    async def spend(self, slots=10):
        calls = await self.started(slots)
        for call in calls:
            await self.complete(*call)
        return len(calls)

    async def now_of(self, execution):
        return (await self.store.executions.get(self.actor, execution.id)).execution

    async def cap(self, micros):
        admin = await self.store.user(admin=True)
        change = UserUpdate(self.actor.user_id, mask=frozenset({"daily_cap_micros"}), daily_cap_micros=micros)
        await SqlUsers(self.store.database).update(admin, change)


@pytest.fixture
async def spender(store):
    actor = await store.user()

    async def work(tx):
        await tx.connection.execute(update(users).where(users.c.id == actor.user_id).values(daily_cap_micros=CAP))

    await store.database.write(work)
    return Spender(store, actor)


async def test_all_executions_of_a_user_share_the_cap_and_pause_until_midnight(spender):
    one, two = await spender.run(6), await spender.run(6)
    assert await spender.spend(8) == 5  # worst cases are reserved
    assert await spender.started(8) == []
    for execution in (one, two):
        current = await spender.now_of(execution)
        assert (current.state, current.pause_reason) == (ExecutionState.PAUSED, PauseReason.DAILY_SPEND_CAP)
        assert current.resume_time is not None
        assert (current.resume_time.hour, current.resume_time.minute) == (0, 0)
        assert timedelta(0) < current.resume_time - spender.store.clock.now() <= timedelta(days=1)
    assert (await spender.now_of(one)).completed + (await spender.now_of(two)).completed == 5


async def test_the_next_day_it_goes_on_by_itself(spender):
    execution = await spender.run(8)
    await spender.spend(8)
    await spender.started(8)
    current = await spender.now_of(execution)
    assert await spender.leases.resume_due() == []
    spender.store.clock.advance(current.resume_time - spender.store.clock.now())
    assert await spender.leases.resume_due() == [execution.id]
    await spender.ledger.confirm_key(execution.bucket_id)  # keys are looked at once a day
    assert await spender.spend(8) == 3


async def test_a_raised_cap_resumes_what_it_had_paused_and_nothing_else(spender):
    execution, other = await spender.run(7), await spender.run(3)
    await spender.store.control.pause(spender.actor, other.id)
    await spender.spend(8)
    await spender.started(8)
    await spender.cap(10 * CAP)
    assert await spender.leases.resume_due() == [execution.id]
    assert await spender.spend(8) == 2
    assert (await spender.now_of(other)).pause_reason is PauseReason.USER
    await spender.cap(None)
    await spender.store.control.resume(spender.actor, other.id, None, None)
    assert await spender.spend(8) == 3


async def test_what_may_have_been_charged_and_what_is_out_count(spender):
    execution = await spender.run(9)
    (first, *_) = calls = await spender.started(3)
    lost = Failure(FailureClass.UNKNOWN, "CALL_TIMED_OUT", "A sentence.", Charged.MAYBE)
    await spender.ledger.fail(*first, lost)
    assert len(await spender.started(9)) == 2  # 40,000 perhaps, 4 x 40,000 reserved
    current = await spender.now_of(execution)
    assert current.state is ExecutionState.PROCESSING  # what is out may still turn out cheaper
    assert current.uncertain_micros + current.reserved_micros == CAP
    await spender.ledger.release([calls[1][0]])
    assert len(await spender.started(9)) == 1


async def test_a_deleted_execution_stays_spent_and_another_user_spends_on(spender, store):
    execution = await spender.run(5)
    await spender.spend(5)
    await store.control.delete(spender.actor, execution.id)
    await spender.run(2)
    assert await spender.spend(5) == 0
    other = Spender(store, await store.user())
    await other.run(2)
    assert await other.spend(5) == 2


async def test_what_is_free_runs_on(spender, store):
    await spender.run(9)
    await spender.spend(9)
    await spender.started(9)
    await store.execution(spender.actor, 2, reservation_micros=0)
    assert len(await spender.started(9)) == 2


async def test_many_generators_at_once_never_pass_it(spender):
    await asyncio.gather(*(spender.run(20) for _ in range(4)))
    spent = []

    async def generator():
        for _ in range(4):
            for call in await spender.started(3):
                await spender.complete(*call, cost=40_000)
                spent.append(40_000)

    await asyncio.gather(*(generator() for _ in range(6)))
    assert sum(spent) == CAP
