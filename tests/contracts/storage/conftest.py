"""Storage on both databases, and short ways to users, executions and pictures."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from queue_steps import TTL, Queue
from sqlalchemy import NullPool, create_engine, select, update

from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.clock import ManualClock
from nanobatch_storage import migrate, topics
from nanobatch_storage.adapters import rows, tables
from nanobatch_storage.adapters.accounts_sql import SqlAccounts
from nanobatch_storage.adapters.blobs_obstore import open_blobs
from nanobatch_storage.adapters.changes_sql import SqlChangeLog
from nanobatch_storage.adapters.control_sql import SqlControl
from nanobatch_storage.adapters.database import Database, Transaction, open_database
from nanobatch_storage.adapters.executions_sql import SqlExecutions
from nanobatch_storage.adapters.images_sql import SqlImages
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.tables import metadata
from nanobatch_storage.adapters.tokens_sql import SqlTokens
from nanobatch_storage.adapters.users_sql import SqlUsers
from nanobatch_storage.domain import (
    Actor,
    Attempt,
    EncryptedKey,
    Execution,
    Image,
    ImageKind,
    LeaseRef,
    NewCredential,
    NewExecution,
    NewPrompt,
    Result,
    ResultState,
    Settings,
)
from nanobatch_storage.pictures import blob_path
from nanobatch_storage.ports import Blobs
from nanobatch_storage.views import Retry

KEY = EncryptedKey(b"cipher", b"i" * 12, b"t" * 16, b"s" * 16, "0123456789abcdef", 1)
WINDOW = 10.0


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to be copied: quicker than migrating anew for every test."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(migrate.upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Any) -> str:
    """A migrated database; emptied after every test, which is a hundred times quicker than a new one."""
    url: str = postgres_server.url(postgres_server.create())
    asyncio.run(migrate.upgrade(url))
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated and empty database for every test, on both."""
    if request.param == "sqlite":
        path = tmp_path / "nanobatch.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


@pytest.fixture
def empty_postgres_url(postgres_url: str) -> Iterator[str]:
    """The migrated database, which is emptied afterwards."""
    yield postgres_url
    engine = create_engine(postgres_url, poolclass=NullPool, connect_args={"options": "-c lock_timeout=5000"})
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())


@pytest.fixture
async def database(database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    async with open_database(database_url, clock) as opened:
        yield opened


def new_execution(count: int = 3, **changes: Any) -> NewExecution:
    """A request of n prompts with the free provider; ``changes`` are fields of NewExecution."""
    new = NewExecution(
        model="sandbox",
        provider="sandbox",
        settings=Settings(),
        prompts=tuple(NewPrompt(f"prompt {number}") for number in range(count)),
        fingerprint="f" * 64,
        reservation_micros=1000,
    )
    return replace(new, **changes)


def credential(fingerprint: str | None = None) -> NewCredential:
    """A key, of its own bucket unless a fingerprint is given."""
    return NewCredential(str(uuid.uuid4()), KEY, fingerprint or uuid.uuid4().hex * 2)


def paid_fields() -> dict[str, Any]:
    """The fields of a request with a key of its own."""
    key = credential()
    return {
        "model": "gemini-2.5-flash-image",
        "provider": "gemini",
        "credential": key,
        "fingerprint": key.fingerprint,
        "reservation_micros": 40_000,
    }


def image(actor: Actor, data: bytes = b"picture", **changes: Any) -> Image:
    """The description of a picture of these bytes; storage sets the times."""
    image_id = str(uuid.uuid4())
    made = Image(
        id=image_id,
        user_id=actor.user_id,
        kind=ImageKind.REFERENCE,
        mime_type="image/png",
        width=1,
        height=1,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        blob_path=blob_path(actor.user_id, image_id, "image/png"),
        execution_id=None,
        create_time=ManualClock().now(),
        expire_time=None,
    )
    return replace(made, **changes)


@dataclass(frozen=True)
class Store:
    """Every port of storage over one database, and short ways to what most tests need."""

    database: Database
    clock: ManualClock
    bus: MemoryBus
    executions: SqlExecutions
    control: SqlControl
    changes: SqlChangeLog
    images: SqlImages
    accounts: SqlAccounts
    users: SqlUsers
    tokens: SqlTokens
    blobs: Any

    # Tests import nothing of this file: what they need comes with the fixture.
    new = staticmethod(new_execution)
    credential = staticmethod(credential)
    paid_fields = staticmethod(paid_fields)
    image = staticmethod(image)
    key = KEY
    retry = Retry

    async def change(self, execution_id: str, batch_index: int, state: ResultState, **fields: Any) -> int:
        """Move a result as a generator's work would, and say so; returns the new revision of the result."""

        async def work(tx: Transaction) -> int:
            execution = await rows.lock_execution(tx, execution_id)
            assert execution is not None
            found = await rows.lock_results(
                tx, (tables.results.c.execution_id == execution_id) & (tables.results.c.batch_index == batch_index)
            )
            for name, value in fields.items():
                setattr(found[0], name, value)
            execution.move(found[0], state)
            execution.close_if_done(tx.now)
            await rows.save(tx, found)
            await rows.save(tx, [execution])
            return found[0].revision

        revision = await self.database.write(work)
        await self.bus.publish(topics.execution(execution_id))
        return revision

    async def set_bucket(self, bucket_id: str, **fields: Any) -> None:
        """Change the pacing state."""

        async def work(tx: Transaction) -> None:
            bucket = await rows.lock_bucket(tx, bucket_id)
            for name, value in fields.items():
                setattr(bucket, name, value)
            await rows.save(tx, [bucket])

        await self.database.write(work)

    async def set_execution(self, execution_id: str, **fields: Any) -> None:
        """Change columns of an execution behind everybody's back."""

        async def work(tx: Transaction) -> None:
            execution = await rows.lock_execution(tx, execution_id)
            assert execution is not None
            for name, value in fields.items():
                setattr(execution, name, value)
            await rows.save(tx, [execution])

        await self.database.write(work)

    async def call_out(self, execution_id: str, batch_index: int, micros: int = 40_000) -> str:
        """Lease a result and open its attempt, as it is while a call is out; returns the lease id."""
        lease_id = str(uuid.uuid4())

        async def work(tx: Transaction) -> None:
            execution = await rows.lock_execution(tx, execution_id)
            assert execution is not None
            condition = tables.results.c.batch_index == batch_index
            (result,) = await rows.lock_results(tx, (tables.results.c.execution_id == execution_id) & condition)
            execution.move(result, ResultState.PROCESSING)
            execution.reserved_micros += micros
            execution.open_attempts += 1
            result.lease_id, result.lease_expires_at = lease_id, tx.now + timedelta(seconds=30)
            result.ready_at = result.lease_expires_at
            attempt = Attempt(
                id=str(uuid.uuid4()),
                user_id=result.user_id,
                execution_id=execution.id,
                result_id=result.id,
                bucket_id=execution.bucket_id,
                job_id=None,
                lease_id=lease_id,
                model=execution.model,
                reserved_micros=micros,
                start_time=tx.now,
            )
            await rows.add(tx, [attempt])
            await rows.save(tx, [result])
            await rows.save(tx, [execution])

        await self.database.write(work)
        return lease_id

    async def task_out(self, execution: Execution, task_id: str) -> None:
        """Let the first result's call have begun a task at its provider."""
        lease_id = await self.call_out(execution.id, 0)
        columns = tables.attempts.c
        found = await self.database.survey(select(columns.id, columns.result_id).where(columns.lease_id == lease_id))
        await SqlLedger(self.database).note_job(LeaseRef(found[0].result_id, lease_id), found[0].id, task_id)

    async def task_ended(self, task_id: str) -> None:
        """Let nobody ask for a task any more."""

        async def work(tx: Transaction) -> None:
            ended = update(tables.jobs).where(tables.jobs.c.task_id == task_id).values(poll_at=None)
            await tx.connection.execute(ended)

        await self.database.write(work)

    async def user(self, *, admin: bool = False) -> Actor:
        """Make a user."""
        actor = Actor(str(uuid.uuid4()), admin=admin)
        await self.accounts.ensure_user(actor, "somebody")
        return actor

    async def execution(self, actor: Actor, count: int = 3, **changes: Any) -> Execution:
        """Make an execution of n prompts with the free provider; ``changes`` are fields of NewExecution."""
        execution, _ = await self.executions.create(actor, new_execution(count, **changes))
        return execution

    async def paid(self, actor: Actor, count: int = 3, **changes: Any) -> Execution:
        """Make an execution of n prompts with a key of its own."""
        return await self.execution(actor, count, **{**paid_fields(), **changes})

    async def results(self, actor: Actor, execution_id: str) -> list[Result]:
        """Return all results in order."""
        page = await self.executions.list_results(actor, execution_id, 1000, "", ())
        return [shown.result for shown in page.items]

    async def upload(self, actor: Actor, **changes: Any) -> Image:
        """Make the row of an upload, without bytes."""
        return await self.images.add(image(actor, **changes))


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs((tmp_path / "pictures").as_uri())


@pytest.fixture
def store(database: Database, clock: ManualClock, bus: MemoryBus, blobs: Blobs) -> Store:
    return Store(
        database=database,
        clock=clock,
        bus=bus,
        executions=SqlExecutions(database, window=WINDOW),
        control=SqlControl(database, window=WINDOW),
        changes=SqlChangeLog(database),
        images=SqlImages(database),
        accounts=SqlAccounts(database),
        users=SqlUsers(database),
        tokens=SqlTokens(database),
        blobs=blobs,
    )


@pytest.fixture
async def queue(store: Store) -> Queue:
    """Return the store's queue; its leases wait for nothing. A test may set how late the event loop is (``lag``)."""
    made = Queue(SqlLedger(store.database))
    made.leases = SqlLeases(store.database, duration=TTL, ahead=0, loop_lag=lambda: made.lag)
    return made


@pytest.fixture
async def user(store: Store, queue: Queue) -> Actor:
    """Return a new user, to whom the queue's pictures belong."""
    actor = await store.user()
    queue.owner = actor.user_id
    return actor
