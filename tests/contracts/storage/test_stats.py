"""How the queue is doing: what operators read."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nanobatch_runtime.clock import ManualClock
from nanobatch_storage.adapters.stats_sql import SqlStats
from nanobatch_storage.domain import Actor, EncryptedKey
from nanobatch_storage.errors import AdminOnlyError
from nanobatch_storage.stats import SeenGenerators


async def test_results_are_counted_by_what_they_wait_for(store):
    user, admin = await store.user(), await store.user(admin=True)
    stats = SqlStats(store.database)
    empty = await stats.queue(admin)
    assert (empty.ready, empty.later, empty.in_flight, empty.active, empty.oldest_ready) == (0, 0, 0, 0, None)
    begun = store.clock.now()
    execution = await store.paid(user, 5)
    await store.call_out(execution.id, 0)
    await store.call_out(execution.id, 1)
    await store.set_bucket(
        execution.bucket_id,
        cooldown_until=begun + timedelta(minutes=5),
        cooldown_reason="RATE_LIMITED",
    )
    paused = await store.execution(user, 3)
    await store.set_execution(paused.id, state="PAUSED", pause_reason="INVALID_KEY")
    store.clock.advance(timedelta(seconds=20))
    found = await stats.queue(admin)
    assert (found.ready, found.in_flight, found.expired, found.oldest_ready) == (3, 2, 0, begun)
    assert (found.active, found.paused, found.read_at) == (1, {"INVALID_KEY": 1}, store.clock.now())
    assert [(key.model, key.reason, key.until) for key in found.cooling] == [
        ("gemini-2.5-flash-image", "RATE_LIMITED", begun + timedelta(minutes=5))
    ]
    store.clock.advance(timedelta(minutes=10))
    found = await stats.queue(admin)
    assert (found.expired, found.cooling) == (2, [])


async def test_only_admins_are_told(store):
    user = await store.user()
    with pytest.raises(AdminOnlyError):
        await SqlStats(store.database).queue(Actor(user.user_id))


async def test_the_keys_that_rows_are_sealed_with_are_named_once_each(store):
    user = await store.user()
    for _ in range(2):
        await store.paid(user)
    other = EncryptedKey(b"cipher", b"i" * 12, b"t" * 16, b"s" * 16, "fedcba9876543210", 1)
    await store.accounts.ensure_secret("shared", other)
    assert await SqlStats(store.database).key_ids() == {store.key.key_id, "fedcba9876543210"}


def test_generators_are_forgotten_a_minute_after_they_were_heard_of():
    clock = ManualClock()
    seen = SeenGenerators(clock)
    seen.note("")  # of a version that tells none
    seen.note("one/1")
    clock.advance(timedelta(seconds=45))
    seen.note("two/2")
    assert list(seen.lately()) == ["one/1", "two/2"]
    clock.advance(timedelta(seconds=30))
    assert list(seen.lately()) == ["two/2"]
