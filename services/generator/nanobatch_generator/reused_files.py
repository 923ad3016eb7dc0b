"""Files that are emptied and used again instead of removed and made anew.

Removing three files a picture and making them again cost a sixteenth of its CPU on ext4: to make a file it passes by every
inode that was freed in the last seconds, one after the other.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from pathlib import Path

_FREE = ".free"
_MOST = 64
"""So many empty files are kept at most."""


class ReusedFiles:
    """The files of one folder, which stay open. Blocking; may be called from several threads at once.

    Each step of a file's way gives the interpreter's lock away and has to wait for it again, so there are few.
    """

    def __init__(self, folder: Path) -> None:
        """``folder`` is this process's own."""
        self._folder = folder
        self._free: deque[tuple[Path, int]] = (
            deque()
        )  # its two ends, and single entries of a dict, are safe without a lock
        self._open: dict[Path, int] = {}
        self._made = itertools.count()

    def write(self, path: Path, data: bytes) -> None:
        """Write a file (0600) that is there as a whole or not at all. Raises OSError."""
        try:
            free, handle = self._free.pop()
        except IndexError:
            free = self._name()
            handle = os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(handle, data[written:] if written else data, written)
            free.rename(path)
        except OSError:
            free.unlink(missing_ok=True)
            os.close(handle)
            raise
        self._open[path] = handle

    def remove(self, path: Path) -> None:
        """Take a file away; it is fine where there is none."""
        handle = self._open.pop(path, None)
        if handle is None:  # somebody else's
            path.unlink(missing_ok=True)
            return
        free = self._name()
        try:
            path.rename(free)
            os.ftruncate(handle, 0)
        except OSError:
            os.close(handle)
            raise
        if len(self._free) < _MOST:
            self._free.append((free, handle))
            return
        free.unlink()
        os.close(handle)

    def close(self) -> None:
        """Close them all; they stay where they are."""
        for handle in [*self._open.values(), *(handle for _, handle in self._free)]:
            os.close(handle)
        self._open.clear()
        self._free.clear()

    def _name(self) -> Path:
        return self._folder / f"{next(self._made)}{_FREE}"


def is_free(path: Path) -> bool:
    """Whether the name says that the file is nobody's."""
    return path.suffix == _FREE
