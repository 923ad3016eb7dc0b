"""What docs/operations.md tells of the metrics."""

import re
from dataclasses import dataclass
from pathlib import Path

_OPERATIONS = Path(__file__).resolve().parents[1] / "docs/operations.md"


@dataclass(frozen=True)
class Told:
    """A row of the table."""

    shown_by: frozenset[str]
    labels: frozenset[str]

    def is_shown_by(self, service: str) -> bool:
        return not self.shown_by.isdisjoint({"all", service})


def metrics_told() -> dict[str, Told]:
    """Return the rows by metric."""
    rows = re.findall(r"^\| `(nanobatch_\w+)` \|([^|]*)\|([^|]*)\|", _OPERATIONS.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    return {
        name: Told(frozenset(re.findall(r"\w+", shown_by)), frozenset(re.findall(r"`(\w+)`", labels)))
        for name, shown_by, labels in rows
    }
