"""Checks of single fields, collected so that a client sees everything that is wrong at once."""

from __future__ import annotations

from collections.abc import Sequence

from nanobatch_gateway.domain import InvalidRequestError
from nanobatch_gateway.prompts import control_character, is_blank
from nanobatch_runtime.errors import FieldViolation
from nanobatch_runtime.ids import is_id

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1_000
MAX_KEY_CHARACTERS = 512
_SHOWN = 40


class Violations:
    """What is wrong so far, in the order of its finding."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.found: list[FieldViolation] = []

    def add(self, field: str, description: str, reason: str) -> None:
        """Note a bad field: its path as in the proto, a sentence, a stable reason."""
        self.found.append(FieldViolation(field, description, reason))

    def unsupported(self, field: str, what: str) -> None:
        """Note a field that is part of the contract and not built yet."""
        self.add(field, f"{what} is not supported yet; leave the field out.", "NOT_SUPPORTED_YET")

    def raise_any(self) -> None:
        """Raise InvalidRequestError with all that was found, if anything was."""
        if self.found:
            raise InvalidRequestError(self.found)

    def id(self, field: str, value: str, *, required: bool = False) -> bool:
        """Check an id and say whether it is one; an empty one is wrong only where it is ``required``."""
        if not value:
            if required:
                self.add(field, "The id is missing.", "REQUIRED")
            return False
        if not is_id(value):
            self.add(field, f"{shown(value)} is not a UUID in canonical lower-case form.", "MALFORMED")
            return False
        return True

    def between(self, field: str, value: int | None, low: int, high: int) -> None:
        """Check a number that may be left out."""
        if value is not None and not low <= value <= high:
            self.add(field, f"{value} is not between {low} and {high}.", "OUT_OF_RANGE")

    def not_negative(self, field: str, value: int | None) -> None:
        """Check a number that may be left out and has no upper end."""
        if value is not None and value < 0:
            self.add(field, f"{value} is negative.", "OUT_OF_RANGE")

    def plain_text(self, field: str, text: str, name: str = "The text") -> None:
        """Refuse control characters; tab and line breaks are fine."""
        bad = control_character(text)
        if bad is not None:
            self.add(field, f"{name} holds the control character {bad}.", "MALFORMED")

    def prompt_text(self, field: str, text: str, *, name: str, around: int, limit: int) -> None:
        """Check one prompt; ``around`` is how many characters prefix and suffix add to it."""
        if is_blank(text):
            self.add(field, f"{name} is empty.", "REQUIRED")
        elif len(text) + around > limit:
            with_what = f" with prefix and suffix ({around:,} of them)" if around else ""
            self.add(
                field,
                f"{name} has {len(text) + around:,} characters{with_what}; at most {limit:,} are taken.",
                "TOO_LONG",
            )
        self.plain_text(field, text, name)

    def api_key(self, field: str, value: str | None, *, required_for: str = "") -> str:
        """Check a provider key and return it trimmed; it is never shown. Required where a model is named."""
        key = (value or "").strip()
        if not key:
            if required_for:
                self.add(field, f"{required_for} needs a provider key.", "REQUIRED")
            return ""
        if len(key) > MAX_KEY_CHARACTERS:
            self.add(field, f"The key is longer than {MAX_KEY_CHARACTERS} characters.", "TOO_LONG")
        elif any(char.isspace() for char in key) or not key.isprintable():
            self.add(field, "The key holds white space or control characters: was it pasted whole?", "MALFORMED")
        return key


def required_id(field: str, value: str) -> str:
    """Return the id that a request names. Raises InvalidRequestError where it is missing or malformed."""
    violations = Violations()
    violations.id(field, value, required=True)
    violations.raise_any()
    return value


def page_size(violations: Violations, value: int) -> int:
    """Return how long a page may be: 50 where nothing (or 0) was said."""
    violations.between("page_size", value, 0, MAX_PAGE_SIZE)
    return value or DEFAULT_PAGE_SIZE


def shown(text: str) -> str:
    """Return a client's text as it can stand in a sentence: quoted, short, without control characters."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return '"' + "".join(char if char.isprintable() else "?" for char in cut) + '"'


def listed(values: Sequence[str]) -> str:
    """Return values as they can stand in a sentence."""
    return ", ".join(values)
