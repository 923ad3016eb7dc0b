"""The process: settings, wiring, serve."""

from __future__ import annotations

import asyncio
import gc
import sys

import structlog
import uvloop

from nanobatch_generator.settings import GeneratorSettings
from nanobatch_generator.wiring import open_app
from nanobatch_runtime import logs
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel, settle_garbage_collector, wait_for_signal
from nanobatch_runtime.observing import observing
from nanobatch_runtime.settings import SettingsError, load

_log = structlog.get_logger("nanobatch.generator")


async def serve(settings: GeneratorSettings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    # Before anything is leased: whoever is told to stop while it starts drains as well.
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    try:
        async with observing(settings, "generator") as observed, open_app(settings) as app:
            observed.ready_when(lambda: app.server.serving)
            _log.info("generator.serving", address=settings.listen, port=app.port, storage=settings.storage_target)
            settle_garbage_collector()
            signal = await signalled
            _log.info("generator.stopping", signal=signal)
            await app.drain()
    finally:
        await cancel(signalled)
    _log.info("generator.stopped")


def run(settings: GeneratorSettings) -> int:
    """Run one generator as this process and return its exit code: 0 after a drain, 1 where it could not go on."""
    logs.configure(settings.log_level, for_good=True)
    try:
        uvloop.run(serve(settings))
    except NanobatchError as error:
        print(error.message, file=sys.stderr)  # noqa: T201  # a sentence for whoever started it
        return 1
    except Exception:  # noqa: BLE001  # the last resort of a process
        _log.exception("generator.failed")
        return 1
    finally:
        # A channel that is still in some cycle (a traceback is enough) hangs for ever in grpc.aio when the interpreter's
        # own end collects it, because grpc's poller thread is frozen by then.
        gc.collect()
    return 0


def main() -> int:
    """Read the environment and run."""
    try:
        settings = load(GeneratorSettings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # as above
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
