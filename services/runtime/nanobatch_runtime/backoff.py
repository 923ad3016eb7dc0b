"""Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

from __future__ import annotations

import random
from datetime import timedelta

BASE = timedelta(seconds=2)
CAP = timedelta(seconds=60)


def full_jitter(
    failures: int, *, base: timedelta = BASE, cap: timedelta = CAP, chance: float | None = None
) -> timedelta:
    """Return a random wait between 0 and ``min(cap, base * 2**(failures - 1))``; ``chance`` (0 to 1) replaces the dice."""
    doublings: int = 2 ** min(max(failures, 1) - 1, 30)
    ceiling = min(cap, base * doublings)
    return ceiling * (random.random() if chance is None else chance)  # noqa: S311  # spreads load, guards nothing
