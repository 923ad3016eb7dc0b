"""What is remembered of a token, and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nanobatch_gateway import authenticate, tokens
from nanobatch_gateway.authenticate import TokenAuthenticator
from nanobatch_gateway.domain import Caller, Session, TokenMalformedError
from nanobatch_runtime.errors import UnauthenticatedError


class Storage:
    """Knows some tokens, and counts questions."""

    def __init__(self) -> None:
        self.known: dict[bytes, Session] = {}
        self.asked = 0

    def add(self, token: str, remaining: timedelta | None = None) -> str:
        self.known[tokens.digest(token)] = Session(Caller(token[-8:], admin=False), remaining)
        return token

    async def open(self, sha256: bytes) -> Session:
        self.asked += 1
        if sha256 not in self.known:
            raise UnauthenticatedError("Unknown.", reason="TOKEN_INVALID")
        return self.known[sha256]


class Time:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def time() -> Time:
    return Time()


def shown(token: str):
    return [("user-agent", "x"), ("authorization", f"Bearer {token}")]


async def test_storage_is_asked_once_in_ten_seconds(storage, time) -> None:
    door = TokenAuthenticator(storage, monotonic=time)
    token = storage.add(tokens.new_token())
    for _ in range(100):
        assert (await door.authenticate(shown(token))).user_id == token[-8:]
    time.now += 9.9
    await door.authenticate(shown(token))
    assert storage.asked == 1
    time.now += 0.1
    storage.known.clear()  # revoked
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            await door.authenticate(shown(token))
    assert storage.asked == 4  # what is refused is not remembered


async def test_a_token_that_ends_sooner_is_remembered_no_longer(storage, time) -> None:
    door = TokenAuthenticator(storage, monotonic=time)
    token = storage.add(tokens.new_token(), timedelta(seconds=3))
    await door.authenticate(shown(token))
    time.now += 3
    storage.known.clear()
    with pytest.raises(UnauthenticatedError):
        await door.authenticate(shown(token))


async def test_memory_is_bounded_and_keeps_what_is_in_use(storage, time, monkeypatch) -> None:
    monkeypatch.setattr(authenticate, "_MOST", 3)
    door = TokenAuthenticator(storage, monotonic=time)
    first, *others = [storage.add(tokens.new_token()) for _ in range(5)]
    await door.authenticate(shown(first))
    for token in others:
        await door.authenticate(shown(token))
        await door.authenticate(shown(first))
    assert storage.asked == 5
    await door.authenticate(shown(others[0]))
    assert storage.asked == 6


async def test_what_is_no_token_costs_storage_nothing(storage, time) -> None:
    operators = "0123456789abcdef" * 2
    door = TokenAuthenticator(storage, operators_token=operators, monotonic=time)
    for text in ("", "x", operators[:-1], tokens.new_token()[:-1], f"{tokens.new_token()} ", "é"):
        with pytest.raises(TokenMalformedError):
            await door.authenticate(shown(text))
    assert storage.asked == 0
    storage.add(operators)
    assert (await door.authenticate(shown(operators))).user_id == operators[-8:]
    assert (await door.authenticate([("authorization", f"bearer {operators}")])).user_id == operators[-8:]
