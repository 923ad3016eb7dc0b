"""What is known of a run from outside: the provider's ledger, the watchers' recordings, the faults, and the database."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

MARKER = re.compile(r"\[(\d+-\d+)\]")

Row = dict[str, Any]


class Run:
    """Everything that is known of a run. Ids are texts and times are datetimes, whichever the database."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.executions = self.rows("select * from executions order by create_time, id")
        self.results = self.rows("select * from results")
        self.attempts = self.rows("select * from attempts order by start_time")
        self.images = self.rows("select * from images")
        ledger = Path(facts["provider_ledger"])
        self.calls = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
        self.calls.sort(key=lambda call: call["arrived"])
        self.events = facts["events"]

    def rows(self, query: str) -> list[Row]:
        found = _sqlite_rows if self.facts["dsn"].startswith("file:") else _postgres_rows
        return found(self.facts["dsn"], query)

    def monotonic(self, when: Any) -> float:
        """Turn the database's time into the clock of ledger and events."""
        return float(when.timestamp() - self.facts["clock_offset"])

    def recordings(self) -> Iterator[tuple[str, str, list[Row]]]:
        """Yield execution id, name and messages of each watcher."""
        for path in sorted(Path(self.facts["recordings"]).glob("*.jsonl")):
            lines = path.read_text().splitlines()
            yield path.stem[:36], path.stem, [json.loads(line) for line in lines]


def _postgres_rows(dsn: str, query: str) -> list[Row]:
    with psycopg.connect(dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        found = connection.execute(query.encode()).fetchall()
    return [
        {name: str(value) if isinstance(value, uuid.UUID) else value for name, value in row.items()} for row in found
    ]


def _sqlite_rows(dsn: str, query: str) -> list[Row]:
    connection = sqlite3.connect(dsn, uri=True)
    try:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [{name: _of_sqlite(name, value) for name, value in zip(names, row, strict=True)} for row in cursor]
    finally:
        connection.close()


def _of_sqlite(name: str, value: Any) -> Any:
    is_time = name.endswith(("_time", "_at")) and isinstance(value, str)
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if is_time else value


def marker(text: str) -> str:
    found = MARKER.search(text)
    return found[1] if found else text


def calls_by_prompt(run: Run) -> dict[str, list[Row]]:
    calls: dict[str, list[Row]] = defaultdict(list)
    for call in run.calls:
        if call["prompt"]:  # one whose request never came in whole has none
            calls[marker(call["prompt"])].append(call)
    return calls


def image_tokens(usage: Row) -> int:
    return sum(one["tokenCount"] for one in usage.get("candidatesTokensDetails", []) if one["modality"] == "IMAGE")
