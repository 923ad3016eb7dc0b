"""Transactions over one of two engines: SQLite for one process, PostgreSQL for many.

Transactions are functions, because a whole transaction is repeated when the database says so (deadlock, serialisation
failure, busy file). The order of locks is the same everywhere: user, bucket, executions by id, results by
id, attempts.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from sqlalchemy import Dialect, Executable, Result, Row, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nanobatch_runtime.clock import Clock, SystemClock
from nanobatch_runtime.errors import NanobatchError, UnavailableError
from nanobatch_storage.adapters import net
from nanobatch_storage.adapters.engine_postgres import PostgresEngine
from nanobatch_storage.adapters.prepared import Parameters, Prepared
from nanobatch_storage.domain import Actor
from nanobatch_storage.errors import DiskFullError

T = TypeVar("T")

_PATIENCE = timedelta(seconds=15)
"""How long a transaction is repeated."""
_DISK_FULL = "53100"
# SQLite's own numbers; its module is loaded only where there is such a file.
_SQLITE_ERROR, _SQLITE_FULL = 1, 13
# deadlock_detected, serialization_failure, lock_not_available
_CLOCK = Prepared(select(func.clock_timestamp()))
_REPEATABLE_SQLSTATES = {"40P01", "40001", "55P03"}


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer, or the answer to a commit was lost: what was asked for may be done or not.

    A repeat is safe: leases, attempts and request ids recognise what is done already.
    """

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        """Say it without addresses."""
        super().__init__("The database cannot be reached right now.")


class SqlConnection(Protocol):
    """A connection in a transaction; the part of SQLAlchemy's asyncio connection that statements need."""

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        ...

    @property
    def began(self) -> datetime | None:
        """When the database says that the transaction began, where it was asked along with that."""
        ...

    async def execute(self, statement: Executable | Prepared, parameters: Parameters = None) -> Result[Any]:
        """Run a statement; all its rows have been fetched. What is run often is better prepared."""
        ...


class SqlEngine(Protocol):
    """Opens connections to one database. ``user``: whose rows alone are to be seen, where the database can see to that."""

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        ...

    def writing(self, user: str | None = None, /) -> AbstractAsyncContextManager[SqlConnection]:
        """Open a transaction; committed at the end, rolled back when something is raised."""
        ...

    def reading(self, user: str | None = None, /) -> AbstractAsyncContextManager[SqlConnection]:
        """Open a transaction that only reads."""
        ...

    def changing(self) -> AbstractAsyncContextManager[SqlConnection]:
        """Open what runs one statement, which is a transaction by itself."""
        ...

    async def survey(self, statement: Executable, user: str | None = None, /) -> Sequence[Row[Any]]:
        """Run a statement that may read a large part of a table, and return its rows; the loop goes on meanwhile."""
        ...

    def connections(self) -> tuple[int, int]:
        """Return how many connections are in use, and how many may be. Called from any thread."""
        ...

    async def dispose(self) -> None:
        """Close all connections."""
        ...


@dataclass(slots=True)
class Transaction:
    """A running transaction: its connection, and the one time that everything in it counts as."""

    connection: SqlConnection
    now: datetime


class Database:
    """Runs transactions.

    Who asks on behalf of an actor says so: PostgreSQL then keeps a client to their own rows, whatever is asked. Nobody named is
    the system itself, which works for all.
    """

    def __init__(self, engine: SqlEngine, clock: Clock | None = None) -> None:
        """``clock`` replaces the database's own clock, for tests."""
        self._engine = engine
        # SQLite has no clock of its own: that of the one process that owns the file is the database's.
        self._clock = clock or (SystemClock() if engine.dialect.name == "sqlite" else None)
        self._running: set[asyncio.Task[Any]] = set()

    async def write(self, work: Callable[[Transaction], Awaitable[T]], actor: Actor | None = None) -> T:
        """Run ``work`` in a transaction and commit it. It may run several times; it must change nothing but the database.

        A caller that is cancelled does not cut the transaction: it ends by itself, so that no connection is left half-way.
        Raises DatabaseUnavailableError where the database cannot be reached, or was lost while it committed.
        """
        return await asyncio.shield(self.own(self._write(work, net.kept_to(actor)), "transaction"))

    def own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run ``work`` in a task that :meth:`close` waits for, whoever has asked for it."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that was cancelled does not ask for it any more

    async def change(
        self, statement: Prepared, names: Callable[[datetime | None], Mapping[str, Any]]
    ) -> Sequence[Row[Any]]:
        """Run one statement as a transaction of its own, and return its rows: one trip instead of four.

        ``names`` gets the time, and None where the database is to say it, and returns what the statement runs with. It may run
        several times, though the time before has changed something: it is one that can be repeated. A caller that is cancelled
        does not cut it. Raises DatabaseUnavailableError where the database cannot be reached.
        """
        return await asyncio.shield(self.own(self._repeatedly(lambda: self._change(statement, names)), "statement"))

    async def _change(
        self, statement: Prepared, names: Callable[[datetime | None], Mapping[str, Any]]
    ) -> Sequence[Row[Any]]:
        async with self._engine.changing() as connection:
            return (await connection.execute(statement, names(self._clock.now() if self._clock else None))).all()

    async def _write(self, work: Callable[[Transaction], Awaitable[T]], user: str | None) -> T:
        async def once() -> T:
            committing = False
            try:
                async with self._engine.writing(user) as connection:
                    outcome = await work(Transaction(connection, await self._began(connection)))
                    committing = True
            except DBAPIError as error:
                # A connection lost before the commit has changed nothing. One lost in it may have: then the caller is
                # told that nobody knows, and asks again under its fence or request id, which recognise what is done.
                if committing and error.connection_invalidated:
                    raise DatabaseUnavailableError from error
                raise
            return outcome

        return await self._repeatedly(once)

    async def _repeatedly(self, once: Callable[[], Awaitable[T]]) -> T:
        """Repeat what a lost connection, or the database itself, has undone; raises what the last time raised."""
        deadline = time.monotonic() + _PATIENCE.total_seconds()
        async with self._reached():
            while True:
                try:
                    return await once()
                except DBAPIError as error:
                    undone = error.connection_invalidated or _is_repeatable(error)
                    if not undone or time.monotonic() >= deadline:
                        raise
                await asyncio.sleep(random.uniform(0.005, 0.05))  # noqa: S311  # lets the other one through

    @asynccontextmanager
    async def read(self, actor: Actor | None = None) -> AsyncIterator[Transaction]:
        """Open a transaction that only reads. Raises DatabaseUnavailableError where the database cannot be reached."""
        async with self._reached(), AsyncExitStack() as stack:
            yield await self._begin_reading(stack, net.kept_to(actor))

    async def now(self) -> datetime:
        """Return the time by which leases go. Raises DatabaseUnavailableError."""
        async with self.read() as tx:
            return tx.now

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        try:
            yield
        except DBAPIError as error:
            if told := _told(error):
                raise told from error
            raise
        except (PoolTimeoutError, OSError) as error:
            raise DatabaseUnavailableError from error

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""
        return self._engine.dialect

    def connections(self) -> tuple[int, int]:
        """Return how many connections are in use, and how many may be. Called from any thread."""
        return self._engine.connections()

    async def survey(self, statement: Executable, actor: Actor | None = None) -> Sequence[Row[Any]]:
        """Return the rows of a statement that may read a large part of a table. Raises DatabaseUnavailableError."""
        async with self._reached():
            return await self._engine.survey(statement, net.kept_to(actor))

    async def look(self, statement: Prepared, names: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Return the rows of one statement that reads, for whom the time does not matter. Raises DatabaseUnavailableError."""
        async with self._reached():
            try:
                return await self._look(statement, names)
            except DBAPIError as error:  # a connection that died in the pool; it has dropped all of its age
                if not error.connection_invalidated:
                    raise
            return await self._look(statement, names)

    async def _look(self, statement: Prepared, names: Mapping[str, Any]) -> Sequence[Row[Any]]:
        async with self._engine.reading() as connection:
            return (await connection.execute(statement, names)).all()

    async def look_at_clock(self, tx: Transaction) -> None:
        """Read the time anew: what follows is to count from now, not from before a wait for locks."""
        tx.now = await self._now(tx.connection)

    async def _begin_reading(self, stack: AsyncExitStack, user: str | None) -> Transaction:
        # A connection that died in the pool shows at the first statement, which asks for the time: that spares a ping.
        # The pool then drops all of its age, so that the second one is new.
        try:
            return await self._try_reading(stack, user)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return await self._try_reading(stack, user)

    async def _try_reading(self, stack: AsyncExitStack, user: str | None) -> Transaction:
        async with AsyncExitStack() as opening:
            connection = await opening.enter_async_context(self._engine.reading(user))
            transaction = Transaction(connection, await self._began(connection))
            stack.push_async_exit(opening.pop_all())
        return transaction

    async def _began(self, connection: SqlConnection) -> datetime:
        told = None if self._clock is not None else connection.began
        return told or await self._now(connection)

    async def _now(self, connection: SqlConnection) -> datetime:
        if self._clock is not None:
            return self._clock.now()
        now: datetime = (await connection.execute(_CLOCK)).scalar_one()
        return now

    async def close(self) -> None:
        """Wait for running transactions, then close all connections."""
        while self._running:  # what ends may begin another one: a batch its transaction
            await asyncio.wait(self._running)
        await self._engine.dispose()


@asynccontextmanager
async def open_database(url: str, clock: Clock | None = None) -> AsyncIterator[Database]:
    """Open the database at a SQLAlchemy URL (``sqlite:///file`` or ``postgresql+psycopg://...``)."""
    parsed = make_url(url)
    database = Database(_engine(parsed), clock)
    try:
        yield database
    finally:
        await database.close()


def _engine(url: URL) -> SqlEngine:
    if url.get_backend_name() != "sqlite":
        return PostgresEngine(url)
    from nanobatch_storage.adapters.engine_sqlite import SqliteEngine  # noqa: PLC0415  # with SQLite itself: only where it is used

    return SqliteEngine(url)


def _is_repeatable(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlstate", None) in _REPEATABLE_SQLSTATES:
        return True
    return isinstance(error, OperationalError) and "locked" in str(error.orig)


def _told(error: DBAPIError) -> NanobatchError | None:
    """Return what callers are told: the database is full or away; None where the error is a fault of ours."""
    if getattr(error.orig, "sqlstate", None) == _DISK_FULL or _sqlite_code(error) == _SQLITE_FULL:
        return DiskFullError("the database")
    return DatabaseUnavailableError() if _is_unavailable(error) else None


def _sqlite_code(error: DBAPIError) -> int | None:
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return code


def _is_unavailable(error: DBAPIError) -> bool:
    if _sqlite_code(error) == _SQLITE_ERROR:
        return False  # a statement that SQLite does not understand is a fault of ours, though the driver calls it operational
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
