"""The shapes of what ``--json`` writes."""

from __future__ import annotations

from typing import Any

from nanobatch_client.cli.follow import Outcome
from nanobatch_client.cli.output import jsonable
from nanobatch_client.models import Execution, ExecutionUpdate, Progress, Result, ResultUpdate, Stats, Update


def of_execution(execution: Execution) -> dict[str, Any]:
    """``execution`` alone."""
    return {"execution": jsonable(execution)}


def of_outcome(outcome: Outcome) -> dict[str, Any]:
    """``execution``, ``stats``, ``results`` with their file names, ``manifest``."""
    results = [{**jsonable(result), "file": outcome.files.get(result.id)} for result in outcome.results]
    return {
        "execution": jsonable(outcome.execution),
        "stats": jsonable(outcome.execution.stats),
        "results": results,
        "manifest": str(outcome.manifest) if outcome.manifest else None,
        "exit_code": int(outcome.exit_code),
    }


def of_update(update: Update) -> dict[str, Any]:
    """One event of a watch: ``type`` is execution, result or progress."""

    def event(kind: str, body: Execution | Result | Progress, stats: Stats) -> dict[str, Any]:
        return {"type": kind, "revision": update.revision, kind: jsonable(body), "stats": jsonable(stats)}

    if isinstance(update, ExecutionUpdate):
        return event("execution", update.execution, update.stats)
    if isinstance(update, ResultUpdate):
        return event("result", update.result, update.stats)
    return event("progress", update.progress, update.stats)
