"""Structured logs on stderr: one line an event, facts as fields, and no secret whatever the field."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

from nanobatch_runtime.imports import leaving_out

# For tracebacks in colours, which no log of ours has: 4 MB with what it brings along. This must be the first to import it.
with leaving_out("rich"):
    import structlog

_SECRET_FIELDS = re.compile(r"(api_?key|secret|token|authorization|password)", re.IGNORECASE)
# Shapes of keys and of ways to carry one: Google (AIza..., AQ....), OpenAI and Stability (sk-...), our own tokens
# (nbt_...), bearer headers and key queries.
_SECRET_SHAPES = re.compile(
    r"nbt_[0-9A-Za-z]{20,}|AIza[0-9A-Za-z_\-]{20,}|AQ\.[0-9A-Za-z_\-]{20,}"
    r"|sk-[0-9A-Za-z_\-]{16,}|(?<=[?&]key=)[^&\s\"']+|(?<=Bearer )\S+"
)
_HIDDEN = "[hidden]"


def redact(text: str) -> str:
    """Return ``text`` without anything that looks like a provider key."""
    return _SECRET_SHAPES.sub(_HIDDEN, text)


def _redact_event(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key != "event" and _SECRET_FIELDS.search(key):
            event[key] = _HIDDEN
        elif isinstance(value, str):
            event[key] = redact(value)
    return event


def configure(level: str = "info", *, json: bool | None = None, for_good: bool = False) -> None:
    """Set up logging for a process: readable on a terminal, JSON elsewhere (``json`` decides where given).

    ``for_good``: nobody sets it up anew. Loggers are made once then, and a line that is not wanted costs next to nothing.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(pad_event_to=24)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=for_good,
    )
    # Libraries' own lines may hold addresses with keys or prompts: warnings and worse only.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
