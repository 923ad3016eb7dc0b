"""The gateway as a process."""

from __future__ import annotations

import asyncio
import sys

import structlog
import uvloop

from nanobatch_gateway.settings import GatewaySettings
from nanobatch_gateway.wiring import open_app
from nanobatch_runtime import logs
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.lifecycle import cancel, settle_garbage_collector, wait_for_signal
from nanobatch_runtime.observing import observing
from nanobatch_runtime.settings import SettingsError, load

_log = structlog.get_logger("nanobatch.gateway")


def main() -> int:
    """Read the environment and serve; the exit code of the process."""
    try:
        settings = load(GatewaySettings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    return run(settings)


def run(settings: GatewaySettings) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return 0; 1 where it cannot serve, with the reason in the log."""
    logs.configure(settings.log_level, for_good=True)
    return uvloop.run(_serve(settings))


async def _serve(settings: GatewaySettings) -> int:
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    try:
        async with observing(settings, "gateway") as observed, open_app(settings) as app:
            observed.ready_when(lambda: app.server.serving)
            _log.info("gateway.listening", address=app.address, http=app.http_address)
            settle_garbage_collector()
            await asyncio.wait({signalled, app.started}, return_when=asyncio.FIRST_COMPLETED)
            if app.started.done():
                await app.started  # raises what cannot be mended by waiting
            _log.info("gateway.draining", signal=await signalled)
    except NanobatchError as error:
        _log.error("gateway.cannot_serve", reason=error.reason, message=error.message)  # no trace needed
        return 1
    finally:
        await cancel(signalled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
