"""From a pasted text to prompts, by the gateway's own rule. Which prompts there are, the gateway decides."""

from __future__ import annotations

import re
import unicodedata

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_LITERAL_BLANK_LINE = re.compile(r"\\n[ \t]*\\n")


def split_prompts(text: str) -> list[str]:
    r"""Return the prompts of a text: one per paragraph, none of them empty, trimmed.

    A line without anything visible separates; in a text without a real line break a literal ``\n\n`` does.
    """
    text = text.removeprefix("\ufeff")
    if not _LINE_BREAK.search(text) and _LITERAL_BLANK_LINE.search(text):
        text = text.replace("\\n", "\n")
    prompts: list[str] = []
    paragraph: list[str] = []
    for line in [*_LINE_BREAK.split(text), ""]:
        if not _is_blank(line):
            paragraph.append(line)
        elif paragraph:
            prompts.append("\n".join(paragraph).strip())
            paragraph = []
    return prompts


def _is_blank(text: str) -> bool:
    return all(char.isspace() or unicodedata.category(char) == "Cf" for char in text)
