"""Asking for a provider's task until it is done."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    PictureRequest,
    PollUnansweredError,
    ProviderError,
)
from nanobatch_generator.ports import Provider, TaskProvider

_log = structlog.get_logger("nanobatch.tasks")

_GROWTH = 1.5
_LONGEST = timedelta(seconds=30)


async def await_task(provider: Provider, request: PictureRequest, key: str, task: Accepted, left: timedelta) -> Done:
    """Ask for ``task`` at growing intervals, at most for ``left``.

    Raises ProviderError: what the provider says of the task, or that nobody knows when ``left`` is over.
    """
    if not isinstance(provider, TaskProvider):
        raise TypeError(f"{type(provider).__name__} has begun a task and cannot be asked for it")
    interval = task.poll_after
    try:
        async with asyncio.timeout(left.total_seconds()):
            while True:
                await asyncio.sleep(interval.total_seconds())
                try:
                    answer = await provider.poll(task.task_id, request, key)
                except PollUnansweredError as error:
                    _log.info("task.unanswered", task=task.task_id, detail=str(error))
                    answer = task
                if isinstance(answer, Done):
                    return answer
                interval = max(answer.poll_after, min(interval * _GROWTH, _LONGEST))
    except TimeoutError:
        message = f"The provider's task was not done within {request.timeout.total_seconds():g} s; it may be charged."
        raise ProviderError(FailureClass.UNKNOWN, "CALL_TIMED_OUT", message, charged=Charged.MAYBE) from None
