"""What the pacing makes of quotas that it is not told, in simulated time: every run is its seed."""

from __future__ import annotations

import math
import random
import statistics
from datetime import UTC, datetime, timedelta

import pytest
from fakes.gemini_quota import FixedWindow, TokenBucket
from fakes.quota_simulation import Run, SlidingWindow

from nanobatch_storage import quota
from nanobatch_storage.domain import Bucket
from nanobatch_storage.quota import Traffic
from nanobatch_storage.quota_history import Sent

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SEEDS = range(1, 10)


def bucket(**fields) -> Bucket:
    return Bucket("b", "gemini", "m", "f", 50, NOW, None, None, 0, 0, None, **fields)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def phase(seed: int, most: float = 10) -> float:
    """Where in its first window the provider is when the first call comes; the rest of it is long enough to be used."""
    return random.Random(seed).uniform(3, most)


QUOTAS = {
    "600 a minute, burst 50": (lambda _: TokenBucket(10, 50), 1.10, 0.03),
    "60 a minute, burst 10": (lambda _: TokenBucket(1, 10), 1.10, 0.04),
    "100 per fixed 10 s": (lambda seed: FixedWindow(100, 10, phase(seed)), 1.20, 0.03),
    "60 per fixed minute": (lambda seed: FixedWindow(60, 60, phase(seed, 60)), 1.05, 0.03),
    "100 per sliding 10 s": (lambda _: SlidingWindow(100, 10), 1.20, 0.04),
}


@pytest.mark.parametrize("callers", [1, 4])
@pytest.mark.parametrize("name", QUOTAS)
def test_a_hidden_quota_is_used_up_to_its_bound_at_the_cost_of_few_refusals(name, callers):
    make, ratio, share = QUOTAS[name]
    runs = [Run(make(seed), seed, callers=callers) for seed in SEEDS]
    assert statistics.median(run.ratio for run in runs) <= ratio
    assert statistics.median(run.share for run in runs) <= share


@pytest.mark.parametrize(
    ("make", "ratio", "share"),
    [
        (lambda _: TokenBucket(10, 50), 1.10, 0.03),
        (lambda _: TokenBucket(1, 10), 1.10, 0.04),
        (lambda seed: FixedWindow(100, 10, phase(seed)), 1.20, 0.03),
        (lambda seed: FixedWindow(60, 60, phase(seed, 60)), 1.05, 0.05),
        (lambda _: SlidingWindow(100, 10), 1.60, 0.04),
    ],
)
def test_a_provider_that_says_nothing_of_waiting_costs_little_more(make, ratio, share):
    runs = [Run(make(seed), seed, callers=4, hint=None) for seed in SEEDS]
    assert statistics.median(run.ratio for run in runs) <= ratio
    assert statistics.median(run.share for run in runs) <= share


@pytest.mark.parametrize(("calls", "seconds"), [(40, 12), (30, 20), (20, 6), (60, 60)])
def test_whatever_the_period_it_is_found_without_hints_and_then_used(calls, seconds):
    runs = [
        Run(FixedWindow(calls, seconds, phase(seed, seconds)), seed, calls=8 * calls, callers=4, hint=None)
        for seed in SEEDS
    ]
    assert statistics.median(run.ratio for run in runs) <= 1.3
    assert statistics.median(run.refused for run in runs) <= 18  # what it costs to find out, however few the calls are


def test_hints_in_whole_seconds_are_as_good():
    for make in (lambda _: TokenBucket(10, 50), lambda seed: FixedWindow(100, 10, phase(seed))):
        runs = [Run(make(seed), seed, callers=4, hint=math.ceil) for seed in SEEDS]
        assert statistics.median(run.ratio for run in runs) <= 1.20
        assert statistics.median(run.share for run in runs) <= 0.03


def test_pictures_that_take_long_let_the_quota_be_learned_as_well():
    runs = [Run(TokenBucket(2, 10), seed, callers=4, latency=(8, 20)) for seed in SEEDS]
    assert statistics.median(run.ratio for run in runs) <= 1.10
    assert statistics.median(run.share for run in runs) <= 0.03


def test_somebody_else_with_the_same_key_is_made_room_for():
    runs = [Run(TokenBucket(10, 50), seed, callers=4, others=5) for seed in SEEDS]
    assert statistics.median(run.seconds for run in runs) <= 1.15 * 300 / 5
    assert statistics.median(run.share for run in runs) <= 0.05


def test_a_quota_that_is_lowered_is_learned_anew():
    runs = [Run(TokenBucket(10, 50), seed, callers=4, change=(12, TokenBucket(3, 10))) for seed in SEEDS]
    left = 300 - 50 - 12 * 10 - 10
    assert statistics.median(run.seconds for run in runs) <= 1.15 * (12 + left / 3)
    assert statistics.median(run.share for run in runs) <= 0.08


def test_a_quota_that_is_raised_is_found_out():
    runs = [Run(TokenBucket(3, 10), seed, calls=900, change=(12, TokenBucket(20, 10))) for seed in SEEDS]
    assert statistics.median(run.ratio for run in runs) <= 0.6  # of what the old quota would have taken
    assert statistics.median(run.share for run in runs) <= 0.02


def test_without_any_refusal_nothing_is_held_back_while_few_are_out():
    b = bucket()
    assert not quota.is_paced(b, quota.FREE_STARTS - 1, NOW)
    assert quota.is_paced(b, quota.FREE_STARTS, NOW)
    many = Traffic(quota.FREE_STARTS, last=NOW)
    assert quota.next_start(b, many, NOW) == after(1 / b.rate)


def test_what_passed_between_two_refusals_is_the_rate():
    b = bucket()
    quota.learn(b, [], timedelta(seconds=0.1), sent_at=NOW, now=after(0.1))
    history = [Sent(NOW, refused=True), *(Sent(after(0.5 + n / 10), refused=False) for n in range(20))]
    lesson = quota.learn(b, history, None, sent_at=after(2.5), now=after(2.6))
    assert lesson.is_news
    assert b.rate == pytest.approx(20 / 2.5)
    assert quota.speed(b, after(2.6)) == pytest.approx(b.rate)
    assert quota.speed(b, after(60)) > 2 * b.rate  # an estimate that was too low recovers


def test_after_a_cooldown_one_call_goes_first_and_the_others_when_it_was_not_refused():
    b = bucket()
    b.cooldown_until = quota.learn(b, [], timedelta(seconds=1), sent_at=NOW, now=NOW).wait_until
    assert quota.next_start(b, Traffic(3, NOW), NOW) > after(1)
    assert quota.next_start(b, Traffic(3, NOW), after(1.1)) <= after(1.1)
    probe = Traffic(4, last=after(1.1), before=NOW)
    assert quota.next_start(b, probe, after(1.1)) == after(1.1) + quota.PROBE_WAIT
    assert quota.starts_within(b, probe, after(1.1), timedelta(seconds=1)) == 1
    assert quota.next_start(b, Traffic(5, last=after(1.5), before=after(1.1)), after(1.5)) < after(1.6)


def test_a_burst_of_refusals_is_learned_from_once():
    b = bucket()
    assert quota.learn(b, [], timedelta(seconds=2), sent_at=NOW, now=after(0.1)).is_news
    rate = b.rate
    late = quota.learn(b, [], timedelta(seconds=3), sent_at=after(0.05), now=after(0.2))
    assert not late.is_news
    assert late.wait_until == after(3.2)
    assert b.rate == rate


def test_a_long_hint_makes_a_period_whose_length_comes_with_the_next_one():
    b = bucket()
    first = [Sent(after(n / 50), refused=False) for n in range(100)]
    quota.learn(b, first, timedelta(seconds=8), sent_at=after(2), now=after(2))
    assert (b.quota_calls, b.quota_period, b.quota_from) == (100, None, after(10))
    second = [*first, Sent(after(2), refused=True), *(Sent(after(10.1 + n / 50), refused=False) for n in range(98))]
    quota.learn(b, second, timedelta(seconds=7.2), sent_at=after(12.75), now=after(12.8))
    assert (b.quota_calls, b.quota_period, b.quota_from) == (98, 10.0, after(20))
    used_up = Traffic(5, last=after(22), before=after(21.9), used=98)
    assert after(30) < quota.next_start(b, used_up, after(22)) < after(30.1)


def test_however_often_it_was_refused_the_wait_has_an_end():
    b = bucket()
    b.refused_at, b.rate_limits = NOW, 5000
    assert quota.learn(b, [], None, sent_at=after(1), now=after(1)).wait_until <= after(61)
    b.refused_at, b.rate_limits = after(1), 5000
    history = [Sent(after(1), refused=True)]
    assert quota.learn(b, history, None, sent_at=after(62), now=after(62)).wait_until <= after(122)


def test_refusals_that_last_make_a_period_of_what_had_passed_before():
    b = bucket()
    history = [Sent(after(n / 50), refused=False) for n in range(100)]
    times = []
    for sent in (2.0, 3.1, 4.7):
        times.append(quota.learn(b, history, None, sent_at=after(sent), now=after(sent)).wait_until)
        history.append(Sent(after(sent), refused=True))
    assert times == [after(3.0), after(4.6), after(6.95)]
    assert (b.quota_calls, b.quota_period, b.quota_from) == (100, None, after(6.95))
    used_up = Traffic(5, last=after(9), before=after(8.9), used=100)
    assert quota.next_start(b, used_up, after(9)) == after(9) + quota.PROBE_WAIT


def test_a_period_that_was_only_supposed_is_given_up_when_the_second_call_after_it_is_refused():
    b = bucket()
    history = [Sent(after(n / 50), refused=False) for n in range(20)]
    for sent in (0.5, 1.6, 3.2):
        quota.learn(b, history, None, sent_at=after(sent), now=after(sent))
        history.append(Sent(after(sent), refused=True))
    assert b.quota_calls == 20
    history.append(Sent(after(5.5), refused=False))
    quota.learn(b, history, None, sent_at=after(5.9), now=after(5.9))
    assert b.quota_calls is None
    assert b.rate < 1
