"""What a bucket learns of its provider's quota, and when its next call may start. Pure (docs/adr/0015).

No setting, header or catalogue tells the quota: only which calls were refused does. A bucket is in one of three states:

* nothing is known: starts are smoothed, at a rate that grows with success, so that the first refusal is one of few;
* a rate, as of a token bucket: what was accepted between two refusals, by the time between them;
* calls a period, as of a fixed window: refusals last until a boundary, then as many calls pass as before. Without the
  provider's hints, count, length and boundary are supposed from that, and corrected by what is refused.

After a refusal everybody waits, one call goes first, and the others follow once it was not refused. What was learned
loosens with the calls that pass, slowly first: an estimate that was too low, or a quota that was raised, recovers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nanobatch_storage.domain import Bucket, WaitReason
from nanobatch_storage.quota_history import Outage, Sent, latest_outage, latest_run, measure, take_last

MAX_RATE = 1000.0
FREE_STARTS = 10
"""While nothing is known, so many calls may be out before starts are smoothed."""
PROBE_WAIT = timedelta(seconds=0.3)
"""A call that was not refused for so long is taken as accepted: refusals come at once, pictures do not."""
EARLY = timedelta(milliseconds=30)
"""How far a start may lie before or behind its time without moving those after it."""
HISTORY = timedelta(minutes=10)
MOST_HISTORY = 500
"""How far back, and by how many calls at most, a refusal is judged."""

_LONG_HINT = 1.5
_LEAST_WAIT = 0.5
_FIRST_WAIT = 1.0
_LONGER = 1.5
_MOST_WAIT = 60.0
_RETURN = timedelta(seconds=1)
"""So long after any cooldown callers return one by one."""
_GUARD = timedelta(milliseconds=30)
"""After a boundary, so that no call arrives before it."""
_FEW, _MANY = 8, 66
_DOUBTS = 4
_FILL = 1.0
"""The calls of a period are sent within so many seconds of its begin, as far as there are places."""
_LENGTHS = (1, 2, 3, 5, 6, 10, 12, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds that people choose for a period."""
_LASTS = 3
"""With so many refusals one after the other, and waits between them, the quota is tried as one of periods."""
_LEAST_RUN = 3
_NEAR = 0.05
"""A boundary is looked for until it is known to so much of its period."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The latest starts of a bucket."""

    out: int
    """Calls that are out."""
    last: datetime | None = None
    before: datetime | None = None
    """The last start but one."""
    used: int = 0
    """Accepted starts since the period began (see :func:`period_start`)."""

    def with_start(self, at: datetime) -> Traffic:
        """Return the traffic with one more call, whose start is ``at``."""
        times = sorted(time for time in (self.before, self.last, at) if time is not None)
        return Traffic(self.out + 1, times[-1], times[-2] if len(times) > 1 else None, self.used + 1)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What follows from a refusal."""

    wait_until: datetime
    is_news: bool = True
    """False: it is of a burst that was learned from already."""


def is_learned(bucket: Bucket) -> bool:
    """Whether the provider ever refused a call of this bucket for its quota."""
    return bucket.refused_at is not None


def speed(bucket: Bucket, now: datetime) -> float:
    """Return the starts a second that are tried now.

    A learned rate loosens by the cube: 3 % in all after as many calls as it was measured by, twice, then quickly.
    """
    if bucket.refused_at is None or bucket.quota_calls is not None:
        return bucket.rate
    calls = bucket.rate * max((now - bucket.refused_at).total_seconds(), 0.0)
    firm = min(max(2 * bucket.rate_calls, 2 * _FEW), _MANY)
    return min(MAX_RATE, bucket.rate * (1 + 0.03 * (calls / firm) ** 2))


def period_start(bucket: Bucket, now: datetime) -> datetime | None:
    """Return when the period that ``now`` lies in began; None where the quota is not taken as one of periods."""
    if bucket.quota_from is None or not bucket.quota_period or now <= bucket.quota_from:
        return bucket.quota_from
    periods = math.floor((now - bucket.quota_from).total_seconds() / bucket.quota_period)
    return bucket.quota_from + timedelta(seconds=periods * bucket.quota_period)


def is_paced(bucket: Bucket, out: int, now: datetime) -> bool:
    """Whether the next start has to be asked for (:func:`next_start`), with so many calls out."""
    cooled = bucket.cooldown_until is not None and bucket.cooldown_until + _RETURN > now
    return is_learned(bucket) or out >= FREE_STARTS or cooled


def next_start(bucket: Bucket, traffic: Traffic, now: datetime) -> datetime:
    """Return the time of the next start: it may begin when that is not later than ``now`` + EARLY, and counts as then."""
    at = now - EARLY
    if traffic.last is not None and (is_learned(bucket) or traffic.out >= FREE_STARTS):
        at = max(at, traffic.last + timedelta(seconds=1 / speed(bucket, now)))
    if bucket.cooldown_until is not None:
        at = max(at, bucket.cooldown_until + EARLY)
        if traffic.last is not None and _is_probed(bucket) and _is_first_since(bucket.cooldown_until, traffic):
            at = max(at, traffic.last + PROBE_WAIT)
    began = period_start(bucket, now)
    if began is not None and traffic.used >= _calls(bucket, now):
        if bucket.quota_period:
            at = max(at, began + timedelta(seconds=bucket.quota_period) + EARLY + _GUARD)
        elif traffic.last is not None:  # nor the length of the period nor its calls are sure: slowly on
            beyond = traffic.used - _calls(bucket, now)
            at = max(at, traffic.last + PROBE_WAIT / (1 + beyond))
    return at


def starts_within(bucket: Bucket, traffic: Traffic, now: datetime, ahead: timedelta) -> int:
    """Return how many calls may start between ``now`` and ``ahead`` later, as far as is known now."""
    first = next_start(bucket, traffic, now)
    if first > now + ahead:
        return 0
    cooled = bucket.cooldown_until
    if cooled is not None and _is_probed(bucket) and (traffic.before is None or traffic.before < cooled):
        return 1  # the one that goes first
    count = 1 + math.floor((now + ahead - first).total_seconds() * speed(bucket, now))
    if period_start(bucket, now) is None:
        return count
    return max(1, min(count, _calls(bucket, now) - traffic.used))


def is_first_pace_in_use(bucket: Bucket, out: int) -> bool:
    """Whether starts are smoothed though nothing is known of the quota, with so many other calls out."""
    return not is_learned(bucket) and out >= FREE_STARTS and bucket.rate < MAX_RATE


def grow(bucket: Bucket) -> None:
    """Start faster: a window of calls has succeeded, and none was ever refused.

    Not after the first window of them: a burst that the provider has room for once would pass as well.
    """
    if is_learned(bucket):
        return
    if bucket.rate_calls:
        bucket.rate = min(MAX_RATE, bucket.rate * 1.5)
    bucket.rate_calls += round(bucket.window)


def learn(
    bucket: Bucket, history: Sequence[Sent], hint: timedelta | None, *, sent_at: datetime, now: datetime
) -> Lesson:
    """Learn from a refusal, and say how long everybody waits.

    ``history`` are the bucket's calls that started within :data:`HISTORY`, oldest first; ``hint`` is how long the provider
    asks to wait; ``sent_at`` is the refused call's start.
    """
    # Only calls that had their leave before it start while the bucket cools down: they are of the burst that is known.
    if bucket.refused_at is not None and (sent_at <= bucket.refused_at or bucket.is_cooling(sent_at)):
        return Lesson(now + (hint or timedelta(0)), is_news=False)
    past = [call for call in history if call.at < sent_at]
    since = take_last(list(past), refused=False)
    if bucket.refused_at is None or (since and since[-1] > bucket.refused_at):
        bucket.rate_limits = 0
    bucket.rate_limits += 1
    seconds = hint.total_seconds() if hint is not None else None
    began = period_start(bucket, sent_at)
    if began is None:
        until = _find_period(bucket, past, seconds, sent_at, now)
    else:
        until = _correct_period(bucket, past, seconds, sent_at, now)
    if until is None:
        until = _learn_rate(bucket, past, len(since), seconds, sent_at, now)
    bucket.refused_at = now
    return Lesson(until)


def _calls(bucket: Bucket, now: datetime) -> int:
    """Return how many calls of this period to try: one in a hundred more with each period without a refusal."""
    calls = bucket.quota_calls or 1
    if bucket.refused_at is None or not bucket.quota_period:
        return calls
    clean = (now - bucket.refused_at).total_seconds() / bucket.quota_period - 2
    return calls + math.floor(max(clean, 0.0) * max(1.0, calls / 100))


def _is_probed(bucket: Bucket) -> bool:
    """Whether one call goes first after the cooldown: not where it was only the pace that was kept."""
    return bucket.cooldown_reason is not WaitReason.PACED


def _is_first_since(time: datetime, traffic: Traffic) -> bool:
    return traffic.last is not None and traffic.last >= time and (traffic.before is None or traffic.before < time)


def _learn_rate(  # noqa: PLR0917  # what a refusal is judged by
    bucket: Bucket, past: Sequence[Sent], since: int, hint: float | None, sent_at: datetime, now: datetime
) -> datetime:
    """Take the quota as a rate. ``since`` calls passed since the refusal before."""
    bucket.quota_calls = bucket.quota_period = bucket.quota_from = None
    tried = speed(bucket, now)
    measured = measure(past, sent_at)
    if measured is None:
        bucket.rate = tried / 4 if bucket.rate_limits == 1 else bucket.rate
        bucket.rate_calls = 0 if bucket.refused_at is None else bucket.rate_calls
        patience = _FIRST_WAIT
    else:
        calls, seconds = measured
        rate = calls / seconds if calls >= _FEW else min((calls + 1) / seconds, tried)
        if since >= _MANY / 2:  # so many passed at what was learned before: it cannot be far off
            rate = max(rate, 0.95 * bucket.rate)
        bucket.rate, bucket.rate_calls = min(rate, MAX_RATE), calls
        patience = 2 / bucket.rate
    patience = _lengthened(bucket, patience)
    if hint is not None:
        least = _LEAST_WAIT if measured is None else 0.0
        patience = max(hint, least, patience / 2 if bucket.rate_limits > 1 else 0.0)
    return now + timedelta(seconds=patience)


def _find_period(
    bucket: Bucket, past: Sequence[Sent], hint: float | None, sent_at: datetime, now: datetime
) -> datetime | None:
    """See whether the quota is one of calls a period; returns when the next one begins, None where it is not one."""
    if hint is not None:
        measured = measure(past, sent_at)
        gap = 0.0 if measured is None else measured[1] / measured[0]
        if hint < _LONG_HINT or hint < 5 * gap:
            return None
        bucket.quota_calls = max(1, latest_run(past))
        bucket.quota_period = None
        begin = bucket.quota_from = now + timedelta(seconds=hint)
    else:
        outage = latest_outage(past)
        if outage is None:
            return _suppose_period(bucket, past, now)
        passing, all_in_all = sent_at - outage.over, sent_at - outage.first
        if outage.last - outage.first < 5 * all_in_all / outage.after or 2 * passing > all_in_all:
            return None  # a bucket that fills steadily would not have refused the last of them
        bucket.quota_calls = outage.after
        begin = _guess_period(bucket, outage, sent_at, now)
    bucket.rate = max(bucket.rate, bucket.quota_calls / _FILL)
    return begin


def _suppose_period(bucket: Bucket, past: Sequence[Sent], now: datetime) -> datetime | None:
    """Suppose a period where refusals last: that as many calls as before pass when they end, and then no more.

    A bucket that fills steadily refuses the call after the first one that passes, and then it is taken as a rate again.
    """
    before = list(past)
    refusals = take_last(before, refused=True)
    run = take_last(before, refused=False)
    if bucket.rate_limits < _LASTS or not refusals or len(run) < _LEAST_RUN:
        return None
    bucket.quota_calls, bucket.quota_period = len(run), None
    bucket.rate = max(bucket.rate, bucket.quota_calls / _FILL)
    bucket.quota_from = _patience(bucket, now)
    return bucket.quota_from


def _guess_period(bucket: Bucket, outage: Outage, sent_at: datetime, now: datetime) -> datetime:
    """Guess a period that the last outage ended in: its length, and where its boundary lay; returns the next one.

    A call sent at ``sent_at`` was refused, and the period had begun by ``outage.over``: it is longer than that.
    """
    same = outage.before >= 0.9 * outage.after  # then the calls before the outage were of the same period
    within = outage.last - (outage.began if same else outage.first)
    seconds = _longer(max(within, sent_at - outage.over).total_seconds())
    length = timedelta(seconds=seconds)
    middle = outage.last + (outage.over - outage.last) / 2
    is_tried = seconds == bucket.quota_period or middle + length <= now
    near = outage.over - outage.last < _NEAR * length
    bucket.quota_period, bucket.quota_from = seconds, outage.over if is_tried or near else middle
    begin = bucket.quota_from + length
    return begin if begin > now else now + timedelta(seconds=_FIRST_WAIT)


def _patience(bucket: Bucket, now: datetime) -> datetime:
    """Return when to try again where nothing tells it: later with each refusal."""
    return now + timedelta(seconds=_lengthened(bucket, _FIRST_WAIT))


def _lengthened(bucket: Bucket, seconds: float) -> float:
    return min(_MOST_WAIT, seconds * _LONGER ** min(bucket.rate_limits - 1, 100))


def _correct_period(
    bucket: Bucket, past: Sequence[Sent], hint: float | None, sent_at: datetime, now: datetime
) -> datetime | None:
    """Correct calls and period; returns when the next one begins, None where the quota is no longer taken as such."""
    began = period_start(bucket, sent_at) or sent_at
    used = sum(not call.refused for call in past if call.at >= began)
    if hint is not None and hint < _LONG_HINT:  # the end of the period, or one that slides along: more is allowed soon
        bucket.rate *= 0.7
        return now + timedelta(seconds=max(hint, PROBE_WAIT.total_seconds())) if bucket.rate_limits < _DOUBTS else None
    early = 0 < used < (bucket.quota_calls or 0) / 2
    if early and hint is None and bucket.quota_period is None:  # only supposed, and wrong
        return None
    if early:  # somebody else uses the key, or the period slides along
        bucket.rate *= 0.7
    if used:
        bucket.quota_calls = max(used, (bucket.quota_calls or 0) // 2)
    if early and hint is None:
        return _patience(bucket, now)
    if hint is not None:
        begin = now + timedelta(seconds=hint)
        if used:
            bucket.quota_period = _usual((begin - began).total_seconds())
        bucket.quota_from = begin
        return begin
    return _unhinted(bucket, past, began, used, sent_at, now)


def _unhinted(  # noqa: PLR0917  # what the next boundary is judged by
    bucket: Bucket, past: Sequence[Sent], began: datetime, used: int, sent_at: datetime, now: datetime
) -> datetime:
    """Return when the next period begins, as far as refusals alone tell it: ``used`` calls passed in this one."""
    calls = list(past)
    if not used:
        take_last(calls, refused=True)  # those since the period's calls were used up
    outage = latest_outage(calls)
    if bucket.quota_period is None:
        if used and outage is not None:
            return _guess_period(bucket, outage, sent_at, now)
        bucket.quota_from = _patience(bucket, now)  # it has not begun yet
        return bucket.quota_from
    length = timedelta(seconds=bucket.quota_period)
    fitted = bucket.quota_from is not None and began - bucket.quota_from > 1.5 * length
    if not used and outage is not None and not fitted:
        return _guess_period(bucket, outage, sent_at, now)
    if not used:  # the length has fitted before: the boundary lies elsewhere
        bucket.quota_from = _patience(bucket, now)
        return bucket.quota_from
    bucket.quota_from = began
    begin = began + length
    return begin if begin > now else now + timedelta(seconds=_FIRST_WAIT)


def _longer(seconds: float) -> float:
    return float(next((length for length in _LENGTHS if length > seconds + 0.1), _LENGTHS[-1]))


def _usual(seconds: float) -> float:
    """Return the length that people choose where ``seconds`` is within 3 % of one, else ``seconds``."""
    return next((float(length) for length in _LENGTHS if abs(seconds - length) <= 0.03 * length), seconds)
