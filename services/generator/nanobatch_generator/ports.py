"""What the generator needs from outside."""

from __future__ import annotations

from typing import Protocol

from nanobatch_generator.domain import Done, KeyCheck, PictureRequest


class Provider(Protocol):
    """One company's way to make a picture. One call of a method is at most one paid call; it never repeats by itself."""

    async def submit(self, request: PictureRequest, key: str) -> Done:
        """Make one picture within ``request.timeout``. Raises ProviderError with the class of what went wrong.

        ``key`` is empty for providers that need none. A cancelled call closes its connection.
        """
        ...

    async def check_key(self, model: str, key: str) -> KeyCheck:
        """Ask, without cost, whether the key is good and the model offered. Raises ProviderError where nobody can tell."""
        ...
