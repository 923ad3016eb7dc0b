"""ImageService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import grpc

from nanobatch.gateway.v1 import image_service_pb2 as pb
from nanobatch.gateway.v1 import image_service_pb2_grpc
from nanobatch_gateway.auth import current_caller
from nanobatch_gateway.domain import ImageNotFoundError
from nanobatch_gateway.export import ExportExecution
from nanobatch_gateway.fields import Violations, required_id
from nanobatch_gateway.linking import Linker
from nanobatch_gateway.ports import Images
from nanobatch_gateway.servicers.writing import STALL_LIMIT, writer
from nanobatch_gateway.uploads import UploadImage
from nanobatch_runtime.errors import InvalidArgumentError

_REST_BYTES = 16 * 1024 * 1024
_REST_TIME = timedelta(seconds=5)

Context = grpc.aio.ServicerContext[Any, Any]


class ImageServicer(image_service_pb2_grpc.ImageServiceServicer):
    """Pictures over gRPC; the contract stands in the proto."""

    def __init__(
        self,
        upload: UploadImage,
        images: Images,
        export: ExportExecution,
        linker: Linker,
        *,
        stall: timedelta = STALL_LIMIT,
    ) -> None:
        """``stall`` is how long a downloader may leave one message lying."""
        self._upload = upload
        self._export = export
        self._images = images
        self._linker = linker
        self._stall = stall

    async def UploadImage(
        self, request_iterator: AsyncIterator[pb.UploadImageRequest], context: Context
    ) -> pb.UploadImageResponse:
        """See the proto."""
        requests = aiter(request_iterator)
        try:
            return await self._take(requests)
        except InvalidArgumentError:
            await _read_on(requests)
            raise

    async def _take(self, requests: AsyncIterator[pb.UploadImageRequest]) -> pb.UploadImageResponse:
        first = await anext(requests, None)
        if first is None or first.WhichOneof("data") != "header":
            found = Violations()
            found.add("header", "The first message must be the header.", "REQUIRED")
            found.raise_any()
            raise AssertionError
        header = first.header
        image = await self._upload(current_caller(), header.kind, header.filename, _chunks(requests))
        return pb.UploadImageResponse(image=image)

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> pb.GetImageResponse:
        """See the proto."""
        image_id = required_id("image_id", request.image_id)
        caller = current_caller()
        images = await self._images.find(caller, [image_id])
        if image_id not in images:
            raise ImageNotFoundError("There is no such picture.")
        return pb.GetImageResponse(image=self._linker.image(caller, images[image_id]))

    async def DownloadImage(
        self, request: pb.DownloadImageRequest, context: Context
    ) -> AsyncIterator[pb.DownloadImageResponse]:
        """See the proto."""
        image_id = required_id("image_id", request.image_id)
        send = writer(context, self._stall)
        async with self._images.read(current_caller(), image_id) as pieces:
            async for piece in pieces:
                await send(piece)
        nothing: tuple[
            pb.DownloadImageResponse, ...
        ] = ()  # all was sent above; a stream's handler is a generator all the same
        for response in nothing:
            yield response

    async def ExportExecution(
        self, request: pb.ExportExecutionRequest, context: Context
    ) -> AsyncIterator[pb.ExportExecutionResponse]:
        """See the proto."""
        send = writer(context, self._stall)
        async with self._export(current_caller(), request.execution_id, request.result_ids) as pieces:
            async for piece in pieces:
                await send(pb.ExportExecutionResponse(chunk=piece))
        nothing: tuple[pb.ExportExecutionResponse, ...] = ()  # as above
        for response in nothing:
            yield response


async def _read_on(requests: AsyncIterator[pb.UploadImageRequest]) -> None:
    """Throw away a bounded rest of a refused upload.

    A client of Python's gRPC that is cut while it still sends reports "Internal error from Core" in place of our answer.
    """
    left = _REST_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_REST_TIME.total_seconds()):
            async for request in requests:
                left -= len(request.chunk)
                if left < 0:
                    return


async def _chunks(requests: AsyncIterator[pb.UploadImageRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("data") == "header":
            found = Violations()
            found.add("header", "Only the first message is a header.", "CONFLICT")
            found.raise_any()
        yield request.chunk
