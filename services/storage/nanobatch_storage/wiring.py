"""The composition root: the only file that names adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog
from sqlalchemy.engine import make_url

from nanobatch.storage.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    analytics_service_pb2,
    analytics_service_pb2_grpc,
    execution_service_pb2,
    execution_service_pb2_grpc,
    hint_service_pb2,
    hint_service_pb2_grpc,
    image_service_pb2,
    image_service_pb2_grpc,
    lease_service_pb2,
    lease_service_pb2_grpc,
)
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.bus import Bus, MemoryBus
from nanobatch_runtime.clock import Clock, SystemClock
from nanobatch_runtime.lifecycle import LoopLag
from nanobatch_runtime.metrics import DATABASE_CONNECTIONS, DATABASE_LIMIT, REDIS_UP, STORAGE
from nanobatch_runtime.rpc.server import RpcServer
from nanobatch_runtime.rpc.service_token import internal_door
from nanobatch_runtime.settings import SettingsError
from nanobatch_storage import migrate, sweep, topics
from nanobatch_storage.adapters.accounts_sql import SqlAccounts
from nanobatch_storage.adapters.blobs_obstore import S3Access, open_blobs
from nanobatch_storage.adapters.changes_sql import SqlChangeLog
from nanobatch_storage.adapters.control_sql import SqlControl
from nanobatch_storage.adapters.database import Database, DatabaseUnavailableError, open_database
from nanobatch_storage.adapters.executions_sql import SqlExecutions
from nanobatch_storage.adapters.figures_sql import SqlFigures
from nanobatch_storage.adapters.images_sql import SqlImages
from nanobatch_storage.adapters.leases_sql import SqlLeases
from nanobatch_storage.adapters.ledger_sql import SqlLedger
from nanobatch_storage.adapters.owner_flock import owning
from nanobatch_storage.adapters.owner_postgres import claiming
from nanobatch_storage.adapters.stats_sql import SqlStats
from nanobatch_storage.adapters.tokens_sql import SqlTokens
from nanobatch_storage.adapters.usage_sql import SqlAnalytics
from nanobatch_storage.adapters.users_sql import SqlUsers
from nanobatch_storage.adapters.waiting_room import waiting_room
from nanobatch_storage.clocks import Clocks
from nanobatch_storage.errors import BlobsUnavailableError, DiskFullError
from nanobatch_storage.figures import ShownFigures
from nanobatch_storage.lease import announce
from nanobatch_storage.ports import Blobs, Images
from nanobatch_storage.ports_queue import Leases, Ledger
from nanobatch_storage.servicers.accounts import AccountServicer
from nanobatch_storage.servicers.analytics import AnalyticsServicer
from nanobatch_storage.servicers.executions import ExecutionServicer
from nanobatch_storage.servicers.hints import HintServicer
from nanobatch_storage.servicers.images import ImageServicer
from nanobatch_storage.servicers.leases import LeaseServicer
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.stats import SeenGenerators

_log = structlog.get_logger("nanobatch.storage")

_FIRST_WAIT = timedelta(milliseconds=200)
_LONGEST_WAIT = timedelta(seconds=2)
_FIGURES_EVERY = timedelta(seconds=10)
_GARBAGE_EVERY = timedelta(seconds=30)

SERVICE_NAMES = tuple(
    service.full_name
    for module in (
        account_service_pb2,
        analytics_service_pb2,
        execution_service_pb2,
        hint_service_pb2,
        image_service_pb2,
        lease_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True, slots=True)
class App:
    """A running storage."""

    server: RpcServer
    database: Database
    bus: Bus

    @property
    def port(self) -> int:
        """The port it listens on; 0 on a unix socket."""
        return 0 if self.server.address.startswith("unix:") else self.server.port

    @property
    def address(self) -> str:
        """Where it can be reached: ``host:port`` with the real port, or ``unix:/path``."""
        if not self.port:
            return self.server.address
        return f"{self.server.address.rpartition(':')[0]}:{self.port}"


@asynccontextmanager
async def open_app(
    settings: StorageSettings,
    *,
    address: str | None = None,
    bus: Bus | None = None,
    clock: Clock | None = None,
    sole_owner: LoopLag | None = None,
    grace: timedelta = timedelta(seconds=5),
) -> AsyncGenerator[App]:
    """Bring the schema up to date and serve while the context is open.

    ``address`` replaces the settings' one; ``clock`` the database's own. ``sole_owner`` is given where generators live
    in this very process: all leases of a process before it run out at once, and none runs out while its loop was
    blocked. A PostgreSQL that is away is waited for, unless ``sole_owner`` is given. Raises NanobatchError where the
    database is in use, or the address is taken; SettingsError.
    """
    url = make_url(settings.database_url)
    blobs = await _met_blobs(settings)
    async with AsyncExitStack() as stack:
        shared_redis = settings.redis if bus is None else ""
        if bus is None:
            bus = await _open_bus(settings.redis, stack)
        if url.get_backend_name() == "sqlite":
            stack.enter_context(owning(Path(url.database or "")))
            await migrate.upgrade(settings.database_url)
        else:
            alone = sole_owner is not None or not settings.redis
            door = None if sole_owner is not None else address or settings.listen
            await stack.enter_async_context(_met(settings.database_url, alone=alone, door=door))
        database = await stack.enter_async_context(open_database(settings.database_url, clock))
        images = SqlImages(database)
        window = float(settings.credential_window)
        executions, control = SqlExecutions(database, window=window), SqlControl(database, window=window)
        lag = sole_owner.recent if sole_owner is not None else timedelta
        leases = SqlLeases(database, duration=settings.lease, loop_lag=lag)
        ledger = SqlLedger(database)
        if sole_owner is not None:
            await leases.expire_all()

        tokens, generators = SqlTokens(database), SeenGenerators(SystemClock())
        shown, clocks = ShownFigures(SqlFigures(database)), Clocks(database.now, SystemClock())
        uses = sweep.Pass("token-uses", tokens.write_uses, timedelta(minutes=1))
        passes = [*_tidying(images, blobs), *_queue_care(leases, ledger, bus), uses]
        passes.append(sweep.Pass("clocks", clocks.look, _FIGURES_EVERY))
        passes.append(sweep.Pass("garbage", sweep.collect_garbage, _GARBAGE_EVERY))
        if settings.metrics:  # nobody pays for figures that nobody can see
            passes.append(sweep.Pass("figures", shown.look, _FIGURES_EVERY))
            stack.enter_context(_showing(database, shown, clocks))
        await stack.enter_async_context(sweep.sweeping(passes))

        server = RpcServer(
            address or settings.listen, SERVICE_NAMES, interceptors=internal_door(settings.service_token)
        )
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(
            AccountServicer(SqlAccounts(database), SqlUsers(database), tokens), server.server
        )
        analytics_service_pb2_grpc.add_AnalyticsServiceServicer_to_server(
            AnalyticsServicer(SqlAnalytics(database), SqlStats(database), generators), server.server
        )
        execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server(
            ExecutionServicer(
                executions, control, SqlChangeLog(database), blobs=blobs, bus=bus, draining=server.draining
            ),
            server.server,
        )
        hint_service_pb2_grpc.add_HintServiceServicer_to_server(HintServicer(shared_redis), server.server)
        image_service_pb2_grpc.add_ImageServiceServicer_to_server(ImageServicer(images, blobs), server.server)
        lease_service_pb2_grpc.add_LeaseServiceServicer_to_server(
            LeaseServicer(leases, ledger, blobs, bus=bus, draining=server.draining, generators=generators),
            server.server,
        )

        async def stop() -> None:
            await server.drain()
            await bus.publish(topics.WORK)  # generators that wait for work are told that there is none
            await server.stop(grace)

        stack.push_async_callback(stop)
        await server.start()
        yield App(server, database, bus)


def blobs_of(settings: StorageSettings) -> Blobs:
    """Return the picture store that the settings name; nothing is asked yet. Raises SettingsError."""
    access = S3Access(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        key_id=settings.s3_access_key_id.get_secret_value(),
        secret=settings.s3_secret_access_key.get_secret_value(),
    )
    return open_blobs(settings.blob_url, access)


async def _met_blobs(settings: StorageSettings) -> Blobs:
    """Open the picture store once something was written, read and removed there. Raises SettingsError."""
    # A wrong bucket or key is better told now than with the first picture that was paid for. One that is away for a
    # moment is the business of whoever starts us again.
    blobs = blobs_of(settings)
    try:
        await blobs.probe()
    except DiskFullError as error:  # what is there can still be read, and room may be made
        _log.warning("storage.disk_full", detail=error.message)
    except BlobsUnavailableError as error:
        raise SettingsError(f"NANOBATCH_BLOB_URL: {settings.blob_url} cannot be written to: {error.detail}") from error
    return blobs


async def _open_bus(redis: str, stack: AsyncExitStack) -> Bus:
    if not redis:
        return MemoryBus()
    from nanobatch_runtime.bus.redis import open_redis_bus  # noqa: PLC0415  # its library: only where there is a Redis

    bus = await stack.enter_async_context(open_redis_bus(redis))
    stack.enter_context(REDIS_UP.of(lambda: {("storage",): bus.up}))
    return bus


@asynccontextmanager
async def _met(database_url: str, *, alone: bool, door: str | None) -> AsyncGenerator[None]:
    """Claim a PostgreSQL and bring its schema up to date, waiting for it at ``door`` (None: not at all)."""
    async with AsyncExitStack() as claim:
        async with AsyncExitStack() as room:
            failures = 0
            while True:
                try:
                    await claim.enter_async_context(claiming(make_url(database_url), alone=alone))
                    await migrate.upgrade(database_url)
                    break
                except (DatabaseUnavailableError, migrate.MigrationUnavailableError) as error:
                    await claim.aclose()
                    if door is None:
                        raise
                    if not failures:
                        _log.warning("storage.waits_for_database", detail=_first_line(error))
                        await room.enter_async_context(waiting_room(door, SERVICE_NAMES))
                    failures += 1
                    await asyncio.sleep(full_jitter(failures, base=_FIRST_WAIT, cap=_LONGEST_WAIT).total_seconds())
            if failures:
                _log.info("storage.database_met", failures=failures)
        yield


def _first_line(error: Exception) -> str:
    """Say what the driver said: it names addresses and users, never a password."""
    cause = error.__cause__
    return str(getattr(cause, "orig", None) or cause or error).strip().partition("\n")[0]


@contextmanager
def _showing(database: Database, figures: ShownFigures, clocks: Clocks) -> Iterator[None]:
    with (
        STORAGE.shown(),
        figures.shown(),
        clocks.shown(),
        DATABASE_CONNECTIONS.of(lambda: {(): database.connections()[0]}),
        DATABASE_LIMIT.of(lambda: {(): database.connections()[1]}),
    ):
        yield


def _tidying(images: Images, blobs: Blobs) -> Sequence[sweep.Pass]:
    # Files know the machine's time alone, whatever clock the database goes by.
    wall = SystemClock()
    return [
        sweep.Pass("uploads", lambda: sweep.remove_expired_uploads(images, blobs), timedelta(minutes=1)),
        sweep.Pass("orphans", sweep.Orphans(images, blobs, wall).remove, timedelta(minutes=10)),
    ]


def _queue_care(leases: Leases, ledger: Ledger, bus: Bus) -> Sequence[sweep.Pass]:
    async def close_abandoned() -> None:
        if changed := await ledger.close_abandoned():
            await announce(bus, changed)

    async def resume_due() -> None:
        if changed := await leases.resume_due():
            await announce(bus, changed)

    return [sweep.Pass("abandoned", close_abandoned), sweep.Pass("resume", resume_due)]
