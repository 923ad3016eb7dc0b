"""Who may use a PostgreSQL: one storage without Redis, or any number that have one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy.engine import URL, make_url

from nanobatch_runtime.testing import eventually
from nanobatch_storage.adapters import owner_postgres
from nanobatch_storage.adapters.database import DatabaseUnavailableError
from nanobatch_storage.adapters.owner_flock import DatabaseInUseError

SHORT = timedelta(milliseconds=300)
HOLDERS = "select pid, backend_xmin::text from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory'"


@pytest.fixture
def name(postgres_server) -> Iterator[str]:
    made = postgres_server.create()
    yield made
    postgres_server.drop(made)


@pytest.fixture
def url(postgres_server, name) -> URL:
    return make_url(postgres_server.url(name))


def claiming(url: URL, *, alone: bool):
    return owner_postgres.claiming(url, alone=alone, patience=SHORT)


def holders(server, name: str) -> list[tuple]:
    with server.connect(name) as connection:
        return connection.execute(f"{HOLDERS} and datname = '{name}'").fetchall()


async def refused(url: URL) -> bool:
    try:
        async with claiming(url, alone=True):
            return False
    except DatabaseInUseError:
        return True


async def test_a_second_storage_without_redis_is_refused_until_the_first_has_gone(url):
    async with claiming(url, alone=True):
        with pytest.raises(DatabaseInUseError, match="NANOBATCH_REDIS_URL") as error:
            async with claiming(url, alone=True):
                pass
        assert "\n" not in str(error.value)
    async with claiming(url, alone=True):
        pass


async def test_storages_with_redis_share_it_and_one_without_may_not_join_them(url):
    async with claiming(url, alone=False), claiming(url, alone=False):
        assert await refused(url)


async def test_one_with_redis_may_come_while_the_one_without_is_still_there_and_says_so(url, capfd):
    async with claiming(url, alone=True), claiming(url, alone=False):
        said = capfd.readouterr()
        assert (said.out + said.err).count("storage.not_alone") == 1


async def test_the_claim_of_a_frozen_storage_lapses(url, monkeypatch):
    monkeypatch.setattr(owner_postgres, "_BEAT_SECONDS", 3600)  # as if it stood still
    monkeypatch.setattr(owner_postgres, "_LIMITS", "-c idle_in_transaction_session_timeout=500")
    async with claiming(url, alone=True):
        await eventually(lambda: not_refused(url))


async def not_refused(url: URL) -> bool:
    return not await refused(url)


async def test_a_claim_that_is_lost_with_its_connection_is_taken_again(url, postgres_server, name, monkeypatch):
    monkeypatch.setattr(owner_postgres, "_BEAT_SECONDS", 0.05)
    async with claiming(url, alone=True):
        ((first, _),) = holders(postgres_server, name)
        postgres_server.run(f"select pg_terminate_backend({first})")
        await eventually(lambda: any(pid != first for pid, _ in holders(postgres_server, name)))
        assert await refused(url)


async def test_a_claim_keeps_nothing_from_being_vacuumed(url, postgres_server, name):
    async with claiming(url, alone=True):
        ((_, horizon),) = holders(postgres_server, name)
        assert horizon is None


async def test_a_database_that_is_away_is_no_database_in_use():
    with pytest.raises(DatabaseUnavailableError):
        async with claiming(make_url("postgresql+psycopg://nanobatch@127.0.0.1:9/nothing"), alone=True):
            pass
