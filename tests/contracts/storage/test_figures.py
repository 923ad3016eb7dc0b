"""The figures of the queue that operators see, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event

from nanobatch_storage.adapters.figures_sql import SqlFigures
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.domain import ResultState, WaitReason

MODEL = ("gemini", "gemini-2.5-flash-image")
SANDBOX = ("sandbox", "sandbox")
LEASE = timedelta(seconds=30)


@pytest.fixture
def look(store):
    return SqlFigures(store.database).look


async def test_an_empty_queue_has_no_figures(look):
    seen = await look()
    assert (seen.ready, seen.wanted, seen.oldest, seen.overdue, seen.cooling) == ({}, {}, {}, {}, {})


async def test_what_could_run_is_counted_by_model_and_what_may_be_wanted_is_bounded_by_each_keys_window(store, look):
    user = await store.user()
    first, second = await store.paid(user, 30), await store.paid(user, 4)
    for execution in (first, second):
        await store.set_bucket(execution.bucket_id, window=10.0, confirmed_at=store.clock.now())
    await store.execution(user, 3)
    store.clock.advance(timedelta(seconds=90))
    seen = await look()
    assert seen.ready == {MODEL: 34, SANDBOX: 3}
    assert seen.wanted == {MODEL: 10 + 4, SANDBOX: 3}
    assert seen.oldest == {MODEL: 90, SANDBOX: 90}

    taken = await SqlLeases(store.database, duration=LEASE).take(100)
    by_model = sum(lease.execution.provider == "gemini" for lease in taken.leases)
    assert by_model > 14  # some stand by
    seen = await look()
    assert seen.ready[MODEL] == 34 - by_model
    assert seen.wanted == {MODEL: 14, SANDBOX: 3}  # leased ones go on being wanted: replicas are not to go meanwhile
    assert seen.overdue == {MODEL: 0, SANDBOX: 0}


async def test_what_is_put_off_paused_or_over_is_not_ready(store, look):
    user = await store.user()
    execution, paused, over = (
        await store.execution(user, 5),
        await store.execution(user, 5),
        await store.execution(user, 1),
    )
    later = store.clock.now() + timedelta(seconds=20)
    await store.change(execution.id, 0, ResultState.PENDING, ready_at=later)
    await store.change(execution.id, 1, ResultState.PROCESSING)
    await store.control.pause(user, paused.id)
    await store.change(over.id, 0, ResultState.COMPLETED)
    assert (await look()).ready == {SANDBOX: 3}
    store.clock.advance(timedelta(seconds=30))
    assert (await look()).ready == {SANDBOX: 4}


async def test_a_lease_that_nobody_takes_over_is_overdue(store, look):
    user = await store.user()
    await store.execution(user, 1)
    await SqlLeases(store.database, duration=LEASE).take(1)
    store.clock.advance(LEASE + timedelta(seconds=45))
    seen = await look()
    assert seen.overdue == {SANDBOX: 45}
    assert seen.ready == {SANDBOX: 0}


async def test_a_lease_that_nobody_may_take_over_while_its_key_cools_down_is_not_overdue(store, look):
    user = await store.user()
    execution = await store.paid(user, 1)
    leases = SqlLeases(store.database, duration=LEASE)
    assert (await leases.take(1)).leases
    until = store.clock.now() + timedelta(minutes=10)
    await store.set_bucket(execution.bucket_id, cooldown_until=until, cooldown_reason=WaitReason.OVERLOADED)
    store.clock.advance(timedelta(minutes=9))
    assert not (await leases.take(1)).leases
    assert (await look()).overdue == {MODEL: 0}
    store.clock.advance(timedelta(minutes=2))
    assert (await look()).overdue == {MODEL: 60}
    assert (await leases.take(1)).leases
    assert (await look()).overdue == {MODEL: 0}


async def test_a_key_that_cools_down_is_counted_and_what_waits_for_it_is_not_ready(store, look):
    user = await store.user()
    execution = await store.paid(user, 7)
    until = store.clock.now() + timedelta(minutes=1)
    await store.set_bucket(execution.bucket_id, cooldown_until=until, cooldown_reason=WaitReason.RATE_LIMITED)
    store.clock.advance(timedelta(seconds=5))
    seen = await look()
    assert seen.cooling == {(*MODEL, "RATE_LIMITED"): 1}
    assert (seen.ready, seen.wanted, seen.oldest) == ({MODEL: 0}, {MODEL: 0}, {MODEL: 0})
    store.clock.advance(timedelta(minutes=2))
    seen = await look()
    assert (seen.ready, seen.cooling) == ({MODEL: 7}, {})


async def test_a_look_is_two_statements_whatever_waits(store, look):
    user = await store.user()
    for _ in range(5):
        await store.execution(user, 40)
    engine = getattr(store.database._engine._engine, "sync_engine", store.database._engine._engine)
    sent = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        sent.append(statement)

    assert (await look()).ready == {SANDBOX: 200}
    assert len(sent) == 2


async def test_a_lease_says_how_long_its_result_could_have_been_leased(store):
    user = await store.user()
    execution = await store.execution(user, 2)
    store.clock.advance(timedelta(seconds=12))
    (lease,) = (await SqlLeases(store.database, duration=LEASE).take(1)).leases
    assert lease.waited == timedelta(seconds=12)
    store.clock.advance(LEASE + timedelta(seconds=3))
    again = (await SqlLeases(store.database, duration=LEASE).take(2)).leases
    waited = {one.result.batch_index: one.waited for one in again}
    # The lost one has been free since its lease ran out, the other one from the beginning.
    assert waited == {0: timedelta(seconds=3), 1: timedelta(seconds=12 + 30 + 3)}, execution
