"""Failpoints do exactly what a test asks for, and nothing where nobody asks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanobatch_runtime import failpoints

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
from nanobatch_runtime.failpoints import failpoint
for n in range(9):
    failpoint('spooled')
    print(n, flush=True)
"""


def run(told: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env={"NANOBATCH_FAILPOINTS": told}, capture_output=True, text=True, check=False
    )


def test_a_process_is_killed_at_the_hit_that_was_named():
    ended = run("leased=kill;spooled=kill@4")
    assert (ended.returncode, ended.stdout.split()) == (-9, ["0", "1", "2"])


def test_nothing_happens_at_other_places_or_where_nothing_is_asked_for(monkeypatch):
    assert run("leased=kill").returncode == 0
    monkeypatch.setattr(failpoints, "_armed", None)
    failpoints.failpoint("leased")


def test_it_happens_again_every_so_many_times(monkeypatch):
    monkeypatch.setattr(failpoints, "_armed", failpoints.parse("leased=raise@2/3"))
    raised = []
    for n in range(1, 10):
        try:
            failpoints.failpoint("leased")
        except failpoints.FailpointError:
            raised.append(n)
    assert raised == [2, 5, 8]


@pytest.mark.parametrize("told", ["nowhere=kill", "leased", "leased=explode", "leased=kill@x"])
def test_an_aim_at_nothing_is_refused(told):
    with pytest.raises(ValueError, match="is no failpoint"):
        failpoints.parse(told)


def test_every_name_is_a_place_in_the_code_and_every_place_has_a_name():
    source = "".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    assert set(re.findall(r'failpoint\("(\w+)"\)', source)) == set(failpoints.NAMES)
