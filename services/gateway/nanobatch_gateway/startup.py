"""Meeting storage: the gateway may start first, and says so until storage is there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from nanobatch_gateway.domain import AdminTokenTakenError, StartingError
from nanobatch_gateway.ports import Accounts
from nanobatch_runtime.backoff import full_jitter
from nanobatch_runtime.errors import NanobatchError
from nanobatch_runtime.keyring import Identity, Keyring, SealBrokenError, UnknownKeyError
from nanobatch_runtime.redis import RedisMismatchError

_log = structlog.get_logger("nanobatch.gateway")

_SECRET = "fingerprint"  # noqa: S105  # the secret's name
_SECRET_BYTES = 32
_FIRST_WAIT = timedelta(milliseconds=200)
_LONGEST_WAIT = timedelta(seconds=2)


class Startup:
    """Makes sure that the first user and the shared secret exist. Until :meth:`run` has ended nobody is let in."""

    def __init__(
        self,
        accounts: Accounts,
        keyring: Keyring,
        first_user: Callable[[], Awaitable[None]],
        same_redis: Callable[[], Awaitable[None]],
    ) -> None:
        """``first_user`` makes sure that somebody can call, ``same_redis`` that Redis is storage's; both may be repeated."""
        self._accounts = accounts
        self._keyring = keyring
        self._first_user = first_user
        self._same_redis = same_redis
        self._secret: bytes | None = None
        self._trouble = "The gateway is waiting for storage to come up; try again in a moment."

    async def run(self) -> None:
        """Try until it works. Raises only what no repeat can mend: a setting is wrong."""
        failures, said = 0, ""
        while True:
            try:
                await self._same_redis()
                await self._first_user()
                self._secret = await self._shared_secret()
            except (UnknownKeyError, SealBrokenError) as error:
                self._trouble = f"The gateway cannot start with its ENCRYPTION_KEY. {error.message}"
                _log.error("gateway.cannot_start", reason=error.reason, message=error.message)  # no trace needed
                raise
            except (AdminTokenTakenError, RedisMismatchError) as error:
                self._trouble = "The gateway cannot start with its settings; its log says why."
                _log.error("gateway.cannot_start", reason=error.reason, message=error.message)  # no trace needed
                raise
            except NanobatchError as error:
                failures += 1
                if error.reason != said:  # a line for each reason, not for each try
                    said = error.reason
                    _log.warning("gateway.waits_for_storage", reason=error.reason, detail=error.message)
                await asyncio.sleep(full_jitter(failures, base=_FIRST_WAIT, cap=_LONGEST_WAIT).total_seconds())
            else:
                _log.info("gateway.storage_met", failures=failures)
                return

    async def _shared_secret(self) -> bytes:
        identity = Identity("secret", "", _SECRET)
        proposal = self._keyring.seal(os.urandom(_SECRET_BYTES).hex(), identity)
        stored = await self._accounts.ensure_secret(_SECRET, proposal)
        return bytes.fromhex(self._keyring.open(stored, identity))

    def secret(self) -> bytes:
        """Return the HMAC key of fingerprints. Raises StartingError until storage was met."""
        if self._secret is None:
            raise StartingError(self._trouble, retry_after=timedelta(seconds=1))
        return self._secret

    def require(self) -> None:
        """Raise StartingError until storage was met."""
        self.secret()
