"""Files that are there as a whole or not at all."""

from __future__ import annotations

from pathlib import Path


def part_of(path: Path) -> Path:
    """Return the name under which ``path`` is written before it is renamed; a killed child may leave it behind."""
    return path.with_name(f".{path.name}.part")


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is there as a whole or not at all."""
    part = part_of(path)
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
