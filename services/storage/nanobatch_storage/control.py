"""What a user does to an execution, and the hints that follow."""

from __future__ import annotations

import structlog

from nanobatch_runtime.bus import Bus
from nanobatch_storage import topics
from nanobatch_storage.domain import Actor, Execution, NewCredential
from nanobatch_storage.ports import Blobs, Control
from nanobatch_storage.views import Cancellation, Retry

_log = structlog.get_logger("nanobatch.control")


async def cancel_execution(control: Control, bus: Bus, actor: Actor, execution_id: str) -> Cancellation:
    """Cancel all that is not final; errors as in :class:`Control`."""
    cancelled = await control.cancel(actor, execution_id)
    await bus.publish(topics.execution(execution_id))
    return cancelled


async def pause_execution(control: Control, bus: Bus, actor: Actor, execution_id: str) -> Execution:
    """Start no more calls; errors as in :class:`Control`."""
    execution = await control.pause(actor, execution_id)
    await bus.publish(topics.execution(execution_id))
    return execution


async def resume_execution(
    control: Control,
    bus: Bus,
    actor: Actor,
    execution_id: str,
    *,
    credential: NewCredential | None,
    max_cost_micros: int | None,
) -> Execution:
    """Go on after a pause and wake generators; errors as in :class:`Control`."""
    execution = await control.resume(actor, execution_id, credential, max_cost_micros)
    await bus.publish(topics.execution(execution_id))
    await bus.publish(topics.WORK)
    return execution


async def retry_execution(
    control: Control, bus: Bus, actor: Actor, execution_id: str, retry: Retry
) -> tuple[Execution, int]:
    """Try results again and wake generators; errors as in :class:`Control`."""
    execution, retried = await control.retry(actor, execution_id, retry)
    await bus.publish(topics.execution(execution_id))
    await bus.publish(topics.WORK)
    return execution, retried


async def delete_execution(control: Control, blobs: Blobs, bus: Bus, actor: Actor, execution_id: str) -> None:
    """Remove an execution, then its bytes; errors as in :class:`Control`."""
    paths = await control.delete(actor, execution_id)
    await bus.publish(topics.execution(execution_id))
    for path in paths:
        try:
            await blobs.delete(path)
        except OSError as error:  # the rows are gone, so the sweeper will find the bytes
            _log.warning("blob.left", path=path, error=type(error).__name__)
