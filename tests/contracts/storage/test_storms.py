"""Pause, resume, cancel and retry against work that goes on."""

import asyncio
import itertools

from queue_steps import now_of, ref

from nanobatch_runtime.errors import FailedPreconditionError, InvalidArgumentError
from nanobatch_runtime.testing import eventually
from nanobatch_storage.domain import (
    FailureClass,
    ResultState,
)
from nanobatch_storage.errors import LeaseLostError, WindowFullError


async def unless_refused(step):
    try:
        return await step
    except (LeaseLostError, WindowFullError, FailedPreconditionError, InvalidArgumentError):
        return None


async def work_on(queue, over, ended):
    for step in itertools.count():
        if over.is_set():
            return
        await asyncio.sleep(0)  # SQLite looks for work without giving way
        for lease in [ref(one) for one in await queue.take(3)]:
            call = await unless_refused(queue.start(lease))
            if call is None:
                continue
            if step % 4 == 0:
                await unless_refused(queue.fail(lease, call, FailureClass.BLOCKED))
            elif await unless_refused(queue.complete(lease, call)) is ResultState.COMPLETED:
                ended.add(lease.result_id)


async def shake(store, user, execution, number):
    control = store.control
    for step in range(12):
        found = [r.id for r in await store.results(user, execution.id) if r.state is ResultState.CANCELLED]
        asked = {
            0: lambda: control.pause(user, execution.id),
            1: lambda: control.resume(user, execution.id, None, None),
            2: lambda: control.cancel(user, execution.id),
            3: lambda found=found: control.retry(user, execution.id, store.retry(result_ids=tuple(found))),
        }
        await unless_refused(asked[(number + step) % 4]())
        for _ in range(100):  # the work gets its turn
            await asyncio.sleep(0)


async def test_storms_of_control_against_work_leave_nothing_held_and_undo_nothing(store, queue, user):
    """Real concurrency on PostgreSQL: a deadlock that is not repeated away, or a lock taken out of order, shows here."""
    execution = await store.execution(user, 80)
    over, ended = asyncio.Event(), set()
    work = [asyncio.create_task(work_on(queue, over, ended)) for _ in range(4)]
    await asyncio.gather(*(shake(store, user, execution, number) for number in range(4)))
    left = [r.id for r in await store.results(user, execution.id) if r.state is ResultState.CANCELLED]
    await unless_refused(store.control.retry(user, execution.id, store.retry(result_ids=tuple(left))))
    await unless_refused(store.control.resume(user, execution.id, None, None))
    await eventually(lambda: ended, within=30)  # however little the storm let through
    over.set()
    await asyncio.gather(*work)
    await store.control.cancel(user, execution.id)
    assert await queue.take(10) == []
    current = await now_of(store, user, execution)
    assert current.is_final
    assert (current.open_attempts, current.reserved_micros, current.finishing, current.processing) == (0, 0, 0, 0)
    results = {r.id: r for r in await store.results(user, execution.id)}
    assert ended
    assert {results[result_id].state for result_id in ended} == {ResultState.COMPLETED}
    await store.control.delete(user, execution.id)
