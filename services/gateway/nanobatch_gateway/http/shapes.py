"""The JSON of the REST calls, as models (for the OpenAPI page) and out of the public messages.

Money is in US dollars here: totals are rounded to cents, the cost of a picture to a tenth of one. gRPC has exact micros.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from nanobatch.gateway.v1 import execution_pb2
from nanobatch_catalog import find_model, list_price_micros

T = TypeVar("T", bound=BaseModel)

_ID = "6f1c1f7e-3a2b-4c8d-9e0f-5a6b7c8d9e0f"
_EXECUTION_STATES = {
    value: name.removeprefix("EXECUTION_STATE_").lower() for name, value in execution_pb2.ExecutionState.items()
}
_RESULT_STATES = {
    value: name.removeprefix("RESULT_STATE_").lower() for name, value in execution_pb2.ResultState.items()
}
_FINAL = frozenset(
    {execution_pb2.RESULT_STATE_COMPLETED, execution_pb2.RESULT_STATE_FAILED, execution_pb2.RESULT_STATE_CANCELLED}
)
_PAUSE_REASONS = {value: name.removeprefix("PAUSE_REASON_") for name, value in execution_pb2.PauseReason.items()}
_CHARGED = {value: name.removeprefix("CHARGED_") for name, value in execution_pb2.Charged.items()}
_WAIT_REASONS = {value: name.removeprefix("WAIT_REASON_") for name, value in execution_pb2.WaitReason.items()}


class _Shape(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)


class FieldError(_Shape):
    """One bad field."""

    field: str = Field(examples=["prompts_text"])
    message: str = Field(examples=["There are 0 prompts; 1 to 100 are taken."])
    reason: str = Field(examples=["REQUIRED"])


class Error(_Shape):
    """What went wrong: a stable code, a sentence for people, every bad field at once."""

    code: str = Field(examples=["INVALID_REQUEST"])
    message: str = Field(examples=["prompts_text: There are 0 prompts; 1 to 100 are taken."])
    fields: list[FieldError]


class Failure(_Shape):
    """The body of every error."""

    success: bool = Field(default=False, examples=[False])
    error: Error


class Success(_Shape, Generic[T]):
    """The body of every answer."""

    success: bool = Field(default=True, examples=[True])
    data: T


class SuccessList(_Shape, Generic[T]):
    """The body of every answer that is a list."""

    success: bool = Field(default=True, examples=[True])
    data: list[T]


class EstimatedCost(_Shape):
    """List price, US dollars; the total rounded to cents."""

    total_cost: float = Field(serialization_alias="totalCost", examples=[0.08])
    cost_per_image: float = Field(serialization_alias="costPerImage", examples=[0.039])
    image_count: int = Field(serialization_alias="imageCount", examples=[2])


class Accepted(_Shape):
    """An execution that was accepted; a repeat under the same Idempotency-Key finds it as it is now."""

    execution_id: str = Field(examples=[_ID])
    workflow_id: str = Field(examples=[_ID])
    status: str = Field(examples=["pending"])
    total_prompts: int = Field(examples=[2])
    estimated_cost: EstimatedCost


class Stats(_Shape):
    """Counts in pictures; ``pending`` is what waits and what is being made. Money in US dollars, rounded to cents."""

    total_prompts: int = Field(examples=[10])
    successful: int = Field(examples=[7])
    failed: int = Field(examples=[1])
    pending: int = Field(examples=[2])
    completion_percentage: int = Field(examples=[80])
    total_cost: float = Field(examples=[0.27])


class ExecutionView(_Shape):
    """Where an execution is."""

    id: str = Field(examples=[_ID])
    status: str = Field(
        description="pending, processing, paused, completed, failed or cancelled", examples=["processing"]
    )
    stats: Stats


class ResultFailure(_Shape):
    """Why there is no picture: a stable code, a sentence, whether it was charged (NO, YES, MAYBE)."""

    code: str = Field(examples=["CONTENT_BLOCKED"])
    message: str = Field(examples=["The provider withheld the picture."])
    charged: str = Field(examples=["NO"])
    retryable: bool = Field(examples=[False])


class ResultView(_Shape):
    """One wanted picture."""

    id: str = Field(examples=[_ID])
    batch_index: int = Field(description="place of its prompt, from 0", examples=[0])
    prompt_text: str = Field(examples=["a red boat"])
    status: str = Field(description="pending, processing, completed, failed or cancelled", examples=["completed"])
    result_url: str | None = Field(description="signed address of the picture, good for one to two days")
    processing_time_ms: int | None = Field(examples=[3533])
    api_cost: float = Field(description="US dollars, to a tenth of a cent", examples=[0.039])


class FailedResultView(ResultView):
    """A result that was given up."""

    error: ResultFailure


class QueuedTask(_Shape):
    """A picture that was taken in to be changed, and the task that does it: an execution of one picture."""

    image_id: str = Field(serialization_alias="imageId", description="the picture that was sent", examples=[_ID])
    task_id: str = Field(serialization_alias="taskId", description="the execution", examples=[_ID])
    status: str = Field(examples=["pending"])
    estimated_cost: EstimatedCost


class TaskView(_Shape):
    """Where a task is. ``result_url`` is there once it has completed, ``error`` once it was given up."""

    image_id: str = Field(serialization_alias="imageId", examples=[_ID])
    task_id: str = Field(serialization_alias="taskId", examples=[_ID])
    status: str = Field(
        description="pending, processing, paused, completed, failed or cancelled", examples=["completed"]
    )
    result_url: str | None = Field(description="signed address of the picture, good for one to two days")
    processing_time_ms: int | None = Field(examples=[3533])
    api_cost: float = Field(description="US dollars, to a tenth of a cent", examples=[0.039])
    error: ResultFailure | None


def queued_task(execution: execution_pb2.Execution, image_id: str) -> QueuedTask:
    """Return the answer to a task's creation."""
    taken = accepted(execution)
    return QueuedTask(image_id=image_id, task_id=execution.id, status=taken.status, estimated_cost=taken.estimated_cost)


def task_view(execution: execution_pb2.Execution, result: execution_pb2.Result) -> TaskView:
    """Return a task as it is: the state of its picture, or of its execution where that is paused."""
    view = result_view(result)
    paused = execution.state == execution_pb2.EXECUTION_STATE_PAUSED and result.state not in _FINAL
    return TaskView(
        image_id=result.source_image_id,
        task_id=execution.id,
        status=_EXECUTION_STATES[execution.state] if paused else view.status,
        result_url=view.result_url,
        processing_time_ms=view.processing_time_ms,
        api_cost=view.api_cost,
        error=view.error if isinstance(view, FailedResultView) else None,
    )


def accepted(execution: execution_pb2.Execution) -> Accepted:
    """Return the answer to a creation."""
    total, model = execution.stats.total, find_model(execution.model)
    per_image = list_price_micros(model, execution.settings.output.image_size) if model else 0
    return Accepted(
        execution_id=execution.id,
        workflow_id=execution.workflow_id,
        status=_EXECUTION_STATES[execution.state],
        total_prompts=total,
        estimated_cost=EstimatedCost(
            total_cost=cents(execution.estimated_cost_micros), cost_per_image=per_image / 1_000_000, image_count=total
        ),
    )


def execution_view(execution: execution_pb2.Execution) -> ExecutionView:
    """Return an execution as GET shows it."""
    return ExecutionView(id=execution.id, status=_EXECUTION_STATES[execution.state], stats=stats_view(execution.stats))


def stats_view(stats: execution_pb2.ExecutionStats) -> Stats:
    """Return counts and money as REST shows them."""
    return Stats(
        total_prompts=stats.total,
        successful=stats.completed,
        failed=stats.failed,
        pending=stats.pending + stats.processing,
        completion_percentage=stats.completion_percentage,
        total_cost=cents(stats.total_cost_micros),
    )


def result_view(result: execution_pb2.Result) -> ResultView:
    """Return a result as the list shows it."""
    view = ResultView(
        id=result.id,
        batch_index=result.batch_index,
        prompt_text=result.prompt_text,
        status=_RESULT_STATES[result.state],
        result_url=result.image_url or None,
        processing_time_ms=result.processing_time.ToMilliseconds() if result.HasField("processing_time") else None,
        api_cost=(result.cost_micros + 500) // 1_000 / 1_000,
    )
    if result.state != execution_pb2.RESULT_STATE_FAILED:
        return view
    error = result.error
    failure = ResultFailure(
        code=error.code, message=error.message, charged=_CHARGED[error.charged], retryable=error.retryable
    )
    return FailedResultView(**view.model_dump(), error=failure)


def cents(micros: int) -> float:
    """Return US dollars, rounded to cents, half a cent up."""
    return (micros + 5_000) // 10_000 / 100


def pause_reason(execution: execution_pb2.Execution) -> str | None:
    """Return why an execution is paused, or None."""
    return _PAUSE_REASONS[execution.pause_reason] if execution.pause_reason else None


def wait_reason(waiting: execution_pb2.Waiting) -> str:
    """Return why something waits."""
    return _WAIT_REASONS[waiting.reason]
