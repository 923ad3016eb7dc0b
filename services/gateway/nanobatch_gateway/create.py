"""CreateExecution: validate, price, seal the key, store. A repeat is recognised by storage from the hash made here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from nanobatch_gateway.domain import Caller, ExecutionDraft, ExecutionRequest, Message, NewExecution
from nanobatch_gateway.estimate import list_price, worst_call
from nanobatch_gateway.keys import Keys
from nanobatch_gateway.ports import Executions
from nanobatch_gateway.validation import Validator


class CreateExecution:
    """Accepts lists of prompts."""

    def __init__(self, validator: Validator, keys: Keys, executions: Executions) -> None:
        """Take what it works with."""
        self._validator = validator
        self._keys = keys
        self._executions = executions

    async def __call__(self, caller: Caller, draft: ExecutionDraft) -> Message:
        """Return the stored execution. Raises InvalidRequestError with every violation, and stores nothing then."""
        request = await self._validator.validate(draft, caller)
        provider = request.model.provider
        key = self._keys.seal(caller.user_id, provider, request.api_key) if request.api_key else None
        mark = key.fingerprint if key else self._keys.fingerprint(provider, "")
        new = NewExecution(
            request=request,
            request_hash=request_hash(request, mark),
            fingerprint=mark,
            key=key,
            estimated_cost_micros=list_price(request),
            reservation_micros=worst_call(request),
        )
        return await self._executions.create(caller, new)


def request_hash(request: ExecutionRequest, fingerprint: str) -> str:
    """Return the SHA-256 (hex) of what a request means: equal for equal effect, however it was written down.

    Defaults count as if they had been said, and a text of paragraphs as its prompts. The request id and the key stand
    outside; in the key's place its fingerprint is hashed.
    """
    content = {
        "model": request.model.id,
        "workflow": request.workflow_id,
        "parent": request.parent_execution_id,
        "prompts": [asdict(prompt) for prompt in request.prompts],
        "prefix": request.prompt_prefix,
        "suffix": request.prompt_suffix,
        "references": request.reference_image_ids,
        "output": asdict(request.output),
        "variations": request.variations,
        "seed": request.seed,
        "mode": int(request.mode),
        "max_cost_micros": request.max_cost_micros,
        "max_attempts": request.max_attempts,
        "timeout_us": round(request.timeout.total_seconds() * 1_000_000),
        "on_unknown": int(request.on_unknown),
        "labels": dict(request.labels),
        "key": fingerprint,
    }
    return content_hash("create", content)


def content_hash(kind: str, content: dict[str, object]) -> str:
    """Return the SHA-256 (hex) of plain data in its one canonical form."""
    canonical = json.dumps([kind, 1, content], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
