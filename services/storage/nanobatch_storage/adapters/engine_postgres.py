"""PostgreSQL through psycopg: pooled, and with time limits, so that nothing waits for ever.

There are two pools. The sessions of one act for everybody: the queue's work, and what admins ask for. Those of the other see
nothing of users' data outside of a transaction that names a user, and that user's alone inside of one (docs/adr/0023).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import Literal
from psycopg.types.string import TextLoader
from sqlalchemy import Dialect, Executable, Result, Row, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from nanobatch_storage.adapters import net
from nanobatch_storage.adapters.prepared import Parameters, Prepared, raise_told
from nanobatch_storage.adapters.sqlalchemy_async import AsyncConnection, AsyncEngine, create_async_engine

_SETTINGS = {
    "statement_timeout": "15s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "15s",
}
"""Limits of the server's side of a session: nothing that hangs here holds rows, or old row versions, for ever."""

_BEGIN = "begin; select clock_timestamp()"
# The setting ends with the transaction: what comes after it in the session is for nobody again.
_BEGIN_FOR = f"begin; select clock_timestamp(), set_config('{net.SETTING}', {{user}}, true)"
_CONNECTION = {
    "application_name": "nanobatch-storage",
    "connect_timeout": 5,
    # A peer that is gone without a word (power, network) is noticed within half a minute, whatever was being waited for.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""libpq's own; each may be given in the database's URL instead."""


def connection_arguments(url: URL, acts_for: str = net.EVERYBODY) -> dict[str, Any]:
    """Return what a connection is opened with besides its URL, whose own parameters win.

    ``acts_for`` is whom a session acts for wherever no transaction says otherwise.
    """
    arguments = {name: value for name, value in _CONNECTION.items() if name not in url.query}
    limits = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    own = url.query.get("options", "")
    named = own if isinstance(own, str) else " ".join(own)
    return {**arguments, "options": f"{limits} {named} -c {net.SETTING}={acts_for}"}


def _leave_ids_as_texts(connection: Any, _record: Any) -> None:
    # As they come, and as everything here has them: the driver would make an object of each, for us to undo.
    connection.driver_connection.adapters.register_loader("uuid", TextLoader)


class PostgresConnection:
    """SQLAlchemy's connection, past which prepared statements go to the driver's."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Take an open connection."""
        self._connection = connection
        sync = connection.sync_connection
        # The driver's own, as SQLAlchemy knows it: of no type, because dialects have many drivers.
        self._driver: Any = None if sync is None else sync.connection.driver_connection
        self._began: datetime | None = None

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return self._connection.dialect

    @property
    def began(self) -> datetime | None:
        """The server's time when the transaction began; None outside of one."""
        return self._began

    @property
    def is_closed(self) -> bool:
        """Whether the driver has closed it."""
        return self._driver is not None and bool(self._driver.closed)

    async def begin(self, user: str | None = None) -> None:
        """Begin a transaction, for the rows of one user where one is named, and ask for the time in the same breath."""
        cursor = self._driver.cursor()
        sql = _BEGIN if user is None else _BEGIN_FOR.format(user=Literal(user).as_string())
        try:
            await cursor.execute(sql, prepare=False)  # two statements, which cannot be prepared
            cursor.nextset()
            self._began = (await cursor.fetchone())[0]
        except psycopg.Error as error:
            await self._tell(error, sql)

    async def commit(self) -> None:
        """Commit the transaction."""
        try:
            await self._driver.commit()
        except psycopg.Error as error:
            await self._tell(error, "commit")

    async def end_reading(self) -> None:
        """End a transaction that has changed nothing; what was read is good though the connection be lost meanwhile."""
        with suppress(psycopg.Error):
            await self._driver.commit()  # after a rollback the driver forgets what it has prepared

    async def roll_back(self) -> None:
        """Undo the transaction; a connection that is lost has undone it."""
        with suppress(psycopg.Error):
            await self._driver.rollback()

    async def execute(self, statement: Executable | Prepared, parameters: Parameters = None) -> Result[Any]:
        """Run a statement; all its rows have been fetched."""
        if not isinstance(statement, Prepared):
            return await self._connection.execute(statement, parameters)
        ready = statement.on(self.dialect)
        cursor = self._driver.cursor()
        if isinstance(parameters, Sequence):
            sql, each = ready.bound_each(parameters)
            running = cursor.executemany(sql, each)
        else:
            sql, bound = ready.bound(parameters or {})
            running = cursor.execute(sql, bound)
        try:
            await running
            return ready.result(cursor, await cursor.fetchall() if ready.has_rows else [])
        except psycopg.Error as error:
            await self._tell(error, sql)
            raise  # never reached

    async def _tell(self, error: psycopg.Error, sql: str) -> None:
        """Raise a driver's error as SQLAlchemy does."""
        try:
            await self._connection.run_sync(raise_told, error, sql)
        except DBAPIError:
            raise
        except Exception as other:
            if not self.is_closed:
                raise
            # The connection was lost in the rollback that belongs to it: whatever that looked like, nobody can be asked.
            raise OperationalError(sql, None, other, connection_invalidated=True) from other


class PostgresEngine:
    """See :class:`nanobatch_storage.adapters.database.SqlEngine`."""

    def __init__(self, url: URL, *, pool_size: int = 14, users_pool_size: int = 6, wait_seconds: float = 10) -> None:
        """Connect when first used: up to ``pool_size`` connections that act for everybody, ``users_pool_size`` for a user.

        They stay: opening one costs more than a picture. Who finds all of a kind taken waits for ``wait_seconds``, then gets a
        TimeoutError; so what users ask for takes no connection from the queue.
        """
        self._limit = pool_size + users_pool_size
        self._engine = _engine(url, net.EVERYBODY, pool_size, wait_seconds)
        self._users = _engine(url, net.NOBODY, users_pool_size, wait_seconds)

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return self._engine.dialect

    @asynccontextmanager
    async def writing(self, user: str | None = None, /) -> AsyncIterator[PostgresConnection]:
        """Open a transaction; committed at the end."""
        async with self._connected(user) as connection:
            async with _begun(connection, user):
                yield connection
            await connection.commit()

    @asynccontextmanager
    async def reading(self, user: str | None = None, /) -> AsyncIterator[PostgresConnection]:
        """Open what only reads: a transaction where it is for a user, who is named in it; for everybody there need be none."""
        async with self._connected(user) as connection:
            if user is None:
                yield connection
                return
            async with _begun(connection, user):
                yield connection
            await connection.end_reading()

    def changing(self) -> AbstractAsyncContextManager[PostgresConnection]:
        """Open what runs one statement, for everybody: the server begins and commits a transaction for it."""
        return self._connected(None)

    @asynccontextmanager
    async def _connected(self, user: str | None) -> AsyncIterator[PostgresConnection]:
        async with (self._engine if user is None else self._users).connect() as connection:
            opened = PostgresConnection(connection)
            try:
                yield opened
            finally:
                # A statement that was cancelled and does not end closes its connection: there is nothing to give back.
                if opened.is_closed and not connection.invalidated:
                    await connection.invalidate()

    async def survey(self, statement: Executable, user: str | None = None, /) -> Sequence[Row[Any]]:
        """Run a statement that may read a large part of a table; the server has a time limit for it."""
        async with self.reading(user) as connection:
            return (await connection.execute(statement)).all()

    def connections(self) -> tuple[int, int]:
        """Return how many connections are in use, and how many may be."""
        pools = (self._engine.pool, self._users.pool)
        return sum(pool.checkedout() for pool in pools if isinstance(pool, QueuePool)), self._limit

    async def dispose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
        await self._users.dispose()


@asynccontextmanager
async def _begun(connection: PostgresConnection, user: str | None) -> AsyncIterator[None]:
    """Begin a transaction, and undo it where something is raised; otherwise its end is for whoever knows which."""
    await connection.begin(user)
    try:
        yield
    except BaseException:
        await connection.roll_back()
        raise


def _engine(url: URL, acts_for: str, pool_size: int, wait_seconds: float) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        hide_parameters=True,  # prompts and keys' records do not belong in an error's text, which is logged
        connect_args=connection_arguments(url, acts_for),
        # Reading needs no BEGIN and COMMIT, and holds no snapshot open between two statements; who writes begins himself.
        isolation_level="AUTOCOMMIT",
    )
    event.listen(engine.sync_engine, "connect", _leave_ids_as_texts)
    return engine
