"""RetryExecution and ResumeExecution: the two controls that may bring a new key or new words."""

from __future__ import annotations

from nanobatch_catalog import find_model
from nanobatch_gateway.create import content_hash
from nanobatch_gateway.domain import Caller, Message, ResumeDraft, RetryDraft, SealedKey, StoredExecution
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.keys import Keys
from nanobatch_gateway.ports import Controls, Executions
from nanobatch_gateway.validation import characters_around, prompt_limit
from nanobatch_runtime.ids import new_id

MAX_RESULTS = 400


class ResumeExecution:
    """Lets a paused execution go on."""

    def __init__(self, executions: Executions, controls: Controls, keys: Keys) -> None:
        """Take what it works with."""
        self._executions = executions
        self._controls = controls
        self._keys = keys

    async def __call__(self, caller: Caller, draft: ResumeDraft) -> Message:
        """Return the public response. Raises InvalidRequestError, and storage's own answers."""
        found = Violations()
        found.id("execution_id", draft.execution_id, required=True)
        api_key = _new_key(found, draft.api_key, draft.credential_id)
        found.not_negative("max_cost_micros", draft.max_cost_micros)
        found.raise_any()
        key = None
        if api_key:
            stored = await self._executions.get(caller, draft.execution_id)
            key = _sealed(self._keys, stored, api_key)
        return await self._controls.resume(caller, draft.execution_id, key=key, max_cost_micros=draft.max_cost_micros)


class RetryExecution:
    """Gives failed results another try."""

    def __init__(self, executions: Executions, controls: Controls, keys: Keys) -> None:
        """Take what it works with."""
        self._executions = executions
        self._controls = controls
        self._keys = keys

    async def __call__(self, caller: Caller, draft: RetryDraft) -> Message:
        """Return the public response. Raises InvalidRequestError, and storage's own answers."""
        found = Violations()
        found.id("execution_id", draft.execution_id, required=True)
        found.id("request_id", draft.request_id)
        api_key = _new_key(found, draft.api_key, draft.credential_id)
        _results(found, draft)
        if found.found:  # the execution itself cannot be asked about, or need not be
            _edits(found, draft, None)
            found.raise_any()
        stored = await self._executions.get(caller, draft.execution_id) if api_key or draft.edits else None
        _edits(found, draft, stored)
        found.raise_any()
        key = _sealed(self._keys, stored, api_key) if stored and api_key else None
        content: dict[str, object] = {
            "execution": draft.execution_id,
            "results": sorted(set(draft.result_ids)),
            "edits": sorted((edit.result_id, edit.text) for edit in draft.edits),
            "key": key.fingerprint if key else "",
        }
        return await self._controls.retry(
            caller,
            draft.execution_id,
            request_id=draft.request_id or new_id(),  # so that storage knows a repeat on the way to it, at least
            request_hash=content_hash("retry", content),
            result_ids=draft.result_ids,
            edits=draft.edits,
            key=key,
        )


def _new_key(found: Violations, api_key: str | None, credential_id: str | None) -> str:
    if credential_id is not None:
        found.unsupported("credential_id", "A saved key")
    if api_key is not None and not api_key.strip():
        found.add("api_key", "The key is empty; leave the field out to keep the one it has.", "REQUIRED")
    return found.api_key("api_key", api_key)


def _sealed(keys: Keys, stored: StoredExecution, api_key: str) -> SealedKey | None:
    """Seal the key for the execution's owner, whoever gives it. A model that needs none drops it, as at creation."""
    model = find_model(stored.model)
    if model is not None and not model.needs_key:
        return None
    return keys.seal(stored.user_id, stored.provider, api_key)


def _results(found: Violations, draft: RetryDraft) -> None:
    for field, count in (("result_ids", len(draft.result_ids)), ("edits", len(draft.edits))):
        if count > MAX_RESULTS:
            found.add(field, f"{count:,} are too many; an execution has at most {MAX_RESULTS} results.", "TOO_MANY")
    for number, result_id in enumerate(draft.result_ids[:MAX_RESULTS]):
        found.id(f"result_ids[{number}]", result_id, required=True)


def _edits(found: Violations, draft: RetryDraft, stored: StoredExecution | None) -> None:
    """Check the edits, with the limits that the execution's model and settings leave where those are known."""
    limit = prompt_limit(find_model(stored.model) if stored else None)
    around = characters_around(stored.prompt_prefix, stored.prompt_suffix) if stored else 0
    seen: set[str] = set()
    for number, edit in enumerate(draft.edits[:MAX_RESULTS]):
        path = f"edits[{number}]"
        if found.id(f"{path}.result_id", edit.result_id, required=True):
            if edit.result_id in seen:
                found.add(f"{path}.result_id", "This result is edited twice.", "CONFLICT")
            elif draft.result_ids and edit.result_id not in draft.result_ids:
                found.add(f"{path}.result_id", "This result is not among result_ids.", "CONFLICT")
            seen.add(edit.result_id)
        found.prompt_text(f"{path}.text", edit.text, name="The prompt", around=around, limit=limit)
