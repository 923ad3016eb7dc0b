# ruff: noqa: N802  # servicer methods are named by the contract
"""A small gateway for tests of what is built on the SDK: the real contract over a real port, everything in memory.

A run plays by itself. Words in a prompt say what happens to its pictures: ``[fail]`` fails, ``[hold]`` stays in
PROCESSING until :meth:`ScriptedGateway.release`, and ``[invalid-key]``, ``[cap]``, ``[quota]``, ``[gone]`` pause the
execution.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from nanobatch.gateway.v1 import execution_pb2 as pb
from nanobatch.gateway.v1 import execution_service_pb2 as es
from nanobatch.gateway.v1 import (
    execution_service_pb2_grpc,
    image_pb2,
    image_service_pb2_grpc,
    model_pb2,
    model_service_pb2_grpc,
)
from nanobatch.gateway.v1 import image_service_pb2 as im
from nanobatch.gateway.v1 import model_service_pb2 as ms
from nanobatch_client.errors import Violation

PAUSES = {
    "[invalid-key]": pb.PAUSE_REASON_INVALID_KEY,
    "[cap]": pb.PAUSE_REASON_SPEND_CAP,
    "[quota]": pb.PAUSE_REASON_DAILY_QUOTA,
    "[gone]": pb.PAUSE_REASON_MODEL_GONE,
}
_FINAL = {pb.RESULT_STATE_COMPLETED, pb.RESULT_STATE_FAILED, pb.RESULT_STATE_CANCELLED}
_STATES = {
    pb.RESULT_STATE_PENDING: "pending",
    pb.RESULT_STATE_PROCESSING: "processing",
    pb.RESULT_STATE_COMPLETED: "completed",
    pb.RESULT_STATE_FAILED: "failed",
    pb.RESULT_STATE_CANCELLED: "cancelled",
}

Context = grpc.aio.ServicerContext


def make_status(
    code: str,
    message: str = "as scripted",
    *,
    reason: str | None = None,
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[Violation] = (),
    retry_after: timedelta | None = None,
) -> status_pb2.Status:
    """Return a status as the gateway sends it; without ``reason`` there are no details, as from a proxy."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    details: list[Message] = []
    if reason is not None:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="nanobatch", metadata=metadata or {}))
    if violations:
        bad = error_details_pb2.BadRequest()
        for violation in violations:
            bad.field_violations.add(field=violation.field, description=violation.description, reason=violation.reason)
        details.append(bad)
    if retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(retry_after)
        details.append(retry)
    for detail in details:
        status.details.add().Pack(detail)
    return status


@dataclass
class Run:
    """One execution in memory; every change gets its own revision and wakes the watchers."""

    execution: pb.Execution
    results: list[pb.Result]
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def touch(self, row: pb.Execution | pb.Result) -> None:
        """Give a changed row the next revision, count anew, wake watchers."""
        self.execution.revision += 1
        row.revision = self.execution.revision
        counts: dict[str, int] = defaultdict(int)
        for result in self.results:
            counts[_STATES[result.state]] += 1
        final = counts["completed"] + counts["failed"] + counts["cancelled"]
        self.execution.stats.CopyFrom(
            pb.ExecutionStats(
                total=len(self.results),
                completion_percentage=final * 100 // len(self.results),
                total_cost_micros=sum(result.cost_micros for result in self.results),
                **counts,
            )
        )
        if isinstance(row, pb.Execution):
            self.own_revision = row.revision
        self.changed.set()
        self.changed = asyncio.Event()

    own_revision: int = 0
    """Revision of the execution's own last change."""

    @property
    def ended(self) -> bool:
        """Whether the execution is final."""
        return self.execution.state in {
            pb.EXECUTION_STATE_COMPLETED,
            pb.EXECUTION_STATE_FAILED,
            pb.EXECUTION_STATE_CANCELLED,
        }

    def messages(self, after: int) -> list[es.WatchExecutionResponse]:
        """Return what changed after a revision, ascending."""
        out = [
            es.WatchExecutionResponse(revision=result.revision, stats=self.execution.stats, result=result)
            for result in self.results
            if result.revision > after
        ]
        if self.own_revision > after:
            own = es.WatchExecutionResponse(revision=self.own_revision, stats=self.execution.stats)
            own.execution.CopyFrom(self.execution)
            out.append(own)
        return sorted(out, key=lambda message: message.revision)


class ScriptedGateway(
    execution_service_pb2_grpc.ExecutionServiceServicer,
    image_service_pb2_grpc.ImageServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """The gateway. Enter it to start it; ``target`` is where it listens.

    Attributes:
        calls: every call that arrived: method, request (the last message of an upload), metadata.
        failures: statuses that the next calls of a method end in, by method name.
        watch_breaks: for the next watches: after how many messages which status ends them.
        pictures: stored bytes by image id.
        hanging: methods that never answer.
        damage: image ids whose downloads arrive damaged.
        violations: what CreateExecution and EstimateCost refuse everything for.
    """

    def __init__(self) -> None:
        """Make an empty gateway."""
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.failures: dict[str, deque[status_pb2.Status]] = defaultdict(deque)
        self.watch_breaks: deque[tuple[int, status_pb2.Status]] = deque()
        self.runs: dict[str, Run] = {}
        self.pictures: dict[str, bytes] = {}
        self.damage: set[str] = set()
        self.hanging: set[str] = set()
        self.violations: list[Violation] = []
        self.price_micros = 39_000
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

    def count(self, method: str) -> int:
        """How often a method was called."""
        return sum(1 for name, _, _ in self.calls if name == method)

    async def _arrive(self, method: str, request: Any, context: Context[Any, Any]) -> None:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        self.calls.append((method, request, metadata))
        if method in self.hanging:
            await asyncio.Event().wait()
        if self.failures[method]:
            await context.abort_with_status(rpc_status.to_status(self.failures[method].popleft()))

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
            for index, text in enumerate(_texts(request))
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
            if result.state in _FINAL:
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
        if all(result.state in _FINAL for result in run.results):
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
        count = len(_texts(request.execution)) * max(1, request.execution.variations)
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
        last, sent = request.after_revision, 0
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

    # ImageService

    def store(self, data: bytes) -> image_pb2.Image:
        """Keep bytes as a picture; nothing looks into them."""
        image_id = str(uuid.uuid4())
        self.pictures[image_id] = data
        return self._describe(image_id)

    def _describe(self, image_id: str) -> image_pb2.Image:
        data = self.pictures[image_id]
        return image_pb2.Image(
            id=image_id,
            kind=image_pb2.IMAGE_KIND_MASTER,
            mime_type="image/png",
            width=64,
            height=64,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )

    async def UploadImage(
        self, request_iterator: AsyncIterator[im.UploadImageRequest], context: Context[Any, Any]
    ) -> im.UploadImageResponse:
        """Keep what arrives."""
        data, messages = bytearray(), []
        async for message in request_iterator:
            messages.append(message)
            data += message.chunk
        await self._arrive("UploadImage", messages, context)
        return im.UploadImageResponse(image=self.store(bytes(data)))

    async def GetImage(self, request: im.GetImageRequest, context: Context[Any, Any]) -> im.GetImageResponse:
        """Describe one."""
        await self._arrive("GetImage", request, context)
        return im.GetImageResponse(image=self._describe(request.image_id))

    async def DownloadImage(
        self, request: im.DownloadImageRequest, context: Context[Any, Any]
    ) -> AsyncIterator[im.DownloadImageResponse]:
        """Send one, damaged where told so."""
        await self._arrive("DownloadImage", request, context)
        data = self.pictures[request.image_id]
        yield im.DownloadImageResponse(image=self._describe(request.image_id))
        if request.image_id in self.damage:
            data = data[:-1] + bytes([data[-1] ^ 1])
        for start in range(0, len(data), 256 * 1024):
            yield im.DownloadImageResponse(chunk=data[start : start + 256 * 1024])

    # ModelService

    async def ListModels(self, request: ms.ListModelsRequest, context: Context[Any, Any]) -> ms.ListModelsResponse:
        """Two models."""
        await self._arrive("ListModels", request, context)
        gemini = model_pb2.Model(
            id="gemini-2.5-flash-image",
            provider="gemini",
            display_name="Nano Banana",
            prices=[model_pb2.ImagePrice(micros=self.price_micros)],
            max_reference_images=3,
            needs_key=True,
            warnings=["gemini-2.5-flash-image retires some day"],
        )
        sandbox = model_pb2.Model(id="sandbox", provider="sandbox", prices=[model_pb2.ImagePrice()])
        return ms.ListModelsResponse(models=[gemini, sandbox])

    async def CheckApiKey(self, request: ms.CheckApiKeyRequest, context: Context[Any, Any]) -> ms.CheckApiKeyResponse:
        """Take every key but ``bad``."""
        await self._arrive("CheckApiKey", request, context)
        valid = request.api_key != "bad"
        return ms.CheckApiKeyResponse(
            valid=valid, model_available=True, message="" if valid else "The provider does not take this key."
        )


def _texts(request: es.CreateExecutionRequest) -> list[str]:
    if request.prompts:
        return [prompt.text for prompt in request.prompts]
    return [text.strip() for text in request.prompts_text.replace("\r\n", "\n").split("\n\n") if text.strip()]
