"""Every method of the public port against everything that is no good token."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
import pytest_asyncio
from contract import Method, bearer, call, methods
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from nanobatch.gateway.v1 import account_pb2, account_service_pb2, execution_service_pb2
from nanobatch_client.errors import PermissionDeniedError, UnauthenticatedError
from nanobatch_client.models import Role
from nanobatch_gateway import tokens
from nanobatch_gateway.authenticate import REMEMBER
from nanobatch_gateway.recheck import RECHECK
from nanobatch_runtime.testing import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT, ADMIN, ANYBODY, NOBODY = "client", "admin", "anybody", "nobody"

# Who may call what, decided here a second time: a method without a line fails.
DOORS = {
    "AccountService/CreateToken": CLIENT,
    "AccountService/CreateUser": ADMIN,
    "AccountService/ListTokens": CLIENT,
    "AccountService/ListUsers": ADMIN,
    "AccountService/RevokeToken": CLIENT,
    "AccountService/UpdateUser": ADMIN,
    "AccountService/WhoAmI": CLIENT,
    "AnalyticsService/GetUsage": CLIENT,
    "AnalyticsService/GetServerStats": ADMIN,
    "ExecutionService/CancelExecution": CLIENT,
    "ExecutionService/CreateExecution": CLIENT,
    "ExecutionService/DeleteExecution": CLIENT,
    "ExecutionService/EstimateCost": CLIENT,
    "ExecutionService/GetExecution": CLIENT,
    "ExecutionService/GetResult": CLIENT,
    "ExecutionService/ListExecutions": CLIENT,
    "ExecutionService/ListResults": CLIENT,
    "ExecutionService/PauseExecution": CLIENT,
    "ExecutionService/ResumeExecution": CLIENT,
    "ExecutionService/RetryExecution": CLIENT,
    "ExecutionService/WatchExecution": CLIENT,
    "Health/Check": ANYBODY,
    "Health/List": NOBODY,
    "Health/Watch": ANYBODY,
    "ImageService/DownloadImage": CLIENT,
    "ImageService/ExportExecution": CLIENT,
    "ImageService/GetImage": CLIENT,
    "ImageService/UploadImage": CLIENT,
    "ModelService/CheckApiKey": CLIENT,
    "ModelService/ListModels": CLIENT,
    "ServerReflection/ServerReflectionInfo": CLIENT,
}

STANDARD = [
    Method(method)
    for module, service in ((health_pb2, "Health"), (reflection_pb2, "ServerReflection"))
    for method in module.DESCRIPTOR.services_by_name[service].methods
]
EVERY = {method.name: method for method in [*methods(), *STANDARD]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(house):
    """What is shown at the door, and the reason that it is refused for."""
    admin = await house.client()
    user, good = await house.user()
    gone, disabled = await house.user("disabled")
    await admin.update_user(gone.id, disabled=True)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    expired = (await admin.create_token("expired", user_id=user.id, expire_time=soon)).secret
    revoked = await admin.create_token("revoked", user_id=user.id)
    await admin.revoke_token(revoked.token.id)
    who_am_i = EVERY["AccountService/WhoAmI"]

    async def has_expired() -> bool:
        answer = await call(house.channel, who_am_i, account_service_pb2.WhoAmIRequest(), metadata=bearer(expired))
        return answer.reason == "TOKEN_EXPIRED"

    await eventually(has_expired, within=30)
    return {
        "nothing": ((), "TOKEN_MISSING"),
        "another header": ((("x-api-key", good),), "TOKEN_MISSING"),
        "a claim": ((("x-user-id", user.id), ("x-admin", "true")), "TOKEN_MISSING"),
        "nothing behind the scheme": (bearer(""), "TOKEN_MALFORMED"),
        "rubbish": (bearer("rubbish"), "TOKEN_MALFORMED"),
        "a cut token": (bearer(good[:-1]), "TOKEN_MALFORMED"),
        "a mistyped token": (bearer(good[:-1] + ("0" if good[-1] != "0" else "1")), "TOKEN_MALFORMED"),
        "another scheme": ((("authorization", f"Basic {good}"),), "TOKEN_MALFORMED"),
        "no scheme": ((("authorization", good),), "TOKEN_MALFORMED"),
        "two headers": ((*bearer(good), *bearer(good)), "TOKEN_MALFORMED"),
        "a good and a bad header": ((*bearer(good), *bearer("x")), "TOKEN_MALFORMED"),
        "a binary header": ((("authorization-bin", f"Bearer {good}".encode()),), "TOKEN_MALFORMED"),
        "both headers": ((*bearer(good), ("authorization-bin", b"x")), "TOKEN_MALFORMED"),
        "two tokens": (bearer(f"{good} {good}"), "TOKEN_MALFORMED"),
        "what services show each other": (bearer(house.service_token), "TOKEN_MALFORMED"),
        "an expired token": (bearer(expired), "TOKEN_EXPIRED"),
        "an unknown token": (bearer(tokens.new_token()), "TOKEN_INVALID"),
        "a revoked token": (bearer(revoked.secret), "TOKEN_INVALID"),
        "a disabled user's token": (bearer(disabled), "TOKEN_INVALID"),
    }, good


async def test_every_method_has_a_line():
    assert set(EVERY) == set(DOORS)


@pytest.mark.parametrize("name", sorted(DOORS))
async def test_a_door_opens_to_a_good_token_only(house, shown, name):
    refused, good = shown
    method = EVERY[name]
    empty = method.request()
    if DOORS[name] == ANYBODY:
        if name != "Health/Watch":  # which does not end by itself
            assert (await call(house.channel, method, empty)).code is grpc.StatusCode.OK
        return
    if DOORS[name] == NOBODY:  # the library behind it does not have it
        for metadata in ((), bearer(good), house.admin):
            answer = await call(house.channel, method, empty, metadata=metadata)
            assert answer.code is grpc.StatusCode.PERMISSION_DENIED
        return
    for what, (metadata, reason) in refused.items():
        answer = await call(house.channel, method, empty, metadata=metadata)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason), (name, what)
        assert answer.message
        assert good not in answer.message
    answer = await call(house.channel, method, empty, metadata=bearer(good))
    if DOORS[name] == ADMIN:
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ADMIN_ONLY")
        answer = await call(house.channel, method, empty, metadata=house.admin)
    # The other side of it: the same empty request gets past the door with what is good.
    assert answer.code in {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}, answer


async def test_unknown_revoked_and_disabled_cannot_be_told_apart(house, shown):
    refused, _ = shown
    answers = {
        await call(house.channel, method, method.request(), metadata=metadata)
        for method in methods()
        for metadata, reason in refused.values()
        if reason == "TOKEN_INVALID"
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    "path",
    [
        "nanobatch.gateway.v1.AccountService/WhoAmI",
        "//nanobatch.gateway.v1.AccountService/WhoAmI",
        "/nanobatch.gateway.v1.AccountService//WhoAmI",
        "/nanobatch.gateway.v1.AccountService/WhoAmI/",
        "/nanobatch.gateway.v1.AccountService/whoami",
        "/nanobatch.gateway.v1.AccountService%2FWhoAmI",
        "/nanobatch.gateway.v1.AccountService/WhoAmI?x",
        "/grpc.health.v1.Health/../../nanobatch.gateway.v1.AccountService/WhoAmI",
        "/nanobatch.storage.v1.AccountService/EnsureFirstAdmin",
        "/nanobatch.storage.v1.LeaseService/LeaseResults",
    ],
)
async def test_a_path_that_is_no_method_leads_nowhere(house, path):
    for metadata in ((), house.admin):
        answer = await call(house.channel, EVERY["AccountService/WhoAmI"], b"", metadata=metadata, path=path)
        assert answer.code in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED}, answer


async def test_what_clients_say_about_themselves_is_not_believed(house):
    user, token = await house.user()
    first_admin = "00000000-0000-4000-8000-000000000001"
    claims = [("x-user-id", first_admin), ("user-id", first_admin), ("actor", first_admin), ("x-admin", "true")]
    answer = await call(
        house.channel,
        EVERY["AccountService/WhoAmI"],
        account_service_pb2.WhoAmIRequest(),
        metadata=(*bearer(token), *claims),
    )
    (response,) = answer.responses
    assert response.user.id == user.id
    assert account_pb2.Role.Name(response.user.role) == "ROLE_CLIENT"


# Streams


async def test_revoked_tokens_and_disabled_users_end_their_streams(house):
    admin = await house.client()
    user, first = await house.user()
    second = (await admin.create_token("second", user_id=user.id)).secret
    watcher, other = await house.client(first), await house.client(second)
    execution = await watcher.create_execution(["[delay:60] a boat"], model="sandbox")
    heard = asyncio.Event()

    async def watch(client) -> None:
        async for _ in client.watch(execution.id):
            heard.set()

    (token,) = [token async for token in watcher.list_tokens() if token.prefix == first[:8]]
    ending, going = asyncio.create_task(watch(watcher)), asyncio.create_task(watch(other))
    await heard.wait()
    await admin.revoke_token(token.id)
    with pytest.raises(UnauthenticatedError) as caught:
        await asyncio.wait_for(ending, 10)
    assert caught.value.reason == "TOKEN_INVALID"
    assert not going.done()  # the user's other token is as good as before
    await admin.update_user(user.id, disabled=True)
    with pytest.raises(UnauthenticatedError):
        await asyncio.wait_for(going, 10)
    await admin.cancel_execution(execution.id)


async def test_an_admin_who_is_one_no_longer_watches_nobody_else(house):
    admin = await house.client()
    user, token = await house.user(role=Role.ADMIN)
    execution = await admin.create_execution(["[delay:60] a boat"], model="sandbox")
    watcher, heard = await house.client(token), asyncio.Event()

    async def watch() -> None:
        async for _ in watcher.watch(execution.id):
            heard.set()

    going = asyncio.create_task(watch())
    await heard.wait()
    await admin.update_user(user.id, role=Role.CLIENT)
    with pytest.raises(PermissionDeniedError):
        await asyncio.wait_for(going, 10)
    await admin.cancel_execution(execution.id)


async def test_an_upload_under_a_revoked_token_ends(house):
    admin = await house.client()
    user, token = await house.user()
    (only,) = [token async for token in admin.list_tokens(user.id)]
    method, waiting = EVERY["ImageService/UploadImage"], asyncio.Event()
    request = method.request()
    request.header.kind = 1

    async def slowly():
        yield request
        waiting.set()
        await asyncio.Event().wait()

    start = house.channel.stream_unary(method.path, request_serializer=lambda message: message.SerializeToString())
    going = start(slowly(), metadata=bearer(token))
    await waiting.wait()
    await admin.revoke_token(only.id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(going, 10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_promised_times_hold():
    assert timedelta(seconds=10) >= REMEMBER
    assert timedelta(seconds=25) >= REMEMBER + RECHECK  # and storage's answer within 5 s makes 30


async def test_a_stream_ends_by_itself_as_before(house):
    client = await house.client((await house.user())[1])
    execution = await client.create_execution(["a boat"], model="sandbox")
    seen = [update async for update in client.watch(execution.id)]
    assert seen[-1].stats.completed == 1
    request = execution_service_pb2.WatchExecutionRequest(execution_id=str(uuid.uuid4()))
    method = EVERY["ExecutionService/WatchExecution"]
    answer = await call(house.channel, method, request, metadata=house.admin)
    assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "EXECUTION_NOT_FOUND")
