"""Everything in one process: the same services over the same gRPC, on unix sockets that only this user can open."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
import uvloop

import nanobatch_gateway.wiring
import nanobatch_generator.wiring
import nanobatch_storage.wiring
from nanobatch_embedded import keyfile, page
from nanobatch_embedded.settings import EmbeddedSettings
from nanobatch_gateway.settings import GatewaySettings
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime import lifecycle, logs
from nanobatch_runtime.bus import MemoryBus
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import LoopLag, cancel, wait_for_signal
from nanobatch_runtime.observing import observing
from nanobatch_runtime.scratch import scratch_folder
from nanobatch_runtime.settings import SettingsError, load
from nanobatch_storage.settings import StorageSettings

_log = structlog.get_logger("nanobatch.embedded")


@asynccontextmanager
async def open_embedded(
    settings: EmbeddedSettings, lag: LoopLag | None = None
) -> AsyncGenerator[nanobatch_gateway.wiring.App]:
    """Run storage, a generator and the gateway while the context is open; leaving it drains them in reverse order.

    ``lag`` is a measurement of this loop that goes on already.
    Raises NanobatchError where the data folder is in use, its key file unusable or an address taken; SettingsError.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = settings.encryption_key or keyfile.load_or_make(settings.data_dir)
    async with AsyncExitStack() as stack:
        # Not in the data folder: its path may be longer than a socket's address can be (108 bytes).
        sockets = stack.enter_context(scratch_folder("sockets"))
        lag = lag or await stack.enter_async_context(LoopLag().measuring())
        storage_door, generator_door = f"unix:{sockets / 'storage'}", f"unix:{sockets / 'generator'}"
        # One process needs no Redis, whatever the environment says of one.
        alone = {"redis_url": "", "redis_host": "", "log_level": settings.log_level}
        common = {"data_dir": settings.data_dir, **alone}
        await stack.enter_async_context(
            nanobatch_storage.wiring.open_app(
                load(StorageSettings, listen=storage_door, **common), bus=MemoryBus(), sole_owner=lag
            )
        )
        await stack.enter_async_context(
            nanobatch_generator.wiring.open_app(
                load(
                    GeneratorSettings,
                    listen=generator_door,
                    storage_target=storage_door,
                    encryption_key=key,
                    **common,
                )
            )
        )
        yield await stack.enter_async_context(
            nanobatch_gateway.wiring.open_app(
                load(
                    GatewaySettings,
                    listen=settings.gateway,
                    storage_target=storage_door,
                    generator_target=generator_door,
                    encryption_key=key,
                    **alone,
                )
            )
        )


async def _serve(settings: EmbeddedSettings) -> None:
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    try:
        async with AsyncExitStack() as stack:
            # Before all else: a taken address is told before anything was started.
            door = None if settings.web == "off" else stack.enter_context(page.open_socket(settings.web))
            lag = await stack.enter_async_context(LoopLag().measuring())
            observed = await stack.enter_async_context(observing(settings, "up", lag=lag))
            app = await stack.enter_async_context(open_embedded(settings, lag))
            # The gateway opens last and closes first, and serves when it has met storage: it speaks for all three.
            observed.ready_when(lambda: app.server.serving)
            await app.started
            if door is not None:
                await stack.enter_async_context(page.supervised(door, app.address, app.public_url, settings.log_level))
            lifecycle.settle_garbage_collector()
            _say(f"nanobatch is up. Data: {settings.data_dir.resolve()}")
            if door is not None:
                _say(f"  page  http://{settings.web.rpartition(':')[0]}:{door.getsockname()[1]}/nano-banana/")
            _say(f"  gRPC  {app.address}")
            if app.http_address:
                _say(f"  HTTP  http://{app.http_address}/docs")
            if observed.address:
                _say(f"  look  http://{observed.address}/metrics")
            _say("Try, in another shell:  .venv/bin/nanobatch run examples/prompts.txt -o pictures/")
            _say("Stop with Ctrl-C: what is unfinished goes on at the next start.")
            await signalled
            _say("Stopping: calls that are out are paid for and may end. Again Ctrl-C stops at once.")
    finally:
        await cancel(signalled)


def run(settings: EmbeddedSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 0, or 1 with a sentence why it cannot serve."""
    logs.configure(settings.log_level, for_good=True)
    reasons: list[BaseException] = []
    try:
        uvloop.run(_serve(settings))
    except* (NanobatchError, SettingsError) as group:
        reasons = _leaves(group)
    for reason in reasons:
        _say(f"nanobatch cannot start: {reason}")
    return 1 if reasons else 0


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # for the person who started it
