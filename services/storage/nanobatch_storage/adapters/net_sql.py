"""Whether the second net holds: what ``nanobatch doctor`` asks PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Table, func, literal, select, text

from nanobatch_storage.adapters.database import Database
from nanobatch_storage.adapters.tables import active_executions, metadata, users
from nanobatch_storage.domain import Actor

_NONE = Actor("")
_ROLE = text("select current_user, rolsuper, rolbypassrls from pg_roles where rolname = current_user")


@dataclass(frozen=True, slots=True)
class Net:
    """How things are for a session that acts for a user."""

    role: str
    ignores: bool
    """Whether PostgreSQL lets the role see everything, whatever policies say."""
    open_tables: tuple[str, ...]
    """Tables of users' data in which no policy keeps it to rows of the user."""


def guarded() -> list[Table]:
    """Return the tables whose rows belong to a user."""
    tables = [*metadata.sorted_tables, active_executions]
    return [table for table in tables if table is users or "user_id" in table.c]


async def look(database: Database) -> Net:
    """Return how the net is, as a session for nobody sees it."""
    async with database.read(_NONE) as tx:
        role = (await tx.connection.execute(_ROLE)).one()
        held = [func.row_security_active(literal(table.name)).label(table.name) for table in guarded()]
        active = (await tx.connection.execute(select(*held))).one()
    unguarded = tuple(table.name for table, holds in zip(guarded(), active, strict=True) if not holds)
    return Net(role.current_user, role.rolsuper or role.rolbypassrls, unguarded)
