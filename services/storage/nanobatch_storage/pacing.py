"""How a bucket answers to what its provider says: a window of calls in flight, and cooldowns. Pure.

Additive increase, multiplicative decrease. One burst of refusals counts once: calls that were sent before the window was
cut say nothing about the new window.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from nanobatch_runtime.backoff import full_jitter
from nanobatch_storage.domain import Bucket, Failure, WaitReason
from nanobatch_storage.policy import BucketEffect, next_quota_reset

MIN_WINDOW = 1.0
OVERLOAD_COOLDOWN = timedelta(seconds=5)
OVERLOAD_COOLDOWN_CAP = timedelta(minutes=2)
_LEAST_COOLDOWN = timedelta(seconds=1)


def succeeded(bucket: Bucket, limit: float) -> bool:
    """Note a success: the window grows by one for each window of successes, up to ``limit``. Returns whether it changed."""
    before = (bucket.window, bucket.rate_limits, bucket.overloads)
    bucket.rate_limits = bucket.overloads = 0
    bucket.window = max(bucket.window, min(limit, bucket.window + 1 / bucket.window))
    return before != (bucket.window, bucket.rate_limits, bucket.overloads)


def refused(
    bucket: Bucket,
    effect: BucketEffect,
    failure: Failure,
    *,
    sent_at: datetime,
    now: datetime,
    chance: float | None = None,
) -> None:
    """Note an answer that speaks of the key and model as a whole. ``sent_at`` is when the refused call was sent."""
    match effect:
        case BucketEffect.RATE_LIMITED:
            bucket.rate_limits += 1
            _cut(bucket, sent_at, now)
            wait = failure.retry_after or full_jitter(bucket.rate_limits + 1, chance=chance)
            _cool(bucket, now + max(wait, _LEAST_COOLDOWN), WaitReason.RATE_LIMITED)
        case BucketEffect.OVERLOADED:
            bucket.overloads += 1
            _cut(bucket, sent_at, now)
            # Rows back off one by one; only when nothing else succeeds does everybody wait.
            beyond = bucket.overloads - 2 * int(bucket.window)
            if beyond > 0:
                wait = min(OVERLOAD_COOLDOWN_CAP, OVERLOAD_COOLDOWN * 2 ** min(beyond - 1, 10))
                _cool(bucket, now + wait, WaitReason.OVERLOADED)
        case BucketEffect.DAILY_QUOTA:
            _cool(bucket, next_quota_reset(now), WaitReason.DAILY_QUOTA)
        case BucketEffect.KEY_BAD | BucketEffect.MODEL_GONE:
            bucket.confirmed_at = None
        case BucketEffect.NONE:
            pass


def _cut(bucket: Bucket, sent_at: datetime, now: datetime) -> None:
    if bucket.cut_at is None or sent_at > bucket.cut_at:
        bucket.window = max(MIN_WINDOW, bucket.window / 2)
        bucket.cut_at = now


def _cool(bucket: Bucket, until: datetime, reason: WaitReason) -> None:
    if bucket.cooldown_until is None or until > bucket.cooldown_until:
        bucket.cooldown_until, bucket.cooldown_reason = until, reason
