import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanobatch_runtime.keyring import Identity, Keyring, KeyringError, SealBrokenError, UnknownKeyError, fingerprint

ME = Identity("provider-key", "user-1", "credential-1")


def ring(count: int = 1) -> tuple[list[str], Keyring]:
    keys = [os.urandom(32).hex() for _ in range(count)]
    return keys, Keyring.parse(",".join(keys))


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=300))
def test_what_is_sealed_opens(secret):
    _, keys = ring()
    assert keys.open(keys.seal(secret, ME), ME) == secret


@pytest.mark.parametrize("other", [replace(ME, user_id="user-2"), replace(ME, record_id="x"), replace(ME, purpose="y")])
def test_a_record_moved_to_another_row_does_not_open(other):
    _, keys = ring()
    with pytest.raises(SealBrokenError):
        keys.open(keys.seal("secret", ME), other)


def test_parts_of_the_identity_cannot_be_shifted_into_each_other():
    _, keys = ring()
    sealed = keys.seal("secret", Identity("p", "ab", "c"))
    with pytest.raises(SealBrokenError):
        keys.open(sealed, Identity("p", "a", "bc"))


@pytest.mark.parametrize("part", ["encrypted", "iv", "auth_tag", "salt"])
def test_every_flipped_byte_and_every_cut_is_noticed(part):
    _, keys = ring()
    sealed = keys.seal("a provider key", ME)
    value = getattr(sealed, part)
    for position in range(len(value)):
        flipped = bytearray(value)
        flipped[position] ^= 1
        with pytest.raises(SealBrokenError):
            keys.open(replace(sealed, **{part: bytes(flipped)}), ME)
    with pytest.raises(SealBrokenError):
        keys.open(replace(sealed, **{part: value[:-1]}), ME)


def test_a_rotated_ring_opens_old_records_and_seals_with_the_first_key():
    (old,), before = ring()
    sealed = before.seal("secret", ME)
    after = Keyring.parse(f"{os.urandom(32).hex()},{old}")
    assert after.open(sealed, ME) == "secret"
    assert after.seal("secret", ME).key_id == after.key_ids[0] != sealed.key_id


def test_a_record_of_a_key_that_is_not_in_the_ring_names_the_key_id():
    _, one = ring()
    _, other = ring()
    sealed = one.seal("secret", ME)
    with pytest.raises(UnknownKeyError, match=sealed.key_id):
        other.open(sealed, ME)


def test_salt_and_nonce_are_new_each_time():
    _, keys = ring()
    sealed = [keys.seal("same", ME) for _ in range(200)]
    assert len({s.iv for s in sealed}) == len({s.salt for s in sealed}) == 200


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "a" * 63, "0" * 64, ","])
def test_an_unusable_encryption_key_is_refused_without_being_shown(text):
    with pytest.raises(KeyringError) as caught:
        Keyring.parse(text)
    assert not text.strip(",") or text not in str(caught.value)


def test_fingerprints_tell_keys_and_providers_apart_and_depend_on_the_secret():
    assert fingerprint(b"s", "gemini", "k") == fingerprint(b"s", "gemini", "k")
    assert (
        len({fingerprint(b"s", "gemini", "k"), fingerprint(b"s", "openai", "k"), fingerprint(b"t", "gemini", "k")}) == 3
    )
