"""The composition root: the only file that names adapters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import grpc
import structlog

from nanobatch.gateway.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    analytics_service_pb2,
    analytics_service_pb2_grpc,
    execution_service_pb2,
    execution_service_pb2_grpc,
    image_service_pb2,
    image_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from nanobatch_gateway.accounts import ManageTokens, ManageUsers
from nanobatch_gateway.adapters.accounts_grpc import GrpcAccounts, GrpcTokens, GrpcUsers
from nanobatch_gateway.adapters.exports_grpc import GrpcExports
from nanobatch_gateway.adapters.hints_grpc import GrpcHints
from nanobatch_gateway.adapters.images_grpc import GrpcImages
from nanobatch_gateway.adapters.links_hmac import HmacPictureLinks
from nanobatch_gateway.adapters.pictures_checker import CheckedPictures
from nanobatch_gateway.adapters.progress_grpc import (
    GeneratorChanges,
    GeneratorKeyChecks,
    GeneratorPresence,
    StorageChanges,
)
from nanobatch_gateway.adapters.signer_hmac import HmacPageTokens
from nanobatch_gateway.adapters.store_grpc import GrpcControls, GrpcExecutions, GrpcResults
from nanobatch_gateway.adapters.usage_grpc import GrpcUsageReports
from nanobatch_gateway.auth import Authenticator, LocalAuthenticator
from nanobatch_gateway.authenticate import REMEMBER, TokenAuthenticator
from nanobatch_gateway.check_key import CheckApiKey
from nanobatch_gateway.control import ResumeExecution, RetryExecution
from nanobatch_gateway.create import CreateExecution
from nanobatch_gateway.domain import LOCAL_CALLER, MAX_UPLOAD_BYTES
from nanobatch_gateway.estimate import EstimateCost
from nanobatch_gateway.export import ExportExecution
from nanobatch_gateway.feed import WatchLimits
from nanobatch_gateway.first_admin import EnsureFirstAdmin
from nanobatch_gateway.http.access import Gate
from nanobatch_gateway.http.app import HttpParts, make_app
from nanobatch_gateway.http.rest import BatchUseCases
from nanobatch_gateway.http.server import HttpServer
from nanobatch_gateway.keys import Keys
from nanobatch_gateway.limits import CallClass, Limits, OwnLimits, SharedLimits, WatchStreams
from nanobatch_gateway.linking import Linker
from nanobatch_gateway.pages import ListExecutions, ListResults
from nanobatch_gateway.ports import Pictures
from nanobatch_gateway.recheck import RECHECK
from nanobatch_gateway.servicers.accounts import AccountServicer
from nanobatch_gateway.servicers.analytics import AnalyticsServicer
from nanobatch_gateway.servicers.executions import ExecutionServicer, ExecutionUseCases
from nanobatch_gateway.servicers.images import ImageServicer
from nanobatch_gateway.servicers.interceptor import AuthInterceptor
from nanobatch_gateway.servicers.limiting import LimitInterceptor
from nanobatch_gateway.servicers.models import ModelServicer
from nanobatch_gateway.servicers.writing import STALL_LIMIT
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_gateway.startup import Startup
from nanobatch_gateway.submit import SubmitExecution
from nanobatch_gateway.uploads import UploadImage
from nanobatch_gateway.usage import GetUsage
from nanobatch_gateway.validation import Validator
from nanobatch_gateway.watch import WatchExecution
from nanobatch_runtime.clock import Clock, SystemClock
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.metrics import GATEWAY, REDIS_UP
from nanobatch_runtime.own_names import OwnNames
from nanobatch_runtime.pictures import PictureChecker, PictureLimits
from nanobatch_runtime.redis import require_same
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.channel import open_channel
from nanobatch_runtime.rpc.server import RpcServer
from nanobatch_runtime.scratch import scratch_folder

_log = structlog.get_logger("nanobatch.gateway")

SERVICE_NAMES = tuple(
    service.full_name
    for module in (
        account_service_pb2,
        analytics_service_pb2,
        execution_service_pb2,
        image_service_pb2,
        model_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True, slots=True)
class App:
    """A running gateway."""

    server: RpcServer
    http_address: str
    """``host:port`` of the HTTP port, with the real port; empty where there is none."""
    public_url: str
    """How browsers reach the HTTP port, where the pictures are; empty where there is none."""
    started: asyncio.Task[None]
    """Ends when storage was met; fails where no repeat can mend it (ENCRYPTION_KEY does not fit)."""

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
    settings: GatewaySettings,
    *,
    storage_channel: grpc.aio.Channel | None = None,
    generator_channel: grpc.aio.Channel | None = None,
    clock: Clock | None = None,
    pictures: Pictures | None = None,
    watch_limits: WatchLimits | None = None,
    watch_lasting: timedelta | None = None,
    stall: timedelta = STALL_LIMIT,
    remember: timedelta = REMEMBER,
    recheck: timedelta = RECHECK,
    grace: timedelta = timedelta(seconds=5),
) -> AsyncIterator[App]:
    """Serve while the context is open. Raises UnavailableError (ADDRESS_IN_USE) where it cannot listen.

    Channels that are given stay the caller's and must outlive the context; others are opened here. At the end health
    says no, watches end resumably, and other calls have ``grace`` to finish. The gateway may start before storage:
    until it was met, users' calls are answered UNAVAILABLE (STARTING) and health says NOT_SERVING.
    """
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        stack.enter_context(GATEWAY.shown())
        storage = storage_channel or await _opened(settings.storage_target, settings, stack)
        generator = generator_channel or await _opened(settings.generator_target, settings, stack)
        presence = await stack.enter_async_context(GeneratorPresence(generator).watching())
        if pictures is None:
            # Uploads are few: one child, started by the first of them.
            limits = PictureLimits(max_bytes=MAX_UPLOAD_BYTES)
            checker = await stack.enter_async_context(PictureChecker(limits, max_workers=1, warm=False))
            pictures = CheckedPictures(checker)
        folder = stack.enter_context(scratch_folder("uploads"))

        keyring = settings.keyring
        accounts = GrpcAccounts(storage)
        authenticator, first_user = _door(settings, accounts, remember)
        startup = Startup(
            accounts, keyring, first_user, partial(require_same, settings.redis, GrpcHints(storage).described)
        )
        request_limits = await _open_limits(settings, stack)
        http = None if settings.http == "off" else stack.enter_context(closing(HttpServer(settings.http)))
        server = RpcServer(
            settings.listen,
            SERVICE_NAMES,
            public=True,
            connection_age=options.PUBLIC_CONNECTION_AGE,
            longest_stream=watch_lasting or settings.watch,
            interceptors=[
                LimitInterceptor(request_limits),
                AuthInterceptor(authenticator, startup.require, recheck=recheck),
            ],
        )
        keys = Keys(keyring, startup.secret)
        executions, controls, results = GrpcExecutions(storage), GrpcControls(storage), GrpcResults(storage)
        images = GrpcImages(storage)
        tokens, page_tokens = GrpcTokens(storage), HmacPageTokens(keyring.derive("page-token"))
        validator = Validator(images, clock)
        watch = WatchExecution(
            executions=executions,
            generator=GeneratorChanges(generator),
            storage=StorageChanges(storage),
            presence=presence,
            draining=server.draining,
            lasting=watch_lasting or settings.watch,
            limits=watch_limits,
        )
        stack.push_async_callback(watch.close)
        links = _links(_public_url(http, settings), settings, clock)
        linker = Linker(links)
        create, upload = CreateExecution(validator, keys, executions), UploadImage(pictures, images, folder)
        export = ExportExecution(GrpcExports(executions, results), images)
        use = ExecutionUseCases(
            create=create,
            estimate=EstimateCost(validator, executions, clock, window=settings.credential_window),
            resume=ResumeExecution(executions, controls, keys),
            retry=RetryExecution(executions, controls, keys),
            list=ListExecutions(executions, page_tokens),
            list_results=ListResults(results, page_tokens),
            watch=watch,
            streams=WatchStreams(settings.limit_streams),
            executions=executions,
            controls=controls,
            results=results,
        )
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(
            AccountServicer(
                accounts,
                tokens,
                manage_users=ManageUsers(GrpcUsers(storage), page_tokens),
                manage_tokens=ManageTokens(tokens, page_tokens),
            ),
            server.server,
        )
        analytics_service_pb2_grpc.add_AnalyticsServiceServicer_to_server(
            AnalyticsServicer(GetUsage(GrpcUsageReports(storage), clock), GrpcUsageReports(storage)), server.server
        )
        execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server(
            ExecutionServicer(use, linker, stall=stall), server.server
        )
        image_service_pb2_grpc.add_ImageServiceServicer_to_server(
            ImageServicer(upload, images, export, linker, stall=stall), server.server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(CheckApiKey(validator, GeneratorKeyChecks(generator)), clock), server.server
        )

        await server.start(serving=False)
        stack.push_async_callback(server.stop, grace)
        if http is not None and links is not None:
            parts = HttpParts(
                batch=BatchUseCases(SubmitExecution(validator, upload, create), executions, use.list_results, linker),
                watch=watch,
                streams=use.streams,
                links=links,
                images=images,
                export=export,
                gate=Gate(authenticator, request_limits, startup.require, recheck=recheck),
            )
            names = OwnNames.of(http.address, settings.public_url)
            web = make_app(parts, names, settings.cors_origins, stall=stall)
            await stack.enter_async_context(http.serving(web, grace))
            stack.push_async_callback(server.drain)  # before anything ends: watches over both ports end themselves
        started = asyncio.create_task(_start(startup, server), name="gateway-startup")
        stack.push_async_callback(cancel, started)
        yield App(server, http.address if http else "", _public_url(http, settings), started)


async def _opened(target: str, settings: GatewaySettings, stack: AsyncExitStack) -> grpc.aio.Channel:
    return await stack.enter_async_context(open_channel(target, settings.service_token))


def _public_url(http: HttpServer | None, settings: GatewaySettings) -> str:
    if http is None:
        return ""
    return settings.public_url or f"http://{http.address}"


def _links(public_url: str, settings: GatewaySettings, clock: Clock) -> HmacPictureLinks | None:
    return HmacPictureLinks(settings.keyring.derive_all("picture-link"), clock, public_url) if public_url else None


def _door(
    settings: GatewaySettings, accounts: GrpcAccounts, remember: timedelta
) -> tuple[Authenticator, Callable[[], Awaitable[None]]]:
    """Return who finds out who is calling, and what makes sure at the start that somebody can."""
    if settings.auth == "local":
        return LocalAuthenticator(), partial(accounts.ensure_user, LOCAL_CALLER)
    token = settings.admin_token.get_secret_value()
    authenticator = TokenAuthenticator(accounts, operators_token=token, remember=remember)
    return authenticator, EnsureFirstAdmin(accounts, token)


async def _open_limits(settings: GatewaySettings, stack: AsyncExitStack) -> Limits:
    allowances = {
        CallClass.SPEND: settings.limit_spend,
        CallClass.WRITE: settings.limit_write,
        CallClass.READ: settings.limit_read,
        CallClass.WATCH: settings.limit_watch,
    }
    if not settings.redis:
        return OwnLimits(allowances)
    from nanobatch_gateway.adapters.counters_redis import open_counters  # noqa: PLC0415  # its library: only where there is a Redis

    counters = await stack.enter_async_context(open_counters(settings.redis))
    limits = await stack.enter_async_context(SharedLimits(allowances, counters).beating())
    stack.enter_context(REDIS_UP.of(lambda: {("gateway",): limits.shared}))
    return limits


async def _start(startup: Startup, server: RpcServer) -> None:
    await startup.run()
    await server.set_serving(serving=True)
