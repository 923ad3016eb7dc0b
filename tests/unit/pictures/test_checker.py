"""The children: what happens to them, and what does not happen to anybody else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from PIL import Image

from nanobatch_runtime.pictures import (
    NotAPictureError,
    PictureChecker,
    PictureCheckerUnavailableError,
    PictureCheckFailedError,
    PictureDamagedError,
    PictureLimits,
    PictureTooLargeError,
)
from nanobatch_runtime.pictures.files import part_of
from nanobatch_runtime.testing import eventually

from .conftest import encoded, flat_png, noise

MEBIBYTE = 1024 * 1024


@pytest.fixture(autouse=True)
def _nothing_is_left():
    before = set(psutil.Process().children(recursive=True))
    yield
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.fixture
def good(write) -> Path:
    return write(encoded(noise(640, 320), "PNG"), "good")


async def children_up(checker: PictureChecker, count: int = 1) -> list[int]:
    await eventually(lambda: len(checker.pids) == count)
    return checker.pids


@pytest.fixture
def endless(tmp_path) -> Path:
    """A file whose reader hangs for ever: a pipe into which nobody writes."""
    os.mkfifo(tmp_path / "endless")
    return tmp_path / "endless"


async def hanging(checker, endless, out=None) -> tuple[asyncio.Task[object], list[int]]:
    """Start a check that hangs, and return when a child is in the middle of it; with the children that are up."""
    pids = await children_up(checker, len(checker._slots))
    task = asyncio.create_task(checker.check(endless) if out is None else checker.prepare_upload(endless, out))

    def is_being_read() -> bool:
        try:
            writer = os.open(endless, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        writers.append(writer)  # closed again it would be an end of file
        return True

    writers: list[int] = []
    await eventually(is_being_read)
    task.add_done_callback(lambda _: os.close(writers[0]))
    return task, pids


async def test_a_picture_is_checked_and_shrunk_in_a_child(good, tmp_path):
    async with PictureChecker() as checker:
        checked = await checker.check(good, thumbnail=True)

    assert (checked.facts.mime_type, checked.facts.width, checked.facts.height) == ("image/png", 640, 320)
    assert checked.thumbnail is not None
    assert (checked.thumbnail.facts.mime_type, checked.thumbnail.facts.width) == ("image/webp", 256)
    assert len(checked.thumbnail.data) == checked.thumbnail.facts.size_bytes


async def test_an_upload_is_prepared_in_a_child(good, tmp_path):
    async with PictureChecker(max_workers=1) as checker:
        facts = await checker.prepare_upload(good, tmp_path / "out")

    assert facts.size_bytes == (tmp_path / "out").stat().st_size


async def test_a_child_says_what_is_wrong_and_goes_on(write, good):
    async with PictureChecker(PictureLimits(max_bytes=MEBIBYTE), max_workers=1) as checker:
        with pytest.raises(NotAPictureError):
            await checker.check(write(b"a text", "text.png"))
        pids = checker.pids
        with pytest.raises(PictureDamagedError):
            await checker.check(write(good.read_bytes()[:-40], "cut"))
        with pytest.raises(PictureTooLargeError, match="larger than 1 MiB"):
            await checker.check(write(bytes(MEBIBYTE + 1), "large"))
        with pytest.raises(FileNotFoundError):
            await checker.check(good.with_name("missing"))
        await checker.check(good)
        assert checker.pids == pids


async def test_a_bomb_is_refused_and_costs_nobody_memory(write):
    bomb = write(flat_png(20_000, 8_850), "bomb.png")
    assert bomb.stat().st_size < 30_000
    parent = psutil.Process()
    async with PictureChecker(max_workers=1) as checker:
        (pid,) = await children_up(checker)
        before = parent.memory_info().rss
        with pytest.raises(PictureTooLargeError, match="at most 24 megapixels"):
            await checker.check(bomb)
        assert parent.memory_info().rss - before < 50 * MEBIBYTE
        assert checker.pids == [pid]
        assert psutil.Process(pid).memory_info().rss < 64 * MEBIBYTE
        assert psutil.Process(pid).rlimit(psutil.RLIMIT_AS) == (512 * MEBIBYTE, 512 * MEBIBYTE)


async def test_a_bomb_that_gets_past_the_ceiling_meets_the_memory_limit(write, good):
    bomb, parent = write(flat_png(25_000, 25_000), "bomb.png"), psutil.Process()
    async with PictureChecker(PictureLimits(max_pixels=2_000_000_000), max_workers=1) as checker:
        await checker.check(good)
        before = parent.memory_info().rss
        with pytest.raises((PictureCheckFailedError, PictureTooLargeError)):
            await checker.check(bomb)
        assert parent.memory_info().rss - before < 50 * MEBIBYTE
        await checker.check(good)


async def test_memory_that_runs_out_is_said_and_the_child_replaced(write, good):
    limits = PictureLimits(memory_bytes=120 * MEBIBYTE)
    async with PictureChecker(limits, max_workers=1) as checker:
        (pid,) = await children_up(checker)
        with pytest.raises(PictureCheckFailedError, match="more than 120 MiB of memory") as caught:
            await checker.check(write(encoded(noise(6_000, 4_000), "JPEG"), "large.jpg"))
        assert caught.value.metadata == {"cause": "MEMORY"}
        await checker.check(good)
        assert pid not in checker.pids


async def test_a_picture_just_under_the_ceiling_passes_within_all_limits(write, tmp_path):
    async with PictureChecker(max_workers=1) as checker:
        for kind in ("PNG", "JPEG", "WEBP"):
            fast = {"PNG": {"compress_level": 1}, "WEBP": {"method": 0}}.get(kind, {})
            path = write(encoded(Image.new("RGB", (6_000, 4_000), (9, 99, 200)), kind, **fast), kind)
            assert (await checker.check(path, thumbnail=True)).facts.width == 6_000


async def test_a_child_that_hangs_is_killed_at_the_limit_and_disturbs_nobody(good, endless):
    async with PictureChecker(PictureLimits(time=timedelta(seconds=2)), max_workers=2) as checker:
        task, pids = await hanging(checker, endless)
        await asyncio.gather(*(checker.check(good) for _ in range(10)))
        assert not task.done()
        with pytest.raises(PictureCheckFailedError) as caught:
            await asyncio.wait_for(task, 30)  # it would take for ever
        assert caught.value.metadata == {"cause": "TIME"}
        assert caught.value.message == "Checking the picture took longer than 2 seconds."
        now = await children_up(checker, 2)
        assert len(set(now) & set(pids)) == 1
        await asyncio.gather(*(checker.check(good) for _ in range(4)))


async def test_a_child_whose_parent_forgets_it_ends_itself_at_the_limit(endless, monkeypatch):
    async with PictureChecker(PictureLimits(time=timedelta(milliseconds=50)), max_workers=1) as checker:
        await children_up(checker)
        worker = checker._slots[0].worker
        worker._limits = PictureLimits(time=timedelta(seconds=60))
        task, _ = await hanging(checker, endless)
        with pytest.raises(PictureCheckFailedError) as caught:
            await task
        assert caught.value.metadata == {"cause": "TIME"}


async def test_a_child_killed_in_the_middle_fails_its_picture_and_no_other(good, endless, tmp_path):
    out = tmp_path / "out"
    async with PictureChecker(max_workers=1) as checker:
        task, (pid,) = await hanging(checker, endless, out)
        part_of(out).write_bytes(b"half")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PictureCheckFailedError) as caught:
            await task
        assert caught.value.metadata == {"cause": "DIED"}
        await checker.check(good)
        assert pid not in checker.pids
    assert not part_of(out).exists()


async def test_a_child_killed_while_idle_is_replaced_without_a_word(good):
    async with PictureChecker(max_workers=2) as checker:
        for pid in await children_up(checker, 2):
            os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*(checker.check(good) for _ in range(4)))


async def test_a_cancelled_wait_kills_its_child_and_cleans_up(good, endless, tmp_path):
    out = tmp_path / "out"
    async with PictureChecker(max_workers=1) as checker:
        task, (pid,) = await hanging(checker, endless, out)
        part_of(out).write_bytes(b"half")
        waiting = asyncio.create_task(checker.check(good))
        given_up = asyncio.create_task(checker.check(good))
        await asyncio.sleep(0)
        given_up.cancel()
        task.cancel()

        assert (await waiting).facts.width == 640
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not psutil.pid_exists(pid)
        assert not part_of(out).exists()
        assert not out.exists()


async def test_closing_ends_what_is_running_and_what_waits(good, endless):
    async with PictureChecker(max_workers=1) as checker:
        running, _ = await hanging(checker, endless)
        waiting = asyncio.create_task(checker.check(good))
        await asyncio.sleep(0)
    with pytest.raises(PictureCheckerUnavailableError):  # no fault of the picture
        await running
    with pytest.raises(PictureCheckerUnavailableError):
        await waiting
    with pytest.raises(PictureCheckerUnavailableError):
        await checker.check(good)


async def test_opening_and_closing_at_once_leaves_nothing():
    began = time.monotonic()
    async with PictureChecker():
        assert time.monotonic() - began < 0.1


async def test_without_warming_up_a_child_starts_with_the_first_picture(good):
    async with PictureChecker(max_workers=2, warm=False) as checker:
        assert checker._slots[0]._coming is None
        await checker.check(good)
        assert len(checker.pids) == 1


async def test_children_are_recycled(good):
    async with PictureChecker(max_workers=1, tasks_per_child=2) as checker:
        (first,) = await children_up(checker)
        for _ in range(3):
            await checker.check(good)
        assert checker.pids != [first]
        assert not psutil.pid_exists(first)


async def test_a_child_that_cannot_start_is_no_fault_of_the_picture(good, monkeypatch):
    async with PictureChecker(max_workers=1, warm=False) as checker:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(PictureCheckerUnavailableError):
                await checker.check(good)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/bin/false")
            with pytest.raises(PictureCheckerUnavailableError):
                await checker.check(good)
        await checker.check(good)


async def test_a_child_is_light_has_no_keys_and_ignores_ctrl_c(good, monkeypatch):
    monkeypatch.setenv("ENCRYPTION_KEY", "00" * 32)
    async with PictureChecker(max_workers=1) as checker:
        await checker.check(good)
        child = psutil.Process(checker.pids[0])
        assert "ENCRYPTION_KEY" not in child.environ()
        assert not [file.path for file in child.memory_maps() if "grpc" in file.path or "asyncio" in file.path]
        assert child.memory_info().rss < 48 * MEBIBYTE
        child.send_signal(signal.SIGINT)
        assert os.getsid(child.pid) == child.pid
        await checker.check(good)
        assert checker.pids == [child.pid]


PARENT = """
import asyncio, sys
from pathlib import Path
from nanobatch_runtime.pictures import PictureChecker

async def main():
    async with PictureChecker(max_workers=1) as checker:
        await checker.check(Path(sys.argv[1]))
        assert "PIL" not in sys.modules, "the parent has a decoder"
        print(checker.pids[0], flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_child_dies_with_its_parent(good):
    command = [sys.executable, "-c", PARENT, str(good)]
    parent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        pid = int(await parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)  # it cannot even read that its input has ended
    finally:
        parent.kill()
        await parent.communicate()
    await eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
