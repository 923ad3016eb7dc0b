"""One execution in memory."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from nanobatch.gateway.v1 import execution_pb2 as pb
from nanobatch.gateway.v1 import execution_service_pb2 as es

PAUSES = {
    "[invalid-key]": pb.PAUSE_REASON_INVALID_KEY,
    "[cap]": pb.PAUSE_REASON_SPEND_CAP,
    "[quota]": pb.PAUSE_REASON_DAILY_QUOTA,
    "[gone]": pb.PAUSE_REASON_MODEL_GONE,
}
FINAL = {pb.RESULT_STATE_COMPLETED, pb.RESULT_STATE_FAILED, pb.RESULT_STATE_CANCELLED}
_STATES = {
    pb.RESULT_STATE_PENDING: "pending",
    pb.RESULT_STATE_PROCESSING: "processing",
    pb.RESULT_STATE_COMPLETED: "completed",
    pb.RESULT_STATE_FAILED: "failed",
    pb.RESULT_STATE_CANCELLED: "cancelled",
}


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


def texts(request: es.CreateExecutionRequest) -> list[str]:
    """Return the prompts of a request, split in the simplest way."""
    if request.prompts:
        return [prompt.text for prompt in request.prompts]
    return [text.strip() for text in request.prompts_text.replace("\r\n", "\n").split("\n\n") if text.strip()]
