"""ExportExecution: an execution's pictures as one archive, made while it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from nanobatch_gateway import manifest
from nanobatch_gateway.control import MAX_RESULTS
from nanobatch_gateway.domain import Caller, ExportedRun, Message, StorageUnavailableError
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.ports import Exports, Images
from nanobatch_gateway.zip_stream import Entry, zip_pieces

PIECE_LIMIT = timedelta(seconds=30)
"""How long storage may take for one piece of a picture."""


class ExportExecution:
    """Sends what is there; what is not is listed with its reason."""

    def __init__(self, exports: Exports, images: Images, *, patience: timedelta = PIECE_LIMIT) -> None:
        """Take what it works with; ``patience`` is the limit of one piece."""
        self._exports = exports
        self._images = images
        self._patience = patience

    @asynccontextmanager
    async def __call__(
        self, caller: Caller, execution_id: str, result_ids: Sequence[str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open the archive of the named results (none: all); leaving the context ends it.

        Raises InvalidRequestError and storage's own answers: of the execution before the first piece, of a picture in the
        middle, where it was deleted meanwhile.
        """
        found = Violations()
        found.id("execution_id", execution_id, required=True)
        if len(result_ids) > MAX_RESULTS:
            found.add("result_ids", f"{len(result_ids):,} are too many; at most {MAX_RESULTS} are taken.", "TOO_MANY")
        for number, result_id in enumerate(result_ids[:MAX_RESULTS]):
            found.id(f"result_ids[{number}]", result_id, required=True)
        found.raise_any()
        run = _only(await self._exports.read(caller, execution_id), result_ids)
        async with aclosing(zip_pieces(self._entries(caller, run), run.created)) as pieces:
            yield pieces

    async def _entries(self, caller: Caller, run: ExportedRun) -> AsyncIterator[Entry]:
        files = manifest.file_names(run.results)
        for name, make in (("manifest.json", manifest.as_json), ("manifest.csv", manifest.as_csv)):
            yield Entry(name, _at_once(await asyncio.to_thread(make, run, files)))
        for result in run.results:
            if result.id in files:
                yield Entry(files[result.id], self._picture(caller, result.image_id))

    @asynccontextmanager
    async def _picture(self, caller: Caller, image_id: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._images.read(caller, image_id) as pieces:
            yield self._chunks(pieces)

    async def _chunks(self, pieces: AsyncIterator[Message]) -> AsyncIterator[bytes]:
        left: int | None = None
        while True:
            try:
                async with asyncio.timeout(self._patience.total_seconds()):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise StorageUnavailableError("Storage did not go on with a picture.") from None
            if piece is None:
                break
            if left is None:
                left = piece.image.size_bytes
            else:
                left -= len(piece.chunk)
                yield piece.chunk
        if left:
            raise StorageUnavailableError("A picture broke off.")


def _only(run: ExportedRun, result_ids: Sequence[str]) -> ExportedRun:
    if not result_ids:
        return run
    there = {result.id for result in run.results}
    found = Violations()
    for number, result_id in enumerate(result_ids):
        if result_id not in there:
            found.add(f"result_ids[{number}]", f"The execution has no result {result_id}.", "NOT_FOUND")
    found.raise_any()
    wanted = set(result_ids)
    return replace(run, results=tuple(result for result in run.results if result.id in wanted))


@asynccontextmanager
async def _at_once(content: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), _PIECE):
            yield content[start : start + _PIECE]

    yield pieces()


_PIECE = 256 * 1024
