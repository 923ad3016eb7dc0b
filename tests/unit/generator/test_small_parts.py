from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from nanobatch_generator.domain import ImageGoneError, InputImage, Latency
from nanobatch_generator.inputs import Inputs
from nanobatch_generator.latency import Latencies, estimate
from nanobatch_generator.settings import GeneratorSettings
from nanobatch_runtime.settings import SettingsError, load

LATENCY = Latency(50, timedelta(seconds=10), timedelta(seconds=20))


def test_a_guess_grows_and_never_says_done():
    guesses = [estimate("r", timedelta(seconds=s), LATENCY) for s in range(0, 200, 2)]
    percents = [guess.percent for guess in guesses]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[5] == 90
    assert 97 <= percents[-1] <= 99
    assert guesses[2].eta == timedelta(seconds=6)
    assert guesses[-1].eta is None


async def test_own_calls_overtake_the_history():
    class History:
        asked = 0

        async def latency(self, model):
            self.asked += 1
            return LATENCY

    history = History()
    latencies = Latencies(history)
    assert latencies.of("sandbox").median == timedelta(seconds=1)  # the catalogue's figure
    await latencies.refresh("sandbox")
    await latencies.refresh("sandbox")
    assert history.asked == 1
    assert latencies.of("sandbox") == LATENCY
    for seconds in (2, 3, 4, 5, 60):
        latencies.note("sandbox", timedelta(seconds=seconds))
    assert latencies.of("sandbox").median == timedelta(seconds=4)


class Images:
    def __init__(self, size=10):
        self.size = size
        self.read_ids = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail = False

    async def read(self, user_id, image_id):
        self.read_ids.append((user_id, image_id))
        await self.gate.wait()
        if self.fail:
            raise ImageGoneError("gone")
        return InputImage("image/png", image_id.encode().ljust(self.size))


async def test_those_who_want_the_same_picture_share_one_read(make_lease):
    images = Images()
    images.gate.clear()
    inputs = Inputs(images)
    lease = make_lease(source_image_id="s", reference_image_ids=("a", "b"))
    tasks = [asyncio.create_task(inputs.of(lease)) for _ in range(5)]
    await asyncio.sleep(0)
    images.gate.set()
    results = await asyncio.gather(*tasks)
    assert [image.data.strip() for image in results[0]] == [b"s", b"a", b"b"]
    assert len(images.read_ids) == 3
    assert inputs._reading == {}


async def test_one_users_picture_is_never_served_to_another(make_lease):
    images = Images()
    inputs = Inputs(images)
    for user in ("a", "b"):
        await inputs.of(make_lease(user_id=user, source_image_id="s"))
    assert images.read_ids == [("a", "s"), ("b", "s")]


async def test_the_cache_is_bounded_in_bytes(make_lease):
    images = Images(size=40)
    inputs = Inputs(images, max_bytes=100)
    for image_id in ("1", "2", "3", "1"):
        await inputs.of(make_lease(source_image_id=image_id))
        assert inputs._bytes <= 100
    assert [image_id for _, image_id in images.read_ids] == ["1", "2", "3", "1"]


async def test_a_failed_read_is_not_remembered(make_lease):
    images = Images()
    images.fail = True
    inputs = Inputs(images)
    lease = make_lease(source_image_id="s")
    with pytest.raises(ImageGoneError):
        await inputs.of(lease)
    images.fail = False
    assert await inputs.of(lease)


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ENCRYPTION_KEY", "0123456789abcdef" * 4)
    monkeypatch.setenv("NANOBATCH_GENERATOR_CONCURRENCY", "7")
    monkeypatch.setenv("NANOBATCH_DATA_DIR", str(tmp_path))
    settings = load(GeneratorSettings)
    assert (settings.concurrency, settings.data_dir, settings.listen) == (7, tmp_path, "127.0.0.1:50052")
    assert settings.keyring.key_ids
    assert "0123456789abcdef" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ENCRYPTION_KEY", "short"), ("NANOBATCH_GENERATOR_CONCURRENCY", "0"), ("NANOBATCH_DRAIN_SECONDS", "-1")],
)
def test_a_wrong_setting_is_named_and_not_shown(monkeypatch, name, value):
    monkeypatch.setenv("ENCRYPTION_KEY", "0123456789abcdef" * 4)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load(GeneratorSettings)
    assert name in str(caught.value)
    assert "short" not in str(caught.value)
