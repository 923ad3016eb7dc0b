"""Who looks at the page: the local user, or whoever a token proves."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie
from weakref import WeakValueDictionary

from nanobatch_client import Client, DeadlineExceededError, Patience, UnauthenticatedError, UnavailableError

COOKIE = "nanobatch_token"
MAX_CLIENTS = 200
"""Connections that are kept for those who asked last."""
_MAX_TOKEN = 512
_TRUSTED = 5.0
"""Seconds for which a token that was good counts as good: a revoked one is out after that at the latest."""
_TRUSTED_ALONE = 3600.0
"""The same while the gateway cannot be asked: the page stays, and whatever it asks for is asked of the gateway."""
# Short: a person is waiting, and the page says what is wrong while it tries again.
_PATIENCE = Patience(
    timeout=timedelta(seconds=15),
    connect=timedelta(seconds=2),
    retry=timedelta(seconds=2),
    watch=timedelta(seconds=2),
)


class Trusted:
    """Tokens that were good a while ago, by their hashes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know of none."""
        self._clock = clock
        self._since: OrderedDict[str, float] = OrderedDict()  # what was good last stands last

    def note(self, identity: str) -> None:
        """Note that a token is good, and forget those for which that no longer counts."""
        now = self._clock()
        self._since[identity] = now
        self._since.move_to_end(identity)
        while now - next(iter(self._since.values())) >= _TRUSTED_ALONE:
            self._since.popitem(last=False)

    def forget(self, identity: str) -> None:
        """Note that a token is good no more."""
        self._since.pop(identity, None)

    def within(self, seconds: float, identity: str) -> bool:
        """Tell whether a token was good within the last ``seconds``."""
        since = self._since.get(identity)
        return since is not None and self._clock() - since < seconds

    def __len__(self) -> int:
        """How many are known."""
        return len(self._since)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may ask the gateway, and how. ``id`` tells viewers apart without telling who they are."""

    id: str
    client: Client


class Viewers:
    """Finds the viewer of a request. In token mode the token lies in a cookie that no script can read."""

    def __init__(self, gateway_target: str, *, token_mode: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Connect to ``gateway_target`` when first needed."""
        self._target = gateway_target
        self.token_mode = token_mode
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._trusted = Trusted(clock)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Viewers]:
        """Keep connections while the context is open."""
        try:
            yield self
        finally:
            for client in self._clients.values():
                await client.__aexit__(None, None, None)
            self._clients.clear()

    async def of(self, headers: Mapping[str, str]) -> Viewer:
        """Return who makes a request. Raises UnauthenticatedError where a token is needed and none came."""
        return await self.with_token(self._token(headers))

    async def require(self, headers: Mapping[str, str]) -> None:
        """Let pass who need not, or did, sign in. Raises UnauthenticatedError, and UnavailableError for strangers."""
        if self.token_mode:
            await self.check(self._token(headers))

    async def check(self, token: str) -> None:
        """Ask the gateway whether a token is good; a yes is remembered for moments.

        Raises UnauthenticatedError where it is not, and what the SDK raises where the gateway cannot be asked.
        """
        if not _is_token(token):
            raise UnauthenticatedError("That cannot be a token.", reason="UNAUTHENTICATED")
        identity = _identity(token)
        # A page is many requests at once: one of them asks.
        asking = self._asking.setdefault(identity, asyncio.Lock())
        async with asking:
            if self._trusted.within(_TRUSTED, identity):
                return
            try:
                # A connection of its own: strangers' tokens must not push out the connections that are kept.
                async with Client(self._target, token=token, patience=_PATIENCE) as client:
                    await client.who_am_i()
            except (UnavailableError, DeadlineExceededError):
                if self._trusted.within(_TRUSTED_ALONE, identity):
                    return
                raise
            except UnauthenticatedError:
                self._trusted.forget(identity)
                raise
            self._trusted.note(identity)

    async def with_token(self, token: str) -> Viewer:
        """Return the viewer of a token. It is not checked here: every call to the gateway does."""
        identity = _identity(token)
        client = self._clients.get(identity)
        if client is None:
            client = Client(self._target, token=token or None, patience=_PATIENCE)
            await client.__aenter__()
            self._clients[identity] = client
            if len(self._clients) > MAX_CLIENTS:
                # Not closed: somebody may still use it. gRPC closes a channel that nobody holds any more.
                self._clients.popitem(last=False)
        self._clients.move_to_end(identity)
        return Viewer(identity, client)

    def _token(self, headers: Mapping[str, str]) -> str:
        if not self.token_mode:
            return ""
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            morsel = None
        if morsel is None or not _is_token(morsel.value):
            raise UnauthenticatedError("Sign in first.", reason="UNAUTHENTICATED")
        return morsel.value


def _is_token(text: str) -> bool:
    """Tell whether a text can be a token at all: it has to fit into a header."""
    return 0 < len(text) <= _MAX_TOKEN and text.isascii() and text.isprintable() and " " not in text


def _identity(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
