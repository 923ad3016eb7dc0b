"""One process owns a SQLite file: two would each keep a queue of their own in mind (and SQLite itself warns of it)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanobatch_runtime.errors import UnavailableError


class DatabaseInUseError(UnavailableError):
    """Another process owns the file."""

    reason = "DATABASE_IN_USE"


@contextmanager
def owning(database: Path) -> Iterator[None]:
    """Own a database file while the context is open, by a lock that the system releases however the process ends.

    Raises DatabaseInUseError.
    """
    database = database.resolve()
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"The database {database} is in use by another nanobatch process; stop that one first."
            raise DatabaseInUseError(text) from None
        # Prompts and encrypted keys are nobody else's business, whatever the folder allows.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        yield
    finally:
        os.close(handle)
