"""Hints between services: "something changed". A lost hint costs time, never data. Over Redis: :mod:`.redis`."""

from nanobatch_runtime.bus.memory import MemoryBus
from nanobatch_runtime.bus.port import Bus, Subscription

__all__ = ["Bus", "MemoryBus", "Subscription"]
