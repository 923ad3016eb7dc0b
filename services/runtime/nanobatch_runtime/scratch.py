"""Temporary folders that do not stay behind: not after an end in order, and not after a kill either.

Each is locked while its process lives. Whoever makes the next one removes those whose lock is free.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "nanobatch-"
_LOCK = ".lock"


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """Make a folder of our own (0700) under ``TMPDIR`` and remove it at the end. Blocking, short."""
    _remove_stale(Path(tempfile.gettempdir()), f"{_PREFIX}{kind}-")
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{kind}-"))
    # Locked first and named after that: nobody finds a lock that is free and yet to be taken.
    unnamed = folder / f"{_LOCK}-unnamed"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_stale(root: Path, prefix: str) -> None:
    for folder in root.glob(f"{prefix}*"):
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # somebody else's, or none of ours
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
