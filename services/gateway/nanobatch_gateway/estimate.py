"""EstimateCost: what a request would cost and how long it would take, without creating anything."""

from __future__ import annotations

from datetime import timedelta

from nanobatch_catalog import Model, lifecycle_warnings, list_price_micros, worst_case_micros
from nanobatch_gateway.domain import Caller, Estimate, ExecutionDraft, ExecutionRequest
from nanobatch_gateway.ports import Latencies
from nanobatch_gateway.prompts import whole_prompt
from nanobatch_gateway.validation import Validator
from nanobatch_runtime.clock import Clock
from nanobatch_runtime.errors import Kind, NanobatchError


class EstimateCost:
    """Prices requests."""

    def __init__(self, validator: Validator, latencies: Latencies, clock: Clock, *, window: int) -> None:
        """``window`` is how many calls of one key are in flight to begin with."""
        self._validator = validator
        self._latencies = latencies
        self._clock = clock
        self._window = window

    async def __call__(self, caller: Caller, draft: ExecutionDraft) -> Estimate:
        """Return the estimate; the draft's key and request id are ignored. Raises InvalidRequestError."""
        request = await self._validator.validate(draft, caller, key_wanted=False)
        rounds = -(-request.image_count // self._window)
        return Estimate(
            total_micros=list_price(request),
            per_image_micros=list_price_micros(request.model, request.output.image_size),
            image_count=request.image_count,
            expected_duration=await self._latency(request.model) * rounds,
            warnings=tuple(lifecycle_warnings(request.model, self._clock.now().date())),
        )

    async def _latency(self, model: Model) -> timedelta:
        try:
            median = await self._latencies.median(model.id)
        except NanobatchError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            median = None  # a price needs no storage: the catalogue knows a typical latency
        return median or model.typical_latency


def list_price(request: ExecutionRequest) -> int:
    """Return the list price of all pictures, in micros."""
    return list_price_micros(request.model, request.output.image_size) * request.image_count


def worst_call(request: ExecutionRequest) -> int:
    """Return what the dearest single call can cost at most, in micros: what each lease reserves under a cap."""
    return max(
        worst_case_micros(
            request.model,
            image_size=request.output.image_size,
            prompt_characters=len(whole_prompt(request.prompt_prefix, prompt.text, request.prompt_suffix)),
            input_images=len(prompt.reference_image_ids or request.reference_image_ids) + bool(prompt.source_image_id),
        )
        for prompt in request.prompts
    )
