from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nanobatch.generator.v1 import generator_service_pb2 as pb
from nanobatch.storage.v1 import common_pb2, lease_service_pb2
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.status import from_rpc_error
from nanobatch_runtime.testing import eventually


async def test_what_was_not_begun_is_given_back_and_what_runs_may_end(house):
    """One result waits for its reference picture, one is at the provider: the first goes back, the second is finished."""
    house.storage.image_gate = asyncio.Event()
    house.provider.hold = asyncio.Event()
    [waiting], [running] = house.storage.add(reference_image_ids=["x"]), house.storage.add()
    async with house.generator(drain_seconds=10) as app:
        await eventually(lambda: house.provider.running == 1 and waiting.state == "PROCESSING")
        draining = asyncio.create_task(app.drain())
        await eventually(lambda: house.storage.released == [waiting.lease.result_id])
        house.storage.add()
        house.provider.hold.set()
        await asyncio.wait_for(draining, 5)
    assert running.state == "COMPLETED"
    assert len(house.provider.requests) == 1


async def test_a_call_that_outlasts_the_grace_is_aborted_and_told_as_maybe_charged(house):
    house.provider.hold = asyncio.Event()
    [row] = house.storage.add()
    async with house.generator(drain_seconds=0.2) as app:
        await eventually(lambda: house.provider.running == 1)
        started = time.monotonic()
        await app.drain()
        assert time.monotonic() - started < 2
    assert house.provider.aborted == 1
    assert row.state == "FAILED"
    assert lease_service_pb2.FailureClass.Name(row.failure.failure_class) == "FAILURE_CLASS_UNKNOWN"
    assert (row.failure.code, row.failure.charged) == ("STOPPED", 3)


async def test_health_says_no_and_watches_end_resumably(house, user):
    [row] = house.storage.add()
    house.provider.hold = asyncio.Event()
    async with house.generator(drain_seconds=5) as app, house.stub() as stub:
        call = stub.WatchProgress(
            pb.WatchProgressRequest(actor=common_pb2.Actor(user_id=user), execution_id=house.storage.execution_id)
        )
        await eventually(lambda: house.provider.running == 1)
        revisions = [(await call.read()).update.revision]
        while revisions[-1] < house.storage.revision:
            revisions.append((await call.read()).update.revision)
        async with open_channel(f"unix:{house.folder}/generator.sock") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1
            draining = asyncio.create_task(app.drain())
            try:
                while await call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as error:
                ended = from_rpc_error(error)
            assert (ended.kind.name, ended.reason) == ("UNAVAILABLE", "WATCH_MOVED")
            assert ended.metadata["revision"] == str(revisions[-1])
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == 2
        house.provider.hold.set()
        await draining
    assert row.state == "COMPLETED"


async def test_the_process_serves_a_prompt_and_sigterm_ends_it_with_0(house):
    [row] = house.storage.add(provider="sandbox", prompt="a process of its own")
    environment = {
        "PATH": os.environ["PATH"],
        "NANOBATCH_GENERATOR_GRPC": f"unix:{house.folder}/generator.sock",
        "NANOBATCH_STORAGE_TARGET": house.target,
        "NANOBATCH_DATA_DIR": str(house.folder / "data"),
        "NANOBATCH_SANDBOX_DELAY": "0",
        "ENCRYPTION_KEY": "00112233445566778899aabbccddeeff" * 2,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nanobatch_generator.main", env=environment, stderr=subprocess.PIPE
    )
    try:
        await eventually(lambda: row.state == "COMPLETED", within=30)
        process.send_signal(signal.SIGTERM)
        _, stderr = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, stderr.decode()
    assert b"a process of its own" not in stderr
    assert b"Traceback" not in stderr
    assert house.spooled == []


STOPPED_AT_START = """
import os, signal, sys
from nanobatch_generator import main
main.settle_garbage_collector = lambda: os.kill(os.getpid(), signal.SIGTERM)  # it leases already
sys.exit(main.main())
"""


async def test_whoever_is_told_to_stop_while_it_starts_drains_as_well(house):
    environment = {
        "PATH": os.environ["PATH"],
        "NANOBATCH_GENERATOR_GRPC": f"unix:{house.folder}/generator.sock",
        "NANOBATCH_STORAGE_TARGET": house.target,
        "NANOBATCH_DATA_DIR": str(house.folder / "data"),
        "ENCRYPTION_KEY": "00112233445566778899aabbccddeeff" * 2,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STOPPED_AT_START, env=environment, stderr=subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, stderr.decode()
    assert b"generator.stopped" in stderr


async def test_a_missing_key_is_named_at_start():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nanobatch_generator.main", env={"PATH": os.environ["PATH"]}, stderr=subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert b"ENCRYPTION_KEY" in stderr
    assert b"Traceback" not in stderr
