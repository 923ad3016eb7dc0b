"""What is known of one run, and what has changed in it since a browser last asked. Pure.

Browsers poll: they say which version they have seen, and get what is newer. A version counts every change, also light
estimates that have no revision; it means something in this process only, so ``epoch`` names the process's own copy.
A browser that brings another epoch gets everything anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from nanobatch_client import Execution, ExecutionUpdate, ProgressUpdate, Result, ResultUpdate, Stats, Update
from nanobatch_client.eta import TimeToGo
from nanobatch_web.live import views

_CACHED_DELTAS = 64


@dataclass(slots=True)
class _Row:
    version: int
    fields: dict[str, Any]
    index: int


class Run:
    """One execution, followed."""

    def __init__(self, epoch: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """``epoch`` names this copy; no other copy may have the same."""
        self.epoch = epoch
        self._now = now
        self._time_to_go = TimeToGo()
        self.revision = 0
        """The highest revision seen: where the upstream watch goes on."""
        self.stats: Stats | None = None
        self.execution: Execution | None = None
        self._version = 0
        self._execution_version = 0
        self._trouble = ""
        self._rows: dict[str, _Row] = {}  # in the order of their versions
        self._light: dict[str, tuple[int, dict[str, Any]]] = {}
        self._encoded: dict[int, bytes] = {}
        self._facts: dict[str, Any] | None = None  # what every delta of this version says

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.execution is not None and self.execution.state.is_final

    @property
    def is_whole(self) -> bool:
        """Whether every result has been seen once."""
        return self.execution is not None and self.stats is not None and len(self._rows) >= self.stats.total

    def apply(self, update: Update) -> None:
        """Take in an update of the upstream watch."""
        self._advance()
        self._time_to_go.apply(update, self._now())
        self.stats = update.stats
        self.revision = max(self.revision, update.revision)
        match update:
            case ExecutionUpdate():
                self.execution = update.execution
                self._execution_version = self._version
            case ResultUpdate():
                self._apply_result(update.result)
            case ProgressUpdate():
                self._light[update.progress.result_id] = (self._version, views.progress(update.progress))

    def renew(self, results: Iterable[Result]) -> None:
        """Take the addresses of pictures from ``results``: signed ones end. What else has changed comes by the watch."""
        renewed = {}
        for result in results:
            row = self._rows.get(result.id)
            if row is None or row.fields["revision"] != result.revision:
                continue
            addresses = views.addresses(result)
            if not addresses.items() <= row.fields.items():
                renewed[result.id] = {**row.fields, **addresses}
        if not renewed:
            return
        self._advance()
        for result_id, fields in renewed.items():
            row = self._rows.pop(result_id)
            self._rows[result_id] = _Row(self._version, fields, row.index)

    def set_trouble(self, sentence: str) -> None:
        """Note that nothing can be heard just now, and why; empty: all is well again."""
        if sentence != self._trouble:
            self._advance()
            self._trouble = sentence

    def delta(self, since: int, epoch: str) -> bytes:
        """Return what is newer than version ``since`` of ``epoch``, as JSON; everything for another epoch."""
        if epoch != self.epoch or since > self._version:
            since = -1
        encoded = self._encoded.get(since)
        if encoded is None:
            if len(self._encoded) >= _CACHED_DELTAS:
                self._encoded.clear()
            encoded = self._encoded[since] = orjson.dumps(self._newer(since))
        return encoded

    def _newer(self, since: int) -> dict[str, Any]:
        rows = []
        for row in reversed(self._rows.values()):
            if row.version <= since:
                break
            rows.append(row)
        newer: dict[str, Any] = {
            **self._told(),
            "results": [row.fields for row in sorted(rows, key=lambda row: row.index)],
            "progress": [fields for version, fields in self._light.values() if version > since],
        }
        if self.execution is not None and self._execution_version > since:
            newer["execution"] = views.execution(self.execution)
        return newer

    def _told(self) -> dict[str, Any]:
        """Return what every delta says. To guess how long it takes, the rest of the run is played out: once a version."""
        if self._facts is None:
            left = self._time_to_go.at(self._now())
            self._facts = {
                "epoch": self.epoch,
                "version": self._version,
                "trouble": self._trouble,
                "stats": views.stats(self.stats) if self.stats else None,
                "eta": None if left is None else round(left.total_seconds()),
            }
        return self._facts

    def _apply_result(self, result: Result) -> None:
        self._rows.pop(result.id, None)
        self._rows[result.id] = _Row(self._version, views.result(result), result.batch_index * 8 + result.variation)
        # What was guessed about this row is older than this.
        self._light.pop(result.id, None)

    def _advance(self) -> None:
        self._version += 1
        self._encoded.clear()
        self._facts = None
