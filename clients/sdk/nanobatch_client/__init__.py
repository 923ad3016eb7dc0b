"""The Python SDK of nanobatch: prompts in, pictures out.

>>> async with Client() as client:
...     execution = await client.create_execution(prompts=["a fox in the snow"], model="sandbox")
...     async for update in client.watch(execution.id):
...         print(update.stats.completion_percentage)

Models and errors are light. :class:`Client` is loaded when first named, because gRPC is not: the command line must be
able to print its help without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanobatch_client.errors import (
    AbortedError,
    ConflictError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    IntegrityError,
    InternalError,
    InvalidRequestError,
    NanobatchError,
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
    UnsupportedError,
    Violation,
)
from nanobatch_client.models import (
    Account,
    Cancellation,
    Charged,
    CoolingKey,
    CreatedToken,
    Estimate,
    Execution,
    ExecutionMode,
    ExecutionPage,
    ExecutionState,
    ExecutionUpdate,
    Image,
    ImageKind,
    ImagePrice,
    KeyCheck,
    Model,
    Patience,
    PauseReason,
    Progress,
    ProgressUpdate,
    Prompt,
    Result,
    ResultError,
    ResultState,
    ResultUpdate,
    Retry,
    Role,
    RunOptions,
    ServerStats,
    Settings,
    Stats,
    TaskOut,
    Token,
    UnknownPolicy,
    Update,
    Usage,
    UsageGrouping,
    UsageReport,
    UsageRow,
    User,
    Waiting,
    WaitReason,
)
from nanobatch_client.prompts import split_prompts

if TYPE_CHECKING:
    from nanobatch_client.client import Client

__all__ = [
    "AbortedError",
    "Account",
    "Cancellation",
    "Charged",
    "Client",
    "ConflictError",
    "CoolingKey",
    "CreatedToken",
    "DataLossError",
    "DeadlineExceededError",
    "Estimate",
    "Execution",
    "ExecutionMode",
    "ExecutionPage",
    "ExecutionState",
    "ExecutionUpdate",
    "FailedPreconditionError",
    "Image",
    "ImageKind",
    "ImagePrice",
    "IntegrityError",
    "InternalError",
    "InvalidRequestError",
    "KeyCheck",
    "Model",
    "NanobatchError",
    "NotFoundError",
    "OutOfRangeError",
    "Patience",
    "PauseReason",
    "PermissionDeniedError",
    "Progress",
    "ProgressUpdate",
    "Prompt",
    "RateLimitedError",
    "Result",
    "ResultError",
    "ResultState",
    "ResultUpdate",
    "Retry",
    "Role",
    "RunOptions",
    "ServerStats",
    "Settings",
    "Stats",
    "TaskOut",
    "Token",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownPolicy",
    "UnreachableError",
    "UnsupportedError",
    "Update",
    "Usage",
    "UsageGrouping",
    "UsageReport",
    "UsageRow",
    "User",
    "Violation",
    "WaitReason",
    "Waiting",
    "split_prompts",
]


def __getattr__(name: str) -> Any:
    """Load :class:`Client` when it is first named (PEP 562)."""
    if name == "Client":
        from nanobatch_client.client import Client  # noqa: PLC0415  # gRPC is loaded only by those who call

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
