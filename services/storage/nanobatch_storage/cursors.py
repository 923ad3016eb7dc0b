"""Where a page ended, as text. The gateway signs it before a client sees it."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime

from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import is_id


def _bad() -> InvalidArgumentError:
    violation = FieldViolation("cursor", "This is no cursor of this list.", "BAD_CURSOR")
    return InvalidArgumentError("The cursor does not belong to this list.", violations=[violation])


def _encode(kind: str, *parts: str | int) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, *parts]).encode()).decode()


def _decode(cursor: str, kind: str) -> tuple[object, object]:
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (binascii.Error, UnicodeError, ValueError, RecursionError):
        raise _bad() from None
    match parts:
        case [str() as found, first, second] if found == kind:
            return first, second
        case _:
            raise _bad()


def after_made(kind: str, create_time: datetime, thing_id: str) -> str:
    """Return the cursor behind a thing in a list by (create_time, id); ``kind`` names the list."""
    return _encode(kind, create_time.isoformat(), thing_id)


def read_made(kind: str, cursor: str) -> tuple[datetime, str]:
    """Return what :func:`after_made` was given. Raises InvalidArgumentError."""
    time, thing_id = _decode(cursor, kind)
    if not isinstance(time, str) or not isinstance(thing_id, str) or not is_id(thing_id):
        raise _bad()
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        raise _bad() from None
    if parsed.tzinfo is None:
        raise _bad()
    return parsed, thing_id


def after_execution(create_time: datetime, execution_id: str) -> str:
    """Return the cursor behind an execution in the list of the newest first."""
    return after_made("executions", create_time, execution_id)


def read_execution(cursor: str) -> tuple[datetime, str]:
    """Return what :func:`after_execution` was given. Raises InvalidArgumentError."""
    return read_made("executions", cursor)


def after_result(batch_index: int, variation: int) -> str:
    """Return the cursor behind a result in the list by (batch_index, variation)."""
    return _encode("results", batch_index, variation)


def read_result(cursor: str) -> tuple[int, int]:
    """Return what :func:`after_result` was given. Raises InvalidArgumentError."""
    batch_index, variation = _decode(cursor, "results")
    limit = 2**31
    if type(batch_index) is not int or type(variation) is not int:
        raise _bad()
    if not (0 <= batch_index < limit and 0 <= variation < limit):
        raise _bad()
    return batch_index, variation
