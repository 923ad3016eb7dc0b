"""What a token of ours looks like: ``nbt_``, 43 characters of 256 random bits, 6 of a checksum; all base 62.

Scanners for leaked secrets find it by its beginning and prove it by its end, and a token that was cut or mistyped is
told from a wrong one without asking the database. A shape without characters that break words is taken whole by a
double click.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BEGINNING = "nbt_"
_BYTES = 32
_RANDOM_CHARACTERS = 43  # 62 ** 43 > 2 ** 256
_CHECK_CHARACTERS = 6  # 62 ** 6 > 2 ** 32
_LENGTH = len(_BEGINNING) + _RANDOM_CHARACTERS + _CHECK_CHARACTERS
_SHOWN = len(_BEGINNING) + 4


def new_token() -> str:
    """Return a token that nobody has seen."""
    body = _BEGINNING + _base62(int.from_bytes(secrets.token_bytes(_BYTES), "big"), _RANDOM_CHARACTERS)
    return body + _checksum(body)


def is_token(text: str) -> bool:
    """Say whether a text may be a token of ours: shape and checksum are right."""
    if len(text) != _LENGTH or not has_our_beginning(text) or not text.isascii():
        return False
    return text[-_CHECK_CHARACTERS:] == _checksum(text[:-_CHECK_CHARACTERS])


def has_our_beginning(text: str) -> bool:
    """Say whether a text wants to be a token of ours."""
    return text.startswith(_BEGINNING)


def digest(token: str) -> bytes:
    """Return what is stored in place of a token. It needs no salt nor stretching: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode()).digest()


def shown(token: str) -> str:
    """Return the first characters of a token, by which people tell theirs apart."""
    return token[:_SHOWN] if has_our_beginning(token) else token[:4]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARACTERS)


def _base62(number: int, width: int) -> str:
    characters = []
    for _ in range(width):
        number, rest = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[rest])
    return "".join(reversed(characters))
