"""The composition root: the only file that names adapters. The same for cluster, embedded mode and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import grpc
import structlog

from nanobatch.generator.v1 import generator_service_pb2
from nanobatch.generator.v1.generator_service_pb2_grpc import add_GeneratorServiceServicer_to_server
from nanobatch_generator.adapters.changes_grpc import GrpcChanges
from nanobatch_generator.adapters.hints_grpc import GrpcHints
from nanobatch_generator.adapters.images_grpc import GrpcImages
from nanobatch_generator.adapters.leases_grpc import GrpcLeaseExtender, GrpcLeases
from nanobatch_generator.adapters.sink_grpc import GrpcSink
from nanobatch_generator.adapters.spare_process import SpareProcesses
from nanobatch_generator.finish import Finish, Replay
from nanobatch_generator.heartbeat import Heartbeat
from nanobatch_generator.inputs import Inputs
from nanobatch_generator.latency import Latencies
from nanobatch_generator.patience import until_met
from nanobatch_generator.pictures import CheckedPictures
from nanobatch_generator.ports import Peers, Pictures, Provider, Spare
from nanobatch_generator.progress import Progress
from nanobatch_generator.providers.registry import open_providers
from nanobatch_generator.render import Render
from nanobatch_generator.running import InFlight
from nanobatch_generator.servicers.generator import GeneratorServicer
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_generator.spool import Spool
from nanobatch_generator.translate import WatchMessages
from nanobatch_generator.turnover import Turnover
from nanobatch_generator.worker import Worker
from nanobatch_runtime.clock import SystemClock
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.metrics import GENERATOR, LEASES_HELD, REDIS_UP, SLOTS
from nanobatch_runtime.pictures import PictureChecker
from nanobatch_runtime.redis import require_same
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import RpcServer
from nanobatch_runtime.rpc.service_token import internal_door

_log = structlog.get_logger("nanobatch.generator")

_SERVICE = generator_service_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
_SERVER_GRACE = timedelta(seconds=1)


class GeneratorApp:
    """A running generator."""

    def __init__(self, server: RpcServer, worker: Worker, progress: Progress, grace: timedelta) -> None:
        """Made by :func:`open_app`."""
        self.server = server
        self._worker = worker
        self._progress = progress
        self._grace = grace
        self._drained = False

    @property
    def port(self) -> int:
        """The TCP port it listens on (0 on a unix socket)."""
        return self.server.port

    async def drain(self) -> None:
        """Health says no, watches end resumably, leasing stops, running calls get their grace. Does so once."""
        if self._drained:
            return
        self._drained = True
        _log.info("generator.draining", seconds=self._grace.total_seconds())
        await self.server.drain()
        self._progress.drain()
        await self._worker.drain(self._grace)


@asynccontextmanager
async def open_app(
    settings: GeneratorSettings,
    *,
    storage_channel: grpc.aio.Channel | None = None,
    storage_target: str | None = None,
    providers: Mapping[str, Provider] | None = None,
    pictures: Pictures | None = None,
    spare: Spare | None = None,
) -> AsyncGenerator[GeneratorApp]:
    """Run a generator while the context is open; leaving it drains. It may be opened before storage is there.

    Health says NOT_SERVING until storage has answered once.

    ``storage_channel`` is shared and not closed; ``storage_target`` (default: the settings') is where the heartbeat's
    own channel goes, and everything else where no channel is given. A loop that dies ends the context with its error.
    """
    target = storage_target or settings.storage_target
    async with AsyncExitStack() as stack:
        if storage_channel is None:
            storage_channel = await stack.enter_async_context(open_channel(target, settings.service_token))
        if providers is None:
            providers = await stack.enter_async_context(
                open_providers(
                    gemini_base_url=settings.gemini_base_url,
                    sandbox_delay=timedelta(seconds=settings.sandbox_delay),
                    sandbox_may_crash=settings.sandbox_may_crash,
                )
            )
        if pictures is None:
            pictures = CheckedPictures(await stack.enter_async_context(PictureChecker()))
        spool = await asyncio.to_thread(Spool, settings.data_dir / "spool")
        stack.callback(spool.close)

        leases, changes = GrpcLeases(storage_channel), GrpcChanges(storage_channel)
        in_flight, latencies, turnover = InFlight(), Latencies(changes), Turnover()
        heartbeat = Heartbeat(GrpcLeaseExtender(target, settings.service_token))
        finish = Finish(leases, GrpcSink(storage_channel), pictures, spool)
        render = Render(
            leases=leases,
            inputs=Inputs(GrpcImages(storage_channel)),
            providers=providers,
            keyring=settings.keyring,
            spool=spool,
            finish=finish,
            latencies=latencies,
            spare=spare or _spare_processes(settings),
            turnover=turnover,
        )
        stack.enter_context(GENERATOR.shown())
        stack.enter_context(LEASES_HELD.of(in_flight.by_phase))
        stack.enter_context(SLOTS.of(lambda: {(): settings.concurrency}))
        worker = Worker(
            leases=leases,
            render=render,
            replay=Replay(spool, finish),
            heartbeat=heartbeat,
            in_flight=in_flight,
            turnover=turnover,
            concurrency=settings.concurrency,
            spare_processes=settings.spare_processes,
        )
        peers = await _open_peers(settings.redis, stack) if settings.redis else None
        progress = Progress(
            changes=changes,
            messages=WatchMessages(),
            in_flight=in_flight,
            latencies=latencies,
            clock=SystemClock(),
            peers=peers,
            lasting=options.LONGEST_STREAM,
        )
        server = RpcServer(settings.listen, [_SERVICE], interceptors=internal_door(settings.service_token))
        add_GeneratorServiceServicer_to_server(GeneratorServicer(progress, providers), server.server)
        app = GeneratorApp(server, worker, progress, settings.drain)

        hints = GrpcHints(storage_channel)

        async def work() -> None:
            await require_same(settings.redis, lambda: until_met(hints.described))
            await server.set_serving(serving=True)
            await worker.run()

        await server.start(serving=False)
        stack.push_async_callback(server.stop, _SERVER_GRACE)
        async with _plain_errors(), asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(heartbeat.run(worker.lost), name="heartbeat"),
                tasks.create_task(progress.run(), name="progress"),
                tasks.create_task(work(), name="worker"),
            ]
            try:
                yield app
            finally:
                await app.drain()
                for loop in reversed(loops):  # the heart beats to the last
                    await cancel(loop)


async def _open_peers(redis: str, stack: AsyncExitStack) -> Peers:
    from nanobatch_generator.adapters.peers_redis import RedisPeers  # noqa: PLC0415  # their library: only where there is a Redis
    from nanobatch_runtime.redis.pubsub import RedisPubSub  # noqa: PLC0415  # as above

    pubsub = await stack.enter_async_context(RedisPubSub.connected(redis))
    stack.enter_context(REDIS_UP.of(lambda: {("generator",): pubsub.up}))
    return RedisPeers(pubsub)


def _spare_processes(settings: GeneratorSettings) -> SpareProcesses:
    return SpareProcesses(
        {
            "gemini_base_url": settings.gemini_base_url,
            "sandbox_delay": settings.sandbox_delay,
            "sandbox_may_crash": settings.sandbox_may_crash,
        },
        memory_bytes=settings.spare_memory_mib * 2**20,
        log_level=settings.log_level,
    )


@asynccontextmanager
async def _plain_errors() -> AsyncGenerator[None]:
    """Unwrap a group of one: whoever opens an app is to see the error itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None
