"""Money and time as people read them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

_MICROS = 1_000_000
_SIXTY = 60


def dollars(micros: int) -> str:
    """Return an amount with as many decimals as it needs, at least two: ``$0.039``, ``$3.90``."""
    text = f"{Decimal(micros) / _MICROS:.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"


def micros(amount: float | None) -> int | None:
    """Return an amount of dollars as micros; None for none."""
    return None if amount is None else int((Decimal(str(amount)) * _MICROS).to_integral_value())


def amount(micros: int) -> float:
    """Return micros as an amount of dollars, for a field that takes numbers."""
    return micros / _MICROS


def duration(value: timedelta) -> str:
    """Return ``40 s``, ``3 min`` or ``1 h 20 min``."""
    seconds = round(value.total_seconds())
    if seconds < _SIXTY:
        return f"{max(1, seconds)} s"
    hours, minutes = divmod(round(seconds / _SIXTY), _SIXTY)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
