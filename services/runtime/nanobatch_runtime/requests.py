"""The id under which one call from outside is found in the logs of all services that had a part in it.

It is made, or taken over from the caller, at the gateway, travels with every call that follows from it, and is kept with
the execution that it created: what a generator does for that execution hours later is logged under it as well. It has
nothing to do with the ``request_id`` of the API, by which a repeated call is recognised.
"""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

import structlog

HEADER = "x-request-id"
"""Its name in gRPC metadata and HTTP headers."""
FIELD = "request_id"
"""Its name in a line of the log."""

_GOOD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_current: ContextVar[str] = ContextVar("nanobatch_request_id", default="")


def made_or(offered: str) -> str:
    """Return what a caller offered, where it can be an id (1 to 64 letters, digits, dots, dashes); else a new one."""
    return offered if _GOOD.fullmatch(offered) else uuid.uuid4().hex


def adopt(request_id: str) -> None:
    """Let what this task does from now on, and the tasks that it starts, belong to that id; empty: to none."""
    request_id = request_id if _GOOD.fullmatch(request_id) else ""
    if request_id == _current.get():
        return
    _current.set(request_id)
    if request_id:
        structlog.contextvars.bind_contextvars(**{FIELD: request_id})
    else:
        structlog.contextvars.unbind_contextvars(FIELD)


def current() -> str:
    """Return the id; empty where nobody outside asked for what is being done."""
    return _current.get()


def outgoing() -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call that follows from this one."""
    request_id = _current.get()
    return ((HEADER, request_id),) if request_id else ()
