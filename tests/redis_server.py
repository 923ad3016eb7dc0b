"""A private Redis that a test may freeze, kill and bring back; ended by pid."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MISSING = "Redis 7 or newer is needed for these tests and was not found: install it (apt-get install redis-server)."


class RedisServer:
    """One ``redis-server`` on a free port of loopback, without persistence: a restart begins empty, on the same port."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._command = [binary, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*self._command, "--port", str(self.port)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.run("PING")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"The private Redis did not start:\n{self._log.read_text()}", pytrace=False)
                time.sleep(0.02)
            else:
                return

    def run(self, *words: str) -> str:
        """Send one command, like ``run("FLUSHALL")`` or ``run("CLIENT", "PAUSE", "500")``; its answer's first line."""
        encoded = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"*%d\r\n%s" % (len(words), encoded))
            answer = connection.makefile("rb").readline().decode().strip()
        if not answer or answer.startswith("-"):
            raise OSError(answer or "no answer")
        return answer

    def freeze(self) -> None:
        """Let it hang: connections stay open, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; :meth:`start` brings an empty one back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(which)


@contextmanager
def private_redis() -> Iterator[RedisServer]:
    """Run a Redis while the context is open. Fails, never skips, where there is none."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.fail(_MISSING, pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="nanobatch-redis-"))
    server = RedisServer(Path(found), folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
