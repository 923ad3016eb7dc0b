"""The picture ids of a request, checked by one look-up for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from nanobatch_catalog import Model
from nanobatch_gateway.domain import Caller
from nanobatch_gateway.fields import Violations
from nanobatch_gateway.ports import Images

_ENOUGH = 16
"""How many references of a list are looked at where the model, and so the limit, is unknown."""


class NamedPictures:
    """Collects picture ids, each with the field that names it."""

    def __init__(self, found: Violations, model: Model | None) -> None:
        """``found`` takes what is wrong; ``model`` is None where it is itself wrong."""
        self._found = found
        self._model = model
        self._named: list[tuple[str, str]] = []

    def note(self, field: str, image_ids: Sequence[str]) -> None:
        """Check a list of references; those beyond the limit are not looked at, the list is wrong anyway."""
        limit = _ENOUGH
        if self._model is not None:
            limit = self._model.max_reference_images
            if len(image_ids) > limit:
                description = (
                    f"{len(image_ids)} reference pictures are too many; {self._model.id} takes at most {limit}."
                )
                self._found.add(field, description, "TOO_MANY")
        for number, image_id in enumerate(image_ids[:limit]):
            self.note_one(f"{field}[{number}]", image_id, required=True)

    def note_one(self, field: str, image_id: str, *, required: bool = False) -> None:
        """Check one id; an empty one is wrong only where it is ``required``."""
        if self._found.id(field, image_id, required=required):
            self._named.append((field, image_id))

    async def look_up(self, images: Images, caller: Caller) -> None:
        """Report the ids behind which the caller has no picture."""
        if not self._named:
            return
        there = await images.find(caller, {image_id for _, image_id in self._named})
        for field, image_id in self._named:
            if image_id not in there:
                self._found.add(field, f"You have no picture {image_id}.", "NOT_FOUND")
