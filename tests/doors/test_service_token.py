"""Internal ports open to our own services only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from contract import bearer, call, methods
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import command, free_port
from pydantic import SecretStr

from nanobatch.storage.v1 import account_service_pb2, account_service_pb2_grpc
from nanobatch_generator.adapters.leases_grpc import GrpcLeaseExtender
from nanobatch_generator.domain import LeaseRef, StorageDownError
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.testing import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

INTERNAL = ["nanobatch.storage.v1", "nanobatch.generator.v1"]


@pytest.mark.parametrize("package", INTERNAL)
async def test_every_internal_method_asks_for_the_token(house, package):
    address = house.storage if "storage" in package else house.generator
    _, user_token = await house.user()
    good = house.service_token
    async with open_channel(address) as channel:
        kinds = set()
        for method in methods(package):
            kinds.add((method.descriptor.client_streaming, method.descriptor.server_streaming))
            for metadata in (
                (),
                bearer(good[:-1]),
                bearer(good + "x"),
                bearer(user_token),
                house.admin,
                (("authorization", good),),
                (("authorization", f"Basic {good}"),),
                (*bearer(good), *bearer(good)),
                (("authorization-bin", f"Bearer {good}".encode()),),
            ):
                answer = await call(channel, method, method.request(), metadata=metadata)
                expected = (grpc.StatusCode.UNAUTHENTICATED, "SERVICE_TOKEN_REFUSED")
                assert (answer.code, answer.reason) == expected, (method.name, metadata)
                assert good not in answer.message
        if "storage" in package:
            assert kinds == {(False, False), (True, False), (False, True)}
        unknown = await call(channel, method, b"", path="/nanobatch.storage.v1.NoService/Nothing")
        assert unknown.code is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=""))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_channel_that_shows_the_token_is_let_in_and_keeps_metadata_of_ones_own(house):
    async with open_channel(house.storage, SecretStr(house.service_token)) as channel:
        stub = account_service_pb2_grpc.AccountServiceStub(channel)
        request = account_service_pb2.AuthenticateRequest(sha256=b"x" * 32)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Authenticate(request, metadata=(("x-mine", "1"),), timeout=5)
        assert caught.value.details().startswith("This token is not valid")
        assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY


async def test_the_heartbeat_shows_it_from_its_own_thread(house):
    lost = LeaseRef(new_id(), new_id())
    for token, outcome in ((house.service_token, "answered"), ("x" * 32, "refused")):
        extender = GrpcLeaseExtender(house.storage, SecretStr(token))
        try:
            if outcome == "answered":
                assert await asyncio.to_thread(extender.extend, [lost], timedelta(seconds=5)) == [lost]
            else:
                with pytest.raises(StorageDownError, match="NANOBATCH_SERVICE_TOKEN"):
                    await asyncio.to_thread(extender.extend, [lost], timedelta(seconds=5))
        finally:
            extender.close()


@pytest.mark.parametrize(("service", "variable"), [("storage", "STORAGE"), ("generator", "GENERATOR")])
async def test_an_internal_service_that_strangers_could_reach_does_not_start(tmp_path, service, variable):
    environment = {
        f"NANOBATCH_{variable}_GRPC": f"0.0.0.0:{free_port()}",
        "ENCRYPTION_KEY": "0123456789abcdef" * 4,
        "NANOBATCH_DATA_DIR": str(tmp_path / "data"),
    }
    with command(tmp_path, "serve", service, environment=environment) as process:
        assert await asyncio.to_thread(process.wait, 30) == 2
    said = (tmp_path / f"serve-{service}.log").read_text().strip()
    assert "\n" not in said
    assert said.startswith(f"NANOBATCH_{variable}_GRPC: 0.0.0.0:")
    assert "NANOBATCH_SERVICE_TOKEN" in said


@pytest.mark.parametrize(
    ("service", "line"), [("gateway", "service_token.refused"), ("generator", "storage.unreachable")]
)
async def test_a_service_with_another_service_token_waits_is_not_ready_and_says_why(house, tmp_path, service, line):
    address = f"127.0.0.1:{free_port()}"
    environment = {
        f"NANOBATCH_{service.upper()}_GRPC": address,
        "NANOBATCH_DATA_DIR": str(tmp_path / "data"),
        "NANOBATCH_GATEWAY_HTTP": "off",
        "NANOBATCH_STORAGE_TARGET": house.storage,
        "NANOBATCH_SERVICE_TOKEN": "x" * 32,
        "ENCRYPTION_KEY": "0123456789abcdef" * 4,
    }
    log = tmp_path / f"serve-{service}.log"
    with command(tmp_path, "serve", service, environment=environment) as process:
        said = await eventually(lambda: [one for one in log.read_text().splitlines() if line in one], within=30)
        assert "NANOBATCH_SERVICE_TOKEN must be the same on all" in said[0]
        async with open_channel(address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.poll() is None
    assert "x" * 32 not in log.read_text()
