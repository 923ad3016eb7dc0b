"""Hints between services: "something changed". A lost hint costs time, never data."""

from nanobatch_runtime.bus.memory import MemoryBus
from nanobatch_runtime.bus.port import Bus, Subscription
from nanobatch_runtime.bus.redis import RedisBus, open_redis_bus

__all__ = ["Bus", "MemoryBus", "RedisBus", "Subscription", "open_redis_bus"]
