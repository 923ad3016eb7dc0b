"""The shape of tokens."""

from __future__ import annotations

import re

from nanobatch_gateway import tokens


def test_a_token_is_what_scanners_look_for_and_no_two_are_alike() -> None:
    made = {tokens.new_token() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"nbt_[0-9A-Za-z]{49}", token) and tokens.is_token(token) for token in made)


def test_a_mistyped_or_cut_token_is_told_without_asking_anybody() -> None:
    token = tokens.new_token()
    for place in range(len(token)):
        other = "0" if token[place] != "0" else "1"
        assert not tokens.is_token(token[:place] + other + token[place + 1 :]), place
        assert not tokens.is_token(token[:place])
    swapped = token[:10] + token[11] + token[10] + token[12:]
    assert swapped == token or not tokens.is_token(swapped)
    for wrong in ("", token + "0", f" {token}", token.upper(), "nbt_" + "é" * 49):
        assert not tokens.is_token(wrong)


def test_what_people_see_of_a_token_lets_nobody_in() -> None:
    token = tokens.new_token()
    assert tokens.shown(token) == token[:8]
    assert len(tokens.shown("x" * 64)) == 4
    assert tokens.digest(token) != tokens.digest(tokens.new_token())
    assert len(tokens.digest(token)) == 32
