"""Finished pictures over storage's CompleteResult stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Generator, Sequence
from itertools import islice

import grpc

from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceStub
from nanobatch_generator.adapters.errors_grpc import answer
from nanobatch_generator.domain import Completion, FinishedPicture, StorageDownError
from nanobatch_generator.translate import header_to_proto, state_name
from nanobatch_runtime.rpc.options import CHUNK_BYTES

_UPLOAD_SECONDS = 120.0
# Most pictures are read in one trip to another thread: it costs as much as reading them.
_CHUNKS_A_TRIP = 8


class GrpcSink:
    """See :class:`nanobatch_generator.ports.Sink`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """``channel`` belongs to the caller."""
        self._stub = LeaseServiceStub(channel)

    async def complete(self, completion: Completion) -> str:
        """See the port. Raises OSError where a file cannot be read."""
        upload = _Upload(completion)
        try:
            response = await answer(self._stub.CompleteResult(upload.messages(), timeout=_UPLOAD_SECONDS))
        except StorageDownError:
            # grpc shows a failed request iterator as a cancelled call: that is our disk then, not storage.
            if upload.error is not None:
                raise upload.error from None
            raise
        return state_name(response.state)


class _Upload:
    """The messages of one upload, and why they stopped."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self.error: OSError | None = None

    async def messages(self) -> AsyncIterator[pb.CompleteResultRequest]:
        yield pb.CompleteResultRequest(header=header_to_proto(self._completion))
        chunks = _chunks(self._completion.pictures)
        try:
            while True:
                read = await asyncio.to_thread(lambda: list(islice(chunks, _CHUNKS_A_TRIP)))
                for chunk in read:
                    yield pb.CompleteResultRequest(chunk=chunk)
                if len(read) < _CHUNKS_A_TRIP:
                    return
        except OSError as error:
            self.error = error
            raise
        finally:
            chunks.close()


def _chunks(pictures: Sequence[FinishedPicture]) -> Generator[bytes]:
    """Iterate over the bytes of all pictures as of one, a chunk at a time: small ones share it."""
    chunk = b""
    for picture in pictures:
        for piece in _pieces(picture, CHUNK_BYTES - len(chunk)):
            chunk = chunk + piece if chunk else piece
            if len(chunk) == CHUNK_BYTES:
                yield chunk
                chunk = b""
    if chunk:
        yield chunk


def _pieces(picture: FinishedPicture, first: int) -> Generator[bytes]:
    """Iterate over the bytes of a picture: at most ``first`` of them, then a chunk at a time."""
    if isinstance(picture.source, bytes):
        yield picture.source[:first]
        for start in range(first, len(picture.source), CHUNK_BYTES):
            yield picture.source[start : start + CHUNK_BYTES]
        return
    left, most = picture.facts.size_bytes, first
    handle = os.open(picture.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Its size is known: every step of a file's way has to wait for the interpreter's lock.
        while left > 0 and (piece := os.read(handle, min(left, most))):
            left -= len(piece)
            most = most - len(piece) or CHUNK_BYTES
            yield piece
    finally:
        os.close(handle)
