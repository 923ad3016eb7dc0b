"""What the network's failures mean, and how a provider's words are quoted."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import httpx

from nanobatch_generator.domain import Charged, FailureClass, ProviderError
from nanobatch_runtime.logs import redact

_QUOTE_LENGTH: Final = 300
# All of these end before the first byte of a request is out.
_NOTHING_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
    httpx.InvalidURL,
)


def network_failure(error: httpx.HTTPError | httpx.InvalidURL, key: str) -> ProviderError:
    """Say what a broken connection means: above all, whether the request may have been carried out."""
    name = type(error).__name__
    if isinstance(error, _NOTHING_SENT):
        return ProviderError(
            FailureClass.TRANSIENT,
            "PROVIDER_UNREACHABLE",
            f"Gemini could not be reached ({quote(str(error), key) or name}); nothing was sent. "
            "Trying again may help; if it goes on, look at this machine's network or proxy.",
            provider_status=name,
        )
    if isinstance(error, httpx.DecodingError):
        return ProviderError(
            FailureClass.DAMAGED,
            "ANSWER_UNREADABLE",
            "Gemini's answer arrived garbled. Asking again usually helps.",
            charged=Charged.MAYBE,
            provider_status=name,
        )
    return ProviderError(
        FailureClass.UNKNOWN,
        "CONNECTION_LOST",
        "The connection to Gemini broke after the request was on its way. The picture may have been made and charged.",
        charged=Charged.MAYBE,
        provider_status=name,
    )


def timeout_failure(limit: timedelta) -> ProviderError:
    """Say that the call's own time was over."""
    return ProviderError(
        FailureClass.UNKNOWN,
        "CALL_TIMED_OUT",
        f"Gemini did not answer within {limit.total_seconds():g} s. The picture may have been made and charged; "
        "a longer time limit is cheaper than repeating.",
        charged=Charged.MAYBE,
        provider_status="deadline",
    )


def quote(text: str, key: str) -> str:
    """Return a provider's words fit for a message: one line, shortened, without the key or anything like one."""
    clean = redact(" ".join(text.split()))
    if key:
        clean = clean.replace(key, "[hidden]")
    return clean if len(clean) <= _QUOTE_LENGTH else clean[: _QUOTE_LENGTH - 1].rstrip() + "…"
