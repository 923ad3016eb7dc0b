"""Page tokens: a cursor with an HMAC-SHA256 over it and over the list it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from nanobatch_gateway.domain import InvalidRequestError
from nanobatch_gateway.ports import ListScope
from nanobatch_runtime.errors import FieldViolation

_MAC_BYTES = 32


class HmacPageTokens:
    """See :class:`nanobatch_gateway.ports.PageTokens`."""

    def __init__(self, key: bytes) -> None:
        """``key`` is the same on all gateways."""
        self._key = key

    def sign(self, scope: ListScope, cursor: str) -> str:
        """See :class:`nanobatch_gateway.ports.PageTokens`."""
        if not cursor:
            return ""
        raw = self._mac(scope, cursor) + cursor.encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    def open(self, scope: ListScope, token: str) -> str:
        """See :class:`nanobatch_gateway.ports.PageTokens`."""
        if not token:
            return ""
        try:
            padded = token + "=" * (-len(token) % 4)
            raw = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
            cursor = raw[_MAC_BYTES:].decode()
        except (UnicodeError, binascii.Error):
            raise _foreign() from None
        if not cursor or not hmac.compare_digest(raw[:_MAC_BYTES], self._mac(scope, cursor)):
            raise _foreign()
        return cursor

    def _mac(self, scope: ListScope, cursor: str) -> bytes:
        parts = (scope.list, scope.user_id, scope.parent_id, str(len(scope.filters)), *scope.filters, cursor)
        # Length-prefixed: no two scopes can be written the same.
        content = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.new(self._key, content, hashlib.sha256).digest()


def _foreign() -> InvalidRequestError:
    description = "This token was not given out for this list; begin again with the first page."
    return InvalidRequestError([FieldViolation("page_token", description, "MALFORMED")])
