"""The ideal: first come, first served, on n slots, without any cost besides the calls themselves."""

import heapq
from collections.abc import Mapping, Sequence
from itertools import accumulate


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


def most_at_once(calls: Sequence[Mapping[str, float]]) -> int:
    """Return how many calls were out at the same time, at most; each has when it ``arrived`` and its ``latency``."""
    begins = [(call["arrived"], 1) for call in calls]
    ends = [(call["arrived"] + call["latency"], -1) for call in calls]
    return max(accumulate(step for _, step in sorted(begins + ends)))
