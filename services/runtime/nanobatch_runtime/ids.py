"""Ids are UUIDs in their canonical lower-case form."""

from __future__ import annotations

import re
import uuid

_CANONICAL = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def new_id() -> str:
    """Return a random id."""
    return str(uuid.uuid4())


def derived_id(base: str, name: str) -> str:
    """Return the id that always comes from ``base`` (a UUID) and ``name``: for writes that may be repeated."""
    return str(uuid.uuid5(uuid.UUID(base), name))


def is_id(text: str) -> bool:
    """Say whether ``text`` is a UUID in canonical form."""
    return _CANONICAL.fullmatch(text) is not None
