"""The sandbox's switches in a prompt, like ``[fail:503x2]`` and ``[delay:1.5]``. Documented in ``docs/sandbox.md``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from nanobatch_generator.domain import Charged, FailureClass, ProviderError

_FAIL: Final = re.compile(r"\[fail:\s*([a-z0-9]+?)(?:x(\d+))?\s*\]", re.IGNORECASE)
_DELAY: Final = re.compile(r"\[delay:\s*(\d+(?:\.\d+)?)\s*s?\s*\]", re.IGNORECASE)
_TASK: Final = re.compile(r"\[task:\s*(\d+(?:\.\d+)?)\s*s?\s*\]", re.IGNORECASE)
_CRASH: Final = re.compile(r"\[crash\]", re.IGNORECASE)
_RETRY_AFTER: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail. Without a ``failure_class`` the call succeeds, and its bytes are bad."""

    name: str
    failure_class: FailureClass | None
    code: str = ""
    sentence: str = ""
    charged: Charged = Charged.NO
    retry_after: timedelta | None = None

    def strike(self) -> None:
        """Raise the failure, where it is one."""
        if self.failure_class is not None:
            raise ProviderError(
                self.failure_class,
                self.code,
                f"The sandbox was told to fail like this ([fail:{self.name}]): {self.sentence}",
                charged=self.charged,
                retry_after=self.retry_after,
                provider_status=self.name,
            )


_F = FailureClass
_FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("400", _F.BAD_REQUEST, "INVALID_REQUEST", "the provider refuses this request for good."),
        Fault("401", _F.KEY_INVALID, "API_KEY_INVALID", "the provider does not accept the key."),
        Fault("403", _F.KEY_UNUSABLE, "KEY_NOT_PERMITTED", "the provider knows the key and does not serve it."),
        Fault("404", _F.MODEL_GONE, "MODEL_NOT_OFFERED", "the provider no longer offers the model."),
        Fault("408", _F.UNKNOWN, "PROVIDER_TIMED_OUT", "the provider gave up; it may have charged.", Charged.MAYBE),
        Fault("413", _F.BAD_REQUEST, "REQUEST_TOO_LARGE", "prompt and pictures are too large together."),
        Fault("429", _F.RATE_LIMITED, "RATE_LIMITED", "too many calls.", retry_after=_RETRY_AFTER),
        Fault("429day", _F.QUOTA_DAY, "QUOTA_DAY_USED_UP", "the quota of the day is used up."),
        Fault("429zero", _F.KEY_UNUSABLE, "QUOTA_ZERO", "the key has no quota for this model."),
        Fault("499", _F.UNKNOWN, "PROVIDER_TIMED_OUT", "the call was cut off; it may be charged.", Charged.MAYBE),
        Fault("500", _F.TRANSIENT, "PROVIDER_ERROR", "the provider failed inside."),
        Fault("502", _F.TRANSIENT, "PROVIDER_ERROR", "a proxy found no provider."),
        Fault("503", _F.OVERLOADED, "PROVIDER_OVERLOADED", "the provider is overloaded."),
        Fault("504", _F.UNKNOWN, "PROVIDER_TIMED_OUT", "the provider timed out; it may have charged.", Charged.MAYBE),
        Fault("529", _F.OVERLOADED, "PROVIDER_OVERLOADED", "the provider is overloaded."),
        Fault("unreachable", _F.TRANSIENT, "PROVIDER_UNREACHABLE", "nothing was sent."),
        Fault("reset", _F.UNKNOWN, "CONNECTION_LOST", "the connection broke; it may be charged.", Charged.MAYBE),
        Fault("blocked", _F.BLOCKED, "CONTENT_BLOCKED", "the picture was withheld for its content.", Charged.MAYBE),
        Fault("empty", _F.EMPTY, "NO_PICTURE", "the answer held no picture.", Charged.YES),
        Fault("damaged", None),
        Fault("bomb", None),
    )
}


@dataclass(frozen=True, slots=True)
class Switches:
    """What a prompt tells the sandbox to do. ``unknown`` is the first name that means nothing."""

    faults: tuple[tuple[Fault, int | None], ...] = ()
    delay: timedelta | None = None
    unknown: str = ""
    crash: bool = False
    task: timedelta | None = None
    """How long it takes as a task that goes on by itself; None: the call itself brings the picture."""

    def fault(self, attempts: int) -> Fault | None:
        """Return how the call after ``attempts`` others fails, or None. Several switches follow one another."""
        for fault, times in self.faults:
            if times is None or attempts < times:
                return fault
            attempts -= times
        return None


def read_switches(prompt: str) -> Switches:
    """Find the switches of a prompt."""
    faults: list[tuple[Fault, int | None]] = []
    unknown = ""
    for found in _FAIL.finditer(prompt):
        name = found[1].lower()
        if name in _FAULTS:
            faults.append((_FAULTS[name], int(found[2]) if found[2] else None))
        else:
            unknown = unknown or name
    delay, task = _DELAY.search(prompt), _TASK.search(prompt)
    return Switches(
        tuple(faults),
        timedelta(seconds=float(delay[1])) if delay else None,
        unknown,
        crash=_CRASH.search(prompt) is not None,
        task=timedelta(seconds=float(task[1])) if task else None,
    )


def words_of(prompt: str) -> str:
    """Return the prompt without its switches: what is drawn."""
    for switch in (_FAIL, _DELAY, _TASK, _CRASH):
        prompt = switch.sub("", prompt)
    return prompt.strip()
