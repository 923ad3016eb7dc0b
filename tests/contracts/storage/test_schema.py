"""The migrated schema is the one that the code speaks of."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine, text

from nanobatch_runtime.errors import UnavailableError
from nanobatch_storage import migrate
from nanobatch_storage.adapters.tables import metadata


@pytest.fixture
def connection(database_url):
    with create_engine(database_url, poolclass=NullPool).connect() as opened:
        yield opened


# Kept by PostgreSQL itself and written by nobody; on SQLite there is a view instead (docs/adr/0024).
POSTGRESQL_ALONE = {
    *("active_executions", "ix_active_executions_bucket_id", "ix_active_executions_user_id"),
    *("row_key", "epoch", "ix_executions_newest"),
}


def test_migrations_make_exactly_the_schema_of_the_code(connection):
    def is_for_both(_object, name, *_):
        return name not in POSTGRESQL_ALONE

    options = {"compare_type": True, "include_object": is_for_both}
    assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


async def test_active_executions_are_those_that_may_have_calls_out_or_to_come(store):
    """Kept by triggers, row by row, whoever writes; a view on SQLite."""
    execution = await store.execution(await store.user(), 1)
    other = await store.paid(await store.user(), 1)

    async def after(change):
        async def work(tx):
            await tx.connection.execute(text(f"update executions set {change} where id = '{execution.id}'"))
            asked = f"select bucket_id, user_id from active_executions where execution_id = '{execution.id}'"
            return [tuple(row) for row in await tx.connection.execute(text(asked))]

        return await store.database.write(work)

    active = [(execution.bucket_id, execution.user_id)]
    assert await after("own_revision = own_revision") == active  # as it was made
    assert await after("state = 'PAUSED'") == []
    assert await after("open_attempts = 1") == active
    moved = [(other.bucket_id, execution.user_id)]
    assert await after(f"bucket_id = '{other.bucket_id}', revision = revision + 100") == moved
    async with store.database.read() as tx:
        asked = f"select bucket_id, open_attempts from live_executions where id = '{execution.id}'"
        assert [tuple(row) for row in await tx.connection.execute(text(asked))] == [(other.bucket_id, 1)]
    assert await after("state = 'CANCELLED', processing = 1, open_attempts = 0") == moved
    assert await after("processing = 0") == []
    assert await after("state = 'PENDING'") == moved

    async def gone(tx):
        await tx.connection.execute(text(f"delete from executions where id = '{execution.id}'"))

    await store.database.write(gone)
    assert await after("pending = 0") == []


def test_partial_indexes_keep_their_conditions(connection):
    sqlite = connection.dialect.name == "sqlite"
    query = "select sql from sqlite_master where type = 'index'" if sqlite else "select indexdef from pg_indexes"
    definitions = [row[0].lower() for row in connection.execute(text(query)) if row[0]]
    conditions = {definition.split(" where ", 1)[1] for definition in definitions if " where " in definition}
    for word in ("pending", "processing", "expire_time", "request_id", "charged", "outcome", "is_default", "active"):
        assert any(word in condition for condition in conditions), word


async def test_migrating_again_changes_nothing(database_url):
    await migrate.upgrade(database_url)
    await migrate.upgrade(database_url)


async def test_a_migrator_that_finds_the_database_busy_comes_again_for_a_while(postgres_url, monkeypatch):
    monkeypatch.setattr(migrate, "_WAIT_FOR_OTHERS", "50ms")
    engine = create_engine(postgres_url, poolclass=NullPool)
    try:
        with engine.connect() as other:
            other.execute(text("select pg_advisory_lock(:lock)"), {"lock": migrate._LOCK})
            with pytest.raises(migrate.MigrationBusyError):
                await migrate.upgrade(postgres_url, patience=timedelta(0))
            waiting = asyncio.create_task(migrate.upgrade(postgres_url))
            await asyncio.sleep(0.3)  # some tries
            assert not waiting.done()
        await asyncio.wait_for(waiting, 30)
    finally:
        engine.dispose()


async def test_the_numbers_in_the_names_of_migrations_are_those_that_alembic_goes_by(tmp_path):
    """Whether there is anything to do is read from names, without Alembic."""
    url = f"sqlite:///{tmp_path / 'made.db'}"
    await migrate.upgrade(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert {script.revision for script in scripts.walk_revisions()} == migrate._known()
    assert await migrate.standing(url) == (scripts.get_current_head(), scripts.get_current_head())


def test_what_only_some_starts_need_is_not_loaded_by_the_others(tmp_path):
    """Alembic where the schema is as it should be, a client of Redis where there is none: 10 MB of a process each."""
    url = f"sqlite:///{tmp_path / 'current.db'}"
    asyncio.run(migrate.upgrade(url))
    code = (
        "import asyncio, sys; from nanobatch_storage import main, migrate;"
        f"asyncio.run(migrate.upgrade({url!r}));"
        "import nanobatch_gateway.main, nanobatch_generator.main;"
        "print(*sorted({'alembic', 'mako', 'redis', 'opentelemetry.sdk', 'google.genai'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == []


async def test_the_version_before_starts_on_a_database_of_the_version_after(database_url):
    """So that a roll-back of the code works: what a later migration added is none of its business."""
    engine = create_engine(database_url, poolclass=NullPool)
    newest = (await migrate.standing(database_url))[1]
    try:
        with engine.begin() as opened:
            opened.execute(text("update alembic_version set version_num = '9999'"))
        await migrate.upgrade(database_url)
        assert await migrate.standing(database_url) == ("9999", newest)
    finally:
        with engine.begin() as opened:
            opened.execute(text("update alembic_version set version_num = :newest"), {"newest": newest})


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
