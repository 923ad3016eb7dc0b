"""Users and shared secrets."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage.adapters.tables import users
from nanobatch_storage.domain import Actor


async def test_a_user_is_made_once(store):
    user = await store.user(admin=True)
    await asyncio.gather(*(store.accounts.ensure_user(user, "another name") for _ in range(10)))
    async with store.database.read() as tx:
        (row,) = (await tx.connection.execute(select(users))).all()
    assert (row.id, row.role, row.name) == (user.user_id, "admin", "somebody")


async def test_a_user_needs_a_proper_id(store):
    with pytest.raises(InvalidArgumentError):
        await store.accounts.ensure_user(Actor("no uuid"), "x")


async def test_all_who_propose_a_secret_get_the_same_one(store):
    proposals = [replace(store.key, encrypted=bytes([number])) for number in range(10)]
    answers = await asyncio.gather(*(store.accounts.ensure_secret("fingerprint", one) for one in proposals))
    assert len(set(answers)) == 1
    assert answers[0] in proposals
    assert await store.accounts.ensure_secret("fingerprint", store.key) == answers[0]
    assert await store.accounts.ensure_secret("another", store.key) == store.key
