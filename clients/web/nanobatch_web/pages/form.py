"""What a person has filled in, and what the gateway says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanobatch_client import Client, Estimate, InvalidRequestError, Prompt, RunOptions, Violation


@dataclass(frozen=True, slots=True)
class Form:
    """The wizard's first step, without the key."""

    model: str
    prompts: tuple[str, ...]
    references: tuple[str, ...] = ()
    aspect_ratio: str = ""
    image_size: str = ""
    variations: int = 1
    cap_micros: int | None = None
    own: tuple[Prompt, ...] = ()
    """Prompts that bring pictures, or how many are wanted: the first of ``prompts`` with the same text gets it."""

    def whole(self) -> list[str | Prompt]:
        """Return the prompts, each with what is its own."""
        waiting = list(self.own)
        given: list[str | Prompt] = []
        for text in self.prompts:
            found = next((prompt for prompt in waiting if prompt.text == text), None)
            if found is not None:
                waiting.remove(found)
            given.append(found or text)
        return given

    def options(self) -> RunOptions:
        """Return what creating and estimating have in common."""
        options = RunOptions(variations=self.variations)
        if self.aspect_ratio:
            options["aspect_ratio"] = self.aspect_ratio
        if self.image_size:
            options["image_size"] = self.image_size
        if self.cap_micros is not None:
            options["max_cost_micros"] = self.cap_micros
        return options

    def stored(self) -> dict[str, Any]:
        """Return plain values, for the browser's draft and the review."""
        return {
            "model": self.model,
            "prompts": list(self.prompts),
            "references": list(self.references),
            "own": stored_prompts(self.own),
            "aspect_ratio": self.aspect_ratio,
            "image_size": self.image_size,
            "variations": self.variations,
            "cap_micros": self.cap_micros,
        }

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Form:
        """Return the form of :meth:`stored` values, whatever a browser made of them."""
        return cls(
            model=str(stored.get("model") or ""),
            prompts=tuple(str(text) for text in stored.get("prompts") or ()),
            references=tuple(str(name) for name in stored.get("references") or ()),
            own=prompts_of(stored.get("own")),
            aspect_ratio=str(stored.get("aspect_ratio") or ""),
            image_size=str(stored.get("image_size") or ""),
            variations=int(stored.get("variations") or 1),
            cap_micros=None if stored.get("cap_micros") is None else int(stored["cap_micros"]),
        )


def stored_prompts(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Return prompts with what is their own as plain values."""
    return [
        {
            "text": prompt.text,
            "source": prompt.source_image_id,
            "references": list(prompt.reference_image_ids),
            "variations": prompt.variations,
        }
        for prompt in prompts
    ]


def prompts_of(stored: object) -> tuple[Prompt, ...]:
    """Return the prompts of :func:`stored_prompts`, whatever a browser made of them."""
    held = [one for one in stored if isinstance(one, Mapping)] if isinstance(stored, list) else []
    return tuple(
        Prompt(
            str(one.get("text") or ""),
            str(one.get("source") or ""),
            tuple(str(name) for name in one.get("references") or ()),
            one["variations"] if isinstance(one.get("variations"), int) else None,
        )
        for one in held
    )


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What the gateway says about a form: a price, or everything that is wrong with it."""

    estimate: Estimate | None = None
    problems: Sequence[Violation] = field(default_factory=tuple)


async def review(client: Client, form: Form) -> Reviewed:
    """Ask the gateway for price and problems; nothing is stored. Raises NanobatchError where it cannot answer."""
    try:
        estimate = await client.estimate_cost(
            form.whole(), model=form.model, reference_image_ids=form.references, **form.options()
        )
    except InvalidRequestError as error:
        return Reviewed(problems=error.violations or (Violation("", error.message),))
    return Reviewed(estimate)
