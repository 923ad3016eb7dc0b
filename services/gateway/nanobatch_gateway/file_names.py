"""File names of pictures: ``{batch_index+1:03}-{slug}[-v2].{ext}``, as the command line writes them."""

from __future__ import annotations

import re
import unicodedata

_SLUG_LENGTH = 60
_EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l"})


def file_stem(batch_index: int, variation: int, prompt: str) -> str:
    """Return the name without its ending: only ``a-z``, ``0-9`` and ``-``, so that it is safe in a header and a path."""
    # Folding needs only the beginning; a prompt may have 10,000 characters, and a character may fold into several.
    folded = unicodedata.normalize("NFKD", prompt[: _SLUG_LENGTH * 20].lower().translate(_LETTERS))
    plain = "".join(sign for sign in folded.lower() if not unicodedata.combining(sign))
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_SLUG_LENGTH].rstrip("-") or "picture"
    return f"{batch_index + 1:03}-{slug}" + (f"-v{variation + 1}" if variation else "")


def extension(mime_type: str) -> str:
    """Return the ending for a stored type."""
    return _EXTENSIONS.get(mime_type, "img")
