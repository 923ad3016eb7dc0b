"""SQLite for one process: statements run where they are called, commits in a thread.

A statement on pages in memory takes some 30 microseconds; handing it to a thread and back, as aiosqlite does, took 1,000
(30 statements a picture: 40 CPU-ms of 50; docs/adr/0007). What really waits is the commit, which syncs the file: that is
done in a thread. Nothing here waits for a lock either: this process is the only writer, its transactions queue for
``_writer``, and a file that somebody else holds (a backup) is an error at once, which is repeated from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect, Executable, create_engine, event
from sqlalchemy.engine import URL

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",  # the ledger is money: a commit survives the power cut
    "foreign_keys=ON",
    "busy_timeout=0",
    "secure_delete=ON",  # a wiped key does not stay in free pages
)


class InlineConnection:
    """A synchronous connection with the face of an asynchronous one."""

    def __init__(self, connection: Connection) -> None:
        """Take an open connection."""
        self._connection = connection

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return self._connection.dialect

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Run a statement, here and now."""
        return self._connection.execute(statement, parameters)


class SqliteEngine:
    """See :class:`nanobatch_storage.adapters.database.SqlEngine`."""

    def __init__(self, url: URL) -> None:
        """``url`` names a file."""
        self._engine = create_engine(
            url.set(drivername="sqlite"),
            connect_args={"check_same_thread": False},
            hide_parameters=True,  # prompts and keys' records do not belong in an error's text, which is logged
        )
        self._writer = asyncio.Lock()  # first come, first served

        @event.listens_for(self._engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we say BEGIN ourselves
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(self._engine, "begin")
        def begin(connection: Connection) -> None:
            reads = connection.get_execution_options().get("nanobatch_reads", False)
            # A writer that started by reading would fail with "database is locked" however long it waited.
            connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    @property
    def dialect(self) -> Dialect:
        """SQLite's."""
        return self._engine.dialect

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[InlineConnection]:
        """Open a transaction; committed at the end, in a thread."""
        async with self._writer:
            with self._engine.connect() as connection, connection.begin() as transaction:
                yield InlineConnection(connection)
                await asyncio.to_thread(transaction.commit)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[InlineConnection]:
        """Open a transaction that only reads."""
        with self._engine.connect().execution_options(nanobatch_reads=True) as connection, connection.begin():
            yield InlineConnection(connection)

    async def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()
