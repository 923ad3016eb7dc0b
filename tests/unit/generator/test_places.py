import asyncio
from datetime import timedelta

from nanobatch_generator.domain import EndedCall, LeaseRef
from nanobatch_generator.places import Places

SOON = timedelta(milliseconds=20)
LONG = timedelta(seconds=10)


def ended(name: str) -> EndedCall:
    return EndedCall(LeaseRef(name, name), name, "execution")


async def waiting(places: Places, bucket: str, patience: timedelta = LONG) -> asyncio.Task:
    task = asyncio.create_task(places.wait(bucket, patience))
    await asyncio.sleep(0)
    return task


async def test_places_go_to_those_that_stand_by_in_their_order():
    places = Places()
    first, second = await waiting(places, "b"), await waiting(places, "b")
    assert places.hand_over("b", ended("x"))
    assert places.hand_over("b", ended("y"))
    assert not places.hand_over("b", ended("z"))
    assert [(await first).attempt_id, (await second).attempt_id] == ["x", "y"]


async def test_a_place_of_one_key_is_no_place_of_another():
    places = Places()
    other = await waiting(places, "other", SOON)
    assert not places.hand_over("b", ended("x"))
    assert await other is None


async def test_who_lost_patience_or_was_cancelled_is_passed_by():
    places = Places()
    impatient, cancelled, last = [await waiting(places, "b", wait) for wait in (SOON, LONG, LONG)]
    assert await impatient is None
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert places.hand_over("b", ended("x"))
    assert (await last).attempt_id == "x"
