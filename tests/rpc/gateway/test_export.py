"""Archives through both doors of a real gateway."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from typing import Any

import grpc
import httpx
import pytest

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.gateway.v1 import image_service_pb2 as pb
from nanobatch_runtime.ids import new_id

MIB = 1024 * 1024


def with_pictures(world: Any, count: int, size: int) -> str:
    execution_id: str = world.storage.new_execution()
    rows = world.storage.results[execution_id] = []
    for number in range(count):
        data = os.urandom(size)
        image = image_pb2.Image(
            id=new_id(), mime_type="image/png", size_bytes=size, sha256=hashlib.sha256(data).hexdigest()
        )
        world.storage.images[image.id] = (image, data)
        rows.append(
            execution_pb2.Result(
                id=new_id(),
                execution_id=execution_id,
                batch_index=number,
                prompt_text=f"fox {number}",
                state=execution_pb2.RESULT_STATE_COMPLETED,
                image_id=image.id,
                mime_type=image.mime_type,
                sha256=image.sha256,
            )
        )
    return execution_id


async def taken(world: Any, execution_id: str, **more: Any) -> bytes:
    request = pb.ExportExecutionRequest(execution_id=execution_id, **more)
    return b"".join([piece.chunk async for piece in world.images.ExportExecution(request, timeout=60)])


async def test_the_same_archive_comes_through_both_doors(world) -> None:
    execution_id = with_pictures(world, 5, MIB)
    data = await taken(world, execution_id)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for number, row in enumerate(world.storage.results[execution_id]):
            content = archive.read(f"{number + 1:03}-fox-{number}.png")
            assert hashlib.sha256(content).hexdigest() == row.sha256
    async with httpx.AsyncClient(base_url=f"http://{world.app.http_address}") as client:
        answer = await client.get(f"/api/executions/{execution_id}/archive.zip")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/zip"
        assert answer.headers["content-disposition"] == f'attachment; filename="nanobatch-{execution_id[:8]}.zip"'
        assert answer.content == data
        chosen = world.storage.results[execution_id][2].id
        answer = await client.get(f"/api/executions/{execution_id}/archive.zip", params={"result_ids": chosen})
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist()[2:] == ["003-fox-2.png"]


async def test_what_cannot_be_taken_is_answered_in_words(world, refused) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await taken(world, new_id())
    assert refused(caught.value).reason == "EXECUTION_NOT_FOUND"
    execution_id = with_pictures(world, 1, 10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await taken(world, execution_id, result_ids=[new_id()])
    assert refused(caught.value).fields == [("result_ids[0]", "NOT_FOUND")]
    async with httpx.AsyncClient(base_url=f"http://{world.app.http_address}") as client:
        answer = await client.get(f"/api/executions/{new_id()}/archive.zip")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "EXECUTION_NOT_FOUND")
        answer = await client.get("/api/executions/nonsense/archive.zip")
        assert (answer.status_code, answer.json()["error"]["fields"][0]["field"]) == (400, "execution_id")


async def test_a_picture_that_goes_in_the_middle_cuts_the_archive(world, refused) -> None:
    execution_id = with_pictures(world, 3, MIB)
    del world.storage.images[world.storage.results[execution_id][1].image_id]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await taken(world, execution_id)
    assert refused(caught.value).reason == "IMAGE_NOT_FOUND"
    async with httpx.AsyncClient(base_url=f"http://{world.app.http_address}") as client:
        with pytest.raises(httpx.RemoteProtocolError):  # no client takes it for the whole
            await client.get(f"/api/executions/{execution_id}/archive.zip")
