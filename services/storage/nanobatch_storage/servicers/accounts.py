"""AccountService: users, their tokens, and shared secrets."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.storage.v1 import account_service_pb2 as pb
from nanobatch.storage.v1 import account_service_pb2_grpc
from nanobatch_storage.ports import Accounts, Tokens, Users
from nanobatch_storage.servicers.paging import page_size
from nanobatch_storage.translate import (
    actor_from_proto,
    actor_to_proto,
    encrypted_key_from_proto,
    encrypted_key_to_proto,
)
from nanobatch_storage.translate_accounts import (
    digest_from_proto,
    new_token_from_proto,
    new_user_from_proto,
    token_to_proto,
    user_to_proto,
    user_update_from_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Translates, calls the port, translates back."""

    def __init__(self, accounts: Accounts, users: Users, tokens: Tokens) -> None:
        """Take the ports."""
        self._accounts = accounts
        self._users = users
        self._tokens = tokens

    async def EnsureUser(self, request: pb.EnsureUserRequest, context: Context) -> pb.EnsureUserResponse:
        """See the contract."""
        await self._accounts.ensure_user(actor_from_proto(request.actor), request.name)
        return pb.EnsureUserResponse()

    async def EnsureSecret(self, request: pb.EnsureSecretRequest, context: Context) -> pb.EnsureSecretResponse:
        """See the contract."""
        stored = await self._accounts.ensure_secret(request.name, encrypted_key_from_proto(request.proposal))
        return pb.EnsureSecretResponse(value=encrypted_key_to_proto(stored))

    async def EnsureFirstAdmin(
        self, request: pb.EnsureFirstAdminRequest, context: Context
    ) -> pb.EnsureFirstAdminResponse:
        """See the contract."""
        digest = digest_from_proto(request.token) if request.HasField("token") else None
        anybody = await self._tokens.ensure_first_admin(actor_from_proto(request.actor), request.name, digest)
        return pb.EnsureFirstAdminResponse(anybody=anybody)

    async def Authenticate(self, request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        """See the contract."""
        opened = await self._tokens.authenticate(request.sha256.hex())
        answer = pb.AuthenticateResponse(actor=actor_to_proto(opened.actor), token_id=opened.token_id)
        if opened.remaining is not None:
            answer.remaining.FromTimedelta(opened.remaining)
        return answer

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """See the contract."""
        account = await self._accounts.get(actor_from_proto(request.actor), request.token_id or None)
        token = token_to_proto(account.token) if account.token is not None else None
        return pb.GetAccountResponse(user=user_to_proto(account.user), token=token)

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        """See the contract."""
        user = await self._users.create(actor_from_proto(request.actor), new_user_from_proto(request))
        return pb.CreateUserResponse(user=user_to_proto(user))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """See the contract."""
        size = page_size(request.page_size)
        page = await self._users.list(actor_from_proto(request.actor), size, request.cursor)
        return pb.ListUsersResponse(users=[user_to_proto(user) for user in page.items], next_cursor=page.next_cursor)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        """See the contract."""
        user = await self._users.update(actor_from_proto(request.actor), user_update_from_proto(request))
        return pb.UpdateUserResponse(user=user_to_proto(user))

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """See the contract."""
        token = await self._tokens.create(actor_from_proto(request.actor), new_token_from_proto(request))
        return pb.CreateTokenResponse(token=token_to_proto(token))

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """See the contract."""
        size = page_size(request.page_size)
        page = await self._tokens.list(actor_from_proto(request.actor), request.user_id, size, request.cursor)
        shown = [token_to_proto(token) for token in page.items]
        return pb.ListTokensResponse(tokens=shown, next_cursor=page.next_cursor)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        """See the contract."""
        token = await self._tokens.revoke(actor_from_proto(request.actor), request.token_id)
        return pb.RevokeTokenResponse(token=token_to_proto(token))
