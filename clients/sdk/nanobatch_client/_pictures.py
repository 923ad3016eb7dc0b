"""Pictures over the wire: streamed in pieces, checked by hash, never half written under their final name."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import grpc

from nanobatch.gateway.v1 import image_pb2, image_service_pb2
from nanobatch_client import _translate
from nanobatch_client._transport import CHUNK_BYTES, Transport
from nanobatch_client.errors import IntegrityError
from nanobatch_client.models import Image, ImageKind

if TYPE_CHECKING:  # this name stands in the stubs' types only
    from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceAsyncStub

PictureSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"
"""A file by its path, bytes, or something open for reading bytes."""


async def upload(transport: Transport, stub: ImageServiceAsyncStub, source: PictureSource, kind: ImageKind) -> Image:
    """Send one picture. Not repeated by itself: nobody can tell whether a lost answer stored it."""
    opened, name, ours = await asyncio.to_thread(_open, source)
    try:
        response = await stub.UploadImage(
            _pieces(opened, image_pb2.ImageHeader(kind=_translate.image_kind(kind), filename=name[-255:])),
            timeout=transport.patience.transfer.total_seconds(),
            metadata=transport.metadata,
        )
    except grpc.aio.AioRpcError as error:
        raise transport.error(error) from None
    finally:
        if ours:
            opened.close()
    return transport.noted(_translate.image(response.image))


def _open(source: PictureSource) -> tuple[BinaryIO, str, bool]:
    """Return the open source, its name, and whether closing it is our business."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source), "", True
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.open("rb"), path.name, True
    name = getattr(source, "name", "")
    return source, Path(name).name if isinstance(name, str) else "", False


async def _pieces(
    opened: BinaryIO, header: image_pb2.ImageHeader
) -> AsyncIterator[image_service_pb2.UploadImageRequest]:
    yield image_service_pb2.UploadImageRequest(header=header)
    while chunk := await asyncio.to_thread(opened.read, CHUNK_BYTES):
        yield image_service_pb2.UploadImageRequest(chunk=chunk)


async def download(
    transport: Transport, stub: ImageServiceAsyncStub, image_id: str, path: Path, *, overwrite: bool
) -> Image:
    """Bring one picture to ``path``, under a temporary name beside it until it is whole and verified."""
    await refuse_existing(path, overwrite=overwrite)
    part = path.with_name(f".{secrets.token_hex(6)}.part")

    async def once() -> Image:
        return await _receive(transport, stub, image_id, part)

    try:
        image = await transport.repeat(once)
        await asyncio.to_thread(put, part, path, overwrite=overwrite)
    finally:
        part.unlink(missing_ok=True)
    return image


async def _receive(transport: Transport, stub: ImageServiceAsyncStub, image_id: str, part: Path) -> Image:
    call = stub.DownloadImage(
        image_service_pb2.DownloadImageRequest(image_id=image_id),
        timeout=transport.patience.transfer.total_seconds(),
        metadata=transport.metadata,
    )
    described: Image | None = None
    digest = hashlib.sha256()
    file = await asyncio.to_thread(part.open, "wb")
    try:
        async for message in call:
            if message.WhichOneof("data") == "image":
                described = _translate.image(message.image)
            else:
                digest.update(message.chunk)
                await asyncio.to_thread(file.write, message.chunk)
    except grpc.aio.AioRpcError as error:
        raise transport.error(error) from None
    finally:
        call.cancel()
        file.close()
    if described is None or digest.hexdigest() != described.sha256:
        message_text = f"The bytes of image {image_id} are not those that the server promised; nothing was kept."
        raise IntegrityError(message_text, reason="HASH_MISMATCH")
    return described


async def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError where something has the name already and may not be replaced."""
    if not overwrite and await asyncio.to_thread(os.path.lexists, path):
        raise FileExistsError(f"{path} is there already")


def put(part: Path, path: Path, *, overwrite: bool) -> None:
    """Give the finished file its name; where it must be new, the file system itself decides who was first."""
    if overwrite:
        part.replace(path)
        return
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # no hard links on this file system: reserve the name, then take its place
        path.open("xb").close()
        part.replace(path)
