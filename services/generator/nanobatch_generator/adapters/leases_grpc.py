"""Leases over storage's LeaseService: one adapter for the loop, one for the heartbeat's thread."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Sequence
from datetime import timedelta

import grpc
from pydantic import SecretStr

from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceStub
from nanobatch_generator.adapters.errors_grpc import answer, translated
from nanobatch_generator.domain import EndedCall, Failure, Lease, LeaseRef, WindowFullError
from nanobatch_generator.translate import (
    duration,
    failure_to_proto,
    lease_from_proto,
    ref_from_proto,
    ref_to_proto,
    state_name,
)
from nanobatch_runtime.errors import RemoteError
from nanobatch_runtime.rpc import options
from nanobatch_runtime.rpc.channel import UNARY_LIMIT
from nanobatch_runtime.rpc.service_token import NO_TOKEN, with_service_token

# For operators to read; the identity of work is its lease.
_NAME = f"{socket.gethostname()}/{os.getpid()}"
_LIMIT = UNARY_LIMIT.total_seconds()
# Told for the sake of pace alone: a finished picture must not wait for it.
_PACE_LIMIT = 2.0
# A long poll may be answered at its last moment: its deadline lies behind that, because an answer that comes after the
# deadline holds leases that nobody then knows of.
_POLL_MARGIN = 10.0


class GrpcLeases:
    """See :class:`nanobatch_generator.ports.LeaseSource`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """``channel`` belongs to the caller."""
        self._stub = LeaseServiceStub(channel)

    async def lease(self, max_results: int, wait: timedelta, max_suspects: int) -> list[Lease]:
        """See the port."""
        request = pb.LeaseResultsRequest(
            max_results=max_results, wait=duration(wait), max_suspects=max_suspects, generator=_NAME
        )
        response = await answer(self._stub.LeaseResults(request, timeout=wait.total_seconds() + _POLL_MARGIN))
        return [lease_from_proto(lease) for lease in response.leases]

    async def release(self, refs: Sequence[LeaseRef]) -> None:
        """See the port."""
        request = pb.ReleaseLeasesRequest(leases=[ref_to_proto(ref) for ref in refs])
        await answer(self._stub.ReleaseLeases(request, timeout=_LIMIT))

    async def start_attempt(self, lease: Lease, ended: EndedCall | None = None) -> str:
        """See the port."""
        request = pb.StartAttemptRequest(
            lease=ref_to_proto(lease.ref),
            bucket_id=lease.bucket_id,
            ended=_ended(ended) if ended is not None else None,
        )
        try:
            return (await answer(self._stub.StartAttempt(request, timeout=_LIMIT))).attempt_id
        except RemoteError as error:
            if error.reason == "WINDOW_FULL":
                raise WindowFullError(error.message, retry_after=error.retry_after) from error
            raise

    async def note_job(self, ref: LeaseRef, attempt_id: str, task_id: str) -> None:
        """See the port."""
        request = pb.NoteJobRequest(lease=ref_to_proto(ref), attempt_id=attempt_id, task_id=task_id)
        await answer(self._stub.NoteJob(request, timeout=_LIMIT))

    async def end_call(self, ended: EndedCall) -> None:
        """See the port."""
        await answer(self._stub.EndCall(_ended(ended), timeout=_PACE_LIMIT))

    async def fail(self, ref: LeaseRef, attempt_id: str, failure: Failure) -> str:
        """See the port."""
        request = pb.FailResultRequest(
            lease=ref_to_proto(ref), attempt_id=attempt_id, failure=failure_to_proto(failure)
        )
        return state_name((await answer(self._stub.FailResult(request, timeout=_LIMIT))).state)

    async def confirm_key(self, ref: LeaseRef, bucket_id: str) -> None:
        """See the port."""
        request = pb.ConfirmKeyRequest(lease=ref_to_proto(ref), bucket_id=bucket_id)
        await answer(self._stub.ConfirmKey(request, timeout=_LIMIT))


def _ended(ended: EndedCall) -> pb.EndCallRequest:
    return pb.EndCallRequest(lease=ref_to_proto(ended.ref), attempt_id=ended.attempt_id)


class GrpcLeaseExtender:
    """See :class:`nanobatch_generator.ports.LeaseExtender`; has a channel of its own, which it closes."""

    def __init__(self, target: str, service_token: SecretStr = NO_TOKEN) -> None:
        """Connect to ``target`` when first used; calls show the token."""
        # A subchannel pool of its own: sharing the loop's connection would let a stuck stream there hold up the heart.
        self._channel = grpc.insecure_channel(
            target, options=[*options.channel(target), ("grpc.use_local_subchannel_pool", 1)]
        )
        self._stub = LeaseServiceStub(with_service_token(self._channel, service_token))

    def extend(self, refs: Sequence[LeaseRef], timeout: timedelta) -> list[LeaseRef]:
        """See the port."""
        request = pb.ExtendLeasesRequest(leases=[ref_to_proto(ref) for ref in refs], generator=_NAME)
        with translated():
            response = self._stub.ExtendLeases(request, timeout=math.ceil(timeout.total_seconds() * 1000) / 1000)
        return [ref_from_proto(ref) for ref in response.lost]

    def close(self) -> None:
        """See the port."""
        self._channel.close()
