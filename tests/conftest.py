"""What several suites share: a PostgreSQL and a Redis of their own, and a clock that stands still."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from postgres_server import PostgresMissingError, PostgresServer, private_postgres
from redis_server import RedisServer, private_redis
from s3_server import S3Server, private_s3

from nanobatch_runtime.clock import ManualClock

# Busy machines are slow at moments: what an example takes says nothing of the code.
settings.register_profile("nanobatch", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nanobatch")


@pytest.fixture(scope="session", autouse=True)
def temporary_folder() -> Iterator[None]:
    """Keep what is temporary, also of processes that are killed, in one folder, and remove it. Sockets want a short name."""
    with tempfile.TemporaryDirectory(prefix="nb-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as somebody else
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", folder)
            patch.setattr(tempfile, "tempdir", folder)
            yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A private PostgreSQL on a free port, gone without a trace afterwards. Fails, never skips, where there is none."""
    try:
        with private_postgres() as server:
            yield server
    except PostgresMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private Redis of one test, to be frozen, killed and started again. Fails, never skips, where there is none."""
    with private_redis() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A private S3-compatible server; every test makes a bucket of its own. Fails, never skips, where there is none."""
    with private_s3() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock()
