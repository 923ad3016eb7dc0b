"""Prompts out of files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

MAX_FILE = 2 * 1024 * 1024
_DELIMITERS = ("\t", ";", ",")
"""In the order of trust: Excel writes semicolons where the comma is the decimal sign, and commas stand in prompts."""


class FileError(ValueError):
    """A file without prompts; ``key`` is its sentence in the catalogue, ``facts`` what is put in."""

    def __init__(self, key: str, **facts: object) -> None:
        """See the class."""
        super().__init__(key)
        self.key = key
        self.facts = facts


def prompts_of_file(path: Path) -> str:
    """Return a file's prompts as the box takes them; of a CSV the column ``prompt``, or the first. Raises FileError."""
    if path.stat().st_size > MAX_FILE:
        raise FileError("prompts.file_large", size=MAX_FILE // 1024**2)
    text = _decoded(path.read_bytes())
    prompts = _first_column(text) if path.suffix.lower() == ".csv" else text
    if not prompts.strip():
        raise FileError("prompts.file_empty")
    return prompts


def one_paragraph(prompt: str) -> str:
    """Return a prompt without blank lines: in the box they would part it in two."""
    return "\n".join(line for line in prompt.splitlines() if line.strip()).strip()


def _decoded(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")  # what Excel writes as plain CSV in Western Europe
        except UnicodeDecodeError:
            raise FileError("prompts.file_bad") from None
    if "\0" in text:  # no text has one, and hardly any other file has none
        raise FileError("prompts.file_bad")
    return text


def _first_column(text: str) -> str:
    rows = _table(text)
    names = _names(rows)
    column = names.index("prompt") if "prompt" in names else 0
    body = rows[1:] if "prompt" in names else rows
    return "\n\n".join(one_paragraph(row[column]) for row in body if len(row) > column)


def _table(text: str) -> list[list[str]]:
    """Return the rows as parted by what names a column ``prompt``, or else makes them equally wide, or else by commas."""
    tables: dict[str, list[list[str]]] = {}
    broken: list[int] = []
    for delimiter in _DELIMITERS:
        try:
            tables[delimiter] = _rows(text, delimiter)
        except _BrokenRowError as error:
            broken.append(error.line)
    if not tables:
        raise FileError("prompts.file_broken", line=max(broken))
    named = (rows for rows in tables.values() if "prompt" in _names(rows))
    even = (rows for rows in tables.values() if rows and len(rows[0]) > 1 and len({len(row) for row in rows}) == 1)
    return next(named, None) or next(even, None) or list(tables.values())[-1]


def _rows(text: str, delimiter: str) -> list[list[str]]:
    # Lenient, an open quotation mark would make one prompt of all that follows.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    begun = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
            begun = reader.line_num + 1
    except csv.Error:
        raise _BrokenRowError(begun) from None
    return rows


class _BrokenRowError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


def _names(rows: list[list[str]]) -> list[str]:
    return [cell.strip().lower() for cell in rows[0]] if rows else []
