"""What the gateway thinks in: callers, requests before and after validation, keys, and its own errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, TypeAlias

from nanobatch_catalog import Model
from nanobatch_runtime.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from nanobatch_runtime.keyring import Sealed

Message: TypeAlias = Any
"""A message of the public contract, made by storage or a generator, that is handed on without looking inside."""

MAX_PROMPTS = 100
MAX_PROMPT_CHARACTERS = 10_000
MAX_VARIATIONS = 4
MAX_UPLOAD_BYTES = 10 * 1024 * 1024


class Mode(IntEnum):
    """How pictures are bought; the numbers are those of ``nanobatch.gateway.v1.ExecutionMode``."""

    UNSPECIFIED = 0
    STANDARD = 1
    ECONOMY = 2


class UnknownPolicy(IntEnum):
    """What follows a call of unknown outcome; the numbers are those of ``nanobatch.gateway.v1.UnknownPolicy``."""

    UNSPECIFIED = 0
    RETRY = 1
    FAIL = 2


class UploadKind(IntEnum):
    """What an uploaded picture is for; the numbers are those of ``nanobatch.gateway.v1.ImageKind``."""

    REFERENCE = 1
    SOURCE = 2


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as authenticated here; never taken from what a client says about itself."""

    user_id: str
    admin: bool
    name: str = ""
    token_id: str = ""


LOCAL_CALLER = Caller("00000000-0000-4000-8000-000000000001", admin=True, name="local")
"""The one user of ``NANOBATCH_AUTH=local``."""

FIRST_ADMIN = Caller(LOCAL_CALLER.user_id, admin=True, name="admin")
"""Whom ``NANOBATCH_ADMIN_TOKEN`` makes: the same user, so that what was made without a login stays theirs."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a picture is to look like; empty fields mean the model's default."""

    aspect_ratio: str = ""
    image_size: str = ""
    format: str = ""
    match_source_size: bool = False


@dataclass(frozen=True, slots=True)
class PromptDraft:
    """One prompt as it came in, unchecked."""

    text: str
    source_image_id: str = ""
    reference_image_ids: tuple[str, ...] = ()
    variations: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionDraft:
    """A request as it came in, unchecked; None means that the field was left out."""

    model: str = ""
    request_id: str = ""
    workflow_id: str = ""
    parent_execution_id: str = ""
    api_key: str | None = field(default=None, repr=False)
    credential_id: str | None = None
    prompts_text: str = ""
    prompts: tuple[PromptDraft, ...] = ()
    prompt_prefix: str = ""
    prompt_suffix: str = ""
    reference_image_ids: tuple[str, ...] = ()
    output: Output = Output()
    variations: int | None = None
    seed: int | None = None
    mode: int = 0
    max_cost_micros: int | None = None
    max_attempts: int | None = None
    timeout: timedelta | None = None
    on_unknown: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One good prompt: ``text`` as given, without prefix and suffix; no references mean the common ones."""

    text: str
    variations: int
    source_image_id: str = ""
    reference_image_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """A request that passed validation, with every default filled in. ``api_key`` is empty where none is needed."""

    model: Model
    prompts: tuple[Prompt, ...]
    variations: int
    max_attempts: int
    timeout: timedelta
    on_unknown: UnknownPolicy
    mode: Mode
    request_id: str = ""
    workflow_id: str = ""
    parent_execution_id: str = ""
    api_key: str = field(default="", repr=False)
    prompt_prefix: str = ""
    prompt_suffix: str = ""
    reference_image_ids: tuple[str, ...] = ()
    output: Output = Output()
    seed: int | None = None
    max_cost_micros: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def image_count(self) -> int:
        """How many pictures are asked for, variations counted."""
        return sum(prompt.variations for prompt in self.prompts)


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A provider key under encryption. ``credential_id`` is part of what is authenticated with it."""

    credential_id: str
    sealed: Sealed
    fingerprint: str


@dataclass(frozen=True, slots=True)
class NewExecution:
    """All that storage is told about a new execution. Money in micros; ``key`` is None for models that need none."""

    request: ExecutionRequest
    request_hash: str
    fingerprint: str
    key: SealedKey | None
    estimated_cost_micros: int
    reservation_micros: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """A price by the list, in micros, and what a person should know before paying it."""

    total_micros: int
    per_image_micros: int
    image_count: int
    expected_duration: timedelta
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredExecution:
    """What the gateway must know of an execution to check a watch, a resume or a retry against it."""

    execution: Message
    revision: int
    model: str
    provider: str
    user_id: str
    prompt_prefix: str
    prompt_suffix: str


@dataclass(frozen=True, slots=True)
class PromptEdit:
    """A changed prompt of one result."""

    result_id: str
    text: str


@dataclass(frozen=True, slots=True)
class RetryDraft:
    """A retry as it came in, unchecked."""

    execution_id: str
    request_id: str = ""
    result_ids: tuple[str, ...] = ()
    edits: tuple[PromptEdit, ...] = ()
    api_key: str | None = field(default=None, repr=False)
    credential_id: str | None = None


@dataclass(frozen=True, slots=True)
class ResumeDraft:
    """A resumption as it came in, unchecked."""

    execution_id: str
    api_key: str | None = field(default=None, repr=False)
    credential_id: str | None = None
    max_cost_micros: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list; ``cursor`` is empty on the last one."""

    items: Sequence[Message]
    cursor: str


@dataclass(frozen=True, slots=True)
class PicturesOfResult:
    """What the addresses of a result's pictures are made of; ids are empty where there is none yet."""

    image_id: str
    thumbnail_id: str
    name: str
    """Stem of a file name."""


@dataclass(frozen=True, slots=True)
class ExportedResult:
    """A result as an archive tells of it. Money in micros; ``image_id`` is empty where there is no picture."""

    id: str
    index: int
    variation: int
    prompt: str
    state: str
    image_id: str = ""
    mime_type: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    cost_micros: int = 0
    uncertain_cost_micros: int = 0
    attempts: int = 0
    error: Mapping[str, object] | None = None
    """``code``, ``message``, ``retryable`` and ``charged``."""


@dataclass(frozen=True, slots=True)
class ExportedRun:
    """An execution as an archive tells of it, with its results by prompt and variation."""

    id: str
    model: str
    state: str
    created: datetime
    total_cost_micros: int
    results: tuple[ExportedResult, ...]


@dataclass(frozen=True, slots=True)
class WatchMessage:
    """What a watcher is sent, serialised once for all of them. ``revision`` is 0 for light progress."""

    revision: int
    body: bytes
    """Everything but the counts."""
    wire: bytes
    """The whole message: a protobuf message in pieces one after the other is the message."""
    pictures: PicturesOfResult | None = None
    """Set where it tells of a result with pictures; each watcher gets addresses of its own."""
    changed_at: float = 0.0
    """When storage heard of the change, in seconds since 1970 by its clock; 0: not known, or long ago."""

    def with_stats(self, stats: bytes) -> WatchMessage:
        """Return the message with other counts."""
        return replace(self, wire=self.body + stats)


@dataclass(frozen=True, slots=True)
class Update:
    """One step of a watch. ``revision`` is 0 for light progress, which is never replayed."""

    revision: int
    row_id: str
    """The result; empty for the execution itself."""
    message: WatchMessage
    stats: bytes
    """The counts, as a piece of the message."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was fully decoded and cleaned: by content, in pixels and bytes, SHA-256 in hex."""

    mime_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KeyVerdict:
    """What a provider says of a key; ``message`` is a sentence when something is wrong."""

    valid: bool
    model_available: bool
    message: str


@dataclass(frozen=True, slots=True)
class Session:
    """Whose token it is, and how long it will still work (None: for ever)."""

    caller: Caller
    remaining: timedelta | None


Digest: TypeAlias = tuple[bytes, str]
"""What is stored of a token: its SHA-256, and its first characters."""


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user as it came in, unchecked; the role is a number of ``nanobatch.gateway.v1.Role``."""

    name: str
    role: int = 0
    daily_cap_micros: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class UserChange:
    """A change of a user as it came in, unchecked: what ``mask`` names gets the value here."""

    user_id: str
    mask: tuple[str, ...]
    name: str = ""
    role: int = 0
    disabled: bool = False
    daily_cap_micros: int | None = None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token as it came in, unchecked; an empty user id is the caller's."""

    user_id: str = ""
    name: str = ""
    expire_time: datetime | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """What is kept of a new token, and the token."""

    token: Message
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UsageDraft:
    """A request as it came in, unchecked; None and empty are what the contract's defaults stand for."""

    start: datetime | None = None
    end: datetime | None = None
    model: str = ""
    user_id: str = ""
    all_users: bool = False
    group_by: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which calls: begun in ``start <= time < end``, of one model (empty: all) and one user (empty: everybody)."""

    start: datetime
    end: datetime
    model: str
    user_id: str
    group_by: tuple[int, ...]


class TokenMissingError(UnauthenticatedError):
    """No token came."""

    reason = "TOKEN_MISSING"


class TokenMalformedError(UnauthenticatedError):
    """What came is no token; nobody was asked about it."""

    reason = "TOKEN_MALFORMED"


class AdminOnlyError(PermissionDeniedError):
    """The caller is known, and no admin."""

    reason = "ADMIN_ONLY"


class AdminTokenTakenError(FailedPreconditionError):
    """NANOBATCH_ADMIN_TOKEN is the token of a user."""

    reason = "ADMIN_TOKEN_TAKEN"


class InvalidRequestError(InvalidArgumentError):
    """Fields are wrong. Carries every violation; the reason is NOT_SUPPORTED_YET where nothing else is wrong."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        """``violations`` are at least one, in the order of the request's fields."""
        first = violations[0]
        message = f"{first.field}: {first.description}"
        if len(violations) > 1:
            others = list(dict.fromkeys(violation.field for violation in violations[1:]))
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")  # noqa: PLR2004  # a glance, not the list
            message += f" {len(violations) - 1} more: {shown}."
        unsupported = all(violation.reason == "NOT_SUPPORTED_YET" for violation in violations)
        super().__init__(message, violations=violations, reason="NOT_SUPPORTED_YET" if unsupported else None)


class ImageNotFoundError(NotFoundError):
    """There is no such picture, or the caller may not see it."""

    reason = "IMAGE_NOT_FOUND"


class LinkInvalidError(PermissionDeniedError):
    """The address of a picture was changed, has expired, or was not made by this server."""

    reason = "LINK_INVALID"


class StorageUnavailableError(UnavailableError):
    """Storage cannot be reached, or did not answer in time."""

    reason = "STORAGE_UNAVAILABLE"


class GeneratorUnavailableError(UnavailableError):
    """No generator can be reached."""

    reason = "GENERATOR_UNAVAILABLE"


class StartingError(UnavailableError):
    """The gateway has not met storage yet."""

    reason = "STARTING"


class RevisionUnknownError(OutOfRangeError):
    """A watcher claims to have seen what was never given out; the metadata name the highest revision."""

    reason = "REVISION_UNKNOWN"


class SourceLostError(UnavailableError):
    """A stream of changes broke off: follow another one from the last revision. Never leaves the gateway."""

    reason = "SOURCE_LOST"


class WatchMovedError(UnavailableError):
    """The watch ends here and goes on elsewhere, from the revision in the metadata."""

    reason = "WATCH_MOVED"


class ReaderTooSlowError(ResourceExhaustedError):
    """The client did not take a message in time."""

    reason = "READER_TOO_SLOW"


class TooManyCallsError(ResourceExhaustedError):
    """The user has called too often."""

    reason = "TOO_MANY_CALLS"


class TooManyWatchesError(ResourceExhaustedError):
    """The user watches too much at a time."""

    reason = "TOO_MANY_WATCHES"


class WatcherTooSlowError(ResourceExhaustedError):
    """The watcher did not take an update in time; it may resume from the revision in the metadata."""

    reason = "WATCHER_TOO_SLOW"


class UploadTooSlowError(ResourceExhaustedError):
    """The bytes of an upload did not come in time."""

    reason = "UPLOAD_TOO_SLOW"
