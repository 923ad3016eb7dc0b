"""A private S3-compatible server (moto) in a process of its own; ended by pid, everything in it gone with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from processes import ROOT, free_port

_PACKAGES = ROOT / ".venv/s3"
_START_SECONDS = 60.0
KEY_ID, SECRET = "key-of-the-tests", "secret-of-the-tests"


class S3Server:
    """moto's server on a free port of loopback. It believes every signature, and keeps everything in memory."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets = 0

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(_PACKAGES)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.ask("GET", "/")
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"The private S3 server did not start:\n{self._log.read_text()}", pytrace=False)
                time.sleep(0.05)
            else:
                return

    def bucket(self) -> str:
        """Make a bucket and return its name."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.ask("PUT", f"/{name}")
        return name

    def environment(self, bucket: str, port: int | None = None) -> dict[str, str]:
        """Return what storage is told to keep its pictures there, through another port where one is given."""
        return {
            "NANOBATCH_BLOB_URL": f"s3://{bucket}/pictures",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def names(self, bucket: str) -> list[str]:
        """Return the names of all objects."""
        found: list[str] = []
        while True:
            after = urllib.parse.quote(found[-1]) if found else ""
            answer = ET.fromstring(self.ask("GET", f"/{bucket}?list-type=2&start-after={after}"))  # noqa: S314  # ours
            names = [str(each.text) for each in answer.iterfind("{*}Contents/{*}Key")]
            if not names:
                return sorted(found)
            found += names

    def mirror(self, bucket: str, prefix: str, folder: Path) -> None:
        """Copy all objects under a prefix into a folder, by their names behind it."""
        for name in self.names(bucket):
            if name.startswith(prefix):
                place = folder / name.removeprefix(prefix)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(self.ask("GET", f"/{bucket}/{name}"))

    def empty(self, bucket: str) -> None:
        """Delete all objects."""
        for name in self.names(bucket):
            self.ask("DELETE", f"/{bucket}/{name}")

    def uploads(self, bucket: str) -> int:
        """Return how many uploads in parts were neither completed nor aborted."""
        return self.ask("GET", f"/{bucket}?uploads").count(b"<Upload>")

    def ask(self, method: str, path: str) -> bytes:
        """Send a request by hand and return the answer's body. Raises OSError."""
        # Objects are nobody's who shows no key; which one it is does not matter here.
        shown = {"Authorization": f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/us-east-1/s3/aws4_request"}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=shown)  # noqa: S310  # our own
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return bytes(answer.read())

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def private_s3() -> Iterator[S3Server]:
    """Run one while the context is open. Fails, never skips, where `make setup` has not brought it."""
    if not _PACKAGES.is_dir():
        pytest.fail("The S3 server of the tests is not there: run make setup.", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="nanobatch-s3-"))
    server = S3Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
