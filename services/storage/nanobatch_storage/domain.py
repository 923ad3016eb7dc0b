"""What storage thinks in: executions, results, attempts, buckets, images. No I/O, no protobuf, no SQL.

Executions and results are mutable on purpose: every change of them happens under the execution's row lock, as plain
arithmetic on these objects, and is written back in the same transaction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class ExecutionState(StrEnum):
    """See ``nanobatch.gateway.v1.ExecutionState``."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


FINAL_EXECUTION_STATES = frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED})
RUNNABLE_EXECUTION_STATES = frozenset({ExecutionState.PENDING, ExecutionState.PROCESSING})


class ResultState(StrEnum):
    """See ``nanobatch.gateway.v1.ResultState``."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class PauseReason(StrEnum):
    """See ``nanobatch.gateway.v1.PauseReason``."""

    USER = "USER"
    INVALID_KEY = "INVALID_KEY"
    MODEL_GONE = "MODEL_GONE"
    DAILY_QUOTA = "DAILY_QUOTA"
    SPEND_CAP = "SPEND_CAP"
    DAILY_SPEND_CAP = "DAILY_SPEND_CAP"


class Charged(StrEnum):
    """See ``nanobatch.gateway.v1.Charged``."""

    NO = "NO"
    YES = "YES"
    MAYBE = "MAYBE"


class UnknownPolicy(StrEnum):
    """See ``nanobatch.gateway.v1.UnknownPolicy``."""

    RETRY = "RETRY"
    FAIL = "FAIL"


class WaitReason(StrEnum):
    """See ``nanobatch.gateway.v1.WaitReason``."""

    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    DAILY_QUOTA = "DAILY_QUOTA"
    BACKOFF = "BACKOFF"
    KEY_CHECK = "KEY_CHECK"
    PACED = "PACED"


class ImageKind(StrEnum):
    """See ``nanobatch.gateway.v1.ImageKind``."""

    REFERENCE = "REFERENCE"
    SOURCE = "SOURCE"
    MASTER = "MASTER"
    DERIVED = "DERIVED"
    THUMBNAIL = "THUMBNAIL"


class FailureClass(StrEnum):
    """See ``nanobatch.storage.v1.FailureClass``."""

    TRANSIENT = "TRANSIENT"
    OVERLOADED = "OVERLOADED"
    UNKNOWN = "UNKNOWN"
    DAMAGED = "DAMAGED"
    EMPTY = "EMPTY"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_DAY = "QUOTA_DAY"
    KEY_INVALID = "KEY_INVALID"
    KEY_UNUSABLE = "KEY_UNUSABLE"
    BLOCKED = "BLOCKED"
    MODEL_GONE = "MODEL_GONE"
    BAD_REQUEST = "BAD_REQUEST"
    WORKER_LOST = "WORKER_LOST"


@dataclass(frozen=True, slots=True)
class Actor:
    """On whose behalf a call is made."""

    user_id: str
    admin: bool = False


@dataclass(frozen=True, slots=True)
class EncryptedKey:
    """A provider key as the gateway encrypted it; opaque here."""

    encrypted: bytes
    iv: bytes
    auth_tag: bytes
    salt: bytes
    key_id: str
    version: int


@dataclass(frozen=True, slots=True)
class NewCredential:
    """A provider key to be stored, and the fingerprint that finds its bucket."""

    id: str
    key: EncryptedKey
    fingerprint: str


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """See ``nanobatch.gateway.v1.OutputOptions``."""

    aspect_ratio: str = ""
    image_size: str = ""
    format: str = ""
    match_source_size: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What all results of an execution have in common; every default is filled in."""

    prompt_prefix: str = ""
    prompt_suffix: str = ""
    reference_image_ids: tuple[str, ...] = ()
    output: OutputOptions = OutputOptions()
    variations: int = 1
    seed: int | None = None
    max_attempts: int = 3
    timeout_ms: int = 180_000
    on_unknown: UnknownPolicy = UnknownPolicy.RETRY


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """One validated prompt."""

    text: str
    source_image_id: str | None = None
    reference_image_ids: tuple[str, ...] = ()
    variations: int = 1


@dataclass(frozen=True, slots=True)
class NewExecution:
    """A validated request for a run."""

    model: str
    provider: str
    settings: Settings
    prompts: tuple[NewPrompt, ...]
    fingerprint: str
    credential: NewCredential | None = None
    request_id: str | None = None
    request_hash: str = ""
    workflow_id: str | None = None
    parent_execution_id: str | None = None
    estimated_cost_micros: int = 0
    max_cost_micros: int | None = None
    reservation_micros: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    mode: str = "STANDARD"
    origin_request_id: str | None = None
    """The id of the call in the services' logs; not the one by which a repeat is recognised."""
    origin_traceparent: str | None = None
    """The W3C trace context of the call."""


@dataclass(slots=True)
class Execution:
    """One run; the fields are the columns of its row."""

    id: str
    user_id: str
    workflow_id: str
    parent_execution_id: str | None
    request_id: str | None
    request_hash: str
    state: ExecutionState
    pause_reason: PauseReason | None
    resume_time: datetime | None
    cancel_requested: bool
    model: str
    provider: str
    mode: str
    settings: Settings
    labels: dict[str, str]
    credential_id: str | None
    bucket_id: str
    total: int
    pending: int
    processing: int
    completed: int
    failed: int
    cancelled: int
    open_attempts: int
    finishing: int
    cost_micros: int
    uncertain_micros: int
    reserved_micros: int
    reservation_micros: int
    estimated_cost_micros: int
    max_cost_micros: int | None
    revision: int
    own_revision: int
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    origin_request_id: str | None = None
    origin_traceparent: str | None = None
    first_pending: int = 0
    """No pending result has a lower batch index; this may be too low, never too high."""
    stored: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    """The row as it was read: what has not changed is not written back."""

    @property
    def is_final(self) -> bool:
        """Whether no result of it will change without somebody asking."""
        return self.state in FINAL_EXECUTION_STATES

    def stamp(self) -> int:
        """Return the next revision, for one changed row."""
        self.revision += 1
        return self.revision

    def touch(self) -> None:
        """Give the execution's own row a new revision: its state, pause reason, settings or final costs changed."""
        self.own_revision = self.stamp()

    def move(self, result: Result, to: ResultState) -> None:
        """Change a result's state, keep the counts, and give the result its own new revision."""
        self._count(result.state, -1)
        self._count(to, +1)
        if to is ResultState.PENDING:
            self.first_pending = min(self.first_pending, result.batch_index)
        result.state = to
        result.revision = self.stamp()

    def _count(self, state: ResultState, by: int) -> None:
        match state:
            case ResultState.PENDING:
                self.pending += by
            case ResultState.PROCESSING:
                self.processing += by
            case ResultState.COMPLETED:
                self.completed += by
            case ResultState.FAILED:
                self.failed += by
            case ResultState.CANCELLED:
                self.cancelled += by

    def has_room(self) -> bool:
        """Whether the worst case of one more call fits under the cap."""
        if self.max_cost_micros is None:
            return True
        taken = self.cost_micros + self.uncertain_micros + self.reserved_micros
        return taken + self.reservation_micros <= self.max_cost_micros

    def pause(self, reason: PauseReason, resume_time: datetime | None = None) -> None:
        """Stop starting calls. Does nothing to a final execution."""
        if self.is_final:
            return
        self.state, self.pause_reason, self.resume_time = ExecutionState.PAUSED, reason, resume_time
        self.touch()

    def resume(self) -> None:
        """Go on after a pause."""
        self.state = ExecutionState.PENDING if self.start_time is None else ExecutionState.PROCESSING
        self.pause_reason = self.resume_time = None
        self.touch()

    def close_if_done(self, now: datetime) -> bool:
        """Give it its final state once every result is final; returns whether that happened now."""
        if self.is_final or self.pending or self.processing:
            return False
        if self.cancel_requested and self.cancelled:
            self.state = ExecutionState.CANCELLED
        else:
            self.state = ExecutionState.COMPLETED if self.completed else ExecutionState.FAILED
        self.pause_reason = self.resume_time = None
        self.end_time = now
        self.touch()
        return True


@dataclass(slots=True)
class Result:
    """One wanted picture; the fields are the columns of its row."""

    id: str
    execution_id: str
    user_id: str
    batch_index: int
    variation: int
    prompt_text: str
    source_image_id: str | None
    reference_image_ids: tuple[str, ...]
    state: ResultState
    revision: int
    ready_at: datetime | None
    lease_id: str | None
    lease_expires_at: datetime | None
    reserved_micros: int
    job_id: str | None
    attempts: int
    failures: int
    unknowns: int
    damaged: int
    empties: int
    crashes: int
    overloads: int
    overloaded_since: datetime | None
    image_id: str | None
    master_image_id: str | None
    thumbnail_image_id: str | None
    width: int
    height: int
    mime_type: str
    sha256: str
    error_code: str
    error_message: str
    error_retryable: bool
    error_charged: Charged | None
    processing_ms: int | None
    cost_micros: int
    uncertain_micros: int
    stored: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    """The row as it was read: what has not changed is not written back."""

    def drop_lease(self) -> None:
        """Forget the lease: nobody may write under it any more."""
        self.lease_id = self.lease_expires_at = None

    def clear_error(self) -> None:
        """Forget why it failed."""
        self.error_code = self.error_message = ""
        self.error_retryable = False
        self.error_charged = None


@dataclass(slots=True)
class Attempt:
    """One call to a provider; the fields are the columns of its row. Open while ``charged`` is None."""

    id: str
    user_id: str
    execution_id: str
    result_id: str
    bucket_id: str
    job_id: str | None
    lease_id: str
    model: str
    reserved_micros: int
    start_time: datetime
    answer_time: datetime | None = None
    """When the call had ended, where that was told before the attempt closed."""
    end_time: datetime | None = None
    outcome: str = ""
    charged: Charged | None = None
    cost_micros: int = 0
    input_tokens: int = 0
    text_output_tokens: int = 0
    image_output_tokens: int = 0
    usage_reported: bool = False
    provider_status: str = ""
    provider_response_id: str = ""
    error_code: str = ""
    processing_ms: int | None = None
    stored: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    """The row as it was read: what has not changed is not written back."""


FIRST_RATE = 50.0
"""Starts a second of a bucket that was never refused a call. It grows."""


@dataclass(slots=True)
class Bucket:
    """Pacing state of a provider key x model; shared by all who use that key."""

    id: str
    provider: str
    model: str
    fingerprint: str
    window: float
    confirmed_at: datetime | None
    cooldown_until: datetime | None
    cooldown_reason: WaitReason | None
    rate_limits: int
    overloads: int
    cut_at: datetime | None
    threshold: float | None = None
    """Where the window grows back to quickly after a cut."""
    rate: float = FIRST_RATE
    """Starts a second: tried while nothing is known of the quota, learned afterwards (see ``quota``)."""
    rate_calls: int = 0
    """How many accepted calls the learned rate was measured by."""
    refused_at: datetime | None = None
    """When the latest burst of refusals was learned from; None: nothing is known of the quota."""
    quota_calls: int | None = None
    """Calls a period, where the quota is taken as one of periods."""
    quota_period: float | None = None
    """Seconds; None: not known yet."""
    quota_from: datetime | None = None
    """A time at which a period began, or will."""
    stored: dict[str, Any] | None = field(default=None, compare=False, repr=False)
    """The row as it was read: what has not changed is not written back."""

    def needs_key_check(self, now: datetime) -> bool:
        """Whether the key must be checked before the next call: once per bucket and day."""
        if self.provider == KEYLESS_PROVIDER:
            return False
        return self.confirmed_at is None or now - self.confirmed_at >= KEY_CHECK_VALID

    def calls_allowed(self, now: datetime) -> int:
        """How many calls may be out: one until the key is known to be good."""
        return 1 if self.needs_key_check(now) else max(1, math.floor(self.window))

    def is_cooling(self, now: datetime) -> bool:
        """Whether no call of this bucket may start now."""
        return self.cooldown_until is not None and self.cooldown_until > now


KEYLESS_PROVIDER = "sandbox"
KEY_CHECK_VALID = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Image:
    """A stored picture; the bytes lie under ``blob_path``."""

    id: str
    user_id: str
    kind: ImageKind
    mime_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    blob_path: str
    execution_id: str | None
    create_time: datetime
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewPicture:
    """A picture that comes with a completion; its owner is that of the result."""

    id: str
    kind: ImageKind
    mime_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What the provider reported about a call; cost in micros."""

    input_tokens: int = 0
    text_output_tokens: int = 0
    image_output_tokens: int = 0
    cost_micros: int = 0
    reported: bool = False


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Names a lease: the result and the fencing token."""

    result_id: str
    lease_id: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What comes with a finished call; ``pictures`` are in the order of their bytes, exactly one of them the master."""

    lease: LeaseRef
    attempt_id: str
    pictures: tuple[NewPicture, ...]
    usage: Usage
    processing: timedelta
    provider_response_id: str


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended; its picture may still be finished."""

    lease: LeaseRef
    attempt_id: str


@dataclass(frozen=True, slots=True)
class Completed:
    """What a completion did."""

    state: ResultState
    execution_id: str
    makes_room: bool
    """Whether something may be leased now that could not before."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a completion finds before its bytes are written."""

    user_id: str
    execution_id: str
    done: ResultState | None
    """The result's state where this completion was stored before."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pending result is not being worked on, and until when (None: nobody knows)."""

    reason: WaitReason
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with a call, as the generator reports it."""

    failure_class: FailureClass
    code: str
    message: str
    charged: Charged
    usage: Usage = Usage()
    retry_after: timedelta | None = None
    provider_status: str = ""
    provider_response_id: str = ""
    processing_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A provider's task that an earlier lease's call has left; ``elapsed`` since it was submitted."""

    attempt_id: str
    task_id: str
    elapsed: timedelta


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one result until a time, with all that is needed for it."""

    execution: Execution
    result: Result
    credential: tuple[str, EncryptedKey] | None
    """Credential id and record."""
    check_key: bool
    duration: timedelta
    standby: bool = False
    """Leased ahead of the window, to begin the moment a call ends."""
    roomy: bool = False
    """Leased while a part of the window was free: nobody waits for its call to end."""
    job: OpenJob | None = None
    """To be polled instead of submitting."""
    waited: timedelta = timedelta(0)
    """How long it could have been leased before it was; for a lost lease since that ran out."""
