"""An owner that comes back too late: it holds a lease, lets it run out, and writes once somebody else has it."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
import uuid
from collections.abc import Awaitable

import grpc
from google.protobuf.duration_pb2 import Duration

from nanobatch.gateway.v1 import execution_pb2, image_pb2
from nanobatch.storage.v1 import lease_service_pb2 as pb
from nanobatch.storage.v1.lease_service_pb2_grpc import LeaseServiceStub
from soak.stage import Stage

_BYTES = b"late"


async def late_writes(on: Stage) -> dict[str, bool]:
    """Lease a result in the place of a generator, wait until one has it, and try each write; says which were refused."""
    for one in on.generators:
        one.process.send_signal(signal.SIGSTOP)  # nobody else asks for work
    await on.create(1, words="{{latency:6}} a boat")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{on.storage_ports[0]}") as channel:
        stub = LeaseServiceStub(channel)
        lease = await _leased(stub)
        ref = pb.LeaseRef(result_id=lease.result_id, lease_id=lease.lease_id)
        start = pb.StartAttemptRequest(lease=ref, bucket_id=lease.bucket_id)
        started = await stub.StartAttempt(start, timeout=10)
        failed = pb.FailResultRequest(lease=ref, attempt_id=started.attempt_id, failure=_failure())
        on.note("blocked")
        for one in on.generators:
            one.process.send_signal(signal.SIGCONT)
        taken = f"select 1 from results where id = '{lease.result_id}' and lease_id <> '{lease.lease_id}'"
        await on.when(lambda: bool(on.rows(taken)), within=30)
        until = on.rows(f"select lease_expires_at from results where id = '{lease.result_id}'")
        refused = {
            "extend": bool((await stub.ExtendLeases(pb.ExtendLeasesRequest(leases=[ref]), timeout=10)).lost),
            "start": await _refused(stub.StartAttempt(start, timeout=10)),
            "end": await _refused(
                stub.EndCall(pb.EndCallRequest(lease=ref, attempt_id=started.attempt_id), timeout=10)
            ),
            "fail": await _refused(stub.FailResult(failed, timeout=10)),
            "complete": await _refused(_completed(stub, ref, started.attempt_id)),
        }
        await stub.ReleaseLeases(pb.ReleaseLeasesRequest(leases=[ref]), timeout=10)  # says nothing: it must do nothing
        after = on.rows(
            f"select state, lease_expires_at >= '{until[0][0]}' from results where id = '{lease.result_id}'"
        )
        refused["release"] = after == [("PROCESSING", True)]
    return refused


async def _leased(stub: LeaseServiceStub) -> pb.Lease:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        request = pb.LeaseResultsRequest(max_results=1, wait=Duration(seconds=1))
        answer = await stub.LeaseResults(request, timeout=10)
        if answer.leases:
            return answer.leases[0]
        await asyncio.sleep(0.1)
    raise TimeoutError("no lease for the ghost")


def _failure() -> pb.Failure:
    return pb.Failure(
        failure_class=pb.FAILURE_CLASS_TRANSIENT, code="LATE", message="too late", charged=execution_pb2.CHARGED_NO
    )


async def _completed(stub: LeaseServiceStub, ref: pb.LeaseRef, attempt_id: str) -> None:
    picture = pb.NewImage(
        id=str(uuid.uuid4()),
        kind=image_pb2.IMAGE_KIND_MASTER,
        mime_type="image/png",
        width=1,
        height=1,
        size_bytes=len(_BYTES),
        sha256=hashlib.sha256(_BYTES).hexdigest(),
    )
    header = pb.CompletionHeader(lease=ref, attempt_id=attempt_id, images=[picture])

    async def messages():
        yield pb.CompleteResultRequest(header=header)
        yield pb.CompleteResultRequest(chunk=_BYTES)

    await stub.CompleteResult(messages(), timeout=10)


async def _refused(pending: Awaitable[object]) -> bool:
    try:
        await pending
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.ABORTED
    return False
