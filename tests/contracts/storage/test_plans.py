"""What the queue's statements read, by PostgreSQL's own counters: the planner is free, its choices must not be bad ones."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from queue_road import PLANNERS, SLOTS, roads, with_options
from queue_seed import seed

from nanobatch_storage import migrate

WATCHED = ("results", "attempts")


@pytest.fixture(scope="module", params=["fresh", "stale"])
def large_url(request, postgres_server):
    """100,000 waiting results; the statistics are of them, or of a hundred."""
    name = postgres_server.create()
    url = postgres_server.url(name)
    asyncio.run(migrate.upgrade(url))
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for table in (*WATCHED, "executions"):
            connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
        if request.param == "fresh":
            seed(url, pending=100_000, past=20_000)
        else:
            seed(url, pending=100, executions=10, past=100)
            connection.execute("truncate users, buckets, active_executions cascade")
            seed(url, pending=100_000, past=20_000, analyze=False)
    yield url
    postgres_server.drop(name)


def scans(url):
    """Return how often each table was read from end to end; sessions that have ended are counted."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute("select relname, seq_scan from pg_stat_user_tables").fetchall()
    return {name: count for name, count in found if name in WATCHED}


@pytest.mark.parametrize("planner", PLANNERS)
async def test_nothing_on_the_road_of_a_picture_reads_a_whole_table(large_url, planner):
    before = scans(large_url)
    walked = await roads(with_options(large_url, PLANNERS[planner]), 3)
    assert [leased for leased, _ in walked] == [SLOTS] * 3  # as many as asked for
    assert scans(large_url) == before
