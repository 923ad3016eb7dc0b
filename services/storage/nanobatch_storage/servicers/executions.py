"""ExecutionService: executions and results as users see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from nanobatch.storage.v1 import execution_service_pb2 as pb
from nanobatch.storage.v1 import execution_service_pb2_grpc
from nanobatch_runtime import requests, tracing
from nanobatch_runtime.bus import Bus
from nanobatch_runtime.rpc import options
from nanobatch_storage import changes, control, create, cursors
from nanobatch_storage.ports import Blobs, ChangeLog, Control, Executions
from nanobatch_storage.servicers.paging import page_size
from nanobatch_storage.translate import (
    actor_from_proto,
    change_to_proto,
    credential_from_proto,
    execution_to_proto,
    listed_to_proto,
    new_execution_from_proto,
    result_to_proto,
    retry_from_proto,
    states_from_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]

_PAGE_BYTES = options.MAX_MESSAGE_BYTES * 3 // 4
"""A page may be shorter than was asked for; an answer that is larger than a message would be none at all."""

M = TypeVar("M", bound=Message)


class ExecutionServicer(execution_service_pb2_grpc.ExecutionServiceServicer):
    """Translates, calls one use case, translates back."""

    def __init__(
        self,
        executions: Executions,
        control: Control,
        change_log: ChangeLog,
        *,
        blobs: Blobs,
        bus: Bus,
        draining: asyncio.Event,
    ) -> None:
        """Take what the use cases need; streams end resumably once ``draining`` is set."""
        self._executions = executions
        self._control = control
        self._changes = change_log
        self._blobs = blobs
        self._bus = bus
        self._draining = draining

    async def CreateExecution(self, request: pb.CreateExecutionRequest, context: Context) -> pb.CreateExecutionResponse:
        """See the contract."""
        new = replace(
            new_execution_from_proto(request),
            origin_request_id=requests.current() or None,
            origin_traceparent=tracing.current() or None,
        )
        execution = await create.create_execution(self._executions, self._bus, actor_from_proto(request.actor), new)
        return pb.CreateExecutionResponse(execution=execution_to_proto(execution))

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """See the contract."""
        view = await self._executions.get(actor_from_proto(request.actor), request.execution_id)
        return pb.GetExecutionResponse(
            execution=execution_to_proto(view.execution),
            provider=view.execution.provider,
            has_key=view.has_key,
            user_id=view.execution.user_id,
        )

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """See the contract."""
        page = await self._executions.list(
            actor_from_proto(request.actor), page_size(request.page_size), request.cursor
        )
        shown = _fitting(listed_to_proto(listed) for listed in page.items)
        if len(shown) == len(page.items):
            return pb.ListExecutionsResponse(executions=shown, next_cursor=page.next_cursor)
        last = page.items[len(shown) - 1].execution
        return pb.ListExecutionsResponse(
            executions=shown, next_cursor=cursors.after_execution(last.create_time, last.id)
        )

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Context
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """See the contract."""
        watched = changes.watch(
            self._changes,
            self._bus,
            self._draining,
            actor=actor_from_proto(request.actor),
            execution_id=request.execution_id,
            after_revision=request.after_revision,
            lasting=options.LONGEST_STREAM,
        )
        async with aclosing(watched):  # a client that leaves while a message is on its way must not leave an ear behind
            async for change in watched:
                message = pb.WatchChangesResponse(update=change_to_proto(change))
                if change.changed_at:
                    message.change_time.FromNanoseconds(int(change.changed_at * 1e9))
                yield message

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        """See the contract."""
        actor = actor_from_proto(request.actor)
        cancelled = await control.cancel_execution(self._control, self._bus, actor, request.execution_id)
        return pb.CancelExecutionResponse(
            execution=execution_to_proto(cancelled.execution),
            in_flight=cancelled.in_flight,
            maybe_charged_micros=cancelled.maybe_charged_micros,
        )

    async def PauseExecution(self, request: pb.PauseExecutionRequest, context: Context) -> pb.PauseExecutionResponse:
        """See the contract."""
        actor = actor_from_proto(request.actor)
        execution = await control.pause_execution(self._control, self._bus, actor, request.execution_id)
        return pb.PauseExecutionResponse(execution=execution_to_proto(execution))

    async def ResumeExecution(self, request: pb.ResumeExecutionRequest, context: Context) -> pb.ResumeExecutionResponse:
        """See the contract."""
        execution = await control.resume_execution(
            self._control,
            self._bus,
            actor_from_proto(request.actor),
            request.execution_id,
            credential=credential_from_proto(request.credential) if request.HasField("credential") else None,
            max_cost_micros=request.max_cost_micros if request.HasField("max_cost_micros") else None,
        )
        return pb.ResumeExecutionResponse(execution=execution_to_proto(execution))

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> pb.RetryExecutionResponse:
        """See the contract."""
        actor, retry = actor_from_proto(request.actor), retry_from_proto(request)
        execution, retried = await control.retry_execution(self._control, self._bus, actor, request.execution_id, retry)
        return pb.RetryExecutionResponse(execution=execution_to_proto(execution), retried=retried)

    async def DeleteExecution(self, request: pb.DeleteExecutionRequest, context: Context) -> pb.DeleteExecutionResponse:
        """See the contract."""
        actor = actor_from_proto(request.actor)
        await control.delete_execution(self._control, self._blobs, self._bus, actor, request.execution_id)
        return pb.DeleteExecutionResponse()

    async def ListResults(self, request: pb.ListResultsRequest, context: Context) -> pb.ListResultsResponse:
        """See the contract."""
        page = await self._executions.list_results(
            actor_from_proto(request.actor),
            request.execution_id,
            page_size(request.page_size),
            request.cursor,
            states_from_proto(list(request.states)),
        )
        shown = _fitting(result_to_proto(view) for view in page.items)
        if len(shown) == len(page.items):
            return pb.ListResultsResponse(results=shown, next_cursor=page.next_cursor)
        last = shown[-1]
        return pb.ListResultsResponse(results=shown, next_cursor=cursors.after_result(last.batch_index, last.variation))

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        """See the contract."""
        shown = await self._executions.get_result(actor_from_proto(request.actor), request.result_id)
        return pb.GetResultResponse(result=result_to_proto(shown))

    async def GetLatency(self, request: pb.GetLatencyRequest, context: Context) -> pb.GetLatencyResponse:
        """See the contract."""
        latency = await self._executions.latency(request.model)
        answer = pb.GetLatencyResponse(sample_count=latency.sample_count)
        answer.median.FromTimedelta(latency.median)
        answer.p95.FromTimedelta(latency.p95)
        return answer


def _fitting(messages: Iterable[M]) -> list[M]:
    """Return as many, from the first, as one answer holds: 400 results of long prompts are 16 MB."""
    taken: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize()
        if taken and size > _PAGE_BYTES:
            break
        taken.append(message)
    return taken
