"""Pictures in storage, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc

from nanobatch.storage.v1 import image_service_pb2 as storage_pb2
from nanobatch.storage.v1 import image_service_pb2_grpc
from nanobatch_gateway import translate
from nanobatch_gateway.adapters.calls import ask_storage, limit, storage_stream
from nanobatch_gateway.domain import Caller, Message, Picture, UploadKind
from nanobatch_runtime.rpc.options import CHUNK_BYTES

_MOST_IDS = 1_000
_TRANSFER_LIMIT = timedelta(minutes=5)


class GrpcImages:
    """See :class:`nanobatch_gateway.ports.Images`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = image_service_pb2_grpc.ImageServiceStub(channel)

    async def find(self, caller: Caller, image_ids: Collection[str]) -> dict[str, Message]:
        """See :class:`nanobatch_gateway.ports.Images`."""
        ids = sorted(image_ids)
        found: dict[str, Message] = {}
        for start in range(0, len(ids), _MOST_IDS):  # one call, but for the rare request that names more
            request = storage_pb2.BatchGetImagesRequest(
                actor=translate.actor(caller), image_ids=ids[start : start + _MOST_IDS]
            )
            response = await ask_storage(self._stub.BatchGetImages(request, timeout=limit()))
            found.update((image.id, image) for image in response.images)
        return found

    async def put(self, caller: Caller, image_id: str, kind: UploadKind, picture: Picture, path: Path) -> Message:
        """See :class:`nanobatch_gateway.ports.Images`."""
        header = storage_pb2.PutImageHeader(
            actor=translate.actor(caller), image=translate.new_image(image_id, kind, picture)
        )
        call = self._stub.PutImage(_pieces(header, path), timeout=limit(_TRANSFER_LIMIT))
        return (await ask_storage(call)).image

    @asynccontextmanager
    async def read(self, caller: Caller, image_id: str) -> AsyncIterator[AsyncIterator[Message]]:
        """See :class:`nanobatch_gateway.ports.Images`."""
        request = storage_pb2.ReadImageRequest(actor=translate.actor(caller), image_id=image_id)
        call = self._stub.ReadImage(request, timeout=limit(_TRANSFER_LIMIT))
        async with storage_stream(call) as pieces:
            yield (translate.download_message(piece) async for piece in pieces)

    @asynccontextmanager
    async def read_part(
        self, caller: Caller, image_id: str, first: int, last: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """See :class:`nanobatch_gateway.ports.Images`."""
        request = storage_pb2.ReadImageRequest(actor=translate.actor(caller), image_id=image_id, offset=first)
        call = self._stub.ReadImage(request, timeout=limit(_TRANSFER_LIMIT))
        async with storage_stream(call) as pieces:
            # Errors of the first message come before anything is sent on. A storage of the version before begins at 0.
            opening = await anext(pieces, None)
            yield _cut(pieces, opening.offset if opening is not None else first, first, last)


async def _cut(
    pieces: AsyncIterator[storage_pb2.ReadImageResponse], at: int, first: int, last: int
) -> AsyncIterator[bytes]:
    """Return the bytes from ``first`` to ``last`` of a stream that begins ``at``, and read no further."""
    async for piece in pieces:
        chunk = piece.chunk
        wanted = chunk[max(0, first - at) : last + 1 - at]
        at += len(chunk)
        if wanted:
            yield wanted
        if at > last:
            return


async def _pieces(header: storage_pb2.PutImageHeader, path: Path) -> AsyncIterator[storage_pb2.PutImageRequest]:
    yield storage_pb2.PutImageRequest(header=header)
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield storage_pb2.PutImageRequest(chunk=chunk)
