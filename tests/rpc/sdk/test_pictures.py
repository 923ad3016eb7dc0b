from __future__ import annotations

import asyncio
import hashlib
import io
import os
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from nanobatch_client import Client, DeadlineExceededError, ImageKind, IntegrityError, NotFoundError, Patience
from nanobatch_client.testing import ScriptedGateway, make_status

CHUNK = 256 * 1024


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_an_upload_is_streamed_header_first_in_chunks(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    data = os.urandom(3 * CHUNK + 17)
    path = tmp_path / "fox.png"
    path.write_bytes(data)
    image = await client.upload_image(path, kind=ImageKind.SOURCE)
    messages = gateway.calls[-1][1]
    assert messages[0].header.filename == "fox.png"
    assert messages[0].header.kind == 2
    assert [len(message.chunk) for message in messages[1:]] == [CHUNK, CHUNK, CHUNK, 17]
    assert gateway.pictures[image.id] == data
    assert image.sha256 == hashlib.sha256(data).hexdigest()


async def test_paths_bytes_and_open_files_are_taken(gateway: ScriptedGateway, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    with path.open("rb") as opened:
        images = [await client.upload_image(each) for each in (path, str(path), b"abc", io.BytesIO(b"abc"), opened)]
        assert not opened.closed
    assert {gateway.pictures[image.id] for image in images} == {b"abc"}


async def test_references_are_uploaded_in_order_and_ids_are_kept(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"path")
    stored = await client.upload_image(b"stored")
    known = gateway.store(b"known").id
    await client.create_execution(["x"], model="sandbox", references=[path, known, b"bytes", stored])
    request = gateway.calls[-1][1]
    found = [gateway.pictures[image_id] for image_id in request.reference_image_ids]
    assert found == [b"path", b"known", b"bytes", b"stored"]


async def test_an_upload_is_not_repeated(gateway: ScriptedGateway, client: Client) -> None:
    gateway.failures["UploadImage"].append(make_status("NOT_FOUND", reason="X"))
    with pytest.raises(NotFoundError):
        await client.upload_image(b"abc")
    assert gateway.count("UploadImage") == 1


async def test_a_download_is_verified_and_leaves_only_the_picture(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    data = os.urandom(2 * CHUNK + 5)
    image = await client.download_image(gateway.store(data).id, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == data
    assert image.size_bytes == len(data)
    assert files(tmp_path) == ["a.png"]


async def test_damaged_bytes_are_refused_and_nothing_is_left(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    image_id = gateway.store(b"a picture").id
    gateway.damage.add(image_id)
    with pytest.raises(IntegrityError, match=image_id) as caught:
        await client.download_image(image_id, tmp_path / "a.png")
    assert caught.value.reason == "HASH_MISMATCH"
    assert files(tmp_path) == []


async def test_a_file_that_is_there_is_not_overwritten_unless_asked(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    image_id = gateway.store(b"new").id
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        await client.download_image(image_id, path)
    assert gateway.count("DownloadImage") == 0
    assert path.read_bytes() == b"old"
    await client.download_image(image_id, path, overwrite=True)
    assert path.read_bytes() == b"new"


async def test_of_two_downloads_to_one_name_one_wins(gateway: ScriptedGateway, client: Client, tmp_path: Path) -> None:
    ids = [gateway.store(f"picture {n}".encode()).id for n in range(2)]
    path = tmp_path / "a.png"
    ends = await asyncio.gather(*(client.download_image(each, path) for each in ids), return_exceptions=True)
    assert sorted(isinstance(end, FileExistsError) for end in ends) == [False, True]
    assert files(tmp_path) == ["a.png"]


async def test_a_download_begins_anew_when_the_server_was_away(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    image_id = gateway.store(b"a picture").id
    gateway.failures["DownloadImage"].extend([make_status("UNAVAILABLE", reason="DRAINING")] * 2)
    await client.download_image(image_id, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"a picture"


async def test_an_archive_is_written_whole_or_not_at_all(
    gateway: ScriptedGateway, client: Client, tmp_path: Path
) -> None:
    gateway.archive = os.urandom(3 * CHUNK + 1)
    gateway.failures["ExportExecution"].append(make_status("UNAVAILABLE", reason="DRAINING"))
    execution_id = str(uuid.uuid4())
    await client.export_execution(execution_id, tmp_path / "a.zip", result_ids=["x"])
    assert (tmp_path / "a.zip").read_bytes() == gateway.archive
    assert list(gateway.calls[-1][1].result_ids) == ["x"]
    with pytest.raises(FileExistsError):
        await client.export_execution(execution_id, tmp_path / "a.zip")
    gateway.failures["ExportExecution"].append(make_status("NOT_FOUND"))
    with pytest.raises(NotFoundError):
        await client.export_execution(execution_id, tmp_path / "b.zip")
    assert files(tmp_path) == ["a.zip"]


async def test_an_archive_that_does_not_go_on_is_given_up(gateway: ScriptedGateway, tmp_path: Path) -> None:
    gateway.hanging.add("ExportExecution")
    async with Client(gateway.target, patience=Patience(timeout=timedelta(milliseconds=50))) as client:
        with pytest.raises(DeadlineExceededError, match="did not go on"):
            await client.export_execution(str(uuid.uuid4()), tmp_path / "a.zip")
    assert files(tmp_path) == []
