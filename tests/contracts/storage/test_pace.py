"""A bucket that was refused a call: how its calls start afterwards, for whoever asks, and what readers are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest

from nanobatch_storage import quota
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.domain import Charged, Failure, FailureClass, LeaseRef, WaitReason
from nanobatch_storage.errors import LeaseLostError, WindowFullError

LEASE = timedelta(minutes=5)


@dataclass
class Pace:
    """One paid execution and the steps of its calls."""

    store: object
    user: object
    execution: object
    leases: SqlLeases
    ledger: SqlLedger

    def passes(self, seconds: float) -> None:
        self.store.clock.advance(timedelta(seconds=seconds))

    async def take(self, slots: int = 32) -> list[LeaseRef]:
        taken = (await self.leases.take(slots)).leases
        return [LeaseRef(lease.result.id, lease.result.lease_id) for lease in taken]

    async def start(self, lease: LeaseRef) -> str:
        return await self.ledger.start(lease, self.execution.bucket_id)

    async def refuse(self, lease: LeaseRef, attempt_id: str, seconds: float | None) -> None:
        hint = None if seconds is None else timedelta(seconds=seconds)
        failure = Failure(FailureClass.RATE_LIMITED, "RATE_LIMITED", "Too many.", Charged.NO, retry_after=hint)
        await self.ledger.fail(lease, attempt_id, failure)

    async def bucket(self):
        async with self.store.database.read() as tx:
            return await rows.lock_bucket(tx, self.execution.bucket_id)

    async def waiting(self):
        page = await self.store.executions.list_results(self.user, self.execution.id, 1000, "", ())
        return page.items[-1].waiting


@pytest.fixture
async def pace(store) -> Pace:
    user = await store.user()
    execution = await store.paid(user, 60)
    ledger = SqlLedger(store.database)
    await ledger.confirm_key(execution.bucket_id)
    return Pace(store, user, execution, SqlLeases(store.database, duration=LEASE, ahead=0), ledger)


async def test_a_refused_call_costs_no_attempt_and_is_the_next_to_go(pace):
    first, second, *_ = [(lease, await pace.start(lease)) for lease in await pace.take(5)]
    await pace.refuse(*second, 9)
    await pace.refuse(*first, 9)
    assert await pace.take() == []
    pace.passes(9.1)
    (probe,) = await pace.take()  # one goes first
    assert probe.result_id == first[0].result_id
    results = await pace.store.results(pace.user, pace.execution.id)
    assert [(result.failures, result.batch_index) for result in results[:2]] == [(0, 0), (0, 1)]


async def test_after_a_refusal_the_others_follow_a_probe_that_was_not_refused(pace):
    *_, last = [(lease, await pace.start(lease)) for lease in await pace.take(4)]
    await pace.refuse(*last, 0.5)
    pace.passes(0.6)
    (probe,) = await pace.take()
    await pace.start(probe)
    (next_one,) = await pace.take()
    with pytest.raises(WindowFullError) as full:
        await pace.start(next_one)
    assert timedelta(0) < full.value.retry_after <= quota.PROBE_WAIT
    pace.passes(full.value.retry_after.total_seconds())
    assert await pace.start(next_one)
    assert len(await pace.take()) > 1


async def test_a_learned_rate_spaces_the_starts_and_leases_only_what_may_start_soon(pace):
    await pace.store.set_bucket(
        pace.execution.bucket_id, rate=4.0, rate_calls=50, refused_at=pace.store.clock.now() - timedelta(seconds=1)
    )
    leases = await pace.take()
    assert 4 <= len(leases) <= 6  # of the ten places of the window
    assert await pace.start(leases[0])
    with pytest.raises(WindowFullError) as full:
        await pace.start(leases[1])
    assert full.value.retry_after.total_seconds() == pytest.approx(0.25, abs=0.07)
    taken = await pace.leases.take(32)
    assert (taken.leases, taken.look_again_at is not None) == ((), True)
    assert taken.look_again_at - taken.now < timedelta(seconds=1)
    pace.passes(0.25)
    assert await pace.start(leases[1])


async def test_a_quick_pace_is_looked_after_sooner_than_leases_that_may_run_out(pace):
    refused_at = pace.store.clock.now() - timedelta(seconds=1)
    await pace.store.set_bucket(pace.execution.bucket_id, window=100, rate=20.0, rate_calls=50, refused_at=refused_at)
    assert 20 <= len(await pace.take(60)) <= 25  # a second's starts
    taken = await pace.leases.take(60)
    assert (taken.leases, taken.look_again_at - taken.now <= timedelta(seconds=0.1)) == ((), True)


async def test_what_has_to_wait_longer_goes_back_and_readers_are_told_until_when(pace):
    now = pace.store.clock.now()
    pace.passes(1)
    await pace.store.set_bucket(
        pace.execution.bucket_id,
        refused_at=now,
        quota_calls=1,
        quota_period=60.0,
        quota_from=now,
        rate=50.0,
    )
    (only,) = await pace.take()
    await pace.start(only)
    assert (await pace.waiting()).reason is WaitReason.PACED
    pace.passes(1)
    # One more that a generator of the same moment had been given already.
    await pace.store.set_bucket(pace.execution.bucket_id, quota_calls=2)
    (one_more,) = await pace.take()
    await pace.store.set_bucket(pace.execution.bucket_id, quota_calls=1)
    with pytest.raises(LeaseLostError):
        await pace.start(one_more)
    waiting = await pace.waiting()
    assert waiting.reason is WaitReason.PACED
    assert waiting.until - now == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=0.2))
    results = await pace.store.results(pace.user, pace.execution.id)
    assert sum(result.lease_id is not None for result in results) == 1  # only the call that is out holds a lease
    pace.passes(59)
    (again,) = await pace.take(1)
    assert again.result_id == one_more.result_id


async def test_the_pace_is_learned_from_the_ledger_whoever_wrote_it(pace):
    ledgers = [SqlLedger(pace.store.database) for _ in range(2)]

    async def call(number: int, seconds: float) -> tuple[LeaseRef, str]:
        (lease,) = await pace.take(1)
        attempt = await ledgers[number % 2].start(lease, pace.execution.bucket_id)
        await ledgers[number % 2].end_call(lease, attempt)
        pace.passes(seconds)
        return lease, attempt

    for number in range(5):
        await call(number, 0.2)
    await pace.refuse(*await call(5, 0.05), 0.1)
    pace.passes(0.6)
    for number in range(12):
        await call(number, 0.5)
    await pace.refuse(*await call(12, 0.05), 0.1)
    bucket = await pace.bucket()
    assert bucket.rate == pytest.approx(12 / 6.65, rel=0.02)
    assert bucket.rate_calls == 12


async def test_another_bucket_is_not_held_back(pace):
    other = await pace.store.paid(pace.user, 20)
    await pace.ledger.confirm_key(other.bucket_id)
    await pace.store.set_bucket(
        pace.execution.bucket_id, rate=0.1, refused_at=pace.store.clock.now() - timedelta(seconds=1)
    )
    taken = (await pace.leases.take(32)).leases
    by_execution = [lease.execution.id for lease in taken]
    assert by_execution.count(other.id) == 10
    for lease in taken:
        if lease.execution.id == other.id:
            assert await pace.ledger.start(LeaseRef(lease.result.id, lease.result.lease_id), other.bucket_id)


async def test_calls_that_start_together_keep_the_pace_as_those_that_come_one_by_one(pace):
    leases = await pace.take()
    await pace.store.set_bucket(
        pace.execution.bucket_id,
        refused_at=pace.store.clock.now(),
        quota_calls=5,
        quota_period=60.0,
        quota_from=pace.store.clock.now(),
        rate=1000.0,
    )
    pace.passes(1)
    outcomes = await asyncio.gather(*map(pace.start, leases), return_exceptions=True)
    assert len(leases) == 10
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, LeaseLostError) for outcome in outcomes) == 5


async def test_a_period_that_is_used_up_says_until_when_to_whoever_asks_and_the_next_one_begins_at_once(pace):
    now = pace.store.clock.now()
    pace.passes(1)
    await pace.store.set_bucket(
        pace.execution.bucket_id, refused_at=now, quota_calls=3, quota_period=60.0, quota_from=now, rate=100.0
    )
    for lease in await pace.take():
        await pace.start(lease)
        pace.passes(0.1)
    assert await pace.take() == []
    waiting = await pace.waiting()
    assert (waiting.reason, waiting.until > now + timedelta(seconds=60)) == (WaitReason.PACED, True)
    assert (await pace.store.changes.since(pace.user, pace.execution.id, 0)).waiting == waiting
    assert not (await pace.leases.take(32)).touched
    pace.passes(60)
    assert len(await pace.take()) == 3  # no one goes first: nothing was refused
