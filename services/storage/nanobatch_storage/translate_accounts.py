"""Users and tokens: protobuf to domain and back."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import timestamp_pb2

from nanobatch.gateway.v1 import account_pb2
from nanobatch.storage.v1 import account_service_pb2 as pb
from nanobatch_storage.accounts import NewToken, NewUser, Role, Token, TokenDigest, User, UserUpdate


def user_to_proto(user: User) -> account_pb2.User:
    """Return the wire form."""
    message = account_pb2.User(
        id=user.id,
        name=user.name,
        role=account_pb2.Role.Value(f"ROLE_{user.role}"),
        disabled=user.disabled,
        daily_cap_micros=user.daily_cap_micros,
    )
    message.create_time.FromDatetime(user.create_time)
    return message


def token_to_proto(token: Token) -> account_pb2.Token:
    """Return the wire form."""
    return account_pb2.Token(
        id=token.id,
        user_id=token.user_id,
        name=token.name,
        prefix=token.prefix,
        create_time=_stamp(token.create_time),
        expire_time=_stamp(token.expire_time),
        revoke_time=_stamp(token.revoke_time),
        last_use_time=_stamp(token.last_use_time),
    )


def digest_from_proto(message: pb.TokenDigest) -> TokenDigest:
    """Return the domain's form."""
    return TokenDigest(message.sha256.hex(), message.prefix)


def new_user_from_proto(request: pb.CreateUserRequest) -> NewUser:
    """Return the domain's form."""
    return NewUser(
        name=request.name,
        role=_role(request.role),
        daily_cap_micros=request.daily_cap_micros if request.HasField("daily_cap_micros") else None,
        request_id=request.request_id or None,
        request_hash=request.request_hash,
    )


def user_update_from_proto(request: pb.UpdateUserRequest) -> UserUpdate:
    """Return the domain's form."""
    user = request.user
    return UserUpdate(
        user_id=user.id,
        mask=frozenset(request.update_mask.paths),
        name=user.name,
        role=_role(user.role),
        disabled=user.disabled,
        daily_cap_micros=user.daily_cap_micros if user.HasField("daily_cap_micros") else None,
    )


def new_token_from_proto(request: pb.CreateTokenRequest) -> NewToken:
    """Return the domain's form."""
    expire_time: datetime | None = None
    if request.HasField("expire_time"):
        expire_time = request.expire_time.ToDatetime(tzinfo=UTC)
    return NewToken(
        user_id=request.user_id,
        name=request.name,
        digest=digest_from_proto(request.token),
        expire_time=expire_time,
        request_id=request.request_id or None,
        request_hash=request.request_hash,
    )


def _role(role: account_pb2.Role.ValueType) -> Role:
    return Role.ADMIN if role == account_pb2.ROLE_ADMIN else Role.CLIENT


def _stamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    if time is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp
