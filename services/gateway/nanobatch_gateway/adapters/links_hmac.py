"""Addresses of pictures: an HMAC-SHA256 over picture, user, role, file name and expiry.

The address is the permission, so that a plain ``<img>`` works. It ends at the next but one UTC midnight: it is the same
all day, which is what lets browsers cache, and it is good for one to two days.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlencode

from nanobatch_gateway.domain import Caller, LinkInvalidError
from nanobatch_gateway.ports import PictureLink
from nanobatch_runtime.clock import Clock
from nanobatch_runtime.ids import is_id

_DAY_SECONDS = 86_400
_REMEMBERED = 4_096
_NAME = re.compile(r"[a-z0-9-]{1,80}")
_EXPIRES = re.compile(r"[1-9][0-9]{0,11}")


class HmacPictureLinks:
    """See :class:`nanobatch_gateway.ports.PictureLinks`."""

    def __init__(self, keys: Sequence[bytes], clock: Clock, base_url: str) -> None:
        """``keys`` are the same on all gateways, the signing one first; ``base_url`` is how browsers reach us."""
        self._keys = tuple(keys)
        self._clock = clock
        self._base_url = base_url
        self._signed = lru_cache(maxsize=_REMEMBERED)(self._sign)

    def sign(self, caller: Caller, image_id: str, name: str) -> str:
        """See :class:`nanobatch_gateway.ports.PictureLinks`."""
        # Many watch the same pictures: the day's addresses are made once.
        return self._signed(caller.user_id, "admin" if caller.admin else "client", image_id, name, self._expiry())

    def _expiry(self) -> str:
        return str((int(self._clock.now().timestamp()) // _DAY_SECONDS + 2) * _DAY_SECONDS)

    def _sign(self, user: str, role: str, image_id: str, name: str, expires: str) -> str:
        signature = _signature(self._keys[0], image_id, user, role, name, expires)
        query = {"user": user, "role": role, "name": name, "expires": expires, "signature": signature}
        return f"{self._base_url}/images/{image_id}?{urlencode(query)}"

    def open(self, image_id: str, query: Mapping[str, str]) -> PictureLink:
        """See :class:`nanobatch_gateway.ports.PictureLinks`."""
        user, role, name, expires, signature = (
            query.get(part, "") for part in ("user", "role", "name", "expires", "signature")
        )
        if not (is_id(image_id) and is_id(user) and _NAME.fullmatch(name) and _EXPIRES.fullmatch(expires)):
            raise _refused()
        given = signature.encode("utf-8", "replace")
        # Every key is tried, so that the time taken tells nothing of which one fits.
        good = [
            hmac.compare_digest(_signature(key, image_id, user, role, name, expires).encode(), given)
            for key in self._keys
        ]
        seconds_left = int(expires) - int(self._clock.now().timestamp())
        if not any(good) or seconds_left <= 0:
            raise _refused()
        return PictureLink(Caller(user, admin=role == "admin"), name, seconds_left)


def _signature(key: bytes, *parts: str) -> str:
    # Length-prefixed: no two addresses can be written the same.
    content = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return base64.urlsafe_b64encode(hmac.digest(key, content, hashlib.sha256)).rstrip(b"=").decode()


def _refused() -> LinkInvalidError:
    return LinkInvalidError("This address is not valid, or not any more; ask for the result again to get a new one.")
