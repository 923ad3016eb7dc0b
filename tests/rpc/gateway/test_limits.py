"""Users' limits as a client meets them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch_runtime.testing import eventually


def retry_after(error: grpc.aio.AioRpcError) -> float:
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(error).details)
    return retry.retry_delay.ToTimedelta().total_seconds()


async def opened(world, stack) -> None:
    await world.storage.start()
    await world.generator.start()
    await world.open(stack)


async def test_who_calls_too_often_is_told_when_to_come_again_and_nothing_reaches_storage(
    idle_world, refused, monkeypatch
):
    monkeypatch.setenv("NANOBATCH_LIMIT_READ", "3")
    async with AsyncExitStack() as stack:
        await opened(idle_world, stack)
        stub = idle_world.executions
        for _ in range(3):
            await stub.ListExecutions(pb.ListExecutionsRequest())
        asked = len(idle_world.storage.asked)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListExecutions(pb.ListExecutionsRequest())
        error = refused(caught.value)
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.reason == "TOO_MANY_CALLS"
        assert error.metadata == {"class": "read", "limit": "3"}
        assert 0 < retry_after(caught.value) <= 120
        assert len(idle_world.storage.asked) == asked

        for _ in range(5):  # what anybody may call is not counted
            await health_pb2_grpc.HealthStub(idle_world.channel).Check(health_pb2.HealthCheckRequest())


async def test_a_stream_is_refused_as_a_unary_call_is(idle_world, refused, monkeypatch):
    monkeypatch.setenv("NANOBATCH_LIMIT_WATCH", "1")
    async with AsyncExitStack() as stack:
        await opened(idle_world, stack)
        codes = []
        for _ in range(2):
            call = idle_world.executions.WatchExecution(pb.WatchExecutionRequest(execution_id="x"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            codes.append(refused(caught.value).reason)
        assert codes == ["INVALID_REQUEST", "TOO_MANY_CALLS"]


async def test_watches_open_at_a_time_are_bounded(idle_world, refused, monkeypatch):
    monkeypatch.setenv("NANOBATCH_LIMIT_STREAMS", "1")
    async with AsyncExitStack() as stack:
        await opened(idle_world, stack)
        created = await idle_world.executions.CreateExecution(
            pb.CreateExecutionRequest(model="gemini-2.5-flash-image", api_key="a-key-for-tests-only", prompts_text="a")
        )
        request = pb.WatchExecutionRequest(execution_id=created.execution.id)
        first = idle_world.executions.WatchExecution(request)
        await first.read()
        second = idle_world.executions.WatchExecution(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await second.read()
        assert refused(caught.value).reason == "TOO_MANY_WATCHES"
        assert retry_after(caught.value) > 0
        first.cancel()

        async def again() -> bool:
            third = idle_world.executions.WatchExecution(request)
            try:
                await asyncio.wait_for(third.read(), 5)
            except grpc.aio.AioRpcError:
                return False
            third.cancel()
            return True

        await eventually(again)
