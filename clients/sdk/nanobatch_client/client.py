"""The client: one method per call of the public contract, in Python's own types."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, Unpack

import grpc

from nanobatch.gateway.v1 import execution_service_pb2 as pb
from nanobatch.gateway.v1 import image_service_pb2, model_service_pb2
from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceStub
from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceStub
from nanobatch.gateway.v1.model_service_pb2_grpc import ModelServiceStub
from nanobatch_client import _archives, _numbers, _pictures, _translate
from nanobatch_client._accounts import AccountCalls
from nanobatch_client._pictures import PictureSource
from nanobatch_client._transport import Transport
from nanobatch_client._usage import UsageCalls
from nanobatch_client._watch import watch
from nanobatch_client.models import (
    Cancellation,
    Estimate,
    Execution,
    ExecutionPage,
    Image,
    ImageKind,
    KeyCheck,
    Model,
    Patience,
    Prompt,
    Result,
    ResultState,
    Retry,
    RunOptions,
    Update,
)

if TYPE_CHECKING:  # these names stand in the stubs' types only
    from nanobatch.gateway.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub
    from nanobatch.gateway.v1.image_service_pb2_grpc import ImageServiceAsyncStub
    from nanobatch.gateway.v1.model_service_pb2_grpc import ModelServiceAsyncStub

DEFAULT_TARGET = "127.0.0.1:50051"

Reference: TypeAlias = "PictureSource | Image"
"""A picture to be uploaded, one that is stored already, or the id (a UUID) of such a one."""

# 50 prompts of 10,000 characters of four bytes are 2 MB: a page stays below gRPC's 4 MiB whatever is in it.
_PAGE = 50


class Client(AccountCalls, UsageCalls):
    """A connection to one gateway, to be entered before use and left after it.

    Reads, and creations (which carry a ``request_id``), are tried again while the server is unavailable; nothing else
    is. Every unary call has a time limit. All failures are :class:`~nanobatch_client.errors.NanobatchError`.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Make a client; it connects when first used.

        Args:
            target: ``host:port``, ``dns:///host:port``, ``ipv4:1.2.3.4:50051,1.2.3.5:50051`` or ``unix:/path``. Of several
                gateways those that answer are used in turn, and a watch goes on at another one when its own is gone.
                ``https://host[:port]`` is TLS, at port 443 where none is said.
            token: bearer token, where the gateway asks for one. Over anything but loopback use TLS.
            credentials: TLS credentials, like ``grpc.ssl_channel_credentials(root_certificates=...)``; none: plain text,
                or for ``https://`` the authorities that gRPC trusts (``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names others).
            patience: how long things may take.
        """
        self.target = target
        self._token = token
        self._credentials = credentials
        self._patience = patience or Patience()
        self._open: Transport | None = None

    async def __aenter__(self) -> Self:
        """Open the channel."""
        self._open = Transport(self.target, token=self._token, credentials=self._credentials, patience=self._patience)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel; what is still out ends."""
        if self._open is not None:
            await self._open.close()
            self._open = None

    @property
    def _transport(self) -> Transport:
        if self._open is None:
            raise RuntimeError("Enter the client first: async with Client() as client: ...")
        return self._open

    @property
    def _executions(self) -> ExecutionServiceAsyncStub:
        return ExecutionServiceStub(self._transport.channel)

    @property
    def _images(self) -> ImageServiceAsyncStub:
        return ImageServiceStub(self._transport.channel)

    @property
    def _models(self) -> ModelServiceAsyncStub:
        return ModelServiceStub(self._transport.channel)

    # Executions

    async def create_execution(
        self,
        prompts: Sequence[str | Prompt] | None = None,
        *,
        prompts_text: str | None = None,
        model: str,
        api_key: str | None = None,
        references: Sequence[Reference] = (),
        request_id: str | None = None,
        **options: Unpack[RunOptions],
    ) -> Execution:
        """Start a run; the answer comes as soon as it is stored.

        Args:
            prompts: the prompts one by one, 1 to 100.
            prompts_text: instead of ``prompts``: one prompt per paragraph.
            model: a model's id, see :meth:`list_models`.
            api_key: the provider's key; needed for all models but the sandbox.
            references: reference pictures of all prompts, in order; what is not stored yet is uploaded first.
            request_id: a UUID that makes a repeat of this very call safe. Default: a new one.
            options: see :class:`~nanobatch_client.models.RunOptions`.

        Raises:
            InvalidRequestError: ``violations`` names every bad field; nothing was stored.
            ConflictError: the ``request_id`` was used with other content.
        """
        stored = [await self._reference_id(reference) for reference in references]
        request = _translate.create_request(prompts, prompts_text, model, stored, options)
        request.request_id = request_id or str(uuid.uuid4())
        if api_key is not None:
            request.api_key = api_key
        response = await self._transport.call(self._executions.CreateExecution, request, safe=True)
        return _translate.execution(response.execution)

    async def estimate_cost(
        self,
        prompts: Sequence[str | Prompt] | None = None,
        *,
        prompts_text: str | None = None,
        model: str,
        reference_image_ids: Sequence[str] = (),
        **options: Unpack[RunOptions],
    ) -> Estimate:
        """Say what a run would cost by the list price; same checks as :meth:`create_execution`, nothing is stored."""
        execution = _translate.create_request(prompts, prompts_text, model, reference_image_ids, options)
        request = pb.EstimateCostRequest(execution=execution)
        return _translate.estimate(await self._transport.call(self._executions.EstimateCost, request, safe=True))

    async def get_execution(self, execution_id: str) -> Execution:
        """Return an execution as it is now."""
        request = pb.GetExecutionRequest(execution_id=execution_id)
        response = await self._transport.call(self._executions.GetExecution, request, safe=True)
        return _translate.execution(response.execution)

    async def list_executions(self) -> AsyncGenerator[Execution, None]:
        """Iterate over all executions, newest first; pages are fetched as needed."""
        token = ""
        while True:
            page = await self.executions_page(token=token)
            for execution in page.executions:
                yield execution
            token = page.next_token
            if not token:
                return

    async def executions_page(self, size: int = _PAGE, *, token: str = "") -> ExecutionPage:
        """Return one page of executions, newest first: at most ``size`` after the page that gave ``token``."""
        request = pb.ListExecutionsRequest(page_size=size, page_token=token)
        page = await self._transport.call(self._executions.ListExecutions, request, safe=True)
        return ExecutionPage(tuple(map(_translate.execution, page.executions)), page.next_page_token)

    def watch(self, execution_id: str, after_revision: int = 0) -> AsyncGenerator[Update, None]:
        """Iterate over what changes, first what did after ``after_revision``, until the run has ended.

        It reconnects by itself and goes on where it was: every final state comes exactly once, intermediate ones may
        coalesce. Keep the highest ``revision`` to go on in another process.

        Raises:
            NotFoundError: there is no such execution (any more).
            OutOfRangeError: ``after_revision`` was never given out.
            UnavailableError: nothing was heard for longer than ``patience.watch``.
        """
        return watch(self._transport, self._executions, execution_id, after_revision)

    async def cancel_execution(self, execution_id: str) -> Cancellation:
        """Cancel all that has not been sent; a final execution stays as it is."""
        request = pb.CancelExecutionRequest(execution_id=execution_id)
        response = await self._transport.call(self._executions.CancelExecution, request)
        return Cancellation(_translate.execution(response.execution), response.in_flight, response.maybe_charged_micros)

    async def pause_execution(self, execution_id: str) -> Execution:
        """Start no further calls until resumed. Raises FailedPreconditionError for a final one."""
        request = pb.PauseExecutionRequest(execution_id=execution_id)
        response = await self._transport.call(self._executions.PauseExecution, request)
        return _translate.execution(response.execution)

    async def resume_execution(
        self, execution_id: str, *, api_key: str | None = None, max_cost_micros: int | None = None
    ) -> Execution:
        """Go on after a pause, with another key or a higher cap where given.

        Raises:
            FailedPreconditionError: it is final, or its key was wiped and none is given (``KEY_NEEDED``).
            InvalidRequestError: the cap is negative, or more than 9.2e12 dollars.
        """
        _numbers.require_room(_numbers.too_large(pb.ResumeExecutionRequest, {"max_cost_micros": max_cost_micros}))
        request = pb.ResumeExecutionRequest(execution_id=execution_id, max_cost_micros=max_cost_micros)
        if api_key is not None:
            request.api_key = api_key
        response = await self._transport.call(self._executions.ResumeExecution, request)
        return _translate.execution(response.execution)

    async def retry_execution(
        self,
        execution_id: str,
        *,
        result_ids: Sequence[str] = (),
        api_key: str | None = None,
        edits: dict[str, str] | None = None,
        request_id: str | None = None,
    ) -> Retry:
        """Try failed results again on the same rows; nothing that succeeded is touched.

        Args:
            execution_id: the execution.
            result_ids: which ones, failed or cancelled. Default: all failed ones.
            api_key: another key. Default: the one it has.
            edits: new prompt texts by result id.
            request_id: a UUID that makes a repeat of this very call safe. Default: a new one.
        """
        request = pb.RetryExecutionRequest(
            execution_id=execution_id,
            request_id=request_id or str(uuid.uuid4()),
            result_ids=result_ids,
            edits=[pb.PromptEdit(result_id=key, text=text) for key, text in (edits or {}).items()],
        )
        if api_key is not None:
            request.api_key = api_key
        response = await self._transport.call(self._executions.RetryExecution, request, safe=True)
        return Retry(_translate.execution(response.execution), response.retried)

    async def delete_execution(self, execution_id: str) -> None:
        """Delete a final execution with its results and pictures."""
        request = pb.DeleteExecutionRequest(execution_id=execution_id)
        await self._transport.call(self._executions.DeleteExecution, request)

    async def list_results(
        self, execution_id: str, *, states: Sequence[ResultState] = ()
    ) -> AsyncGenerator[Result, None]:
        """Iterate over results by ``(batch_index, variation)``, only those in ``states`` where given."""
        token = ""
        while True:
            request = pb.ListResultsRequest(
                execution_id=execution_id,
                page_size=_PAGE,
                page_token=token,
                states=_translate.result_states(states),
            )
            page = await self._transport.call(self._executions.ListResults, request, safe=True)
            for result in page.results:
                yield _translate.result(result)
            token = page.next_page_token
            if not token:
                return

    async def get_result(self, result_id: str) -> Result:
        """Return a result as it is now."""
        request = pb.GetResultRequest(result_id=result_id)
        response = await self._transport.call(self._executions.GetResult, request, safe=True)
        return _translate.result(response.result)

    # Pictures

    async def upload_image(self, source: PictureSource, *, kind: ImageKind = ImageKind.REFERENCE) -> Image:
        """Store a picture: PNG, JPEG or WebP, at most 10 MiB. Unused ones go after 24 h."""
        return await _pictures.upload(self._transport, self._images, source, kind)

    async def get_image(self, image_id: str) -> Image:
        """Describe a picture."""
        request = image_service_pb2.GetImageRequest(image_id=image_id)
        response = await self._transport.call(self._images.GetImage, request, safe=True)
        return _translate.image(response.image)

    async def download_image(self, image_id: str, path: str | Path, *, overwrite: bool = False) -> Image:
        """Write a picture to ``path``, whose folder must be there.

        Raises:
            FileExistsError: there is a file already, and ``overwrite`` is not set.
            IntegrityError: what arrived is not what was promised; nothing is left behind.
        """
        return await _pictures.download(self._transport, self._images, image_id, Path(path), overwrite=overwrite)

    async def export_execution(
        self, execution_id: str, path: str | Path, *, result_ids: Sequence[str] = (), overwrite: bool = False
    ) -> None:
        """Write a ZIP of the pictures that are there to ``path``, whose folder must be there.

        ``manifest.json`` and ``manifest.csv`` in it list all results, failed ones with their reason.

        Args:
            execution_id: the execution.
            path: the file to be written; it appears when it is whole.
            result_ids: which results. Default: all.
            overwrite: replace a file that is there.

        Raises:
            FileExistsError: there is a file already, and ``overwrite`` is not set.
            NotFoundError: there is no such execution.
        """
        await _archives.download(
            self._transport, self._images, execution_id, Path(path), result_ids=result_ids, overwrite=overwrite
        )

    def stream_export(self, execution_id: str, *, result_ids: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of what :meth:`export_execution` writes, as they arrive; close it to leave early."""
        return _archives.pieces(self._transport, self._images, execution_id, result_ids)

    async def _reference_id(self, reference: Reference) -> str:
        if isinstance(reference, Image):
            return reference.id
        if isinstance(reference, str) and _is_uuid(reference):
            return reference
        return (await self.upload_image(reference)).id

    # Models

    async def list_models(self) -> list[Model]:
        """Return all models, the ones to prefer first."""
        request = model_service_pb2.ListModelsRequest()
        response = await self._transport.call(self._models.ListModels, request, safe=True)
        return [_translate.model(model) for model in response.models]

    async def check_api_key(self, model: str, api_key: str | None = None) -> KeyCheck:
        """Ask the provider whether it takes the key and offers the model; costs nothing."""
        request = model_service_pb2.CheckApiKeyRequest(model=model, api_key=api_key or "")
        response = await self._transport.call(self._models.CheckApiKey, request, safe=True)
        return KeyCheck(response.valid, response.model_available, response.message)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
