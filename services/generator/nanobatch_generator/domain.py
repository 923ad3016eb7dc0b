"""What a generator thinks in: requests to providers, their answers, and the ways they fail. No I/O, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from nanobatch_runtime.errors import (
    AbortedError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
    UnavailableError,
)
from nanobatch_runtime.keyring import Sealed


class FailureClass(Enum):
    """What went wrong with a call; the names are those of ``nanobatch.storage.v1.FailureClass``, which explains them."""

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


class Charged(Enum):
    """Whether the provider charges for a call."""

    NO = "NO"
    YES = "YES"
    MAYBE = "MAYBE"


@dataclass(frozen=True, slots=True)
class InputImage:
    """A picture that goes into a call: whole bytes and their type by content."""

    mime_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """One wanted picture, in the words of no particular provider."""

    model: str
    prompt: str
    timeout: timedelta
    """Total limit of the call."""
    input_images: tuple[InputImage, ...] = ()
    """Source picture first, then references in order."""
    aspect_ratio: str = ""
    image_size: str = ""
    seed: int | None = None
    max_output_tokens: int = 0
    """Sent where the model honours it, so that the worst case of the call is known; 0: none."""
    attempts: int = 0
    """Calls for this picture that ended before this one, of whatever replica."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call used and cost. ``cost_micros`` is in millionths of a dollar, rounded up."""

    input_tokens: int = 0
    text_output_tokens: int = 0
    image_output_tokens: int = 0
    cost_micros: int = 0
    reported: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A provider's picture: its bytes as they came, unchecked."""

    data: bytes
    usage: Usage
    response_id: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A provider's word that it works on the picture: a task to be asked for, not before ``poll_after`` has gone by."""

    task_id: str
    poll_after: timedelta


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A task that an earlier lease's call has left at the provider, ``elapsed`` ago."""

    attempt_id: str
    task_id: str
    elapsed: timedelta


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What a provider says of a key; ``message`` is a sentence when something is wrong."""

    valid: bool
    model_available: bool
    message: str = ""


class ProviderError(Exception):
    """A call that gave no picture. Given by the provider's file, which alone understands it; storage decides what follows."""

    def __init__(
        self,
        failure_class: FailureClass,
        code: str,
        message: str,
        *,
        charged: Charged = Charged.NO,
        usage: Usage | None = None,
        retry_after: timedelta | None = None,
        provider_status: str = "",
        response_id: str = "",
    ) -> None:
        """``code`` is stable, like ``CONTENT_BLOCKED``; ``message`` a sentence a person can act on, without any key."""
        super().__init__(message)
        self.failure_class = failure_class
        self.code = code
        self.message = message
        self.charged = charged
        self.usage = usage
        self.retry_after = retry_after
        self.provider_status = provider_status
        self.response_id = response_id


class PollUnansweredError(Exception):
    """A task could not be asked for just now; it goes on all the same."""


@dataclass(frozen=True, slots=True)
class LeaseRef:
    """Names a lease: the result, and the fencing token that every write shows."""

    result_id: str
    lease_id: str


@dataclass(frozen=True, slots=True)
class LeasedCredential:
    """A provider key as it lies in storage; id and user are part of what is authenticated."""

    id: str
    user_id: str
    key: Sealed


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended; its picture may still be finished."""

    ref: LeaseRef
    attempt_id: str
    execution_id: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one result until a time, with all that is needed for it."""

    ref: LeaseRef
    duration: timedelta
    """How long a lease lasts; it is extended after a third of it."""
    execution_id: str
    user_id: str
    model: str
    provider: str
    prompt: str = field(repr=False)
    timeout: timedelta
    """Hard limit of the call."""
    bucket_id: str = ""
    check_key: bool = False
    credential: LeasedCredential | None = None
    source_image_id: str = ""
    reference_image_ids: tuple[str, ...] = ()
    aspect_ratio: str = ""
    image_size: str = ""
    seed: int | None = None
    attempts: int = 0
    standby: bool = False
    """Leased ahead of its bucket's window: it begins when a call ends."""
    roomy: bool = False
    """Leased while a part of the window was free: nobody waits for its call to end."""
    suspect: bool = False
    """Generators died during its calls: this one is made alone in a spare process."""
    job: OpenJob | None = None
    """To be asked for instead of submitting."""
    origin_request_id: str = ""
    """Under which the call that created the execution stands in the logs; empty: under none."""
    origin_traceparent: str = ""
    """The trace of that call; empty: it was not traced."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that gave no picture, in the words that storage is told."""

    failure_class: FailureClass
    code: str
    message: str
    charged: Charged = Charged.NO
    usage: Usage | None = None
    retry_after: timedelta | None = None
    provider_status: str = ""
    response_id: str = ""
    processing_time: timedelta = timedelta(0)

    @classmethod
    def of(cls, error: ProviderError, processing_time: timedelta = timedelta(0)) -> Failure:
        """Return what a provider's file said, with how long the call took."""
        return cls(
            failure_class=error.failure_class,
            code=error.code,
            message=error.message,
            charged=error.charged,
            usage=error.usage,
            retry_after=error.retry_after,
            provider_status=error.provider_status,
            response_id=error.response_id,
            processing_time=processing_time,
        )


class PictureKind(Enum):
    """What a picture of a completion is; the names are those of ``nanobatch.gateway.v1.ImageKind``."""

    MASTER = "MASTER"
    THUMBNAIL = "THUMBNAIL"


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture's bytes say of it."""

    mime_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CheckedPicture:
    """A picture that was decoded whole, and the thumbnail made on the way."""

    master: PictureFacts
    thumbnail: PictureFacts
    thumbnail_data: bytes


@dataclass(frozen=True, slots=True)
class FinishedPicture:
    """A checked picture, ready to be handed over."""

    id: str
    kind: PictureKind
    source: Path | bytes
    """Where its bytes lie, or themselves where they are few."""
    facts: PictureFacts


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished attempt: its pictures in the order of their bytes, master first."""

    ref: LeaseRef
    attempt_id: str
    pictures: tuple[FinishedPicture, ...]
    usage: Usage
    processing_time: timedelta
    response_id: str = ""


@dataclass(frozen=True, slots=True)
class Viewer:
    """On whose behalf a watcher asks."""

    user_id: str
    admin: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a result waits; ``reason`` is the number of ``nanobatch.gateway.v1.WaitReason``, None for ``until``: unknown."""

    reason: int
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """One message of the replication. ``message`` and ``stats`` are opaque here: built once, shared by all watchers."""

    revision: int
    """Of the row; 0 on light progress, which is never kept."""
    row_id: str
    """The result, or empty for the execution itself."""
    message: object
    stats: object
    processing: int = 0
    """How many results of the execution run, in any generator."""
    running: bool = False
    """Whether the row is a result that runs."""
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A guess about a running result (empty ``result_id``: why the whole execution waits). Never stored."""

    result_id: str
    percent: int = 0
    eta: timedelta | None = None
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long successful calls of a model took lately."""

    sample_count: int
    median: timedelta
    p95: timedelta


class LeaseLostError(AbortedError):
    """The lease is no longer ours, or its execution was cancelled or paused before the call: stop silently."""

    reason = "LEASE_LOST"


class WindowFullError(ResourceExhaustedError):
    """No more calls of this bucket may be out now; with ``retry_after``, the next one may start only then."""

    reason = "WINDOW_FULL"


class StorageDownError(UnavailableError):
    """Storage did not answer. Every write is idempotent, so a repeat is safe."""

    reason = "STORAGE_UNAVAILABLE"


class SpareUnavailableError(UnavailableError):
    """A process for a call that is to be made alone could not be started."""

    reason = "SPARE_UNAVAILABLE"


class ImageGoneError(NotFoundError):
    """An input picture no longer exists."""

    reason = "IMAGE_NOT_FOUND"


class PictureRejectedError(Exception):
    """A provider's bytes are not a picture we can keep; ``code`` is stable, ``message`` a sentence."""

    def __init__(self, code: str, message: str) -> None:
        """Both go into the ledger as they are."""
        super().__init__(message)
        self.code = code
        self.message = message


class ExecutionGoneError(NotFoundError):
    """The execution was deleted while somebody watched it."""

    reason = "EXECUTION_NOT_FOUND"


class RevisionUnknownError(OutOfRangeError):
    """A watcher claims to have seen what was never given out."""

    reason = "REVISION_UNKNOWN"


class WatchMovedError(UnavailableError):
    """This generator cannot serve the watch any longer; another one can, from the revision in the metadata."""

    reason = "WATCH_MOVED"


class WatcherTooSlowError(ResourceExhaustedError):
    """The watcher did not take a message for too long; it may come back with the revision in the metadata."""

    reason = "WATCHER_TOO_SLOW"
