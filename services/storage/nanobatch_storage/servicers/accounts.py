"""AccountService: users and shared secrets."""

from __future__ import annotations

from typing import Any

import grpc

from nanobatch.storage.v1 import account_service_pb2 as pb
from nanobatch.storage.v1 import account_service_pb2_grpc
from nanobatch_storage.ports import Accounts
from nanobatch_storage.translate import actor_from_proto, encrypted_key_from_proto, encrypted_key_to_proto

Context = grpc.aio.ServicerContext[Any, Any]


class AccountServicer(account_service_pb2_grpc.AccountServiceServicer):
    """Translates, calls the port, translates back."""

    def __init__(self, accounts: Accounts) -> None:
        """Take the port."""
        self._accounts = accounts

    async def EnsureUser(self, request: pb.EnsureUserRequest, context: Context) -> pb.EnsureUserResponse:
        """See the contract."""
        await self._accounts.ensure_user(actor_from_proto(request.actor), request.name)
        return pb.EnsureUserResponse()

    async def EnsureSecret(self, request: pb.EnsureSecretRequest, context: Context) -> pb.EnsureSecretResponse:
        """See the contract."""
        stored = await self._accounts.ensure_secret(request.name, encrypted_key_from_proto(request.proposal))
        return pb.EnsureSecretResponse(value=encrypted_key_to_proto(stored))
