"""Finished pictures over storage's CompleteResult stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path

import grpc

from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceStub
from nanobatch_generator.adapters.errors_grpc import answer
from nanobatch_generator.domain import Completion, StorageDownError
from nanobatch_generator.translate import header_to_proto, state_name
from nanobatch_runtime.rpc.options import CHUNK_BYTES

_UPLOAD_SECONDS = 120.0
# Several chunks at a time: each read is a trip to another thread.
_BLOCK_BYTES = 4 * CHUNK_BYTES


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
        blocks = _blocks([picture.path for picture in self._completion.pictures])
        try:
            while block := await asyncio.to_thread(next, blocks, b""):
                for start in range(0, len(block), CHUNK_BYTES):
                    yield pb.CompleteResultRequest(chunk=block[start : start + CHUNK_BYTES])
        except OSError as error:
            self.error = error
            raise
        finally:
            blocks.close()


def _blocks(paths: Sequence[Path]) -> Generator[bytes]:
    """Iterate over all files as one, a block at a time: small ones cost one trip to a thread together."""
    block = b""
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(_BLOCK_BYTES - len(block)):
                block += piece
                if len(block) == _BLOCK_BYTES:
                    yield block
                    block = b""
    if block:
        yield block
