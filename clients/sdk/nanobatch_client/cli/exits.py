"""The exit codes, and what leads to which."""

from __future__ import annotations

from enum import IntEnum

from nanobatch_client.errors import (
    InvalidRequestError,
    NanobatchError,
    OutOfRangeError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from nanobatch_client.models import Execution, ExecutionState, PauseReason

KEY_NEEDED = "KEY_NEEDED"


class ExitCode(IntEnum):
    """What the command ends with; documented, and meant for scripts."""

    OK = 0
    ERROR = 1
    """Anything else, no server among it."""
    USAGE = 2
    """Wrong options, or a request that the server refuses as invalid."""
    SOME_FAILED = 3
    """The run ended, and at least one picture is not there (failed or cancelled)."""
    KEY = 4
    """The provider key or the server's token is missing or refused."""
    PAUSED = 5
    """The run stands still: spend cap, quota of the day, model gone."""
    INTERRUPTED = 130
    """Ctrl-C; the run goes on without us."""


def of_error(error: NanobatchError) -> ExitCode:
    """Return the exit code for a call that failed."""
    if isinstance(error, UnauthenticatedError | PermissionDeniedError) or error.reason == KEY_NEEDED:
        return ExitCode.KEY
    if isinstance(error, InvalidRequestError | OutOfRangeError):
        # A request whose only fault is its key is a matter of keys, for whatever script looks at the code.
        only_key = error.violations and all(v.field.split(".")[-1] == "api_key" for v in error.violations)
        return ExitCode.KEY if only_key else ExitCode.USAGE
    return ExitCode.ERROR


def of_run(execution: Execution) -> ExitCode:
    """Return the exit code for where a run stands; one that is still under way is OK."""
    if execution.state is ExecutionState.PAUSED and execution.pause_reason is not PauseReason.USER:
        return ExitCode.KEY if execution.pause_reason is PauseReason.INVALID_KEY else ExitCode.PAUSED
    if execution.state is ExecutionState.FAILED or (
        execution.state.is_final and (execution.stats.failed or execution.stats.cancelled)
    ):
        return ExitCode.SOME_FAILED
    return ExitCode.OK
