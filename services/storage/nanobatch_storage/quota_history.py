"""What the latest calls of a bucket tell: rates between refusals, runs of calls that passed, stretches of refusals. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

_IDLE = 3.0
_SPAN = 30.0
_ENOUGH = 8


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that has started: when, and whether it was refused for its quota."""

    at: datetime
    refused: bool


def measure(past: Sequence[Sent], sent_at: datetime) -> tuple[int, float] | None:
    """Return accepted calls and seconds between an earlier refusal and this one; None where nothing can be said.

    At both ends the provider's bucket was empty, so what passed between is what came in, whatever its size. A pause of
    ours between them would let it fill, and say too little: only the time after the last such pause counts.
    """
    best: tuple[int, float] | None = None
    calls, gap, next_one, most = 0, _IDLE, sent_at, math.inf
    for call in reversed(past):
        if (next_one - call.at).total_seconds() > max(gap, _IDLE):
            break
        next_one, age = call.at, (sent_at - call.at).total_seconds()
        if not call.refused:
            calls += 1
            gap = 4 * age / calls
        elif calls:
            if calls / age > most:  # the quota was another then
                break
            best = calls, age
            most = min(most, (calls + 2 * math.sqrt(calls) + 2) / age)
            if age > _SPAN and calls >= _ENOUGH:
                break
    return best


def latest_run(past: Sequence[Sent]) -> int:
    """Return how many calls passed one after the other, up to the refusal."""
    times = take_last(list(past), refused=False)
    for place in range(len(times) - 1, 0, -1):
        if (times[place] - times[place - 1]).total_seconds() > _IDLE:
            return len(times) - place
    return len(times)


@dataclass(frozen=True, slots=True)
class Outage:
    """The last stretch of refusals."""

    first: datetime
    last: datetime
    over: datetime
    """The first call that passed after it."""
    after: int
    """How many passed after it."""
    began: datetime
    """The first call of the run before it."""
    before: int
    """How many passed before it."""


def latest_outage(past: Sequence[Sent]) -> Outage | None:
    """Return the last stretch of refusals that calls have passed after; None where there is none."""
    calls = list(past)
    after, refusals, before = (take_last(calls, refused=refused) for refused in (False, True, False))
    if not after or not refusals:
        return None
    began = before[0] if before else refusals[0]
    return Outage(refusals[0], refusals[-1], after[0], len(after), began, len(before))


def take_last(calls: list[Sent], *, refused: bool) -> list[datetime]:
    """Take the calls of one kind off the end; returns their starts, oldest first."""
    taken = []
    while calls and calls[-1].refused is refused:
        taken.append(calls.pop().at)
    return taken[::-1]
