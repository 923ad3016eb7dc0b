"""Versions below these have known ways to be stopped or fooled from outside; the lock stays above them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

LOCK = (Path(__file__).resolve().parents[3] / "requirements/dev.txt").read_text()


@pytest.mark.parametrize(
    ("package", "floor"),
    [
        ("python-multipart", (0, 0, 27)),  # CVE-2026-40347, GHSA-pp6c-gr5w-3c5g: parts without end
        ("starlette", (0, 49, 1)),  # CVE-2025-62727: ranges without end; CVE-2025-54121: a blocked loop
        ("h11", (0, 16, 0)),  # CVE-2025-43859: smuggled requests
    ],
)
def test_what_reads_strangers_bytes_is_new_enough(package: str, floor: tuple[int, ...]) -> None:
    found = re.search(rf"^{package}==([0-9.]+)", LOCK, re.MULTILINE)
    assert found is not None
    assert tuple(map(int, found[1].split("."))) >= floor
