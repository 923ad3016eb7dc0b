"""The encryption key of a machine that was given none: made at the first start, kept in the data folder."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "encryption.key"


def load_or_make(folder: Path) -> str:
    """Return the key of ``folder``; makes one (64 hex characters, mode 0600) where there is none.

    Raises PermissionError where others could read it: such a key protects nothing.
    """
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} can be read by others; run: chmod 600 {path}") from None
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        key = os.urandom(32).hex()
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key
