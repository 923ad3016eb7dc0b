"""The calls about users and tokens."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import TYPE_CHECKING

from google.protobuf.field_mask_pb2 import FieldMask

from nanobatch.gateway.v1 import account_pb2
from nanobatch.gateway.v1 import account_service_pb2 as pb
from nanobatch.gateway.v1.account_service_pb2_grpc import AccountServiceStub
from nanobatch_client import _numbers, _translate
from nanobatch_client._transport import Transport
from nanobatch_client.models import Account, CreatedToken, Role, Token, User

if TYPE_CHECKING:  # this name stands in the stubs' types only
    from nanobatch.gateway.v1.account_service_pb2_grpc import AccountServiceAsyncStub

_PAGE = 200


class AccountCalls:
    """Part of :class:`~nanobatch_client.client.Client`."""

    @property
    def _transport(self) -> Transport:
        raise NotImplementedError  # Client has it

    @property
    def _accounts(self) -> AccountServiceAsyncStub:
        return AccountServiceStub(self._transport.channel)

    async def who_am_i(self) -> Account:
        """Return the user in whose name calls are made, and the token that says so."""
        response = await self._transport.call(self._accounts.WhoAmI, pb.WhoAmIRequest(), safe=True)
        token = _translate.token(response.token) if response.HasField("token") else None
        return Account(_translate.user(response.user), token)

    async def create_user(
        self,
        name: str,
        *,
        role: Role = Role.CLIENT,
        daily_cap_micros: int | None = None,
        request_id: str | None = None,
    ) -> User:
        """Make a user; only admins may. They can do nothing before :meth:`create_token` has made a token for them.

        Args:
            name: for people; need not be unique.
            role: what they may do.
            daily_cap_micros: most that may be spent for them in a day; None: no limit.
            request_id: a UUID that makes a repeat of this very call safe. Default: a new one.
        """
        _numbers.require_room(_numbers.too_large(pb.CreateUserRequest, {"daily_cap_micros": daily_cap_micros}))
        request = pb.CreateUserRequest(
            request_id=request_id or str(uuid.uuid4()),
            name=name,
            role=account_pb2.Role.Value(f"ROLE_{role.name}"),
            daily_cap_micros=daily_cap_micros,
        )
        response = await self._transport.call(self._accounts.CreateUser, request, safe=True)
        return _translate.user(response.user)

    async def list_users(self) -> AsyncGenerator[User, None]:
        """Iterate over all users, oldest first; only admins may."""
        token = ""
        while True:
            request = pb.ListUsersRequest(page_size=_PAGE, page_token=token)
            page = await self._transport.call(self._accounts.ListUsers, request, safe=True)
            for user in page.users:
                yield _translate.user(user)
            token = page.next_page_token
            if not token:
                return

    async def update_user(
        self,
        user_id: str,
        *,
        name: str | None = None,
        role: Role | None = None,
        disabled: bool | None = None,
        daily_cap_micros: int | None = None,
        no_daily_cap: bool = False,
    ) -> User:
        """Change what is given of a user; only admins may.

        Raises:
            NotFoundError: there is no such user.
            FailedPreconditionError: admins cannot disable or demote themselves (``OWN_ACCOUNT``).
        """
        _numbers.require_room(_numbers.too_large(account_pb2.User, {"daily_cap_micros": daily_cap_micros}, "user."))
        given = {"name": name, "role": role, "disabled": disabled, "daily_cap_micros": daily_cap_micros}
        mask = [path for path, value in given.items() if value is not None]
        user = account_pb2.User(
            id=user_id,
            name=name or "",
            role=account_pb2.Role.Value(f"ROLE_{(role or Role.UNSPECIFIED).name}"),
            disabled=bool(disabled),
            daily_cap_micros=daily_cap_micros,
        )
        if no_daily_cap:
            mask.append("daily_cap_micros")
            user.ClearField("daily_cap_micros")
        request = pb.UpdateUserRequest(user=user, update_mask=FieldMask(paths=mask))
        response = await self._transport.call(self._accounts.UpdateUser, request, safe=True)
        return _translate.user(response.user)

    async def create_token(
        self,
        name: str = "",
        *,
        user_id: str | None = None,
        expire_time: datetime | None = None,
        request_id: str | None = None,
    ) -> CreatedToken:
        """Make a bearer token; ``secret`` of the answer is the token, and nobody can see it again.

        Args:
            name: for people, such as where it is used.
            user_id: whose calls it will make. Default: the caller's own; only admins may name somebody else.
            expire_time: when it stops working, with a time zone. Default: never.
            request_id: a UUID that keeps a repeat of this very call from making a second one. Default: a new one.

        Raises:
            ConflictError: this ``request_id`` has made a token already (``TOKEN_SHOWN``).
        """
        request = pb.CreateTokenRequest(request_id=request_id or str(uuid.uuid4()), name=name, user_id=user_id or "")
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        response = await self._transport.call(self._accounts.CreateToken, request)
        return CreatedToken(_translate.token(response.token), response.secret)

    async def list_tokens(self, user_id: str | None = None) -> AsyncGenerator[Token, None]:
        """Iterate over the tokens of a user (default: one's own), oldest first, also those that no longer work."""
        page_token = ""
        while True:
            request = pb.ListTokensRequest(page_size=_PAGE, page_token=page_token, user_id=user_id or "")
            page = await self._transport.call(self._accounts.ListTokens, request, safe=True)
            for token in page.tokens:
                yield _translate.token(token)
            page_token = page.next_page_token
            if not page_token:
                return

    async def revoke_token(self, token_id: str) -> Token:
        """Make a token stop working: for new calls within 10 s, for open streams within 30 s."""
        request = pb.RevokeTokenRequest(token_id=token_id)
        response = await self._transport.call(self._accounts.RevokeToken, request, safe=True)
        return _translate.token(response.token)
