"""Pictures on the local disk or in an S3-compatible store, through one library."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from nanobatch_runtime.rpc.options import CHUNK_BYTES
from nanobatch_runtime.settings import SettingsError
from nanobatch_storage.errors import BlobMissingError, BlobsUnavailableError, DiskFullError
from nanobatch_storage.ports import NewBlob

# No part of a multipart upload but the last may be smaller (S3's user guide, "multipart upload limits"). Most pictures
# are, and go in one request.
_PART_BYTES = 5 * 1024 * 1024
_PARTS_AT_ONCE = 2
_CONNECT_LIMIT = timedelta(seconds=3)
# Silence, and not the whole of a request: a large picture may be read slowly.
_SILENCE_LIMIT = timedelta(seconds=10)
_REQUEST_LIMIT = timedelta(minutes=5)
_RETRIES = 3
_RETRY_LIMIT = timedelta(seconds=15)
_PROBE = "probe"
_MOST_NAMED = 10_000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class S3Access:
    """How an S3-compatible store is reached; empty: as AWS's own libraries find it out (variables, roles)."""

    endpoint: str = ""
    region: str = ""
    key_id: str = ""
    secret: str = ""


def open_blobs(url: str, access: S3Access = S3Access()) -> ObstoreBlobs:  # frozen
    """Open the store at NANOBATCH_BLOB_URL (``file:///folder``, ``s3://bucket/prefix``). Raises SettingsError."""
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return S3Blobs(parts.netloc, parts.path.strip("/"), access)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise SettingsError("NANOBATCH_BLOB_URL: write file:///folder or s3://bucket/prefix.")
    return LocalBlobs(Path(unquote(parts.path)))


class ObstoreBlobs:
    """See :class:`nanobatch_storage.ports.Blobs`; what is the same for all stores of the library."""

    _store: LocalStore | S3Store

    async def write(self, files: Sequence[NewBlob]) -> None:
        """See the port."""
        raise NotImplementedError  # each store has its own way

    async def read(self, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """See the port."""
        with _told():
            try:
                found = await obstore.get_async(
                    self._store, path, options={"range": {"offset": offset}} if offset else None
                )
            except FileNotFoundError:
                raise BlobMissingError from None
            async for piece in found.stream(min_chunk_size=CHUNK_BYTES):
                whole = bytes(piece)
                for start in range(0, len(whole), CHUNK_BYTES):
                    yield whole[start : start + CHUNK_BYTES]

    async def delete(self, path: str) -> None:
        """See the port."""
        with _told():
            try:
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                return

    async def older_than(self, time: datetime) -> AsyncIterator[Sequence[str]]:
        """See the port."""
        with _told():
            async for batch in obstore.list(self._store, chunk_size=500):
                yield [entry["path"] for entry in batch if entry["last_modified"] < time]

    async def delete_if_older(self, path: str, time: datetime) -> bool:
        """See the port."""
        with _told():
            try:
                entry = await obstore.head_async(self._store, path)
                if entry["last_modified"] >= time:
                    return False
                await obstore.delete_async(self._store, path)
            except FileNotFoundError:
                return False
        return True

    async def probe(self) -> None:
        """See the port."""
        # What a process that dies here leaves behind is an orphan, and goes with the others.
        path, data = f"{_PROBE}/{secrets.token_hex(8)}", secrets.token_bytes(1024)
        await self.write([(path, _once(data))])
        try:
            back = b"".join([piece async for piece in self.read(path)])
        finally:
            await self.delete(path)
        if back != data:
            raise BlobsUnavailableError("What was written came back changed.")


class LocalBlobs(ObstoreBlobs):
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Keep everything under ``folder``, which is made where it is missing, for its owner alone."""
        try:
            # One by one: Python gives parents that it makes on the way to everybody.
            for missing in [path for path in (*reversed(folder.parents), folder) if not path.exists()]:
                missing.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"NANOBATCH_BLOB_URL: {folder} cannot be made: {error.strerror}.") from None
        self._folder = folder
        self._store: LocalStore = LocalStore(folder)
        self._named: set[Path] = set()
        """Folders whose own names are on the disk."""

    async def write(self, files: Sequence[NewBlob]) -> None:
        """See the port."""
        # Written beside its place and renamed at the end. Small files are at hand before anything is written: one trip to
        # one thread for all of them, instead of one for each chunk and another to sync.
        small: list[tuple[str, bytes]] = []
        with _told():
            for path, chunks in files:
                first = await _gathered(chunks)
                if sum(map(len, first)) < _PART_BYTES:
                    small.append((path, b"".join(first)))
                else:
                    await obstore.put_async(self._store, path, _chained(first, chunks))
                    await asyncio.to_thread(self._sync, path)
            if small:
                await asyncio.to_thread(self._put, small)

    def _put(self, files: Sequence[tuple[str, bytes]]) -> None:
        for path, data in files:
            obstore.put(self._store, path, data, use_multipart=False)
            self._sync(path)

    def _sync(self, path: str) -> None:
        """Bring the file and its name to the disk, and those of its folders the first time: the library leaves it to chance."""
        place = self._folder / path
        _fsync(place)
        for folder in place.parents:
            _fsync(folder)
            if folder == self._folder or folder in self._named:
                break
            if len(self._named) >= _MOST_NAMED:
                self._named.clear()
            self._named.add(folder)


class S3Blobs(ObstoreBlobs):
    """Objects of one bucket under a prefix. A write appears as a whole, and is kept once it is answered."""

    def __init__(self, bucket: str, prefix: str, access: S3Access) -> None:
        """Nothing is asked yet: see :meth:`probe`."""
        given = {
            "endpoint": access.endpoint,
            "region": access.region,
            "access_key_id": access.key_id,
            "secret_access_key": access.secret,
        }
        self._store: S3Store = S3Store(
            bucket,
            prefix=prefix or None,
            config={name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # names of S3Config
            client_options={
                "allow_http": access.endpoint.startswith("http://"),
                "connect_timeout": _CONNECT_LIMIT,
                "read_timeout": _SILENCE_LIMIT,
                "timeout": _REQUEST_LIMIT,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_LIMIT},
        )

    async def write(self, files: Sequence[NewBlob]) -> None:
        """See the port."""
        for path, chunks in files:
            await self._write(path, chunks)

    async def _write(self, path: str, chunks: AsyncIterator[bytes]) -> None:
        # All of a small picture is at hand before anything is sent: one request instead of the three of an upload in
        # parts, and one that breaks off has not begun.
        first = await _gathered(chunks)
        small = sum(map(len, first)) < _PART_BYTES
        with _told():
            try:
                if small:
                    await obstore.put_async(self._store, path, b"".join(first), use_multipart=False)
                else:
                    everything = _chained(first, chunks)
                    await obstore.put_async(
                        self._store, path, everything, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
                    )
            except FileNotFoundError as error:  # the bucket
                raise BlobsUnavailableError(_first_line(error)) from error


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _gathered(chunks: AsyncIterator[bytes]) -> list[bytes]:
    found: list[bytes] = []
    size = 0
    async for chunk in chunks:
        found.append(chunk)
        size += len(chunk)
        if size >= _PART_BYTES:
            break
    return found


async def _chained(first: Sequence[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in first:
        yield chunk
    async for chunk in rest:
        yield chunk


@contextmanager
def _told() -> Iterator[None]:
    """Turn the library's errors into ours. Whatever a caller's own chunks raise passes unchanged."""
    try:
        yield
    except BaseError as error:
        # The library gives no errno: the words are the system's own, from the error that it wraps.
        if any(os.strerror(number) in str(error) for number in _FULL):
            raise DiskFullError("the pictures") from error
        raise BlobsUnavailableError(_first_line(error)) from error
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError("the pictures") from error
        raise


def _first_line(error: Exception) -> str:
    """Say what the library said, without the dump that follows: it names addresses and codes, never a key."""
    return str(error).strip().partition("\n")[0]


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
