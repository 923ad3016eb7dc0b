"""Users, tokens and shared secrets in storage, over gRPC."""

from __future__ import annotations

from datetime import datetime

import grpc
from google.protobuf import field_mask_pb2, timestamp_pb2

from nanobatch.gateway.v1 import account_pb2
from nanobatch.storage.v1 import account_service_pb2 as pb
from nanobatch.storage.v1 import account_service_pb2_grpc
from nanobatch_gateway import translate
from nanobatch_gateway.adapters.calls import ask_storage, limit
from nanobatch_gateway.domain import (
    AdminTokenTakenError,
    Caller,
    Digest,
    Message,
    NewToken,
    NewUser,
    Page,
    Session,
    UserChange,
)
from nanobatch_runtime.errors import RemoteError
from nanobatch_runtime.keyring import Sealed


class GrpcAccounts:
    """See :class:`nanobatch_gateway.ports.Accounts` and :class:`nanobatch_gateway.ports.Sessions`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = account_service_pb2_grpc.AccountServiceStub(channel)

    async def ensure_user(self, caller: Caller) -> None:
        """See :class:`nanobatch_gateway.ports.Accounts`."""
        request = pb.EnsureUserRequest(actor=translate.actor(caller), name=caller.name)
        await ask_storage(self._stub.EnsureUser(request, timeout=limit()))

    async def ensure_first_admin(self, caller: Caller, digest: Digest | None) -> bool:
        """See :class:`nanobatch_gateway.ports.Accounts`."""
        token = pb.TokenDigest(sha256=digest[0], prefix=digest[1]) if digest is not None else None
        request = pb.EnsureFirstAdminRequest(actor=translate.actor(caller), name=caller.name, token=token)
        try:
            return (await ask_storage(self._stub.EnsureFirstAdmin(request, timeout=limit()))).anybody
        except RemoteError as error:
            if error.reason == AdminTokenTakenError.reason:
                raise AdminTokenTakenError(error.message) from None
            raise

    async def ensure_secret(self, name: str, proposal: Sealed) -> Sealed:
        """See :class:`nanobatch_gateway.ports.Accounts`."""
        request = pb.EnsureSecretRequest(name=name, proposal=translate.encrypted_key(proposal))
        response = await ask_storage(self._stub.EnsureSecret(request, timeout=limit()))
        return translate.sealed_secret(response.value)

    async def open(self, sha256: bytes) -> Session:
        """See :class:`nanobatch_gateway.ports.Sessions`."""
        response = await ask_storage(self._stub.Authenticate(pb.AuthenticateRequest(sha256=sha256), timeout=limit()))
        caller = Caller(response.actor.user_id, admin=response.actor.admin, token_id=response.token_id)
        return Session(caller, response.remaining.ToTimedelta() if response.HasField("remaining") else None)

    async def who_am_i(self, caller: Caller) -> tuple[Message, Message | None]:
        """See :class:`nanobatch_gateway.ports.Accounts`."""
        request = pb.GetAccountRequest(actor=translate.actor(caller), token_id=caller.token_id)
        response = await ask_storage(self._stub.GetAccount(request, timeout=limit()))
        return response.user, response.token if response.HasField("token") else None


class GrpcUsers:
    """See :class:`nanobatch_gateway.ports.Users`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = account_service_pb2_grpc.AccountServiceStub(channel)

    async def create(self, caller: Caller, new: NewUser, *, request_hash: str) -> Message:
        """See :class:`nanobatch_gateway.ports.Users`."""
        request = pb.CreateUserRequest(
            actor=translate.actor(caller),
            request_id=new.request_id,
            request_hash=request_hash,
            name=new.name,
            role=account_pb2.Role.ValueType(new.role),
            daily_cap_micros=new.daily_cap_micros,
        )
        return (await ask_storage(self._stub.CreateUser(request, timeout=limit()))).user

    async def list(self, caller: Caller, *, size: int, cursor: str) -> Page:
        """See :class:`nanobatch_gateway.ports.Users`."""
        request = pb.ListUsersRequest(actor=translate.actor(caller), page_size=size, cursor=cursor)
        response = await ask_storage(self._stub.ListUsers(request, timeout=limit()))
        return Page(response.users, response.next_cursor)

    async def update(self, caller: Caller, change: UserChange) -> Message:
        """See :class:`nanobatch_gateway.ports.Users`."""
        user = account_pb2.User(
            id=change.user_id,
            name=change.name,
            role=account_pb2.Role.ValueType(change.role),
            disabled=change.disabled,
            daily_cap_micros=change.daily_cap_micros,
        )
        mask = field_mask_pb2.FieldMask(paths=change.mask)
        request = pb.UpdateUserRequest(actor=translate.actor(caller), user=user, update_mask=mask)
        return (await ask_storage(self._stub.UpdateUser(request, timeout=limit()))).user


class GrpcTokens:
    """See :class:`nanobatch_gateway.ports.Tokens`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take a channel to storage; it stays the caller's."""
        self._stub = account_service_pb2_grpc.AccountServiceStub(channel)

    async def create(self, caller: Caller, new: NewToken, *, owner: str, request_hash: str, digest: Digest) -> Message:
        """See :class:`nanobatch_gateway.ports.Tokens`."""
        request = pb.CreateTokenRequest(
            actor=translate.actor(caller),
            request_id=new.request_id,
            request_hash=request_hash,
            user_id=owner,
            name=new.name,
            token=pb.TokenDigest(sha256=digest[0], prefix=digest[1]),
            expire_time=_stamp(new.expire_time),
        )
        return (await ask_storage(self._stub.CreateToken(request, timeout=limit()))).token

    async def list(self, caller: Caller, owner: str, *, size: int, cursor: str) -> Page:
        """See :class:`nanobatch_gateway.ports.Tokens`."""
        request = pb.ListTokensRequest(actor=translate.actor(caller), user_id=owner, page_size=size, cursor=cursor)
        response = await ask_storage(self._stub.ListTokens(request, timeout=limit()))
        return Page(response.tokens, response.next_cursor)

    async def revoke(self, caller: Caller, token_id: str) -> Message:
        """See :class:`nanobatch_gateway.ports.Tokens`."""
        request = pb.RevokeTokenRequest(actor=translate.actor(caller), token_id=token_id)
        return (await ask_storage(self._stub.RevokeToken(request, timeout=limit()))).token


def _stamp(time: datetime | None) -> timestamp_pb2.Timestamp | None:
    if time is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp
