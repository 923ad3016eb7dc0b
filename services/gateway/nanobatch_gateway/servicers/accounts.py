"""AccountService."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.gateway.v1 import account_service_pb2 as pb
from nanobatch.gateway.v1 import account_service_pb2_grpc
from nanobatch_gateway import translate_accounts
from nanobatch_gateway.accounts import ManageTokens, ManageUsers
from nanobatch_gateway.auth import current_caller
from nanobatch_gateway.fields import required_id
from nanobatch_gateway.ports import Accounts, Tokens

Context = grpc.aio.ServicerContext[Any, Any]


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Users and tokens over gRPC; the contract stands in the proto."""

    def __init__(
        self, accounts: Accounts, tokens: Tokens, *, manage_users: ManageUsers, manage_tokens: ManageTokens
    ) -> None:
        """Take the ports and use cases."""
        self._accounts = accounts
        self._tokens = tokens
        self._manage_users = manage_users
        self._manage_tokens = manage_tokens

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        """See the proto."""
        user, token = await self._accounts.who_am_i(current_caller())
        return pb.WhoAmIResponse(user=user, token=token)

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        """See the proto."""
        user = await self._manage_users.create(current_caller(), translate_accounts.new_user(request))
        return pb.CreateUserResponse(user=user)

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        """See the proto."""
        page = await self._manage_users.list(current_caller(), size=request.page_size, token=request.page_token)
        return pb.ListUsersResponse(users=page.items, next_page_token=page.cursor)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        """See the proto."""
        user = await self._manage_users.update(current_caller(), translate_accounts.user_change(request))
        return pb.UpdateUserResponse(user=user)

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Context) -> pb.CreateTokenResponse:
        """See the proto."""
        created = await self._manage_tokens.create(current_caller(), translate_accounts.new_token(request))
        return pb.CreateTokenResponse(token=created.token, secret=created.secret)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Context) -> pb.ListTokensResponse:
        """See the proto."""
        page = await self._manage_tokens.list(
            current_caller(), request.user_id, size=request.page_size, token=request.page_token
        )
        return pb.ListTokensResponse(tokens=page.items, next_page_token=page.cursor)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Context) -> pb.RevokeTokenResponse:
        """See the proto."""
        token_id = required_id("token_id", request.token_id)
        return pb.RevokeTokenResponse(token=await self._tokens.revoke(current_caller(), token_id))
