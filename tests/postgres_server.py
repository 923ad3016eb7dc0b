"""A private PostgreSQL on a free port: for suites that want a database, and for the soak, which also kills it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

_SUPERUSER = "postgres"
OWNER = "nanobatch"
"""Owns the databases and is no superuser, as storage should be: row-level security holds for it."""
_START_SECONDS = 30.0
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class PostgresMissingError(Exception):
    """There is none on this machine, or it does not start; the message says what to do."""


class PostgresServer:
    """A private server; every test gets a database of its own from it. Make it with :func:`private_postgres`."""

    def __init__(self, folder: Path, settings: dict[str, str | int], environment: dict[str, str] | None = None) -> None:
        self.port = _free_port()
        # Of the server alone, not of setpriv: what is loaded before the change of user belongs to root.
        self._environment = ["env", *(f"{name}={value}" for name, value in (environment or {}).items())]
        self._folder = folder
        self._binaries = _binaries()
        # PostgreSQL refuses to run as root.
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        )
        if self._as_user:
            shutil.chown(folder, "postgres", "postgres")
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.tablespace = "pg_default"
        """Where databases are made."""
        flags = ["-A", "trust", "-U", _SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        initdb = [*self._as_user, self._binaries / "initdb", "-D", folder / "data", *flags]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder)

    def start(self) -> None:
        """Start it and wait until it answers. Raises PostgresMissingError with its log where it does not."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [
            *self._as_user,
            *self._environment,
            self._binaries / "postgres",
            "-D",
            self._folder / "data",
            *options,
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._make_owner()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresMissingError(f"The private PostgreSQL did not start:\n{self.log()}") from None
                time.sleep(0.05)
            else:
                return

    def _make_owner(self) -> None:
        with self.connect() as connection:
            if connection.execute("select from pg_roles where rolname = %s", [OWNER]).fetchone() is None:
                # One statement for both, so that a start that is cut off leaves neither. The setting is for rows that
                # are known to fit (queue_seed).
                role = f"create role {OWNER} login createdb"
                connection.execute(f"{role}; grant set on parameter session_replication_role to {OWNER}".encode())

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT closes connections and writes everything out, SIGQUIT is an immediate end with recovery after."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def log(self) -> str:
        """Return what it has written so far."""
        return (self._folder / "log").read_text(errors="replace")

    def url(self, database: str, port: int | None = None) -> str:
        """Return the URL of a database as its owner, through another port where one is given."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{port or self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Open a connection of the superuser that commits each statement."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user=_SUPERUSER, dbname=database, autocommit=True)

    def run(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, template: str = "template0") -> str:
        """Make a database like ``template`` and return its name."""
        name = f"test_{secrets.token_hex(6)}"
        self.run(f'create database "{name}" template "{template}" owner {OWNER} tablespace {self.tablespace}')
        return name

    def drop(self, name: str) -> None:
        self.run(f'drop database if exists "{name}" with (force)')

    @contextmanager
    def databases_at(self, place: Path) -> Iterator[None]:
        """Make databases in that folder while the context is open; they have to be dropped before it ends. The log stays."""
        if self._as_user:
            shutil.chown(place, "postgres", "postgres")
        self.run(f"create tablespace elsewhere location '{place}'")
        self.tablespace = "elsewhere"
        try:
            yield
        finally:
            self.tablespace = "pg_default"
            self.run("drop tablespace elsewhere")


@contextmanager
def private_postgres(*, durable: bool = False, environment: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run one, gone without a trace afterwards; ``durable`` where it is to survive being killed.

    ``environment`` is added to what the server inherits.
    """
    folder = Path(tempfile.mkdtemp(prefix="nanobatch-postgres-"))
    try:
        server = PostgresServer(folder, {} if durable else dict(_FAST), environment)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    raise PostgresMissingError(
        "PostgreSQL 15 or newer is needed for these tests and was not found: install it (apt-get install postgresql)."
    )


def _major(version: str) -> int:
    digits = version.split(".", maxsplit=1)[0]
    return int(digits) if digits.isdigit() else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
