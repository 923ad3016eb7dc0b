"""The whole service over a real channel: statuses, streams, start and stop."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.storage.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    common_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
    image_service_pb2,
    image_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
)
from nanobatch_runtime.errors import Kind, RemoteError, UnavailableError
from nanobatch_runtime.lifecycle import LoopLag
from nanobatch_runtime.rpc.channel import call, open_channel, stream
from nanobatch_runtime.settings import SettingsError, load
from nanobatch_runtime.testing import eventually
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.wiring import open_app

DATA = b"0123456789" * 60_000


class Client:
    """The stubs of a running storage, and a user."""

    def __init__(self, channel, app):
        self.app = app
        self.accounts = account_service_pb2_grpc.AccountServiceStub(channel)
        self.executions = execution_service_pb2_grpc.ExecutionServiceStub(channel)
        self.images = image_service_pb2_grpc.ImageServiceStub(channel)
        self.leases = lease_service_pb2_grpc.LeaseServiceStub(channel)
        self.actor = common_pb2.Actor(user_id=str(uuid.uuid4()))

    async def create(self, *texts, **fields):
        settings = execution_pb2.ExecutionSettings(variations=1, max_attempts=3)
        settings.timeout.FromSeconds(60)
        request = execution_service_pb2.CreateExecutionRequest(
            actor=self.actor,
            model="sandbox",
            provider="sandbox",
            fingerprint="f" * 64,
            settings=settings,
            prompts=[execution_service_pb2.NewPrompt(text=text, variations=1) for text in texts],
            **fields,
        )
        return (await call(self.executions.CreateExecution(request))).execution

    def watch(self, execution_id, after=0):
        request = execution_service_pb2.WatchChangesRequest(
            actor=self.actor, execution_id=execution_id, after_revision=after
        )
        return stream(self.executions.WatchChanges(request))


def settings(tmp_path, database_url, **fields):
    return load(StorageSettings, **{
        "listen": "127.0.0.1:0", "data_dir": tmp_path / "data", "database_url": database_url, **fields,
    })  # fmt: skip


@asynccontextmanager
async def serving(config, **options):
    async with open_app(config, **options) as app, open_channel(app.address) as channel:
        client = Client(channel, app)
        await call(client.accounts.EnsureUser(account_service_pb2.EnsureUserRequest(actor=client.actor, name="me")))
        yield client


@pytest.fixture
async def client(tmp_path, database_url):
    async with serving(settings(tmp_path, database_url)) as ready:
        yield ready


async def test_an_execution_can_be_made_read_paused_cancelled_and_deleted(client):
    request_id = str(uuid.uuid4())
    made = await client.create("a cat", "a dog", request_id=request_id, request_hash="h", labels={"a": "b"})
    assert made == await client.create("a cat", "a dog", request_id=request_id, request_hash="h", labels={"a": "b"})
    assert (made.stats.total, made.stats.pending, made.revision) == (2, 2, 3)
    assert made.mode == execution_pb2.EXECUTION_MODE_STANDARD
    named = {"actor": client.actor, "execution_id": made.id}
    got = await call(client.executions.GetExecution(execution_service_pb2.GetExecutionRequest(**named)))
    assert (got.execution, got.provider, got.has_key) == (made, "sandbox", False)

    paused = await call(client.executions.PauseExecution(execution_service_pb2.PauseExecutionRequest(**named)))
    assert paused.execution.pause_reason == execution_pb2.PAUSE_REASON_USER
    resumed = await call(client.executions.ResumeExecution(execution_service_pb2.ResumeExecutionRequest(**named)))
    assert resumed.execution.state == execution_pb2.EXECUTION_STATE_PENDING
    cancelled = await call(client.executions.CancelExecution(execution_service_pb2.CancelExecutionRequest(**named)))
    assert cancelled.execution.stats.completion_percentage == 100

    listing = await call(client.executions.ListResults(
        execution_service_pb2.ListResultsRequest(**named, page_size=1, states=[execution_pb2.RESULT_STATE_CANCELLED])
    ))  # fmt: skip
    assert (len(listing.results), bool(listing.next_cursor)) == (1, True)
    result_id = listing.results[0].id
    one = execution_service_pb2.GetResultRequest(actor=client.actor, result_id=result_id)
    assert (await call(client.executions.GetResult(one))).result == listing.results[0]
    retry = execution_service_pb2.RetryExecutionRequest(
        **named, result_ids=[result_id], edits=[{"result_id": result_id, "text": "a bird"}]
    )
    assert (await call(client.executions.RetryExecution(retry))).retried == 1
    assert (await call(client.executions.GetResult(one))).result.prompt_text == "a bird"

    await call(client.executions.CancelExecution(execution_service_pb2.CancelExecutionRequest(**named)))
    await call(client.executions.DeleteExecution(execution_service_pb2.DeleteExecutionRequest(**named)))
    asked = execution_service_pb2.ListExecutionsRequest(actor=client.actor, page_size=5)
    assert not (await call(client.executions.ListExecutions(asked))).executions


async def test_errors_arrive_with_their_kind_reason_and_every_violation(client):
    named = {"actor": client.actor, "execution_id": str(uuid.uuid4())}
    with pytest.raises(RemoteError) as caught:
        await call(client.executions.GetExecution(execution_service_pb2.GetExecutionRequest(**named)))
    assert (caught.value.kind, caught.value.reason) == (Kind.NOT_FOUND, "EXECUTION_NOT_FOUND")
    with pytest.raises(RemoteError) as caught:
        await client.create("a", workflow_id="x", parent_execution_id="y")
    assert caught.value.kind is Kind.INVALID_ARGUMENT
    assert [violation.field for violation in caught.value.violations] == ["workflow_id", "parent_execution_id"]
    made = await client.create("a")
    with pytest.raises(RemoteError) as caught:
        await call(client.executions.ListResults(execution_service_pb2.ListResultsRequest(
            actor=client.actor, execution_id=made.id, page_size=5, states=[99]
        )))  # fmt: skip
    assert caught.value.violations[0].field == "states[0]"


async def test_pictures_travel_in_chunks(client):
    image = client_image(client)

    async def upload():
        yield image_service_pb2.PutImageRequest(header={"actor": client.actor, "image": image})
        for start in range(0, len(DATA), 256 * 1024):
            yield image_service_pb2.PutImageRequest(chunk=DATA[start : start + 256 * 1024])

    stored = (await call(client.images.PutImage(upload()))).image
    assert stored.HasField("expire_time")
    batch = image_service_pb2.BatchGetImagesRequest(actor=client.actor, image_ids=[image.id, "no uuid"])
    assert list((await call(client.images.BatchGetImages(batch))).images) == [stored]
    messages = [
        message
        async for message in stream(
            client.images.ReadImage(image_service_pb2.ReadImageRequest(actor=client.actor, image_id=image.id))
        )
    ]
    assert messages[0].image == stored
    assert b"".join(message.chunk for message in messages[1:]) == DATA
    assert max(len(message.chunk) for message in messages) <= 256 * 1024


def client_image(client):
    import hashlib  # noqa: PLC0415  # here alone

    return image_pb2.Image(
        id=str(uuid.uuid4()),
        kind=image_pb2.IMAGE_KIND_SOURCE,
        mime_type="image/png",
        width=10,
        height=10,
        size_bytes=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
    )


async def test_a_wrong_upload_is_refused(client):
    image = client_image(client)

    async def short():
        yield image_service_pb2.PutImageRequest(header={"actor": client.actor, "image": image})
        yield image_service_pb2.PutImageRequest(chunk=DATA[:10])

    async def headless():
        yield image_service_pb2.PutImageRequest(chunk=DATA[:10])

    with pytest.raises(RemoteError) as caught:
        await call(client.images.PutImage(short()))
    assert (caught.value.kind, caught.value.reason) == (Kind.INVALID_ARGUMENT, "PICTURE_MISMATCH")
    with pytest.raises(RemoteError) as caught:
        await call(client.images.PutImage(headless()))
    assert caught.value.kind is Kind.INVALID_ARGUMENT


async def test_a_watch_replays_follows_and_ends(client):
    made = await client.create("a", "b")
    watched = client.watch(made.id)
    first = [await anext(watched) for _ in range(3)]
    assert [message.update.revision for message in first] == [1, 2, 3]
    assert [message.update.WhichOneof("update") for message in first] == ["result", "result", "execution"]
    await call(client.executions.CancelExecution(
        execution_service_pb2.CancelExecutionRequest(actor=client.actor, execution_id=made.id)
    ))  # fmt: skip
    rest = [message.update async for message in watched]
    assert [update.revision for update in rest] == [4, 5, 6]
    assert rest[-1].execution.state == execution_pb2.EXECUTION_STATE_CANCELLED
    assert rest[-1].stats.cancelled == 2
    with pytest.raises(RemoteError) as caught:
        await anext(client.watch(made.id, 7))
    assert (caught.value.kind, caught.value.reason) == (Kind.OUT_OF_RANGE, "REVISION_UNKNOWN")
    assert caught.value.metadata == {"revision": "6"}


async def test_a_client_that_leaves_leaves_no_ear_behind(client):
    made = await client.create("a")
    pending = client.executions.WatchChanges(
        execution_service_pb2.WatchChangesRequest(actor=client.actor, execution_id=made.id)
    )
    await pending.read()
    assert client.app.bus._listeners
    pending.cancel()
    await eventually(lambda: not client.app.bus._listeners)


async def test_watches_end_resumably_when_the_server_goes_down(tmp_path, database_url):
    async with serving(settings(tmp_path, database_url)) as client:
        made = await client.create("a")
        watched = client.watch(made.id)
        assert [(await anext(watched)).update.revision for _ in range(2)] == [1, 2]
        stopping = asyncio.create_task(client.app.server.stop())
        with pytest.raises(RemoteError) as caught:
            await anext(watched)
        await stopping
    assert (caught.value.kind, caught.value.reason) == (Kind.UNAVAILABLE, "WATCH_MOVED")
    assert caught.value.metadata == {"revision": "2"}


async def test_everything_is_still_there_after_a_restart(tmp_path, database_url):
    config = settings(tmp_path, database_url)
    async with serving(config) as client:
        made, actor = await client.create("a"), client.actor
    async with serving(config) as client:
        request = execution_service_pb2.GetExecutionRequest(actor=actor, execution_id=made.id)
        assert (await call(client.executions.GetExecution(request))).execution == made


async def test_secrets_are_shared(client):
    proposal = common_pb2.EncryptedKey(encrypted=b"a", iv=b"b", auth_tag=b"c", salt=b"d", key_id="e", version=1)
    other = common_pb2.EncryptedKey(encrypted=b"z", iv=b"b", auth_tag=b"c", salt=b"d", key_id="e", version=1)
    for proposed in (proposal, other):
        request = account_service_pb2.EnsureSecretRequest(name="fingerprint", proposal=proposed)
        assert (await call(client.accounts.EnsureSecret(request))).value == proposal


async def test_latency_without_history_says_so(client):
    answer = await call(client.executions.GetLatency(execution_service_pb2.GetLatencyRequest(model="sandbox")))
    assert answer.sample_count == 0


async def test_a_new_execution_wakes_a_waiting_generator(client):
    request = lease_service_pb2.LeaseResultsRequest(max_results=2)
    request.wait.FromSeconds(20)
    waiting = asyncio.create_task(call(client.leases.LeaseResults(request, timeout=30)))
    await eventually(lambda: client.app.bus._listeners)
    made = await client.create("a", "b")
    async with asyncio.timeout(5):
        leased = (await waiting).leases
    assert {lease.execution_id for lease in leased} == {made.id}


async def test_a_sqlite_file_has_one_owner(tmp_path):
    config = load(StorageSettings, listen="127.0.0.1:0", data_dir=tmp_path / "data")
    async with open_app(config, sole_owner=LoopLag()):
        with pytest.raises(UnavailableError) as caught:
            async with open_app(config):
                pass
    assert caught.value.reason == "DATABASE_IN_USE"
    async with open_app(config):
        assert (tmp_path / "data" / "nanobatch.db").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_settings_come_from_the_environment_with_the_documented_defaults(monkeypatch, tmp_path):
    for name in ("DATABASE_URL", "BLOB_URL", "STORAGE_GRPC", "LEASE_SECONDS", "CREDENTIAL_WINDOW", "LOG_LEVEL"):
        monkeypatch.delenv(f"NANOBATCH_{name}", raising=False)
    monkeypatch.setenv("NANOBATCH_DATA_DIR", str(tmp_path))
    config = load(StorageSettings)
    assert config.listen == "127.0.0.1:50053"
    assert config.database_url == f"sqlite:///{tmp_path}/nanobatch.db"
    assert config.blob_url == (tmp_path / "pictures").as_uri()
    assert (config.lease_seconds, config.credential_window, config.log_level) == (30, 10, "info")
    monkeypatch.setenv("NANOBATCH_DATABASE_URL", "postgresql+psycopg://user:secret@db/nanobatch")
    monkeypatch.setenv("NANOBATCH_LEASE_SECONDS", "5")
    config = load(StorageSettings)
    assert config.database_url.startswith("postgresql")
    assert config.lease.total_seconds() == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NANOBATCH_DATABASE_URL", "mysql://user:hunter2@db/x"),
        ("NANOBATCH_DATABASE_URL", "nonsense"),
        ("NANOBATCH_DATABASE_URL", "sqlite://"),
        ("NANOBATCH_BLOB_URL", "ftp://bucket"),
        ("NANOBATCH_LEASE_SECONDS", "0"),
        ("NANOBATCH_CREDENTIAL_WINDOW", "many"),
        ("NANOBATCH_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(StorageSettings)
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)
