"""Puts signed addresses of pictures into results, on their way to a client."""

from __future__ import annotations

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2, image_pb2
from nanobatch_gateway.domain import Caller, PicturesOfResult, WatchMessage
from nanobatch_gateway.ports import PictureLinks
from nanobatch_gateway.translate import pictures_of


class Linker:
    """Makes what a client gets out of what storage and generators tell."""

    def __init__(self, links: PictureLinks | None) -> None:
        """Without ``links`` (no HTTP port) the addresses stay empty."""
        self._links = links

    def result(self, caller: Caller, result: execution_pb2.Result) -> execution_pb2.Result:
        """Return the result with its addresses. The given one stays as it is: others may hold it, too."""
        pictures = pictures_of(result)
        if self._links is None or pictures is None:
            return result
        linked = execution_pb2.Result()
        linked.CopyFrom(result)
        linked.MergeFrom(self._addresses(self._links, caller, pictures))
        return linked

    def image(self, caller: Caller, image: image_pb2.Image) -> image_pb2.Image:
        """Return an uploaded picture with its address."""
        if self._links is None:
            return image
        linked = image_pb2.Image()
        linked.CopyFrom(image)
        linked.image_url = self._links.sign(caller, image.id, image.id)
        return linked

    def listed(self, caller: Caller, execution: execution_pb2.Execution) -> execution_pb2.Execution:
        """Return an execution of a list with the address of its cover."""
        cover = execution.cover_thumbnail_image_id
        if self._links is None or not cover:
            return execution
        linked = execution_pb2.Execution()
        linked.CopyFrom(execution)
        linked.cover_thumbnail_url = self._links.sign(caller, cover, "cover")
        return linked

    def piece(self, caller: Caller, message: WatchMessage) -> bytes:
        """Return what a watcher's message lacks: bytes to send behind those that all watchers share."""
        if self._links is None or message.pictures is None:
            return b""
        addresses = self._addresses(self._links, caller, message.pictures)
        return execution_service_pb2.WatchExecutionResponse(result=addresses).SerializeToString()

    def update(self, caller: Caller, message: WatchMessage) -> execution_service_pb2.WatchExecutionResponse:
        """Return a watcher's message, whole."""
        return execution_service_pb2.WatchExecutionResponse.FromString(message.wire + self.piece(caller, message))

    def _addresses(self, links: PictureLinks, caller: Caller, pictures: PicturesOfResult) -> execution_pb2.Result:
        ids = (pictures.image_id, pictures.thumbnail_id)
        image, thumbnail = (links.sign(caller, each, pictures.name) if each else "" for each in ids)
        return execution_pb2.Result(image_url=image, thumbnail_url=thumbnail)
