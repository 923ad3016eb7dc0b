# ruff: noqa: N802  # servicer methods are named by the contract
"""What the scripted gateway does with any call, with pictures and with models."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from nanobatch.gateway.v1 import image_pb2, image_service_pb2_grpc, model_pb2, model_service_pb2_grpc
from nanobatch.gateway.v1 import image_service_pb2 as im
from nanobatch.gateway.v1 import model_service_pb2 as ms

Context = grpc.aio.ServicerContext


class Arrivals:
    """Notes every call, and lets it fail or hang where told so."""

    def __init__(self) -> None:
        """Nothing has arrived yet."""
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.failures: dict[str, deque[status_pb2.Status]] = defaultdict(deque)
        self.hanging: set[str] = set()

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(1 for name, _, _ in self.calls if name == method)

    async def _arrive(self, method: str, request: Any, context: Context[Any, Any]) -> None:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.calls.append((method, request, metadata))
        if method in self.hanging:
            await asyncio.Event().wait()
        if self.failures[method]:
            await context.abort_with_status(rpc_status.to_status(self.failures[method].popleft()))


class PicturesAndModels(
    Arrivals, image_service_pb2_grpc.ImageServiceServicer, model_service_pb2_grpc.ModelServiceServicer
):
    """Keeps bytes without looking into them; knows two models."""

    def __init__(self) -> None:
        """Nothing is stored yet."""
        super().__init__()
        self.pictures: dict[str, bytes] = {}
        self.damage: set[str] = set()
        self.price_micros = 39_000
        self.archive = b""
        """What ExportExecution sends, whatever is asked for."""
        self.break_archive_at: int | None = None
        """A multiple of 256 KiB after which ExportExecution fails."""
        self.open_archives = 0

    def store(self, data: bytes) -> image_pb2.Image:
        """Keep bytes as a picture; nothing looks into them."""
        image_id = str(uuid.uuid4())
        self.pictures[image_id] = data
        return self._describe(image_id)

    def _describe(self, image_id: str) -> image_pb2.Image:
        data = self.pictures[image_id]
        return image_pb2.Image(
            id=image_id,
            kind=image_pb2.IMAGE_KIND_MASTER,
            mime_type="image/png",
            width=64,
            height=64,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    async def UploadImage(
        self, request_iterator: AsyncIterator[im.UploadImageRequest], context: Context[Any, Any]
    ) -> im.UploadImageResponse:
        """Keep what arrives."""
        data, messages = bytearray(), []
        async for message in request_iterator:
            messages.append(message)
            data += message.chunk
        await self._arrive("UploadImage", messages, context)
        return im.UploadImageResponse(image=self.store(bytes(data)))

    async def GetImage(self, request: im.GetImageRequest, context: Context[Any, Any]) -> im.GetImageResponse:
        """Describe one."""
        await self._arrive("GetImage", request, context)
        return im.GetImageResponse(image=self._describe(request.image_id))

    async def DownloadImage(
        self, request: im.DownloadImageRequest, context: Context[Any, Any]
    ) -> AsyncIterator[im.DownloadImageResponse]:
        """Send one, damaged where told so."""
        await self._arrive("DownloadImage", request, context)
        data = self.pictures[request.image_id]
        yield im.DownloadImageResponse(image=self._describe(request.image_id))
        if request.image_id in self.damage:
            data = data[:-1] + bytes([data[-1] ^ 1])
        for start in range(0, len(data), 256 * 1024):
            yield im.DownloadImageResponse(chunk=data[start : start + 256 * 1024])

    async def ExportExecution(
        self, request: im.ExportExecutionRequest, context: Context[Any, Any]
    ) -> AsyncIterator[im.ExportExecutionResponse]:
        """Send the archive that was laid ready, as far as told."""
        await self._arrive("ExportExecution", request, context)
        self.open_archives += 1
        try:
            for start in range(0, len(self.archive), 256 * 1024):
                if start == self.break_archive_at:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "It broke off.")
                yield im.ExportExecutionResponse(chunk=self.archive[start : start + 256 * 1024])
        finally:
            self.open_archives -= 1

    async def ListModels(self, request: ms.ListModelsRequest, context: Context[Any, Any]) -> ms.ListModelsResponse:
        """Two models."""
        await self._arrive("ListModels", request, context)
        gemini = model_pb2.Model(
            id="gemini-2.5-flash-image",
            provider="gemini",
            display_name="Nano Banana",
            prices=[model_pb2.ImagePrice(micros=self.price_micros)],
            max_reference_images=3,
            needs_key=True,
            warnings=["gemini-2.5-flash-image retires some day"],
        )
        sandbox = model_pb2.Model(id="sandbox", provider="sandbox", prices=[model_pb2.ImagePrice()])
        return ms.ListModelsResponse(models=[gemini, sandbox])

    async def CheckApiKey(self, request: ms.CheckApiKeyRequest, context: Context[Any, Any]) -> ms.CheckApiKeyResponse:
        """Take every key but ``bad``."""
        await self._arrive("CheckApiKey", request, context)
        valid = request.api_key != "bad"
        return ms.CheckApiKeyResponse(
            valid=valid, model_available=True, message="" if valid else "The provider does not take this key."
        )
