"""The models, as dated data. Dates warn and reorder; only the provider's own "no such model" refuses.

Sources, read on CATALOG_DATE and not checked against a live account: Google's pricing, image-generation and deprecations
pages, and the price map of litellm 1.109.1. Where they disagree the entry says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

CATALOG_DATE = date(2026, 11, 21)

_TEN_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_FOURTEEN_RATIOS = (*_TEN_RATIOS, "1:4", "4:1", "1:8", "8:1")
_GEMINI_KEYS = "https://aistudio.google.com/apikey"


@dataclass(frozen=True, slots=True)
class Price:
    """List price of one picture of a size tier; ``image_size`` is empty where the model has only one tier."""

    image_size: str
    micros: int
    image_tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """What a model takes, costs and promises. Token rates are micros (millionths of a dollar) per million tokens."""

    id: str
    provider: str
    display_name: str
    prices: tuple[Price, ...]
    aspect_ratios: tuple[str, ...]
    image_sizes: tuple[str, ...] = ()
    max_reference_images: int = 0
    max_prompt_characters: int = 10_000
    default_timeout: timedelta = timedelta(seconds=180)
    max_timeout: timedelta = timedelta(seconds=300)
    needs_key: bool = True
    thinks: bool = False
    """Whether it drafts pictures while thinking, and bills them."""
    input_rate: int = 0
    text_output_rate: int = 0
    image_output_rate: int = 0
    max_output_tokens: int = 0
    typical_latency: timedelta = timedelta(seconds=10)
    retirement: date | None = None
    successor: str = ""
    key_url: str = ""


_MODELS = (
    Model(
        id="gemini-2.5-flash-image",
        provider="gemini",
        display_name="Nano Banana",
        prices=(Price("", 39_000, 1290),),
        aspect_ratios=_TEN_RATIOS,
        max_reference_images=3,
        input_rate=300_000,
        text_output_rate=2_500_000,
        image_output_rate=30_000_000,
        max_output_tokens=32_768,
        typical_latency=timedelta(seconds=8),
        # The deprecations page gives this as the earliest date; another source says 2027-03-15 and calls were still
        # answered in October 2026.
        retirement=date(2026, 10, 2),
        successor="gemini-3.1-flash-image",
        key_url=_GEMINI_KEYS,
    ),
    Model(
        id="gemini-3.1-flash-image",
        provider="gemini",
        display_name="Nano Banana 2",
        thinks=True,
        prices=(
            Price("1K", 67_000, 1120),
            Price("512", 45_000, 747),
            Price("2K", 101_000, 1680),
            Price("4K", 151_000, 2520),
        ),
        aspect_ratios=_FOURTEEN_RATIOS,
        image_sizes=("512", "1K", "2K", "4K"),
        max_reference_images=14,
        input_rate=500_000,
        text_output_rate=3_000_000,
        image_output_rate=60_000_000,
        max_output_tokens=32_768,
        typical_latency=timedelta(seconds=17),
        # Reported gone from the developer API on this day; other sources of that month still used it.
        retirement=date(2026, 10, 29),
        successor="gemini-nano-banana-2.1",
        key_url=_GEMINI_KEYS,
    ),
    Model(
        id="gemini-3.1-flash-lite-image",
        provider="gemini",
        display_name="Nano Banana 2 Lite",
        thinks=True,
        prices=(Price("", 33_600, 1120),),
        aspect_ratios=_TEN_RATIOS,
        max_reference_images=14,
        input_rate=250_000,
        text_output_rate=1_500_000,
        image_output_rate=30_000_000,
        max_output_tokens=4_096,
        typical_latency=timedelta(seconds=10),
        key_url=_GEMINI_KEYS,
    ),
    Model(
        id="gemini-nano-banana-2.1",
        provider="gemini",
        display_name="Nano Banana 2.1",
        thinks=True,
        prices=(Price("1K", 33_600, 1120), Price("2K", 50_400, 1680), Price("4K", 113_400, 3780)),
        aspect_ratios=_FOURTEEN_RATIOS,
        image_sizes=("1K", "2K", "4K"),
        max_reference_images=14,
        input_rate=1_500_000,
        text_output_rate=7_500_000,
        image_output_rate=30_000_000,
        max_output_tokens=32_768,
        typical_latency=timedelta(seconds=15),
        key_url=_GEMINI_KEYS,
    ),
    Model(
        id="gemini-3-pro-image",
        provider="gemini",
        display_name="Nano Banana Pro",
        thinks=True,
        prices=(Price("1K", 134_000, 1120), Price("2K", 134_000, 1120), Price("4K", 240_000, 2000)),
        aspect_ratios=_TEN_RATIOS,
        image_sizes=("1K", "2K", "4K"),
        max_reference_images=14,
        default_timeout=timedelta(seconds=300),
        input_rate=2_000_000,
        text_output_rate=12_000_000,
        image_output_rate=120_000_000,
        max_output_tokens=32_768,
        typical_latency=timedelta(seconds=24),
        key_url=_GEMINI_KEYS,
    ),
    Model(
        id="sandbox",
        provider="sandbox",
        display_name="Sandbox",
        prices=(Price("", 0, 0),),
        aspect_ratios=_TEN_RATIOS,
        max_reference_images=3,
        needs_key=False,
        typical_latency=timedelta(seconds=1),
    ),
)

_BY_ID = {model.id: model for model in _MODELS}


def find_model(model_id: str) -> Model | None:
    """Return the model of that id, or None."""
    return _BY_ID.get(model_id)


def list_models(today: date) -> list[Model]:
    """Return all models, those past their retirement date last; nothing is left out."""
    return sorted(_MODELS, key=lambda model: model.retirement is not None and model.retirement <= today)


def lifecycle_warnings(model: Model, today: date) -> list[str]:
    """Return what a person should know before paying: a retirement within 60 days or past, with successor and price."""
    if model.retirement is None or model.retirement - today > timedelta(days=60):
        return []
    verb = "was announced to retire" if model.retirement <= today else "retires"
    text = f"{model.id} {verb} on {model.retirement.isoformat()}; it is used as long as the provider offers it."
    successor = find_model(model.successor)
    if successor is not None:
        text += f" Its successor {successor.id} costs ${successor.prices[0].micros / 1_000_000:.4g} a picture."
    return [text]
