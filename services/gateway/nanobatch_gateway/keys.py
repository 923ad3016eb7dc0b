"""Provider keys: sealed at the door, found again by a keyed fingerprint, in the clear nowhere."""

from __future__ import annotations

from collections.abc import Callable

from nanobatch_gateway.domain import SealedKey
from nanobatch_runtime.ids import new_id
from nanobatch_runtime.keyring import Identity, Keyring, fingerprint


class Keys:
    """Seals keys for storage, which cannot read them."""

    def __init__(self, keyring: Keyring, secret: Callable[[], bytes]) -> None:
        """``secret`` gives the HMAC key of fingerprints, which all replicas share; it may raise StartingError."""
        self._keyring = keyring
        self._secret = secret

    def seal(self, user_id: str, provider: str, api_key: str) -> SealedKey:
        """Return the key encrypted for the user whose execution will use it, under a new credential id."""
        credential_id = new_id()
        identity = Identity("provider-key", user_id, credential_id)
        return SealedKey(credential_id, self._keyring.seal(api_key, identity), self.fingerprint(provider, api_key))

    def fingerprint(self, provider: str, api_key: str) -> str:
        """Return what finds the bucket of a key; an empty key gives that of a provider that needs none."""
        return fingerprint(self._secret(), provider, api_key)
