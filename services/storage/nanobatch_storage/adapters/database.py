"""One database behind two engines: SQLite for one process, PostgreSQL for many.

Transactions are functions, because a whole transaction is repeated when the database says so (deadlock, serialisation
failure, busy file). The order of locks is the same everywhere: bucket, executions by id, results by id, attempts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import event, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from nanobatch_runtime.clock import Clock, SystemClock
from nanobatch_runtime.errors import UnavailableError

T = TypeVar("T")

_TRIES = 5
# deadlock_detected, serialization_failure, lock_not_available
_REPEATABLE_SQLSTATES = {"40P01", "40001", "55P03"}


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer; nothing was changed, and a repeat is safe."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        """Say it without addresses."""
        super().__init__("The database cannot be reached right now.")


@dataclass(slots=True)
class Transaction:
    """A running transaction: its connection, and the one time that everything in it counts as."""

    connection: AsyncConnection
    now: datetime


class Database:
    """Opens connections and runs transactions."""

    def __init__(self, engine: AsyncEngine, clock: Clock | None = None) -> None:
        """``clock`` replaces the database's own clock, for tests."""
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has no clock of its own: that of the one process that owns the file is the database's.
        self._clock = clock or (SystemClock() if self.is_sqlite else None)
        # SQLite takes one writer at a time. Waiting here is first come, first served; waiting in SQLite is sleeping.
        self._writer = asyncio.Lock() if self.is_sqlite else None
        self._running: set[asyncio.Task[Any]] = set()

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``work`` in a transaction and commit it. It may run several times; it must change nothing but the database.

        A caller that is cancelled does not cut the transaction: it ends by itself, so that no connection is left half-way.
        Raises DatabaseUnavailableError where the database cannot be reached.
        """
        task = asyncio.create_task(self._write(work), name="transaction")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        for left in reversed(range(_TRIES)):
            try:
                return await self._write_once(work)
            except DBAPIError as error:
                if left and _is_repeatable(error):
                    await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311  # lets the other one through
                    continue
                if _is_unavailable(error):
                    raise DatabaseUnavailableError from error
                raise
            except (PoolTimeoutError, OSError) as error:
                raise DatabaseUnavailableError from error
        raise AssertionError  # the last round returns or raises

    async def _write_once(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async with AsyncExitStack() as stack:
            if self._writer is not None:
                await stack.enter_async_context(self._writer)
            connection = await stack.enter_async_context(self.engine.begin())
            return await work(Transaction(connection, await self._now(connection)))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """Open a transaction that only reads. Raises DatabaseUnavailableError where the database cannot be reached."""
        try:
            async with self.engine.connect() as plain:
                connection = await plain.execution_options(nanobatch_read_only=True)
                async with connection.begin():
                    yield Transaction(connection, await self._now(connection))
        except DBAPIError as error:
            if _is_unavailable(error):
                raise DatabaseUnavailableError from error
            raise
        except (PoolTimeoutError, OSError) as error:
            raise DatabaseUnavailableError from error

    async def _now(self, connection: AsyncConnection) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        now: datetime = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    async def close(self) -> None:
        """Wait for running transactions, then close all connections."""
        if self._running:
            await asyncio.wait(self._running)
        await self.engine.dispose()


@asynccontextmanager
async def open_database(url: str, clock: Clock | None = None) -> AsyncIterator[Database]:
    """Open the database at a SQLAlchemy URL (``sqlite+aiosqlite:///...`` or ``postgresql+psycopg://...``)."""
    parsed = make_url(url)
    engine = _sqlite_engine(parsed) if parsed.get_backend_name() == "sqlite" else _postgres_engine(parsed)
    database = Database(engine, clock)
    try:
        yield database
    finally:
        await database.close()


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"))

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",  # the ledger is money: a commit survives the power cut
            "foreign_keys=ON",
            "busy_timeout=15000",
            "secure_delete=ON",  # a wiped key does not stay in free pages
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        read_only = connection.get_execution_options().get("nanobatch_read_only", False)
        # A writer that starts by reading would fail with "database is locked" however long it waits.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgres_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=10,
        max_overflow=10,
        pool_timeout=10,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "options": "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=15000",
        },
    )


def _is_repeatable(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _REPEATABLE_SQLSTATES:
        return True
    return isinstance(error, OperationalError) and "locked" in str(error.orig)


def _is_unavailable(error: DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
