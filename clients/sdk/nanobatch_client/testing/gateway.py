# ruff: noqa: N802  # servicer methods are named by the contract
"""The scripted gateway: executions, and listening."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from nanobatch.gateway.v1 import execution_pb2 as pb
from nanobatch.gateway.v1 import execution_service_pb2 as es
from nanobatch.gateway.v1 import (
    execution_service_pb2_grpc,
    image_service_pb2_grpc,
    model_service_pb2_grpc,
)
from nanobatch_client.errors import Violation
from nanobatch_client.testing.pictures import Context, PicturesAndModels
from nanobatch_client.testing.runs import FINAL, PAUSES, Run, texts
from nanobatch_client.testing.statuses import make_status


class ScriptedGateway(PicturesAndModels, execution_service_pb2_grpc.ExecutionServiceServicer):
    """The gateway. Enter it to start it; ``target`` is where it listens.

    Attributes:
        calls: every call that arrived: method, request (the last message of an upload), metadata.
        failures: statuses that the next calls of a method end in, by method name.
        watch_breaks: for the next watches: after how many messages which status ends them.
        pictures: stored bytes by image id.
        hanging: methods that never answer.
        damage: image ids whose downloads arrive damaged.
        forgetful: watches replay everything, whatever revision they were asked to go on from.
        violations: what CreateExecution and EstimateCost refuse everything for.
    """

    def __init__(self) -> None:
        """Make an empty gateway."""
        super().__init__()
        self.watch_breaks: deque[tuple[int, status_pb2.Status]] = deque()
        self.runs: dict[str, Run] = {}
        self.forgetful = False
        self.violations: list[Violation] = []
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._released = asyncio.Event()
        self._players: list[asyncio.Task[None]] = []

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and stop playing."""
        await self.stop()
        for player in self._players:
            player.cancel()
        await asyncio.gather(*self._players, return_exceptions=True)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one; what is stored is still there."""
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server(self, self._server)
        image_service_pb2_grpc.add_ImageServiceServicer_to_server(self, self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Stop at once, as a killed process would; runs go on playing."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def release(self) -> None:
        """Let every ``[hold]`` go on."""
        self._released.set()

    async def _run(self, execution_id: str, context: Context[Any, Any]) -> Run:
        if execution_id not in self.runs:
            message = f"There is no execution {execution_id}."
            status = make_status("NOT_FOUND", message, reason="EXECUTION_NOT_FOUND")
            await context.abort_with_status(rpc_status.to_status(status))
        return self.runs[execution_id]

    async def _validate(self, context: Context[Any, Any]) -> None:
        if self.violations:
            status = make_status(
                "INVALID_ARGUMENT", "The request is wrong.", reason="INVALID_REQUEST", violations=self.violations
            )
            await context.abort_with_status(rpc_status.to_status(status))

    # ExecutionService

    async def CreateExecution(
        self, request: es.CreateExecutionRequest, context: Context[Any, Any]
    ) -> es.CreateExecutionResponse:
        """Store and play; the same ``request_id`` gives the same execution."""
        await self._arrive("CreateExecution", request, context)
        await self._validate(context)
        for run in self.runs.values():
            if run.execution.labels.get("request_id") == request.request_id:
                return es.CreateExecutionResponse(execution=run.execution)
        execution = pb.Execution(
            id=str(uuid.uuid4()), state=pb.EXECUTION_STATE_PENDING, model=request.model, labels=request.labels
        )
        execution.labels["request_id"] = request.request_id
        if request.HasField("max_cost_micros"):
            execution.max_cost_micros = request.max_cost_micros
        execution.create_time.GetCurrentTime()
        results = [
            pb.Result(
                id=str(uuid.uuid4()),
                execution_id=execution.id,
                batch_index=index,
                variation=variation,
                prompt_text=text,
                state=pb.RESULT_STATE_PENDING,
            )
            for index, text in enumerate(texts(request))
            for variation in range(max(1, request.variations))
        ]
        run = self.runs[execution.id] = Run(execution, results)
        run.touch(execution)
        for result in results:
            run.touch(result)
        self._players.append(asyncio.get_running_loop().create_task(self._play(run)))
        return es.CreateExecutionResponse(execution=execution)

    async def _play(self, run: Run) -> None:
        run.execution.state = pb.EXECUTION_STATE_PROCESSING
        run.touch(run.execution)
        for result in run.results:
            if result.state in FINAL:
                continue
            await asyncio.sleep(0)
            for word, reason in PAUSES.items():
                if word in result.prompt_text:
                    run.execution.state, run.execution.pause_reason = pb.EXECUTION_STATE_PAUSED, reason
                    run.touch(run.execution)
                    return
            result.state = pb.RESULT_STATE_PROCESSING
            run.touch(result)
            if "[hold]" in result.prompt_text:
                await self._released.wait()
            self._finish(run, result)
        if all(result.state in FINAL for result in run.results):
            done = any(result.state == pb.RESULT_STATE_COMPLETED for result in run.results)
            run.execution.state = pb.EXECUTION_STATE_COMPLETED if done else pb.EXECUTION_STATE_FAILED
            run.execution.end_time.GetCurrentTime()
            run.touch(run.execution)

    def _finish(self, run: Run, result: pb.Result) -> None:
        result.attempts += 1
        if "[fail]" in result.prompt_text:
            result.state = pb.RESULT_STATE_FAILED
            result.error.CopyFrom(
                pb.ResultError(code="CONTENT_BLOCKED", message="The provider declined it.", charged=pb.CHARGED_NO)
            )
        else:
            image = self.store(f"a picture of {result.prompt_text} {result.variation} {run.execution.id}".encode())
            result.image_id, result.mime_type, result.sha256 = image.id, image.mime_type, image.sha256
            result.width, result.height, result.cost_micros = image.width, image.height, self.price_micros
            result.state = pb.RESULT_STATE_COMPLETED
        run.touch(result)

    async def EstimateCost(
        self, request: es.EstimateCostRequest, context: Context[Any, Any]
    ) -> es.EstimateCostResponse:
        """Count prompts; the sandbox is free."""
        await self._arrive("EstimateCost", request, context)
        await self._validate(context)
        count = len(texts(request.execution)) * max(1, request.execution.variations)
        price = 0 if request.execution.model == "sandbox" else self.price_micros
        return es.EstimateCostResponse(total_micros=price * count, per_image_micros=price, image_count=count)

    async def GetExecution(
        self, request: es.GetExecutionRequest, context: Context[Any, Any]
    ) -> es.GetExecutionResponse:
        """Return one."""
        await self._arrive("GetExecution", request, context)
        return es.GetExecutionResponse(execution=(await self._run(request.execution_id, context)).execution)

    async def ListExecutions(
        self, request: es.ListExecutionsRequest, context: Context[Any, Any]
    ) -> es.ListExecutionsResponse:
        """Return pages, newest first."""
        await self._arrive("ListExecutions", request, context)
        newest = [run.execution for run in reversed(self.runs.values())]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 50)
        token = str(end) if end < len(newest) else ""
        return es.ListExecutionsResponse(executions=newest[start:end], next_page_token=token)

    async def WatchExecution(
        self, request: es.WatchExecutionRequest, context: Context[Any, Any]
    ) -> AsyncIterator[es.WatchExecutionResponse]:
        """Replay, then follow; end as ``watch_breaks`` says."""
        await self._arrive("WatchExecution", request, context)
        run = await self._run(request.execution_id, context)
        limit, status = self.watch_breaks.popleft() if self.watch_breaks else (-1, make_status("UNAVAILABLE"))
        last, sent = 0 if self.forgetful else request.after_revision, 0
        while True:
            changed = run.changed
            for message in run.messages(last):
                if sent == limit:
                    break
                yield message
                last, sent = message.revision, sent + 1
            if sent == limit:
                await context.abort_with_status(rpc_status.to_status(status))
            if run.ended and not run.messages(last):
                return
            await changed.wait()

    async def CancelExecution(
        self, request: es.CancelExecutionRequest, context: Context[Any, Any]
    ) -> es.CancelExecutionResponse:
        """Cancel what is pending; what is held runs to its end."""
        await self._arrive("CancelExecution", request, context)
        run = await self._run(request.execution_id, context)
        for result in run.results:
            if result.state == pb.RESULT_STATE_PENDING:
                result.state = pb.RESULT_STATE_CANCELLED
                run.touch(result)
        run.execution.state = pb.EXECUTION_STATE_CANCELLED
        run.touch(run.execution)
        return es.CancelExecutionResponse(execution=run.execution, in_flight=run.execution.stats.processing)

    async def PauseExecution(
        self, request: es.PauseExecutionRequest, context: Context[Any, Any]
    ) -> es.PauseExecutionResponse:
        """Say paused; the player does not heed it."""
        await self._arrive("PauseExecution", request, context)
        run = await self._run(request.execution_id, context)
        run.execution.state, run.execution.pause_reason = pb.EXECUTION_STATE_PAUSED, pb.PAUSE_REASON_USER
        run.touch(run.execution)
        return es.PauseExecutionResponse(execution=run.execution)

    async def ResumeExecution(
        self, request: es.ResumeExecutionRequest, context: Context[Any, Any]
    ) -> es.ResumeExecutionResponse:
        """Go on, without the words that paused it."""
        await self._arrive("ResumeExecution", request, context)
        run = await self._run(request.execution_id, context)
        for result in run.results:
            for word in PAUSES:
                result.prompt_text = result.prompt_text.replace(word, "")
        run.execution.pause_reason = pb.PAUSE_REASON_UNSPECIFIED
        self._players.append(asyncio.get_running_loop().create_task(self._play(run)))
        return es.ResumeExecutionResponse(execution=run.execution)

    async def RetryExecution(
        self, request: es.RetryExecutionRequest, context: Context[Any, Any]
    ) -> es.RetryExecutionResponse:
        """Play what failed again, this time without ``[fail]``."""
        await self._arrive("RetryExecution", request, context)
        run = await self._run(request.execution_id, context)
        again = [result for result in run.results if result.state == pb.RESULT_STATE_FAILED]
        for result in again:
            result.state = pb.RESULT_STATE_PENDING
            result.prompt_text = result.prompt_text.replace("[fail]", "")
            result.ClearField("error")
            run.touch(result)
        self._players.append(asyncio.get_running_loop().create_task(self._play(run)))
        return es.RetryExecutionResponse(execution=run.execution, retried=len(again))

    async def DeleteExecution(
        self, request: es.DeleteExecutionRequest, context: Context[Any, Any]
    ) -> es.DeleteExecutionResponse:
        """Forget it."""
        await self._arrive("DeleteExecution", request, context)
        await self._run(request.execution_id, context)
        del self.runs[request.execution_id]
        return es.DeleteExecutionResponse()

    async def ListResults(self, request: es.ListResultsRequest, context: Context[Any, Any]) -> es.ListResultsResponse:
        """Return pages by place."""
        await self._arrive("ListResults", request, context)
        run = await self._run(request.execution_id, context)
        rows = [row for row in run.results if not request.states or row.state in request.states]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 50)
        token = str(end) if end < len(rows) else ""
        return es.ListResultsResponse(results=rows[start:end], next_page_token=token)

    async def GetResult(self, request: es.GetResultRequest, context: Context[Any, Any]) -> es.GetResultResponse:
        """Return one."""
        await self._arrive("GetResult", request, context)
        for run in self.runs.values():
            for result in run.results:
                if result.id == request.result_id:
                    return es.GetResultResponse(result=result)
        status = make_status("NOT_FOUND", "There is no such result.", reason="RESULT_NOT_FOUND")
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort_with_status always raises")
