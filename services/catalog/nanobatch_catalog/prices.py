"""Money from tokens, in whole micros (millionths of a US dollar), rounded up per call."""

from __future__ import annotations

from dataclasses import dataclass

from nanobatch_catalog.models import Model, Price

_MILLION = 1_000_000
# An input picture costs 258 tokens per tile on 2.5 flash and about 560 on the Gemini 3 models; the higher one with room
# for several tiles is what a reservation counts on.
_INPUT_IMAGE_TOKENS = 2_600
_TEXT_TOKENS = 512
_DRAFTS = 4


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What a provider reported about one call, in tokens."""

    input_tokens: int = 0
    text_output_tokens: int = 0
    image_output_tokens: int = 0


def list_price_micros(model: Model, image_size: str = "") -> int:
    """Return the list price of one picture; an empty size is the model's default tier."""
    return _price(model, image_size).micros


def usage_cost_micros(model: Model, usage: TokenUsage) -> int:
    """Return what the reported usage costs, rounded up to a whole micro."""
    total = (
        usage.input_tokens * model.input_rate
        + usage.text_output_tokens * model.text_output_rate
        + usage.image_output_tokens * model.image_output_rate
    )
    return -(-total // _MILLION)


def output_token_limit(model: Model, image_size: str = "") -> int:
    """Return the output limit sent with a call, so that its worst case is known; 0: the provider counts no tokens.

    One picture and some text; for models that think, which bill their drafts, room for four pictures.
    """
    pictures = _DRAFTS if model.thinks else 1
    return min(model.max_output_tokens, pictures * _price(model, image_size).image_tokens + _TEXT_TOKENS)


def worst_case_micros(model: Model, *, image_size: str = "", prompt_characters: int, input_images: int) -> int:
    """Return what one call can cost at most: what a lease reserves under a cap.

    A character counts as a whole token (rare scripts). As many whole pictures as the output limit holds are counted at
    the picture rate, the rest of it at the text rate.
    """
    limit = output_token_limit(model, image_size)
    per_picture = _price(model, image_size).image_tokens
    image_tokens = limit - limit % per_picture if per_picture else 0
    usage = TokenUsage(
        input_tokens=prompt_characters + input_images * _INPUT_IMAGE_TOKENS,
        text_output_tokens=limit - image_tokens,
        image_output_tokens=image_tokens,
    )
    return usage_cost_micros(model, usage)


def _price(model: Model, image_size: str) -> Price:
    if not image_size:
        return model.prices[0]
    return next(price for price in model.prices if price.image_size == image_size)
