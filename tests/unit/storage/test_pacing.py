from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_storage import pacing, quota
from nanobatch_storage.domain import Bucket, Charged, Failure, FailureClass, WaitReason
from nanobatch_storage.policy import BucketEffect, next_quota_reset

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def bucket(window: float = 10) -> Bucket:
    return Bucket("b", "gemini", "m", "f", window, NOW, None, None, 0, 0, None)


def failure(retry_after: timedelta | None = None) -> Failure:
    return Failure(FailureClass.RATE_LIMITED, "RATE_LIMITED", "slow down", Charged.NO, retry_after=retry_after)


def refuse(b, effect=BucketEffect.RATE_LIMITED, *, sent_at=NOW, now=NOW, retry_after=None, out=100):
    pacing.refused(b, effect, failure(retry_after), sent_at=sent_at, now=now, out=out, chance=1.0)


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
    for second in range(1, 90, 11):
        refuse(b, sent_at=NOW + timedelta(seconds=second), now=NOW + timedelta(seconds=second, milliseconds=1))
        b.cooldown_until = None
    assert b.window == 1


def test_a_refusal_with_few_calls_out_speaks_of_the_rate_and_leaves_the_window():
    b = bucket(16)
    refuse(b, out=7)
    assert b.window == 16


def test_a_question_about_the_key_that_is_refused_teaches_nothing_of_calls():
    b = bucket(16)
    refuse(b, sent_at=None)
    assert b.is_cooling(NOW)
    assert (b.window, b.refused_at) == (16, None)


def test_a_cut_window_grows_back_quickly_then_by_one_for_each_window_of_successes_that_use_it():
    b = bucket(16)
    refuse(b)
    grown = []
    for n in range(400):
        if pacing.counts(b, f"{n * 2654435761 % 2**32:08x}", out=int(b.window) - 1):
            pacing.succeeded(b, int(b.window) - 1)
        grown.append(b.window)
    assert (b.threshold, grown[3]) == (12, 12)
    assert 20 < grown[-1] < 45


def test_a_window_that_is_not_in_use_does_not_grow():
    assert pacing.counts(bucket(10), "00000000", out=7)
    assert not pacing.counts(bucket(10), "00000000", out=3)


def test_the_first_pace_grows_while_it_holds_calls_back_though_the_window_is_wider():
    b = bucket(64)
    assert not pacing.counts(b, "00000000", out=quota.FREE_STARTS - 1)
    assert pacing.counts(b, "00000000", out=quota.FREE_STARTS)
    pacing.succeeded(b, out=quota.FREE_STARTS)
    assert (b.window, b.rate) == (64, 50)  # as many as a burst that the provider has room for once
    pacing.succeeded(b, out=quota.FREE_STARTS)
    assert (b.window, b.rate) == (64, 75)
    b.refused_at = NOW  # once something is known, success alone proves nothing
    assert not pacing.counts(b, "00000000", out=quota.FREE_STARTS)


def test_a_window_never_passes_its_bound():
    b = bucket(pacing.MAX_WINDOW)
    pacing.succeeded(b, out=1000)
    assert b.window == pacing.MAX_WINDOW
    b.rate = quota.MAX_RATE
    assert not pacing.counts(b, "00000000", out=1000)


def test_a_few_overloads_cool_nothing_down_and_many_in_a_row_do():
    b = bucket(2)
    refuse(b, BucketEffect.OVERLOADED)
    assert not b.is_cooling(NOW)
    for _ in range(30):
        refuse(b, BucketEffect.OVERLOADED)
    assert b.cooldown_reason is WaitReason.OVERLOADED
    assert b.cooldown_until == NOW + timedelta(minutes=2)
    assert b.refused_at is None  # an overload says nothing of the quota


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
