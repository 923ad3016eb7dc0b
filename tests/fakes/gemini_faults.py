"""What a fake Gemini can be told to answer, by name: the rows of the tables of wire facts, and what networks do.

A name stands in a prompt as ``{{fault:NAME}}`` (every call) or ``{{fault:NAMEx2}}`` (the first two calls of that prompt).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

GOOGLE = "type.googleapis.com/google.rpc."
HTML = "<!DOCTYPE html><html><title>Error</title><body>The server encountered an error.</body></html>"


def envelope(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = list(details)
    return {"error": error}


def bad_key(message: str = "API key not valid. Please pass a valid API key.") -> dict[str, Any]:
    return envelope(
        400,
        "INVALID_ARGUMENT",
        message,
        {
            "@type": GOOGLE + "ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        },
        {"@type": GOOGLE + "LocalizedMessage", "locale": "en-US", "message": message},
    )


def model_gone(model: str) -> dict[str, Any]:
    return envelope(
        404,
        "NOT_FOUND",
        f"models/{model} is not found for API version v1beta, or is not supported for generateContent. "
        "Call ListModels to see the list of available models and their supported methods.",
    )


def leaked() -> dict[str, Any]:
    return envelope(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.")


def quota(
    *quota_ids: str, value: str = "100", retry_delay: str | None = "26s", message: str | None = None
) -> dict[str, Any]:
    violations = [
        {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
            "quotaId": quota_id,
            "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash-image"},
            "quotaValue": value,
        }
        for quota_id in quota_ids
    ]
    details: list[dict[str, Any]] = [
        {"@type": GOOGLE + "Help", "links": [{"url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]}
    ]
    if violations:
        details.append({"@type": GOOGLE + "QuotaFailure", "violations": violations})
    if retry_delay is not None:
        details.append({"@type": GOOGLE + "RetryInfo", "retryDelay": retry_delay})
    text = (
        message or "You exceeded your current quota, please check your plan and billing details, requests per day too."
    )
    return envelope(429, "RESOURCE_EXHAUSTED", text, *details)


PER_MINUTE = "GenerateRequestsPerMinutePerProjectPerModel"
PER_DAY = "GenerateRequestsPerDayPerProjectPerModel"

Error = tuple[int, "dict[str, Any] | list[Any] | str", dict[str, str]]


def _error(code: int, body: dict[str, Any] | list[Any] | str, **headers: str) -> Error:
    return code, body, {name.replace("_", "-"): value for name, value in headers.items()}


ERRORS: dict[str, Error] = {
    "400-field": _error(
        400,
        envelope(
            400,
            "INVALID_ARGUMENT",
            'Invalid JSON payload received. Unknown name "x": Cannot find field.',
            {"@type": GOOGLE + "BadRequest", "fieldViolations": [{"field": "x", "description": "unknown"}]},
        ),
    ),
    "400-image": _error(400, envelope(400, "INVALID_ARGUMENT", "Unable to process input image. Please retry.")),
    "400-too-large": _error(
        400, envelope(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.")
    ),
    "400-key": _error(400, bad_key()),
    "400-key-not-found": _error(400, bad_key("API Key not found. Please pass a valid API key.")),
    "400-key-expired": _error(400, envelope(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.")),
    "400-precondition": _error(
        400,
        envelope(
            400, "FAILED_PRECONDITION", "Gemini API free tier is not available in your country. Please enable billing."
        ),
    ),
    "401": _error(401, envelope(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")),
    "402": _error(402, envelope(402, "FAILED_PRECONDITION", "Payment required.")),
    "403-leaked": _error(403, leaked()),
    "403-disabled": _error(
        403,
        envelope(
            403,
            "PERMISSION_DENIED",
            "Generative Language API has not been used in project 1 before or it is disabled.",
            {"@type": GOOGLE + "ErrorInfo", "reason": "SERVICE_DISABLED", "domain": "googleapis.com"},
        ),
    ),
    "403-restricted": _error(
        403,
        envelope(
            403,
            "PERMISSION_DENIED",
            "Requests to this API are blocked.",
            {"@type": GOOGLE + "ErrorInfo", "reason": "API_KEY_SERVICE_BLOCKED", "domain": "googleapis.com"},
        ),
    ),
    "404": _error(404, model_gone("gemini-2.5-flash-image")),
    "404-html": _error(404, HTML),
    "408": _error(408, HTML),
    "413": _error(413, HTML),
    "418": _error(418, envelope(418, "TEAPOT", "no")),
    "429-minute": _error(429, quota(PER_MINUTE)),
    "429-fraction": _error(429, quota(PER_MINUTE, retry_delay="20.044661790s")),
    "429-now": _error(429, quota(PER_MINUTE, retry_delay="0s")),
    "429-message": _error(
        429, quota(PER_MINUTE, retry_delay=None, message="Quota exceeded. Please retry in 20.04466179s.")
    ),
    "429-long-message": _error(429, quota(PER_MINUTE, retry_delay=None, message="Please retry in 1h2m3.5s.")),
    "429-millis": _error(429, quota(PER_MINUTE, retry_delay=None, message="Please retry in 250.5ms.")),
    "429-day": _error(429, quota(PER_DAY + "-FreeTier", retry_delay="5s")),
    "429-both": _error(429, quota(PER_MINUTE, PER_DAY, PER_MINUTE)),
    "429-zero": _error(429, quota(PER_DAY + "-FreeTier", value="0")),
    "429-zero-message": _error(
        429,
        quota(message="Quota exceeded for metric: generate_content_free_tier_requests, limit: 0\nPlease retry in 5s."),
    ),
    "429-bare": _error(429, envelope(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")),
    "429-header": _error(429, HTML, Retry_After="7"),
    "429-array": _error(429, [quota(PER_MINUTE)]),
    "499": _error(499, envelope(499, "CANCELLED", "The operation was cancelled.")),
    "500": _error(500, envelope(500, "INTERNAL", "An internal error has occurred. Please retry or report in ...")),
    "500-array": _error(500, [envelope(500, "INTERNAL", "An internal error has occurred.")]),
    "500-strange": _error(500, '["not", {"an": "envelope"}]'),
    "500-binary": _error(500, "\udcff\udcfe"),
    "502": _error(502, HTML),
    "503": _error(503, envelope(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")),
    "504": _error(504, envelope(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")),
    "529": _error(529, HTML),
    "302": _error(302, "", Location="http://127.0.0.1:9/"),
}

# A 200 without a picture. "USAGE" is replaced by the usage of the call, and left out where the fault's name ends in
# "-unmetered".
_CANDIDATE: dict[str, dict[str, Any]] = {
    "no-image": {"finishReason": "NO_IMAGE", "index": 0},
    "image-other": {
        "content": {},
        "finishReason": "IMAGE_OTHER",
        "finishMessage": "Unable to show the generated image. You will not be charged for this request.",
    },
    "image-other-silent": {"content": {}, "finishReason": "IMAGE_OTHER"},
    "text-only": {
        "content": {"role": "model", "parts": [{"text": "I would rather"}, {"text": "talk about it."}]},
        "finishReason": "STOP",
    },
    "max-tokens": {"content": {"role": "model", "parts": []}, "finishReason": "MAX_TOKENS"},
    "image-safety": {"content": {"parts": None}, "finishReason": "IMAGE_SAFETY"},
    "image-prohibited": {
        "content": {"role": "model"},
        "finishReason": "IMAGE_PROHIBITED_CONTENT",
        "finishMessage": "Third-party content. Support code 1234.",
    },
    "null-content": {"content": None, "finishReason": "STOP"},
    "empty-data": {
        "content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]},
        "finishReason": "STOP",
    },
    "no-reason": {"content": {"role": "model"}},
    **{
        reason.lower().replace("_", "-"): {"content": {"role": "model"}, "finishReason": reason}
        for reason in (
            "SAFETY",
            "PROHIBITED_CONTENT",
            "BLOCKLIST",
            "SPII",
            "RECITATION",
            "IMAGE_RECITATION",
            "MODEL_ARMOR",
            "LANGUAGE",
            "OTHER",
            "MALFORMED_RESPONSE",
            "CONTINUATION",
            "INVENTED_TOMORROW",
        )
    },
}
EMPTIES: dict[str, dict[str, Any]] = {
    **{name: {"candidates": [candidate]} for name, candidate in _CANDIDATE.items()},
    "prompt-blocked": {
        "candidates": None,
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Not this."},
    },
    "no-candidates": {},
}
# A body of its own, sent with a 200.
RAW: dict[str, str] = {"empty-body": "", "junk": "<html>not json</html>", "cut-json": '{"candidates": [{"content":'}

# A 200 with a picture, spoilt or unusual: from base64 and type of the picture to the parts of the candidate.
Parts = list[dict[str, Any]]


def _blob(data: str, mime_type: str = "image/png") -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": data}}


_DRAFT = "iVBORw0KGgpkcmFmdA=="  # too short to be a picture: whoever takes it is found out
PICTURES: dict[str, Callable[[str, str], Parts]] = {
    "thought-draft": lambda data, mime: [
        {"text": "Let me think", "thought": True},
        {**_blob(_DRAFT), "thought": True},
        _blob(data, mime),
        {**_blob(_DRAFT), "thought": True},
    ],
    "unmarked-draft": lambda data, mime: [
        {**_blob(_DRAFT), "thoughtSignature": "AAAA"},
        {"text": "better:"},
        {**_blob(data, mime), "thoughtSignature": "AAAA"},
    ],
    "text-around": lambda data, mime: [{"text": "Here it is"}, _blob(data, mime), {"text": "Enjoy"}],
    "wrong-mime": lambda data, _mime: [_blob(data, "image/gif")],
    "extra-fields": lambda data, mime: [{**_blob(data, mime), "futureField": {"x": [1]}}],
    "url-safe": lambda data, mime: [_blob(data.replace("+", "-").replace("/", "_").rstrip("="), mime)],
    "broken-base64": lambda data, mime: [_blob("!!!!" + data[4:], mime)],
    "cut-base64": lambda data, mime: [_blob(data[: len(data) // 2 // 4 * 4 + 1], mime)],
    "cut-picture": lambda data, mime: [_blob(data[: len(data) // 2 // 4 * 4], mime)],
    "no-details": lambda data, mime: [_blob(data, mime)],
    "no-usage": lambda data, mime: [_blob(data, mime)],
    "thinking-usage": lambda data, mime: [_blob(data, mime)],
}
# What happens to the connection instead of an answer: hang (until the client leaves), reset (no byte of an answer),
# cut (in the middle of the body), stall (headers and half a body, then nothing), kill (SIGKILL to the process that called).
NETWORK = frozenset({"hang", "reset", "cut", "stall", "kill"})


def known() -> frozenset[str]:
    """Every name that means something."""
    unmetered = {f"{name}-unmetered" for name in EMPTIES}
    broken = {"broken-base64-unmetered"}
    return frozenset({*ERRORS, *EMPTIES, *unmetered, *broken, *RAW, *PICTURES, *NETWORK})


def error_body(body: dict[str, Any] | list[Any] | str) -> tuple[bytes, str]:
    """Return bytes and content type of an error's body."""
    if isinstance(body, str):
        return body.encode("utf-8", "surrogateescape"), "text/html" if body.startswith("<") else "application/json"
    return json.dumps(body).encode(), "application/json"
