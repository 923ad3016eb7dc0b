"""Provider keys under AES-256-GCM, with a ring of master keys so that one can be replaced without losing anything.

A record is ``{encrypted, iv, authTag, salt, keyId, version}``: random salt and nonce each time, a data key by HKDF-SHA256
from the master key and the salt, and the record's identity as associated data, so that a ciphertext moved to another row
does not open. Only gateway and generator hold a ring; storage keeps records it cannot read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from nanobatch_runtime.errors import NanobatchError

VERSION = 1
_IV_BYTES = 12
_SALT_BYTES = 16
_TAG_BYTES = 16
_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")


class KeyringError(ValueError):
    """ENCRYPTION_KEY cannot be used; the message says what to do and never shows the value."""


class UnknownKeyError(NanobatchError):
    """A record names a master key that is not in the ring."""

    reason = "ENCRYPTION_KEY_MISSING"


class SealBrokenError(NanobatchError):
    """A record does not open under the identity given: it was moved, changed or cut."""

    reason = "CREDENTIAL_BROKEN"


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted secret; lengths in bytes: iv 12, auth_tag 16, salt 16."""

    encrypted: bytes
    iv: bytes
    auth_tag: bytes
    salt: bytes
    key_id: str
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose secret a record is; part of what is authenticated, so it cannot be swapped."""

    purpose: str
    user_id: str
    record_id: str

    def associated_data(self, key_id: str, version: int) -> bytes:
        """Return the associated data: unambiguous, because the parts are length-prefixed."""
        parts = (self.purpose, self.user_id, self.record_id, key_id, str(version))
        return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


class Keyring:
    """Master keys; the first encrypts, all decrypt."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """``keys`` are 32 bytes each, at least one."""
        self._keys = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read ENCRYPTION_KEY: 64 hex characters, or several of them separated by commas. Raises KeyringError."""
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            message = "ENCRYPTION_KEY is empty: set 64 hex characters, for instance from `openssl rand -hex 32`."
            raise KeyringError(message)
        for number, part in enumerate(parts, start=1):
            if not _HEX_KEY.fullmatch(part):
                message = f"ENCRYPTION_KEY: key {number} is not 64 hex characters (32 bytes)."
                raise KeyringError(message)
            if len(set(part.lower())) < 8:  # noqa: PLR2004  # a real random key of 64 characters has about 16 different ones
                message = f"ENCRYPTION_KEY: key {number} is a placeholder; make one with `openssl rand -hex 32`."
                raise KeyringError(message)
        return cls([bytes.fromhex(part) for part in parts])

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Ids of the keys in the ring, the encrypting one first."""
        return (self._first, *(key_id for key_id in self._keys if key_id != self._first))

    def seal(self, secret: str, identity: Identity) -> Sealed:
        """Encrypt ``secret`` for ``identity`` with a fresh salt and nonce."""
        salt, iv = os.urandom(_SALT_BYTES), os.urandom(_IV_BYTES)
        aead = AESGCM(_data_key(self._keys[self._first], salt))
        both = aead.encrypt(iv, secret.encode(), identity.associated_data(self._first, VERSION))
        return Sealed(both[:-_TAG_BYTES], iv, both[-_TAG_BYTES:], salt, self._first)

    def open(self, sealed: Sealed, identity: Identity) -> str:
        """Decrypt. Raises UnknownKeyError or SealBrokenError; neither shows anything of the secret."""
        master = self._keys.get(sealed.key_id)
        if master is None:
            message = f"The key was encrypted with master key {sealed.key_id}, which is not in ENCRYPTION_KEY."
            raise UnknownKeyError(message)
        aead = AESGCM(_data_key(master, sealed.salt))
        aad = identity.associated_data(sealed.key_id, sealed.version)
        try:
            return aead.decrypt(sealed.iv, sealed.encrypted + sealed.auth_tag, aad).decode()
        except (InvalidTag, ValueError) as error:
            message = "The stored key does not open: it was changed or belongs to another record."
            raise SealBrokenError(message) from error

    def derive(self, purpose: str) -> bytes:
        """Return 32 bytes for another use (signing page tokens, URLs), the same in every process with this first key."""
        return self.derive_all(purpose)[0]

    def derive_all(self, purpose: str) -> tuple[bytes, ...]:
        """Return what :meth:`derive` gives under each key of the ring, the encrypting one first.

        Sign with the first and accept all: while keys rotate, replicas differ in which of them comes first.
        """
        info = f"nanobatch {purpose}".encode()
        return tuple(HKDF(SHA256(), 32, None, info).derive(self._keys[key_id]) for key_id in self.key_ids)


def fingerprint(secret_key: bytes, provider: str, api_key: str) -> str:
    """Return the keyed fingerprint (HMAC-SHA256, hex) that finds a key's bucket and tells nothing about the key."""
    return hmac.new(secret_key, f"{provider}\0{api_key}".encode(), hashlib.sha256).hexdigest()


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:16]


def _data_key(master: bytes, salt: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"nanobatch credential").derive(master)
