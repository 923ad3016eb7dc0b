"""The checker finds what is wrong: each of these recordings has one flaw, on a database of a few rows."""

from __future__ import annotations

import json
import sqlite3

import pytest
from soak import checker
from soak.recorded import Run

EXECUTION, RESULT = "e" * 36, "r" * 36
TABLES = """
create table executions (id, create_time, state);
create table results (id, execution_id, state);
create table attempts (id, start_time);
create table images (id);
insert into executions values ('{execution}', '2026-11-21 20:00:00.000000', 'COMPLETED');
insert into results values ('{result}', '{execution}', 'COMPLETED');
"""


@pytest.fixture
def run_of(tmp_path):
    """Return what makes a run out of a watcher's messages."""
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.executescript(TABLES.format(execution=EXECUTION, result=RESULT))
    (tmp_path / "recordings").mkdir()

    def made(*messages, execution=EXECUTION):
        lines = [
            json.dumps({"revision": n + 1, "kind": "result", "result": RESULT} | m) for n, m in enumerate(messages)
        ]
        (tmp_path / "recordings" / f"{execution}-0.jsonl").write_text("\n".join(lines))
        return Run(
            {
                "dsn": f"file:{tmp_path / 'rows.db'}?mode=ro",
                "provider_ledger": str(tmp_path / "none"),
                "recordings": str(tmp_path / "recordings"),
                "events": [],
                "clock_offset": 0.0,
            }
        )

    return made


def flaws(run):
    return [flaw.partition(": ")[2] or flaw for flaw in checker.watchers_saw_everything_once(run)]


def test_a_watcher_that_saw_the_end_is_well(run_of):
    run = run_of({"state": "PROCESSING"}, {"state": "COMPLETED"})
    assert flaws(run) == []
    assert run.monotonic(run.executions[0]["create_time"]) == 1_795_291_200


def test_a_watcher_that_missed_the_end_is_found(run_of):
    assert flaws(run_of({"state": "PROCESSING"})) == [f"result {RESULT} is COMPLETED, it was last told PROCESSING"]


def test_a_watcher_that_was_told_the_end_twice_is_found(run_of):
    assert flaws(run_of({"state": "COMPLETED"}, {"state": "COMPLETED"})) == [f"result {RESULT} ended 2 times"]


def test_a_revision_that_falls_is_found(run_of):
    run = run_of({"state": "PROCESSING"}, {"state": "COMPLETED", "revision": 1})
    assert flaws(run) == ["revision 1 came after 1"]


def test_a_recording_of_what_the_database_does_not_know_is_found(run_of):
    unknown = "u" * 36
    run = run_of({"state": "COMPLETED"}, execution=unknown)
    assert flaws(run) == [f"{unknown}-0 watched an execution that the database does not know"]
