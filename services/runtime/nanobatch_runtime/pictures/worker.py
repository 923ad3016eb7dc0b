"""The parent's handle on one child process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from nanobatch_runtime import child
from nanobatch_runtime.pictures.errors import PictureCheckerUnavailableError, PictureCheckFailedError
from nanobatch_runtime.pictures.facts import PictureLimits

_START_SECONDS = 30.0
_LONGEST_LINE = 1024 * 1024
"""Bytes of an answer, which may hold a thumbnail."""


class WorkerGoneError(Exception):
    """The child was dead before it took up the task: no fault of that task."""


class Worker:
    """One child; does one task at a time."""

    def __init__(self, process: Process, limits: PictureLimits) -> None:
        """Use :meth:`start`."""
        self._process = process
        self._limits = limits
        self._killed = False
        self.tasks_done = 0

    @classmethod
    async def start(cls, limits: PictureLimits) -> Worker:
        """Start a child and wait until it can work; raises PictureCheckerUnavailableError where it cannot."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module of the current folder
                "-m",
                "nanobatch_runtime.pictures.child",
                str(os.getpid()),
                str(limits.memory_bytes),
                str(limits.time.total_seconds()),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=_LONGEST_LINE,
                env=child.environment(),
                start_new_session=True,  # Ctrl-C does not even reach one that has just begun to start
            )
        except OSError as error:
            raise PictureCheckerUnavailableError("Pictures cannot be checked at the moment.") from error
        worker = cls(process, limits)
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await worker._line()
        except BaseException as error:
            await worker.stop()
            if isinstance(error, TimeoutError):
                raise PictureCheckerUnavailableError("Pictures cannot be checked at the moment.") from None
            raise
        if ready is None:
            await worker.stop()
            raise PictureCheckerUnavailableError("Pictures cannot be checked at the moment.")
        return worker

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    async def ask(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return the child's answer to ``task``.

        Raises WorkerGoneError or PictureCheckFailedError; after that, as after a cancellation, the worker is good for
        nothing but :meth:`stop`.
        """
        if self._process.returncode is not None:
            raise WorkerGoneError
        seconds = self._limits.time.total_seconds()
        began = False
        try:
            async with asyncio.timeout(seconds):
                with suppress(ConnectionError):  # told by the missing answer
                    self._stdin.write(json.dumps(task).encode() + b"\n")
                    await self._stdin.drain()
                began = await self._line() is not None
                answer = await self._line() if began else None
        except TimeoutError:
            raise _failed("TIME", f"Checking the picture took longer than {seconds:g} seconds.") from None
        if answer is None:
            code = await self._process.wait()
            if not began:
                raise WorkerGoneError
            if code == -signal.SIGALRM:
                raise _failed("TIME", f"Checking the picture took longer than {seconds:g} seconds.")
            raise _failed("DIED", "The check of the picture ended unexpectedly.")
        if answer.get("error") == "MEMORY":
            most = self._limits.memory_bytes // (1024 * 1024)
            raise _failed("MEMORY", f"Checking the picture took more than {most} MiB of memory.")
        self.tasks_done += 1
        return answer

    def kill(self) -> None:
        """End the child at once; :meth:`stop` still has to be awaited."""
        # Once only: a second kill may take the exit code away from under the loop, which then wonders aloud.
        if not self._killed and self._process.returncode is None:
            self._killed = True
            with suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self) -> None:
        """End the child, whatever it is doing, and wait until nothing of it is left."""
        self.kill()
        with suppress(ConnectionError):
            await self._process.communicate()  # to the end of its output: only then are the pipes closed, too

    @property
    def _stdin(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None  # noqa: S101 - made with PIPE
        return self._process.stdin

    async def _line(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None  # noqa: S101 - made with PIPE
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer


def _failed(cause: str, message: str) -> PictureCheckFailedError:
    return PictureCheckFailedError(message, metadata={"cause": cause})
