"""AccountService: users as admins manage them, and tokens as everybody manages their own."""

from __future__ import annotations

from nanobatch_gateway import tokens
from nanobatch_gateway.create import content_hash
from nanobatch_gateway.domain import Caller, CreatedToken, Message, NewToken, NewUser, Page, UserChange
from nanobatch_gateway.fields import Violations, page_size
from nanobatch_gateway.ports import ListScope, PageTokens, Tokens, Users

MAX_NAME_CHARACTERS = 255
LAST_ROLE = 2
_FIELDS = ("name", "role", "disabled", "daily_cap_micros")


class ManageUsers:
    """CreateUser, ListUsers, UpdateUser."""

    def __init__(self, users: Users, page_tokens: PageTokens) -> None:
        """Take what it works with."""
        self._users = users
        self._page_tokens = page_tokens

    async def create(self, caller: Caller, new: NewUser) -> Message:
        """Return the user. Raises InvalidRequestError."""
        found = Violations()
        found.id("request_id", new.request_id)
        _name(found, "name", new.name, required=True)
        _role(found, "role", new.role)
        found.not_negative("daily_cap_micros", new.daily_cap_micros)
        found.raise_any()
        content: dict[str, object] = {"name": new.name, "role": new.role, "daily_cap_micros": new.daily_cap_micros}
        return await self._users.create(caller, new, request_hash=content_hash("user", content))

    async def list(self, caller: Caller, *, size: int, token: str) -> Page:
        """Return a page whose cursor is a token. Raises InvalidRequestError."""
        found = Violations()
        wanted = page_size(found, size)
        found.raise_any()
        scope = ListScope("users", caller.user_id)
        page = await self._users.list(caller, size=wanted, cursor=self._page_tokens.open(scope, token))
        return Page(page.items, self._page_tokens.sign(scope, page.cursor))

    async def update(self, caller: Caller, change: UserChange) -> Message:
        """Return the changed user. Raises InvalidRequestError."""
        found = Violations()
        found.id("user.id", change.user_id, required=True)
        if not change.mask:
            found.add("update_mask", f"Name what is to change: {', '.join(_FIELDS)}.", "REQUIRED")
        for path in change.mask:
            if path not in _FIELDS:
                found.add("update_mask", f"Only {', '.join(_FIELDS)} can be changed.", "UNKNOWN_VALUE")
                break
        if "name" in change.mask:
            _name(found, "user.name", change.name, required=True)
        if "role" in change.mask:
            _role(found, "user.role", change.role, required=True)
        if "daily_cap_micros" in change.mask:
            found.not_negative("user.daily_cap_micros", change.daily_cap_micros)
        found.raise_any()
        return await self._users.update(caller, change)


class ManageTokens:
    """CreateToken, ListTokens, RevokeToken."""

    def __init__(self, tokens_: Tokens, page_tokens: PageTokens) -> None:
        """Take what it works with."""
        self._tokens = tokens_
        self._page_tokens = page_tokens

    async def create(self, caller: Caller, new: NewToken) -> CreatedToken:
        """Return the token: the only time that it is seen. Raises InvalidRequestError."""
        found = Violations()
        found.id("request_id", new.request_id)
        _name(found, "name", new.name)
        found.id("user_id", new.user_id)
        found.raise_any()
        owner = new.user_id or caller.user_id
        content: dict[str, object] = {"user": owner, "name": new.name, "expire_time": str(new.expire_time)}
        secret = tokens.new_token()
        message = await self._tokens.create(
            caller,
            new,
            owner=owner,
            request_hash=content_hash("token", content),
            digest=(tokens.digest(secret), tokens.shown(secret)),
        )
        return CreatedToken(message, secret)

    async def list(self, caller: Caller, user_id: str, *, size: int, token: str) -> Page:
        """Return a page whose cursor is a token; an empty user id is the caller's. Raises InvalidRequestError."""
        found = Violations()
        found.id("user_id", user_id)
        wanted = page_size(found, size)
        found.raise_any()
        owner = user_id or caller.user_id
        scope = ListScope("tokens", caller.user_id, owner)
        page = await self._tokens.list(caller, owner, size=wanted, cursor=self._page_tokens.open(scope, token))
        return Page(page.items, self._page_tokens.sign(scope, page.cursor))


def _name(found: Violations, field: str, value: str, *, required: bool = False) -> None:
    if required and not value.strip():
        found.add(field, "The name is missing.", "REQUIRED")
    if len(value) > MAX_NAME_CHARACTERS:
        found.add(field, f"The name is longer than {MAX_NAME_CHARACTERS} characters.", "TOO_LONG")
    found.plain_text(field, value, "The name")


def _role(found: Violations, field: str, value: int, *, required: bool = False) -> None:
    if required and not value:
        found.add(field, "The role is missing.", "REQUIRED")
    if not 0 <= value <= LAST_ROLE:
        found.add(field, f"There is no role number {value}.", "UNKNOWN_VALUE")
