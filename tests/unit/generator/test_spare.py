"""Calls made alone in a process of their own: real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest

from nanobatch_generator import spare_wire
from nanobatch_generator.adapters.spare_process import SpareProcesses
from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    InputImage,
    PictureRequest,
    ProviderError,
    SpareUnavailableError,
    Usage,
)
from nanobatch_generator.providers.sandbox import SandboxProvider
from nanobatch_runtime.testing import eventually

SETTINGS = {"gemini_base_url": "", "sandbox_delay": 0.0, "sandbox_may_crash": True}
REQUEST = PictureRequest(
    model="sandbox",
    prompt="a boat",
    timeout=timedelta(seconds=20),
    input_images=(InputImage("image/png", b"one" * 40_000), InputImage("image/webp", b"two")),
    aspect_ratio="3:2",
    seed=4,
    attempts=2,
)


@pytest.fixture
def spare() -> SpareProcesses:
    return SpareProcesses(SETTINGS, memory_bytes=2**30, log_level="info")


def spares() -> list[psutil.Process]:
    """Return the spare processes of this one; a worker of the tests has other children, too."""
    return [child for child in psutil.Process().children() if "nanobatch_generator.spare" in child.cmdline()]


def through(frame: bytes) -> spare_wire.Frame:
    pieces = iter(range(len(frame)))

    def take(size: int) -> bytes:
        return bytes(frame[next(pieces)] for _ in range(size))

    return spare_wire.read(take)


def test_calls_answers_and_failures_come_through_the_pipe_as_they_were():
    assert spare_wire.request_of(through(spare_wire.request_frame(REQUEST, "a key"))) == (REQUEST, "a key")
    done = Done(b"\x00picture", Usage(1, 2, 3, 4, reported=True), "response")
    assert spare_wire.answer_of(through(spare_wire.answer_frame(done))) == done
    task = Accepted("task-1", timedelta(seconds=2.5))
    assert spare_wire.answer_of(through(spare_wire.answer_frame(task))) == task
    error = ProviderError(
        FailureClass.RATE_LIMITED,
        "RATE_LIMITED",
        "Too many.",
        charged=Charged.MAYBE,
        usage=Usage(5),
        retry_after=timedelta(seconds=1.5),
        provider_status="429",
        response_id="r",
    )
    with pytest.raises(ProviderError) as raised:
        spare_wire.answer_of(through(spare_wire.error_frame(error)))
    assert vars(raised.value) == vars(error)


async def test_a_call_made_alone_gives_what_it_gives_anywhere(spare):
    async with spare.process("sandbox") as alone:
        assert await alone.submit(REQUEST, "") == await SandboxProvider(timedelta(0)).submit(REQUEST, "")
    async with spare.process("sandbox") as alone:
        with pytest.raises(ProviderError) as refused:
            await alone.submit(replace(REQUEST, prompt="[fail:blocked]"), "")
    assert refused.value.failure_class is FailureClass.BLOCKED
    await eventually(lambda: not spares())


async def test_a_call_that_kills_its_process_kills_nobody_else_and_may_have_been_charged(spare):
    async with spare.process("sandbox") as poison, spare.process("sandbox") as innocent:
        with pytest.raises(ProviderError) as lost:
            await poison.submit(replace(REQUEST, prompt="[crash]"), "")
        assert (await innocent.submit(REQUEST, "")).data
    assert (lost.value.failure_class, lost.value.charged) == (FailureClass.WORKER_LOST, Charged.MAYBE)


async def test_the_key_goes_through_the_pipe_alone_and_the_master_key_goes_nowhere(spare, monkeypatch):
    monkeypatch.setenv("ENCRYPTION_KEY", "ab" * 32)
    async with spare.process("sandbox") as alone:
        call = asyncio.create_task(alone.submit(replace(REQUEST, prompt="[delay:1]"), "the-provider-key"))
        (process,) = spares()
        told = " ".join([*process.cmdline(), *process.environ(), *process.environ().values()])
        assert "the-provider-key" not in told
        assert "ENCRYPTION_KEY" not in told
        assert os.getpgid(process.pid) == process.pid
        soft, _ = process.rlimit(psutil.RLIMIT_AS)
        assert soft == 2**30
        await call


async def test_a_caller_that_gives_up_leaves_no_process_behind(spare):
    async def slow():
        async with spare.process("sandbox") as alone:
            await alone.submit(replace(REQUEST, prompt="[delay:50]"), "")

    task = asyncio.create_task(slow())
    await eventually(spares)
    (process,) = spares()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not process.is_running()


async def test_a_provider_it_does_not_have_is_no_death(spare):
    with pytest.raises(SpareUnavailableError):
        async with spare.process("no such provider"):
            pass


def test_it_dies_with_the_generator_that_started_it(tmp_path):
    script = tmp_path / "generator.py"
    script.write_text(
        "import asyncio, psutil\n"
        "from nanobatch_generator.adapters.spare_process import SpareProcesses\n"
        "async def main():\n"
        f"    spare = SpareProcesses({SETTINGS!r}, memory_bytes=2**30, log_level='info')\n"
        "    async with spare.process('sandbox'):\n"
        "        print(psutil.Process().children()[0].pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdout is not None
        process = psutil.Process(int(generator.stdout.readline()))
        generator.kill()
    process.wait(10)
