"""Whoever runs the server gets in first: by a token that is set from outside."""

from __future__ import annotations

import structlog

from nanobatch_gateway import tokens
from nanobatch_gateway.domain import FIRST_ADMIN
from nanobatch_gateway.ports import Accounts

_log = structlog.get_logger("nanobatch.gateway")

_ADVICE = "Nobody can log in yet: set NANOBATCH_ADMIN_TOKEN (openssl rand -hex 32) on the gateway and restart it."


class EnsureFirstAdmin:
    """Makes sure that exactly the operator's token opens the first admin's account; any number of gateways may do so."""

    def __init__(self, accounts: Accounts, token: str) -> None:
        """``token`` is empty where the operator has set none: then an earlier one is revoked."""
        self._accounts = accounts
        self._token = token

    async def __call__(self) -> None:
        """Raises AdminTokenTakenError, and storage's own answers."""
        digest = (tokens.digest(self._token), tokens.shown(self._token)) if self._token else None
        if not await self._accounts.ensure_first_admin(FIRST_ADMIN, digest):
            _log.warning("gateway.nobody_can_log_in", advice=_ADVICE)
