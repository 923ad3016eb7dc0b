"""Storage as a process."""

from __future__ import annotations

import asyncio
import sys

import structlog
import uvloop

from nanobatch_runtime import logs
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel, wait_for_signal
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
    logs.configure(settings.log_level)
    return uvloop.run(_serve(settings))


async def _serve(settings: StorageSettings) -> int:
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    try:
        async with open_app(settings) as app:
            _log.info("storage.listening", address=app.address)
            _log.info("storage.draining", signal=await signalled)
    except (NanobatchError, SettingsError, OSError) as error:
        reason = error.reason if isinstance(error, NanobatchError) else type(error).__name__
        _log.error("storage.cannot_serve", reason=reason, message=str(error))  # no trace needed
        return 1
    finally:
        await cancel(signalled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
