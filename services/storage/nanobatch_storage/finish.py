"""Ending an attempt: with pictures, or with a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from nanobatch_runtime.bus import Bus
from nanobatch_runtime.failpoints import failpoint
from nanobatch_storage import topics
from nanobatch_storage.domain import (
    Completion,
    EndedCall,
    Failure,
    Image,
    ImageKind,
    LeaseRef,
    NewPicture,
    Opening,
    ResultState,
)
from nanobatch_storage.errors import BadPictureError
from nanobatch_storage.lease import announce
from nanobatch_storage.pictures import blob_path, write_pictures
from nanobatch_storage.ports import Blobs
from nanobatch_storage.ports_queue import Ledger

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def start(ledger: Ledger, bus: Bus, lease: LeaseRef, bucket_id: str, ended: EndedCall | None) -> str:
    """Open the attempt of a lease. Raises LeaseLostError, WindowFullError."""
    try:
        return await ledger.start(lease, bucket_id, ended)
    finally:
        if ended is not None:
            await announce(bus, [])  # another one may stand by now


async def end_call(ledger: Ledger, bus: Bus, lease: LeaseRef, attempt_id: str) -> None:
    """Free the call's place in the window and wake whoever waits for one. Raises LeaseLostError."""
    await ledger.end_call(lease, attempt_id)
    await announce(bus, [])


async def complete(
    ledger: Ledger, blobs: Blobs, bus: Bus, completion: Completion, chunks: AsyncIterator[bytes]
) -> ResultState:
    """Store the pictures, then the rows, under the fence of the lease. Raises LeaseLostError, BadPictureError.

    A repeat under the same attempt is answered as the first time, without writing anything.
    """
    if [picture.kind for picture in completion.pictures].count(ImageKind.MASTER) != 1:
        raise BadPictureError("A completion has exactly one master picture.")
    opening = await ledger.check(completion.lease, completion.attempt_id)
    if opening.done is not None:
        return opening.done
    pictures = [_image_of(picture, opening) for picture in completion.pictures]
    source = _Splitter(chunks)
    await write_pictures(blobs, [(picture, source.take(picture.size_bytes)) for picture in pictures])
    await source.expect_end()
    completed = await ledger.complete(completion, pictures)
    failpoint("before_hint")
    if completed.makes_room:
        await announce(bus, [completed.execution_id])
    else:
        await bus.publish(topics.execution(completed.execution_id))
    return completed.state


async def fail(ledger: Ledger, bus: Bus, lease: LeaseRef, attempt_id: str | None, failure: Failure) -> ResultState:
    """Close the attempt; policy decides on the next state. Raises LeaseLostError."""
    state, touched = await ledger.fail(lease, attempt_id, failure)
    await announce(bus, touched)
    return state


def _image_of(picture: NewPicture, opening: Opening) -> Image:
    return Image(
        id=picture.id,
        user_id=opening.user_id,
        kind=picture.kind,
        mime_type=picture.mime_type,
        width=picture.width,
        height=picture.height,
        size_bytes=picture.size_bytes,
        sha256=picture.sha256,
        blob_path=blob_path(opening.user_id, picture.id, picture.mime_type),
        execution_id=opening.execution_id,
        create_time=EPOCH,  # set by the transaction that writes the row
        expire_time=None,
    )


class _Splitter:
    """Cuts one stream of bytes into pictures of known lengths."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    async def take(self, size: int) -> AsyncIterator[bytes]:
        while size > 0:
            while not self._rest:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    raise BadPictureError("The stream ended before all announced bytes had come.")
                self._rest = chunk
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece

    async def expect_end(self) -> None:
        if self._rest or await anext(self._chunks, b""):
            raise BadPictureError("More bytes came than were announced.")
