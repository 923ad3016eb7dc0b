"""Pictures through a real gateway, checked by the real checker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from io import BytesIO
from typing import Any

import grpc
import httpx
import pytest
from PIL import Image

from nanobatch.gateway.v1 import image_pb2
from nanobatch.gateway.v1 import image_service_pb2 as pb
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.testing import eventually

MIB = 1024 * 1024


def png(width: int = 8, height: int = 6) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return buffer.getvalue()


def noise(width: int, height: int) -> bytes:
    buffer = BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(buffer, "PNG")
    return buffer.getvalue()


def upload(data: bytes, *, kind: int = 0, name: str = "cat.png", chunk: int = 65_536) -> list[pb.UploadImageRequest]:
    header = pb.UploadImageRequest(header=image_pb2.ImageHeader(kind=kind, filename=name))  # type: ignore[arg-type]
    chunks = [pb.UploadImageRequest(chunk=data[start : start + chunk]) for start in range(0, len(data), chunk)]
    return [header, *chunks]


async def sending(requests: Iterable[pb.UploadImageRequest]) -> AsyncIterator[pb.UploadImageRequest]:
    for request in requests:
        yield request


async def refused_upload(world: Any, refused: Any, requests: Iterable[pb.UploadImageRequest]) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.images.UploadImage(sending(requests))
    assert not world.storage.images
    assert not leftovers(world)
    error = refused(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    return error


def leftovers(world: Any) -> list[str]:
    """Everything under the gateway's temporary folder but the folder that all uploads share, and its lock."""
    return [str(path) for folder in world.uploads.iterdir() for path in folder.iterdir() if path.name != ".lock"]


async def test_a_picture_is_checked_stored_and_comes_back_whole(world) -> None:
    data = noise(700, 500)
    response = await world.images.UploadImage(sending(upload(data, kind=image_pb2.IMAGE_KIND_SOURCE)))
    image = response.image
    assert (image.kind, image.mime_type, image.width, image.height) == (
        image_pb2.IMAGE_KIND_SOURCE,
        "image/png",
        700,
        500,
    )
    assert image.size_bytes == len(data)
    assert max(world.storage.chunk_sizes) == 256 * 1024
    assert not leftovers(world)
    described = await world.images.GetImage(pb.GetImageRequest(image_id=image.id))
    address = described.image.image_url
    described.image.ClearField("image_url")
    assert described.image == image
    async with httpx.AsyncClient() as browser:
        assert (await browser.get(address)).content == data
    pieces = [piece async for piece in world.images.DownloadImage(pb.DownloadImageRequest(image_id=image.id))]
    assert pieces[0].image == image
    assert b"".join(piece.chunk for piece in pieces[1:]) == data


async def test_an_upload_is_a_reference_unless_it_says_otherwise(world) -> None:
    response = await world.images.UploadImage(sending(upload(png())))
    assert response.image.kind == image_pb2.IMAGE_KIND_REFERENCE


async def test_orientation_is_applied(world) -> None:
    buffer = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    response = await world.images.UploadImage(sending(upload(buffer.getvalue())))
    assert (response.image.width, response.image.height) == (20, 40)


async def test_eleven_mebibytes_are_refused_precisely(world, refused) -> None:
    for size, chunk in ((11 * MIB, MIB), (11 * MIB, 256 * 1024), (24 * MIB, 256 * 1024), (24 * MIB, 64 * 1024)):
        error = await refused_upload(world, refused, upload(bytes(size), chunk=chunk))
        assert error.fields == [("chunk", "TOO_LONG")]
        assert "10 MiB" in error.message


async def test_an_endless_upload_is_cut(world) -> None:
    sent = 0

    async def endless() -> AsyncIterator[pb.UploadImageRequest]:
        nonlocal sent
        yield pb.UploadImageRequest(header=image_pb2.ImageHeader())
        while True:
            sent += 1
            yield pb.UploadImageRequest(chunk=bytes(256 * 1024))

    with pytest.raises(grpc.aio.AioRpcError):
        await world.images.UploadImage(endless())
    assert sent * 256 * 1024 < 40 * MIB
    assert not leftovers(world)


async def test_ten_mebibytes_of_no_picture_get_past_the_counter_only(world, refused) -> None:
    error = await refused_upload(world, refused, upload(bytes(10 * MIB), chunk=MIB))
    assert error.reason == "NOT_A_PICTURE"


async def test_a_text_named_png_is_refused_by_its_content(world, refused) -> None:
    error = await refused_upload(world, refused, upload(b"hello, I am a text", name="cat.png"))
    assert error.reason == "NOT_A_PICTURE"
    assert error.fields == [("chunk", "NOT_A_PICTURE")]
    assert '"cat.png"' in error.message


async def test_a_truncated_png_is_refused(world, refused) -> None:
    data = noise(300, 300)
    error = await refused_upload(world, refused, upload(data[: len(data) // 2]))
    assert error.reason == "PICTURE_DAMAGED"


async def test_too_many_pixels_are_refused(world, refused) -> None:
    error = await refused_upload(world, refused, upload(png(6_000, 5_000)))
    assert error.reason == "PICTURE_TOO_LARGE"


async def test_bytes_without_a_header_are_refused(world, refused) -> None:
    error = await refused_upload(world, refused, upload(png())[1:])
    assert error.fields == [("header", "REQUIRED")]
    error = await refused_upload(world, refused, [])
    assert error.fields == [("header", "REQUIRED")]


async def test_a_second_header_a_huge_chunk_and_no_bytes_are_refused(world, refused) -> None:
    header = upload(b"")
    error = await refused_upload(world, refused, [*upload(png()), *header])
    assert error.fields == [("header", "CONFLICT")]
    error = await refused_upload(world, refused, upload(bytes(MIB + 1), chunk=2 * MIB))
    assert error.fields == [("chunk", "TOO_LONG")]
    error = await refused_upload(world, refused, header)
    assert error.fields == [("chunk", "REQUIRED")]


async def test_only_references_and_sources_are_uploaded_and_names_are_short(world, refused) -> None:
    error = await refused_upload(world, refused, upload(png(), kind=image_pb2.IMAGE_KIND_MASTER, name="x" * 256))
    assert error.fields == [("header.kind", "UNKNOWN_VALUE"), ("header.filename", "TOO_LONG")]


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(world) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def half() -> AsyncIterator[pb.UploadImageRequest]:
        for request in upload(noise(300, 300))[:3]:
            yield request
        begun.set()
        await never.wait()

    call = world.images.UploadImage(half())
    await begun.wait()
    await eventually(lambda: leftovers(world))
    call.cancel()
    await eventually(lambda: not leftovers(world))
    assert not world.storage.images


async def test_an_unknown_picture_is_not_found(world, refused) -> None:
    for method, request in (
        (world.images.GetImage, pb.GetImageRequest(image_id=new_id())),
        (lambda r: world.images.DownloadImage(r).read(), pb.DownloadImageRequest(image_id=new_id())),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request)
        error = refused(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")


async def test_a_malformed_picture_id_is_named(world, refused) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.images.GetImage(pb.GetImageRequest(image_id="x"))
    assert refused(caught.value).fields == [("image_id", "MALFORMED")]
