"""What goes between a generator and a spare process: frames of some JSON and the bytes that belong to it; pure.

``length of JSON`` (8 bytes, big-endian), the JSON with the lengths of the blobs in it, the blobs. JSON and not pickle: the
process at the other end has read what strangers sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    InputImage,
    PictureRequest,
    ProviderError,
    Usage,
)

PREFIX = 8
Frame = tuple[dict[str, Any], list[bytes]]


def pack(head: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """Return a frame as bytes."""
    text = json.dumps({**head, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join((len(text).to_bytes(PREFIX, "big"), text, *blobs))


def read(take: Callable[[int], bytes]) -> Frame:
    """Read a frame with ``take(n)``, which gives exactly n bytes. Raises EOFError where the other end is gone."""

    def exactly(size: int) -> bytes:
        data = take(size)
        if len(data) < size:
            raise EOFError
        return data

    head = json.loads(exactly(int.from_bytes(exactly(PREFIX), "big")))
    return head, [exactly(size) for size in head.pop("blobs")]


async def receive(reader: asyncio.StreamReader) -> Frame | None:
    """Read a frame; None where the other end has died before it was whole."""
    try:
        size = int.from_bytes(await reader.readexactly(PREFIX), "big")
        head = json.loads(await reader.readexactly(size))
        return head, [await reader.readexactly(length) for length in head.pop("blobs")]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def request_frame(request: PictureRequest, key: str) -> bytes:
    """Return the frame of a call."""
    images = request.input_images
    head = {
        "key": key,
        "types": [image.mime_type for image in images],
        "request": {
            "model": request.model,
            "prompt": request.prompt,
            "aspect_ratio": request.aspect_ratio,
            "image_size": request.image_size,
            "seed": request.seed,
            "max_output_tokens": request.max_output_tokens,
            "attempts": request.attempts,
        },
        "seconds": request.timeout.total_seconds(),
    }
    return pack(head, [image.data for image in images])


def request_of(frame: Frame) -> tuple[PictureRequest, str]:
    """Return the call and its key."""
    head, blobs = frame
    images = tuple(InputImage(*image) for image in zip(head["types"], blobs, strict=True))
    request = PictureRequest(**head["request"], timeout=timedelta(seconds=head["seconds"]), input_images=images)
    return request, head["key"]


def answer_frame(done: Done | Accepted) -> bytes:
    """Return the frame of an answer."""
    if isinstance(done, Accepted):
        return pack({"task_id": done.task_id, "poll_after": done.poll_after.total_seconds()})
    return pack({"usage": asdict(done.usage), "response_id": done.response_id}, [done.data])


def error_frame(error: ProviderError) -> bytes:
    """Return the frame of a failure."""
    return pack(
        {
            "failure_class": error.failure_class.value,
            "code": error.code,
            "message": error.message,
            "charged": error.charged.value,
            "usage": asdict(error.usage) if error.usage else None,
            "retry_after": error.retry_after.total_seconds() if error.retry_after is not None else None,
            "provider_status": error.provider_status,
            "response_id": error.response_id,
        }
    )


def answer_of(frame: Frame) -> Done | Accepted:
    """Return the answer of a frame. Raises ProviderError where it is a failure."""
    head, blobs = frame
    if "task_id" in head:
        return Accepted(head["task_id"], timedelta(seconds=head["poll_after"]))
    if "failure_class" not in head:
        return Done(blobs[0], Usage(**head["usage"]), head["response_id"])
    raise ProviderError(
        FailureClass(head["failure_class"]),
        head["code"],
        head["message"],
        charged=Charged(head["charged"]),
        usage=Usage(**head["usage"]) if head["usage"] else None,
        retry_after=timedelta(seconds=head["retry_after"]) if head["retry_after"] is not None else None,
        provider_status=head["provider_status"],
        response_id=head["response_id"],
    )
