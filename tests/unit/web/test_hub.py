import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nanobatch_client import (
    Execution,
    ExecutionState,
    ExecutionUpdate,
    NotFoundError,
    Result,
    ResultState,
    ResultUpdate,
    Stats,
    UnauthenticatedError,
    UnreachableError,
    Update,
)
from nanobatch_runtime.testing import eventually
from nanobatch_web.live import hub
from nanobatch_web.live.hub import Hub, Tabs
from nanobatch_web.viewers import Viewer

EXECUTION = Execution("E", ExecutionState.PROCESSING, "sandbox", stats=Stats())


class Gateway:
    """One run, as the SDK shows it to somebody; each of its answers may be an error."""

    def __init__(self, error: Exception | None = None, watching: Exception | None = None) -> None:
        self.error, self.watching = error, watching
        self.watches = 0
        self.results: list[Result] = []
        self.cut = asyncio.Event()
        """Whether the next watch breaks after what there is."""
        self.speaks = asyncio.Event()
        """Whether a watch says anything."""
        self.speaks.set()

    async def get_execution(self, execution_id: str) -> Execution:
        if self.error is not None:
            raise self.error
        return EXECUTION

    async def watch(self, execution_id: str, after_revision: int = 0) -> AsyncIterator[Update]:
        self.watches += 1
        if self.watching is not None:
            raise self.watching
        await self.speaks.wait()
        if after_revision < 1:
            stats = Stats(total=len(self.results), completed=len(self.results))
            yield ExecutionUpdate(1, stats, EXECUTION)
            for result in self.results:
                yield ResultUpdate(result.revision, stats, result)
        if self.cut.is_set():
            self.cut.clear()
            raise UnreachableError("Nobody answers.")
        await asyncio.Event().wait()

    async def list_results(self, execution_id: str) -> AsyncIterator[Result]:
        if self.error is not None:
            raise self.error
        for result in self.results:
            yield result


def viewer(name: str, gateway: Gateway) -> Viewer:
    return Viewer(name, gateway)  # type: ignore[arg-type]


async def test_all_tabs_of_all_who_look_share_one_watch() -> None:
    gateway = Gateway()
    async with Hub().open() as runs:
        for who in ("ada", "bob"):
            for tab in ("1", "2", "3"):
                feed = await runs.view(viewer(who, gateway), "E", tab)
                assert json.loads(feed.run.delta(-1, ""))["execution"]["id"] == "E"
        assert gateway.watches == runs.open_feeds == 1


async def test_a_strangers_run_is_not_shown_though_somebody_else_follows_it() -> None:
    async with Hub().open() as runs:
        await runs.view(viewer("ada", Gateway()), "E", "1")
        with pytest.raises(NotFoundError):
            await runs.view(viewer("eve", Gateway(NotFoundError("There is none."))), "E", "1")
        with pytest.raises(UnreachableError):
            await runs.view(viewer("eve", Gateway(UnreachableError("Nobody answers."))), "E", "1")


async def test_who_was_let_in_keeps_what_there_is_while_the_gateway_is_away() -> None:
    now = 0.0
    gateway = Gateway()
    async with Hub(lambda: now).open() as runs:
        await runs.view(viewer("ada", gateway), "E", "1")
        now = 100.0
        gateway.error = UnreachableError("Nobody answers.")
        assert (await runs.view(viewer("ada", gateway), "E", "1")).run.execution == EXECUTION


async def test_pictures_of_a_run_that_is_looked_at_for_days_have_addresses_that_are_good() -> None:
    now = datetime(2026, 1, 1, 20, tzinfo=UTC)
    gateway = Gateway()

    def signed(address: str) -> None:
        gateway.results = [replace(made, image_url=address, thumbnail_url=f"{address}/small")]

    made = Result("R", "E", 0, 0, "a fox", ResultState.COMPLETED, revision=2)
    signed("first-day")
    async with Hub(now=lambda: now).open() as runs:

        async def addresses(since: int = -1) -> list[tuple[str, str]]:
            run = (await runs.view(viewer("ada", gateway), "E", "1")).run
            return [(row["url"], row["thumb"]) for row in json.loads(run.delta(since, run.epoch))["results"]]

        first = ("first-day", "first-day/small")
        assert await addresses() == [first]
        seen = json.loads((await runs.view(viewer("ada", gateway), "E", "1")).run.delta(-1, ""))["version"]
        now += timedelta(hours=6)
        assert await addresses(seen) == []  # the same all day: nothing is told, nothing flickers
        signed("second-day")
        now += timedelta(hours=5, minutes=59)
        assert await addresses(seen) == []
        gateway.error = UnreachableError("Nobody answers.")
        now += timedelta(minutes=1)
        assert await addresses() == [first]
        gateway.error = None
        now += timedelta(minutes=1)
        assert await addresses(seen) == [("second-day", "second-day/small")]
        assert await addresses() == [("second-day", "second-day/small")]
    assert gateway.watches == 1


async def test_a_run_that_rests_is_known_to_be_well_again_after_a_cut() -> None:
    gateway = Gateway()
    gateway.cut.set()
    async with Hub().open() as runs:
        feed = await runs.view(viewer("ada", gateway), "E", "1")
        await eventually(lambda: bool(json.loads(feed.run.delta(-1, ""))["trouble"]))
        await eventually(lambda: gateway.watches == 2)
        await eventually(lambda: not json.loads(feed.run.delta(-1, ""))["trouble"])


async def test_nothing_heard_yet_is_not_told_as_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_FIRST_SIGHT", timedelta(milliseconds=10))
    gateway = Gateway()
    gateway.speaks.clear()
    async with Hub().open() as runs:
        feed = await runs.view(viewer("ada", gateway), "E", "1")
        assert json.loads(feed.run.delta(-1, ""))["trouble"]
        gateway.speaks.set()
        await eventually(lambda: not json.loads(feed.run.delta(-1, ""))["trouble"])
        assert feed.run.execution == EXECUTION


async def test_a_viewer_who_was_signed_out_takes_nobody_along() -> None:
    revoked = Gateway(watching=UnauthenticatedError("Unknown."))
    async with Hub().open() as runs:
        with pytest.raises(UnauthenticatedError):
            await runs.view(viewer("ada", revoked), "E", "1")
        ada = asyncio.create_task(runs.view(viewer("ada", revoked), "E", "1"))
        bob = asyncio.create_task(runs.view(viewer("bob", Gateway()), "E", "1"))
        assert (await bob).run.execution == EXECUTION
        with pytest.raises(UnauthenticatedError):
            await ada


def test_a_tab_counts_while_it_asks_and_fifteen_seconds_longer() -> None:
    now = 0.0
    tabs = Tabs(lambda: now)
    for execution_id, tab in (("E", "1"), ("E", "2"), ("F", "1"), ("E", "2")):
        tabs.note(execution_id, tab)
    assert len(tabs) == 3
    now = 10.0
    tabs.note("E", "1")
    now = 15.0
    assert len(tabs) == 1
    now = 25.0
    assert not tabs
