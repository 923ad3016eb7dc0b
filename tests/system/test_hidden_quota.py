"""A quota that nobody is told, shared by two generators: nothing fails for it, and who watches is told why it waits."""

from __future__ import annotations

import asyncio
from collections import Counter

from postgres_server import private_postgres
from processes import NANOBATCH, bare_environment, cluster, upstream

from nanobatch_client.models import ExecutionState, ProgressUpdate, WaitReason
from nanobatch_runtime.testing import eventually

MODEL, KEY = "gemini-2.5-flash-image", "a-provider-key-for-tests"
CALLS, SECONDS, PROMPTS = 15, 6, 60


async def test_two_generators_share_a_hidden_quota_and_everybody_is_told_why_it_waits(tmp_path, connect):
    quota = ["--quota", f"window:{CALLS}:{SECONDS}"]
    with (
        private_postgres() as server,
        upstream(tmp_path, picture_bytes=20_000, latency="0.3", more=quota) as fake,
        cluster(tmp_path, NANOBATCH_DATABASE_URL=server.url(server.create())) as services,
    ):
        services.storage(), services.gateway()
        services.generator("one", f"{fake.url}/one", at=services.generator_target)
        services.generator("two", f"{fake.url}/two")
        client = await connect(services.target)
        execution = await client.create_execution(["a prompt"] * PROMPTS, model=MODEL, api_key=KEY)
        watching = asyncio.create_task(told(client, execution.id))
        shell = await asyncio.create_subprocess_exec(
            NANOBATCH, "watch", execution.id, "--target", services.target,
            env=bare_environment(tmp_path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

        async def paced() -> bool:
            last = [result async for result in client.list_results(execution.id)][-1]
            return last.waiting is not None and last.waiting.until is not None

        await eventually(paced, within=60)
        waits = await asyncio.wait_for(watching, 180)
        lines = (await shell.communicate())[0].decode()
        ended = await client.get_execution(execution.id)
        await client.__aexit__(None, None, None)
    calls = fake.calls()
    statuses = Counter(call["status"] for call in calls)
    assert (ended.state, ended.stats.completed, ended.stats.failed) == (ExecutionState.COMPLETED, PROMPTS, 0)
    assert statuses[200] == PROMPTS
    assert 1 <= statuses[429] <= 12  # of 72 at most: two or three bursts until the period is known
    assert {call["caller"] for call in calls} == {"one", "two"}
    assert waits[WaitReason.RATE_LIMITED] >= 1
    assert "waiting: " in lines
    assert ", until " in lines


async def told(client, execution_id: str) -> Counter[WaitReason]:
    """Return how often which reason to wait came, with its time, until the execution had ended."""
    reasons: Counter[WaitReason] = Counter()
    async for update in client.watch(execution_id):
        if isinstance(update, ProgressUpdate) and update.progress.waiting and update.progress.waiting.until:
            reasons[update.progress.waiting.reason] += 1
    return reasons
