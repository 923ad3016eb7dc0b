"""Pictures: bytes first, row second, nothing left of what failed."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from s3_server import KEY_ID, SECRET

from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_runtime.settings import SettingsError
from nanobatch_runtime.testing import eventually
from nanobatch_storage import sweep
from nanobatch_storage.adapters.blobs_obstore import S3Access, open_blobs
from nanobatch_storage.domain import Actor, NewPrompt
from nanobatch_storage.errors import (
    BadPictureError,
    BlobMissingError,
    BlobsUnavailableError,
    DiskFullError,
    ImageExistsError,
    ImageNotFoundError,
    OffsetOutsideError,
    UserNotFoundError,
)
from nanobatch_storage.pictures import open_picture, put_upload, write_pictures

DATA = bytes(range(256)) * 4096  # 1 MiB
LARGE = DATA * 12  # goes to an object store in parts


class Standing:
    """A clock that stands still."""

    def __init__(self, now):
        self._now = now

    def now(self):
        return self._now


async def swept(images, blobs, now) -> int:
    """Let two passes remove orphans: what one finds, the next one takes."""
    orphans = sweep.Orphans(images, blobs, Standing(now))
    assert await orphans.remove() == 0
    return await orphans.remove()


@pytest.fixture(params=["disk", "s3"])
def files(request, tmp_path):
    """Return the names of what is stored, which suites read past the product."""
    if request.param == "disk":
        return lambda: sorted(path.name for path in (tmp_path / "pictures").rglob("*") if path.is_file())
    server = request.getfixturevalue("s3_server")
    bucket = server.bucket()
    names = lambda: sorted(name.rpartition("/")[2] for name in server.names(bucket))  # noqa: E731
    names.bucket = bucket
    return names


@pytest.fixture
def blobs(request, files, tmp_path):
    """The port on both kinds of store."""
    if not hasattr(files, "bucket"):
        return open_blobs((tmp_path / "pictures").as_uri())
    server = request.getfixturevalue("s3_server")
    return open_blobs(f"s3://{files.bucket}/some/prefix", S3Access(server.url, "eu-central-1", KEY_ID, SECRET))


async def chunks(data=DATA, size=100_000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def put(store, user, data=DATA, **changes):
    return await put_upload(store.images, store.blobs, store.image(user, data, **changes), chunks(data))


async def read(store, actor, image_id):
    image, pieces = await open_picture(store.images, store.blobs, actor, image_id)
    return image, [piece async for piece in pieces]


@pytest.mark.parametrize("size", [len(DATA), 5 * 2**20, len(LARGE)], ids=["small", "a part", "parts"])
async def test_any_size_is_read_from_any_byte_on(store, size):
    user = await store.user()
    data = LARGE[:size]
    stored = await put(store, user, data)
    for offset in (0, 1, size // 2, size - 1):
        _, pieces = await open_picture(store.images, store.blobs, user, stored.id, offset=offset)
        read_back = [piece async for piece in pieces]
        assert b"".join(read_back) == data[offset:]
        assert max(map(len, read_back)) <= 256 * 1024
    for outside in (-1, size):
        with pytest.raises(OffsetOutsideError):
            await open_picture(store.images, store.blobs, user, stored.id, offset=outside)


async def test_an_upload_comes_back_as_it_went_in_in_chunks_of_256_kib(store, files):
    user = await store.user()
    stored = await put(store, user)
    assert (stored.create_time, stored.expire_time) == (store.clock.now(), store.clock.now() + timedelta(hours=24))
    image, pieces = await read(store, user, stored.id)
    assert image == stored
    assert b"".join(pieces) == DATA
    assert max(len(piece) for piece in pieces) <= 256 * 1024
    assert files() == [f"{stored.id}.png"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": "0" * 64},
        {"size_bytes": len(DATA) - 1},
        {"size_bytes": len(DATA) + 1},
        {"size_bytes": 0, "sha256": hashlib.sha256().hexdigest()},
    ],
)
async def test_bytes_that_are_not_those_announced_leave_nothing(store, files, wrong):
    user = await store.user()
    image = store.image(user, DATA, **wrong)
    with pytest.raises(BadPictureError):
        await put_upload(store.images, store.blobs, image, chunks())
    assert files() == []
    assert await store.images.get_many(user, [image.id]) == []


async def test_an_upload_that_breaks_off_leaves_nothing(store, files):
    user = await store.user()

    async def broken():
        yield DATA[:1000]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await put_upload(store.images, store.blobs, store.image(user, DATA), broken())
    started, task_image = asyncio.Event(), store.image(user, DATA)

    async def hanging():
        yield DATA[:1000]
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(put_upload(store.images, store.blobs, task_image, hanging()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: files() == [])


async def test_a_repeated_upload_is_answered_as_the_first_time(store):
    user = await store.user()
    image = store.image(user, DATA)
    first = await put_upload(store.images, store.blobs, image, chunks())
    assert await put_upload(store.images, store.blobs, image, chunks()) == first


async def test_a_taken_id_is_refused_and_the_first_picture_untouched(store):
    user, thief = await store.user(), await store.user()
    first = await put(store, user)
    for actor in (user, thief):
        with pytest.raises(ImageExistsError):
            await put(store, actor, b"other", id=first.id)
    assert b"".join((await read(store, user, first.id))[1]) == DATA


async def test_a_wrong_repeat_of_a_completion_does_not_touch_the_bytes_that_are_there(store):
    user = await store.user()
    first = await put(store, user)
    with pytest.raises(BadPictureError):
        await write_pictures(store.blobs, [(first, chunks(DATA[::-1]))])
    assert b"".join((await read(store, user, first.id))[1]) == DATA


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "", "A" * 40])
async def test_ids_cannot_leave_the_folder(store, image_id):
    user = await store.user()
    with pytest.raises(InvalidArgumentError):
        await put(store, user, id=image_id)
    with pytest.raises(InvalidArgumentError):
        await put(store, Actor("../.."))


async def test_nobody_uploads_nothing(store):
    with pytest.raises(UserNotFoundError):
        await put(store, Actor(str(uuid.uuid4())))


async def test_a_foreign_picture_looks_exactly_like_an_unknown_one(store):
    owner, stranger, admin = await store.user(), await store.user(), await store.user(admin=True)
    stored = await put(store, owner)
    for asked in (stored.id, str(uuid.uuid4()), "no uuid", ""):
        with pytest.raises(ImageNotFoundError):
            await read(store, stranger, asked)
    assert [image.id for image in await store.images.get_many(admin, [stored.id])] == [stored.id]
    assert await store.images.get_many(stranger, [stored.id, "no uuid"]) == []


async def test_lost_bytes_are_said_to_be_lost(store):
    user = await store.user()
    stored = await put(store, user)
    await store.blobs.delete(stored.blob_path)
    await store.blobs.delete(stored.blob_path)
    with pytest.raises(BlobMissingError):
        await read(store, user, stored.id)


async def test_unused_uploads_go_after_a_day_and_used_ones_stay(store, files):
    user = await store.user()
    unused, used = await put(store, user), await put(store, user)
    await store.execution(user, 0, prompts=(NewPrompt("edit", source_image_id=used.id),))
    assert await sweep.remove_expired_uploads(store.images, store.blobs) == 0
    store.clock.advance(timedelta(hours=24))
    assert await sweep.remove_expired_uploads(store.images, store.blobs) == 1
    assert [image.id for image in await store.images.get_many(user, [unused.id, used.id])] == [used.id]
    assert files() == [f"{used.id}.png"]


async def test_bytes_that_no_row_names_are_removed(store, files):
    user = await store.user()
    named = await put(store, user)
    await write_pictures(store.blobs, [(store.image(user, DATA), chunks())])
    assert await swept(store.images, store.blobs, datetime.now(UTC)) == 0
    assert await swept(store.images, store.blobs, datetime.now(UTC) + timedelta(hours=2)) == 1
    assert files() == [f"{named.id}.png"]


@pytest.mark.parametrize("files", ["disk"], indirect=True)  # what another store wrote cannot be made older
async def test_only_old_bytes_that_no_row_names_are_orphans(store, files, tmp_path):
    user = await store.user()
    named = await put(store, user)
    orphan, young = store.image(user, DATA), store.image(user, DATA)
    for image in (orphan, young):
        await write_pictures(store.blobs, [(image, chunks())])
    now = datetime.now(UTC)
    long_ago = (now - timedelta(hours=2)).timestamp()
    for image in (named, orphan):
        os.utime(tmp_path / "pictures" / image.blob_path, (long_ago, long_ago))
    assert await swept(store.images, store.blobs, now) == 1
    assert files() == sorted([f"{named.id}.png", f"{young.id}.png"])


async def test_an_orphan_that_gets_its_row_at_the_last_moment_stays(store, files):
    user = await store.user()
    late = store.image(user, DATA)
    await write_pictures(store.blobs, [(late, chunks())])

    class Racing:
        """A row appears between the first look and the second."""

        asked = 0

        async def named(self, paths):
            self.asked += 1
            found = await store.images.named(paths)
            if self.asked == 2:
                await store.images.add(late)
            return found

    assert await swept(Racing(), store.blobs, datetime.now(UTC) + timedelta(hours=2)) == 0
    assert files() == [f"{late.id}.png"]


async def test_a_clock_that_is_set_forward_takes_no_bytes_of_a_completion_under_way(store, files):
    """Young bytes look old then; their row comes within moments, and the next pass finds it."""
    user = await store.user()
    under_way = store.image(user, DATA)
    await write_pictures(store.blobs, [(under_way, chunks())])
    orphans = sweep.Orphans(store.images, store.blobs, Standing(datetime.now(UTC) + timedelta(days=1)))
    assert await orphans.remove() == 0
    await store.images.add(under_way)
    assert await orphans.remove() == 0
    assert files() == [f"{under_way.id}.png"]


async def test_bytes_written_anew_are_not_removed_as_old_ones(store):
    user = await store.user()
    image = store.image(user, DATA)
    before = datetime.now(UTC) - timedelta(hours=1)
    await write_pictures(store.blobs, [(image, chunks())])
    assert not await store.blobs.delete_if_older(image.blob_path, before)
    assert await store.blobs.delete_if_older(image.blob_path, datetime.now(UTC) + timedelta(hours=1))
    assert not await store.blobs.delete_if_older(image.blob_path, datetime.now(UTC) + timedelta(hours=1))


async def test_a_sweep_that_fails_comes_again_and_holds_up_no_other():
    calls = {"bad": 0, "good": 0}

    async def bad():
        calls["bad"] += 1
        raise OSError("no disk")

    async def good():
        calls["good"] += 1

    async with sweep.sweeping([sweep.Pass("bad", bad, timedelta(0)), sweep.Pass("good", good, timedelta(0))]):
        await eventually(lambda: min(calls.values()) > 3)
    stopped = dict(calls)
    await asyncio.sleep(0)
    assert calls == stopped


async def test_a_large_upload_that_breaks_off_leaves_no_parts_either(s3_server):
    bucket = s3_server.bucket()
    blobs = open_blobs(f"s3://{bucket}", S3Access(s3_server.url, "", KEY_ID, SECRET))

    async def broken():
        yield LARGE
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.write([("picture", broken())])
    assert (s3_server.names(bucket), s3_server.uploads(bucket)) == ([], 0)


async def test_a_probe_leaves_nothing(blobs, files):
    await blobs.probe()
    assert files() == []


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"], ids=["no such bucket", "nobody there"])
async def test_a_store_that_cannot_be_used_is_told_from_a_picture_that_is_lost(s3_server, endpoint):
    blobs = open_blobs("s3://none", S3Access(endpoint or s3_server.url, "", KEY_ID, SECRET))
    with pytest.raises(BlobsUnavailableError) as caught:
        await blobs.probe()
    assert SECRET not in caught.value.detail + caught.value.message
    assert endpoint in caught.value.detail


async def test_a_full_disk_is_told_as_one(tmp_path):
    async def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield b""

    with pytest.raises(DiskFullError):
        await open_blobs(tmp_path.as_uri()).write([("picture", full())])


@pytest.mark.parametrize("url", ["s3:///prefix", "pictures", "file://elsewhere/pictures", "http://x/y"])
def test_a_store_that_is_not_supported_is_named(url):
    with pytest.raises(SettingsError, match="NANOBATCH_BLOB_URL"):
        open_blobs(url)


def test_the_folder_of_the_pictures_is_its_owners_alone(tmp_path):
    open_blobs((tmp_path / "a folder" / "pictures").as_uri())
    assert (tmp_path / "a folder" / "pictures").stat().st_mode & 0o777 == 0o700
