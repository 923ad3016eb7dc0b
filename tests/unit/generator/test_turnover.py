from __future__ import annotations

import asyncio
from datetime import timedelta

from nanobatch_generator.turnover import Turnover

LONG = timedelta(seconds=60)


async def test_a_picture_waits_for_the_next_call_where_the_queue_gave_all_that_was_asked_for():
    turnover = Turnover(LONG)
    turnover.polled(asked=3, got=3)
    first, second = (asyncio.create_task(turnover.next_call()) for _ in range(2))
    await asyncio.sleep(0)
    turnover.begun()
    await first
    assert not second.done()
    turnover.begun()
    await second


async def test_it_does_not_wait_where_the_queue_is_empty():
    turnover = Turnover(LONG)
    await turnover.next_call()
    turnover.polled(asked=3, got=2)
    await turnover.next_call()


async def test_those_that_wait_go_on_when_the_queue_turns_out_to_be_empty():
    turnover = Turnover(LONG)
    turnover.polled(asked=1, got=1)
    waiting = [asyncio.create_task(turnover.next_call()) for _ in range(3)]
    await asyncio.sleep(0)
    turnover.polled(asked=1, got=0)
    await asyncio.gather(*waiting)


async def test_it_waits_for_a_moment_only_and_a_call_is_not_lost_on_one_that_has_gone_on():
    turnover = Turnover(timedelta(milliseconds=1))
    turnover.polled(asked=1, got=1)
    await turnover.next_call()
    patient = Turnover(LONG)
    patient.polled(asked=1, got=1)
    given_up, waiting = (asyncio.create_task(patient.next_call()) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    patient.begun()
    await waiting
