"""Giving work to generators: at once where there is some, after a wait where there is none."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import timedelta

from nanobatch_runtime.bus import Bus
from nanobatch_runtime.metrics import LEASES, QUEUE_WAIT
from nanobatch_storage import topics
from nanobatch_storage.domain import Lease, LeaseRef
from nanobatch_storage.ports_queue import Leases, Ledger

MAX_WAIT = timedelta(seconds=30)
MAX_SLOTS = 100
_REPOLL = (1.0, 2.0)
"""A hint may be lost: look again after this many seconds, spread so that replicas do not look together."""


async def lease_results(
    leases: Leases, bus: Bus, draining: asyncio.Event, slots: int, wait: timedelta, *, suspects: int = 0
) -> list[Lease]:
    """Return up to ``slots`` leases; waits up to ``wait`` for the first. No transaction is open while it waits.

    Gives none once ``draining`` is set; whoever sets it wakes the waiting with the hint ``work``.
    """
    slots = min(max(slots, 1), MAX_SLOTS)
    deadline = time.monotonic() + min(wait, MAX_WAIT).total_seconds()
    async with bus.subscribe(topics.WORK) as hints:
        while not draining.is_set():
            taken = await leases.take(slots, suspects)
            for execution_id in taken.touched:
                await bus.publish(topics.execution(execution_id))
            left = deadline - time.monotonic()
            for leased in taken.leases:
                what = leased.execution.provider, leased.execution.model
                LEASES.labels(*what).inc()
                QUEUE_WAIT.labels(*what).observe(max(0.0, leased.waited.total_seconds()))
            if taken.leases or left <= 0:
                return list(taken.leases)
            pause = min(left, random.uniform(*_REPOLL))  # noqa: S311  # spreads load, guards nothing
            if taken.look_again_at is not None:
                pause = min(pause, max((taken.look_again_at - taken.now).total_seconds(), 0.01))
            await hints.wait(timedelta(seconds=pause))
    return []


async def release_leases(ledger: Ledger, bus: Bus, leases: Sequence[LeaseRef]) -> None:
    """Give leases back and wake whoever may take them."""
    await announce(bus, await ledger.release(leases))


async def announce(bus: Bus, execution_ids: Sequence[str]) -> None:
    """Say that executions changed, and that there may be room for work."""
    for execution_id in execution_ids:
        await bus.publish(topics.execution(execution_id))
    await bus.publish(topics.WORK)
