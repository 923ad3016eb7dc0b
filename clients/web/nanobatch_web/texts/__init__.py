"""Every word the page says, in English and French, chosen by the browser's languages."""

from __future__ import annotations

from collections.abc import Mapping

from nanobatch_web.texts.catalogue import TEXTS
from nanobatch_web.texts.refusals import REFUSALS

LANGUAGES = ("en", "fr")


def language_of(headers: Mapping[str, str]) -> str:
    """Return the first language of a request's ``Accept-Language`` that there is; English otherwise."""
    ranked: list[tuple[float, str]] = []
    for piece in headers.get("accept-language", "").split(","):
        tag, _, weight = piece.strip().partition(";q=")
        try:
            ranked.append((-float(weight or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue
    for _, name in sorted(ranked):
        if name in LANGUAGES:
            return name
    return LANGUAGES[0]


def say(language: str, key: str, **facts: object) -> str:
    """Return a sentence of the catalogue with ``facts`` put in. An unknown key raises KeyError."""
    return TEXTS[key][LANGUAGES.index(language)].format(**facts)


def has(key: str) -> bool:
    """Tell whether the catalogue has a sentence."""
    return key in TEXTS


def table(language: str) -> dict[str, str]:
    """Return the catalogue in one language, for Gradio and for the page's scripts; refusals come with their sentences."""
    index = LANGUAGES.index(language)
    return {key: texts[index] for key, texts in TEXTS.items() if key not in REFUSALS}
