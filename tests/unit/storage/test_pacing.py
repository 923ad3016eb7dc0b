from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_storage import pacing
from nanobatch_storage.domain import Bucket, Charged, Failure, FailureClass, WaitReason
from nanobatch_storage.policy import BucketEffect, next_quota_reset

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def bucket(window: float = 10) -> Bucket:
    return Bucket("b", "gemini", "m", "f", window, NOW, None, None, 0, 0, None)


def failure(retry_after: timedelta | None = None) -> Failure:
    return Failure(FailureClass.RATE_LIMITED, "RATE_LIMITED", "slow down", Charged.NO, retry_after=retry_after)


def refuse(b, effect=BucketEffect.RATE_LIMITED, *, sent_at=NOW, now=NOW, retry_after=None):
    pacing.refused(b, effect, failure(retry_after), sent_at=sent_at, now=now, chance=1.0)


def test_the_providers_hint_is_the_cooldown():
    b = bucket()
    refuse(b, retry_after=timedelta(seconds=26))
    assert b.is_cooling(NOW + timedelta(seconds=25))
    assert not b.is_cooling(NOW + timedelta(seconds=26))
    assert b.cooldown_reason is WaitReason.RATE_LIMITED


def test_a_burst_of_refusals_of_calls_sent_before_the_cut_halves_the_window_once():
    b = bucket(16)
    for n in range(5):
        refuse(b, sent_at=NOW - timedelta(seconds=1), now=NOW + timedelta(milliseconds=n))
    assert b.window == 8


def test_a_refusal_after_the_cut_halves_it_again_but_never_below_one():
    b = bucket(4)
    for second in range(1, 9):
        refuse(b, sent_at=NOW + timedelta(seconds=second), now=NOW + timedelta(seconds=second, milliseconds=1))
    assert b.window == 1


def test_successes_bring_the_window_back_and_not_further():
    b = bucket(1)
    b.rate_limits = 3
    for _ in range(200):
        pacing.succeeded(b, 10)
    assert b.window == 10
    assert b.rate_limits == 0
    assert not pacing.succeeded(b, 10)


def test_a_few_overloads_cool_nothing_down_and_many_in_a_row_do():
    b = bucket(2)
    refuse(b, BucketEffect.OVERLOADED)
    assert not b.is_cooling(NOW)
    for _ in range(30):
        refuse(b, BucketEffect.OVERLOADED)
    assert b.cooldown_reason is WaitReason.OVERLOADED
    assert b.cooldown_until == NOW + timedelta(minutes=2)


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        (datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 7, tzinfo=UTC)),
        (datetime(2026, 1, 15, 7, 59, tzinfo=UTC), datetime(2026, 1, 15, 8, tzinfo=UTC)),
        (datetime(2026, 1, 15, 8, 0, tzinfo=UTC), datetime(2026, 1, 16, 8, tzinfo=UTC)),
        (datetime(2026, 3, 8, 9, tzinfo=UTC), datetime(2026, 3, 9, 7, tzinfo=UTC)),  # the clocks change that night
    ],
)
def test_the_daily_quota_resets_at_midnight_pacific(now, reset):
    assert next_quota_reset(now) == reset
