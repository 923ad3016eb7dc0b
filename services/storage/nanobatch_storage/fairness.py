"""Who gets the next free slots: who has the fewest calls in flight; of equals, who was served longest ago. Pure.

Of one user's executions, those that have lost a lease come first.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NamedTuple


class Candidate(NamedTuple):
    """An execution with results that may run now."""

    execution_id: str
    user_id: str
    bucket_id: str
    in_flight: int
    ready: int
    """At most this many results of it are ready (an upper bound)."""
    create_time: datetime
    lost: int = 0
    """So many of its leases have run out: of a user's work, what was begun before goes before what was not."""


class Turns:
    """Who was served when, as far as this process knows; it only decides between equals.

    Without it the oldest of many users with nothing in flight would be served again and again, and the others never.
    Several storages deal each in turns of their own, which is as fair.
    """

    def __init__(self) -> None:
        """Nobody was served yet."""
        self._last: dict[str, int] = {}
        self._count = 0

    def last(self, name: str) -> int:
        """Return the number of the last turn of a user or an execution, or of the turn after which it came."""
        return self._last[name]

    def met(self, names: AbstractSet[str]) -> None:
        """Note who has something to do; who is new queues behind all who have waited since their last turn.

        Were newcomers always first, somebody who keeps sending single prompts would hold up a list of theirs for ever.
        """
        for name in names - self._last.keys():
            self._last[name] = self._count

    def served(self, *names: str) -> None:
        """Note that this is their turn."""
        self._count += 1
        self._last.update(dict.fromkeys(names, self._count))

    def forget_all_but(self, names: AbstractSet[str]) -> None:
        """Forget who has nothing to do any more."""
        for name in self._last.keys() - names:
            del self._last[name]


def share(
    candidates: Iterable[Candidate],
    *,
    slots: int,
    user_in_flight: Mapping[str, int],
    room: Mapping[str, int],
    turns: Turns,
) -> dict[str, int]:
    """Return how many slots each execution gets, in the order in which they were dealt.

    Slots are dealt one by one, so that a single prompt never waits behind another user's hundred. ``room`` is how many
    more calls each bucket may have in flight. ``turns`` is kept up.
    """
    users = Counter(user_in_flight)
    left = dict(room)
    dealt: dict[str, int] = {}
    queue: list[tuple[int, int, bool, int, int, datetime, str, Candidate]] = []

    def push(candidate: Candidate) -> None:
        user, execution = candidate.user_id, candidate.execution_id
        by_user = (users[user], turns.last(user))
        count = dealt.get(execution, 0)
        by_execution = (count >= candidate.lost, candidate.in_flight + count, turns.last(execution))
        heapq.heappush(queue, (*by_user, *by_execution, candidate.create_time, execution, candidate))

    candidates = list(candidates)
    names = {name for one in candidates for name in (one.user_id, one.execution_id)}
    turns.forget_all_but(names | set(user_in_flight))
    turns.met(names)
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
        turns.served(candidate.user_id, candidate.execution_id)
        left[candidate.bucket_id] -= 1
        slots -= 1
        push(candidate)
    return dealt
