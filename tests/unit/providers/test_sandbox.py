"""The sandbox: what it draws, and how it fails when it is told to."""

from __future__ import annotations

import asyncio
import io
import time
import zlib
from datetime import timedelta

import pytest
from PIL import Image, ImageFile

from nanobatch_catalog import find_model
from nanobatch_generator.domain import Charged, Done, FailureClass, InputImage, PictureRequest, ProviderError
from nanobatch_generator.providers.sandbox import SandboxProvider

SANDBOX = SandboxProvider(delay=timedelta(0))
F = FailureClass


def request_for(prompt: str, **more) -> PictureRequest:
    return PictureRequest(**({"model": "sandbox", "prompt": prompt, "timeout": timedelta(seconds=5)} | more))


async def submit(prompt: str, **more) -> Done:
    return await SANDBOX.submit(request_for(prompt, **more), "")


async def failure_of(prompt: str, **more) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        await submit(prompt, **more)
    return raised.value


def opened(done: Done) -> Image.Image:
    picture = Image.open(io.BytesIO(done.data))
    picture.load()
    return picture


async def test_it_draws_a_real_picture_for_nothing() -> None:
    done = await submit("A lighthouse at dawn, painted in watercolour, with gulls and a small red boat")
    picture = opened(done)
    assert (picture.format, picture.size) == ("PNG", (1024, 1024))
    assert 5_000 < len(done.data) < 80_000
    assert done.usage.cost_micros == 0


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("", (1024, 1024)), ("1:1", (1024, 1024)), ("16:9", (1344, 768)), ("9:16", (768, 1344)), ("21:9", (1536, 672))],
)
async def test_the_size_follows_the_ratio(ratio: str, size: tuple[int, int]) -> None:
    assert opened(await submit("a cat", aspect_ratio=ratio)).size == size


async def test_every_ratio_of_the_catalogue_has_a_size_of_its_own() -> None:
    model = find_model("sandbox")
    assert model is not None
    sizes = {opened(await submit("a cat", aspect_ratio=ratio)).size for ratio in model.aspect_ratios}
    assert len(sizes) == len(model.aspect_ratios)


async def test_the_same_request_gives_the_same_bytes_and_another_does_not() -> None:
    same = [await submit("a cat", seed=1) for _ in range(2)]
    others = [
        await submit("a dog", seed=1),
        await submit("a cat", seed=2),
        await submit("a cat", seed=1, aspect_ratio="4:3"),
        await submit("a cat", seed=1, input_images=(InputImage("image/png", b"1"),)),
    ]
    assert same[0].data == same[1].data
    assert len({done.data for done in [same[0], *others]}) == 5


async def test_the_call_number_changes_nothing_in_the_picture() -> None:
    assert (await submit("a cat", attempts=0)).data == (await submit("a cat", attempts=3)).data


async def test_the_words_are_large_and_in_contrast_to_their_ground() -> None:
    picture = opened(await submit("Hello")).convert("L")
    middle = picture.crop((100, 350, 924, 650))
    white = sum(middle.histogram()[240:])
    assert white > 4_000  # five letters, 130 pixels high
    assert max(picture.crop((0, 0, 1024, 60)).histogram()[200:]) == 0  # no ground is nearly that light


@pytest.mark.parametrize(
    "prompt", ["word " * 2000, "x" * 10_000, "größer — 漢字 🙂", "\n\n", "[fail:503x1]", "a\x00b", "\u202eleft"]
)
async def test_any_prompt_can_be_drawn(prompt: str) -> None:
    assert opened(await submit(prompt, attempts=9)).size == (1024, 1024)


STATUSES = [
    ("400", F.BAD_REQUEST, Charged.NO),
    ("401", F.KEY_INVALID, Charged.NO),
    ("403", F.KEY_UNUSABLE, Charged.NO),
    ("404", F.MODEL_GONE, Charged.NO),
    ("408", F.UNKNOWN, Charged.MAYBE),
    ("413", F.BAD_REQUEST, Charged.NO),
    ("429", F.RATE_LIMITED, Charged.NO),
    ("429day", F.QUOTA_DAY, Charged.NO),
    ("429zero", F.KEY_UNUSABLE, Charged.NO),
    ("499", F.UNKNOWN, Charged.MAYBE),
    ("500", F.TRANSIENT, Charged.NO),
    ("502", F.TRANSIENT, Charged.NO),
    ("503", F.OVERLOADED, Charged.NO),
    ("504", F.UNKNOWN, Charged.MAYBE),
    ("529", F.OVERLOADED, Charged.NO),
    ("unreachable", F.TRANSIENT, Charged.NO),
    ("reset", F.UNKNOWN, Charged.MAYBE),
    ("blocked", F.BLOCKED, Charged.MAYBE),
    ("empty", F.EMPTY, Charged.YES),
]


@pytest.mark.parametrize(("name", "failure_class", "charged"), STATUSES, ids=[row[0] for row in STATUSES])
async def test_it_fails_as_told(name: str, failure_class: FailureClass, charged: Charged) -> None:
    failure = await failure_of(f"a cat [fail:{name}]")
    assert (failure.failure_class, failure.charged, failure.provider_status) == (failure_class, charged, name)
    assert (failure.retry_after is not None) == (name == "429")


async def test_a_failure_for_two_calls_counts_the_calls_of_the_result_and_not_of_the_process() -> None:
    prompt = "a cat [fail:503x2]"
    for _ in range(3):  # asked as the first call three times over, by three replicas perhaps
        assert (await failure_of(prompt, attempts=0)).failure_class is F.OVERLOADED
    assert (await failure_of(prompt, attempts=1)).failure_class is F.OVERLOADED
    assert opened(await submit(prompt, attempts=2)).size == (1024, 1024)


async def test_several_switches_follow_one_another() -> None:
    prompt = "[fail:503x1] a cat [FAIL: 500x2]"
    classes = [(await failure_of(prompt, attempts=number)).failure_class for number in range(3)]
    assert classes == [F.OVERLOADED, F.TRANSIENT, F.TRANSIENT]
    assert (await submit(prompt, attempts=3)).data


async def test_an_unknown_switch_is_refused_by_name() -> None:
    failure = await failure_of("a cat [fail:tea]")
    assert failure.failure_class is F.BAD_REQUEST
    assert "[fail:tea]" in failure.message


async def test_damaged_bytes_come_as_a_success_that_no_decoder_takes() -> None:
    done = await submit("a cat [fail:damaged]")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with pytest.raises(OSError, match="truncated"):
        opened(done)


async def test_the_bomb_is_small_and_huge() -> None:
    done = await submit("a cat [fail:bomb]")
    assert len(done.data) < 25_000
    width, height = (int.from_bytes(done.data[at : at + 4], "big") for at in (16, 20))
    assert width * height == 177_209_344
    unpacker, inflated = zlib.decompressobj(), 0
    piece = unpacker.decompress(done.data[41:-16], 1 << 20)  # the one IDAT of a picture without other chunks
    while piece:
        inflated += len(piece)
        piece = unpacker.decompress(unpacker.unconsumed_tail, 1 << 20)
    assert inflated == height * (1 + width // 8)


async def test_a_delay_is_waited_for_and_ends_at_the_time_limit() -> None:
    started = time.monotonic()
    await submit("a cat [delay:0.2]")
    assert time.monotonic() - started >= 0.2
    failure = await failure_of("a cat [delay:60]", timeout=timedelta(seconds=0.1))
    assert (failure.failure_class, failure.charged) == (F.UNKNOWN, Charged.MAYBE)


async def test_a_delayed_call_can_be_cancelled() -> None:
    task = asyncio.create_task(submit("a cat [delay:60]"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_drawing_leaves_the_event_loop_alone() -> None:
    async def longest_pause() -> float:
        """The longest time that the loop stood still while one picture was drawn, as a part of the time it took."""
        longest, started = 0.0, time.monotonic()
        drawing = asyncio.create_task(submit("a cat and a dog"))
        while not drawing.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        return longest / (time.monotonic() - started)

    await submit("warm")
    # Drawn on the loop it would be all of it, each time; on a crowded machine a single one may be late.
    assert min([await longest_pause() for _ in range(5)]) < 0.6


async def test_every_key_is_good() -> None:
    check = await SANDBOX.check_key("sandbox", "")
    assert check.valid
    assert check.model_available
