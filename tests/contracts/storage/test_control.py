"""Cancel, pause, resume, retry, delete: what changes, what stays, what is refused."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from nanobatch_runtime.errors import FailedPreconditionError, InvalidArgumentError
from nanobatch_storage import control, topics
from nanobatch_storage.adapters.tables import attempts, credentials, results, retry_requests
from nanobatch_storage.domain import Charged, ExecutionState, PauseReason, ResultState
from nanobatch_storage.errors import (
    ExecutionActiveError,
    ExecutionFinalError,
    ExecutionNotFoundError,
    KeyNeededError,
    RequestIdReusedError,
)
from nanobatch_storage.pictures import put_upload, write_pictures


async def count(store, table, *conditions):
    async with store.database.read() as tx:
        statement = select(func.count()).select_from(table).where(*conditions)
        return (await tx.connection.execute(statement)).scalar_one()


async def has_key(store, user, execution):
    return (await store.executions.get(user, execution.id)).has_key


async def bytes_of(data):
    yield data


async def cancelled(store, user, prompts=2, **changes):
    execution = await store.paid(user, prompts, **changes)
    return (await store.control.cancel(user, execution.id)).execution


# Cancel


async def test_cancelling_ends_all_that_was_not_sent_at_once(store):
    user = await store.user()
    execution = await store.paid(user, 3)
    await store.change(execution.id, 0, ResultState.COMPLETED)
    before = (await store.executions.get(user, execution.id)).execution.revision
    answer = await store.control.cancel(user, execution.id)
    assert (answer.in_flight, answer.maybe_charged_micros) == (0, 0)
    assert (answer.execution.state, answer.execution.cancelled, answer.execution.completed) == (
        ExecutionState.CANCELLED, 2, 1,
    )  # fmt: skip
    assert answer.execution.end_time == store.clock.now()
    first, *rest = await store.results(user, execution.id)
    assert first.state is ResultState.COMPLETED
    assert [result.revision for result in rest] == [before + 1, before + 2]
    assert answer.execution.own_revision == before + 3
    assert all(result.ready_at is None for result in rest)
    assert not await has_key(store, user, execution)


async def test_a_call_that_is_out_keeps_its_lease_and_the_key(store):
    user = await store.user()
    execution = await store.paid(user, 3)
    lease_id = await store.call_out(execution.id, 1, micros=40_000)
    answer = await store.control.cancel(user, execution.id)
    assert (answer.in_flight, answer.maybe_charged_micros) == (1, 40_000)
    assert answer.execution.state is ExecutionState.CANCELLED
    assert answer.execution.reserved_micros == 40_000
    out = (await store.results(user, execution.id))[1]
    assert (out.state, out.lease_id, out.ready_at) == (ResultState.CANCELLED, lease_id, None)
    assert out.lease_expires_at is not None
    assert await has_key(store, user, execution)


async def test_a_lease_without_a_call_is_dropped_and_its_reservation_free(store):
    user = await store.user()
    execution = await store.paid(user, 2)
    await store.change(
        execution.id, 0, ResultState.PROCESSING, lease_id=str(uuid.uuid4()),
        lease_expires_at=store.clock.now(), reserved_micros=40_000,
    )  # fmt: skip
    await store.set_execution(execution.id, reserved_micros=40_000)
    answer = await store.control.cancel(user, execution.id)
    assert (answer.in_flight, answer.execution.reserved_micros) == (0, 0)
    held = (await store.results(user, execution.id))[0]
    assert (held.lease_id, held.lease_expires_at, held.reserved_micros) == (None, None, 0)


async def test_cancelling_again_changes_nothing_and_answers_the_same(store):
    user = await store.user()
    execution = await store.paid(user, 2)
    await store.call_out(execution.id, 0)
    first = await store.control.cancel(user, execution.id)
    assert await store.control.cancel(user, execution.id) == first


async def test_cancelling_what_has_ended_changes_nothing(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    await store.change(execution.id, 0, ResultState.FAILED)
    assert (await store.control.cancel(user, execution.id)).execution.state is ExecutionState.FAILED


async def test_a_paused_execution_can_be_cancelled(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    await store.control.pause(user, execution.id)
    ended = (await store.control.cancel(user, execution.id)).execution
    assert (ended.state, ended.pause_reason) == (ExecutionState.CANCELLED, None)


# Pause and resume


async def test_a_pause_holds_until_it_is_resumed(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    paused = await store.control.pause(user, execution.id)
    assert (paused.state, paused.pause_reason) == (ExecutionState.PAUSED, PauseReason.USER)
    assert paused.own_revision > execution.own_revision
    assert await store.control.pause(user, execution.id) == paused
    resumed = await store.control.resume(user, execution.id, None, None)
    assert (resumed.state, resumed.pause_reason) == (ExecutionState.PENDING, None)
    assert await store.control.resume(user, execution.id, None, None) == resumed


async def test_what_has_started_goes_on_as_started(store):
    user = await store.user()
    execution = await store.execution(user, 2)
    await store.set_execution(execution.id, start_time=store.clock.now(), state=ExecutionState.PROCESSING)
    await store.control.pause(user, execution.id)
    assert (await store.control.resume(user, execution.id, None, None)).state is ExecutionState.PROCESSING


async def test_one_that_runs_takes_a_new_cap_and_tells_its_watchers(store):
    user = await store.user()
    execution = await store.paid(user, max_cost_micros=5)
    raised = await store.control.resume(user, execution.id, None, 7)
    assert (raised.state, raised.max_cost_micros) == (ExecutionState.PENDING, 7)
    assert raised.own_revision > execution.own_revision


async def test_what_has_ended_is_neither_paused_nor_resumed(store):
    user = await store.user()
    execution = await cancelled(store, user)
    with pytest.raises(ExecutionFinalError):
        await store.control.pause(user, execution.id)
    with pytest.raises(ExecutionFinalError):
        await store.control.resume(user, execution.id, store.credential(), None)


async def test_a_higher_cap_comes_with_the_resumption(store):
    user = await store.user()
    execution = await store.paid(user, 1, max_cost_micros=10)
    await store.set_execution(execution.id, state=ExecutionState.PAUSED, pause_reason=PauseReason.SPEND_CAP)
    assert (await store.control.resume(user, execution.id, None, None)).max_cost_micros == 10
    await store.set_execution(execution.id, state=ExecutionState.PAUSED, pause_reason=PauseReason.SPEND_CAP)
    assert (await store.control.resume(user, execution.id, None, 1_000_000)).max_cost_micros == 1_000_000


async def test_another_key_replaces_the_refused_one_which_is_wiped(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.set_execution(execution.id, state=ExecutionState.PAUSED, pause_reason=PauseReason.INVALID_KEY)
    key = store.credential()
    resumed = await store.control.resume(user, execution.id, key, None)
    assert resumed.credential_id == key.id
    assert resumed.bucket_id != execution.bucket_id
    assert await has_key(store, user, execution)
    assert await count(store, credentials, credentials.c.record.is_not(None)) == 1
    assert (await store.executions.get(user, execution.id)).bucket.needs_key_check(store.clock.now())


async def test_a_refused_key_that_was_mended_is_checked_again(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.set_bucket(execution.bucket_id, confirmed_at=store.clock.now())
    await store.set_execution(execution.id, state=ExecutionState.PAUSED, pause_reason=PauseReason.INVALID_KEY)
    await store.control.resume(user, execution.id, None, None)
    view = await store.executions.get(user, execution.id)
    assert view.bucket.confirmed_at is None
    assert view.execution.credential_id == execution.credential_id


async def test_a_pause_by_the_user_does_not_have_the_key_checked_again(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.set_bucket(execution.bucket_id, confirmed_at=store.clock.now())
    await store.control.pause(user, execution.id)
    await store.control.resume(user, execution.id, None, None)
    assert (await store.executions.get(user, execution.id)).bucket.confirmed_at == store.clock.now()


# Retry


async def test_all_failed_results_start_over_on_the_same_rows_and_what_they_cost_stays(store):
    user = await store.user()
    execution = await store.execution(user, 3)
    await store.change(execution.id, 0, ResultState.COMPLETED)
    spent = {"attempts": 3, "failures": 3, "unknowns": 1, "damaged": 1, "empties": 2, "crashes": 1, "overloads": 4}
    await store.change(
        execution.id, 1, ResultState.FAILED, cost_micros=7, uncertain_micros=9, ready_at=None,
        overloaded_since=store.clock.now(), error_code="UPSTREAM", error_message="No.", error_retryable=True,
        error_charged=Charged.MAYBE, **spent,
    )  # fmt: skip
    await store.change(execution.id, 2, ResultState.CANCELLED)
    ended = (await store.executions.get(user, execution.id)).execution
    assert ended.state is ExecutionState.COMPLETED
    store.clock.advance(timedelta(seconds=5))
    reopened, retried = await store.control.retry(user, execution.id, store.retry())
    assert retried == 1
    assert not reopened.is_final
    assert (reopened.end_time, reopened.cancel_requested, reopened.pending, reopened.failed) == (None, False, 1, 0)
    again = (await store.results(user, execution.id))[1]
    assert (again.state, again.ready_at) == (ResultState.PENDING, store.clock.now())
    assert (again.attempts, again.cost_micros, again.uncertain_micros) == (3, 7, 9)
    for name in spent.keys() - {"attempts"}:
        assert getattr(again, name) == 0
    assert (again.error_code, again.error_message, again.error_charged, again.overloaded_since) == ("", "", None, None)
    assert ended.revision < again.revision < reopened.own_revision


async def test_named_results_are_retried_with_another_prompt(store):
    user = await store.user()
    execution = await store.execution(user, 3)
    await store.control.cancel(user, execution.id)
    first, second, _ = await store.results(user, execution.id)
    retry = store.retry(result_ids=(second.id, first.id), edits=((second.id, "a better prompt"),))
    reopened, retried = await store.control.retry(user, execution.id, retry)
    assert (retried, reopened.pending, reopened.cancelled) == (2, 2, 1)
    again = await store.results(user, execution.id)
    assert [result.prompt_text for result in again] == ["prompt 0", "a better prompt", "prompt 2"]
    assert again[0].revision < again[1].revision


async def test_every_result_that_cannot_be_retried_is_named_and_nothing_changes(store):
    user = await store.user()
    execution, other = await store.execution(user, 3), await store.execution(user, 1)
    await store.change(execution.id, 0, ResultState.COMPLETED)
    await store.change(execution.id, 1, ResultState.FAILED)
    done, failed, waiting = await store.results(user, execution.id)
    foreign = (await store.results(user, other.id))[0]
    retry = store.retry(
        result_ids=(failed.id, done.id, waiting.id, foreign.id, "no uuid"), edits=((failed.id, "x"), (foreign.id, "y"))
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await store.control.retry(user, execution.id, retry)
    assert {(v.field, v.reason) for v in caught.value.violations} == {
        ("result_ids[1]", "NOT_RETRIABLE"),
        ("result_ids[2]", "NOT_RETRIABLE"),
        ("result_ids[3]", "NOT_FOUND"),
        ("result_ids[4]", "NOT_FOUND"),
        ("edits[1].result_id", "NOT_RETRIED"),
    }
    assert (await store.results(user, execution.id))[1] == failed


async def test_nothing_to_retry_is_said(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    with pytest.raises(FailedPreconditionError) as caught:
        await store.control.retry(user, execution.id, store.retry())
    assert caught.value.reason == "NOTHING_TO_RETRY"


async def test_a_result_whose_call_is_out_is_not_retried(store):
    user = await store.user()
    execution = await store.paid(user, 1)
    await store.call_out(execution.id, 0)
    await store.control.cancel(user, execution.id)
    result = (await store.results(user, execution.id))[0]
    with pytest.raises(FailedPreconditionError) as caught:
        await store.control.retry(user, execution.id, store.retry(result_ids=(result.id,)))
    assert caught.value.reason == "CALL_STILL_OPEN"


async def test_a_wiped_key_is_asked_for(store):
    user = await store.user()
    execution = await cancelled(store, user)
    ids = tuple(result.id for result in await store.results(user, execution.id))
    with pytest.raises(KeyNeededError):
        await store.control.retry(user, execution.id, store.retry(result_ids=ids))
    key = store.credential()
    _, retried = await store.control.retry(user, execution.id, store.retry(result_ids=ids, credential=key))
    assert retried == 2
    assert await has_key(store, user, execution)
    # And it is wiped again at the end.
    await store.control.cancel(user, execution.id)
    assert not await has_key(store, user, execution)


async def test_parallel_repeats_of_one_retry_are_one(store):
    user = await store.user()
    execution = await store.execution(user, 3)
    for number in range(3):
        await store.change(execution.id, number, ResultState.FAILED)
    retry = store.retry(request_id=str(uuid.uuid4()), request_hash="h")
    answers = await asyncio.gather(*(store.control.retry(user, execution.id, retry) for _ in range(10)))
    assert {retried for _, retried in answers} == {3}
    assert len({answer.revision for answer, _ in answers}) == 1
    assert await count(store, retry_requests) == 1
    other_content = store.retry(request_id=retry.request_id, request_hash="other")
    with pytest.raises(RequestIdReusedError):
        await store.control.retry(user, execution.id, other_content)
    another = await store.execution(user, 1)
    with pytest.raises(RequestIdReusedError):
        await store.control.retry(user, another.id, retry)


# Delete


async def test_a_deleted_execution_is_gone_with_its_pictures_and_its_ledger_stays(store, tmp_path):
    user = await store.user()
    upload = store.image(user, b"mine")
    await put_upload(store.images, store.blobs, upload, bytes_of(b"mine"))
    execution = await store.paid(user, 2)
    await store.call_out(execution.id, 0)
    await store.control.cancel(user, execution.id)
    made = await store.upload(user, execution_id=execution.id)
    await write_pictures(store.blobs, [(made, bytes_of(b"picture"))])
    with pytest.raises(ExecutionActiveError):
        await store.control.delete(user, execution.id)
    await store.set_execution(execution.id, open_attempts=0)

    await control.delete_execution(store.control, store.blobs, store.bus, user, execution.id)
    with pytest.raises(ExecutionNotFoundError):
        await store.executions.get(user, execution.id)
    assert await count(store, results) == 0
    assert await count(store, credentials) == 0
    assert await count(store, attempts) == 1
    assert [image.id for image in await store.images.get_many(user, [upload.id, made.id])] == [upload.id]
    assert [path.name for path in (tmp_path / "pictures").rglob("*.png")] == [f"{upload.id}.png"]


async def test_what_has_not_ended_is_not_deleted(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    with pytest.raises(ExecutionActiveError):
        await store.control.delete(user, execution.id)
    await store.control.pause(user, execution.id)
    with pytest.raises(ExecutionActiveError):
        await store.control.delete(user, execution.id)


async def test_bytes_that_cannot_be_removed_now_do_not_fail_a_deletion(store):
    class Stuck:
        async def delete(self, path):
            raise PermissionError(path)

    user = await store.user()
    execution = await cancelled(store, user)
    await store.upload(user, execution_id=execution.id)
    await control.delete_execution(store.control, Stuck(), store.bus, user, execution.id)
    with pytest.raises(ExecutionNotFoundError):
        await store.executions.get(user, execution.id)


# Together


async def test_cancel_retry_and_changes_at_once_keep_the_counts_right(store):
    user = await store.user()
    execution = await store.execution(user, 12)

    async def tolerate(work):
        try:
            await work
        except (FailedPreconditionError, InvalidArgumentError):
            return

    async def churn(number):
        for state in (ResultState.PROCESSING, ResultState.FAILED):
            await store.change(execution.id, number, state)
        await tolerate(store.control.retry(user, execution.id, store.retry()))
        if number % 4 == 0:
            await store.control.cancel(user, execution.id)

    await asyncio.gather(*(churn(number) for number in range(12)))
    now = (await store.executions.get(user, execution.id)).execution
    found = await store.results(user, execution.id)
    for state in ResultState:
        assert sum(result.state is state for result in found) == getattr(now, state.value.lower())
    revisions = [result.revision for result in found] + [now.own_revision]
    assert len(set(revisions)) == len(revisions)
    assert max(revisions) == now.revision


@pytest.mark.parametrize(
    "act",
    [
        lambda store, user, one: control.pause_execution(store.control, store.bus, user, one),
        lambda store, user, one: control.cancel_execution(store.control, store.bus, user, one),
    ],
)
async def test_watchers_hear_of_it(store, act):
    user = await store.user()
    execution = await store.execution(user, 1)
    async with store.bus.subscribe(topics.execution(execution.id)) as hints:
        await act(store, user, execution.id)
        assert await hints.wait(timedelta(seconds=5))


async def test_generators_hear_of_a_resumption_and_a_retry(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    await store.control.pause(user, execution.id)
    async with store.bus.subscribe(topics.WORK) as hints:
        await control.resume_execution(
            store.control, store.bus, user, execution.id, credential=None, max_cost_micros=None
        )
        assert await hints.wait(timedelta(seconds=5))
        await store.change(execution.id, 0, ResultState.FAILED)
        await control.retry_execution(store.control, store.bus, user, execution.id, store.retry())
        assert await hints.wait(timedelta(seconds=5))


async def test_longer_words_of_a_retry_reserve_what_they_may_cost(store):
    user = await store.user()
    execution = await store.paid(user, 2, reservation_micros=39_000, max_cost_micros=100_000)
    for index in (0, 1):
        await store.change(execution.id, index, ResultState.FAILED)
    first, second = await store.results(user, execution.id)
    short = store.retry(result_ids=(first.id,), edits=((first.id, "a boat"),), credential=store.credential())
    again, _ = await store.control.retry(user, execution.id, short)
    before = again.reservation_micros
    long = store.retry(result_ids=(second.id,), edits=((second.id, "a boat " * 1400),), credential=store.credential())
    again, _ = await store.control.retry(user, execution.id, long)
    # 9,800 characters count as so many tokens of input, at 0.30 dollars a million.
    assert again.reservation_micros - before == pytest.approx(9_800 * 0.3, abs=5)
    assert again.max_cost_micros == 100_000
