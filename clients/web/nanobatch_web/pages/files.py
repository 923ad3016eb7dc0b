"""Prompts out of files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

_MAX_FILE = 2 * 1024 * 1024


def prompts_of_file(path: Path) -> str:
    """Return a file's prompts as the box takes them; of a CSV the column ``prompt``, or the first. Raises ValueError."""
    if path.stat().st_size > _MAX_FILE:
        raise ValueError
    text = path.read_bytes().decode("utf-8-sig")
    if path.suffix.lower() != ".csv":
        return text
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    if not rows:
        return ""
    names = [cell.strip().lower() for cell in rows[0]]
    column = names.index("prompt") if "prompt" in names else 0
    body = rows[1:] if "prompt" in names else rows
    return "\n\n".join(one_paragraph(row[column]) for row in body if len(row) > column)


def one_paragraph(prompt: str) -> str:
    """Return a prompt without blank lines: in the box they would part it in two."""
    return "\n".join(line for line in prompt.splitlines() if line.strip()).strip()
