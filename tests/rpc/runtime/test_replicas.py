"""Channels and servers where replicas come and go: names that change, connections that age, calls that are repeated."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import grpc
import pytest
from names import Names, name_server
from relay import relayed

from nanobatch.generator.v1 import generator_service_pb2, generator_service_pb2_grpc
from nanobatch.storage.v1 import execution_service_pb2 as pb
from nanobatch.storage.v1 import execution_service_pb2_grpc
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import RpcServer
from nanobatch_runtime.testing import eventually

AGE = timedelta(milliseconds=500)


class Replica(execution_service_pb2_grpc.ExecutionServiceServicer, generator_service_pb2_grpc.GeneratorServiceServicer):
    """Counts who calls; refuses as often as it is told to."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.peers: set[str] = set()
        self.refusals = 0
        self.attempts: list[str] = []

    def _arrive(self, method: str, context: grpc.aio.ServicerContext) -> None:
        self.calls[method] += 1
        self.peers.add(context.peer())
        self.attempts += [value for key, value in context.invocation_metadata() if key == "grpc-previous-rpc-attempts"]
        if self.refusals:
            self.refusals -= 1
            raise UnavailableError("I am going.")

    async def GetLatency(self, request, context):  # noqa: N802  # the contract's name
        self._arrive("GetLatency", context)
        return pb.GetLatencyResponse()

    async def DeleteExecution(self, request, context):  # noqa: N802
        self._arrive("DeleteExecution", context)
        return pb.DeleteExecutionResponse()

    async def WatchProgress(self, request, context):  # noqa: N802
        self._arrive("WatchProgress", context)
        for revision in range(1, 41):
            message = generator_service_pb2.WatchProgressResponse()
            message.update.revision = revision
            yield message
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(address: str, replica: Replica, age: timedelta = AGE) -> AsyncIterator[RpcServer]:
    server = RpcServer(address, [], connection_age=age, longest_stream=timedelta(seconds=10))
    execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server(replica, server.server)
    generator_service_pb2_grpc.add_GeneratorServiceServicer_to_server(replica, server.server)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(timedelta(seconds=5))


@pytest.fixture
async def names() -> AsyncIterator[Names]:
    async with name_server() as made:
        yield made


async def test_new_replicas_get_their_share_of_calls_and_streams_without_a_restart(names, monkeypatch):
    monkeypatch.setattr(options, "_RESOLVE_AT_MOST_EVERY", timedelta(milliseconds=100))
    old, new = Replica(), [Replica(), Replica()]
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving("127.0.0.1:0", old))
        names.addresses = ["127.0.0.1"]
        target = names.target("generators.test", first.port)
        channel = await stack.enter_async_context(open_channel(target))
        stub = generator_service_pb2_grpc.GeneratorServiceStub(channel)

        async def stream() -> None:
            call = stub.WatchProgress(generator_service_pb2.WatchProgressRequest(), timeout=20)
            await call.read()
            call.cancel()

        for _ in range(10):
            await stream()
        assert old.calls["WatchProgress"] == 10
        for number, replica in enumerate(new, 2):
            await stack.enter_async_context(serving(f"127.0.0.{number}:{first.port}", replica))
        names.addresses += ["127.0.0.2", "127.0.0.3"]

        async def all_are_used() -> bool:
            await stream()
            return all(replica.calls for replica in new)

        await eventually(all_are_used, within=20)
        for replica in (old, *new):
            replica.calls.clear()
        for _ in range(60):
            await stream()
        counts = [replica.calls["WatchProgress"] for replica in (old, *new)]
        assert min(counts) > 0.15 * 60, counts


async def test_connections_are_renewed_and_neither_a_call_nor_a_stream_notices():
    replica = Replica()
    async with serving("127.0.0.1:0", replica) as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        executions = execution_service_pb2_grpc.ExecutionServiceStub(channel)
        generators = generator_service_pb2_grpc.GeneratorServiceStub(channel)

        async def stream() -> list[int]:
            call = generators.WatchProgress(generator_service_pb2.WatchProgressRequest(), timeout=30)
            return [message.update.revision async for message in call]

        streams = [asyncio.create_task(stream()) for _ in range(5)]
        calls = 0
        while not all(task.done() for task in streams):  # two seconds: four ages of a connection
            await executions.DeleteExecution(pb.DeleteExecutionRequest(), timeout=10)  # is never made again by itself
            calls += 1
        assert [await task for task in streams] == [list(range(1, 41))] * 5
    assert replica.calls["DeleteExecution"] == calls
    assert len(replica.peers) >= 3


async def test_a_safe_call_is_made_again_at_another_replica_and_no_other_is():
    leaving, staying, age = Replica(), Replica(), timedelta(hours=1)
    async with serving("127.0.0.1:0", leaving, age) as first, serving("127.0.0.1:0", staying, age) as second:
        target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{second.port}"
        async with open_channel(target) as channel:
            stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)
            await eventually(lambda: _both_seen(stub, leaving, staying))
            leaving.refusals = 1_000
            for _ in range(20):
                await stub.GetLatency(pb.GetLatencyRequest(), timeout=10)
            assert "1" in staying.attempts
            before = sum(replica.calls["DeleteExecution"] for replica in (leaving, staying))
            refused = 0
            for _ in range(10):
                try:
                    await stub.DeleteExecution(pb.DeleteExecutionRequest(), timeout=10)
                except grpc.aio.AioRpcError as error:
                    refused += error.code() is grpc.StatusCode.UNAVAILABLE
            assert refused
            assert sum(replica.calls["DeleteExecution"] for replica in (leaving, staying)) == before + 10


async def test_a_replica_that_ends_under_many_calls_fails_none_that_is_safe():
    staying, age, stopped = Replica(), timedelta(hours=1), asyncio.Event()
    async with serving("127.0.0.1:0", staying, age) as other:
        for _ in range(3):
            leaving = Replica()
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(serving("127.0.0.1:0", leaving, age))
                target = f"ipv4:127.0.0.1:{first.port},127.0.0.1:{other.port}"
                channel = await stack.enter_async_context(open_channel(target))
                stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)

                async def ask(stub=stub) -> None:
                    while not stopped.is_set():
                        await stub.GetLatency(pb.GetLatencyRequest(), timeout=10)

                stopped.clear()
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(20):
                        tasks.create_task(ask())
                    await eventually(lambda leaving=leaving: leaving.calls["GetLatency"] >= 40)
                    await first.stop(timedelta(seconds=5))
                    stopped.set()


async def _both_seen(stub, *replicas: Replica) -> bool:
    await stub.GetLatency(pb.GetLatencyRequest(), timeout=10)
    return all(replica.calls for replica in replicas)


async def test_repeats_are_bounded():
    replica = Replica()
    async with serving("127.0.0.1:0", replica) as server, open_channel(f"127.0.0.1:{server.port}") as channel:
        replica.refusals = 1_000
        with pytest.raises(grpc.aio.AioRpcError):
            await execution_service_pb2_grpc.ExecutionServiceStub(channel).GetLatency(
                pb.GetLatencyRequest(), timeout=10
            )
    assert replica.calls["GetLatency"] == 4


async def test_a_connection_may_take_longer_than_the_wait_between_two_tries():
    replica = Replica()
    async with (
        serving("127.0.0.1:0", replica) as server,
        relayed(f"127.0.0.1:{server.port}", seconds=0.5) as port,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        executions = execution_service_pb2_grpc.ExecutionServiceStub(channel)
        await executions.DeleteExecution(pb.DeleteExecutionRequest(), timeout=10)  # is never made again by itself
