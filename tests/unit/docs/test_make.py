"""The programs behind `make bench` and `make soak` start: nothing else of `make test` runs them as people do."""

import subprocess

import pytest
from processes import ROOT


@pytest.mark.parametrize("target", ["bench", "soak"])
def test_what_make_runs_starts(target):
    lines = subprocess.run(
        ["make", "--dry-run", target, "ARGS=--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    (line,) = [line for line in lines if "-m" in line and ".venv" in line]
    told = subprocess.run(["bash", "-c", line], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    assert f"usage: make {target}" in told


def test_the_yardstick_starts_as_the_benchmark_starts_it():
    command = [ROOT / ".venv/bin/python", ROOT / "tests/bench/bare_script.py", "--help"]
    assert "--in-flight" in subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
