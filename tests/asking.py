"""Unary calls as users of the SDK make them: one of each kind, round after round, and what failed of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from nanobatch_client import Client
from nanobatch_client.errors import NanobatchError
from nanobatch_client.models import ResultState


class Asking:
    """The calls of one client. What they are about is an execution of the caller's."""

    def __init__(self, client: Client, folder: Path, *, model: str, api_key: str | None = None) -> None:
        """``folder`` takes the pictures that are downloaded."""
        self.made: Counter[str] = Counter()
        self.failed: list[str] = []
        self._client, self._folder, self._model, self._key = client, folder, model, api_key
        self._picture = ""
        self._reads: dict[str, Callable[[str], Awaitable[object]]] = {
            "GetExecution": client.get_execution,
            "ListResults": self._list_results,
            "GetImage": lambda _: client.get_image(self._picture),
            "EstimateCost": lambda _: client.estimate_cost(["a boat"], model=model),
            "ListModels": lambda _: client.list_models(),
            "DownloadImage": lambda _: self._download(),
            "ListExecutions": lambda _: client.executions_page(5),
        }
        self._turns = itertools.cycle(self._reads)

    @property
    def never_made(self) -> set[str]:
        """The kinds of calls that were not made yet."""
        return {*self._reads, "CreateExecution"} - self.made.keys()

    async def read(self, execution_id: str) -> None:
        """Make the reading call whose turn it is; those of pictures begin with the first one that is there."""
        kind = next(self._turns)
        if self._picture or not kind.endswith("Image"):
            await self._noted(kind, lambda: self._reads[kind](execution_id))

    async def create(self, text: str) -> str:
        """Create an execution of one prompt; returns its id, nothing where that failed."""
        made = [""]

        async def create() -> None:
            made[0] = (await self._client.create_execution([text], model=self._model, api_key=self._key)).id

        await self._noted("CreateExecution", create)
        return made[0]

    async def _list_results(self, execution_id: str) -> None:
        async for result in self._client.list_results(execution_id, states=[ResultState.COMPLETED]):
            self._picture = result.image_id

    async def _download(self) -> None:
        await self._client.download_image(self._picture, self._folder / "downloaded", overwrite=True)

    async def _noted(self, kind: str, call: Callable[[], Awaitable[object]]) -> None:
        self.made[kind] += 1
        try:
            await call()
        except NanobatchError as error:
            self.failed.append(f"{kind}: {type(error).__name__}: {error}")
