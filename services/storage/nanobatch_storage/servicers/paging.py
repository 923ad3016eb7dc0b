"""How long a page may be."""

from __future__ import annotations

_MAX_PAGE = 1000


def page_size(asked: int) -> int:
    """Return the size that a page gets: what was asked for, within limits."""
    return min(max(asked, 1), _MAX_PAGE)
