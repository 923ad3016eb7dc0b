import asyncio
import io
import time
from datetime import timedelta

import pytest
import structlog
from pydantic import Field

from nanobatch_runtime import ids, logs
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.lifecycle import LoopLag
from nanobatch_runtime.settings import Settings, SettingsError, load

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("key", ["AIzaSyA1234567890abcdefghijklmnopqrstuvw", "sk-abcdefghijklmnop1234567890"])
def test_a_log_line_never_shows_a_key_whatever_the_field(monkeypatch, key):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    logs.configure("info", json=True)
    structlog.get_logger("t").info("call.failed", detail=f"GET https://x/?key={key}&a=1", api_key="anything", other=key)
    structlog.reset_defaults()
    assert "call.failed" in out.getvalue()
    assert key not in out.getvalue()
    assert "anything" not in out.getvalue()


def test_a_derived_id_is_the_same_each_time_and_differs_by_name():
    base = ids.new_id()
    assert ids.derived_id(base, "master") == ids.derived_id(base, "master") != ids.derived_id(base, "thumbnail")
    assert ids.is_id(ids.derived_id(base, "master"))


@pytest.mark.parametrize("text", ["", "x", "00000000", "{" + "0" * 36, "0" * 32])
def test_what_is_no_canonical_uuid_is_no_id(text):
    assert not ids.is_id(text)


def test_jitter_stays_between_nothing_and_the_doubling_ceiling():
    for failures, ceiling in ((1, 2), (2, 4), (5, 32), (6, 60), (500, 60)):
        assert full_jitter(failures, chance=1.0) == timedelta(seconds=ceiling)
        assert timedelta(0) <= full_jitter(failures) <= timedelta(seconds=ceiling)


class Example(Settings):
    slots: int = Field(32, validation_alias="NANOBATCH_EXAMPLE_SLOTS", ge=1)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("NANOBATCH_EXAMPLE_SLOTS", "many")
    with pytest.raises(SettingsError, match=r"NANOBATCH_EXAMPLE_SLOTS: .*integer"):
        load(Example)


def test_overrides_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("NANOBATCH_EXAMPLE_SLOTS", "4")
    assert load(Example).slots == 4
    assert load(Example, slots=5).slots == 5


async def test_a_blocked_loop_is_measured_even_before_it_has_ticked_again():
    lag = LoopLag(tick=timedelta(milliseconds=10))
    async with lag.measuring():
        await asyncio.sleep(0.05)
        assert lag.recent() < timedelta(milliseconds=250)
        time.sleep(0.3)  # noqa: ASYNC251  # blocks on purpose
        assert lag.recent() > timedelta(milliseconds=250)


class Named(Settings):
    slots: int = Field(1, validation_alias="NANOBATCH_NAMED_SLOTS", ge=1)


def test_a_wrong_value_given_by_field_is_named_by_its_variable():
    with pytest.raises(SettingsError) as caught:
        load(Named, slots=0)
    assert str(caught.value).startswith("NANOBATCH_NAMED_SLOTS: ")
