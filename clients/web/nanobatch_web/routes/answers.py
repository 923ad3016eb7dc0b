"""Answers in JSON: ``{"success": true, "data": ...}`` or ``{"success": false, "error": {...}}``, as in the REST API."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Request, Response

from nanobatch_client import NanobatchError
from nanobatch_web import refusals, texts

_HTTP = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 409,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def answer(data: Any) -> Response:
    """Return data."""
    return _json({"success": True, "data": data}, 200)


def refusal(error: NanobatchError, language: str) -> Response:
    """Return an error with its sentence and all bad fields."""
    fields = [
        {"field": bad.field, "message": refusals.told_of_field(language, bad), "reason": bad.reason}
        for bad in error.violations
    ]
    body = {"code": error.reason, "message": refusals.told(language, error), "fields": fields}
    return _json({"success": False, "error": body}, _HTTP.get(error.code, 500))


async def refuse(request: Request, error: Exception) -> Response:
    """Turn an SDK error that a route raised into its answer."""
    if not isinstance(error, NanobatchError):
        raise error
    return refusal(error, texts.language_of(request.headers))


def _json(body: dict[str, Any], status: int) -> Response:
    return Response(
        orjson.dumps(body), status_code=status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )
