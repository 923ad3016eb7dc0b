"""ModelService."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.gateway.v1 import model_service_pb2 as pb
from nanobatch.gateway.v1 import model_service_pb2_grpc
from nanobatch_catalog import list_models
from nanobatch_gateway import translate
from nanobatch_gateway.check_key import CheckApiKey
from nanobatch_runtime.clock import Clock

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The catalogue over gRPC; the contract stands in the proto."""

    def __init__(self, check_key: CheckApiKey, clock: Clock) -> None:
        """``clock`` says which models are past their day."""
        self._check_key = check_key
        self._clock = clock

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        """See the proto."""
        today = self._clock.now().date()
        return pb.ListModelsResponse(models=[translate.model_message(model, today) for model in list_models(today)])

    async def CheckApiKey(self, request: pb.CheckApiKeyRequest, context: Context) -> pb.CheckApiKeyResponse:
        """See the proto."""
        return translate.check_key_response(await self._check_key(request.model, request.api_key))
