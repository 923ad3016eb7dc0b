# ruff: noqa: N802  # the methods of servicers have the names of the contract
"""A real gateway between a real client and small servers that stand for storage and a generator.

The fakes keep a journal instead of a database, and look closely at what they are sent.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import pytest

from nanobatch.gateway.v1 import (
    execution_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
    image_service_pb2_grpc,
    model_service_pb2_grpc,
)
from nanobatch.generator.v1 import generator_service_pb2, generator_service_pb2_grpc
from nanobatch.storage.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
)
from nanobatch.storage.v1 import execution_service_pb2 as storage_pb2
from nanobatch.storage.v1 import (
    execution_service_pb2_grpc as storage_execution_grpc,
)
from nanobatch.storage.v1 import (
    image_service_pb2 as storage_image_pb2,
)
from nanobatch.storage.v1 import (
    image_service_pb2_grpc as storage_image_grpc,
)
from nanobatch_gateway.feed import WatchLimits
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_gateway.wiring import App, open_app
from nanobatch_runtime.clock import ManualClock
from nanobatch_runtime.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError, OutOfRangeError
from nanobatch_runtime.ids import is_id, new_id
from nanobatch_runtime.keyring import Identity, Keyring, Sealed, fingerprint
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import RpcServer
from nanobatch_runtime.settings import load
from nanobatch_runtime.testing import eventually

MASTER_KEY = "0123456789abcdef" * 4
LOCAL_USER = "00000000-0000-4000-8000-000000000001"


class ExecutionNotFoundError(NotFoundError):
    reason = "EXECUTION_NOT_FOUND"


class Journal:
    """What happened in one execution, as storage and generators both tell it."""

    def __init__(self) -> None:
        self.updates: list[execution_service_pb2.WatchExecutionResponse] = []
        self.ended = False
        self._changed = asyncio.Condition()

    async def add(self, count: int = 1, *, prompt: str = "") -> None:
        async with self._changed:
            for _ in range(count):
                revision = len(self.updates) + 1
                result = execution_pb2.Result(id=new_id(), revision=revision, prompt_text=prompt)
                self.updates.append(execution_service_pb2.WatchExecutionResponse(revision=revision, result=result))
            self._changed.notify_all()

    async def end(self) -> None:
        async with self._changed:
            self.ended = True
            self._changed.notify_all()

    async def follow(self, after: int) -> AsyncIterator[execution_service_pb2.WatchExecutionResponse]:
        if after > len(self.updates):
            raise OutOfRangeError("That revision was never given out.", reason="REVISION_UNKNOWN")
        while True:
            while after < len(self.updates):
                after += 1
                yield self.updates[after - 1]
            if self.ended:
                return
            async with self._changed:
                await self._changed.wait_for(partial(self._has_news, after))

    def _has_news(self, after: int) -> bool:
        return self.ended or len(self.updates) > after


class FakeStorage(
    storage_execution_grpc.ExecutionServiceServicer,
    storage_image_grpc.ImageServiceServicer,
    account_service_pb2_grpc.AccountServiceServicer,
):
    def __init__(self, address: str) -> None:
        self.address = address
        self.keyring = Keyring.parse(MASTER_KEY)
        self.journals: dict[str, Journal] = {}
        self.executions: dict[str, execution_pb2.Execution] = {}
        self.hashes: dict[str, tuple[str, str]] = {}
        self.creates: list[storage_pb2.CreateExecutionRequest] = []
        self.asked: list[Any] = []
        self.secrets: dict[str, Any] = {}
        self.users: dict[str, str] = {}
        self.images: dict[str, tuple[Any, bytes]] = {}
        self.results: dict[str, list[execution_pb2.Result]] = {}
        self.foreign: set[str] = set()
        self.owners: dict[str, str] = {}
        self.watches: list[int] = []
        self.open_watches = 0
        self.latency = storage_pb2.GetLatencyResponse()
        self.chunk_sizes: list[int] = []
        self.server: RpcServer | None = None

    async def start(self) -> None:
        self.server = RpcServer(self.address, ["storage"])
        storage_execution_grpc.add_ExecutionServiceServicer_to_server(self, self.server.server)
        storage_image_grpc.add_ImageServiceServicer_to_server(self, self.server.server)
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(self, self.server.server)
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop(timedelta(0))

    def new_execution(self, model: str = "sandbox", **settings: Any) -> str:
        execution_id = new_id()
        self.executions[execution_id] = execution_pb2.Execution(
            id=execution_id, model=model, settings=execution_pb2.ExecutionSettings(**settings)
        )
        self.journals[execution_id] = Journal()
        return execution_id

    def secret(self) -> bytes:
        stored = self.secrets["fingerprint"]
        return bytes.fromhex(self.keyring.open(_sealed(stored), Identity("secret", "", "fingerprint")))

    def opened(self, credential: Any, owner: str = LOCAL_USER) -> str:
        """Return the provider key as a generator would open it, having checked its fingerprint."""
        key = self.keyring.open(_sealed(credential.key), Identity("provider-key", owner, credential.id))
        assert credential.fingerprint == fingerprint(self.secret(), "gemini", key)
        return key

    def _known(self, request: Any) -> execution_pb2.Execution:
        self.asked.append(request)
        assert request.actor.user_id in {LOCAL_USER, "system"}  # a feed serves watchers of several users
        assert request.actor.admin
        if request.execution_id not in self.executions or request.execution_id in self.foreign:
            raise ExecutionNotFoundError("There is no such execution.")
        return self.executions[request.execution_id]

    async def EnsureUser(self, request, context):
        self.users[request.actor.user_id] = request.name
        return account_service_pb2.EnsureUserResponse()

    async def EnsureSecret(self, request, context):
        return account_service_pb2.EnsureSecretResponse(value=self.secrets.setdefault(request.name, request.proposal))

    async def CreateExecution(self, request, context):
        assert request.actor.user_id in self.users
        assert len(request.request_hash) == len(request.fingerprint) == 64
        self.creates.append(request)
        if request.request_id in self.hashes:
            execution_id, stored_hash = self.hashes[request.request_id]
            if stored_hash != request.request_hash:
                raise AlreadyExistsError("This request id was used before.", reason="REQUEST_ID_REUSED")
            return storage_pb2.CreateExecutionResponse(execution=self.executions[execution_id])
        execution_id = self.new_execution(request.model)
        if request.request_id:
            self.hashes[request.request_id] = (execution_id, request.request_hash)
        return storage_pb2.CreateExecutionResponse(execution=self.executions[execution_id])

    async def GetExecution(self, request, context):
        execution = self._known(request)
        execution.revision = len(self.journals[execution.id].updates)
        provider = "sandbox" if execution.model == "sandbox" else "gemini"
        return storage_pb2.GetExecutionResponse(
            execution=execution, provider=provider, has_key=True, user_id=self.owners.get(execution.id, LOCAL_USER)
        )

    async def ListExecutions(self, request, context):
        self.asked.append(request)
        start = int(request.cursor or 0)
        page = list(self.executions.values())[start : start + request.page_size]
        more = start + request.page_size < len(self.executions)
        return storage_pb2.ListExecutionsResponse(
            executions=page, next_cursor=str(start + request.page_size) if more else ""
        )

    async def ListResults(self, request, context):
        self._known(request)
        if request.execution_id in self.results:
            return storage_pb2.ListResultsResponse(results=self.results[request.execution_id])
        return storage_pb2.ListResultsResponse(
            results=[execution_pb2.Result(id=new_id())], next_cursor="" if request.cursor else "next"
        )

    async def GetResult(self, request, context):
        raise NotFoundError("There is no such result.", reason="RESULT_NOT_FOUND")

    async def CancelExecution(self, request, context):
        return storage_pb2.CancelExecutionResponse(
            execution=self._known(request), in_flight=2, maybe_charged_micros=78_000
        )

    async def PauseExecution(self, request, context):
        self._known(request)
        raise FailedPreconditionError("It has ended.", reason="EXECUTION_FINAL", metadata={"state": "COMPLETED"})

    async def ResumeExecution(self, request, context):
        return storage_pb2.ResumeExecutionResponse(execution=self._known(request))

    async def RetryExecution(self, request, context):
        return storage_pb2.RetryExecutionResponse(execution=self._known(request), retried=3)

    async def DeleteExecution(self, request, context):
        del self.executions[self._known(request).id]
        return storage_pb2.DeleteExecutionResponse()

    async def GetLatency(self, request, context):
        return self.latency

    async def WatchChanges(self, request, context):
        self._known(request)
        self.watches.append(request.after_revision)
        self.open_watches += 1
        try:
            async for update in self.journals[request.execution_id].follow(request.after_revision):
                yield storage_pb2.WatchChangesResponse(update=update)
        finally:
            self.open_watches -= 1

    async def PutImage(self, request_iterator, context):
        header, data = None, b""
        async for request in request_iterator:
            if header is None:
                header = request.header
                assert header.actor.user_id == LOCAL_USER
                assert is_id(header.image.id)
            else:
                self.chunk_sizes.append(len(request.chunk))
                data += request.chunk
        assert header is not None
        assert header.image.size_bytes == len(data)
        assert header.image.sha256 == hashlib.sha256(data).hexdigest()
        self.images[header.image.id] = (header.image, data)
        return storage_image_pb2.PutImageResponse(image=header.image)

    async def BatchGetImages(self, request, context):
        self.asked.append(request)
        found = [self.images[image_id][0] for image_id in request.image_ids if image_id in self.images]
        return storage_image_pb2.BatchGetImagesResponse(images=found)

    async def ReadImage(self, request, context):
        if request.image_id not in self.images:
            raise NotFoundError("There is no such picture.", reason="IMAGE_NOT_FOUND")
        image, data = self.images[request.image_id]
        yield storage_image_pb2.ReadImageResponse(image=image)
        for start in range(0, len(data), 65_536):
            yield storage_image_pb2.ReadImageResponse(chunk=data[start : start + 65_536])


class FakeGenerator(generator_service_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, address: str, storage: FakeStorage) -> None:
        self.address = address
        self.storage = storage
        self.watches: list[int] = []
        self.open_watches = 0
        self.checks: list[Any] = []
        self.overlap = 0  # how many updates are told once more at the beginning
        self.before_watch: Callable[[], None] = lambda: None
        self.server: RpcServer | None = None

    async def start(self) -> None:
        self.server = RpcServer(self.address, ["generator"])
        generator_service_pb2_grpc.add_GeneratorServiceServicer_to_server(self, self.server.server)
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop(timedelta(0))

    async def WatchProgress(self, request, context):
        self.storage._known(request)
        self.watches.append(request.after_revision)
        self.before_watch()
        self.open_watches += 1
        try:
            live = execution_service_pb2.WatchExecutionResponse(progress=execution_pb2.Progress(percent=50))
            yield generator_service_pb2.WatchProgressResponse(update=live)
            async for update in self.storage.journals[request.execution_id].follow(
                max(0, request.after_revision - self.overlap)
            ):
                yield generator_service_pb2.WatchProgressResponse(update=update)
        finally:
            self.open_watches -= 1

    async def CheckApiKey(self, request, context):
        self.checks.append(request)
        return generator_service_pb2.CheckApiKeyResponse(valid=request.api_key == "good", model_available=True)


class World:
    """Everything of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = FakeStorage(f"unix:{folder}/s")
        self.generator = FakeGenerator(f"unix:{folder}/g", self.storage)
        self.clock = ManualClock()
        self.uploads = folder / "tmp"
        self.uploads.mkdir()
        self.app: App

    @asynccontextmanager
    async def gateway(self, **options: Any) -> AsyncIterator[App]:
        """A gateway and the stubs of a client; ``options`` are those of open_app."""
        settings = load(
            GatewaySettings,
            listen=options.pop("listen", "127.0.0.1:0"),
            http=options.pop("http", "127.0.0.1:0"),
            cors_origin=options.pop("cors_origin", ""),
            storage_target=self.storage.address,
            generator_target=self.generator.address,
            encryption_key=MASTER_KEY,
        )
        limits = options.pop("watch_limits", WatchLimits(meet=timedelta(seconds=2)))
        async with (
            open_app(settings, clock=self.clock, watch_limits=limits, **options) as app,
            open_channel(app.address) as channel,
        ):
            self.app = app
            self.channel = channel
            self.executions: Any = execution_service_pb2_grpc.ExecutionServiceStub(channel)
            self.images: Any = image_service_pb2_grpc.ImageServiceStub(channel)
            self.models: Any = model_service_pb2_grpc.ModelServiceStub(channel)
            yield app

    async def open(self, stack: AsyncExitStack, **options: Any) -> World:
        await stack.enter_async_context(self.gateway(**options))
        await eventually(self.app.started.done)
        return self


@pytest.fixture
async def idle_world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Nothing runs yet. Socket names are short, because the system's limit for them is."""
    with TemporaryDirectory(prefix="nb-") as folder:
        world = World(Path(folder))
        monkeypatch.setattr("tempfile.tempdir", str(world.uploads))
        yield world
        await world.generator.stop()
        await world.storage.stop()


@pytest.fixture
async def world(idle_world: World) -> AsyncIterator[World]:
    """Storage, generator and gateway are up."""
    await idle_world.storage.start()
    await idle_world.generator.start()
    async with AsyncExitStack() as stack:
        yield await idle_world.open(stack)


def _sealed(key: Any) -> Sealed:
    return Sealed(key.encrypted, key.iv, key.auth_tag, key.salt, key.key_id, key.version)


class Refused:
    """An error as a foreign client reads it, with the stock libraries alone."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        from google.rpc import error_details_pb2  # noqa: PLC0415  # untyped, and wanted here only
        from grpc_status import rpc_status  # noqa: PLC0415  # as above

        self.code = error.code()
        self.message = error.details() or ""
        self.status = rpc_status.from_call(error)
        assert self.status is not None, f"no details: {error}"
        self.info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        for detail in self.status.details:
            detail.Unpack(self.info)
            detail.Unpack(bad)
        self.reason = self.info.reason
        self.metadata = dict(self.info.metadata)
        self.fields = [(violation.field, violation.reason) for violation in bad.field_violations]
        self.descriptions = [violation.description for violation in bad.field_violations]


@pytest.fixture
def refused() -> Callable[[grpc.aio.AioRpcError], Refused]:
    return Refused
