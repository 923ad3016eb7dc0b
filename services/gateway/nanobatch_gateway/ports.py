"""What the use cases need from outside.

Whatever talks to storage raises storage's own answer unchanged (:class:`~nanobatch_runtime.errors.RemoteError`), and
:class:`~nanobatch_gateway.domain.StorageUnavailableError` where there was none. What a caller may not see is answered
exactly like what does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from nanobatch_gateway.domain import (
    Caller,
    Digest,
    ExportedRun,
    KeyVerdict,
    Message,
    NewExecution,
    NewToken,
    NewUser,
    Page,
    Picture,
    PromptEdit,
    SealedKey,
    Session,
    StoredExecution,
    Update,
    UploadKind,
    UsageQuery,
    UserChange,
)
from nanobatch_runtime.keyring import Sealed


class Executions(Protocol):
    """Executions as their owner sees them."""

    async def create(self, caller: Caller, new: NewExecution) -> Message:
        """Store it with all its results and return the execution; a repeat returns the stored one."""
        ...

    async def get(self, caller: Caller, execution_id: str) -> StoredExecution:
        """Return one."""
        ...

    async def list(self, caller: Caller, *, size: int, cursor: str) -> Page:
        """Return a page, newest first."""
        ...

    async def delete(self, caller: Caller, execution_id: str) -> None:
        """Delete a final one."""
        ...


class Controls(Protocol):
    """What can be done to a running execution. Each answers with the public response."""

    async def cancel(self, caller: Caller, execution_id: str) -> Message:
        """Cancel all that has not been sent."""
        ...

    async def pause(self, caller: Caller, execution_id: str) -> Message:
        """Start no further calls."""
        ...

    async def resume(
        self, caller: Caller, execution_id: str, *, key: SealedKey | None, max_cost_micros: int | None
    ) -> Message:
        """Go on, with another key or cap where given."""
        ...

    async def retry(
        self,
        caller: Caller,
        execution_id: str,
        *,
        request_id: str,
        request_hash: str,
        result_ids: Sequence[str],
        edits: Sequence[PromptEdit],
        key: SealedKey | None,
    ) -> Message:
        """Bring the named results (none: all failed ones) back to PENDING."""
        ...


class Results(Protocol):
    """Results as their owner sees them."""

    async def get(self, caller: Caller, result_id: str) -> Message:
        """Return one."""
        ...

    async def list(self, caller: Caller, execution_id: str, *, states: Sequence[int], size: int, cursor: str) -> Page:
        """Return a page by batch index and variation; no ``states`` mean all."""
        ...


class Exports(Protocol):
    """Executions as archives tell of them."""

    async def read(self, caller: Caller, execution_id: str) -> ExportedRun:
        """Return one with all its results."""
        ...


class Latencies(Protocol):
    """The latency history of models."""

    async def median(self, model: str) -> timedelta | None:
        """Return how long a successful call takes; None where there is no history."""
        ...


class ServerStats(Protocol):
    """What storage knows of how the server is doing."""

    async def server_stats(self, caller: Caller) -> Message:
        """Return it. Raises AdminOnlyError, StorageUnavailableError."""
        ...


class UsageReports(Protocol):
    """The ledger of calls, added up."""

    async def usage(self, caller: Caller, query: UsageQuery) -> Message:
        """Return rows and totals."""
        ...


class Images(Protocol):
    """Stored pictures."""

    async def find(self, caller: Caller, image_ids: Collection[str]) -> dict[str, Message]:
        """Return by id those that exist and that the caller may see."""
        ...

    async def put(self, caller: Caller, image_id: str, kind: UploadKind, picture: Picture, path: Path) -> Message:
        """Store the file at ``path`` under a new id and return its description."""
        ...

    def read(self, caller: Caller, image_id: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Open a picture: its description first, then its bytes, as messages of the public download stream."""
        ...

    def read_part(
        self, caller: Caller, image_id: str, first: int, last: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open the bytes from ``first`` to ``last`` of a picture, both inside and included."""
        ...


class Accounts(Protocol):
    """Users, and secrets that all replicas share."""

    async def ensure_user(self, caller: Caller) -> None:
        """Make sure that the user exists."""
        ...

    async def ensure_first_admin(self, caller: Caller, digest: Digest | None) -> bool:
        """Make the digest the one operator's token of the caller (None: there is none); say whether anybody can log in.

        Raises AdminTokenTakenError.
        """
        ...

    async def who_am_i(self, caller: Caller) -> tuple[Message, Message | None]:
        """Return the user, and the token that was used."""
        ...

    async def ensure_secret(self, name: str, proposal: Sealed) -> Sealed:
        """Store the proposal unless there is a secret of that name, and return the stored one."""
        ...


class Sessions(Protocol):
    """What storage knows of tokens."""

    async def open(self, sha256: bytes) -> Session:
        """Return whose token it is; where it opens nothing, storage's answer is UNAUTHENTICATED."""
        ...


class Users(Protocol):
    """Users, as admins manage them. Each answers with the user's message."""

    async def create(self, caller: Caller, new: NewUser, *, request_hash: str) -> Message:
        """Store one; a repeat returns the stored one."""
        ...

    async def list(self, caller: Caller, *, size: int, cursor: str) -> Page:
        """Return a page, oldest first."""
        ...

    async def update(self, caller: Caller, change: UserChange) -> Message:
        """Change what the mask names."""
        ...


class Tokens(Protocol):
    """Tokens. Each answers with the token's message."""

    async def create(self, caller: Caller, new: NewToken, *, owner: str, request_hash: str, digest: Digest) -> Message:
        """Store a token of ``owner``."""
        ...

    async def list(self, caller: Caller, owner: str, *, size: int, cursor: str) -> Page:
        """Return a page of those of ``owner``, oldest first."""
        ...

    async def revoke(self, caller: Caller, token_id: str) -> Message:
        """Make it stop working."""
        ...


class Changes(Protocol):
    """A place where an execution can be followed: a generator, or storage."""

    def follow(self, execution_id: str, after_revision: int) -> AbstractAsyncContextManager[AsyncIterator[Update]]:
        """Open the stream of changes after a revision; leaving the context ends the call upstream.

        It is opened as admin, for watchers of several users: each of them is checked on their own before they join.

        The stream ends when the execution has. It raises SourceLostError where it breaks off and can be gone on with
        elsewhere, and the other side's own error where that is about the execution (NOT_FOUND, OUT_OF_RANGE).
        """
        ...


class Presence(Protocol):
    """Whether any generator is there."""

    async def wait(self) -> None:
        """Return as soon as a generator is connected; at once when one is. Asks nobody: it is told."""
        ...


class KeyChecks(Protocol):
    """Asks a provider about a key, at no cost."""

    async def check(self, provider: str, model: str, api_key: str) -> KeyVerdict:
        """Return what the provider says. Raises GeneratorUnavailableError where no generator can ask it."""
        ...


class Pictures(Protocol):
    """Checks and cleans pictures that strangers sent."""

    async def prepare_upload(self, path: Path, out_path: Path, *, name: str) -> Picture:
        """Decode the file whole, apply its orientation, drop camera data and write the clean picture to ``out_path``.

        Raises InvalidRequestError where it is no picture that we take; ``name`` is what to call it in the sentence.
        """
        ...


@dataclass(frozen=True, slots=True)
class ListScope:
    """Which list a page token belongs to."""

    list: str
    user_id: str
    parent_id: str = ""
    filters: tuple[str, ...] = ()


class PageTokens(Protocol):
    """Makes cursors safe to hand out."""

    def sign(self, scope: ListScope, cursor: str) -> str:
        """Return the token for a cursor; empty for an empty cursor."""
        ...

    def open(self, scope: ListScope, token: str) -> str:
        """Return the cursor. Raises InvalidRequestError (``page_token``) for a token of another list, user or server."""
        ...


@dataclass(frozen=True, slots=True)
class Beat:
    """What the shared counters say of themselves."""

    gateways: int
    """How many gateways have beaten in the last ten seconds."""
    epoch: str
    """Another one whenever the counters were emptied."""


class Counters(Protocol):
    """Counts that all gateways share. Answers in time or not at all; raises nothing."""

    async def take(self, key: str, allowance: int) -> float | None:
        """Count one of ``allowance`` a minute and return 0, or the seconds until there is room; None: no answer."""
        ...

    async def beat(self) -> Beat | None:
        """Say that this gateway is there; None: no answer."""
        ...


@dataclass(frozen=True, slots=True)
class PictureLink:
    """What a signed address allows: one picture, seen as its maker saw it, under a file name, for some seconds more."""

    caller: Caller
    name: str
    seconds_left: int


class PictureLinks(Protocol):
    """Makes addresses of pictures that open without a login, and recognises them."""

    def sign(self, caller: Caller, image_id: str, name: str) -> str:
        """Return the address of a picture that ``caller`` may see; the same all day. ``name`` is a file name's stem."""
        ...

    def open(self, image_id: str, query: Mapping[str, str]) -> PictureLink:
        """Return what an address allows. Raises LinkInvalidError where it was changed, has expired or is not ours."""
        ...
