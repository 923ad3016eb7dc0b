"""Asking for a task at a provider until it is done."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nanobatch_generator.domain import (
    Accepted,
    Charged,
    Done,
    FailureClass,
    PictureRequest,
    PollUnansweredError,
    ProviderError,
    Usage,
)
from nanobatch_generator.tasks import await_task

REQUEST = PictureRequest(model="m", prompt="a boat", timeout=timedelta(seconds=20))
TASK = Accepted("task-1", timedelta(milliseconds=1))
DONE = Done(b"picture", Usage(cost_micros=5, reported=True))


class Answers:
    """A provider whose task answers what it is told, then the last thing for ever."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def poll(self, task_id, request, key):
        self.asked.append((task_id, key))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit(self, request, key):
        raise AssertionError("a task is never submitted again")

    async def ready(self): ...

    async def check_key(self, model, key): ...


async def test_it_is_asked_for_until_it_is_done_and_an_unanswered_question_is_asked_again():
    provider = Answers(TASK, PollUnansweredError("cut"), TASK, DONE)
    assert await await_task(provider, REQUEST, "key", TASK, timedelta(seconds=20)) == DONE
    assert provider.asked == [("task-1", "key")] * 4


async def test_a_task_that_failed_says_why():
    blocked = ProviderError(FailureClass.BLOCKED, "CONTENT_BLOCKED", "No.", charged=Charged.NO)
    with pytest.raises(ProviderError) as raised:
        await await_task(Answers(TASK, blocked), REQUEST, "", TASK, timedelta(seconds=20))
    assert raised.value is blocked


async def test_one_that_is_never_done_ends_at_its_limit_as_perhaps_charged():
    with pytest.raises(ProviderError) as raised:
        await await_task(Answers(TASK), REQUEST, "", TASK, timedelta(milliseconds=60))
    assert (raised.value.failure_class, raised.value.charged) == (FailureClass.UNKNOWN, Charged.MAYBE)


async def test_questions_come_at_growing_intervals(monkeypatch):
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("nanobatch_generator.tasks.asyncio.sleep", sleep)
    five = Accepted("task-1", timedelta(seconds=5))
    slow = Accepted("task-1", timedelta(seconds=40))
    await await_task(Answers(five, five, five, five, five, slow, DONE), REQUEST, "", five, timedelta(hours=1))
    assert waits == pytest.approx([5, 7.5, 11.25, 16.875, 25.3125, 30, 40])
