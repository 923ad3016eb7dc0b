r"""From a pasted text to prompts: one per paragraph.

* Line breaks are LF, CRLF and CR, all the same. A line without anything visible (spaces, also Unicode ones, and
  zero-width characters) is blank; one or more blank lines separate prompts. Single line breaks stay.
* Where the text holds no real line break, a literal ``\n\n`` (backslash, n, twice, as shells and JSON leave it behind)
  separates. In such a text, and only there, a single literal ``\n`` is a line break too.
* Each prompt is trimmed at both ends.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_LITERAL_BLANK_LINE = re.compile(r"\\n[ \t]*\\n")
_BYTE_ORDER_MARK = "\ufeff"


def split_prompts(text: str) -> list[str]:
    """Return the prompts of a text, none of them empty; an empty list where there is nothing visible."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if not _LINE_BREAK.search(text) and _LITERAL_BLANK_LINE.search(text):
        text = text.replace("\\n", "\n")
    prompts: list[str] = []
    paragraph: list[str] = []
    for line in [*_LINE_BREAK.split(text), ""]:
        if not is_blank(line):
            paragraph.append(line)
        elif paragraph:
            prompts.append("\n".join(paragraph).strip())
            paragraph = []
    return prompts


def is_blank(text: str) -> bool:
    """Say whether nothing in ``text`` can be seen: only white space and format characters such as zero-width ones."""
    return all(char.isspace() or unicodedata.category(char) == "Cf" for char in text)


def control_character(text: str) -> str | None:
    """Return the first control character other than tab and line breaks as ``U+0000``, or None."""
    for char in text:
        if unicodedata.category(char) == "Cc" and char not in "\t\n\r":
            return f"U+{ord(char):04X}"
    return None


def whole_prompt(prefix: str, text: str, suffix: str) -> str:
    """Return what the provider is sent: prefix, text and suffix with one space between."""
    return " ".join(part for part in (prefix, text, suffix) if part)
