"""What generators tell each other about calls that are out, over Redis."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import structlog

from nanobatch_generator.domain import Estimate
from nanobatch_runtime.redis.pubsub import RedisPubSub

_log = structlog.get_logger("nanobatch.progress")


class RedisPeers:
    """See :class:`nanobatch_generator.ports.Peers`. One channel for each execution, so that only its watchers are told."""

    def __init__(self, pubsub: RedisPubSub) -> None:
        """``pubsub`` belongs to the caller."""
        self._pubsub = pubsub
        self._name = secrets.token_hex(8)
        self._listening: set[str] = set()

    async def tell(self, execution_id: str, estimates: Sequence[Estimate]) -> bool:
        """See the port."""
        heard = await self._pubsub.publish(_channel(execution_id), _encoded(self._name, estimates))
        return heard is not None and heard > (execution_id in self._listening)

    @contextmanager
    def listening(self, execution_id: str, heard: Callable[[Sequence[Estimate]], None]) -> Iterator[None]:
        """See the port."""

        def received(payload: bytes) -> None:
            try:
                teller, estimates = _decoded(payload)
            except (ValueError, TypeError):  # of a newer version; percentages may be lost
                _log.debug("progress.not_understood", execution=execution_id)
                return
            if teller != self._name:
                heard(estimates)

        self._listening.add(execution_id)
        try:
            with self._pubsub.listening(_channel(execution_id), received):
                yield
        finally:
            self._listening.discard(execution_id)


def _channel(execution_id: str) -> str:
    return f"progress:{execution_id}"


def _encoded(teller: str, estimates: Sequence[Estimate]) -> bytes:
    rows = [
        [one.result_id, one.percent, None if one.eta is None else round(one.eta.total_seconds(), 1)]
        for one in estimates
    ]
    return json.dumps([teller, rows], separators=(",", ":")).encode()


def _decoded(payload: bytes) -> tuple[str, list[Estimate]]:
    teller, rows = json.loads(payload)
    return teller, [
        Estimate(str(row), percent=min(99, max(0, int(percent))), eta=None if eta is None else timedelta(seconds=eta))
        for row, percent, eta in rows
    ]
