"""Users and their tokens as storage thinks of them. No I/O, no protobuf, no SQL."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from nanobatch_storage.domain import Actor


class Role(StrEnum):
    """See ``nanobatch.gateway.v1.Role``."""

    CLIENT = "CLIENT"
    ADMIN = "ADMIN"


@dataclass(frozen=True, slots=True)
class User:
    """See ``nanobatch.gateway.v1.User``."""

    id: str
    name: str
    role: Role
    disabled: bool
    daily_cap_micros: int | None
    create_time: datetime


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be made; ``request_id`` None: every call makes one."""

    name: str
    role: Role = Role.CLIENT
    daily_cap_micros: int | None = None
    request_id: str | None = None
    request_hash: str = ""


USER_FIELDS = frozenset({"name", "role", "disabled", "daily_cap_micros"})
"""What an update may name."""


@dataclass(frozen=True, slots=True)
class UserUpdate:
    """New values of the fields that ``mask`` names; the others mean nothing."""

    user_id: str
    mask: Collection[str]
    name: str = ""
    role: Role = Role.CLIENT
    disabled: bool = False
    daily_cap_micros: int | None = None


@dataclass(frozen=True, slots=True)
class TokenDigest:
    """What is kept of a token: its SHA-256 in hex, and its first characters for people."""

    sha256: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Token:
    """See ``nanobatch.gateway.v1.Token``."""

    id: str
    user_id: str
    name: str
    prefix: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    last_use_time: datetime | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to be stored; ``request_id`` None: every call makes one."""

    user_id: str
    name: str
    digest: TokenDigest
    expire_time: datetime | None = None
    request_id: str | None = None
    request_hash: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """Whose token it is, and how long it will still work (None: for ever)."""

    actor: Actor
    token_id: str
    remaining: timedelta | None


@dataclass(frozen=True, slots=True)
class Account:
    """The acting user, and the token that was used."""

    user: User
    token: Token | None
