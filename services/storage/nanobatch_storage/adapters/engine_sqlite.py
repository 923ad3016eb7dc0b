"""SQLite for one process: statements run where they are called, commits in a thread and in groups.

A statement on pages in memory takes some 30 microseconds; handing it to a thread and back, as aiosqlite does, took 1,000
(docs/adr/0007). What really waits is the commit, which syncs the file: that is done in a thread, and once for all
transactions that came while the last one was synced. Nothing here waits for a lock either: this process is the only
writer, its transactions take turns, and a file that somebody else holds (a backup) is an error at once, which is repeated
from outside.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from sqlalchemy import Connection, Dialect, Executable, Result, Row, create_engine, event
from sqlalchemy.engine import URL

from nanobatch_storage.adapters.prepared import Parameters, Prepared, raise_told

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # the ledger is money: a commit survives the power cut
    "foreign_keys=ON",
    "busy_timeout=0",
    "secure_delete=ON",  # a wiped key does not stay in free pages
)

_MAX_GROUP = 32
"""So many transactions are committed together at most."""


class InlineConnection:
    """A synchronous connection with the face of an asynchronous one."""

    def __init__(self, connection: Connection) -> None:
        """Take an open connection."""
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return self._connection.dialect

    @property
    def began(self) -> None:
        """SQLite has no clock of its own."""

    async def execute(self, statement: Executable | Prepared, parameters: Parameters = None) -> Result[Any]:
        """Run a statement, here and now."""
        if not isinstance(statement, Prepared):
            return self._connection.execute(statement, parameters)
        ready = statement.on(self.dialect)
        driver: Any = self._connection.connection.driver_connection
        if isinstance(parameters, Sequence):
            sql, each = ready.bound_each(parameters)
            run = partial(driver.executemany, sql, each)
        else:
            sql, bound = ready.bound(parameters or {})
            run = partial(driver.execute, sql, bound)
        try:
            cursor = run()
            return ready.result(cursor, cursor.fetchall())
        except sqlite3.Error as error:
            raise_told(self._connection, error, sql)


class _Group:
    """Transactions that are committed together: the file is synced once for all of them.

    Each is a savepoint, so that one that fails undoes its own changes only.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._transaction = connection.begin()
        self._driver: Any = self.connection.connection.driver_connection
        self._committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.size = 0

    @contextmanager
    def member(self) -> Iterator[InlineConnection]:
        self._driver.execute("SAVEPOINT member")
        try:
            yield InlineConnection(self.connection)
        except BaseException:
            self._driver.execute("ROLLBACK TO member")
            self._driver.execute("RELEASE member")
            raise
        self._driver.execute("RELEASE member")
        self.size += 1

    async def close(self) -> None:
        """Commit what the members did. Does not raise: :meth:`committed` does, to each of them."""
        try:
            if self.size:
                await asyncio.to_thread(self._transaction.commit)
            else:
                self._transaction.rollback()
        except Exception as error:  # noqa: BLE001  # handed to every member
            self._transaction.rollback()
            self._committed.set_exception(error)
        else:
            self._committed.set_result(None)

    async def committed(self) -> None:
        """Wait until the group is committed; raises what that raised."""
        await asyncio.shield(self._committed)


class SqliteEngine:
    """See :class:`nanobatch_storage.adapters.database.SqlEngine`."""

    def __init__(self, url: URL) -> None:
        """``url`` names a file."""
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            connect_args={"check_same_thread": False},
            hide_parameters=True,  # prompts and keys' records do not belong in an error's text, which is logged
        )
        self._turn = asyncio.Lock()  # first come, first served
        self._waiting = 0
        self._group: _Group | None = None

        @event.listens_for(self._engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(self._engine, "begin")
        def begin(connection: Connection) -> None:
            if connection is self._writer:
                # A writer that started by reading would fail with "database is locked" however long it waited.
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        # Two connections for good: taking one from a pool and giving it back costs more than most statements.
        self._writer = self._engine.connect()
        self._reader = self._engine.connect()
        # One thread, so that surveys take nothing from commits.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="sqlite-survey")

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return self._engine.dialect

    @asynccontextmanager
    async def writing(self, _user: str | None = None, /) -> AsyncIterator[InlineConnection]:
        """Open a transaction; committed at the end, together with those that came meanwhile. SQLite knows no users.

        Must not be cancelled while it waits for its turn: those before it count on it (Database.write sees to that).
        """
        self._waiting += 1
        async with self._turn:
            self._waiting -= 1
            group = self._group = self._group or _Group(self._writer)
            try:
                with group.member() as connection:
                    yield connection
            finally:
                if not self._waiting or group.size >= _MAX_GROUP:
                    self._group = None
                    await group.close()
        await group.committed()

    @asynccontextmanager
    async def reading(self, _user: str | None = None, /) -> AsyncIterator[InlineConnection]:
        """Open what only reads. Every statement sees what was committed before it, as PostgreSQL's default has it."""
        yield InlineConnection(self._reader)

    def changing(self) -> AbstractAsyncContextManager[InlineConnection]:
        """Open what runs one statement: a transaction like the others, so that it is committed with them."""
        return self.writing()

    async def survey(self, statement: Executable, _user: str | None = None, /) -> Sequence[Row[Any]]:
        """Run a statement that may read a large part of a table: in a thread, on a connection of its own."""

        def run() -> Sequence[Row[Any]]:
            with self._engine.connect() as connection:
                return connection.execute(statement).all()

        return await asyncio.get_running_loop().run_in_executor(self._aside, run)

    def connections(self) -> tuple[int, int]:
        """Return whether the one that writes is in use: those who wait for it are behind each other."""
        return int(self._turn.locked()), 1

    async def dispose(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self._aside.shutdown, cancel_futures=True)
        self._writer.close()
        self._reader.close()
        self._engine.dispose()
