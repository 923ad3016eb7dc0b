"""What follows a failure: the one place that decides on a result's next state. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import Enum, auto
from zoneinfo import ZoneInfo

from nanobatch_runtime.backoff import full_jitter
from nanobatch_storage.domain import Execution, Failure, FailureClass, PauseReason, Result, UnknownPolicy

MAX_UNKNOWNS = 1
"""Repeats after an unknown outcome: more would pay for the same picture again and again."""
MAX_DAMAGED = 1
MAX_EMPTIES = 2
SUSPECT_CRASHES = 2
"""From so many crashes on a result's call runs alone in a spare process, and only that one's death proves anything."""
MAX_CRASHES = 10
"""Crashes of whole generators after which a result ends all the same, so that none is called and paid for ever."""
OVERLOAD_PATIENCE = timedelta(minutes=15)
"""How long an overloaded provider costs a result no attempt."""
_PACIFIC = ZoneInfo("America/Los_Angeles")


class Next(Enum):
    """What becomes of the result."""

    AGAIN = auto()
    FAILED = auto()


class BucketEffect(Enum):
    """What the answer says about the key and model, beyond the one result."""

    NONE = auto()
    RATE_LIMITED = auto()
    OVERLOADED = auto()
    DAILY_QUOTA = auto()
    KEY_BAD = auto()
    MODEL_GONE = auto()


PAUSES = {
    BucketEffect.DAILY_QUOTA: PauseReason.DAILY_QUOTA,
    BucketEffect.KEY_BAD: PauseReason.INVALID_KEY,
    BucketEffect.MODEL_GONE: PauseReason.MODEL_GONE,
}
"""Effects that pause every execution of the bucket."""

_EFFECTS = {
    FailureClass.RATE_LIMITED: BucketEffect.RATE_LIMITED,
    FailureClass.OVERLOADED: BucketEffect.OVERLOADED,
    FailureClass.QUOTA_DAY: BucketEffect.DAILY_QUOTA,
    FailureClass.KEY_INVALID: BucketEffect.KEY_BAD,
    FailureClass.KEY_UNUSABLE: BucketEffect.KEY_BAD,
    FailureClass.MODEL_GONE: BucketEffect.MODEL_GONE,
}

_FINAL = frozenset({FailureClass.BLOCKED, FailureClass.BAD_REQUEST})
# The call ran alone, and its process has died: no neighbour can have been the cause.
_PROVEN = FailureClass.WORKER_LOST
# The bucket's cooldown or the pause of its executions keeps these results back, for all alike: no attempt is consumed.
_HELD_BY_BUCKET = frozenset(_EFFECTS) - {FailureClass.OVERLOADED}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result's next state and how long it waits before it may be leased again."""

    next: Next
    wait: timedelta = timedelta(0)
    retryable: bool = True
    """Whether a retry by hand can help without changing the prompt; of a FAILED result."""


def effect_of(failure_class: FailureClass) -> BucketEffect:
    """Return what a failure of this class says about its bucket."""
    return _EFFECTS.get(failure_class, BucketEffect.NONE)


def judge(
    result: Result, execution: Execution, failure: Failure, now: datetime, chance: float | None = None
) -> Verdict:
    """Count the failure on ``result`` and say what follows. ``chance`` (0 to 1) replaces the dice of the backoff."""
    kind = failure.failure_class
    if kind in _FINAL:
        return Verdict(Next.FAILED, retryable=False)
    if kind is _PROVEN:
        result.crashes += 1
        return Verdict(Next.FAILED)
    if kind in _HELD_BY_BUCKET:
        return Verdict(Next.AGAIN)
    if kind is FailureClass.OVERLOADED:
        result.overloaded_since = result.overloaded_since or now
        result.overloads += 1
        if now - result.overloaded_since < OVERLOAD_PATIENCE:
            return Verdict(Next.AGAIN, _wait(result.overloads, failure, chance))
    result.failures += 1
    if _is_used_up(result, execution, kind):
        return Verdict(Next.FAILED)
    return Verdict(Next.AGAIN, _wait(result.failures, failure, chance))


def is_suspect(result: Result) -> bool:
    """Whether the next call of the result is to be made alone: generators have died during earlier ones."""
    return result.crashes >= SUSPECT_CRASHES


def judge_crash(result: Result, execution: Execution) -> Verdict:
    """Count a lease that was lost with its call open, and say what follows. It never counts against max_attempts.

    Whose fault it was nobody knows: all calls of a generator die together.
    """
    result.crashes += 1
    if execution.settings.on_unknown is UnknownPolicy.FAIL or result.crashes >= MAX_CRASHES:
        return Verdict(Next.FAILED)
    return Verdict(Next.AGAIN)


def next_quota_reset(now: datetime) -> datetime:
    """Return the next midnight Pacific time, when Gemini's daily quotas reset (Gemini rate-limit page)."""
    local = now.astimezone(_PACIFIC)
    midnight = datetime.combine(local.date() + timedelta(days=1), time(), _PACIFIC)
    return midnight.astimezone(UTC)


def _is_used_up(result: Result, execution: Execution, kind: FailureClass) -> bool:
    used_up = result.failures >= execution.settings.max_attempts
    match kind:
        case FailureClass.UNKNOWN:
            result.unknowns += 1
            used_up |= execution.settings.on_unknown is UnknownPolicy.FAIL or result.unknowns > MAX_UNKNOWNS
        case FailureClass.DAMAGED:
            result.damaged += 1
            used_up |= result.damaged > MAX_DAMAGED
        case FailureClass.EMPTY:
            result.empties += 1
            used_up |= result.empties > MAX_EMPTIES
        case _:
            pass
    return used_up


def _wait(failures: int, failure: Failure, chance: float | None) -> timedelta:
    return max(full_jitter(failures, chance=chance), failure.retry_after or timedelta(0))
