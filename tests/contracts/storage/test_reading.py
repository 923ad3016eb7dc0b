"""Reading executions and results: only one's own, in pages that hold still."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import insert

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.tables import attempts
from nanobatch_storage.domain import Actor, Attempt, Charged, ResultState, Waiting, WaitReason
from nanobatch_storage.errors import ExecutionNotFoundError, ResultNotFoundError

MALFORMED = ["", "no uuid", "'; drop table executions; --", "00000000000000000000000000000000", "A" * 5000, "\x00"]


async def test_a_foreign_execution_looks_exactly_like_an_unknown_one(store):
    owner, stranger = await store.user(), await store.user()
    execution = await store.execution(owner)
    answers = set()
    for asked in (execution.id, str(uuid.uuid4()), *MALFORMED):
        for ask in (
            lambda asked=asked: store.executions.get(stranger, asked),
            lambda asked=asked: store.executions.list_results(stranger, asked, 10, "", ()),
            lambda asked=asked: store.control.cancel(stranger, asked),
            lambda asked=asked: store.control.pause(stranger, asked),
            lambda asked=asked: store.control.resume(stranger, asked, None, None),
            lambda asked=asked: store.control.retry(stranger, asked, store.retry()),
            lambda asked=asked: store.control.delete(stranger, asked),
            lambda asked=asked: store.changes.since(stranger, asked, 0),
        ):
            with pytest.raises(ExecutionNotFoundError) as caught:
                await ask()
            answers.add((str(caught.value), caught.value.reason, str(caught.value.metadata)))
    assert len(answers) == 1
    assert (await store.executions.get(owner, execution.id)).execution == execution


async def test_a_foreign_result_looks_exactly_like_an_unknown_one(store):
    owner, stranger = await store.user(), await store.user()
    result = (await store.results(owner, (await store.execution(owner)).id))[0]
    for asked in (result.id, str(uuid.uuid4()), *MALFORMED):
        with pytest.raises(ResultNotFoundError):
            await store.executions.get_result(stranger, asked)
    assert (await store.executions.get_result(owner, result.id)).result == result


@pytest.mark.parametrize("user_id", MALFORMED)
async def test_a_malformed_user_sees_nothing(store, user_id):
    owner = await store.user()
    execution = await store.execution(owner)
    with pytest.raises(ExecutionNotFoundError):
        await store.executions.get(Actor(user_id), execution.id)
    assert (await store.executions.list(Actor(user_id), 10, "")).items == []


async def test_an_admin_sees_everybodys(store):
    owner, admin = await store.user(), await store.user(admin=True)
    execution = await store.execution(owner)
    assert (await store.executions.get(admin, execution.id)).execution == execution
    assert [one.execution.id for one in (await store.executions.list(admin, 10, "")).items] == [execution.id]
    assert len(await store.results(admin, execution.id)) == 3


async def test_pages_of_executions_hold_still_while_new_ones_come(store):
    user = await store.user()
    old = []
    for number in range(7):
        old.append((await store.execution(user, 1)).id)
        if number % 3:  # some share a moment
            store.clock.advance(timedelta(seconds=1))
    seen, cursor = [], ""
    while True:
        page = await store.executions.list(user, 2, cursor)
        seen += [listed.execution.id for listed in page.items]
        await store.execution(user, 1)
        cursor = page.next_cursor
        if not cursor:
            break
    # From the newest of the first page on: each old one once, nothing of what came in between.
    assert sorted(seen) == sorted(old)
    times = [(await store.executions.get(user, one)).execution.create_time for one in seen]
    assert times == sorted(times, reverse=True)


async def test_the_last_page_says_so(store):
    user = await store.user()
    for _ in range(4):
        await store.execution(user, 1)
    first = await store.executions.list(user, 2, "")
    last = await store.executions.list(user, 2, first.next_cursor)
    assert (len(last.items), last.next_cursor) == (2, "")


async def test_a_list_shows_the_first_picture_of_each(store):
    user = await store.user()
    none, late, whole = [await store.execution(user, 3) for _ in range(3)]
    pictures = [(await store.upload(user)).id for _ in range(3)]
    await store.change(late.id, 2, ResultState.COMPLETED, thumbnail_image_id=pictures[0])
    for place, picture in ((1, pictures[2]), (0, pictures[1])):  # finished in another order than that of the prompts
        await store.change(whole.id, place, ResultState.COMPLETED, thumbnail_image_id=picture)
    page = await store.executions.list(user, 10, "")
    covers = {listed.execution.id: listed.cover_id for listed in page.items}
    assert covers == {none.id: None, late.id: pictures[0], whole.id: pictures[1]}


async def test_results_come_in_the_order_of_the_prompts_and_by_state(store):
    user = await store.user()
    execution = await store.execution(user, 5)
    await store.change(execution.id, 1, ResultState.COMPLETED)
    await store.change(execution.id, 3, ResultState.COMPLETED)
    seen, cursor = [], ""
    while True:
        page = await store.executions.list_results(user, execution.id, 2, cursor, ())
        seen += [shown.result.batch_index for shown in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == [0, 1, 2, 3, 4]
    done = await store.executions.list_results(user, execution.id, 10, "", [ResultState.COMPLETED])
    assert [shown.result.batch_index for shown in done.items] == [1, 3]


def _cursor(*parts):
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


BAD_CURSORS = [
    "x",
    "%%%",
    "é",
    _cursor(),
    _cursor("executions"),
    _cursor("executions", "yesterday", "00000000-0000-4000-8000-000000000000"),
    _cursor("executions", "2026-01-01T00:00:00", "00000000-0000-4000-8000-000000000000"),
    _cursor("executions", "2026-01-01T00:00:00+00:00", "no uuid"),
    _cursor("executions", 1, 2),
    _cursor("results", "a", "b"),
    _cursor("results", 2**63, 1),
    _cursor("results", None, 1),
    _cursor("results", -1, 0),
]


@pytest.mark.parametrize("cursor", BAD_CURSORS)
async def test_a_cursor_of_another_list_is_refused(store, cursor):
    user = await store.user()
    execution = await store.execution(user)
    with pytest.raises(InvalidArgumentError):
        await store.executions.list(user, 10, cursor)
    with pytest.raises(InvalidArgumentError):
        await store.executions.list_results(user, execution.id, 10, cursor, ())


async def test_a_result_says_what_it_waits_for(store):
    user = await store.user()
    execution = await store.paid(user, 2)
    now = store.clock.now()

    async def waiting():
        page = await store.executions.list_results(user, execution.id, 10, "", ())
        return [shown.waiting for shown in page.items]

    assert await waiting() == [Waiting(WaitReason.KEY_CHECK, None)] * 2
    await store.set_bucket(execution.bucket_id, confirmed_at=now)
    assert await waiting() == [None, None]
    later = now + timedelta(seconds=30)
    await store.change(execution.id, 1, ResultState.PENDING, ready_at=later)
    assert await waiting() == [None, Waiting(WaitReason.BACKOFF, later)]
    until = now + timedelta(minutes=2)
    await store.set_bucket(execution.bucket_id, cooldown_until=until, cooldown_reason=WaitReason.RATE_LIMITED)
    assert await waiting() == [Waiting(WaitReason.RATE_LIMITED, until)] * 2
    await store.change(execution.id, 0, ResultState.PROCESSING)
    assert await waiting() == [None, Waiting(WaitReason.RATE_LIMITED, until)]
    await store.control.pause(user, execution.id)
    assert await waiting() == [None, None]


async def test_the_free_provider_waits_for_no_key(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    assert (await store.executions.get_result(user, (await store.results(user, execution.id))[0].id)).waiting is None


async def test_latency_is_that_of_the_last_200_successful_calls(store):
    user = await store.user()
    execution = await store.execution(user, 1)
    result = (await store.results(user, execution.id))[0]
    assert (await store.executions.latency("sandbox")).sample_count == 0
    made = []
    for number in range(250):
        attempt = Attempt(
            id=str(uuid.uuid4()),
            user_id=user.user_id,
            execution_id=execution.id,
            result_id=result.id,
            bucket_id=execution.bucket_id,
            job_id=None,
            lease_id=str(uuid.uuid4()),
            model="sandbox",
            reserved_micros=0,
            start_time=store.clock.now(),
            end_time=store.clock.now() + timedelta(seconds=number),
            outcome="COMPLETED" if number != 249 else "TRANSIENT",
            charged=Charged.YES,
            processing_ms=1_000_000 if number < 49 else (number - 48) * 10,
        )
        made.append(rows.values_of(attempt))
    await store.database.write(lambda tx: tx.connection.execute(insert(attempts), made))
    latency = await store.executions.latency("sandbox")
    assert latency.sample_count == 200
    assert latency.median == timedelta(milliseconds=1005)
    assert latency.p95 == timedelta(milliseconds=1900)
    assert (await store.executions.latency("another")).sample_count == 0
