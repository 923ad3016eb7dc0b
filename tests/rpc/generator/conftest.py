"""A small storage in memory behind real gRPC, a provider that is told what to do, and a generator between the two."""

# ruff: noqa: N802  # the methods bear the names of the contract

from __future__ import annotations

import asyncio
import hashlib
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.gateway.v1 import execution_service_pb2 as gateway_pb
from nanobatch.generator.v1.generator_service_pb2_grpc import GeneratorServiceStub
from nanobatch.storage.v1 import common_pb2, execution_service_pb2, image_service_pb2
from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.execution_service_pb2_grpc import (
    ExecutionServiceServicer,
    add_ExecutionServiceServicer_to_server,
)
from nanobatch.storage.v1.image_service_pb2_grpc import ImageServiceServicer, add_ImageServiceServicer_to_server
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceServicer, add_LeaseServiceServicer_to_server
from nanobatch_generator.domain import (
    CheckedPicture,
    Done,
    KeyCheck,
    PictureFacts,
    PictureRejectedError,
    PictureRequest,
    Usage,
)
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_generator.wiring import GeneratorApp, open_app
from nanobatch_runtime.errors import AbortedError, NanobatchError, NotFoundError, UnavailableError
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.keyring import Identity, Keyring
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import RpcServer

ENCRYPTION_KEY = "00112233445566778899aabbccddeeff" * 2
PROVIDER_KEY = "a-provider-key"
USER = new_id()
PICTURE = b"PICTURE" + bytes(range(256)) * 4_000  # about 1 MB: several chunks


def lost() -> AbortedError:
    return AbortedError("The lease is lost.", reason="LEASE_LOST")


def _fresh(error: NanobatchError) -> NanobatchError:
    # An error that is kept and raised holds its traceback, frames and servers in a cycle; grpc.aio hangs when such a one
    # is collected as late as the interpreter's end.
    return type(error)(error.message, reason=error.reason)


@dataclass
class Row:
    """A result as the storage double keeps it."""

    lease: pb.Lease
    state: str = "PENDING"
    lease_id: str = ""
    attempt_id: str = ""
    revision: int = 0
    leased: int = 0
    images: dict[str, bytes] = field(default_factory=dict)
    header: pb.CompletionHeader | None = None
    failure: pb.Failure | None = None
    waiting: execution_pb2.Waiting | None = None


class StorageDouble(LeaseServiceServicer, ExecutionServiceServicer, ImageServiceServicer):
    """Leases with real fences; every failure ends the result as FAILED. ``faults[rpc]`` are raised one per call."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.execution_id = new_id()
        self.revision = 0
        self.state = "PENDING"
        self.state_revision = 0
        self.deleted = False
        self.calls: Counter[str] = Counter()
        self.before: dict[str, list[NanobatchError]] = {}
        self.after: dict[str, list[NanobatchError]] = {}
        self.lease_seconds = 30.0
        self.asked: list[int] = []
        self.asked_suspects: list[int] = []
        self.on_start: Callable[[], object] = lambda: None
        self.extended: Counter[str] = Counter()
        self.released: list[str] = []
        self.confirmed: list[str] = []
        self.unconfirmed: set[str] = set()
        self.images: dict[str, bytes] = {}
        self.image_gate: asyncio.Event | None = None
        self.watchers = 0
        self.most_watchers = 0
        self.light: list[gateway_pb.WatchExecutionResponse] = []
        self.cut = asyncio.Event()
        self._changed = asyncio.Event()

    def add(self, count: int = 1, **lease: Any) -> list[Row]:
        """Add results, PENDING."""
        made = []
        for number in range(count):
            fields: dict[str, Any] = {
                "result_id": new_id(),
                "execution_id": self.execution_id,
                "user_id": USER,
                "batch_index": len(self.rows) + number,
                "model": "sandbox",
                "provider": "scripted",
                "prompt": "a banana",
                "timeout": timedelta(seconds=20),
                "bucket_id": "bucket",
            }
            row = Row(pb.Lease(**(fields | lease)))
            self.rows[row.lease.result_id] = row
            made.append(row)
            self.changed(row, "PENDING")
        return made

    def changed(self, row: Row, state: str) -> None:
        """Give a row its next revision and wake everybody."""
        row.state = state
        self.revision += 1
        row.revision = self.revision
        self.wake()

    def set_state(self, state: str) -> None:
        """Change the execution's own state."""
        self.state = state
        self.revision += 1
        self.state_revision = self.revision
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def lose(self, row: Row) -> None:
        """Lease the result to somebody else."""
        row.lease_id = new_id()

    def _enter(self, name: str) -> None:
        self.calls[name] += 1
        if self.before.get(name):
            raise _fresh(self.before[name].pop(0))

    def _leave(self, name: str) -> None:
        if self.after.get(name):
            raise _fresh(self.after[name].pop(0))

    def _held(self, ref: pb.LeaseRef) -> Row:
        row = self.rows.get(ref.result_id)
        if row is None or row.lease_id != ref.lease_id:
            raise lost()
        return row

    # --- LeaseService

    async def LeaseResults(self, request: pb.LeaseResultsRequest, context: Any) -> pb.LeaseResultsResponse:
        self._enter("LeaseResults")
        self.asked.append(request.max_results)
        self.asked_suspects.append(request.max_suspects)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.wait.ToTimedelta().total_seconds()
        while True:
            leases = list(itertools.islice(self._leasable(), request.max_results))
            if leases or loop.time() >= deadline:
                return pb.LeaseResultsResponse(leases=leases)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _leasable(self) -> Iterator[pb.Lease]:
        for row in list(self.rows.values()):
            bucket = row.lease.bucket_id
            if row.state != "PENDING" or (bucket in self.unconfirmed and self._busy(bucket)):
                continue
            row.lease_id = new_id()
            row.leased += 1
            self.changed(row, "PROCESSING")
            lease = pb.Lease()
            lease.CopyFrom(row.lease)
            lease.lease_id = row.lease_id
            lease.check_key = bucket in self.unconfirmed
            lease.lease_duration.FromTimedelta(timedelta(seconds=self.lease_seconds))
            yield lease

    def _busy(self, bucket: str) -> bool:
        return any(row.state == "PROCESSING" and row.lease.bucket_id == bucket for row in self.rows.values())

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: Any) -> pb.ExtendLeasesResponse:
        self._enter("ExtendLeases")
        gone = []
        for ref in request.leases:
            try:
                self._held(ref)
                self.extended[ref.result_id] += 1
            except AbortedError:
                gone.append(ref)
        return pb.ExtendLeasesResponse(lost=gone)

    async def ReleaseLeases(self, request: pb.ReleaseLeasesRequest, context: Any) -> pb.ReleaseLeasesResponse:
        self._enter("ReleaseLeases")
        for ref in request.leases:
            row = self._held(ref)
            self.released.append(ref.result_id)
            self.changed(row, "RELEASED")  # and not leased again: tests count what was given back
        return pb.ReleaseLeasesResponse()

    async def StartAttempt(self, request: pb.StartAttemptRequest, context: Any) -> pb.StartAttemptResponse:
        self._enter("StartAttempt")
        row = self._held(request.lease)
        if row.state != "PROCESSING":
            raise lost()
        row.attempt_id = row.attempt_id or new_id()
        self.on_start()
        self._leave("StartAttempt")
        return pb.StartAttemptResponse(attempt_id=row.attempt_id)

    async def EndCall(self, request: pb.EndCallRequest, context: Any) -> pb.EndCallResponse:
        self._enter("EndCall")
        self._held(request.lease)
        return pb.EndCallResponse()

    async def CompleteResult(
        self, messages: AsyncIterator[pb.CompleteResultRequest], context: Any
    ) -> pb.CompleteResultResponse:
        self._enter("CompleteResult")
        header: pb.CompletionHeader | None = None
        data = b""
        async for message in messages:
            if message.WhichOneof("data") == "header":
                header = message.header
            else:
                assert len(message.chunk) <= 256 * 1024
                data += message.chunk
        assert header is not None
        row = self._held(header.lease)
        if row.attempt_id != header.attempt_id:
            raise lost()
        if row.state == "PROCESSING":
            for image in header.images:
                piece, data = data[: image.size_bytes], data[image.size_bytes :]
                assert hashlib.sha256(piece).hexdigest() == image.sha256
                row.images[image.id] = piece
            assert not data
            row.header = header
            self.changed(row, "COMPLETED")
        self._leave("CompleteResult")
        return pb.CompleteResultResponse(state=execution_pb2.RESULT_STATE_COMPLETED)

    async def FailResult(self, request: pb.FailResultRequest, context: Any) -> pb.FailResultResponse:
        self._enter("FailResult")
        row = self._held(request.lease)
        assert row.attempt_id == request.attempt_id
        if row.state == "PROCESSING":
            row.failure = request.failure
            self.changed(row, "FAILED")
        self._leave("FailResult")
        return pb.FailResultResponse(state=execution_pb2.RESULT_STATE_FAILED)

    async def ConfirmKey(self, request: pb.ConfirmKeyRequest, context: Any) -> pb.ConfirmKeyResponse:
        self._enter("ConfirmKey")
        self._held(request.lease)
        self.confirmed.append(request.bucket_id)
        self.unconfirmed.discard(request.bucket_id)
        self.wake()
        return pb.ConfirmKeyResponse()

    # --- ExecutionService

    def _visible(self, actor: common_pb2.Actor, execution_id: str) -> None:
        if self.deleted or execution_id != self.execution_id or not (actor.admin or actor.user_id == USER):
            raise NotFoundError("There is no such execution.", reason="EXECUTION_NOT_FOUND")

    def stats(self) -> execution_pb2.ExecutionStats:
        states = Counter(row.state for row in self.rows.values())
        return execution_pb2.ExecutionStats(
            total=len(self.rows),
            pending=states["PENDING"],
            processing=states["PROCESSING"],
            completed=states["COMPLETED"],
            failed=states["FAILED"],
        )

    async def GetExecution(self, request: Any, context: Any) -> execution_service_pb2.GetExecutionResponse:
        self._enter("GetExecution")
        self._visible(request.actor, request.execution_id)
        execution = execution_pb2.Execution(id=self.execution_id, revision=self.revision)
        return execution_service_pb2.GetExecutionResponse(execution=execution)

    async def WatchChanges(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._enter("WatchChanges")
        self._visible(request.actor, request.execution_id)
        self.watchers += 1
        self.most_watchers = max(self.most_watchers, self.watchers)
        cursor, light, cut = request.after_revision, len(self.light), self.cut
        try:
            while True:
                changed = self._changed
                for update in self._since(cursor):
                    cursor = update.revision
                    yield execution_service_pb2.WatchChangesResponse(update=update)
                for message in self.light[light:]:
                    yield execution_service_pb2.WatchChangesResponse(update=message)
                light = len(self.light)
                self._visible(request.actor, request.execution_id)
                if cut.is_set():
                    raise UnavailableError("cut")
                if self.state in {"COMPLETED", "FAILED"} and cursor == self.revision:
                    return
                if changed is self._changed:
                    await changed.wait()
        finally:
            self.watchers -= 1

    def _since(self, cursor: int) -> list[gateway_pb.WatchExecutionResponse]:
        updates = []
        for row in self.rows.values():
            if row.revision > cursor and row.state in execution_states():
                result = execution_pb2.Result(id=row.lease.result_id, revision=row.revision, waiting=row.waiting)
                result.state = execution_pb2.ResultState.Value(f"RESULT_STATE_{row.state}")
                updates.append(
                    gateway_pb.WatchExecutionResponse(revision=row.revision, stats=self.stats(), result=result)
                )
        if self.state_revision > cursor:
            execution = execution_pb2.Execution(id=self.execution_id, revision=self.state_revision)
            execution.state = execution_pb2.ExecutionState.Value(f"EXECUTION_STATE_{self.state}")
            updates.append(
                gateway_pb.WatchExecutionResponse(revision=self.state_revision, stats=self.stats(), execution=execution)
            )
        return sorted(updates, key=lambda update: update.revision)

    async def GetLatency(self, request: Any, context: Any) -> execution_service_pb2.GetLatencyResponse:
        self._enter("GetLatency")
        return execution_service_pb2.GetLatencyResponse(
            sample_count=10, median=timedelta(seconds=4), p95=timedelta(seconds=8)
        )

    # --- ImageService

    async def ReadImage(self, request: Any, context: Any) -> AsyncIterator[image_service_pb2.ReadImageResponse]:
        self._enter("ReadImage")
        if self.image_gate is not None:
            await self.image_gate.wait()
        data = self.images.get(request.image_id)
        if data is None or request.actor.user_id != USER:
            raise NotFoundError("There is no such picture.", reason="IMAGE_NOT_FOUND")
        head = image_service_pb2.ReadImageResponse()
        head.image.mime_type, head.image.size_bytes = "image/png", len(data)
        yield head
        for start in range(0, len(data), 256 * 1024):
            yield image_service_pb2.ReadImageResponse(chunk=data[start : start + 256 * 1024])

    # --- keys

    def credential(self, key: str = PROVIDER_KEY) -> pb.LeasedCredential:
        """Return a sealed key as a lease carries it."""
        credential_id = new_id()
        sealed = Keyring.parse(ENCRYPTION_KEY).seal(key, Identity("provider-key", USER, credential_id))
        record = common_pb2.EncryptedKey(
            encrypted=sealed.encrypted,
            iv=sealed.iv,
            auth_tag=sealed.auth_tag,
            salt=sealed.salt,
            key_id=sealed.key_id,
            version=sealed.version,
        )
        return pb.LeasedCredential(id=credential_id, user_id=USER, key=record)


def execution_states() -> set[str]:
    return {"PENDING", "PROCESSING", "COMPLETED", "FAILED"}


class ScriptedProvider:
    """Does what ``answer`` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[PictureRequest] = []
        self.keys: list[str] = []
        self.checks = 0
        self.running = 0
        self.aborted = 0
        self.key_check: KeyCheck | Exception = KeyCheck(valid=True, model_available=True)
        self.hold: asyncio.Event | None = None
        self.answer: Callable[[PictureRequest], Awaitable[Done]] = self._picture

    async def _picture(self, request: PictureRequest) -> Done:
        return Done(PICTURE, Usage(input_tokens=7, image_output_tokens=1290, cost_micros=38_703, reported=True), "r-1")

    async def submit(self, request: PictureRequest, key: str) -> Done:
        self.requests.append(request)
        self.keys.append(key)
        self.running += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            return await self.answer(request)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    async def ready(self) -> None:
        pass

    async def check_key(self, model: str, key: str) -> KeyCheck:
        self.checks += 1
        if isinstance(self.key_check, Exception):
            raise self.key_check
        return self.key_check


class QuickPictures:
    """Takes whatever begins with PICTURE; the real checker is tested with a real picture elsewhere."""

    async def check(self, path: Path) -> CheckedPicture:
        return self._check(path)

    def _check(self, path: Path) -> CheckedPicture:
        data = path.read_bytes()
        if not data.startswith(b"PICTURE"):
            raise PictureRejectedError("PICTURE_DAMAGED", "The picture is damaged.")
        return CheckedPicture(_facts("image/png", data), _facts("image/webp", b"THUMBNAIL"), b"THUMBNAIL")


def _facts(mime_type: str, data: bytes) -> PictureFacts:
    return PictureFacts(mime_type, 10, 10, len(data), hashlib.sha256(data).hexdigest())


@dataclass
class House:
    """Storage, provider, and a way to start generators between them."""

    folder: Path
    storage: StorageDouble
    provider: ScriptedProvider
    target: str
    server: RpcServer

    def settings(self, **overrides: Any) -> GeneratorSettings:
        values = {
            "listen": f"unix:{self.folder}/generator.sock",
            "storage_target": self.target,
            "encryption_key": ENCRYPTION_KEY,
            "data_dir": self.folder / "data",
            "concurrency": 4,
            "drain_seconds": 0.2,
        }
        return GeneratorSettings(**(values | overrides))

    def generator(
        self, pictures: Any = None, spare: Any = None, **overrides: Any
    ) -> AbstractAsyncContextManager[GeneratorApp]:
        return open_app(
            self.settings(**overrides),
            providers={"scripted": self.provider},
            pictures=pictures or QuickPictures(),
            spare=spare,
        )

    @property
    def spooled(self) -> list[str]:
        names = (path.name for path in (self.folder / "data" / "spool").glob("*/*"))
        return sorted(name for name in names if name != "lock" and not name.endswith(".free"))

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[GeneratorServiceStub]:
        async with open_channel(f"unix:{self.folder}/generator.sock") as channel:
            yield GeneratorServiceStub(channel)


async def serve_storage(storage: StorageDouble, address: str) -> RpcServer:
    server = RpcServer(address, [])
    add_LeaseServiceServicer_to_server(storage, server.server)
    add_ExecutionServiceServicer_to_server(storage, server.server)
    add_ImageServiceServicer_to_server(storage, server.server)
    await server.start()
    return server


@pytest.fixture
async def house() -> AsyncIterator[House]:
    # Not tmp_path: a unix socket's path may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="nb-"))
    storage, target = StorageDouble(), f"unix:{folder}/storage.sock"
    server = await serve_storage(storage, target)
    made = House(folder, storage, ScriptedProvider(), target, server)
    try:
        yield made
    finally:
        await made.server.server.stop(None)
        shutil.rmtree(folder)


@pytest.fixture
def start_storage() -> Callable[[StorageDouble, str], Awaitable[RpcServer]]:
    return serve_storage


@pytest.fixture
def picture() -> bytes:
    return PICTURE


@pytest.fixture
def user() -> str:
    return USER


@pytest.fixture
def provider_key() -> str:
    return PROVIDER_KEY


@pytest.fixture
def rpc_error() -> type[grpc.aio.AioRpcError]:
    return grpc.aio.AioRpcError
