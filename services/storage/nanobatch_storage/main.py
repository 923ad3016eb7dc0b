"""Storage as a process."""

from __future__ import annotations

import asyncio
import sys

import structlog
import uvloop

from nanobatch_runtime import logs
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel, settle_garbage_collector, wait_for_signal
from nanobatch_runtime.observing import observing
from nanobatch_runtime.settings import SettingsError, load
from nanobatch_storage.settings import StorageSettings
from nanobatch_storage.wiring import open_app

_log = structlog.get_logger("nanobatch.storage")


def main() -> int:
    """Read the environment and serve; the exit code of the process."""
    try:
        settings = load(StorageSettings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    return run(settings)


def run(settings: StorageSettings) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return 0; 1 where it cannot serve, with the reason in the log."""
    logs.configure(settings.log_level, for_good=True)
    return uvloop.run(_serve(settings))


async def _serve(settings: StorageSettings) -> int:
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    opened = asyncio.Event()
    serving = asyncio.create_task(_serve_until(signalled, opened, settings), name="storage")
    try:
        await asyncio.wait({signalled, serving}, return_when=asyncio.FIRST_COMPLETED)
        if opened.is_set() or serving.done():
            await serving
    except (NanobatchError, SettingsError, OSError) as error:
        reason = error.reason if isinstance(error, NanobatchError) else type(error).__name__
        _log.error("storage.cannot_serve", reason=reason, message=str(error))  # no trace needed
        return 1
    finally:
        await cancel(serving)
        await cancel(signalled)
    return 0


async def _serve_until(signalled: asyncio.Task[str], opened: asyncio.Event, settings: StorageSettings) -> None:
    async with observing(settings, "storage") as observed, open_app(settings) as app:
        observed.ready_when(lambda: app.server.serving)
        opened.set()
        _log.info("storage.listening", address=app.address)
        settle_garbage_collector()
        _log.info("storage.draining", signal=await signalled)


if __name__ == "__main__":
    sys.exit(main())
