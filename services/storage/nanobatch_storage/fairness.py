"""Who gets the next free slots: the user, then the execution, with the fewest calls in flight. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """An execution with results that may run now."""

    execution_id: str
    user_id: str
    bucket_id: str
    in_flight: int
    ready: int
    """At most this many results of it are ready (an upper bound)."""
    create_time: datetime


def share(
    candidates: Iterable[Candidate], *, slots: int, user_in_flight: Mapping[str, int], room: Mapping[str, int]
) -> dict[str, int]:
    """Return how many slots each execution gets, in the order in which they were dealt.

    Slots are dealt one by one, so that a single prompt never waits behind another user's hundred. ``room`` is how many
    more calls each bucket may have in flight.
    """
    users = Counter(user_in_flight)
    left = dict(room)
    dealt: dict[str, int] = {}
    queue: list[tuple[int, int, datetime, str, Candidate]] = []

    def push(candidate: Candidate) -> None:
        count = dealt.get(candidate.execution_id, 0)
        entry = (users[candidate.user_id], candidate.in_flight + count, candidate.create_time, candidate.execution_id)
        heapq.heappush(queue, (*entry, candidate))

    for candidate in candidates:
        push(candidate)
    while queue and slots:
        in_flight_then, *_, candidate = heapq.heappop(queue)
        if left.get(candidate.bucket_id, 0) <= 0 or dealt.get(candidate.execution_id, 0) >= candidate.ready:
            continue
        if in_flight_then != users[candidate.user_id]:  # the same user was dealt a slot meanwhile: queue anew
            push(candidate)
            continue
        dealt[candidate.execution_id] = dealt.get(candidate.execution_id, 0) + 1
        users[candidate.user_id] += 1
        left[candidate.bucket_id] -= 1
        slots -= 1
        push(candidate)
    return dealt
