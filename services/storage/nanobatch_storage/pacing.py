"""How a bucket answers to what its provider says: a window of calls in flight, a rate, and cooldowns. Pure.

The window is additive increase, multiplicative decrease. One burst of refusals counts once: calls that were sent before
the window was cut say nothing about the new window. What is learned of rates and periods stands in ``quota``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from nanobatch_runtime.backoff import full_jitter
from nanobatch_storage import quota
from nanobatch_storage.domain import Bucket, Failure, WaitReason
from nanobatch_storage.policy import BucketEffect, next_quota_reset
from nanobatch_storage.quota_history import Sent

MIN_WINDOW = 1.0
MAX_WINDOW = 256.0
"""Calls of one key and model in flight, over all generators; what pictures need of memory and files is bounded with it."""
OVERLOAD_COOLDOWN = timedelta(seconds=5)
OVERLOAD_COOLDOWN_CAP = timedelta(minutes=2)
_LEAST_COOLDOWN = timedelta(seconds=1)
_IN_USE = 0.75


def counts(bucket: Bucket, attempt_id: str, out: int) -> bool:
    """Whether this success changes the bucket (:func:`succeeded`). Mostly it does not: a lock on it makes calls queue.

    ``out`` are the bucket's calls that are out, this one left aside. What nobody asks more of proves nothing by its success:
    the window grows only while it is in use, the first pace only while it holds calls back. One success in a window of them
    does that, picked by its id.
    """
    if bucket.overloads or _is_recovering(bucket):
        return True
    asked_for = _is_window_in_use(bucket, out) or quota.is_first_pace_in_use(bucket, out)
    return asked_for and int(attempt_id[:8], 16) % max(1, int(bucket.window)) == 0


def succeeded(bucket: Bucket, out: int) -> None:
    """Note a success that counts (:func:`counts`)."""
    if bucket.overloads and not _is_recovering(bucket):
        bucket.overloads = 0
        return
    bucket.overloads = 0
    if _is_recovering(bucket):
        bucket.window += 1
        return
    if _is_window_in_use(bucket, out):
        bucket.window = min(MAX_WINDOW, bucket.window + 1)
    quota.grow(bucket)


def refused(  # what an answer is judged by
    bucket: Bucket,
    effect: BucketEffect,
    failure: Failure,
    *,
    sent_at: datetime | None,
    now: datetime,
    out: int = 0,
    history: Sequence[Sent] = (),
    chance: float | None = None,
) -> None:
    """Note an answer that speaks of the key and model as a whole.

    ``sent_at`` is when the refused call was sent (None: it was no call, only a question about the key), ``out`` how many
    were out with it, ``history`` the calls before it (see :func:`nanobatch_storage.quota.learn`).
    """
    match effect:
        case BucketEffect.RATE_LIMITED:
            _rate_limited(bucket, failure, sent_at, now, out, history, chance)
        case BucketEffect.OVERLOADED:
            bucket.overloads += 1
            _cut(bucket, sent_at or now, now)
            # Rows back off one by one; only when nothing else succeeds does everybody wait.
            beyond = bucket.overloads - 2 * int(bucket.window)
            if beyond > 0:
                wait = min(OVERLOAD_COOLDOWN_CAP, OVERLOAD_COOLDOWN * 2 ** min(beyond - 1, 10))
                cool(bucket, now + wait, WaitReason.OVERLOADED)
        case BucketEffect.DAILY_QUOTA:
            cool(bucket, next_quota_reset(now), WaitReason.DAILY_QUOTA)
        case BucketEffect.KEY_BAD | BucketEffect.MODEL_GONE:
            bucket.confirmed_at = None
        case BucketEffect.NONE:
            pass


def cool(bucket: Bucket, until: datetime, reason: WaitReason) -> None:
    """Let no call start before ``until``; a longer cooldown stays."""
    if bucket.cooldown_until is None or until > bucket.cooldown_until:
        bucket.cooldown_until, bucket.cooldown_reason = until, reason


def _rate_limited(  # noqa: PLR0917  # the arguments of refused
    bucket: Bucket,
    failure: Failure,
    sent_at: datetime | None,
    now: datetime,
    out: int,
    history: Sequence[Sent],
    chance: float | None,
) -> None:
    if sent_at is None:
        wait = failure.retry_after or full_jitter(2, chance=chance)
        cool(bucket, now + max(wait, _LEAST_COOLDOWN), WaitReason.RATE_LIMITED)
        return
    lesson = quota.learn(bucket, history, failure.retry_after, sent_at=sent_at, now=now)
    cool(bucket, lesson.wait_until, WaitReason.RATE_LIMITED)
    # Where few were out, or the quota is one of calls a period, the number in flight was not what was too much.
    if lesson.is_news and bucket.quota_calls is None and out >= bucket.window / 2:
        bucket.threshold = max(MIN_WINDOW, _IN_USE * bucket.window)
        _cut(bucket, sent_at, now)


def _is_window_in_use(bucket: Bucket, out: int) -> bool:
    return bucket.window < MAX_WINDOW and out + 1 >= _IN_USE * bucket.window


def _is_recovering(bucket: Bucket) -> bool:
    return bucket.threshold is not None and bucket.window < bucket.threshold


def _cut(bucket: Bucket, sent_at: datetime, now: datetime) -> None:
    if bucket.cut_at is None or sent_at > bucket.cut_at:
        bucket.window = max(MIN_WINDOW, bucket.window / 2)
        bucket.cut_at = now
