"""ZIP archives made while they are sent: what is in memory is one piece of one file, whatever the archive's size.

The standard library writes to what cannot seek: lengths and checksums then follow a file's bytes ("data descriptors",
APPNOTE 4.3.9), and the directory at the end has them, which is what programs read. Pictures are compressed already, so all
is stored as it is. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

_ENOUGH = 64 * 1024
_MODE = 0o644 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: its name, and how its bytes are opened when its turn comes."""

    name: str
    content: AbstractAsyncContextManager[AsyncIterator[bytes]]


async def zip_pieces(entries: AsyncIterator[Entry], made: datetime) -> AsyncGenerator[bytes, None]:
    """Yield an archive of ``entries``, each of them below 4 GiB and dated ``made``, in pieces of 64 KiB and more."""
    out = _Outbox()
    when = max(made.timetuple()[:6], (1980, 1, 1, 0, 0, 0))  # ZIP's first day
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        async for entry in entries:
            described = zipfile.ZipInfo(entry.name, when)
            described.external_attr = _MODE
            async with entry.content as chunks:
                with archive.open(described, "w") as file:
                    async for chunk in chunks:
                        file.write(chunk)
                        if out.size >= _ENOUGH:
                            yield out.take()
    yield out.take()


class _Outbox(io.RawIOBase):
    """Where the archive is written to, and from where it is taken away. It cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are what zipfile and we write
        self._pieces.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.size = 0
        return taken
