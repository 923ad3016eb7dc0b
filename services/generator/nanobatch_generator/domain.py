"""What a generator thinks in: requests to providers, their answers, and the ways they fail. No I/O, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum


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
