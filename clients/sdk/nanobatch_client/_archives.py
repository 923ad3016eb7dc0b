"""An execution's pictures as one ZIP file, over the wire."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from nanobatch.gateway.v1 import image_service_pb2
from nanobatch_client._pictures import put, refuse_existing
from nanobatch_client._transport import Transport
from nanobatch_client.errors import DeadlineExceededError

if TYPE_CHECKING:  # this name stands in the stubs' types only
    from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceAsyncStub


async def pieces(
    transport: Transport, stub: ImageServiceAsyncStub, execution_id: str, result_ids: Sequence[str]
) -> AsyncGenerator[bytes, None]:
    """Yield the archive's bytes. The whole may take as long as it takes; each piece has the limit of one call."""
    limit = transport.patience.timeout.total_seconds()
    request = image_service_pb2.ExportExecutionRequest(execution_id=execution_id, result_ids=result_ids)
    call = stub.ExportExecution(request, metadata=transport.metadata)
    try:
        messages = aiter(call)
        while True:
            try:
                async with asyncio.timeout(limit):
                    message = await anext(messages, None)
            except TimeoutError:
                raise DeadlineExceededError(f"The archive did not go on for {limit:g} s.") from None
            if message is None:
                return
            transport.noted(None)
            yield message.chunk
    except grpc.aio.AioRpcError as error:
        raise transport.error(error) from None
    finally:
        call.cancel()


async def download(
    transport: Transport,
    stub: ImageServiceAsyncStub,
    execution_id: str,
    path: Path,
    *,
    result_ids: Sequence[str],
    overwrite: bool,
) -> None:
    """Bring the archive to ``path``, under a temporary name beside it until it is whole."""
    await refuse_existing(path, overwrite=overwrite)
    part = path.with_name(f".{secrets.token_hex(6)}.part")

    async def once() -> None:
        file = await asyncio.to_thread(part.open, "wb")
        try:
            async with aclosing(pieces(transport, stub, execution_id, result_ids)) as archive:
                async for piece in archive:
                    await asyncio.to_thread(file.write, piece)
        finally:
            file.close()

    try:
        await transport.repeat(once)
        await asyncio.to_thread(put, part, path, overwrite=overwrite)
    finally:
        part.unlink(missing_ok=True)
