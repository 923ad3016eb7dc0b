"""Calls that are made alone, each in a process of its own (``python -m nanobatch_generator.spare``)."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from nanobatch_generator import spare_wire
from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    PictureRequest,
    ProviderError,
    SpareUnavailableError,
)
from nanobatch_runtime import child

_log = structlog.get_logger("nanobatch.spare")

_START_SECONDS = 30.0
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_NETWORK = (*_PROXIES, *(name.lower() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")


class SpareProcesses:
    """See :class:`nanobatch_generator.ports.Spare`."""

    def __init__(self, settings: Mapping[str, str | float | bool], *, memory_bytes: int, log_level: str) -> None:
        """``settings`` are those of the providers; ``memory_bytes`` is what one process may address."""
        self._settings = dict(settings)
        self._memory_bytes = memory_bytes
        self._log_level = log_level

    @asynccontextmanager
    async def process(self, provider: str) -> AsyncGenerator[_SpareProcess]:
        """See the port. Leaving it kills the process, whatever it does."""
        started = await self._start()
        try:
            spare = _SpareProcess(started)
            await spare.prepare({**self._settings, "provider": provider})
            yield spare
        finally:
            with suppress(ProcessLookupError):
                started.kill()
            with suppress(ConnectionError):
                await started.communicate()  # to the end of its output: only then are the pipes closed, too

    async def _start(self) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module of the current folder
                "-m",
                "nanobatch_generator.spare",
                str(os.getpid()),
                str(self._memory_bytes),
                self._log_level,
                stdin=PIPE,
                stdout=PIPE,
                env=child.environment(*_NETWORK),
                start_new_session=True,
            )
        except OSError as error:
            raise _unavailable() from error


class _SpareProcess:
    """One process, for one call."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None  # noqa: S101 - made with PIPE
        assert process.stdout is not None  # noqa: S101 - made with PIPE
        self._process, self._calls, self._answers = process, process.stdin, process.stdout

    async def prepare(self, settings: dict[str, str | float | bool]) -> None:
        """Wait until it can make a call at once. Raises SpareUnavailableError."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await self._ask(spare_wire.pack(settings))
        except TimeoutError:
            ready = None
        if ready is None:
            raise _unavailable()

    async def submit(self, request: PictureRequest, key: str) -> Done | Accepted:
        """See :class:`nanobatch_generator.ports.Provider`; WORKER_LOST where the process dies of it."""
        frame = await self._ask(spare_wire.request_frame(request, key))
        if frame is not None:
            return spare_wire.answer_of(frame)
        code = await self._process.wait()
        _log.warning("spare.died", exit_code=code, pid=self._process.pid)
        raise ProviderError(
            FailureClass.WORKER_LOST,
            "WORKER_LOST",
            "The process that made this call, and nothing else, has died of it. The call may have been charged.",
            charged=Charged.MAYBE,
            provider_status=f"exit {code}",
        )

    async def _ask(self, frame: bytes) -> spare_wire.Frame | None:
        with suppress(ConnectionError):  # told by the missing answer
            self._calls.write(frame)
            await self._calls.drain()
        return await spare_wire.receive(self._answers)


def _unavailable() -> SpareUnavailableError:
    return SpareUnavailableError("No process can be started for a call that is to be made alone.")
