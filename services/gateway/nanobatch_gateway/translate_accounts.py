"""Users and tokens: from the public contract to what use cases think in. Pure."""

from __future__ import annotations

from nanobatch.gateway.v1 import account_service_pb2 as pb
from nanobatch_gateway.domain import NewToken, NewUser, UserChange
from nanobatch_gateway.times import instant


def new_user(request: pb.CreateUserRequest) -> NewUser:
    """Return the user that a client asks for, unchecked."""
    return NewUser(
        name=request.name,
        role=request.role,
        daily_cap_micros=request.daily_cap_micros if request.HasField("daily_cap_micros") else None,
        request_id=request.request_id,
    )


def user_change(request: pb.UpdateUserRequest) -> UserChange:
    """Return the change that a client asks for, unchecked."""
    user = request.user
    return UserChange(
        user_id=user.id,
        mask=tuple(request.update_mask.paths),
        name=user.name,
        role=user.role,
        disabled=user.disabled,
        daily_cap_micros=user.daily_cap_micros if user.HasField("daily_cap_micros") else None,
    )


def new_token(request: pb.CreateTokenRequest) -> NewToken:
    """Return the token that a client asks for, unchecked; a time before 1970 is past all the same."""
    expire_time = instant(request.expire_time) if request.HasField("expire_time") else None
    return NewToken(user_id=request.user_id, name=request.name, expire_time=expire_time, request_id=request.request_id)
