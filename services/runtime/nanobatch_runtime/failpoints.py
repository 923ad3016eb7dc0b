"""Named places where a test may end, stop or block this process. For tests only; otherwise a call is one comparison.

``NANOBATCH_FAILPOINTS`` names them, ``;`` between: ``NAME=ACTION[:SECONDS][@HIT[/EVERY]]``. The action happens at the
``HIT``-th time (default 1) that the process comes by, and with ``/EVERY`` again each so many times after it.

* ``kill``: SIGKILL, nothing is cleaned up.
* ``stop``: SIGSTOP, until somebody sends SIGCONT.
* ``raise``: :class:`FailpointError`.
* ``block``: sleeps in place for ``SECONDS``; on an event loop it blocks the loop.

No service's settings know of this variable: nobody is to set it where pictures matter.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field

VARIABLE = "NANOBATCH_FAILPOINTS"
NAMES = (
    "leased",
    "attempt_written",
    "request_sent",
    "first_answer_byte",
    "answer_complete",
    "spooled",
    "decoded",
    "picture_written",
    "picture_renamed",
    "before_commit",
    "after_commit",
    "before_hint",
)
"""In the order in which a result meets them: the first seven in a generator, the rest in storage."""
_SPEC = re.compile(
    r"(?P<name>\w+)=(?P<action>kill|stop|raise|block)(:(?P<seconds>[\d.]+))?(@(?P<hit>\d+)(/(?P<every>\d+))?)?"
)


class FailpointError(Exception):
    """Raised by a failpoint that was told to."""


@dataclass(slots=True)
class _Point:
    action: str
    seconds: float
    hit: int
    every: int
    seen: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        with self.turn:
            self.seen += 1
            past = self.seen - self.hit
        return past == 0 or (past > 0 and self.every > 0 and past % self.every == 0)


def parse(text: str) -> dict[str, _Point]:
    """Read the variable's text. Raises ValueError for what is none: a test that aims at nothing must not pass."""
    points = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        found = _SPEC.fullmatch(part)
        if found is None or found["name"] not in NAMES:
            raise ValueError(f"{VARIABLE}: {part!r} is no failpoint; the names are {', '.join(NAMES)}.")
        seconds, hit, every = float(found["seconds"] or 0), int(found["hit"] or 1), int(found["every"] or 0)
        points[found["name"]] = _Point(found["action"], seconds, hit, every)
    return points


_armed = parse(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def armed(name: str) -> bool:
    """Say whether anything is to happen at ``name``: for places that cost something to reach."""
    return _armed is not None and name in _armed


def failpoint(name: str) -> None:
    """Do what the environment asks for at this place; mostly nothing."""
    if _armed is None:
        return
    point = _armed.get(name)
    if point is None or not point.is_due():
        return
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "block":
            time.sleep(point.seconds)
        case _:
            raise FailpointError(name)
