"""Page tokens belong to one list of one user."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanobatch_gateway.adapters.signer_hmac import HmacPageTokens
from nanobatch_gateway.domain import InvalidRequestError
from nanobatch_gateway.ports import ListScope

TOKENS = HmacPageTokens(b"k" * 32)
SCOPE = ListScope("results", "user", "execution", ("1", "2"))


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_cursor_comes_back(cursor: str) -> None:
    token = TOKENS.sign(SCOPE, cursor)
    assert TOKENS.open(SCOPE, token) == cursor
    assert token.isascii()


@pytest.mark.parametrize(
    "other",
    [
        ListScope("executions", "user", "execution", ("1", "2")),
        ListScope("results", "another", "execution", ("1", "2")),
        ListScope("results", "user", "another", ("1", "2")),
        ListScope("results", "user", "execution", ("1",)),
        ListScope("results", "user", "execution", ("12",)),
        ListScope("results", "user", "execution"),
    ],
)
def test_a_token_of_another_list_is_refused(other: ListScope) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        TOKENS.open(other, TOKENS.sign(SCOPE, "cursor"))
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def test_a_token_of_another_server_is_refused() -> None:
    with pytest.raises(InvalidRequestError):
        HmacPageTokens(b"x" * 32).open(SCOPE, TOKENS.sign(SCOPE, "cursor"))


@given(st.text(min_size=1, max_size=80))
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError):
        TOKENS.open(SCOPE, token)


@given(st.integers(0, 50), st.integers(1, 255))
def test_one_changed_byte_is_refused(place: int, change: int) -> None:
    import base64  # noqa: PLC0415  # one use

    token = TOKENS.sign(SCOPE, "a cursor of some length")
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place] ^= change
    with pytest.raises(InvalidRequestError):
        TOKENS.open(SCOPE, base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
