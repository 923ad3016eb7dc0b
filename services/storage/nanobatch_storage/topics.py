"""Names of the hints that storage gives."""

from __future__ import annotations

WORK = "work"
"""There may be something to lease."""


def execution(execution_id: str) -> str:
    """Return the topic that says: something of this execution changed."""
    return f"execution:{execution_id}"
