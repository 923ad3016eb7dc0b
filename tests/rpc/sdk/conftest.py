from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from nanobatch_client import Client, Patience
from nanobatch_client.testing import ScriptedGateway

IMPATIENT = Patience(
    timeout=timedelta(seconds=5),
    connect=timedelta(milliseconds=400),
    retry=timedelta(seconds=5),
    watch=timedelta(seconds=10),
)


@pytest.fixture
async def gateway() -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway() as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: ScriptedGateway) -> AsyncIterator[Client]:
    async with Client(gateway.target, patience=IMPATIENT) as client:
        yield client


@dataclass(frozen=True)
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Command:
    """Runs `nanobatch` in a process of its own, in a folder of its own, with an environment of its own."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        kept = {key: value for key, value in os.environ.items() if key in {"PATH", "PYTHONPATH", "LANG"}}
        self.environ = {**kept, "HOME": str(folder), "NANOBATCH_GATEWAY_TARGET": target}

    async def start(self, *args: str, **options: object) -> asyncio.subprocess.Process:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nanobatch_client", *args),
            # A shell's background job ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            **{"cwd": self.folder, "env": self.environ, **streams, **options},
        )

    async def __call__(self, *args: str, stdin: str = "", **environ: str) -> Ended:
        process = await self.start(*args, env={**self.environ, **environ})
        return await self.end(process, stdin)

    async def end(self, process: asyncio.subprocess.Process, stdin: str = "") -> Ended:
        stdout, stderr = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        return Ended(process.returncode, stdout.decode(), stderr.decode())

    async def interrupt(self, process: asyncio.subprocess.Process) -> Ended:
        process.send_signal(signal.SIGINT)
        return await self.end(process)

    def write(self, *prompts: str) -> str:
        (self.folder / "prompts.txt").write_text("\n\n".join(prompts), "utf-8")
        return "prompts.txt"


@pytest.fixture
def nanobatch(tmp_path: Path, gateway: ScriptedGateway) -> Command:
    return Command(tmp_path, gateway.target)


@pytest.fixture
def until_line() -> Callable[[asyncio.StreamReader, str], Awaitable[str]]:
    async def read(stream: asyncio.StreamReader, wanted: str) -> str:
        seen = ""
        while wanted not in seen:
            line = await asyncio.wait_for(stream.readline(), 30)
            assert line, f"{wanted!r} not in {seen!r}"
            seen += line.decode()
        return seen

    return read
