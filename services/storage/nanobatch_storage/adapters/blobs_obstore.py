"""Pictures on the local disk, through the library that other stores will come with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import LocalStore

from nanobatch_runtime.rpc.options import CHUNK_BYTES
from nanobatch_runtime.settings import SettingsError
from nanobatch_storage.errors import BlobMissingError


def open_blobs(url: str) -> LocalBlobs:
    """Open the store at NANOBATCH_BLOB_URL (``file:///folder``). Raises SettingsError for what cannot be opened."""
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise SettingsError(f"NANOBATCH_BLOB_URL: only file:///folder is supported so far, not {parts.scheme}://...")
    return LocalBlobs(Path(unquote(parts.path)))


class LocalBlobs:
    """See :class:`nanobatch_storage.ports.Blobs`."""

    def __init__(self, folder: Path) -> None:
        """Keep everything under ``folder``, which is made where it is missing, for its owner alone."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._store = LocalStore(folder)

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        """See the port."""
        # Written beside its place and renamed at the end; where `chunks` raises, nothing appears.
        await obstore.put_async(self._store, path, chunks)
        await asyncio.to_thread(self._sync, path)

    async def read(self, path: str) -> AsyncIterator[bytes]:
        """See the port."""
        try:
            found = await obstore.get_async(self._store, path)
        except FileNotFoundError:
            raise BlobMissingError from None
        async for piece in found.stream(min_chunk_size=CHUNK_BYTES):
            whole = bytes(piece)
            for start in range(0, len(whole), CHUNK_BYTES):
                yield whole[start : start + CHUNK_BYTES]

    async def delete(self, path: str) -> None:
        """See the port."""
        try:
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return

    async def older_than(self, time: datetime) -> AsyncIterator[Sequence[str]]:
        """See the port."""
        async for batch in obstore.list(self._store, chunk_size=500):
            yield [entry["path"] for entry in batch if entry["last_modified"] < time]

    async def delete_if_older(self, path: str, time: datetime) -> bool:
        """See the port."""
        try:
            entry = await obstore.head_async(self._store, path)
            if entry["last_modified"] >= time:
                return False
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return False
        return True

    def _sync(self, path: str) -> None:
        """Bring the file and the names of it and its folders to the disk: the library leaves that to chance."""
        place = self._folder / path
        _fsync(place)
        for folder in place.parents:
            _fsync(folder)
            if folder == self._folder:
                break


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
