"""The migrated schema is the one that the code speaks of."""

from __future__ import annotations

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from nanobatch_runtime.errors import UnavailableError
from nanobatch_storage import migrate
from nanobatch_storage.adapters.tables import metadata


async def test_migrations_make_exactly_the_schema_of_the_code(database):
    def compare(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with database.engine.connect() as connection:
        assert await connection.run_sync(compare) == []


async def test_partial_indexes_keep_their_conditions(database):
    query = (
        "select sql from sqlite_master where type = 'index'"
        if database.is_sqlite
        else "select indexdef from pg_indexes"
    )
    async with database.engine.connect() as connection:
        definitions = " ".join(str(row[0]) for row in await connection.execute(text(query)) if row[0])
    for condition in ("ready_at", "expire_time", "request_id", "charged", "outcome", "is_default"):
        assert condition in definitions.lower().split("where", 1)[1]


async def test_migrating_again_changes_nothing(database_url):
    await migrate.upgrade(database_url)
    await migrate.upgrade(database_url)


async def test_many_may_migrate_an_empty_postgres_at_once(postgres_server):
    name = postgres_server.create()
    try:
        await asyncio.gather(*(migrate.upgrade(postgres_server.url(name)) for _ in range(4)))
    finally:
        postgres_server.drop(name)


async def test_a_database_that_is_not_there_is_said_to_be_unavailable(tmp_path):
    with pytest.raises(UnavailableError):
        await migrate.upgrade("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(UnavailableError):
        await migrate.upgrade(f"sqlite:///{tmp_path}/no/such/folder/file.db")
