"""LeaseService: the queue's door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from nanobatch.gateway.v1 import execution_pb2
from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1 import lease_service_pb2_grpc
from nanobatch_runtime.bus import Bus
from nanobatch_runtime.errors import InvalidArgumentError
from nanobatch_storage import finish, lease
from nanobatch_storage.domain import Completion, EndedCall
from nanobatch_storage.ports import Blobs
from nanobatch_storage.ports_queue import Leases, Ledger
from nanobatch_storage.stats import SeenGenerators
from nanobatch_storage.translate_leases import (
    failure_from_proto,
    lease_to_proto,
    picture_from_proto,
    ref_from_proto,
    ref_to_proto,
    usage_from_proto,
)

MAX_TASK_ID = 255

Context = grpc.aio.ServicerContext[Any, Any]


class LeaseServicer(lease_service_pb2_grpc.LeaseServiceServicer):
    """Translates, calls one use case, translates back."""

    def __init__(
        self,
        leases: Leases,
        ledger: Ledger,
        blobs: Blobs,
        *,
        bus: Bus,
        draining: asyncio.Event,
        generators: SeenGenerators,
    ) -> None:
        """Take what the use cases need; ``generators`` is told of who calls."""
        self._generators = generators
        self._draining = draining
        self._leases = leases
        self._ledger = ledger
        self._blobs = blobs
        self._bus = bus

    async def LeaseResults(self, request: pb.LeaseResultsRequest, context: Context) -> pb.LeaseResultsResponse:
        """See the contract."""
        self._generators.note(request.generator)
        wait = request.wait.ToTimedelta()
        found = await lease.lease_results(
            self._leases, self._bus, self._draining, request.max_results, wait, suspects=request.max_suspects
        )
        return pb.LeaseResultsResponse(leases=[lease_to_proto(one) for one in found])

    async def ExtendLeases(self, request: pb.ExtendLeasesRequest, context: Context) -> pb.ExtendLeasesResponse:
        """See the contract."""
        self._generators.note(request.generator)
        lost = await self._leases.extend([ref_from_proto(ref) for ref in request.leases])
        return pb.ExtendLeasesResponse(lost=[ref_to_proto(ref) for ref in lost])

    async def ReleaseLeases(self, request: pb.ReleaseLeasesRequest, context: Context) -> pb.ReleaseLeasesResponse:
        """See the contract."""
        await lease.release_leases(self._ledger, self._bus, [ref_from_proto(ref) for ref in request.leases])
        return pb.ReleaseLeasesResponse()

    async def StartAttempt(self, request: pb.StartAttemptRequest, context: Context) -> pb.StartAttemptResponse:
        """See the contract."""
        ended = None
        if request.HasField("ended"):
            ended = EndedCall(ref_from_proto(request.ended.lease), request.ended.attempt_id)
        lease_ref = ref_from_proto(request.lease)
        attempt_id = await finish.start(self._ledger, self._bus, lease_ref, request.bucket_id, ended)
        return pb.StartAttemptResponse(attempt_id=attempt_id)

    async def NoteJob(self, request: pb.NoteJobRequest, context: Context) -> pb.NoteJobResponse:
        """See the contract."""
        if not 0 < len(request.task_id) <= MAX_TASK_ID:
            raise InvalidArgumentError(f"A task id has 1 to {MAX_TASK_ID} characters.")
        await self._ledger.note_job(ref_from_proto(request.lease), request.attempt_id, request.task_id)
        return pb.NoteJobResponse()

    async def EndCall(self, request: pb.EndCallRequest, context: Context) -> pb.EndCallResponse:
        """See the contract."""
        await finish.end_call(self._ledger, self._bus, ref_from_proto(request.lease), request.attempt_id)
        return pb.EndCallResponse()

    async def CompleteResult(
        self, request_iterator: AsyncIterator[pb.CompleteResultRequest], context: Context
    ) -> pb.CompleteResultResponse:
        """See the contract."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("data") != "header":
            raise InvalidArgumentError("The first message of a completion is its header.")
        header = first.header
        completion = Completion(
            lease=ref_from_proto(header.lease),
            attempt_id=header.attempt_id,
            pictures=tuple(picture_from_proto(image) for image in header.images),
            usage=usage_from_proto(header.usage),
            processing=header.processing_time.ToTimedelta(),
            provider_response_id=header.provider_response_id,
        )
        chunks = (message.chunk async for message in request_iterator)
        state = await finish.complete(self._ledger, self._blobs, self._bus, completion, chunks)
        return pb.CompleteResultResponse(state=execution_pb2.ResultState.Value(f"RESULT_STATE_{state}"))

    async def FailResult(self, request: pb.FailResultRequest, context: Context) -> pb.FailResultResponse:
        """See the contract."""
        failure = failure_from_proto(request.failure)
        state = await finish.fail(
            self._ledger, self._bus, ref_from_proto(request.lease), request.attempt_id or None, failure
        )
        return pb.FailResultResponse(state=execution_pb2.ResultState.Value(f"RESULT_STATE_{state}"))

    async def ConfirmKey(self, request: pb.ConfirmKeyRequest, context: Context) -> pb.ConfirmKeyResponse:
        """See the contract."""
        await self._ledger.confirm_key(request.bucket_id)
        await lease.announce(self._bus, [])
        return pb.ConfirmKeyResponse()
