"""Prompts that kill whoever calls for them, among others that must not suffer: real processes on PostgreSQL."""

from __future__ import annotations

import asyncio

from processes import cluster

from nanobatch_client.models import ExecutionState, ResultState
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.testing import eventually


async def test_poison_fails_alone_and_no_innocent_with_it(tmp_path, postgres_server, connect):
    name = postgres_server.create()
    with cluster(
        tmp_path,
        NANOBATCH_DATABASE_URL=postgres_server.url(name),
        NANOBATCH_LEASE_SECONDS="2",
        NANOBATCH_GENERATOR_CONCURRENCY="6",
        NANOBATCH_SANDBOX_DELAY="0.1",
        NANOBATCH_SANDBOX_CRASH="1",
    ) as services:
        services.storage(), services.gateway()
        keepers = [asyncio.create_task(kept_running(services, name)) for name in ("one", "two")]
        client = await connect(services.target)
        prompts = [f"boat {n}" for n in range(62)]
        prompts[5] = prompts[33] = "[crash] poison"
        execution = await client.create_execution(prompts, model="sandbox")
        done = await asyncio.wait_for(ended(client, execution.id), 90)
        results = [result async for result in client.list_results(execution.id)]
        for keeper in keepers:
            await cancel(keeper)
        await client.__aexit__(None, None, None)

    assert (done.state, done.stats.completed, done.stats.failed) == (ExecutionState.COMPLETED, 60, 2)
    failed = [result for result in results if result.state is ResultState.FAILED]
    assert [(result.batch_index, result.error.code) for result in failed] == [(5, "WORKER_LOST"), (33, "WORKER_LOST")]
    # Two whole generators and one process alone. The other one kills two generators as well: where it was in flight there
    # each time, be it alone in a spare process by then, that makes two more.
    attempts = [result.attempts for result in failed]
    assert min(attempts) >= 3, attempts
    assert max(attempts) <= 5, attempts
    with postgres_server.connect(name) as connection:
        rows = connection.execute("select outcome, count(*) from attempts where outcome <> 'RELEASED' group by 1")
        calls = dict(rows.fetchall())
        ((crashes,),) = connection.execute("select sum(crashes) from results").fetchall()
    # Every call is explained: a picture each, two deaths alone, and what died with the generators.
    assert calls == {"COMPLETED": 60, "WORKER_LOST": 2, "CRASHED": crashes - 2}


async def kept_running(services, name):
    while True:
        process = services.generator(name)
        await asyncio.to_thread(process.wait)


async def ended(client, execution_id):
    async def final():
        return (await client.get_execution(execution_id)).state in {ExecutionState.COMPLETED, ExecutionState.FAILED}

    await eventually(final, within=85)
    return await client.get_execution(execution_id)
