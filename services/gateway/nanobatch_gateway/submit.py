"""A request that brings its pictures along: everything is checked together, then stored, then created."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from nanobatch_catalog import find_model
from nanobatch_gateway.create import CreateExecution
from nanobatch_gateway.domain import Caller, ExecutionDraft, InvalidRequestError, Message, UploadKind
from nanobatch_gateway.uploads import PreparedUpload, UploadImage
from nanobatch_gateway.validation import Validator
from nanobatch_runtime.errors import FieldViolation, InvalidArgumentError
from nanobatch_runtime.ids import derived_id, new_id

PICTURES = "reference_images"
SOURCE = "image"
"""What violations call the pictures, and the one that is to be changed."""


@dataclass(frozen=True, slots=True)
class IncomingPicture:
    """A picture on its way in: its file name, for sentences only, and its bytes."""

    name: str
    chunks: AsyncIterator[bytes]


class SubmitExecution:
    """Creates executions whose pictures come in the same request."""

    def __init__(self, validator: Validator, upload: UploadImage, create: CreateExecution) -> None:
        """Take what it works with."""
        self._validator = validator
        self._upload = upload
        self._create = create

    async def __call__(
        self,
        caller: Caller,
        draft: ExecutionDraft,
        pictures: Sequence[IncomingPicture],
        *,
        source: IncomingPicture | None = None,
        found: Sequence[FieldViolation] = (),
    ) -> Message:
        """Return the stored execution. Raises InvalidRequestError with all that is wrong, and stores nothing then.

        ``pictures`` are the common references; ``source`` is changed by each of the draft's ``prompts``. ``found`` is what was
        wrong with the request before it became a draft.

        A repeat under the same request id finds its pictures stored already: their ids follow from it, from their place
        and from their content.
        """
        async with AsyncExitStack() as stack:
            problems = [*found, *await self._problems_of(caller, draft)]
            model = find_model(draft.model)
            limit = len(pictures) if model is None else model.max_reference_images
            if len(pictures) > limit:
                sentence = f"{len(pictures)} reference pictures are too many; {draft.model} takes at most {limit}."
                problems.append(FieldViolation(PICTURES, sentence, "TOO_MANY"))
            wanted = [
                (UploadKind.REFERENCE, picture, f"{PICTURES}[{number}]")
                for number, picture in enumerate(pictures[:limit])
            ]
            if source is not None:
                wanted.append((UploadKind.SOURCE, source, SOURCE))
            ready: list[PreparedUpload] = []
            for kind, picture, name in wanted:
                opened = self._upload.prepared(kind, picture.name, picture.chunks)
                try:
                    ready.append(await stack.enter_async_context(opened))
                except InvalidArgumentError as error:
                    problems += [replace(each, field=name) for each in error.violations]
            if problems:
                raise InvalidRequestError(problems)
            ids = [
                (await self._upload.store(caller, each, _image_id(caller, draft, number, each))).id
                for number, each in enumerate(ready)
            ]
        if source is not None:
            *ids, changed = ids
            draft = replace(draft, prompts=tuple(replace(each, source_image_id=changed) for each in draft.prompts))
        return await self._create(caller, replace(draft, reference_image_ids=(*draft.reference_image_ids, *ids)))

    async def _problems_of(self, caller: Caller, draft: ExecutionDraft) -> list[FieldViolation]:
        try:
            await self._validator.validate(draft, caller)
        except InvalidRequestError as error:
            return list(error.violations)
        return []


def _image_id(caller: Caller, draft: ExecutionDraft, number: int, upload: PreparedUpload) -> str:
    if not draft.request_id:
        return new_id()
    return derived_id(draft.request_id, f"{caller.user_id} {number} {upload.picture.sha256}")
