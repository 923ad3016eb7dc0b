"""How the queue is doing: what operators read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_client._translate import server_stats
from nanobatch_client.cli.admin import _stats_lines
from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.diagnosis import Finding, Verdict
from nanobatch_runtime.settings import load
from nanobatch_storage.adapters.stats_sql import SqlStats
from nanobatch_storage.doctor import examine_storage
from nanobatch_storage.domain import Actor, EncryptedKey, ResultState, Settings
from nanobatch_storage.errors import AdminOnlyError
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.stats import SeenGenerators
from nanobatch_storage.translate_usage import stats_to_proto


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
    other = await store.execution(user, 2)
    await store.change(other.id, 1, ResultState.PENDING, ready_at=begun + timedelta(minutes=1))
    store.clock.advance(timedelta(seconds=20))
    found = await stats.queue(admin)
    assert (found.ready, found.oldest_ready, found.in_flight, found.expired) == (1, begun, 2, 0)
    assert (found.later, found.cooling_results) == (4, 3)  # those that wait for a key wait for a time, like a retry
    assert (found.active, found.paused, found.read_at) == (2, {"INVALID_KEY": 1}, store.clock.now())
    assert [(key.model, key.reason, key.until, key.results) for key in found.cooling] == [
        ("gemini-2.5-flash-image", "RATE_LIMITED", begun + timedelta(minutes=5), 3)
    ]
    store.clock.advance(timedelta(minutes=10))
    await store.control.cancel(user, other.id)
    found = await stats.queue(admin)
    assert (found.expired, found.cooling, found.cooling_results, found.ready) == (2, [], 0, 3)
    # Nobody could have made them before their key was free: for a generator they are no older than that.
    assert found.oldest_ready == begun + timedelta(minutes=5)


async def test_tasks_are_told_by_the_ids_that_their_provider_knows_and_shown_to_operators(store):
    user, admin = await store.user(), await store.user(admin=True)
    begun, runs = store.clock.now(), []
    for task_id in ("task-first", "task-second"):
        run = await store.paid(user, 1, settings=Settings(timeout_ms=90_000))
        runs.append(run.id)
        await store.task_out(run, task_id)
        store.clock.advance(timedelta(seconds=40))
    found = await SqlStats(store.database).queue(admin)
    assert found.tasks_out == 2
    assert [(task.task_id, task.provider, task.execution_id) for task in found.tasks] == [
        ("task-first", "gemini", runs[0]),
        ("task-second", "gemini", runs[1]),
    ]
    assert [(task.since - begun, task.timeout) for task in found.tasks] == [
        (timedelta(0), timedelta(seconds=90)),
        (timedelta(seconds=40), timedelta(seconds=90)),
    ]
    lines = list(_stats_lines(server_stats(stats_to_proto(found, {}))))
    assert "tasks out\t2" in lines
    assert f"task\tgemini task-first\tout for 80 s of 90 s\texecution {runs[0]}" in lines


# What `nanobatch doctor` makes of it


async def examined(database_url, tmp_path) -> dict[str, Finding]:
    settings = load(StorageSettings, database_url=database_url, data_dir=tmp_path, listen="unix:/unused")
    return {finding.check: finding for finding in await examine_storage(settings)}


async def test_a_long_cooldown_is_no_lack_of_generators(store, database_url, tmp_path):
    user, now = await store.user(), datetime.now(UTC)
    execution = await store.paid(user, 2)  # ready since the clock's begin, long ago
    cooled = {"cooldown_until": now + timedelta(hours=3), "cooldown_reason": "RATE_LIMITED"}
    await store.set_bucket(execution.bucket_id, **cooled)
    queue = (await examined(database_url, tmp_path))["queue"]
    assert queue.verdict is Verdict.OK, queue
    until = f"{now + timedelta(hours=3):%Y-%m-%d %H:%M:%S} UTC (RATE_LIMITED)"
    assert f"2 wait for their key of gemini gemini-2.5-flash-image until {until}" in queue.detail
    await store.set_bucket(execution.bucket_id, cooldown_until=now - timedelta(minutes=1))
    assert (await examined(database_url, tmp_path))["queue"].verdict is Verdict.OK  # they may begin since a minute
    await store.set_bucket(execution.bucket_id, cooldown_until=now - timedelta(minutes=6))
    queue = (await examined(database_url, tmp_path))["queue"]
    assert (queue.verdict, queue.advice.startswith("Start a generator")) == (Verdict.FAILED, True), queue


async def test_a_task_that_is_older_than_it_may_be_is_named_with_what_to_do(store, database_url, tmp_path):
    user = await store.user()
    store.clock.advance(datetime.now(UTC) - store.clock.now() - timedelta(minutes=4))
    old = await store.paid(user, 1, settings=Settings(timeout_ms=90_000))
    await store.task_out(old, "task-old")
    store.clock.advance(timedelta(minutes=3, seconds=30))
    young = await store.paid(user, 1)
    await store.task_out(young, "task-young")
    tasks = (await examined(database_url, tmp_path))["tasks"]
    assert tasks.verdict is Verdict.FAILED
    assert tasks.detail.startswith(
        f"1 of 2 tasks are out for longer than they may be: gemini task-old of execution {old.id}"
    )
    assert "of 90 s" in tasks.detail
    assert "task-young" not in tasks.detail
    assert "start a generator" in tasks.advice
    await store.task_ended("task-old")
    tasks = (await examined(database_url, tmp_path))["tasks"]
    assert (tasks.verdict, tasks.detail.startswith("1 out; gemini task-young")) == (Verdict.OK, True), tasks


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


async def test_sqlite_has_no_row_security_and_that_is_no_fault(database_url, tmp_path):
    verdict = (await examined(database_url, tmp_path))["row security"].verdict
    assert verdict is (Verdict.SKIPPED if database_url.startswith("sqlite") else Verdict.OK)
