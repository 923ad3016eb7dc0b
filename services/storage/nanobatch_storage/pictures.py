"""Pictures: bytes first, row second."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_runtime.failpoints import failpoint
from nanobatch_runtime.ids import is_id
from nanobatch_storage.domain import Actor, Image
from nanobatch_storage.errors import BadPictureError, ImageExistsError, ImageNotFoundError, OffsetOutsideError
from nanobatch_storage.ports import Blobs, Images

_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def blob_path(user_id: str, image_id: str, mime_type: str) -> str:
    """Return where the bytes of a picture lie."""
    return f"{user_id}/{image_id[:2]}/{image_id}.{_EXTENSIONS.get(mime_type, 'bin')}"


async def write_pictures(blobs: Blobs, pictures: Sequence[tuple[Image, AsyncIterator[bytes]]]) -> None:
    """Store the bytes of pictures, each under its ``blob_path``.

    Raises BadPictureError where they are not those that the descriptions announce; what is left behind then has no row.
    """
    await blobs.write([(image.blob_path, _verified(image, chunks)) for image, chunks in pictures])
    for _ in pictures:
        failpoint("picture_renamed")


async def put_upload(images: Images, blobs: Blobs, image: Image, chunks: AsyncIterator[bytes]) -> Image:
    """Store an upload and return its row; where its bytes lie is decided here.

    A repeat with the same bytes is answered as the first time. Raises InvalidArgumentError (ids), BadPictureError,
    ImageExistsError, UserNotFoundError.
    """
    if not is_id(image.id) or not is_id(image.user_id):  # both become part of a path
        raise InvalidArgumentError("Ids of pictures and users are UUIDs in lower case.")
    known = await images.get_many(Actor(image.user_id), [image.id])
    if known:  # its bytes are named by a row: they must not be touched
        if known[0].sha256 != image.sha256:
            raise ImageExistsError
        return known[0]
    placed = replace(image, blob_path=blob_path(image.user_id, image.id, image.mime_type))
    await write_pictures(blobs, [(placed, chunks)])
    return await images.add(placed)


async def open_picture(
    images: Images, blobs: Blobs, actor: Actor, image_id: str, *, offset: int = 0
) -> tuple[Image, AsyncIterator[bytes]]:
    """Return a picture and its bytes in chunks, from ``offset`` on.

    Raises ImageNotFoundError, OffsetOutsideError; reading may raise BlobMissingError.
    """
    found = await images.get_many(actor, [image_id])
    if not found:
        raise ImageNotFoundError
    if not 0 <= offset < max(1, found[0].size_bytes):
        raise OffsetOutsideError(found[0].size_bytes)
    return found[0], blobs.read(found[0].blob_path, offset)


async def _verified(image: Image, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    digest, size = hashlib.sha256(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > image.size_bytes:
            raise BadPictureError(f"More than the announced {image.size_bytes} bytes came.")
        digest.update(chunk)
        if chunk:
            yield chunk
    if size != image.size_bytes:
        raise BadPictureError(f"{size} bytes came, {image.size_bytes} were announced.")
    if digest.hexdigest() != image.sha256:
        raise BadPictureError("The bytes do not have the announced SHA-256.")
    failpoint("picture_written")
