"""Users, as admins manage them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, insert, literal, select, tuple_, update

from nanobatch_runtime.ids import is_id, new_id
from nanobatch_storage import cursors
from nanobatch_storage.accounts import USER_FIELDS, NewUser, Role, User, UserUpdate
from nanobatch_storage.adapters import spending_sql
from nanobatch_storage.adapters.access import lock_user
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import UtcDateTime, users
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import AdminOnlyError, OwnAccountError, RequestIdReusedError, UserNotFoundError
from nanobatch_storage.views import Page

_COLUMNS = (
    users.c.id,
    users.c.name,
    users.c.role,
    users.c.disabled,
    users.c.daily_cap_micros,
    users.c.create_time,
)
_LIST = "users"


class SqlUsers:
    """See :class:`nanobatch_storage.ports.Users`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def create(self, actor: Actor, new: NewUser) -> User:
        """See the port."""
        _require_admin(actor)

        async def work(tx: Transaction) -> User:
            await lock_user(tx, actor)  # what follows looks before it writes
            if new.request_id is not None:
                mine = (users.c.creator_id == actor.user_id) & (users.c.request_id == new.request_id)
                found = (await tx.connection.execute(select(*_COLUMNS, users.c.request_hash).where(mine))).one_or_none()
                if found is not None:
                    if found.request_hash != new.request_hash:
                        raise RequestIdReusedError
                    return user_from(found)
            user = User(
                new_id(), new.name, new.role, disabled=False, daily_cap_micros=new.daily_cap_micros, create_time=tx.now
            )
            values = {
                "id": user.id,
                "name": user.name,
                "role": user.role.lower(),
                "disabled": False,
                "daily_cap_micros": user.daily_cap_micros,
                "create_time": user.create_time,
                "creator_id": actor.user_id,
                "request_id": new.request_id,
                "request_hash": new.request_hash,
            }
            await tx.connection.execute(insert(users).values(values))
            return user

        return await self._database.write(work, actor)

    async def list(self, actor: Actor, page_size: int, cursor: str) -> Page[User]:
        """See the port."""
        _require_admin(actor)
        statement = select(*_COLUMNS)
        if cursor:
            time, last = cursors.read_made(_LIST, cursor)
            place = tuple_(users.c.create_time, users.c.id)
            statement = statement.where(place > tuple_(literal(time, UtcDateTime), literal(last, users.c.id.type)))
        statement = statement.order_by(users.c.create_time, users.c.id).limit(page_size + 1)
        async with self._database.read(actor) as tx:
            found = [user_from(row) for row in await tx.connection.execute(statement)]
        page = found[:page_size]
        more = len(found) > page_size
        return Page(page, cursors.after_made(_LIST, page[-1].create_time, page[-1].id) if more else "")

    async def update(self, actor: Actor, update_: UserUpdate) -> User:
        """See the port."""
        _require_admin(actor)
        values: dict[str, Any] = {name: getattr(update_, name) for name in USER_FIELDS & set(update_.mask)}
        if "role" in values:
            values["role"] = update_.role.lower()
        if update_.user_id == actor.user_id and (values.get("disabled") or values.get("role", "admin") != "admin"):
            raise OwnAccountError

        async def work(tx: Transaction) -> User:
            await find_user(tx, actor, update_.user_id)
            if values:
                await tx.connection.execute(update(users).where(users.c.id == update_.user_id).values(values))
            if "daily_cap_micros" in values:
                await spending_sql.let_go_on(tx, update_.user_id)
            return await find_user(tx, actor, update_.user_id)

        return await self._database.write(work, actor)


async def find_user(tx: Transaction, actor: Actor, user_id: str) -> User:
    """Return a user that the actor may see: themselves, or anybody for an admin. Raises UserNotFoundError."""
    if not is_id(user_id) or not (actor.admin or user_id == actor.user_id):
        raise UserNotFoundError
    row = (await tx.connection.execute(select(*_COLUMNS).where(users.c.id == user_id))).one_or_none()
    if row is None:
        raise UserNotFoundError
    return user_from(row)


def user_from(row: Row[Any]) -> User:
    """Return the user of a row."""
    return User(row.id, row.name, Role(row.role.upper()), row.disabled, row.daily_cap_micros, row.create_time)


def _require_admin(actor: Actor) -> None:
    if not actor.admin:
        raise AdminOnlyError
