"""What stands between a lease and the call: the last door before money, and calls that are made alone."""

from __future__ import annotations

from contextlib import asynccontextmanager

from nanobatch_generator import render
from nanobatch_generator.domain import Charged, FailureClass, ProviderError
from nanobatch_runtime.errors import UnavailableError
from nanobatch_runtime.testing import eventually


class Alone:
    """A spare process that remembers its calls, and dies of those it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.started = 0
        self.running = 0
        self.deadly = ""

    @asynccontextmanager
    async def process(self, provider):
        self.started += 1
        self.running += 1
        try:
            self.provider = provider
            yield self
        finally:
            self.running -= 1

    async def submit(self, request, key):
        self.calls.append(request.prompt)
        if request.prompt == self.deadly:
            raise ProviderError(FailureClass.WORKER_LOST, "WORKER_LOST", "It died.", charged=Charged.MAYBE)
        return await self.house.provider._picture(request)


async def test_a_suspects_call_is_made_alone_and_only_that_one(house):
    spare = Alone()
    spare.house, spare.deadly = house, "poison"
    [innocent], [poison] = house.storage.add(), house.storage.add(prompt="poison", suspect=True)
    [cleared] = house.storage.add(prompt="a suspect", suspect=True)
    async with house.generator(spare=spare):
        await eventually(lambda: (innocent.state, poison.state, cleared.state) == ("COMPLETED", "FAILED", "COMPLETED"))
    assert sorted(spare.calls) == ["a suspect", "poison"]
    assert [request.prompt for request in house.provider.requests] == ["a banana"]
    assert (poison.failure.code, poison.failure.charged) == ("WORKER_LOST", 3)
    assert spare.running == 0


async def test_no_more_suspects_are_asked_for_than_can_be_called_alone(house):
    async with house.generator(spare_processes=3):
        await eventually(lambda: house.storage.asked)
    assert set(house.storage.asked_suspects) == {3}


async def test_an_answer_that_came_too_late_to_be_trusted_is_asked_for_again(house, monkeypatch):
    """A process that slept behind the last door must not call: the execution may have been cancelled meanwhile."""
    monkeypatch.setattr(render, "_FRESH_SECONDS", -1.0)
    [row] = house.storage.add()
    async with house.generator():
        await eventually(lambda: house.storage.calls["StartAttempt"] >= 3)
        assert house.provider.requests == []
        monkeypatch.setattr(render, "_FRESH_SECONDS", 1.5)
        await eventually(lambda: row.state == "COMPLETED")
    assert len(house.provider.requests) == 1


async def test_a_cancel_between_two_askings_means_no_call_and_an_attempt_that_costs_nothing(house):
    [row] = house.storage.add()
    house.storage.after["StartAttempt"] = [UnavailableError("the answer is lost")]
    house.storage.on_start = lambda: house.storage.changed(row, "CANCELLED")
    async with house.generator():
        await eventually(lambda: house.storage.released == [row.lease.result_id])
    assert house.provider.requests == []
