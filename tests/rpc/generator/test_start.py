"""A generator that starts before storage."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import LIVE
from nanobatch_runtime.testing import eventually


async def says(channel: grpc.aio.Channel, name: str) -> str:
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_it_lives_at_once_and_is_ready_from_when_it_has_met_storage(house, start_storage):
    await house.server.server.stop(None)
    async with house.generator() as app, open_channel(f"unix:{house.folder}/generator.sock") as channel:
        assert (await says(channel, LIVE), await says(channel, "")) == ("SERVING", "NOT_SERVING")
        assert not app.server.serving
        house.server = await start_storage(house.storage, house.target)
        await eventually(lambda: app.server.serving)
        assert await says(channel, "") == "SERVING"
        await eventually(lambda: house.storage.calls["LeaseResults"])
        await house.server.server.stop(None)  # what fails later is told by its error: docs/adr/0017
        assert (await says(channel, LIVE), await says(channel, "")) == ("SERVING", "SERVING")


async def test_a_stop_before_storage_was_met_is_the_end_of_it(house, start_storage):
    await house.server.server.stop(None)
    async with house.generator() as app:
        await app.drain()
        house.server = await start_storage(house.storage, house.target)
    assert not app.server.serving
    assert not house.storage.calls["LeaseResults"]
