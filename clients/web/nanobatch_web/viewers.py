"""Who looks at the page: the local user, or whoever a token proves."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.cookies import SimpleCookie

from nanobatch_client import Client, Patience, UnauthenticatedError

COOKIE = "nanobatch_token"
_MAX_CLIENTS = 200
# Short: a person is waiting, and the page says what is wrong while it tries again.
_PATIENCE = Patience(
    timeout=timedelta(seconds=15),
    connect=timedelta(seconds=2),
    retry=timedelta(seconds=2),
    watch=timedelta(seconds=2),
)


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may ask the gateway, and how. ``id`` tells viewers apart without telling who they are."""

    id: str
    client: Client


class Viewers:
    """Finds the viewer of a request. In token mode the token lies in a cookie that no script can read."""

    def __init__(self, gateway_target: str, *, token_mode: bool) -> None:
        """Connect to ``gateway_target`` when first needed."""
        self._target = gateway_target
        self.token_mode = token_mode
        self._clients: OrderedDict[str, Client] = OrderedDict()

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

    async def with_token(self, token: str) -> Viewer:
        """Return the viewer of a token. It is not checked here: every call to the gateway does."""
        identity = hashlib.sha256(token.encode()).hexdigest()
        client = self._clients.get(identity)
        if client is None:
            client = Client(self._target, token=token or None, patience=_PATIENCE)
            await client.__aenter__()
            self._clients[identity] = client
            if len(self._clients) > _MAX_CLIENTS:
                _, oldest = self._clients.popitem(last=False)
                await oldest.__aexit__(None, None, None)
        self._clients.move_to_end(identity)
        return Viewer(identity, client)

    def _token(self, headers: Mapping[str, str]) -> str:
        if not self.token_mode:
            return ""
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        if morsel is None or not morsel.value:
            raise UnauthenticatedError("Sign in first.", reason="UNAUTHENTICATED")
        return morsel.value
