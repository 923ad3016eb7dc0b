"""Users, their tokens, and shared secrets."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage.accounts import NewToken, NewUser, Role, Token, TokenDigest, UserUpdate
from nanobatch_storage.adapters.tables import users
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import (
    AdminOnlyError,
    AdminTokenTakenError,
    OwnAccountError,
    RequestIdReusedError,
    TokenExpiredError,
    TokenInvalidError,
    TokenNotFoundError,
    TokenShownError,
    UserNotFoundError,
)


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


# Users


async def test_a_user_is_made_listed_and_changed(store, clock):
    admin = await store.user(admin=True)
    clock.advance(timedelta(seconds=1))
    made = await store.users.create(admin, NewUser("Ada", daily_cap_micros=5))
    assert (made.name, made.role, made.disabled, made.daily_cap_micros) == ("Ada", Role.CLIENT, False, 5)
    changed = await store.users.update(
        admin, UserUpdate(made.id, {"role", "disabled", "daily_cap_micros"}, name="no", role=Role.ADMIN, disabled=True)
    )
    assert (changed.name, changed.role, changed.disabled, changed.daily_cap_micros) == ("Ada", Role.ADMIN, True, None)
    listed = await store.users.list(admin, 10, "")
    assert [user.id for user in listed.items] == [admin.user_id, made.id]
    assert listed.items[1] == changed


async def test_the_list_of_users_goes_on_where_it_ended(store, clock):
    admin = await store.user(admin=True)
    for number in range(4):
        if number % 2:
            clock.advance(timedelta(seconds=1))
        await store.users.create(admin, NewUser(f"{number}"))
    seen, cursor = [], ""
    while True:
        page = await store.users.list(admin, 2, cursor)
        seen += [user.id for user in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 5


async def test_the_same_request_makes_one_user_however_many_ask_at_once(store):
    admin = await store.user(admin=True)
    new = NewUser("Ada", request_id=str(uuid.uuid4()), request_hash="a" * 64)
    made = await asyncio.gather(*(store.users.create(admin, new) for _ in range(5)))
    assert len({user.id for user in made}) == 1
    with pytest.raises(RequestIdReusedError):
        await store.users.create(admin, replace(new, request_hash="b" * 64))
    other = await store.user(admin=True)
    assert (await store.users.create(other, new)).id != made[0].id  # request ids are the caller's own


async def test_only_admins_manage_users(store):
    client = await store.user()
    for attempt in (
        store.users.create(client, NewUser("x")),
        store.users.list(client, 10, ""),
        store.users.update(client, UserUpdate(client.user_id, {"role"}, role=Role.ADMIN)),
    ):
        with pytest.raises(AdminOnlyError):
            await attempt


async def test_admins_cannot_lock_themselves_out(store):
    admin = await store.user(admin=True)
    for update in (
        UserUpdate(admin.user_id, {"disabled"}, disabled=True),
        UserUpdate(admin.user_id, {"role"}, role=Role.CLIENT),
    ):
        with pytest.raises(OwnAccountError):
            await store.users.update(admin, update)
    await store.users.update(admin, UserUpdate(admin.user_id, {"name", "role"}, name="me", role=Role.ADMIN))


async def test_a_user_that_is_not_there_cannot_be_changed(store):
    admin = await store.user(admin=True)
    for user_id in (str(uuid.uuid4()), "no uuid"):
        with pytest.raises(UserNotFoundError):
            await store.users.update(admin, UserUpdate(user_id, {"name"}, name="x"))


# Tokens


async def test_a_token_opens_its_users_account_until_it_is_revoked(store, clock):
    client = await store.user()
    token = await store.tokens.create(client, new_token(client, "a"))
    opened = await store.tokens.authenticate(sha256("a"))
    assert (opened.actor, opened.token_id, opened.remaining) == (client, token.id, None)
    clock.advance(timedelta(seconds=5))
    revoked = await store.tokens.revoke(client, token.id)
    assert revoked.revoke_time == clock.now()
    clock.advance(timedelta(seconds=5))
    assert await store.tokens.revoke(client, token.id) == revoked
    with pytest.raises(TokenInvalidError):
        await store.tokens.authenticate(sha256("a"))


async def test_a_token_knows_how_long_it_works(store, clock):
    client = await store.user()
    await store.tokens.create(client, new_token(client, "a", expire_time=clock.now() + timedelta(minutes=1)))
    clock.advance(timedelta(seconds=59))
    assert (await store.tokens.authenticate(sha256("a"))).remaining == timedelta(seconds=1)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(TokenExpiredError):
        await store.tokens.authenticate(sha256("a"))
    with pytest.raises(InvalidArgumentError):
        await store.tokens.create(client, new_token(client, "b", expire_time=clock.now()))


async def test_unknown_revoked_and_disabled_are_one_answer(store):
    admin, client = await store.user(admin=True), await store.user()
    revoked = await store.tokens.create(client, new_token(client, "revoked"))
    await store.tokens.revoke(client, revoked.id)
    disabled = await store.user()
    await store.tokens.create(disabled, new_token(disabled, "disabled"))
    await store.users.update(admin, UserUpdate(disabled.user_id, {"disabled"}, disabled=True))
    answers = set()
    for text in ("unknown", "revoked", "disabled"):
        with pytest.raises(TokenInvalidError) as caught:
            await store.tokens.authenticate(sha256(text))
        answers.add((caught.value.message, caught.value.reason, str(caught.value.metadata)))
    assert len(answers) == 1
    await store.users.update(admin, UserUpdate(disabled.user_id, {"disabled"}, disabled=False))
    assert (await store.tokens.authenticate(sha256("disabled"))).actor == disabled


async def test_a_use_is_written_later_and_never_backwards(store, clock):
    client = await store.user()
    token = await store.tokens.create(client, new_token(client, "a"))
    await store.tokens.authenticate(sha256("a"))
    used = clock.now()
    account = await store.accounts.get(client, token.id)
    assert account.token == token  # nothing was written by the use itself
    await store.tokens.write_uses()
    assert (await store.accounts.get(client, token.id)).token.last_use_time == used
    clock.advance(timedelta(minutes=1))
    await store.tokens.write_uses()
    assert (await store.accounts.get(client, token.id)).token.last_use_time == used


async def test_the_tokens_of_others_are_as_if_they_were_not_there(store):
    admin, one, other = await store.user(admin=True), await store.user(), await store.user()
    token = await store.tokens.create(one, new_token(one, "a"))
    with pytest.raises(TokenNotFoundError):
        await store.tokens.revoke(other, token.id)
    with pytest.raises(UserNotFoundError):
        await store.tokens.list(other, one.user_id, 10, "")
    with pytest.raises(UserNotFoundError):
        await store.tokens.create(other, new_token(one, "b"))
    assert (await store.accounts.get(other, token.id)).token is None
    assert [listed.id for listed in (await store.tokens.list(admin, one.user_id, 10, "")).items] == [token.id]
    made = await store.tokens.create(admin, new_token(one, "b"))
    assert made.user_id == one.user_id
    await store.tokens.revoke(admin, token.id)


async def test_the_list_of_tokens_goes_on_where_it_ended(store, clock):
    client, other = await store.user(), await store.user()
    await store.tokens.create(other, new_token(other, "foreign"))
    made = []
    for number in range(5):
        clock.advance(timedelta(seconds=number % 2))
        made.append((await store.tokens.create(client, new_token(client, str(number)))).id)
    seen, cursor = [], ""
    while True:
        page = await store.tokens.list(client, client.user_id, 2, cursor)
        seen += [token.id for token in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert sorted(seen) == sorted(made)


async def test_the_same_request_never_makes_a_second_token(store):
    client = await store.user()
    request = {"request_id": str(uuid.uuid4()), "request_hash": "a" * 64}
    answers = await asyncio.gather(
        *(store.tokens.create(client, new_token(client, str(number), **request)) for number in range(4)),
        return_exceptions=True,
    )
    (made,) = (answer for answer in answers if isinstance(answer, Token))
    shown = [answer for answer in answers if isinstance(answer, TokenShownError)]
    assert [answer.metadata for answer in shown] == [{"token_id": made.id}] * 3
    with pytest.raises(RequestIdReusedError):
        await store.tokens.create(client, new_token(client, "x", **{**request, "request_hash": "b" * 64}))
    assert len((await store.tokens.list(client, client.user_id, 10, "")).items) == 1


# The operator's token

FIRST = Actor("00000000-0000-4000-8000-000000000001", admin=True)


async def test_exactly_the_operators_token_opens_the_first_admins_account(store):
    assert not await store.tokens.ensure_first_admin(FIRST, "admin", None)
    answers = await asyncio.gather(*(store.tokens.ensure_first_admin(FIRST, "admin", digest("old")) for _ in range(8)))
    assert all(answers)
    assert (await store.tokens.authenticate(sha256("old"))).actor == FIRST
    assert await store.tokens.ensure_first_admin(FIRST, "admin", digest("new"))
    assert (await store.tokens.authenticate(sha256("new"))).actor == FIRST
    with pytest.raises(TokenInvalidError):
        await store.tokens.authenticate(sha256("old"))
    assert not await store.tokens.ensure_first_admin(FIRST, "admin", None)
    with pytest.raises(TokenInvalidError):
        await store.tokens.authenticate(sha256("new"))


async def test_the_operators_token_lets_a_locked_out_admin_in_again(store):
    other = await store.user(admin=True)
    await store.tokens.ensure_first_admin(FIRST, "admin", digest("a"))
    await store.users.update(other, UserUpdate(FIRST.user_id, {"disabled", "role"}, disabled=True, role=Role.CLIENT))
    await store.tokens.ensure_first_admin(FIRST, "admin", digest("a"))
    assert (await store.tokens.authenticate(sha256("a"))).actor == FIRST
    (token,) = (await store.tokens.list(FIRST, FIRST.user_id, 10, "")).items
    await store.tokens.revoke(FIRST, token.id)
    assert await store.tokens.ensure_first_admin(FIRST, "admin", digest("a"))


async def test_a_token_that_somebody_was_given_is_not_the_operators(store):
    client = await store.user()
    await store.tokens.create(client, new_token(client, "a"))
    with pytest.raises(AdminTokenTakenError):
        await store.tokens.ensure_first_admin(FIRST, "admin", digest("a"))
    assert (await store.tokens.authenticate(sha256("a"))).actor == client


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest(text: str) -> TokenDigest:
    return TokenDigest(sha256(text), text[:8])


def new_token(actor: Actor, text: str, **fields) -> NewToken:
    return NewToken(actor.user_id, "a token", digest(text), **fields)
