"""All runs that somebody looks at: one upstream watch for each, ended when the last viewer has left."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from nanobatch_client import NanobatchError, NotFoundError, UnauthenticatedError, UnavailableError
from nanobatch_runtime.lifecycle import cancel
from nanobatch_web.live.run import Run
from nanobatch_web.viewers import Viewer

_log = structlog.get_logger("nanobatch.web")

_VIEWER_GONE = 15.0
"""Seconds without a question after which a viewer counts as gone (a hidden tab asks every few seconds)."""
_FIRST_SIGHT = timedelta(seconds=2)
"""Longest wait for a run's first whole picture before a viewer gets what there is."""
_LOOK_AGAIN = 2.0
"""Seconds between looks at a run that has ended: somebody may retry in it."""
_TRY_AGAIN = 0.5
_ADDRESSES_GOOD_FOR = timedelta(hours=6)
"""After this the addresses of pictures are asked for anew. They live for a day at least, so a failure may be mended later."""
_ASK_FOR_ADDRESSES_AGAIN = timedelta(minutes=1)
_ALLOWED_FOR = 30.0
_MAX_ALLOWED = 10_000


class Tabs:
    """Tabs that have asked lately."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know of none."""
        self._clock = clock
        self._asked: OrderedDict[tuple[str, str], float] = OrderedDict()  # who asked last stands last

    def note(self, execution_id: str, tab: str) -> None:
        """Note that a tab has asked for a run."""
        self._asked[execution_id, tab] = self._clock()
        self._asked.move_to_end((execution_id, tab))

    def __len__(self) -> int:
        """How many have asked lately."""
        oldest = self._clock() - _VIEWER_GONE
        while self._asked and next(iter(self._asked.values())) <= oldest:
            self._asked.popitem(last=False)
        return len(self._asked)


class Feed:
    """One followed run and who looks at it."""

    def __init__(
        self, execution_id: str, viewer: Viewer, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        """Follow as ``viewer``, who may see the run."""
        self.execution_id = execution_id
        self.run = Run(secrets.token_urlsafe(6), now)
        self.gone: NanobatchError | None = None
        """Why the run can be followed no more."""
        self.whole = asyncio.Event()
        self._viewer = viewer
        self._tabs = Tabs(clock)
        self._now = now
        self._renew_at = now() + _ADDRESSES_GOOD_FOR

    @property
    def followed_by(self) -> str:
        """Id of the viewer in whose name it is followed."""
        return self._viewer.id

    def note(self, tab: str) -> None:
        """Note that a tab has asked."""
        self._tabs.note(self.execution_id, tab)

    async def renew(self, viewer: Viewer) -> None:
        """Ask for the addresses of pictures anew, as ``viewer``, where they have grown old: a run may be looked at for days."""
        if self._now() < self._renew_at:
            return
        self._renew_at = self._now() + _ASK_FOR_ADDRESSES_AGAIN
        try:
            results = [result async for result in viewer.client.list_results(self.execution_id)]
        except NanobatchError as error:
            _log.warning("live.addresses_not_renewed", execution_id=self.execution_id, reason=error.reason)
            return
        self.run.renew(results)
        self._renew_at = self._now() + _ADDRESSES_GOOD_FOR

    async def follow(self) -> None:
        """Follow until nobody looks any more or the run is gone."""
        cut = False
        while self._tabs and self.gone is None:
            # A watch tells nothing until there is news, and a run may rest for days. Who was cut off asks for what was
            # heard last once more: that it comes says that all is well again.
            heard = max(0, self.run.revision - 1) if cut else self.run.revision
            try:
                async for update in self._viewer.client.watch(self.execution_id, heard):
                    cut = False
                    self.run.apply(update)
                    self.run.set_trouble("")
                    if self.run.is_whole:
                        self.whole.set()
                    if not self._tabs:
                        return
                self.whole.set()
                await self._wait_for_a_retry()
            except UnavailableError as error:
                cut = True
                self.run.set_trouble(error.message)
                await asyncio.sleep(_TRY_AGAIN)
            except NanobatchError as error:
                self.gone = error
                self.whole.set()

    async def _wait_for_a_retry(self) -> None:
        while self._tabs:
            await asyncio.sleep(_LOOK_AGAIN)
            if (await self._viewer.client.get_execution(self.execution_id)).revision > self.run.revision:
                return


class Hub:
    """Hands out feeds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Start with none. ``now`` also goes on while the machine sleeps."""
        self._clock = clock
        self._now = now
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}
        self._allowed: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._tabs = Tabs(clock)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Hub]:
        """Follow while the context is open."""
        try:
            yield self
        finally:
            for _, task in list(self._feeds.values()):
                await cancel(task)

    async def view(self, viewer: Viewer, execution_id: str, tab: str) -> Feed:
        """Return the feed of a run that ``viewer`` may see, with its first whole picture where that comes soon.

        Raises NotFoundError, and what the gateway says where it cannot be asked.
        """
        await self._require_visible(viewer, execution_id)
        feed = await self._seen_once(viewer, execution_id, tab)
        if isinstance(feed.gone, UnauthenticatedError) and feed.followed_by != viewer.id:
            # In whose name it was followed is no longer signed in. That is not this viewer's affair.
            feed = await self._seen_once(viewer, execution_id, tab)
        if feed.gone is not None:
            self._allowed.pop((viewer.id, execution_id), None)
            raise feed.gone
        await feed.renew(viewer)
        return feed

    async def _seen_once(self, viewer: Viewer, execution_id: str, tab: str) -> Feed:
        feed = self._feed(viewer, execution_id)
        feed.note(tab)
        self._tabs.note(execution_id, tab)
        if not feed.whole.is_set():
            try:
                async with asyncio.timeout(_FIRST_SIGHT.total_seconds()):
                    await feed.whole.wait()
            except TimeoutError:
                if feed.run.stats is None:
                    feed.run.set_trouble("Nothing was heard of this run yet.")
        return feed

    @property
    def open_feeds(self) -> int:
        """How many runs are followed."""
        return len(self._feeds)

    @property
    def tabs(self) -> int:
        """How many tabs have asked lately, for whatever run."""
        return len(self._tabs)

    def _feed(self, viewer: Viewer, execution_id: str) -> Feed:
        known = self._feeds.get(execution_id)
        if known is not None and known[0].gone is None:
            return known[0]
        feed = Feed(execution_id, viewer, self._clock, self._now)
        feed.note("")
        task = asyncio.create_task(feed.follow(), name=f"follow-{execution_id}")
        self._feeds[execution_id] = (feed, task)
        task.add_done_callback(lambda _: self._ended(feed))
        return feed

    def _ended(self, feed: Feed) -> None:
        known = self._feeds.get(feed.execution_id)
        if known is not None and known[0] is feed:
            del self._feeds[feed.execution_id]

    async def _require_visible(self, viewer: Viewer, execution_id: str) -> None:
        """Ask the gateway whether this viewer may see the run; a yes is remembered for a while."""
        key = (viewer.id, execution_id)
        now = self._clock()
        until = self._allowed.get(key)
        if until is not None and until > now:
            return
        try:
            await viewer.client.get_execution(execution_id)
        except (NotFoundError, UnauthenticatedError):
            self._allowed.pop(key, None)
            raise
        except UnavailableError:
            if until is None:
                raise
            # It was visible a moment ago and the gateway is away: the page goes on showing what it has, and says so.
        self._allowed[key] = now + _ALLOWED_FOR
        self._allowed.move_to_end(key)
        if len(self._allowed) > _MAX_ALLOWED:
            self._allowed.popitem(last=False)
