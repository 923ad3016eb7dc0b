"""Input pictures over storage's ImageService."""

from __future__ import annotations

import grpc

from nanobatch.storage.v1 import common_pb2
from nanobatch.storage.v1 import image_service_pb2 as pb
from nanobatch.storage.v1.image_service_pb2_grpc import ImageServiceStub
from nanobatch_generator.adapters.errors_grpc import translated
from nanobatch_generator.domain import ImageGoneError, InputImage, StorageDownError
from nanobatch_runtime.errors import Kind, NanobatchError

_READ_SECONDS = 60.0


class GrpcImages:
    """See :class:`nanobatch_generator.ports.Images`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """``channel`` belongs to the caller."""
        self._stub = ImageServiceStub(channel)

    async def read(self, user_id: str, image_id: str) -> InputImage:
        """See the port."""
        request = pb.ReadImageRequest(actor=common_pb2.Actor(user_id=user_id), image_id=image_id)
        mime_type, size, chunks = "", 0, []
        try:
            with translated():
                async for piece in self._stub.ReadImage(request, timeout=_READ_SECONDS):
                    if piece.WhichOneof("data") == "image":
                        mime_type, size = piece.image.mime_type, piece.image.size_bytes
                    else:
                        chunks.append(piece.chunk)
        except NanobatchError as error:
            if error.kind is Kind.NOT_FOUND:
                raise ImageGoneError("An input picture of this prompt no longer exists; upload it again.") from error
            raise
        data = b"".join(chunks)
        if len(data) != size:  # a stream that ended early must not become a paid call with half a picture
            raise StorageDownError(f"Picture {image_id} came with {len(data)} of {size} bytes.")
        return InputImage(mime_type, data)
