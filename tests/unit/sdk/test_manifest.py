from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nanobatch_client import Charged, Execution, ExecutionState, Result, ResultError, ResultState
from nanobatch_client.cli import manifest

DONE = Result(
    "r1", "e1", 0, 1, "a fox", ResultState.COMPLETED, sha256="ab", attempts=2, cost_micros=39_000, mime_type="image/png"
)
FAILED = Result(
    "r2",
    "e1",
    1,
    0,
    "x",
    ResultState.FAILED,
    error=ResultError("CONTENT_BLOCKED", "Declined.", retryable=False, charged=Charged.MAYBE),
)


def execution(execution_id: str = "e1") -> Execution:
    return Execution(
        execution_id, ExecutionState.COMPLETED, "sandbox", create_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )


def test_a_manifest_says_what_each_picture_is() -> None:
    made = manifest.build(execution(), [DONE, FAILED], {"r1": "001-a-fox-v2.png"})
    assert (made["execution_id"], made["model"], made["created"]) == ("e1", "sandbox", "2026-01-02T03:04:05Z")
    assert made["results"] == [
        {
            "index": 0,
            "variation": 1,
            "prompt": "a fox",
            "state": "COMPLETED",
            "file": "001-a-fox-v2.png",
            "sha256": "ab",
            "cost_micros": 39_000,
            "attempts": 2,
            "error": None,
        },
        {
            "index": 1,
            "variation": 0,
            "prompt": "x",
            "state": "FAILED",
            "file": None,
            "sha256": None,
            "cost_micros": 0,
            "attempts": 0,
            "error": {"code": "CONTENT_BLOCKED", "message": "Declined.", "retryable": False, "charged": "MAYBE"},
        },
    ]


def test_the_same_execution_replaces_its_manifest(tmp_path: Path) -> None:
    for _ in range(2):
        path = manifest.write(tmp_path, manifest.build(execution(), [DONE], {}))
    assert path == tmp_path / "manifest.json"
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]
    assert json.loads(path.read_text())["execution_id"] == "e1"


def test_a_manifest_of_another_execution_is_moved_aside(tmp_path: Path) -> None:
    manifest.write(tmp_path, manifest.build(execution("../12345-6789"), [], {}))
    manifest.write(tmp_path, manifest.build(execution("e2"), [], {}))
    assert json.loads((tmp_path / "manifest.json").read_text())["execution_id"] == "e2"
    assert json.loads((tmp_path / "manifest-12345678.json").read_text())["execution_id"] == "../12345-6789"


@pytest.mark.parametrize("content", ['{"name": "my web page"}', "no json", "[]", '{"execution_id": 7, "results": []}'])
def test_a_manifest_that_is_not_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    path = manifest.write(tmp_path, manifest.build(execution("abcdefghij"), [], {}))
    assert path.name == "manifest-abcdefgh.json"
    assert (tmp_path / "manifest.json").read_text() == content


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = manifest.write(tmp_path, manifest.build(execution(), [DONE], {}))
    with pytest.raises(TypeError):
        manifest.write(tmp_path, {"execution_id": "e1", "results": object()})
    assert json.loads(path.read_text())["results"]
    assert [each.name for each in tmp_path.iterdir()] == ["manifest.json"]
