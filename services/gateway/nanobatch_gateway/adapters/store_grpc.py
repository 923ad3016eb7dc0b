"""Executions and results in storage, over gRPC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import grpc

from nanobatch.gateway.v1 import execution_pb2, execution_service_pb2
from nanobatch.storage.v1 import execution_service_pb2 as storage_pb2
from nanobatch.storage.v1 import execution_service_pb2_grpc
from nanobatch_gateway import translate
from nanobatch_gateway.adapters.calls import ask_storage, limit
from nanobatch_gateway.domain import Caller, Message, NewExecution, Page, PromptEdit, SealedKey, StoredExecution

_LATENCY_LIMIT = timedelta(seconds=2)
"""An estimate has a substitute for the history, so it does not wait long for it."""


class GrpcExecutions:
    """See :class:`nanobatch_gateway.ports.Executions` and :class:`nanobatch_gateway.ports.Latencies`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)

    async def create(self, caller: Caller, new: NewExecution) -> Message:
        """See :class:`nanobatch_gateway.ports.Executions`."""
        request = translate.create_request(caller, new)
        return (await ask_storage(self._stub.CreateExecution(request, timeout=limit()))).execution

    async def get(self, caller: Caller, execution_id: str) -> StoredExecution:
        """See :class:`nanobatch_gateway.ports.Executions`."""
        request = storage_pb2.GetExecutionRequest(actor=translate.actor(caller), execution_id=execution_id)
        return translate.stored_execution(await ask_storage(self._stub.GetExecution(request, timeout=limit())))

    async def list(self, caller: Caller, *, size: int, cursor: str) -> Page:
        """See :class:`nanobatch_gateway.ports.Executions`."""
        request = storage_pb2.ListExecutionsRequest(actor=translate.actor(caller), page_size=size, cursor=cursor)
        response = await ask_storage(self._stub.ListExecutions(request, timeout=limit()))
        return Page(response.executions, response.next_cursor)

    async def delete(self, caller: Caller, execution_id: str) -> None:
        """See :class:`nanobatch_gateway.ports.Executions`."""
        request = storage_pb2.DeleteExecutionRequest(actor=translate.actor(caller), execution_id=execution_id)
        await ask_storage(self._stub.DeleteExecution(request, timeout=limit()))

    async def median(self, model: str) -> timedelta | None:
        """See :class:`nanobatch_gateway.ports.Latencies`."""
        request = storage_pb2.GetLatencyRequest(model=model)
        response = await ask_storage(self._stub.GetLatency(request, timeout=limit(_LATENCY_LIMIT)))
        return response.median.ToTimedelta() if response.sample_count else None


class GrpcControls:
    """See :class:`nanobatch_gateway.ports.Controls`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)

    async def cancel(self, caller: Caller, execution_id: str) -> Message:
        """See :class:`nanobatch_gateway.ports.Controls`."""
        request = storage_pb2.CancelExecutionRequest(actor=translate.actor(caller), execution_id=execution_id)
        response = await ask_storage(self._stub.CancelExecution(request, timeout=limit()))
        return execution_service_pb2.CancelExecutionResponse(
            execution=response.execution,
            in_flight=response.in_flight,
            maybe_charged_micros=response.maybe_charged_micros,
        )

    async def pause(self, caller: Caller, execution_id: str) -> Message:
        """See :class:`nanobatch_gateway.ports.Controls`."""
        request = storage_pb2.PauseExecutionRequest(actor=translate.actor(caller), execution_id=execution_id)
        response = await ask_storage(self._stub.PauseExecution(request, timeout=limit()))
        return execution_service_pb2.PauseExecutionResponse(execution=response.execution)

    async def resume(
        self, caller: Caller, execution_id: str, *, key: SealedKey | None, max_cost_micros: int | None
    ) -> Message:
        """See :class:`nanobatch_gateway.ports.Controls`."""
        request = storage_pb2.ResumeExecutionRequest(
            actor=translate.actor(caller),
            execution_id=execution_id,
            credential=translate.new_credential(key),
            max_cost_micros=max_cost_micros,
        )
        response = await ask_storage(self._stub.ResumeExecution(request, timeout=limit()))
        return execution_service_pb2.ResumeExecutionResponse(execution=response.execution)

    async def retry(
        self,
        caller: Caller,
        execution_id: str,
        *,
        request_id: str,
        request_hash: str,
        result_ids: Sequence[str],
        edits: Sequence[PromptEdit],
        key: SealedKey | None,
    ) -> Message:
        """See :class:`nanobatch_gateway.ports.Controls`."""
        request = storage_pb2.RetryExecutionRequest(
            actor=translate.actor(caller),
            execution_id=execution_id,
            request_id=request_id,
            request_hash=request_hash,
            result_ids=result_ids,
            credential=translate.new_credential(key),
            edits=[execution_service_pb2.PromptEdit(result_id=edit.result_id, text=edit.text) for edit in edits],
        )
        response = await ask_storage(self._stub.RetryExecution(request, timeout=limit()))
        return execution_service_pb2.RetryExecutionResponse(execution=response.execution, retried=response.retried)


class GrpcResults:
    """See :class:`nanobatch_gateway.ports.Results`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = execution_service_pb2_grpc.ExecutionServiceStub(channel)

    async def get(self, caller: Caller, result_id: str) -> Message:
        """See :class:`nanobatch_gateway.ports.Results`."""
        request = storage_pb2.GetResultRequest(actor=translate.actor(caller), result_id=result_id)
        return (await ask_storage(self._stub.GetResult(request, timeout=limit()))).result

    async def list(self, caller: Caller, execution_id: str, *, states: Sequence[int], size: int, cursor: str) -> Page:
        """See :class:`nanobatch_gateway.ports.Results`."""
        request = storage_pb2.ListResultsRequest(
            actor=translate.actor(caller),
            execution_id=execution_id,
            page_size=size,
            cursor=cursor,
            states=[execution_pb2.ResultState.ValueType(state) for state in states],
        )
        response = await ask_storage(self._stub.ListResults(request, timeout=limit()))
        return Page(response.results, response.next_cursor)
