"""What the queue's use cases need from the outside (see :mod:`nanobatch_storage.ports` for the other half)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from nanobatch_storage.domain import (
    Completed,
    Completion,
    EndedCall,
    Failure,
    Image,
    Lease,
    LeaseRef,
    Opening,
    ResultState,
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a look for work gave."""

    leases: tuple[Lease, ...]
    touched: tuple[str, ...]
    """Executions that changed."""
    look_again_at: datetime | None
    """When the next result becomes ready by itself; None: none does."""
    now: datetime
    """The database's time of the look."""


What: TypeAlias = tuple[str, ...]
"""Provider and model."""


def _counts() -> defaultdict[What, float]:
    return defaultdict(float)


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How the queue is at a moment, by provider and model. What waits for a provider's cooldown is not ready."""

    ready: defaultdict[What, float] = field(default_factory=_counts)
    """Results that could be leased now if there were room."""
    wanted: defaultdict[What, float] = field(default_factory=_counts)
    """Ready or leased ones, for each key as many as its window lets out at a time."""
    oldest: defaultdict[What, float] = field(default_factory=_counts)
    """For how many seconds the oldest ready one has been ready."""
    overdue: defaultdict[What, float] = field(default_factory=_counts)
    """For how many seconds the oldest lease that ran out has not been taken over."""
    cooling: defaultdict[What, float] = field(default_factory=_counts)
    """Keys that cool down while runs wait for them; the reason besides."""


class Figures(Protocol):
    """Looks at the queue as a whole."""

    async def look(self) -> QueueFigures:
        """Return the figures of now, at a cost that does not grow with what waits. Raises DatabaseUnavailableError."""
        ...


class Leases(Protocol):
    """The queue: who may work on what, until when. Identity is the lease, never a worker."""

    async def take(self, slots: int, suspects: int = 0) -> Taken:
        """Lease up to ``slots`` results: fairly over users and executions, inside every bucket's window and every cap.

        A lease that ran out is given anew; its open attempt closes as MAYBE and counts as a crash, or goes over to the new
        lease where its task is out. At most ``suspects``
        of the results have seen two crashes or more: whoever takes such a one has a process to run it alone in.
        """
        ...

    async def extend(self, leases: Sequence[LeaseRef]) -> list[LeaseRef]:
        """Extend leases to their full length from now; returns those that are lost."""
        ...

    async def expire_all(self) -> None:
        """Let every lease run out now: at the start of the one process that held them all."""
        ...

    async def resume_due(self) -> list[str]:
        """Resume executions whose pause ends by itself by now; returns their ids."""
        ...


class Ledger(Protocol):
    """Attempts: written before the call, closed once. Every write acts only under the current lease (LeaseLostError)."""

    async def start(self, lease: LeaseRef, bucket_id: str, ended: EndedCall | None = None) -> str:
        """Open the attempt of a lease and return its id; the same id when asked again.

        ``ended`` gives its place to this call. Raises LeaseLostError where the execution was cancelled or paused, its
        bucket changed or cools down, or the lease has run out; WindowFullError where no more calls may be out.
        """
        ...

    async def note_job(self, lease: LeaseRef, attempt_id: str, task_id: str) -> None:
        """Store the id of the task that the open attempt has submitted. Again changes nothing."""
        ...

    async def end_call(self, lease: LeaseRef, attempt_id: str) -> None:
        """Note that the call has ended while its picture is being finished: its place in the window is free."""
        ...

    async def check(self, lease: LeaseRef, attempt_id: str) -> Opening:
        """Say whether a completion may be stored, and for whom: a look before its bytes are written."""
        ...

    async def complete(self, completion: Completion, pictures: Sequence[Image]) -> Completed:
        """Commit pictures, result, attempt and costs in one transaction.

        A repeat is answered as the first time. A picture for a CANCELLED result is kept, the state stays.
        """
        ...

    async def fail(self, lease: LeaseRef, attempt_id: str | None, failure: Failure) -> tuple[ResultState, list[str]]:
        """Close the attempt (None: none was started), decide what follows; returns the state and what changed."""
        ...

    async def release(self, leases: Sequence[LeaseRef]) -> list[str]:
        """Give leases back that nothing was sent for; returns the executions that changed.

        Where a task is out the lease runs out now, and the attempt stays open.
        """
        ...

    async def confirm_key(self, bucket_id: str) -> None:
        """Note that the provider took the key: the bucket opens to its full window for a day."""
        ...

    async def close_abandoned(self) -> list[str]:
        """Close attempts of cancelled results whose lease ran out; returns the executions that changed."""
        ...
