"""Channels whose calls show something besides what each call is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

C = TypeVar("C")

Metadata = tuple[tuple[str, str], ...]


def showing(channel: C, metadata: Callable[[], Metadata]) -> C:
    """Return the channel, asyncio's or not, such that every call of its stubs has ``metadata`` as it is then."""
    return cast("C", _Showing(channel, metadata))


class _Showing:
    """A channel in all but the making of calls. Interceptors would do the same at the price of a task per call."""

    def __init__(self, channel: Any, metadata: Callable[[], Metadata]) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._with_metadata(self._channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._with_metadata(self._channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._with_metadata(self._channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._with_metadata(self._channel.stream_stream(*args, **options))

    def _with_metadata(self, start: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            own = tuple(options.pop("metadata", None) or ())
            return start(*args, metadata=(*own, *self._metadata()), **options)

        return call
