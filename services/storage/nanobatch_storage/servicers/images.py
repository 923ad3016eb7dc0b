"""ImageService: pictures, in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from nanobatch.storage.v1 import image_service_pb2 as pb
from nanobatch.storage.v1 import image_service_pb2_grpc
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_storage import pictures
from nanobatch_storage.ports import Blobs, Images
from nanobatch_storage.translate import actor_from_proto
from nanobatch_storage.translate_images import image_from_proto, image_to_proto

Context = grpc.aio.ServicerContext[Any, Any]

_MAX_IDS = 1000


class ImageServicer(image_service_pb2_grpc.ImageServiceServicer):
    """Translates, calls one use case, translates back."""

    def __init__(self, images: Images, blobs: Blobs) -> None:
        """Take what the use cases need."""
        self._images = images
        self._blobs = blobs

    async def PutImage(
        self, request_iterator: AsyncIterator[pb.PutImageRequest], context: Context
    ) -> pb.PutImageResponse:
        """See the contract."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("data") != "header":
            raise InvalidArgumentError("The first message of an upload is its header.")
        announced = image_from_proto(first.header.image, actor_from_proto(first.header.actor))
        chunks = (message.chunk async for message in request_iterator)
        stored = await pictures.put_upload(self._images, self._blobs, announced, chunks)
        return pb.PutImageResponse(image=image_to_proto(stored))

    async def BatchGetImages(self, request: pb.BatchGetImagesRequest, context: Context) -> pb.BatchGetImagesResponse:
        """See the contract."""
        if len(request.image_ids) > _MAX_IDS:
            violation = FieldViolation("image_ids", f"At most {_MAX_IDS:,} ids.", "TOO_MANY")
            raise InvalidArgumentError("Too many ids at once.", violations=[violation])
        found = await self._images.get_many(actor_from_proto(request.actor), list(request.image_ids))
        return pb.BatchGetImagesResponse(images=[image_to_proto(image) for image in found])

    async def ReadImage(self, request: pb.ReadImageRequest, context: Context) -> AsyncIterator[pb.ReadImageResponse]:
        """See the contract."""
        actor = actor_from_proto(request.actor)
        image, chunks = await pictures.open_picture(
            self._images, self._blobs, actor, request.image_id, offset=request.offset
        )
        yield pb.ReadImageResponse(image=image_to_proto(image), offset=request.offset)
        async for chunk in chunks:
            yield pb.ReadImageResponse(chunk=chunk)
