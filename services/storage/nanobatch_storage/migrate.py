"""Brings a database to the newest schema.

Alembic is loaded only where there is something to do: it and what it brings along take 10 MB for as long as the process
lives, and most starts of a storage find the schema as it should be.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import InterfaceError, OperationalError

from nanobatch_runtime.errors import UnavailableError
from nanobatch_storage.adapters import net

_log = structlog.get_logger("nanobatch.migrate")

# Any number that nobody else locks by; it says "nanobatch" on a telephone.
_LOCK = 626622824
_WAIT_FOR_OTHERS = "60s"
_WAIT_FOR_TABLES = "5s"
"""A migration that waits for a table makes all who come after it wait as well: better to fail and come again."""
_PATIENCE = timedelta(seconds=60)
_BUSY = {"55P03", "40P01"}
"""lock_not_available, and deadlock_detected: with others who were at work in several tables, of whom we gave way."""

_MIGRATIONS = Path(__file__).parent / "migrations"


class MigrationBusyError(UnavailableError):
    """Somebody else migrates, or holds a table that must change; nothing was changed."""

    reason = "MIGRATION_BUSY"


class MigrationUnavailableError(UnavailableError):
    """The database does not answer; nothing was changed."""

    reason = "DATABASE_UNAVAILABLE"


async def upgrade(url: str, *, patience: timedelta = _PATIENCE) -> None:
    """Bring the database at a SQLAlchemy URL to the newest schema, all steps in one transaction or none.

    Any number of processes may do this at once. Who finds a table held, or gives way in a deadlock, comes again for as long as
    ``patience``. Raises MigrationBusyError, MigrationUnavailableError.
    """
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        try:
            await asyncio.to_thread(_upgrade, make_url(url))
        except MigrationBusyError:
            if time.monotonic() >= deadline:
                raise
            _log.info("database.is_busy")
            await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311  # lets the others through
        else:
            return


def _upgrade(url: URL) -> None:
    engine = _engine(url)
    try:
        with engine.begin() as connection:
            if not url.get_backend_name().startswith("sqlite"):
                connection.execute(text(f"set local lock_timeout = '{_WAIT_FOR_OTHERS}'"))
                connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                connection.execute(text(f"set local lock_timeout = '{_WAIT_FOR_TABLES}'"))
                connection.execute(text(f"set local {net.SETTING} = {net.EVERYBODY}"))  # a migration may change any row
            present, known = _present(connection), _known()
            if present == max(known):
                return
            if _is_newer(present, known):
                _log.warning("database.is_newer", backend=url.get_backend_name())
                return
            _apply(connection)
    except (OperationalError, InterfaceError) as error:
        if getattr(error.orig, "sqlstate", None) in _BUSY or "locked" in str(error.orig):
            raise MigrationBusyError("The database is busy with another migration or a long transaction.") from error
        raise MigrationUnavailableError("The database cannot be reached or changed.") from error
    finally:
        engine.dispose()
    _log.info("database.migrated", backend=url.get_backend_name())


async def standing(url: str) -> tuple[str | None, str | None]:
    """Return the schema that a database has, and the newest that this version knows (None: none). Changes nothing."""
    return await asyncio.to_thread(_standing, make_url(url))


def _standing(url: URL) -> tuple[str | None, str | None]:
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            return _present(connection), max(_known())
    finally:
        engine.dispose()


def _present(connection: Connection) -> str | None:
    """Return the number of the schema that a database has; None where Alembic has to look for itself."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("select version_num from alembic_version")).scalars().all()
    return str(found[0]) if len(found) == 1 else None


def _known() -> frozenset[str]:
    """Return the numbers of all migrations of this version: their files' names begin with them (a test holds that)."""
    return frozenset(file.name.partition("_")[0] for file in (_MIGRATIONS / "versions").glob("*.py"))


def _is_newer(present: str | None, known: frozenset[str]) -> bool:
    """Say whether a later version has migrated the database: its schema is ours and more, so that a roll-back works."""
    # Numbers with leading zeros: a word that is no number of ours is no database of ours, and Alembic says so.
    return present is not None and present not in known and present.isdecimal() and present > max(known)


def _apply(connection: Connection) -> None:
    """Take all steps that are left, on a connection whose transaction is the caller's."""
    from alembic import command  # noqa: PLC0415  # see above
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": 5})
    engine = create_engine(url.set(drivername="sqlite"))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # as in database: the driver's own BEGIN would come too late for tables
        with closing(connection.cursor()) as cursor:
            cursor.execute("PRAGMA busy_timeout=15000")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
