"""Every kind of error through a real server and back, for unary calls and streams."""

import asyncio
from datetime import timedelta

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from nanobatch_runtime import errors
from nanobatch_runtime.errors import FieldViolation, Kind, NanobatchError, RemoteError
from nanobatch_runtime.rpc import deadline
from nanobatch_runtime.rpc.channel import call, limit, open_channel, stream
from nanobatch_runtime.rpc.server import RpcServer

UNARY, STREAM = "/test.Echo/Unary", "/test.Echo/Stream"


class Echo(grpc.GenericRpcHandler):
    """Does whatever the test put into ``behave``."""

    def __init__(self):
        self.behave = None
        self.seen = None

    def service(self, details):
        async def unary(request, context):
            self.seen = limit(timedelta(hours=1))
            return await self.behave(request)

        async def streaming(request, context):
            yield b"first"
            yield await self.behave(request)

        if details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(unary)
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(streaming)
        return None


@pytest.fixture
async def echo():
    handler = Echo()
    server = RpcServer("127.0.0.1:0", ["test.Echo"])
    server.server.add_generic_rpc_handlers((handler,))
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)  # a first connection may fail where the machine is crowded
        handler.channel = channel
        handler.rpc_server = server
        yield handler
    await server.stop(timedelta(seconds=0))


def raising(error):
    async def behave(request):
        raise error

    return behave


async def drained(responses):
    async for _ in responses:
        pass


async def received(echo, method):
    if method == UNARY:
        pending = call(echo.channel.unary_unary(UNARY)(b"", timeout=5))
    else:
        pending = drained(stream(echo.channel.unary_stream(STREAM)(b"", timeout=5)))
    with pytest.raises(RemoteError) as caught:
        await pending
    return caught.value


FAMILIES = [
    family
    for family in vars(errors).values()
    if isinstance(family, type) and issubclass(family, NanobatchError) and family not in {NanobatchError, RemoteError}
]


@pytest.mark.parametrize("method", [UNARY, STREAM])
@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_arrives_with_its_code_reason_and_details(echo, family, method):
    echo.behave = raising(
        family(
            "a sentence",
            reason="A_REASON",
            metadata={"revision": "7"},
            violations=[FieldViolation("prompts[3].text", "too long", "TOO_LONG")],
            retry_after=timedelta(seconds=26),
        )
    )
    error = await received(echo, method)
    assert (error.kind, error.message, error.reason) == (family.kind, "a sentence", "A_REASON")
    assert error.metadata == {"revision": "7"}
    assert error.violations == (FieldViolation("prompts[3].text", "too long", "TOO_LONG"),)
    assert error.retry_after == timedelta(seconds=26)


def test_every_kind_is_a_grpc_code():
    assert {kind.name for kind in Kind} <= {code.name for code in grpc.StatusCode}
    assert len(FAMILIES) >= 10


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_a_surprise_becomes_an_incident_without_any_detail(echo, method, capsys):
    echo.behave = raising(RuntimeError("secret detail"))
    error = await received(echo, method)
    assert error.kind is Kind.INTERNAL
    assert "secret detail" not in error.message
    assert error.metadata["incident"] in error.message


async def test_a_foreign_client_can_read_the_details(echo):
    echo.behave = raising(errors.InvalidArgumentError("wrong", violations=[FieldViolation("model", "unknown")]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.channel.unary_unary(UNARY)(b"", timeout=5)
    status = rpc_status.from_call(caught.value)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert info.domain == "nanobatch"
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "model"


async def test_a_thousand_violations_still_arrive_in_metadata_that_clients_accept(echo):
    violations = [FieldViolation(f"prompts[{n}].text", "This prompt is too long.", "TOO_LONG") for n in range(1000)]
    echo.behave = raising(errors.InvalidArgumentError("wrong", violations=violations))
    error = await received(echo, UNARY)
    assert error.kind is Kind.INVALID_ARGUMENT
    assert error.violations[0].field == "prompts[0].text"
    assert error.violations[-1].reason == "MORE_VIOLATIONS"
    assert len(error.violations) > 20


async def test_a_handler_may_wait_no_longer_than_its_caller(echo):
    async def behave(request):
        return b""

    echo.behave = behave
    await call(echo.channel.unary_unary(UNARY)(b"", timeout=3))
    assert 2 < echo.seen < 3.1  # gRPC rounds the time that it sends up, by a hundredth or so


async def test_without_a_callers_deadline_our_own_limit_holds(echo):
    deadline.set_remaining(None)
    assert limit(timedelta(seconds=9)) == 9


async def test_health_says_no_as_soon_as_the_server_drains(echo):
    health = health_pb2_grpc.HealthStub(echo.channel)
    request = health_pb2.HealthCheckRequest(service="test.Echo")
    assert (await health.Check(request, timeout=5)).status == health_pb2.HealthCheckResponse.SERVING
    await echo.rpc_server.drain()
    assert echo.rpc_server.draining.is_set()
    assert (await health.Check(request, timeout=5)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_server_that_waits_for_what_it_needs_is_alive_all_the_same(echo):
    health = health_pb2_grpc.HealthStub(echo.channel)
    await echo.rpc_server.set_serving(serving=False)
    for name, state in (("", "NOT_SERVING"), ("test.Echo", "NOT_SERVING"), ("live", "SERVING")):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == state, name


async def test_a_cancelled_call_cancels_its_handler(echo):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def behave(request):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    echo.behave = behave
    pending = echo.channel.unary_unary(UNARY)(b"", timeout=30)
    waiter = asyncio.ensure_future(pending)
    await asyncio.wait_for(started.wait(), 5)
    pending.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_an_address_in_use_is_a_clear_error(echo):
    second = RpcServer(f"127.0.0.1:{echo.rpc_server.port}", [])
    with pytest.raises(errors.UnavailableError, match="something else running"):
        await second.start()
