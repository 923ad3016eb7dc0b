"""UploadImage: bytes to a private file, counted while they come; checked, cleaned, handed to storage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from io import FileIO
from pathlib import Path
from tempfile import TemporaryDirectory

from nanobatch_gateway.domain import (
    MAX_UPLOAD_BYTES,
    Caller,
    Message,
    Picture,
    UploadKind,
    UploadTooSlowError,
)
from nanobatch_gateway.fields import Violations, shown
from nanobatch_gateway.ports import Images, Pictures
from nanobatch_runtime.ids import new_id

MAX_CHUNK_BYTES = 1024 * 1024
MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """A picture that may be stored: checked, cleaned, in a file that goes when its context ends."""

    kind: UploadKind
    picture: Picture
    path: Path


class UploadImage:
    """Takes pictures in."""

    def __init__(
        self, pictures: Pictures, images: Images, folder: Path, *, time_limit: timedelta = timedelta(minutes=5)
    ) -> None:
        """``folder`` is private to this process; ``time_limit`` is how long the bytes may take to come."""
        self._pictures = pictures
        self._images = images
        self._folder = folder
        self._time_limit = time_limit

    async def __call__(self, caller: Caller, kind: int, name: str, chunks: AsyncIterator[bytes]) -> Message:
        """Store one picture and return its description. Raises what :meth:`prepared` raises."""
        async with self.prepared(kind, name, chunks) as upload:
            return await self.store(caller, upload, new_id())

    @asynccontextmanager
    async def prepared(self, kind: int, name: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[PreparedUpload]:
        """Take the bytes in, check and clean them; the clean picture lies in a file while the context is open.

        Raises InvalidRequestError for a bad header, more than 10 MiB (at once, without reading on) and what is no good
        picture; UploadTooSlowError. Nothing of it stays in the folder, whatever happens.
        """
        checked = _kind(kind, name)
        with TemporaryDirectory(dir=self._folder) as own:  # whatever a killed check leaves behind goes with it
            raw, clean = Path(own, "raw"), Path(own, "clean")
            try:
                async with asyncio.timeout(self._time_limit.total_seconds()):
                    await _spool(chunks, raw)
            except TimeoutError:
                seconds = self._time_limit.total_seconds()
                raise UploadTooSlowError(f"The bytes did not come within {seconds:g} s.") from None
            picture = await self._pictures.prepare_upload(raw, clean, name=shown(name) if name else "The upload")
            yield PreparedUpload(checked, picture, clean)

    async def store(self, caller: Caller, upload: PreparedUpload, image_id: str) -> Message:
        """Hand a prepared picture to storage and return its description; the same picture under the same id is one."""
        return await self._images.put(caller, image_id, upload.kind, upload.picture, upload.path)


def _kind(kind: int, name: str) -> UploadKind:
    found = Violations()
    if kind and kind not in set(UploadKind):
        found.add("header.kind", "Only REFERENCE and SOURCE pictures are uploaded.", "UNKNOWN_VALUE")
    if len(name) > MAX_NAME_CHARACTERS:
        found.add("header.filename", f"The name is longer than {MAX_NAME_CHARACTERS} characters.", "TOO_LONG")
    found.raise_any()
    return UploadKind(kind or UploadKind.REFERENCE)


async def _spool(chunks: AsyncIterator[bytes], path: Path) -> None:
    """Write the chunks to a new file that only this user can read."""
    size = 0
    with await asyncio.to_thread(_new_file, path) as file:
        async for chunk in chunks:
            size += len(chunk)
            found = Violations()
            if len(chunk) > MAX_CHUNK_BYTES:
                found.add("chunk", "A chunk is larger than 1 MiB.", "TOO_LONG")
            if size > MAX_UPLOAD_BYTES:
                found.add("chunk", "The picture is larger than 10 MiB.", "TOO_LONG")
            found.raise_any()
            await asyncio.to_thread(file.write, chunk)
    if not size:
        found = Violations()
        found.add("chunk", "The picture has no bytes.", "REQUIRED")
        found.raise_any()


def _new_file(path: Path) -> FileIO:
    path.touch(mode=0o600, exist_ok=False)
    return path.open("wb", buffering=0)
