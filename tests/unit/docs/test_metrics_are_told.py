"""The metrics that the docs tell of are those that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from nanobatch_runtime import metrics

OPERATIONS = Path(__file__).resolve().parents[3] / "docs/operations.md"


def table() -> dict[str, set[str]]:
    """Return the labels of the metrics in the table, by name."""
    rows = re.findall(r"^\| `(nanobatch_\w+)` \|[^|]*\|([^|]*)\|", OPERATIONS.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _ in rows})
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_every_metric_stands_in_the_table_and_no_other():
    assert table().keys() == metrics.types().keys()


def test_their_labels_are_those_of_the_code():
    assert table() == metrics.labels()
