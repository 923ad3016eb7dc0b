"""A generator on the stage: it is killed, frozen and started again, and its call is told from those of its other lives."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from processes import free_port

if TYPE_CHECKING:
    from soak.stage import Stage


class Generator:
    """A place for a generator: its address and its disk stay, its processes come and go."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.number = number
        self.host, self.port = "127.0.0.1", free_port()
        self._stage = stage
        self._life = self._worked_in = 0
        self.process: subprocess.Popen | None = None

    @property
    def caller(self) -> str:
        """The name under which the provider knows the present process."""
        return f"g{self.number}-{self._life}"

    def start(self, **own: str) -> None:
        stage = self._stage
        self._life += 1
        self.process = stage.cluster.generator(
            f"g{self.number}",
            f"{stage.provider_url}/{self.caller}",
            at=f"{self.host}:{self.port}",
            NANOBATCH_STORAGE_TARGET=stage.storage_target,
            **own,
        )

    def is_busy(self) -> bool:
        """Whether the provider has a call of this very process."""
        return self._stage.provider.out().get(self.caller, 0) > 0

    def has_worked(self) -> bool:
        """Whether this very process has had a call since it was started."""
        if self._worked_in != self._life and self.is_busy():
            self._worked_in = self._life
        return self._worked_in == self._life

    def kill(self) -> None:
        assert self.process is not None
        self._stage.note("kill", self.caller)
        self.process.kill()
        self.process.wait()

    async def freeze(self, seconds: float) -> None:
        assert self.process is not None
        event = self._stage.note("freeze", self.caller)
        self.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        event["until"] = time.monotonic()
