"""``NANOBATCH_AUTH=token``: who calls is found by a bearer token."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from nanobatch_gateway import tokens
from nanobatch_gateway.auth import Metadata
from nanobatch_gateway.domain import Caller, TokenMalformedError, TokenMissingError
from nanobatch_gateway.ports import Sessions

REMEMBER = timedelta(seconds=10)
"""How long storage is not asked again about a token that was good: so long it may outlive its revocation."""
_MOST = 1_024
_HEADER = "authorization"
_BINARY_HEADER = "authorization-bin"


class TokenAuthenticator:
    """See :class:`nanobatch_gateway.auth.Authenticator`."""

    lasting = False

    def __init__(
        self,
        sessions: Sessions,
        *,
        operators_token: str = "",
        remember: timedelta = REMEMBER,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``operators_token`` may have any shape; all others have ours."""
        self._sessions = sessions
        self._operators = tokens.digest(operators_token) if operators_token else b""
        self._remember = remember.total_seconds()
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()

    async def authenticate(self, metadata: Metadata) -> Caller:
        """See the port. Only good tokens are remembered, so that guesses cannot push them out."""
        token = _bearer(metadata)
        digest = tokens.digest(token)
        if not tokens.is_token(token) and not hmac.compare_digest(digest, self._operators):
            raise TokenMalformedError("This is no token of this server: was it cut, or mistyped?")
        remembered = self._known.get(digest)
        if remembered is not None and self._monotonic() < remembered[0]:
            self._known.move_to_end(digest)
            return remembered[1]
        self._known.pop(digest, None)
        asked = self._monotonic()
        session = await self._sessions.open(digest)
        remaining = self._remember if session.remaining is None else session.remaining.total_seconds()
        self._known[digest] = (asked + min(self._remember, remaining), session.caller)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return session.caller


def _bearer(metadata: Metadata) -> str:
    if any(key == _BINARY_HEADER for key, _ in metadata):
        raise TokenMalformedError("Send the token as text: `authorization: Bearer TOKEN`.")
    values = [value for key, value in metadata if key == _HEADER]
    if not values:
        raise TokenMissingError("This server asks for a token: send `authorization: Bearer TOKEN`.")
    if len(values) > 1:
        raise TokenMalformedError("The authorization header came more than once; send one.")
    value = values[0] if isinstance(values[0], str) else ""
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenMalformedError("This server takes bearer tokens only: `authorization: Bearer TOKEN`.")
    return token
