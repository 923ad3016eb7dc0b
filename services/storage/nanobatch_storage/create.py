"""Accepting an execution."""

from __future__ import annotations

from nanobatch_runtime.bus import Bus
from nanobatch_storage import topics
from nanobatch_storage.domain import Actor, Execution, NewExecution
from nanobatch_storage.ports import Executions


async def create_execution(executions: Executions, bus: Bus, actor: Actor, new: NewExecution) -> Execution:
    """Store an execution and wake waiting generators; errors as in :meth:`Executions.create`."""
    execution, is_new = await executions.create(actor, new)
    if is_new:
        await bus.publish(topics.WORK)
    return execution
