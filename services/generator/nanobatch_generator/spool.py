"""Paid pictures on disk, from the provider's answer to storage's commit: a crash between the two costs no second call.

Each process has a folder of its own under the root, locked while it lives; a folder whose lock is free was left by a
process that died, and is replayed by whoever starts next. An entry is its bytes, then a small JSON file written last:
without a valid one, or where the hash does not fit, the entry was never whole and is removed.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from nanobatch_generator.domain import LeaseRef, Usage
from nanobatch_generator.reused_files import ReusedFiles, is_free
from nanobatch_runtime.ids import new_id

_log = structlog.get_logger("nanobatch.spool")

_LOCK = "lock"
_MASTER = ".master"
_RECORD = ".json"


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """An answered attempt whose picture lies on disk. It holds neither key nor prompt."""

    folder: Path
    ref: LeaseRef
    attempt_id: str
    lease_duration: timedelta
    usage: Usage
    response_id: str
    processing_time: timedelta

    @property
    def master(self) -> Path:
        """The provider's bytes."""
        return self.folder / f"{self.attempt_id}{_MASTER}"

    @property
    def record(self) -> Path:
        """The JSON file that makes the entry valid."""
        return self.folder / f"{self.attempt_id}{_RECORD}"

    def to_json(self, sha256: str) -> str:
        """Return the record's content; ``sha256`` is the hash that the bytes are verified by."""
        return json.dumps(
            {
                "result_id": self.ref.result_id,
                "lease_id": self.ref.lease_id,
                "attempt_id": self.attempt_id,
                "lease_seconds": self.lease_duration.total_seconds(),
                "sha256": sha256,
                "usage": asdict(self.usage),
                "response_id": self.response_id,
                "processing_seconds": self.processing_time.total_seconds(),
            }
        )

    @classmethod
    def from_json(cls, folder: Path, text: str) -> SpoolEntry:
        """Read a record. Raises ValueError, KeyError or TypeError where it is none."""
        record = json.loads(text)
        return cls(
            folder=folder,
            ref=LeaseRef(record["result_id"], record["lease_id"]),
            attempt_id=record["attempt_id"],
            lease_duration=timedelta(seconds=record["lease_seconds"]),
            usage=Usage(**record["usage"]),
            response_id=record["response_id"],
            processing_time=timedelta(seconds=record["processing_seconds"]),
        )


class Spool:
    """The folder of this process, and those that dead ones left."""

    def __init__(self, root: Path) -> None:
        """Make and lock a folder under ``root`` (both 0700), and take over what is left there. Blocking, short."""
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
        self._locks: dict[Path, int] = {}
        self.folder = root / new_id()
        # Starting processes take turns, so that none takes a folder that another has made and not locked yet.
        with (root / _LOCK).open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._left = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and self._lock(folder)]
            self.folder.mkdir(mode=0o700)
            self._lock(self.folder)
        self._files = ReusedFiles(self.folder)

    async def write(self, entry: SpoolEntry, data: bytes) -> None:
        """Write bytes and record before anything else is done with them. Raises OSError.

        Not synced: this is for processes that die, and a file survives its process. After a power cut the hash tells
        whether an entry is whole; where it is not, its call stays in the ledger as one that may have been charged.
        """
        await asyncio.to_thread(self._write, entry, data)

    async def remove(self, entry: SpoolEntry) -> None:
        """Forget an entry; the record goes first, so that no half of it is ever replayed."""
        await asyncio.to_thread(self._remove, entry)

    async def leftovers(self) -> list[SpoolEntry]:
        """Return the whole entries that dead processes left; broken ones are removed."""
        return await asyncio.to_thread(lambda: [entry for folder in self._left for entry in _entries(folder)])

    def close(self) -> None:
        """Unlock; folders without entries are removed, others stay for the next start."""
        self._files.close()
        for folder, lock in self._locks.items():
            if not any(folder.glob(f"*{_RECORD}")):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        self._locks.clear()

    def _lock(self, folder: Path) -> bool:
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # its process has just ended and removed it
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._locks[folder] = lock
        return True

    def _write(self, entry: SpoolEntry, data: bytes) -> None:
        try:
            self._files.write(entry.master, data)
            self._files.write(entry.record, entry.to_json(sha256_of(data)).encode())
        except OSError:
            self._remove(entry)
            raise

    def _remove(self, entry: SpoolEntry) -> None:
        for path in (entry.record, entry.master):
            if entry.folder == self.folder:
                self._files.remove(path)
            else:
                path.unlink(missing_ok=True)


def sha256_of(data: bytes) -> str:
    """Return the hash under which an entry is verified."""
    return hashlib.sha256(data).hexdigest()


def _entries(folder: Path) -> Iterator[SpoolEntry]:
    whole = set()
    for record in sorted(folder.glob(f"*{_RECORD}")):
        try:
            text = record.read_text()
            entry = SpoolEntry.from_json(folder, text)
            intact = record == entry.record and sha256_of(entry.master.read_bytes()) == json.loads(text)["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            intact = False
        if intact:
            whole.add(entry.attempt_id)
            yield entry
    for path in folder.iterdir():
        if path.name == _LOCK or path.stem in whole:
            continue
        if not is_free(path):
            _log.warning("spool.half_written", file=path.name)
        path.unlink(missing_ok=True)
