"""What readers are shown: rows together with what is computed from their surroundings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from nanobatch_storage import quota
from nanobatch_storage.domain import (
    RUNNABLE_EXECUTION_STATES,
    Bucket,
    Execution,
    NewCredential,
    Result,
    ResultState,
    Waiting,
    WaitReason,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExecutionView:
    """An execution, the bucket that its calls are paced by, and whether its key is still there."""

    execution: Execution
    bucket: Bucket
    has_key: bool

    def cooling(self, now: datetime) -> Waiting | None:
        """Why no call of this execution starts now; None while calls may start, and where none is wanted."""
        execution, bucket = self.execution, self.bucket
        if execution.state not in RUNNABLE_EXECUTION_STATES or not execution.pending or not bucket.is_cooling(now):
            return None
        return Waiting(bucket.cooldown_reason or WaitReason.RATE_LIMITED, bucket.cooldown_until)

    def show(self, result: Result, now: datetime) -> ResultView:
        """Return the result with the reason why it waits, where it waits for more than its turn."""
        return ResultView(result, self._waiting(result, now))

    def _waiting(self, result: Result, now: datetime) -> Waiting | None:
        if result.state is not ResultState.PENDING or self.execution.state not in RUNNABLE_EXECUTION_STATES:
            return None
        cooling = self.cooling(now)
        if cooling is not None:
            return cooling
        if result.ready_at is not None and result.ready_at > now:
            return Waiting(WaitReason.BACKOFF, result.ready_at)
        if self.bucket.needs_key_check(now):
            return Waiting(WaitReason.KEY_CHECK, None)
        return Waiting(WaitReason.PACED, None) if quota.is_learned(self.bucket) else None


@dataclass(frozen=True, slots=True)
class ListedExecution:
    """An execution in a list, and the thumbnail of its first picture by prompt; None until there is one."""

    execution: Execution
    cover_id: str | None


@dataclass(frozen=True, slots=True)
class ResultView:
    """A result, and why it waits."""

    result: Result
    waiting: Waiting | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; ``next_cursor`` is empty on the last one."""

    items: Sequence[T]
    next_cursor: str


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a cancelled execution: attempts still open, and their worst case in micros."""

    execution: Execution
    in_flight: int
    maybe_charged_micros: int


@dataclass(frozen=True, slots=True)
class Retry:
    """Asks for another try. ``result_ids`` empty: all FAILED ones; ``edits`` are (result id, new text)."""

    request_id: str | None = None
    request_hash: str = ""
    result_ids: tuple[str, ...] = ()
    credential: NewCredential | None = None
    edits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Latency:
    """How long successful calls of a model took; all zero without history."""

    sample_count: int = 0
    median: timedelta = timedelta(0)
    p95: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed in an execution after a watcher's cursor, as far as one page goes."""

    view: ExecutionView
    results: Sequence[ResultView] = field(default=())
    """Changed ones by revision."""
    upto: int = 0
    """Everything up to this revision is in here; the next cursor."""
    waiting: Waiting | None = None
    """Why no call starts, for the whole execution."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left for another page."""
        return self.upto >= self.view.execution.revision


@dataclass(frozen=True, slots=True)
class WaitingNotice:
    """Why the results of an execution wait; None: they do not any more."""

    waiting: Waiting | None


@dataclass(frozen=True, slots=True)
class Change:
    """One message to a watcher. ``revision`` is 0 for a notice; ``execution`` gives the counts at this moment."""

    revision: int
    execution: Execution
    what: Execution | ResultView | WaitingNotice
    changed_at: float = 0.0
    """When this storage heard of the change, in seconds since 1970; where it only looked, when it had looked before.

    0 on what had changed before the watch began.
    """
