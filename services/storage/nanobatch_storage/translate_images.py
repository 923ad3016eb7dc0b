"""Images: protobuf to domain and back."""

from __future__ import annotations

from datetime import UTC, datetime

from nanobatch.gateway.v1 import image_pb2
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_storage.domain import Actor, Image, ImageKind

_NOT_YET = datetime.fromtimestamp(0, UTC)


def image_from_proto(message: image_pb2.Image, actor: Actor) -> Image:
    """Return the upload that a message announces, without times and place: storage decides on those.

    Raises InvalidArgumentError.
    """
    kind = image_pb2.ImageKind.Name(message.kind).removeprefix("IMAGE_KIND_")
    if kind not in ImageKind.__members__:
        raise InvalidArgumentError("An image needs a kind.", violations=[FieldViolation("image.kind", "Unknown kind.")])
    return Image(
        id=message.id,
        user_id=actor.user_id,
        kind=ImageKind[kind],
        mime_type=message.mime_type,
        width=message.width,
        height=message.height,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        blob_path="",
        execution_id=None,
        create_time=_NOT_YET,
        expire_time=None,
    )


def image_to_proto(image: Image) -> image_pb2.Image:
    """Return the wire form."""
    message = image_pb2.Image(
        id=image.id,
        kind=image_pb2.ImageKind.Value(f"IMAGE_KIND_{image.kind}"),
        mime_type=image.mime_type,
        width=image.width,
        height=image.height,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
    )
    message.create_time.FromDatetime(image.create_time)
    if image.expire_time is not None:
        message.expire_time.FromDatetime(image.expire_time)
    return message
