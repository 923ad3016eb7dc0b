"""Tokens, by their hashes: what is stored lets nobody in."""

from __future__ import annotations

import hmac
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, literal, or_, select, tuple_, update

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import derived_id, is_id, new_id
from nanobatch_storage import cursors
from nanobatch_storage.accounts import NewToken, Opened, Token, TokenDigest
from nanobatch_storage.adapters.access import lock_user, visible
from nanobatch_storage.adapters.credentials_sql import insert_if_absent
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import UtcDateTime, tokens, users
from nanobatch_storage.adapters.users_sql import find_user
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import (
    AdminTokenTakenError,
    RequestIdReusedError,
    TokenExpiredError,
    TokenInvalidError,
    TokenNotFoundError,
    TokenShownError,
)
from nanobatch_storage.views import Page

TOKEN_COLUMNS = (
    tokens.c.id,
    tokens.c.user_id,
    tokens.c.name,
    tokens.c.prefix,
    tokens.c.create_time,
    tokens.c.expire_time,
    tokens.c.revoke_time,
    tokens.c.last_use_time,
)
_LIST = "tokens"
_OPERATORS = "operator"


class SqlTokens:
    """See :class:`nanobatch_storage.ports.Tokens`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database
        self._used: dict[str, datetime] = {}

    async def ensure_first_admin(self, actor: Actor, name: str, digest: TokenDigest | None) -> bool:
        """See the port."""
        token_id = derived_id(actor.user_id, _OPERATORS)

        async def work(tx: Transaction) -> bool:
            if digest is None:
                gone = update(tokens).where(tokens.c.id == token_id, tokens.c.revoke_time.is_(None))
                await tx.connection.execute(gone.values(revoke_time=tx.now))
            else:
                await _make_admin(tx, actor, name)
                await _put_operators_token(tx, actor, token_id, digest)
            works = and_(
                tokens.c.revoke_time.is_(None),
                or_(tokens.c.expire_time.is_(None), tokens.c.expire_time > tx.now),
                users.c.disabled.is_(False),
            )
            anybody = select(tokens.c.id).join(users, users.c.id == tokens.c.user_id).where(works).limit(1)
            return (await tx.connection.execute(anybody)).one_or_none() is not None

        return await self._database.write(work)

    async def authenticate(self, sha256: str) -> Opened:
        """See the port."""
        statement = (
            select(tokens.c.id, tokens.c.user_id, tokens.c.sha256, tokens.c.expire_time, users.c.role)
            .join(users, users.c.id == tokens.c.user_id)
            .where(tokens.c.sha256 == sha256, tokens.c.revoke_time.is_(None), users.c.disabled.is_(False))
        )
        async with self._database.read() as tx:
            row = (await tx.connection.execute(statement)).one_or_none()
        if row is None or not hmac.compare_digest(row.sha256, sha256):
            raise TokenInvalidError
        remaining = row.expire_time - tx.now if row.expire_time is not None else None
        if remaining is not None and remaining.total_seconds() <= 0:
            raise TokenExpiredError
        self._used[row.id] = tx.now
        return Opened(Actor(row.user_id, admin=row.role == "admin"), row.id, remaining)

    async def write_uses(self) -> None:
        """See the port."""
        used, self._used = self._used, {}
        if not used:
            return

        async def work(tx: Transaction) -> None:
            for token_id, time in sorted(used.items()):
                newer = or_(tokens.c.last_use_time.is_(None), tokens.c.last_use_time < time)
                await tx.connection.execute(
                    update(tokens).where(tokens.c.id == token_id, newer).values(last_use_time=time)
                )

        await self._database.write(work)

    async def create(self, actor: Actor, new: NewToken) -> Token:
        """See the port."""

        async def work(tx: Transaction) -> Token:
            await lock_user(tx, actor)  # what follows looks before it writes
            if new.request_id is not None:
                mine = (tokens.c.creator_id == actor.user_id) & (tokens.c.request_id == new.request_id)
                statement = select(tokens.c.id, tokens.c.request_hash).where(mine)
                found = (await tx.connection.execute(statement)).one_or_none()
                if found is not None:
                    raise TokenShownError(found.id) if found.request_hash == new.request_hash else RequestIdReusedError
            user = await find_user(tx, actor, new.user_id)
            if new.expire_time is not None and new.expire_time <= tx.now:
                violation = FieldViolation(
                    "expire_time", "This time is past: the token would never work.", "OUT_OF_RANGE"
                )
                raise InvalidArgumentError("The token would never work.", violations=[violation])
            token = Token(
                id=new_id(),
                user_id=user.id,
                name=new.name,
                prefix=new.digest.prefix,
                create_time=tx.now,
                expire_time=new.expire_time,
                revoke_time=None,
                last_use_time=None,
            )
            kept = {"creator_id": actor.user_id, "request_id": new.request_id, "request_hash": new.request_hash}
            # Whoever was an admin once does not see the tokens any more that they made for others.
            if not await insert_if_absent(tx, tokens, {**asdict(token), **kept, "sha256": new.digest.sha256}):
                raise RequestIdReusedError
            return token

        return await self._database.write(work, actor)

    async def list(self, actor: Actor, user_id: str, page_size: int, cursor: str) -> Page[Token]:
        """See the port."""
        statement = select(*TOKEN_COLUMNS).where(tokens.c.user_id == user_id, visible(tokens, actor))
        if cursor:
            time, last = cursors.read_made(_LIST, cursor)
            place = tuple_(tokens.c.create_time, tokens.c.id)
            statement = statement.where(place > tuple_(literal(time, UtcDateTime), literal(last, tokens.c.id.type)))
        statement = statement.order_by(tokens.c.create_time, tokens.c.id).limit(page_size + 1)
        async with self._database.read(actor) as tx:
            await find_user(tx, actor, user_id)
            found = [token_from(row) for row in await tx.connection.execute(statement)]
        page = found[:page_size]
        more = len(found) > page_size
        return Page(page, cursors.after_made(_LIST, page[-1].create_time, page[-1].id) if more else "")

    async def revoke(self, actor: Actor, token_id: str) -> Token:
        """See the port."""
        if not is_id(token_id):
            raise TokenNotFoundError
        wanted = (tokens.c.id == token_id) & visible(tokens, actor)

        async def work(tx: Transaction) -> Token:
            revoked = update(tokens).where(wanted, tokens.c.revoke_time.is_(None)).values(revoke_time=tx.now)
            await tx.connection.execute(revoked)
            row = (await tx.connection.execute(select(*TOKEN_COLUMNS).where(wanted))).one_or_none()
            if row is None:
                raise TokenNotFoundError
            return token_from(row)

        return await self._database.write(work, actor)


def token_from(row: Row[Any]) -> Token:
    """Return the token of a row of :data:`TOKEN_COLUMNS`."""
    return Token(*tuple(row))


async def _make_admin(tx: Transaction, actor: Actor, name: str) -> None:
    values = {"id": actor.user_id, "role": "admin", "name": name, "create_time": tx.now}
    await insert_if_absent(tx, users, values)
    less = or_(users.c.role != "admin", users.c.disabled)
    restored = update(users).where(users.c.id == actor.user_id, less).values(role="admin", disabled=False)
    await tx.connection.execute(restored)


async def _put_operators_token(tx: Transaction, actor: Actor, token_id: str, digest: TokenDigest) -> None:
    same = select(tokens.c.id).where(tokens.c.sha256 == digest.sha256, tokens.c.id != token_id)
    if (await tx.connection.execute(same)).one_or_none() is not None:
        raise AdminTokenTakenError
    values = {
        "user_id": actor.user_id,
        "name": "NANOBATCH_ADMIN_TOKEN",
        "prefix": digest.prefix,
        "sha256": digest.sha256,
        "create_time": tx.now,
    }
    await insert_if_absent(tx, tokens, {"id": token_id, **values})
    other = or_(tokens.c.sha256 != digest.sha256, tokens.c.revoke_time.is_not(None))
    renewed = update(tokens).where(tokens.c.id == token_id, other)
    await tx.connection.execute(renewed.values(**values, revoke_time=None, last_use_time=None))
