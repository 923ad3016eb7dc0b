"""Real processes for system tests and benchmarks: the fake upstream and the product, ended by pid, with what they used."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
NANOBATCH = Path(sys.executable).parent / "nanobatch"
DRAIN_SECONDS = "20"
"""Grace of a stop: less than the default, because tests leave calls hanging on purpose."""


@dataclass
class Upstream:
    """A running fake Gemini."""

    url: str
    ledger: Path

    def out(self) -> dict[str, int]:
        """Return how many generate calls are in flight, by caller."""
        with urllib.request.urlopen(f"{self.url}/out", timeout=10) as answer:  # noqa: S310  # our own
            return dict(json.load(answer))

    def calls(self) -> list[dict]:
        """Return the generate calls it has answered, in order of arrival."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return sorted(map(json.loads, lines), key=lambda call: call["arrived"])


@contextmanager
def upstream(
    folder: Path,
    *,
    picture_bytes: int,
    latency: str = "0",
    seed: int = 1,
    pixels: int | None = None,
    more: Sequence[str] = (),
) -> Iterator[Upstream]:
    """Run the fake Gemini in a process of its own; ``more`` are further options of its command line."""
    ledger = folder / f"upstream-{time.monotonic_ns()}.jsonl"
    command = [sys.executable, ROOT / "tests/fakes/gemini.py", "--port", "0", "--picture-bytes", str(picture_bytes)]
    command += ["--latency", latency, "--seed", str(seed), "--ledger", ledger, *more]
    command += ["--pixels", str(pixels)] if pixels else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Upstream(process.stdout.readline().strip(), ledger)
    finally:
        _end(process)


@dataclass
class Product:
    """A running ``nanobatch up``."""

    target: str
    process: psutil.Process
    data: Path
    popen: subprocess.Popen
    started: float
    """time.monotonic() when its process was started."""

    def cpu_seconds(self) -> float:
        """Return what it and its children have used so far, those that have ended included."""
        times = self.process.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self.process.children(recursive=True):
            used = child.cpu_times()
            total += used.user + used.system
        return total

    def peak_mib(self) -> float:
        """Return the peak resident memory of the process itself."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def children_mib(self) -> float:
        """Return the resident memory of its children now."""
        return sum(child.memory_info().rss for child in self.process.children(recursive=True)) / 2**20


@contextmanager
def product(
    folder: Path, *, upstream_url: str = "", environment: dict[str, str] | None = None, data: Path | None = None
) -> Iterator[Product]:
    """Run ``nanobatch up`` on a free port, with a data folder of its own unless one is given."""
    data = data or folder / f"data-{time.monotonic_ns()}"
    port = free_port()
    env = {
        "NANOBATCH_DATA_DIR": str(data),
        "NANOBATCH_DRAIN_SECONDS": DRAIN_SECONDS,
        "NANOBATCH_GATEWAY_GRPC": f"127.0.0.1:{port}",
        "NANOBATCH_GEMINI_BASE_URL": upstream_url,
        "NANOBATCH_WEB": "off",  # seconds of CPU that only tests of the page should pay
        **(environment or {}),
    }
    started = time.monotonic()
    with command(folder, "up", environment=env) as process:
        yield Product(f"127.0.0.1:{port}", psutil.Process(process.pid), data, process, started)


class Cluster:
    """The services as processes of their own over TCP, started and killed in any order. Make it with :func:`cluster`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.target, self.generator_target, self.storage_target = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.running: list[subprocess.Popen] = []
        self._environment = {
            "ENCRYPTION_KEY": os.urandom(32).hex(),
            "NANOBATCH_DRAIN_SECONDS": DRAIN_SECONDS,
            "NANOBATCH_DATA_DIR": str(folder / "data"),
            "NANOBATCH_GATEWAY_GRPC": self.target,
            "NANOBATCH_GENERATOR_TARGET": self.generator_target,
            "NANOBATCH_STORAGE_GRPC": self.storage_target,
            "NANOBATCH_STORAGE_TARGET": self.storage_target,
            **environment,
        }

    def storage(self, name: str = "storage", **own: str) -> subprocess.Popen:
        """Start a storage; ``own`` are variables of this one alone."""
        return self._start("storage", name, own)

    def gateway(self, name: str = "gateway", **own: str) -> subprocess.Popen:
        """Start a gateway; ``own`` are variables of this one alone."""
        return self._start("gateway", name, own)

    def generator(self, name: str, upstream_url: str = "", *, at: str = "127.0.0.1:0", **own: str) -> subprocess.Popen:
        """Start a generator with a spool of its own; the gateway streams from the one at ``generator_target``."""
        places = {"NANOBATCH_GENERATOR_GRPC": at, "NANOBATCH_DATA_DIR": str(self.folder / name)}
        return self._start("generator", name, places | {"NANOBATCH_GEMINI_BASE_URL": upstream_url} | own)

    def web(self, name: str = "web", **own: str) -> subprocess.Popen:
        """Start a page; ``own`` are its variables."""
        return self._start("web", name, own)

    def log(self, name: str) -> str:
        """Return what the service of that name has said so far."""
        return (self.folder / f"{name}.log").read_text()

    def _start(self, service: str, name: str, own: dict[str, str]) -> subprocess.Popen:
        environment = bare_environment(self.folder) | self._environment | own
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([NANOBATCH, "serve", service], env=environment, stderr=log, stdout=log)
        self.running.append(process)
        return process


@contextmanager
def cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    """Make an empty cluster whose processes have ended with the context; the database is SQLite unless one is given."""
    made = Cluster(folder, environment)
    try:
        yield made
    finally:
        for process in made.running:  # all at once: each of them may take its grace
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in made.running:
            _end(process)


@contextmanager
def command(folder: Path, *words: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """Run ``nanobatch WORDS`` with an environment of nothing but what is given, until the context ends."""
    with (folder / f"{'-'.join(words[:2])}.log").open("ab") as log:
        process = subprocess.Popen(
            [NANOBATCH, *words], env=bare_environment(folder) | (environment or {}), stderr=log, stdout=log
        )
    try:
        yield process
    finally:
        _end(process)


def bare_environment(folder: Path) -> dict[str, str]:
    """Return what a process needs of an environment, and nothing of ours."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": tempfile.gettempdir(),
        "NANOBATCH_GATEWAY_HTTP": "127.0.0.1:0",
    }


_PORTS = 3_000
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", f"gw{os.getpid() % 4}").removeprefix("gw"))
# Below the ports that connections get of themselves (32768 and up): one that was free a moment ago could be such a one
# when a process that has yet to start wants it. Each process of tests goes round in a part of its own.
_next_port = itertools.cycle(range(20_000 + _WORKER % 4 * _PORTS, 20_000 + (_WORKER % 4 + 1) * _PORTS))
for _ in range(os.getpid() % _PORTS):
    next(_next_port)


def free_port() -> int:
    """Return a port that nobody listens on, and that this process has not had for long."""
    while True:
        port = next(_next_port)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _end(process: subprocess.Popen) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
