"""ExecutionService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1 import execution_service_pb2_grpc
from nanobatch_gateway import translate
from nanobatch_gateway.auth import current_caller
from nanobatch_gateway.control import ResumeExecution, RetryExecution
from nanobatch_gateway.create import CreateExecution
from nanobatch_gateway.domain import WatchMessage
from nanobatch_gateway.estimate import EstimateCost
from nanobatch_gateway.fields import Violations, required_id
from nanobatch_gateway.limits import WatchStreams
from nanobatch_gateway.linking import Linker
from nanobatch_gateway.pages import ListExecutions, ListResults
from nanobatch_gateway.ports import Controls, Executions, Results
from nanobatch_gateway.servicers.writing import STALL_LIMIT, writer
from nanobatch_gateway.watch import WatchExecution

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class ExecutionUseCases:
    """What the servicer calls."""

    create: CreateExecution
    estimate: EstimateCost
    resume: ResumeExecution
    retry: RetryExecution
    list: ListExecutions
    list_results: ListResults
    watch: WatchExecution
    streams: WatchStreams
    executions: Executions
    controls: Controls
    results: Results


class ExecutionServicer(execution_service_pb2_grpc.ExecutionServiceServicer):
    """Executions over gRPC; the contract stands in the proto."""

    def __init__(self, use: ExecutionUseCases, linker: Linker, *, stall: timedelta = STALL_LIMIT) -> None:
        """``linker`` puts addresses into results; ``stall`` is how long a watcher may leave one message lying."""
        self._use = use
        self._linker = linker
        self._stall = stall

    async def CreateExecution(self, request: pb.CreateExecutionRequest, context: Context) -> pb.CreateExecutionResponse:
        """See the proto."""
        execution = await self._use.create(current_caller(), translate.execution_draft(request))
        return pb.CreateExecutionResponse(execution=execution)

    async def EstimateCost(self, request: pb.EstimateCostRequest, context: Context) -> pb.EstimateCostResponse:
        """See the proto."""
        estimate = await self._use.estimate(current_caller(), translate.execution_draft(request.execution))
        return translate.estimate_response(estimate)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """See the proto."""
        execution_id = required_id("execution_id", request.execution_id)
        stored = await self._use.executions.get(current_caller(), execution_id)
        return pb.GetExecutionResponse(execution=stored.execution)

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """See the proto."""
        caller = current_caller()
        page = await self._use.list(caller, size=request.page_size, token=request.page_token)
        executions = [self._linker.listed(caller, execution) for execution in page.items]
        return pb.ListExecutionsResponse(executions=executions, next_page_token=page.cursor)

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb.WatchExecutionResponse]:
        """See the proto."""
        found = Violations()
        found.id("execution_id", request.execution_id, required=True)
        found.not_negative("after_revision", request.after_revision)
        found.raise_any()
        caller, write = current_caller(), writer(context, self._stall)

        async def send(message: WatchMessage) -> None:
            await write(message.wire + self._linker.piece(caller, message))

        with self._use.streams.one_of(caller):
            await self._use.watch(caller, request.execution_id, request.after_revision, send)
        nothing: tuple[
            pb.WatchExecutionResponse, ...
        ] = ()  # all was sent above; a stream's handler is a generator all the same
        for response in nothing:
            yield response

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        """See the proto."""
        execution_id = required_id("execution_id", request.execution_id)
        response: pb.CancelExecutionResponse = await self._use.controls.cancel(current_caller(), execution_id)
        return response

    async def PauseExecution(self, request: pb.PauseExecutionRequest, context: Context) -> pb.PauseExecutionResponse:
        """See the proto."""
        execution_id = required_id("execution_id", request.execution_id)
        response: pb.PauseExecutionResponse = await self._use.controls.pause(current_caller(), execution_id)
        return response

    async def ResumeExecution(self, request: pb.ResumeExecutionRequest, context: Context) -> pb.ResumeExecutionResponse:
        """See the proto."""
        response: pb.ResumeExecutionResponse = await self._use.resume(current_caller(), translate.resume_draft(request))
        return response

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> pb.RetryExecutionResponse:
        """See the proto."""
        response: pb.RetryExecutionResponse = await self._use.retry(current_caller(), translate.retry_draft(request))
        return response

    async def DeleteExecution(self, request: pb.DeleteExecutionRequest, context: Context) -> pb.DeleteExecutionResponse:
        """See the proto."""
        await self._use.executions.delete(current_caller(), required_id("execution_id", request.execution_id))
        return pb.DeleteExecutionResponse()

    async def ListResults(self, request: pb.ListResultsRequest, context: Context) -> pb.ListResultsResponse:
        """See the proto."""
        caller = current_caller()
        page = await self._use.list_results(
            caller,
            request.execution_id,
            states=request.states,
            size=request.page_size,
            token=request.page_token,
        )
        return pb.ListResultsResponse(
            results=[self._linker.result(caller, result) for result in page.items], next_page_token=page.cursor
        )

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        """See the proto."""
        caller = current_caller()
        result = await self._use.results.get(caller, required_id("result_id", request.result_id))
        return pb.GetResultResponse(result=self._linker.result(caller, result))
