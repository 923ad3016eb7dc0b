"""Pictures that are made by tasks: submitted once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio

from processes import cluster

from nanobatch_client.models import ExecutionState
from nanobatch_runtime.testing import eventually

WINDOW = 8


async def test_a_killed_generators_tasks_are_asked_for_by_another_and_never_submitted_again(
    tmp_path, postgres_server, connect
):
    name = postgres_server.create()
    with cluster(
        tmp_path,
        NANOBATCH_DATABASE_URL=postgres_server.url(name),
        NANOBATCH_LEASE_SECONDS="2",
        NANOBATCH_GENERATOR_CONCURRENCY="2",
        NANOBATCH_CREDENTIAL_WINDOW=str(WINDOW),
        NANOBATCH_SANDBOX_DELAY="0",
    ) as services:
        services.storage(), services.gateway()
        one = services.generator("one")
        client = await connect(services.target)
        execution = await client.create_execution([f"[task:6] boat {n}" for n in range(WINDOW)], model="sandbox")

        def out():
            with postgres_server.connect(name) as connection:
                return connection.execute(
                    "select count(*) from attempts where charged is null and job_id is not null"
                ).fetchall() == [(WINDOW,)]

        # More tasks are out than the generator has slots: a task takes none.
        await eventually(lambda: asyncio.to_thread(out), within=40)
        one.kill()
        await asyncio.to_thread(one.wait)
        two = services.generator("two")

        async def done():
            return (await client.get_execution(execution.id)).state is ExecutionState.COMPLETED

        await eventually(done, within=40)
        two.terminate()
        assert await asyncio.to_thread(two.wait, 30) == 0
        await client.__aexit__(None, None, None)
    with postgres_server.connect(name) as connection:
        assert connection.execute("select count(*) from jobs").fetchall() == [(WINDOW,)]
        ended = connection.execute("select outcome, charged, count(*) from attempts group by 1, 2").fetchall()
    assert ended == [("COMPLETED", "YES", WINDOW)]
