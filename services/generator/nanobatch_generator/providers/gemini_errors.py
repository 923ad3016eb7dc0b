"""What Gemini's answers other than 200 mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx
from google.genai import errors

from nanobatch_generator.domain import Charged, FailureClass, ProviderError
from nanobatch_generator.providers.gemini_network import quote

_KEY_PAGE: Final = "https://aistudio.google.com/apikey"
_BAD_KEY: Final = re.compile(r"api key (not valid|not found|expired)", re.IGNORECASE)
_LIMIT_ZERO: Final = re.compile(r"\blimit:\s*0(?![\d.])", re.IGNORECASE)
_PER_DAY: Final = re.compile(r"per\s?day", re.IGNORECASE)
_DURATION: Final = r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?(?:(?P<s>\d+(?:\.\d+)?)s|(?P<ms>\d+(?:\.\d+)?)ms)?"
_RETRY_IN: Final = re.compile(rf"retry in {_DURATION}", re.IGNORECASE)
_WAITS: Final = {FailureClass.RATE_LIMITED, FailureClass.OVERLOADED}


def http_failure(error: errors.APIError, key: str) -> ProviderError:
    """Say what an answer other than 200 means. ``key`` is only there to be kept out of the message."""
    refusal = _Refusal.of(error)
    failure_class, code, sentence = _classify(refusal)
    message = f'{sentence} Gemini said: "{quote(refusal.message, key)}"' if refusal.is_json else sentence
    return ProviderError(
        failure_class,
        code,
        message if refusal.message else sentence,
        # Answers other than 200 are not billed, except that behind these a server may have gone on working.
        charged=Charged.MAYBE if failure_class is FailureClass.UNKNOWN else Charged.NO,
        retry_after=_retry_after(refusal, error) if failure_class in _WAITS else None,
        provider_status=f"{refusal.http} {refusal.status}".strip(),
    )


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An error answer, taken apart. ``is_json`` is False for the pages of proxies and load balancers."""

    http: int
    status: str
    message: str
    details: tuple[dict[str, Any], ...]
    is_json: bool

    @classmethod
    def of(cls, error: errors.APIError) -> _Refusal:
        body = error.details
        inner = body.get("error") if isinstance(body, dict) else None
        if not isinstance(inner, dict):
            return cls(error.code, "", "", (), is_json=False)
        details = inner.get("details")
        return cls(
            http=error.code,
            status=str(inner.get("status") or ""),
            message=str(inner.get("message") or ""),
            details=tuple(item for item in details if isinstance(item, dict)) if isinstance(details, list) else (),
            is_json=True,
        )

    def of_type(self, name: str) -> Iterator[dict[str, Any]]:
        """Return the details of one ``google.rpc`` type."""
        return (item for item in self.details if str(item.get("@type", "")).endswith(f".{name}"))

    @property
    def reasons(self) -> set[str]:
        """The machine-readable reasons, like ``API_KEY_INVALID``."""
        return {str(item.get("reason", "")) for item in self.of_type("ErrorInfo")}


_Verdict = tuple[FailureClass, str, str]


_INVALID_KEY: Final = (
    FailureClass.KEY_INVALID,
    "API_KEY_INVALID",
    f"Gemini does not accept this key. Copy it once more, or make a new one at {_KEY_PAGE}.",
)
_TOO_LARGE: Final = (
    FailureClass.BAD_REQUEST,
    "REQUEST_TOO_LARGE",
    "Prompt and pictures together are larger than Gemini takes. Use smaller pictures.",
)
_INVALID_REQUEST: Final = (
    FailureClass.BAD_REQUEST,
    "INVALID_REQUEST",
    "Gemini refused this request; sent again it would be refused again.",
)


def _bad_request(refusal: _Refusal) -> _Verdict:
    if any(reason.startswith("API_KEY_") for reason in refusal.reasons) or _BAD_KEY.search(refusal.message):
        return _INVALID_KEY
    if refusal.status == "FAILED_PRECONDITION":
        return (
            FailureClass.KEY_UNUSABLE,
            "KEY_NOT_ENABLED",
            f"Gemini does not serve this key here: its project may need billing. See {_KEY_PAGE}.",
        )
    text = refusal.message.lower()
    if "input image" in text:
        return (
            FailureClass.BAD_REQUEST,
            "INPUT_IMAGE_UNREADABLE",
            "Gemini cannot read a picture that came with the prompt. Save it as PNG or JPEG, and try again.",
        )
    if "too large" in text or "payload size" in text:
        return _TOO_LARGE
    return _INVALID_REQUEST


def _forbidden(refusal: _Refusal) -> _Verdict:
    if "leaked" in refusal.message.lower():
        return (
            FailureClass.KEY_UNUSABLE,
            "KEY_LEAKED",
            f"Google has locked this key because it was found in public. Make a new one at {_KEY_PAGE}.",
        )
    if "SERVICE_DISABLED" in refusal.reasons:
        return (
            FailureClass.KEY_UNUSABLE,
            "KEY_NOT_ENABLED",
            "The Gemini API is switched off in this key's project. Switch it on there, or use another key.",
        )
    return (
        FailureClass.KEY_UNUSABLE,
        "KEY_NOT_PERMITTED",
        f"Google knows this key and does not let it do this. Look at its restrictions, or make a new one: {_KEY_PAGE}.",
    )


def _not_found(refusal: _Refusal) -> _Verdict:
    if refusal.is_json:
        sentence = "Gemini no longer offers this model, or not to this key. Choose another model."
    else:
        sentence = "There is no Gemini at the address that was called. Look at NANOBATCH_GEMINI_BASE_URL."
    return FailureClass.MODEL_GONE, "MODEL_NOT_OFFERED", sentence


def _too_many(refusal: _Refusal) -> _Verdict:
    """Tell the windows of a 429 apart. Of several that are full the slowest counts: it is the one to wait for."""
    violations = [
        violation
        for failure in refusal.of_type("QuotaFailure")
        for violation in failure.get("violations") or []
        if isinstance(violation, dict)
    ]
    if any(str(violation.get("quotaValue")) == "0" for violation in violations) or _LIMIT_ZERO.search(refusal.message):
        return (
            FailureClass.KEY_UNUSABLE,
            "QUOTA_ZERO",
            f"This key has no quota for this model (the free tier has none for pictures). Set up billing: {_KEY_PAGE}.",
        )
    # The general text speaks of days and minutes at will, so it counts only where the quotas are not named.
    windows = [str(violation.get("quotaId", "")) for violation in violations] or [refusal.message]
    if any(_PER_DAY.search(window) for window in windows):
        # Its retryDelay is a few seconds, and wrong: the quota comes back at midnight Pacific time.
        return (
            FailureClass.QUOTA_DAY,
            "QUOTA_DAY_USED_UP",
            "This key's quota for today is used up; it comes back at midnight Pacific time.",
        )
    return (
        FailureClass.RATE_LIMITED,
        "RATE_LIMITED",
        "This key's calls come faster than Gemini allows. They go on after a pause.",
    )


def _retry_after(refusal: _Refusal, error: errors.APIError) -> timedelta | None:
    """Return how long to wait, by RetryInfo, else by the message, else by the header; None: it does not say."""
    for info in refusal.of_type("RetryInfo"):
        delay = _duration(re.fullmatch(_DURATION, str(info.get("retryDelay", "")).strip()))
        if delay is not None:
            return delay
    delay = _duration(_RETRY_IN.search(refusal.message))
    if delay is None and isinstance(error.response, httpx.Response):
        header = error.response.headers.get("retry-after", "")
        delay = timedelta(seconds=int(header)) if header.isdecimal() else None
    return delay


def _duration(found: re.Match[str] | None) -> timedelta | None:
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds, millis = (float(found[name] or 0) for name in ("h", "m", "s", "ms"))
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)


_TIMED_OUT: Final = (
    FailureClass.UNKNOWN,
    "PROVIDER_TIMED_OUT",
    "Gemini gave up before the picture was done; it may have been charged.",
)
_OVERLOADED: Final = (
    FailureClass.OVERLOADED,
    "PROVIDER_OVERLOADED",
    "Gemini is overloaded at the moment. This passes, mostly within minutes.",
)
_BY_STATUS: Final[dict[int, _Verdict]] = {
    401: _INVALID_KEY,
    408: _TIMED_OUT,
    413: _TOO_LARGE,
    499: _TIMED_OUT,
    503: _OVERLOADED,
    504: _TIMED_OUT,
    529: _OVERLOADED,
}
_BY_CONTENT: Final[dict[int, Callable[[_Refusal], _Verdict]]] = {
    400: _bad_request,
    402: _forbidden,
    403: _forbidden,
    404: _not_found,
    429: _too_many,
}


def _classify(refusal: _Refusal) -> _Verdict:
    status = refusal.http
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status in _BY_CONTENT:
        return _BY_CONTENT[status](refusal)
    match status // 100:
        case 5:
            return FailureClass.TRANSIENT, "PROVIDER_ERROR", "Gemini failed inside. Trying again usually helps."
        case 4:
            return _INVALID_REQUEST
        case _:
            return (
                FailureClass.BAD_REQUEST,
                "INVALID_REQUEST",
                f"What answers at Gemini's address is not Gemini (HTTP {status}). Look at NANOBATCH_GEMINI_BASE_URL.",
            )
