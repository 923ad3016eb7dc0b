"""What the generator needs from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

from nanobatch_generator.domain import (
    Accepted,
    CheckedPicture,
    Completion,
    Done,
    EndedCall,
    Estimate,
    Failure,
    InputImage,
    KeyCheck,
    Latency,
    Lease,
    LeaseRef,
    PictureRequest,
    Update,
    Viewer,
)


class Provider(Protocol):
    """One company's way to make a picture. One call of a method is at most one paid call; it never repeats by itself."""

    async def submit(self, request: PictureRequest, key: str) -> Done | Accepted:
        """Make one picture within ``request.timeout``, or begin a task that will (a :class:`TaskProvider`).

        Raises ProviderError with the class of what went wrong.
        ``key`` is empty for providers that need none. A cancelled call closes its connection.
        """
        ...

    async def ready(self) -> None:
        """Return when a call can go out at once: whatever is loaded late has been loaded."""
        ...

    async def check_key(self, model: str, key: str) -> KeyCheck:
        """Ask, without cost, whether the key is good and the model offered. Raises ProviderError where nobody can tell."""
        ...


@runtime_checkable
class TaskProvider(Provider, Protocol):
    """One whose pictures are made by tasks that go on by themselves."""

    async def poll(self, task_id: str, request: PictureRequest, key: str) -> Done | Accepted:
        """Ask for a task that :meth:`submit` has begun, in this process or another. Costs nothing.

        Raises ProviderError where the task has failed, PollUnansweredError where only the asking has.
        """
        ...


class Caller(Protocol):
    """Makes one call; a provider is one, in this very process."""

    async def submit(self, request: PictureRequest, key: str) -> Done | Accepted:
        """See :class:`Provider`."""
        ...


class Spare(Protocol):
    """Processes for calls that are made alone, so that what a call kills is nobody else's."""

    def process(self, provider: str) -> AbstractAsyncContextManager[Caller]:
        """Start a process for one call of that provider, ready when entered, ended when left.

        Raises SpareUnavailableError. Its ``submit`` raises ProviderError of the class WORKER_LOST where it dies.
        """
        ...


class LeaseSource(Protocol):
    """Storage's queue. Every write is fenced by the lease and may be repeated: the second time changes nothing.

    All raise StorageDownError where storage did not answer, and LeaseLostError where the lease is no longer ours.
    """

    async def lease(self, max_results: int, wait: timedelta, max_suspects: int) -> list[Lease]:
        """Lease up to ``max_results`` results (1 to 100), waiting up to ``wait`` while there is nothing to do.

        At most ``max_suspects`` of them are suspects.
        """
        ...

    async def release(self, refs: Sequence[LeaseRef]) -> None:
        """Give results back that nothing was sent for, or whose task is out. Lost ones are left alone."""
        ...

    async def start_attempt(self, lease: Lease, ended: EndedCall | None = None) -> str:
        """Write the attempt just before the call and return its id: the last door before money.

        ``ended`` gives its place to this call. Raises WindowFullError where no more calls of the bucket may be out,
        or, with ``retry_after``, where its pace lets the next one start only then.
        """
        ...

    async def note_job(self, ref: LeaseRef, attempt_id: str, task_id: str) -> None:
        """Store the id of the task that the call has begun: whoever leases the result next asks for it."""
        ...

    async def end_call(self, ended: EndedCall) -> None:
        """Note that the call has ended while its picture is being finished: the next call may begin."""
        ...

    async def fail(self, ref: LeaseRef, attempt_id: str, failure: Failure) -> str:
        """Close the attempt (empty: none was started) and return the result's state after it."""
        ...

    async def confirm_key(self, ref: LeaseRef, bucket_id: str) -> None:
        """Note that the provider took the key of this bucket."""
        ...


class LeaseExtender(Protocol):
    """The heartbeat's own way to storage: synchronous, because it lives in a thread and must not need the loop."""

    def extend(self, refs: Sequence[LeaseRef], timeout: timedelta) -> list[LeaseRef]:
        """Extend and return the lost ones. Raises StorageDownError."""
        ...

    def close(self) -> None:
        """End; a running call ends with StorageDownError."""
        ...


class Sink(Protocol):
    """Where finished pictures go."""

    async def complete(self, completion: Completion) -> str:
        """Hand over all pictures and return the result's state. Raises LeaseLostError, StorageDownError, RemoteError."""
        ...


class Images(Protocol):
    """Where input pictures come from."""

    async def read(self, user_id: str, image_id: str) -> InputImage:
        """Return a whole picture of that user. Raises ImageGoneError, StorageDownError."""
        ...


class Pictures(Protocol):
    """Says whether bytes are a picture, apart from the event loop and under limits."""

    async def check(self, path: Path) -> CheckedPicture:
        """Decode ``path`` whole and make its thumbnail. Raises PictureRejectedError; anything else is our own fault."""
        ...


class Changes(Protocol):
    """What storage tells about executions."""

    async def revision(self, viewer: Viewer, execution_id: str) -> int:
        """Return the highest revision given out. Raises NanobatchError (NOT_FOUND) where the viewer may not see it."""
        ...

    def follow(self, execution_id: str, after_revision: int) -> AsyncGenerator[Update]:
        """Replicate an execution as admin; ends after its final state. Raises NanobatchError where the stream breaks."""
        ...

    async def latency(self, model: str) -> Latency:
        """Return the latency history of a model. Raises NanobatchError."""
        ...


class Peers(Protocol):
    """The other generators. What is told may be lost, and nothing but guesses is."""

    async def tell(self, execution_id: str, estimates: Sequence[Estimate]) -> bool:
        """Tell those with watchers of this execution; whether there seem to be any. Raises nothing, waits a second at most."""
        ...

    def listening(self, execution_id: str, heard: Callable[[Sequence[Estimate]], None]) -> AbstractContextManager[None]:
        """Hear what others tell of an execution while the context is open."""
        ...


class Messages(Protocol):
    """Makes what watchers are sent; opaque to the hub, so that it is built once and shared."""

    def with_stats(self, message: object, stats: object) -> object:
        """Return a copy of ``message`` with newer counts."""
        ...

    def progress(self, estimate: Estimate, stats: object) -> object:
        """Return a light progress message."""
        ...
