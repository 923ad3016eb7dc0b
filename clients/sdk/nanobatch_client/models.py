"""What the SDK hands out: frozen, typed, free of gRPC. Money is integer micros (millionths of a US dollar)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import Enum
from typing import TypeAlias, TypedDict


class ExecutionState(Enum):
    """Where an execution is. UNSPECIFIED also stands for a state that this version of the SDK does not know."""

    UNSPECIFIED = "UNSPECIFIED"
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless somebody retries."""
        return self in {ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED}


class ResultState(Enum):
    """Where one wanted picture is."""

    UNSPECIFIED = "UNSPECIFIED"
    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing more happens unless somebody retries."""
        return self in {ResultState.COMPLETED, ResultState.FAILED, ResultState.CANCELLED}


class PauseReason(Enum):
    """Why an execution is paused; UNSPECIFIED: it is not."""

    UNSPECIFIED = "UNSPECIFIED"
    USER = "USER"
    INVALID_KEY = "INVALID_KEY"
    MODEL_GONE = "MODEL_GONE"
    DAILY_QUOTA = "DAILY_QUOTA"
    SPEND_CAP = "SPEND_CAP"
    DAILY_SPEND_CAP = "DAILY_SPEND_CAP"


class ExecutionMode(Enum):
    """How a picture is bought; UNSPECIFIED: the server's default."""

    UNSPECIFIED = "UNSPECIFIED"
    STANDARD = "STANDARD"
    ECONOMY = "ECONOMY"


class Charged(Enum):
    """Whether the provider charges for something; MAYBE: nobody can know from here."""

    UNSPECIFIED = "UNSPECIFIED"
    NO = "NO"
    YES = "YES"
    MAYBE = "MAYBE"


class UnknownPolicy(Enum):
    """What happens after a call of unknown outcome; UNSPECIFIED: the server's default, RETRY."""

    UNSPECIFIED = "UNSPECIFIED"
    RETRY = "RETRY"
    FAIL = "FAIL"


class WaitReason(Enum):
    """Why a pending result is not being worked on; UNSPECIFIED: it waits for its turn only."""

    UNSPECIFIED = "UNSPECIFIED"
    RATE_LIMITED = "RATE_LIMITED"
    OVERLOADED = "OVERLOADED"
    DAILY_QUOTA = "DAILY_QUOTA"
    BACKOFF = "BACKOFF"
    KEY_CHECK = "KEY_CHECK"
    PACED = "PACED"


class ImageKind(Enum):
    """What a picture is there for."""

    UNSPECIFIED = "UNSPECIFIED"
    REFERENCE = "REFERENCE"
    SOURCE = "SOURCE"
    MASTER = "MASTER"
    DERIVED = "DERIVED"
    THUMBNAIL = "THUMBNAIL"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take."""

    timeout: timedelta = timedelta(seconds=30)
    """Limit of one unary call."""
    transfer: timedelta = timedelta(minutes=5)
    """Limit of one upload or download."""
    connect: timedelta = timedelta(seconds=3)
    """How long a server that has never answered is tried again."""
    retry: timedelta = timedelta(seconds=30)
    """How long a server that has answered before, and does not now, is tried again."""
    watch: timedelta = timedelta(minutes=5)
    """How long a watch goes on trying to reconnect while no message arrives."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with what belongs to it alone; ``reference_image_ids`` replace the common ones of the call."""

    text: str
    source_image_id: str = ""
    reference_image_ids: tuple[str, ...] = ()
    variations: int | None = None


class RunOptions(TypedDict, total=False):
    """What creating and estimating have in common. Left out: the server's default."""

    aspect_ratio: str
    """Width to height, like ``"16:9"``; one of the model's ``aspect_ratios``."""
    image_size: str
    """Size tier, like ``"2K"``; one of the model's ``image_sizes``."""
    variations: int
    """Pictures per prompt, 1 to 4. Default 1."""
    seed: int
    """For providers that take one, 0 or more."""
    max_cost_micros: int
    """Spend cap, 0 or more."""
    max_attempts: int
    """Attempts per result, 1 to 10. Default 3; rate limits cost none."""
    timeout: timedelta
    """Hard limit of one call to the provider. Default: the model's."""
    on_unknown: UnknownPolicy
    """What happens after a call of unknown outcome. Default RETRY."""
    prefix: str
    """Text put before every prompt."""
    suffix: str
    """Text put behind every prompt."""
    labels: Mapping[str, str]
    """Free labels, at most 32."""
    workflow_id: str
    """Workflow it is to belong to. Default: the user's own default one."""
    parent_execution_id: str
    """The execution this one is made from."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts in pictures, and money. ``completion_percentage`` is rounded down: 100 only when all are final."""

    total: int = 0
    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    completion_percentage: int = 0
    total_cost_micros: int = 0
    uncertain_cost_micros: int = 0

    @property
    def left(self) -> int:
        """Pictures that are not final yet."""
        return self.pending + self.processing


@dataclass(frozen=True, slots=True)
class Settings:
    """What all results of an execution have in common."""

    prefix: str = ""
    suffix: str = ""
    reference_image_ids: tuple[str, ...] = ()
    aspect_ratio: str = ""
    image_size: str = ""
    variations: int = 1
    seed: int | None = None
    max_attempts: int = 0
    timeout: timedelta | None = None
    on_unknown: UnknownPolicy = UnknownPolicy.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a list of prompts, as it was at the moment of the answer."""

    id: str
    state: ExecutionState
    model: str
    stats: Stats = Stats()
    pause_reason: PauseReason = PauseReason.UNSPECIFIED
    resume_time: datetime | None = None
    """When a paused one goes on by itself; None: it waits for a person."""
    workflow_id: str = ""
    parent_execution_id: str = ""
    mode: ExecutionMode = ExecutionMode.UNSPECIFIED
    estimated_cost_micros: int = 0
    max_cost_micros: int | None = None
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = Settings()
    revision: int = 0
    cover_thumbnail_image_id: str = ""
    cover_thumbnail_url: str = ""
    """Address of the thumbnail of its first picture; in lists only."""


@dataclass(frozen=True, slots=True)
class ExecutionPage:
    """A page of a list; ``next_token`` is empty on the last one."""

    executions: tuple[Execution, ...]
    next_token: str


@dataclass(frozen=True, slots=True)
class ResultError:
    """Why a result failed: a stable code, a sentence, whether a retry can help, whether the last call was charged."""

    code: str
    message: str
    retryable: bool
    charged: Charged


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why something waits, and until when (None: nobody knows)."""

    reason: WaitReason
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One wanted picture: ``batch_index`` is the place of its prompt (from 0), ``variation`` counts from 0 too."""

    id: str
    execution_id: str
    batch_index: int
    variation: int
    prompt_text: str
    state: ResultState
    image_id: str = ""
    master_image_id: str = ""
    thumbnail_image_id: str = ""
    image_url: str = ""
    thumbnail_url: str = ""
    width: int = 0
    height: int = 0
    mime_type: str = ""
    sha256: str = ""
    attempts: int = 0
    error: ResultError | None = None
    processing_time: timedelta | None = None
    cost_micros: int = 0
    uncertain_cost_micros: int = 0
    waiting: Waiting | None = None
    revision: int = 0
    source_image_id: str = ""
    reference_image_ids: tuple[str, ...] = ()
    """What it is made with: the pictures of its prompt, else the common ones of the execution."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A light estimate, never stored; ``result_id`` empty: it is about the whole execution."""

    result_id: str
    percent: int
    eta: timedelta | None = None
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """The execution's own state, pause reason or settings changed."""

    revision: int
    stats: Stats
    execution: Execution


@dataclass(frozen=True, slots=True)
class ResultUpdate:
    """A result changed."""

    revision: int
    stats: Stats
    result: Result


@dataclass(frozen=True, slots=True)
class ProgressUpdate:
    """A light estimate arrived; it is never replayed, so ``revision`` is always 0."""

    stats: Stats
    progress: Progress
    revision: int = 0


Update: TypeAlias = ExecutionUpdate | ResultUpdate | ProgressUpdate


@dataclass(frozen=True, slots=True)
class Estimate:
    """The price by the list; ``warnings`` are sentences to read before paying."""

    total_micros: int
    per_image_micros: int
    image_count: int
    expected_duration: timedelta | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What became of a cancellation: calls that are still out, and the most they may still cost."""

    execution: Execution
    in_flight: int
    maybe_charged_micros: int


@dataclass(frozen=True, slots=True)
class Retry:
    """What became of a retry: how many results went back to PENDING."""

    execution: Execution
    retried: int


@dataclass(frozen=True, slots=True)
class Image:
    """A stored picture: immutable, verified by its hash."""

    id: str
    kind: ImageKind
    mime_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    create_time: datetime | None = None
    expire_time: datetime | None = None
    """When it goes unless an execution uses it; None: it stays."""
    url: str = field(default="", repr=False)
    """Signed address that opens without a login, in :meth:`Client.get_image` alone; empty without an HTTP port."""


@dataclass(frozen=True, slots=True)
class ImagePrice:
    """List price of one picture of a size tier; ``image_size`` is empty where the model has only one."""

    image_size: str
    micros: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model a user can pick."""

    id: str
    provider: str
    display_name: str = ""
    prices: tuple[ImagePrice, ...] = ()
    aspect_ratios: tuple[str, ...] = ()
    image_sizes: tuple[str, ...] = ()
    max_reference_images: int = 0
    max_prompt_characters: int = 0
    default_timeout: timedelta | None = None
    max_timeout: timedelta | None = None
    needs_key: bool = True
    retirement_date: str = ""
    successor: str = ""
    warnings: tuple[str, ...] = ()
    key_url: str = ""


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What the provider says about a key; ``message`` is empty when all is well."""

    valid: bool
    model_available: bool
    message: str = ""


class Role(Enum):
    """What a user may do; UNSPECIFIED also stands for a role that this version of the SDK does not know."""

    UNSPECIFIED = "UNSPECIFIED"
    CLIENT = "CLIENT"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """Who calls the API."""

    id: str
    name: str
    role: Role
    disabled: bool = False
    daily_cap_micros: int | None = None
    """Most that may be spent for them in a day; None: no limit."""
    create_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a bearer token; not the token."""

    id: str
    user_id: str
    name: str
    prefix: str
    """Its first characters, to tell tokens apart."""
    create_time: datetime | None = None
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    """To a minute or two."""


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token; ``secret`` is the token itself."""

    token: Token
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """In whose name calls are made, and the token that says so; None where the server asks for none."""

    user: User
    token: Token | None


@dataclass(frozen=True, slots=True)
class CoolingKey:
    """A provider key and model whose calls wait until a time; nothing of the key is told."""

    provider: str
    model: str
    reason: str
    until: datetime
    results: int
    """How many wait for nothing else."""


@dataclass(frozen=True, slots=True)
class TaskOut:
    """A task that a provider goes on with by itself; a generator asks for it until it is done, or older than ``timeout``."""

    provider: str
    task_id: str
    """The provider's own."""
    execution_id: str
    submit_time: datetime
    timeout: timedelta


@dataclass(frozen=True, slots=True)
class ServerStats:
    """How the server is doing at one moment."""

    read_time: datetime
    results_ready: int
    """Might be made now, and nobody makes them."""
    results_later: int
    """Wait for a time."""
    results_cooling: int
    """Those of them that wait for nothing but their key."""
    results_in_flight: int
    leases_expired: int
    """In flight at generators that are gone."""
    oldest_ready_time: datetime | None
    executions_active: int
    executions_paused: dict[str, int]
    """By reason."""
    cooling_keys: tuple[CoolingKey, ...]
    generators: dict[str, datetime]
    """When each was heard of last, by the storage that answered."""
    tasks_out: int
    """Tasks of providers."""
    tasks: tuple[TaskOut, ...]
    """The oldest of them, at most 100."""


class UsageGrouping(Enum):
    """What usage is divided by."""

    DAY = "DAY"
    MODEL = "MODEL"
    OUTCOME = "OUTCOME"


@dataclass(frozen=True, slots=True)
class Usage:
    """What calls to providers came to."""

    pictures: int = 0
    attempts: int = 0
    """Calls that have ended, repeats among them."""
    cost_micros: int = 0
    uncertain_micros: int = 0
    """Worst case of calls that may have been charged; not part of ``cost_micros``."""
    latency_p50: timedelta | None = None
    """Half of the successful calls took at most this long; None, like the two below, where none succeeded."""
    latency_p90: timedelta | None = None
    latency_p99: timedelta | None = None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The usage of one group; what was not grouped by is empty."""

    usage: Usage
    day: date | None = None
    """The day (UTC) on which the calls began."""
    model: str = ""
    outcome: str = ""
    """COMPLETED, a failure class, or CRASHED."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage by group and altogether, of calls that began in ``start <= time < end``."""

    rows: tuple[UsageRow, ...]
    totals: Usage
    start: datetime | None = None
    end: datetime | None = None
