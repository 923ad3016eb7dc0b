"""Lists in pages; the cursors that storage gives are signed before a client gets them."""

from __future__ import annotations

from collections.abc import Sequence

from nanobatch_gateway.domain import Caller, Page
from nanobatch_gateway.fields import Violations, page_size
from nanobatch_gateway.ports import Executions, ListScope, PageTokens, Results

LAST_STATE = 5


class ListExecutions:
    """A user's executions, newest first."""

    def __init__(self, executions: Executions, tokens: PageTokens) -> None:
        """Take what it works with."""
        self._executions = executions
        self._tokens = tokens

    async def __call__(self, caller: Caller, *, size: int, token: str) -> Page:
        """Return a page whose cursor is a token. Raises InvalidRequestError."""
        found = Violations()
        wanted = page_size(found, size)
        found.raise_any()
        scope = ListScope("executions", caller.user_id)
        page = await self._executions.list(caller, size=wanted, cursor=self._tokens.open(scope, token))
        return Page(page.items, self._tokens.sign(scope, page.cursor))


class ListResults:
    """The results of an execution, by batch index and variation."""

    def __init__(self, results: Results, tokens: PageTokens) -> None:
        """Take what it works with."""
        self._results = results
        self._tokens = tokens

    async def __call__(
        self, caller: Caller, execution_id: str, *, states: Sequence[int], size: int, token: str
    ) -> Page:
        """Return a page whose cursor is a token; no ``states`` mean all. Raises InvalidRequestError."""
        found = Violations()
        found.id("execution_id", execution_id, required=True)
        wanted = page_size(found, size)
        for number, state in enumerate(states):
            if not 1 <= state <= LAST_STATE:
                found.add(f"states[{number}]", f"There is no result state number {state}.", "UNKNOWN_VALUE")
        found.raise_any()
        only = sorted(set(states))
        scope = ListScope("results", caller.user_id, execution_id, tuple(str(state) for state in only))
        cursor = self._tokens.open(scope, token)
        page = await self._results.list(caller, execution_id, states=only, size=wanted, cursor=cursor)
        return Page(page.items, self._tokens.sign(scope, page.cursor))
