"""PostgreSQL that hangs, drops its connections or has none left: waits are bounded, and nothing is written twice."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import make_url

from nanobatch_storage.adapters import batches, engine_postgres
from nanobatch_storage.adapters.database import Database, DatabaseUnavailableError, open_database
from nanobatch_storage.adapters.engine_postgres import PostgresEngine, connection_arguments
from nanobatch_storage.adapters.prepared import Prepared
from nanobatch_storage.adapters.tables import secrets


@pytest.fixture
def url(postgres_url):
    yield postgres_url
    with outside(postgres_url) as connection:
        connection.execute("drop function if exists end_session cascade")
        connection.execute("delete from secrets")


@contextmanager
def outside(url):
    """A session of somebody else."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def end_all_sessions(url):
    with outside(url) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


async def put(tx, name="x"):
    await tx.connection.execute(insert(secrets), {"name": name, "record": {}})


async def names(database):
    async with database.read() as tx:
        return [row.name for row in await tx.connection.execute(select(secrets.c.name).order_by(secrets.c.name))]


def test_what_the_url_says_of_the_connection_is_kept():
    url = make_url(
        "postgresql+psycopg://u@h/d?application_name=mine&connect_timeout=2"
        "&options=-c%20search_path%3Dqueue%20-c%20nanobatch.acts_for%3Deverybody"
    )
    arguments = connection_arguments(url)
    assert "-c search_path=queue" in arguments["options"]
    assert "statement_timeout" in arguments["options"]
    assert not {"application_name", "connect_timeout"} & set(arguments)
    # But for whom it acts: that is nobody's to choose.
    assert connection_arguments(url, "nobody")["options"].endswith("-c nanobatch.acts_for=nobody")


async def test_every_session_has_its_limits_and_says_whose_it_is(url):
    async with open_database(url) as database:

        async def settings(tx):
            query = text(
                "select name, setting from pg_settings where name like '%timeout' or name = 'application_name'"
            )
            return dict((await tx.connection.execute(query)).all())

        async with database.read() as tx:
            for found in (await settings(tx), await database.write(settings)):
                assert found["statement_timeout"] == "15000"
                assert found["lock_timeout"] == "5000"
                assert found["idle_in_transaction_session_timeout"] == "15000"
                assert found["application_name"] == "nanobatch-storage"


async def test_connections_that_died_in_the_pool_are_replaced_unseen(url):
    async with open_database(url) as database:
        await asyncio.gather(*(names(database) for _ in range(8)))
        end_all_sessions(url)
        assert await asyncio.gather(*(names(database) for _ in range(8))) == [[]] * 8
        end_all_sessions(url)
        await database.write(put)
        assert await names(database) == ["x"]
        assert database._engine._engine.pool.checkedout() == 0


async def test_a_transaction_that_loses_its_connection_begins_anew(url):
    runs = []

    async def work(tx):
        runs.append(1)
        await put(tx)
        if len(runs) == 1:
            await asyncio.to_thread(end_all_sessions, url)
        await put(tx, "y")

    async with open_database(url) as database:
        await database.write(work)
        assert await names(database) == ["x", "y"]
    assert len(runs) == 2


async def test_a_transaction_whose_commit_got_no_answer_is_not_repeated_behind_its_callers_back(url):
    with outside(url) as connection:
        connection.execute(
            "create function end_session() returns trigger language plpgsql as"
            " 'begin perform pg_terminate_backend(pg_backend_pid()); return null; end'"
        )
        connection.execute(
            "create constraint trigger at_commit after insert on secrets deferrable initially deferred"
            " for each row execute function end_session()"
        )
    runs = []

    async def work(tx):
        runs.append(1)
        await put(tx)

    async with open_database(url) as database:
        with pytest.raises(DatabaseUnavailableError):
            await database.write(work)
        assert len(runs) == 1
        assert await names(database) == []
        assert database._engine._engine.pool.checkedout() == 0


async def test_a_row_that_somebody_holds_makes_wait_and_no_longer_than_told(url):
    async with open_database(f"{url}?options=-c%20lock_timeout%3D100") as database:
        await database.write(put)
        with outside(url) as other:
            other.execute("begin")
            other.execute("update secrets set record = '{}'")
            change = asyncio.create_task(
                database.write(lambda tx: tx.connection.execute(text("update secrets set name = 'y'")))
            )
            await asyncio.sleep(0.3)  # three times its limit: it has failed and come again
            assert not change.done()
            other.execute("commit")
        await change
        assert await names(database) == ["y"]


async def test_who_finds_no_free_connection_waits_for_a_while_and_is_told(url):
    database = Database(PostgresEngine(make_url(url), pool_size=1, wait_seconds=0.2))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(tx):
        begun.set()
        await go_on.wait()

    holder = asyncio.create_task(database.write(hold))
    await begun.wait()
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        await names(database)
    with pytest.raises(DatabaseUnavailableError):
        await database.write(put)
    assert time.monotonic() - started < 5
    go_on.set()
    await holder
    await database.write(put)
    assert await names(database) == ["x"]
    await database.close()


async def test_calls_go_past_a_batch_that_waits_for_somebodys_lock(url, monkeypatch):
    monkeypatch.setattr(batches, "_HELD_UP", 0.01)

    begun = asyncio.Event()

    async def work(tx, keys):
        begun.set()
        for key in keys:
            await put(tx, key)
        return keys

    async with open_database(url) as database:
        together = batches.Batches(database, batches.in_transaction(database, work))
        with outside(url) as somebody:
            somebody.execute("begin")
            somebody.execute("insert into secrets (name, record) values ('held', '{}')")
            held = asyncio.ensure_future(together.do("held"))
            await begun.wait()
            assert await together.do("free") == "free"
            assert not held.done()
            somebody.execute("rollback")
        assert await held == "held"
        assert await names(database) == ["free", "held"]


async def test_a_connection_that_is_lost_in_the_rollback_of_a_failure_is_a_lost_connection(url, monkeypatch):
    runs = []

    def lose(connection, error, sql):
        connection.connection.driver_connection.pgconn.finish()
        raise ValueError("Invalid file descriptor: -1")

    broken = Prepared(select(func.pg_advisory_xact_lock(text("'no number'"))))

    async def work(tx):
        runs.append(1)
        if len(runs) == 1:
            monkeypatch.setattr(engine_postgres, "raise_told", lose)
            await tx.connection.execute(broken)
        monkeypatch.undo()
        await put(tx, "y")

    async with open_database(url) as database:
        await database.write(work)
        assert await names(database) == ["y"]
    assert len(runs) == 2


async def test_a_statement_that_is_cancelled_while_nobody_answers_leaves_no_connection_behind(url, caplog):
    async with open_database(url) as database:
        async with asyncio.timeout(5):
            async with database.read() as tx:
                tx.connection._driver.pgconn.finish()  # as the driver does where the server does not hear of the cancel
        assert await names(database) == []
    assert caplog.records == []
