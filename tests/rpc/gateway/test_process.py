"""The gateway as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from typing import Any

import grpc
import pytest

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1 import execution_service_pb2_grpc
from nanobatch_runtime.keyring import Keyring
from nanobatch_runtime.rpc.channel import open_channel

KEY = "0123456789abcdef" * 4
OTHER_KEY = "fedcba9876543210" * 4


async def start(world: Any, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nanobatch_gateway.main",
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(world.uploads),
            "ENCRYPTION_KEY": KEY,
            "NANOBATCH_GATEWAY_GRPC": "127.0.0.1:0",
            "NANOBATCH_GATEWAY_HTTP": "127.0.0.1:0",
            "NANOBATCH_STORAGE_TARGET": world.storage.address,
            "NANOBATCH_GENERATOR_TARGET": world.generator.address,
            **environment,
        },
    )


async def line_with(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(30):
        while line := (await process.stderr.readline()).decode():
            if words in line:
                return line
    raise AssertionError(words)


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_on_sigterm_it_ends_its_watches_resumably_and_exits_0(idle_world, refused) -> None:
    world = idle_world
    await world.storage.start()
    await world.generator.start()
    execution_id = world.storage.new_execution()
    await world.storage.journals[execution_id].add(3)
    process = await start(world)
    try:
        found = re.search(r"127\.0\.0\.1:\d+", await line_with(process, "gateway.listening"))
        assert found
        await line_with(process, "gateway.storage_met")
        async with open_channel(found[0]) as channel:
            stub: Any = execution_service_pb2_grpc.ExecutionServiceStub(channel)
            call = stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id), wait_for_ready=True)
            while (await call.read()).revision < 3:
                pass
            process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert refused(caught.value).reason == "WATCH_MOVED"
            assert refused(caught.value).metadata == {"revision": "3"}
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        assert not list(world.uploads.iterdir())
    finally:
        await end(process)


async def test_an_encryption_key_that_does_not_fit_ends_the_process_and_says_so(idle_world) -> None:
    world = idle_world
    await world.storage.start()
    first = await start(world)
    try:
        await line_with(first, "gateway.storage_met")
    finally:
        await end(first)
    second = await start(world, ENCRYPTION_KEY=OTHER_KEY)
    try:
        line = await line_with(second, "gateway.cannot_serve")
        assert Keyring.parse(KEY).key_ids[0] in line
        assert KEY not in line
        async with asyncio.timeout(10):
            assert await second.wait() == 1
    finally:
        await end(second)


async def test_a_wrong_environment_is_told_without_a_trace(idle_world) -> None:
    process = await start(idle_world, NANOBATCH_AUTH="nobody", ENCRYPTION_KEY="short")
    try:
        assert process.stderr is not None
        text = (await process.stderr.read()).decode()
        assert await process.wait() == 2
    finally:
        await end(process)
    assert "NANOBATCH_AUTH: " in text
    assert "ENCRYPTION_KEY: " in text
    assert "Traceback" not in text


async def test_a_taken_port_is_told_without_a_trace(world) -> None:
    process = await start(world, NANOBATCH_GATEWAY_GRPC=world.app.address)
    try:
        await line_with(process, "ADDRESS_IN_USE")
        async with asyncio.timeout(10):
            assert await process.wait() == 1
    finally:
        await end(process)
