"""The web page as a supervised child: Gradio's weight and blocking stay out of the process that pays for pictures.

The socket is opened here and handed down, so that the address is known and taken from the first moment, and a browser
that comes early, or while the child is being started again, simply waits.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog

from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_runtime.settings import SECRETS_DIR_VARIABLE

_log = structlog.get_logger("nanobatch.embedded")

_LAST_WORDS = 5.0
_LIVED = 60.0
"""Seconds after which a child counts as having worked: its death is a first failure again."""
_FIRST_WAIT, _LONGEST_WAIT = timedelta(seconds=0.5), timedelta(seconds=30)


def open_socket(address: str) -> socket.socket:
    """Listen on ``host:port``. Raises UnavailableError (ADDRESS_IN_USE)."""
    host, _, port = address.rpartition(":")
    listening = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host.strip("[]"), int(port)))
        listening.listen(128)
    except OSError as error:
        listening.close()
        message = f"Cannot listen on {address}: is something else running there?"
        raise UnavailableError(message, reason="ADDRESS_IN_USE") from error
    return listening


@asynccontextmanager
async def supervised(listening: socket.socket, gateway: str, pictures: str, log_level: str) -> AsyncIterator[None]:
    """Serve the page on a socket while the context is open; a child that dies is started again.

    ``gateway`` is its gRPC target, ``pictures`` how browsers reach its HTTP port (empty: not at all).
    """
    task = asyncio.create_task(_supervise(listening, gateway, pictures, log_level), name="web-page")
    try:
        yield
    finally:
        await cancel(task)


async def _supervise(listening: socket.socket, gateway: str, pictures: str, log_level: str) -> None:
    failures = 0
    while True:
        started = time.monotonic()
        code = await _run(listening, gateway, pictures, log_level)
        failures = 1 if time.monotonic() - started > _LIVED else failures + 1
        _log.warning("web.ended", exit_code=code, failures=failures)
        await asyncio.sleep(full_jitter(failures, base=_FIRST_WAIT, cap=_LONGEST_WAIT).total_seconds())


async def _run(listening: socket.socket, gateway: str, pictures: str, log_level: str) -> int:
    host, port = listening.getsockname()[:2]
    child = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "nanobatch_web.main",
            "--socket",
            str(listening.fileno()),
            "--parent",
            str(os.getpid()),
        ),
        env={
            # Not our keys: the page needs none of them.
            **{name: value for name, value in os.environ.items() if not _is_secret(name)},
            "NANOBATCH_WEB": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "NANOBATCH_GATEWAY_TARGET": gateway,
            "NANOBATCH_PUBLIC_URL": pictures,
            "NANOBATCH_LOG_LEVEL": log_level,
            "NANOBATCH_METRICS": "",  # that port is ours
            "OTEL_EXPORTER_OTLP_ENDPOINT": "",  # the page has no spans
        },
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=[listening.fileno()],
    )
    try:
        return await child.wait()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            try:
                async with asyncio.timeout(_LAST_WORDS):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()


def _is_secret(name: str) -> bool:
    return name in {"ENCRYPTION_KEY", SECRETS_DIR_VARIABLE} or name.endswith(("_API_KEY", "_TOKEN"))
