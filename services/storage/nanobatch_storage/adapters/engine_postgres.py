"""PostgreSQL through psycopg: pooled, and with time limits, so that nothing waits for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Dialect
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

_LIMITS = "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=15000"


class PostgresEngine:
    """See :class:`nanobatch_storage.adapters.database.SqlEngine`."""

    def __init__(self, url: URL) -> None:
        """Connect when first used."""
        self._engine = create_async_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=10,
            max_overflow=10,
            pool_timeout=10,
            pool_pre_ping=True,
            hide_parameters=True,  # prompts and keys' records do not belong in an error's text, which is logged
            connect_args={"connect_timeout": 5, "options": _LIMITS},
        )

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return self._engine.dialect

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction; committed at the end."""
        async with self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that only reads."""
        async with self._engine.connect() as connection, connection.begin():
            yield connection

    async def dispose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()
