"""stdout is data, stderr is notes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import typer


def jsonable(value: Any) -> Any:  # noqa: PLR0911  # one line a type reads best
    """Return what ``json`` can write: times in ISO 8601, durations as ``.._seconds``, micros with ``.._dollars``."""
    if is_dataclass(value) and not isinstance(value, type):
        return _members({each.name: getattr(value, each.name) for each in fields(value)})
    match value:
        case Mapping():
            return _members(value)
        case Enum():
            return value.value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [jsonable(each) for each in value]
    return value


_DURATIONS = frozenset({"timeout", "processing_time", "eta", "expected_duration", "default_timeout", "max_timeout"})


def _members(mapping: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in mapping.items():
        out[f"{name}_seconds" if name in _DURATIONS else name] = jsonable(value)
        if name.endswith("_micros"):
            out[f"{name.removesuffix('_micros')}_dollars"] = None if value is None else value / 1_000_000
    return out


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a command writes. Errors are always shown; notes not with ``--quiet``."""

    quiet: bool = False
    as_json: bool = False
    json_lines: bool = False
    """Each document on one line, for streams of them."""

    def note(self, text: str) -> None:
        """Say something to a person."""
        if not self.quiet:
            typer.echo(text, err=True)

    def error(self, *lines: str) -> None:
        """Say what went wrong."""
        for number, line in enumerate(lines):
            typer.echo(line if number else f"nanobatch: {line}", err=True)

    def data(self, text: str) -> None:
        """Write a line of data."""
        typer.echo(text)

    def document(self, value: Any) -> None:
        """Write one JSON document."""
        typer.echo(json.dumps(jsonable(value), indent=None if self.json_lines else 2, ensure_ascii=False))

    @property
    def is_live(self) -> bool:
        """Whether a display that redraws itself may be used."""
        return not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
