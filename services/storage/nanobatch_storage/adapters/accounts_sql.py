"""Users and shared secrets."""

from __future__ import annotations

from sqlalchemy import select

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import is_id
from nanobatch_storage.accounts import Account
from nanobatch_storage.adapters import rows
from nanobatch_storage.adapters.access import owned
from nanobatch_storage.adapters.credentials_sql import insert_if_absent
from nanobatch_storage.adapters.database import Database, Transaction
from nanobatch_storage.adapters.tables import secrets, tokens, users
from nanobatch_storage.adapters.tokens_sql import TOKEN_COLUMNS, token_from
from nanobatch_storage.adapters.users_sql import find_user
from nanobatch_storage.domain import Actor, EncryptedKey


class SqlAccounts:
    """See :class:`nanobatch_storage.ports.Accounts`."""

    def __init__(self, database: Database) -> None:
        """Take the database."""
        self._database = database

    async def ensure_user(self, actor: Actor, name: str) -> None:
        """See the port."""
        if not is_id(actor.user_id):
            violation = FieldViolation("actor.user_id", "An id is a UUID in lower case.", "BAD_ID")
            raise InvalidArgumentError("The user has no proper id.", violations=[violation])

        async def work(tx: Transaction) -> None:
            role = "admin" if actor.admin else "client"
            values = {"id": actor.user_id, "role": role, "name": name[:255], "create_time": tx.now}
            await insert_if_absent(tx, users, values)

        await self._database.write(work, actor)

    async def ensure_secret(self, name: str, proposal: EncryptedKey) -> EncryptedKey:
        """See the port."""

        async def work(tx: Transaction) -> EncryptedKey:
            await insert_if_absent(tx, secrets, {"name": name, "record": rows.key_to_record(proposal)})
            found = await tx.connection.execute(select(secrets.c.record).where(secrets.c.name == name))
            return rows.key_from_record(found.scalar_one())

        return await self._database.write(work)

    async def get(self, actor: Actor, token_id: str | None) -> Account:
        """See the port."""
        async with self._database.read(actor) as tx:
            user = await find_user(tx, actor, actor.user_id)
            if token_id is None or not is_id(token_id):
                return Account(user, None)
            statement = select(*TOKEN_COLUMNS).where(tokens.c.id == token_id, owned(tokens, actor))
            row = (await tx.connection.execute(statement)).one_or_none()
            return Account(user, token_from(row) if row is not None else None)
