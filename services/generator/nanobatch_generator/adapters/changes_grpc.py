"""Executions over storage's ExecutionService."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from nanobatch.storage.v1 import execution_service_pb2 as pb
from nanobatch.storage.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch_generator.domain import Latency, Update, Viewer
from nanobatch_generator.translate import latency_from_proto, update_from_proto, viewer_to_proto
from nanobatch_runtime.rpc.channel import call, limit, stream

# One subscription serves watchers of several users; each of them is checked on its own before it joins.
_SYSTEM = Viewer("system", admin=True)
# Even a stream has a deadline; the hub subscribes again from where it was.
_STREAM_SECONDS = 3600.0


class GrpcChanges:
    """See :class:`nanobatch_generator.ports.Changes`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """``channel`` belongs to the caller."""
        self._stub = ExecutionServiceStub(channel)

    async def revision(self, viewer: Viewer, execution_id: str) -> int:
        """See the port."""
        request = pb.GetExecutionRequest(actor=viewer_to_proto(viewer), execution_id=execution_id)
        response = await call(self._stub.GetExecution(request, timeout=limit()))
        return response.execution.revision

    async def follow(self, execution_id: str, after_revision: int) -> AsyncGenerator[Update]:
        """See the port."""
        request = pb.WatchChangesRequest(
            actor=viewer_to_proto(_SYSTEM), execution_id=execution_id, after_revision=after_revision
        )
        changes = self._stub.WatchChanges(request, timeout=_STREAM_SECONDS)
        try:
            async for message in stream(changes):
                yield update_from_proto(message)
        finally:
            changes.cancel()  # at once, and not when the garbage is collected

    async def latency(self, model: str) -> Latency:
        """See the port."""
        return latency_from_proto(await call(self._stub.GetLatency(pb.GetLatencyRequest(model=model), timeout=limit())))
