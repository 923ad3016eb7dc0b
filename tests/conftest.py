"""What several suites share: a PostgreSQL and a Redis of their own, and a clock that stands still."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from redis_server import RedisServer, private_redis

from nanobatch_runtime.clock import ManualClock

_MISSING = (
    "PostgreSQL 15 or newer is needed for these tests and was not found: install it (apt-get install postgresql)."
)


@dataclass(frozen=True)
class PostgresServer:
    """A running private server; every test gets a database of its own from it."""

    port: int

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://nanobatch@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str) -> None:
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="nanobatch", dbname="postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, template: str = "template0") -> str:
        """Make a database like ``template`` and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(f'create database "{name}" template "{template}"')
        return name

    def drop(self, name: str) -> None:
        self.run(f'drop database if exists "{name}" with (force)')


def _binaries() -> Path:
    places = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _major(path.parent.name), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            answer = subprocess.run(
                [place / "postgres", "--version"], capture_output=True, text=True, check=True
            ).stdout
            if _major(answer.split()[2]) >= 15:
                return place
    pytest.fail(_MISSING, pytrace=False)


def _major(version: str) -> int:
    digits = version.split(".", maxsplit=1)[0]
    return int(digits) if digits.isdigit() else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A private PostgreSQL on a free port, gone without a trace afterwards. Fails, never skips, where there is none."""
    binaries = _binaries()
    # PostgreSQL refuses to run as root.
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="nanobatch-postgres-"))
    try:
        if as_user:
            shutil.chown(folder, "postgres", "postgres")
        data, port = folder / "data", _free_port()
        flags = ["-A", "trust", "-U", "nanobatch", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        initdb = [*as_user, binaries / "initdb", "-D", data, *flags]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
        }
        with (folder / "log").open("wb") as log:
            options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
            server = subprocess.Popen(
                [*as_user, binaries / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder
            )
        try:
            running = PostgresServer(port)
            _wait_until_ready(running, server, folder / "log")
            yield running
        finally:
            server.send_signal(2)  # SIGINT: close connections and end
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(running: PostgresServer, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            running.run("select 1")
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                print(log.read_text(), file=sys.stderr)  # what pytest shows with the failure
                pytest.fail("The private PostgreSQL did not start.", pytrace=False)
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private Redis of one test, to be frozen, killed and started again. Fails, never skips, where there is none."""
    with private_redis() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock()
