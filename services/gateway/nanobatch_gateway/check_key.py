"""CheckApiKey: a key is looked at here and asked about by a generator; it is neither stored nor logged."""

from __future__ import annotations

from nanobatch_gateway.domain import KeyVerdict
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.ports import KeyChecks
from nanobatch_gateway.validation import Validator


class CheckApiKey:
    """Says whether a key is good."""

    def __init__(self, validator: Validator, checks: KeyChecks) -> None:
        """Take what it works with."""
        self._validator = validator
        self._checks = checks

    async def __call__(self, model_id: str, api_key: str) -> KeyVerdict:
        """Return what the provider says. Raises InvalidRequestError and GeneratorUnavailableError."""
        found = Violations()
        model = self._validator.model(found, "model", model_id)
        needed = model is None or model.needs_key
        key = found.api_key("api_key", api_key, required_for=model.id if model and needed else "") if needed else ""
        found.raise_any()
        if model is None:  # reported above
            raise AssertionError
        return await self._checks.check(model.provider, model.id, key)
