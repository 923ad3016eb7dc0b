"""Executions as archives tell of them, read from storage over gRPC."""

from __future__ import annotations

from nanobatch_gateway import translate
from nanobatch_gateway.adapters.store_grpc import GrpcExecutions, GrpcResults
from nanobatch_gateway.domain import Caller, ExportedRun, Message

_PAGE = 100


class GrpcExports:
    """See :class:`nanobatch_gateway.ports.Exports`."""

    def __init__(self, executions: GrpcExecutions, results: GrpcResults) -> None:
        """Take what it reads with."""
        self._executions = executions
        self._results = results

    async def read(self, caller: Caller, execution_id: str) -> ExportedRun:
        """See :class:`nanobatch_gateway.ports.Exports`."""
        stored = await self._executions.get(caller, execution_id)
        results: list[Message] = []
        cursor = ""
        while True:
            page = await self._results.list(caller, execution_id, states=(), size=_PAGE, cursor=cursor)
            results += page.items
            cursor = page.cursor
            if not cursor:
                return translate.exported_run(stored.execution, results)
