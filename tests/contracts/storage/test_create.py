"""Creating executions: whole or not at all, and once per request id."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage import create, topics
from nanobatch_storage.adapters.tables import credentials, executions, workflows
from nanobatch_storage.domain import Actor, ExecutionState, NewPrompt, ResultState, Settings
from nanobatch_storage.errors import RequestIdReusedError, UserNotFoundError


async def test_an_execution_and_its_results_are_there_at_once_each_with_a_revision_of_its_own(store):
    user = await store.user()
    prompts = (NewPrompt("a cat", variations=2), NewPrompt("a dog"))
    execution, is_new = await store.executions.create(user, store.new(prompts=prompts, labels={"team": "x"}))
    assert is_new
    assert (execution.state, execution.total, execution.pending) == (ExecutionState.PENDING, 3, 3)
    assert (execution.revision, execution.own_revision) == (4, 4)
    results = await store.results(user, execution.id)
    assert [(r.prompt_text, r.batch_index, r.variation, r.revision) for r in results] == [
        ("a cat", 0, 0, 1),
        ("a cat", 0, 1, 2),
        ("a dog", 1, 0, 3),
    ]
    assert all(r.state is ResultState.PENDING and r.ready_at == store.clock.now() for r in results)
    assert (await store.executions.get(user, execution.id)).execution == execution


async def test_fifty_parallel_creations_with_one_request_id_are_one_execution(store):
    user = await store.user()
    new = store.new(5, request_id=str(uuid.uuid4()), request_hash="h")
    made = await asyncio.gather(*(store.executions.create(user, new) for _ in range(50)))
    assert len({execution.id for execution, _ in made}) == 1
    assert [is_new for _, is_new in made].count(True) == 1
    assert len((await store.executions.list(user, 10, "")).items) == 1


async def test_parallel_first_executions_share_one_default_workflow(store):
    user = await store.user()
    made = await asyncio.gather(*(store.execution(user) for _ in range(10)))
    assert len({execution.workflow_id for execution in made}) == 1
    async with store.database.read() as tx:
        names = (await tx.connection.execute(select(workflows.c.name))).scalars().all()
    assert names == ["Batch Nano Banana"]


async def test_a_request_id_with_other_content_is_refused(store):
    user = await store.user()
    request_id = str(uuid.uuid4())
    await store.execution(user, request_id=request_id, request_hash="one")
    with pytest.raises(RequestIdReusedError):
        await store.execution(user, request_id=request_id, request_hash="two")


async def test_two_users_may_use_the_same_request_id(store):
    request_id = str(uuid.uuid4())
    made = [await store.execution(await store.user(), request_id=request_id) for _ in range(2)]
    assert made[0].id != made[1].id


async def test_parallel_users_of_one_key_share_its_bucket(store):
    users = [await store.user() for _ in range(8)]
    made = await asyncio.gather(
        *(store.paid(user, fingerprint="a" * 64, credential=store.credential("a" * 64)) for user in users)
    )
    assert len({execution.bucket_id for execution in made}) == 1
    other_model = await store.paid(users[0], fingerprint="a" * 64, model="another")
    assert other_model.bucket_id != made[0].bucket_id
    bucket = (await store.executions.get(users[0], made[0].id)).bucket
    assert (bucket.window, bucket.confirmed_at) == (10, None)


async def test_every_foreign_or_unknown_thing_is_named_at_once_and_nothing_is_stored(store):
    user, other = await store.user(), await store.user()
    mine, foreign = await store.upload(user), await store.upload(other)
    theirs = await store.execution(other)
    new = store.new(
        settings=Settings(reference_image_ids=(mine.id, foreign.id)),
        prompts=(
            NewPrompt("a", source_image_id="no-id", reference_image_ids=(mine.id,)),
            NewPrompt("b", reference_image_ids=(str(uuid.uuid4()),)),
        ),
        workflow_id=theirs.workflow_id,
        parent_execution_id=theirs.id,
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await store.executions.create(user, new)
    assert {(v.field, v.reason) for v in caught.value.violations} == {
        ("reference_image_ids[1]", "NOT_FOUND"),
        ("prompts[0].source_image_id", "NOT_FOUND"),
        ("prompts[1].reference_image_ids[0]", "NOT_FOUND"),
        ("workflow_id", "NOT_FOUND"),
        ("parent_execution_id", "NOT_FOUND"),
    }
    assert (await store.executions.list(user, 10, "")).items == []
    async with store.database.read() as tx:
        assert (await tx.connection.execute(select(func.count()).select_from(workflows))).scalar_one() == 1
    kept = await store.images.get_many(user, [mine.id])
    assert kept[0].expire_time is not None


async def test_used_uploads_stay(store):
    user = await store.user()
    source, reference = await store.upload(user), await store.upload(user)
    assert source.expire_time == store.clock.now() + timedelta(hours=24)
    new = store.new(
        settings=Settings(reference_image_ids=(reference.id,)),
        prompts=(NewPrompt("edit", source_image_id=source.id), NewPrompt("b", reference_image_ids=(source.id,))),
    )
    execution, _ = await store.executions.create(user, new)
    images = await store.images.get_many(user, [source.id, reference.id])
    assert [image.expire_time for image in images] == [None, None]
    first, second = await store.results(user, execution.id)
    assert first.reference_image_ids == (reference.id,)
    assert second.reference_image_ids == (source.id,)


async def test_a_key_is_stored_as_its_encrypted_record_only(store):
    user = await store.user()
    execution = await store.paid(user)
    assert (await store.executions.get(user, execution.id)).has_key
    async with store.database.read() as tx:
        row = (await tx.connection.execute(select(credentials))).one()
    assert (row.user_id, row.saved) == (user.user_id, False)
    assert set(row.record) == {"encrypted", "iv", "authTag", "salt", "keyId", "version"}


@pytest.mark.parametrize("changes", [{"prompts": ()}, {"request_id": "no uuid"}, {"provider": "gemini"}])
async def test_what_could_never_run_is_refused(store, changes):
    user = await store.user()
    with pytest.raises(InvalidArgumentError):
        await store.executions.create(user, store.new(**changes))


@pytest.mark.parametrize("user_id", ["", "no uuid", "00000000-0000-4000-8000-000000000000"])
async def test_nobody_creates_nothing(store, user_id):
    with pytest.raises(UserNotFoundError):
        await store.execution(Actor(user_id))


async def test_a_new_execution_wakes_generators_and_a_repeat_does_not(store):
    user, bus = await store.user(), MemoryBus()
    new = store.new(1, request_id=str(uuid.uuid4()))
    async with bus.subscribe(topics.WORK) as hints:
        await create.create_execution(store.executions, bus, user, new)
        assert await hints.wait(timedelta(seconds=5))
        await create.create_execution(store.executions, bus, user, new)
        assert not await hints.wait(timedelta(0))


async def test_a_failed_creation_leaves_no_half(store):
    user = await store.user()
    taken = store.credential()
    await store.paid(user, credential=taken)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.paid(user, credential=taken)
    async with store.database.read() as tx:
        assert (await tx.connection.execute(select(func.count()).select_from(executions))).scalar_one() == 1
