"""The encryption key of a machine that was given none: made at the first start, kept in the data folder."""

from __future__ import annotations

import os
from pathlib import Path

from nanobatch_runtime.errors import NanobatchError

NAME = "encryption.key"
_DATABASE = "nanobatch.db"


class KeyFileError(NanobatchError):
    """The key file cannot be used; the message says what to do."""

    reason = "KEY_FILE"


def load_or_make(folder: Path) -> str:
    """Return the key of ``folder``; makes one (64 hex characters, mode 0600) where there is none.

    Raises KeyFileError where others could read it (such a key protects nothing), or where there is a database already:
    a new key would open nothing in it.
    """
    path = folder / NAME
    if not path.exists() and (folder / _DATABASE).exists():
        message = (
            f"{path} is missing, and {_DATABASE} beside it was made with it. Bring it back, or set ENCRYPTION_KEY."
        )
        raise KeyFileError(message)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others; run: chmod 600 {path}") from None
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        key = os.urandom(32).hex()
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key
