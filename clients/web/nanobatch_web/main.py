"""The web front end as a process."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import uvicorn
import uvloop

from nanobatch_runtime import child, logs
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.lifecycle import cancel, wait_for_signal
from nanobatch_runtime.observing import observing
from nanobatch_runtime.scratch import scratch_folder
from nanobatch_runtime.settings import SettingsError, load
from nanobatch_web.protocol import BoundedProtocol
from nanobatch_web.settings import MOUNT, WebSettings

_log = structlog.get_logger("nanobatch.web")


def main(argv: Sequence[str] = ()) -> int:
    """Read the environment and serve; the exit code of the process.

    ``--socket FD`` serves on a socket that a parent has opened, ``--parent PID`` dies with it.
    """
    arguments = argparse.ArgumentParser(prog="nanobatch-web")
    arguments.add_argument("--socket", type=int)
    arguments.add_argument("--parent", type=int)
    given = arguments.parse_args(list(argv))
    if given.parent is not None:
        child.die_with(given.parent)
    try:
        settings = load(WebSettings)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201  # before there is a log
        return 2
    return run(settings, given.socket)


def run(settings: WebSettings, inherited: int | None = None) -> int:
    """Serve until SIGTERM or SIGINT and return 0; 1 where it cannot listen, with the reason in the log."""
    logs.configure(settings.log_level, for_good=True)
    try:
        listening = _listen(settings.listen) if inherited is None else socket.socket(fileno=inherited)
    except OSError as error:
        _log.error("web.cannot_listen", address=settings.listen, reason=error.strerror)
        return 1
    with listening, scratch_folder("page") as folder:
        # Where Gradio keeps files that are dropped on the page, until their hour is over. It asks when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        return uvloop.run(_serve(settings, listening))


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host.strip("[]"), int(port)))
    return listening


async def _serve(settings: WebSettings, listening: socket.socket) -> int:
    from nanobatch_web.app import make_app  # noqa: PLC0415  # and Gradio with it, which asks for its folder then

    port = int(listening.getsockname()[1])
    try:
        async with observing(settings, "web") as observed:
            app = make_app(settings, port)
            config = uvicorn.Config(
                app,
                http=BoundedProtocol,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=3,
            )
            server = _Server(config)
            observed.ready_when(lambda: server.started and not server.should_exit)
            host = settings.listen.rpartition(":")[0]
            _log.info("web.listening", address=f"http://{host}:{port}{MOUNT}/")
            await _until_signalled(server, listening)
    except UnavailableError as error:
        _log.error("web.cannot_serve", reason=error.reason, message=error.message)  # no trace needed
        return 1
    return 0


async def _until_signalled(server: uvicorn.Server, listening: socket.socket) -> None:
    signalled = asyncio.create_task(wait_for_signal(), name="signal")
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="web")
    try:
        await asyncio.wait({signalled, serving}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        await cancel(signalled)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process ends in one place."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
