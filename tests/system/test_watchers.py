"""Watchers, while what they watch through is cut, killed and replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack

import pytest
from disconnects import disconnects
from processes import cluster, free_port

from nanobatch_client import Client
from nanobatch_client.models import ResultUpdate
from nanobatch_runtime.testing import eventually


@pytest.mark.timeout(300)  # a quarter of a minute on a machine of its own
async def test_hundreds_of_cuts_and_switches_leave_no_gap_and_no_repeat(tmp_path):
    outcome = await disconnects(tmp_path, seed=1, count=200, prompts=30, calm=0.1)
    print(outcome)
    assert outcome.disconnects >= 200
    assert outcome.switches


async def test_watchers_of_a_killed_gateway_go_on_at_the_other_within_two_seconds(tmp_path):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with cluster(tmp_path, NANOBATCH_SANDBOX_DELAY="0.3") as services:
        services.storage()
        services.generator("generator", at=services.generator_target)
        gateways = [
            services.gateway(f"gateway-{n}", NANOBATCH_GATEWAY_GRPC=address) for n, address in enumerate(addresses)
        ]
        target = "ipv4:" + ",".join(addresses)
        heard: list[dict[str, list[tuple[int, float]]]] = [{} for _ in range(10)]

        async def follow(client: Client, execution_id: str, seen: dict[str, list[tuple[int, float]]]) -> None:
            async for update in client.watch(execution_id):
                if isinstance(update, ResultUpdate) and update.result.state.is_final:
                    seen.setdefault(update.result.id, []).append((update.revision, time.monotonic()))

        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(Client(target)) for _ in heard]
            await eventually(lambda: _ready(clients[0]), within=40)
            execution = await clients[0].create_execution([f"prompt {n}" for n in range(80)], model="sandbox")
            async with asyncio.TaskGroup() as tasks:
                for client, seen in zip(clients, heard, strict=True):
                    tasks.create_task(follow(client, execution.id, seen))
                await eventually(lambda: all(len(seen) > 10 for seen in heard), within=40)
                os.kill(gateways[0].pid, signal.SIGKILL)
                killed = time.monotonic()
        for seen in heard:
            assert len(seen) == 80
            assert all(len(times) == 1 for times in seen.values())
            after = min(at for [(_, at)] in seen.values() if at > killed)
            assert after - killed < 2


async def _ready(client: Client) -> bool:
    try:
        _ = [execution async for execution in client.list_executions()]
    except Exception:  # noqa: BLE001  # not yet
        return False
    return True
