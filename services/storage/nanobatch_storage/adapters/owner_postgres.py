"""Who may use a PostgreSQL database: one storage without Redis, or any number that have one.

Two storages without a common Redis lose no data: their hints do not reach each other, and everything becomes slow. So this
guards the start alone; a process that runs is never ended by it, whatever it loses its claim to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from nanobatch_runtime.lifecycle import cancel
from nanobatch_storage.adapters.database import DatabaseUnavailableError
from nanobatch_storage.adapters.owner_flock import DatabaseInUseError
from nanobatch_storage.adapters.sqlalchemy_async import AsyncConnection, AsyncEngine, create_async_engine

_log = structlog.get_logger("nanobatch.storage")

_LOCK = 626622825
"""The one after that of migrations."""
PATIENCE = timedelta(seconds=10)
"""As long as a predecessor takes that was told to stop, and some more."""
_STEP_SECONDS = 0.5
_BEAT_SECONDS = 5.0
# The server ends the session of a process that says nothing for so long: one that is frozen, or cut off from it, must
# not keep others out for ever. The system's own end of a process frees the lock at once.
_LIMITS = "-c idle_in_transaction_session_timeout=30000 -c statement_timeout=5000"

_IN_USE = (
    "Another storage uses this database, and without Redis there can be only one: set NANOBATCH_REDIS_URL to the same "
    "Redis for all of them, or stop the other one first. (One that hangs loses its claim after 30 s.)"
)


@asynccontextmanager
async def claiming(url: URL, *, alone: bool, patience: timedelta = PATIENCE) -> AsyncGenerator[None]:
    """Hold a claim to the database while the context is open: of one's own (``alone``), or together with others.

    Raises DatabaseInUseError where it is to be one's own and another process holds on to it for ``patience``;
    DatabaseUnavailableError. Where others are there that should be alone, a claim together with others only says so: they
    are about to be replaced.
    """
    # In a transaction and not in the session, so that a pooler between us cannot leave it lying about. It holds no
    # snapshot, and so keeps nothing from being vacuumed.
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 5, "options": _LIMITS},
    )
    claim = _Claim(engine, alone=alone)
    try:
        try:
            await claim.begin(patience)
        except (DBAPIError, OSError) as error:
            raise DatabaseUnavailableError from error
        task = asyncio.create_task(claim.hold(), name="database-claim")
        try:
            yield
        finally:
            await cancel(task)
    finally:
        await claim.drop()
        await engine.dispose()


class _Claim:
    def __init__(self, engine: AsyncEngine, *, alone: bool) -> None:
        self._engine = engine
        self._statement = text(
            f"select pg_try_advisory_xact_lock{'' if alone else '_shared'}({_LOCK})"  # our own two words
        )
        self._alone = alone
        self._connection: AsyncConnection | None = None
        self._said = False

    async def begin(self, patience: timedelta) -> None:
        deadline = time.monotonic() + (patience.total_seconds() if self._alone else 0)
        while not await self._take():
            if time.monotonic() >= deadline:
                if self._alone:
                    raise DatabaseInUseError(_IN_USE)
                self._say()
                return
            await asyncio.sleep(_STEP_SECONDS)

    async def hold(self) -> None:
        """Keep the session alive, and take the claim again where it was lost, for example by a restart of the server."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                if self._connection is not None:
                    await self._connection.execute(text("select 1"))
                elif not await self._take():
                    self._say()
            except (DBAPIError, OSError):
                await self.drop()

    async def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError, OSError):
                await connection.close()

    async def _take(self) -> bool:
        connection = await self._engine.connect()
        try:
            taken = bool((await connection.execute(self._statement)).scalar_one())
        except BaseException:
            with suppress(DBAPIError, OSError):
                await connection.close()
            raise
        if taken:
            self._connection = connection
        else:
            await connection.close()
        return taken

    def _say(self) -> None:
        if not self._said:
            self._said = True
            _log.warning("storage.not_alone", message=_IN_USE)
