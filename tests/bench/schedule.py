"""The ideal: first come, first served, on n slots, without any cost besides the calls themselves."""

import heapq
from collections.abc import Sequence


def makespan(latencies: Sequence[float], slots: int) -> float:
    """Return when the last of the calls ends if each starts as soon as a slot is free, in the order given."""
    free = [0.0] * slots
    heapq.heapify(free)
    end = 0.0
    for latency in latencies:
        done = heapq.heappop(free) + latency
        heapq.heappush(free, done)
        end = max(end, done)
    return end
