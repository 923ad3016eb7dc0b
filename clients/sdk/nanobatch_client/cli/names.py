"""File names of pictures: ``{batch_index+1:03}-{slug}[-v2].{ext}``."""

from __future__ import annotations

import re
import unicodedata

from nanobatch_client.models import Result

SLUG_LENGTH = 60
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l"})


def slug(text: str) -> str:
    """Return at most 60 of ``a-z 0-9 -`` that remind of a prompt; never empty, no dash at either end."""
    # Folding needs only the beginning; a prompt may have 10,000 characters, and a character may fold into several.
    folded = unicodedata.normalize("NFKD", text[: SLUG_LENGTH * 20].lower().translate(_LETTERS))
    # Accents vanish, everything else that is not a letter or figure of ours separates: a long dash, a curly quote.
    plain = "".join(sign for sign in folded.lower() if not unicodedata.combining(sign))
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LENGTH].rstrip("-") or "picture"


def file_name(result: Result) -> str:
    """Return the name of a result's picture; variation 0 has no suffix, the next one is ``-v2``."""
    variation = f"-v{result.variation + 1}" if result.variation else ""
    extension = _EXTENSIONS.get(result.mime_type, "img")
    return f"{result.batch_index + 1:03}-{slug(result.prompt_text)}{variation}.{extension}"


def numbered(name: str, number: int) -> str:
    """Return the name to fall back on when another file has ``name``: ``001-fox.png``, ``001-fox-2.png``, ..."""
    stem, _, extension = name.rpartition(".")
    return name if number == 1 else f"{stem}-{number}.{extension}"
