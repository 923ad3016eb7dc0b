"""What the use cases need from the outside. The docstrings are the specification; one suite tests all adapters by it.

Everywhere: what the actor may not see does not exist, a malformed id is an unknown one, and every write is one
transaction that happens whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from typing import Protocol

from nanobatch_storage.accounts import Account, NewToken, NewUser, Opened, Token, TokenDigest, User, UserUpdate
from nanobatch_storage.domain import Actor, EncryptedKey, Execution, Image, NewCredential, NewExecution, ResultState
from nanobatch_storage.stats import QueueStats
from nanobatch_storage.usage import UsageQuery, UsageReport
from nanobatch_storage.views import (
    Cancellation,
    Changes,
    ExecutionView,
    Latency,
    ListedExecution,
    Page,
    ResultView,
    Retry,
)


class Executions(Protocol):
    """Executions and results: made and read."""

    async def create(self, actor: Actor, new: NewExecution) -> tuple[Execution, bool]:
        """Store an execution with all its results; returns it, and whether it is new.

        The same request id with the same hash gives the stored one, however many ask at once. Raises
        RequestIdReusedError for the same id with another hash, UserNotFoundError, and InvalidArgumentError with a
        violation for every image, workflow and parent that is not the user's.
        """
        ...

    async def get(self, actor: Actor, execution_id: str) -> ExecutionView:
        """Return an execution. Raises ExecutionNotFoundError."""
        ...

    async def list(self, actor: Actor, page_size: int, cursor: str) -> Page[ListedExecution]:
        """Return a page, newest first; what is created meanwhile shifts nothing. Raises InvalidArgumentError (cursor)."""
        ...

    async def list_results(
        self, actor: Actor, execution_id: str, page_size: int, cursor: str, states: Collection[ResultState]
    ) -> Page[ResultView]:
        """Return a page by (batch_index, variation); no states: all. Raises ExecutionNotFoundError, InvalidArgumentError."""
        ...

    async def get_result(self, actor: Actor, result_id: str) -> ResultView:
        """Return one result. Raises ResultNotFoundError."""
        ...

    async def latency(self, model: str) -> Latency:
        """Return how long the last 200 successful calls of a model took."""
        ...


class Control(Protocol):
    """What a user may do to an execution. All raise ExecutionNotFoundError."""

    async def cancel(self, actor: Actor, execution_id: str) -> Cancellation:
        """Make every result that is not final CANCELLED. Calls that are out may still bring their picture.

        A final execution stays as it is.
        """
        ...

    async def pause(self, actor: Actor, execution_id: str) -> Execution:
        """Start no more calls. Raises ExecutionFinalError."""
        ...

    async def resume(
        self, actor: Actor, execution_id: str, credential: NewCredential | None, max_cost_micros: int | None
    ) -> Execution:
        """Go on after a pause, with another key and cap where given. One that runs takes key and cap, and runs on.

        Raises ExecutionFinalError, and KeyNeededError where there is no key.
        """
        ...

    async def retry(self, actor: Actor, execution_id: str, retry: Retry) -> tuple[Execution, int]:
        """Bring results back to PENDING on the same rows and reopen the execution; returns it and how many.

        The same request id with the same hash is answered as the first time. Raises RequestIdReusedError, KeyNeededError,
        FailedPreconditionError (NOTHING_TO_RETRY, CALL_STILL_OPEN), and InvalidArgumentError with a violation for every
        result that cannot be retried and every edit of one that is not.
        """
        ...

    async def delete(self, actor: Actor, execution_id: str) -> Sequence[str]:
        """Remove a final execution with results and generated images; returns the paths of their blobs.

        The ledger stays. Raises ExecutionActiveError while a result or a call is open.
        """
        ...


class ChangeLog(Protocol):
    """The revisions of an execution."""

    async def since(self, actor: Actor, execution_id: str, revision: int) -> Changes:
        """Return rows with a higher revision in ascending order, a page at most, without a gap before ``upto``.

        Raises ExecutionNotFoundError.
        """
        ...


class Images(Protocol):
    """Rows of pictures."""

    async def add(self, image: Image) -> Image:
        """Store the row of an upload with the database's time as ``create_time``, to expire a day later.

        Raises UserNotFoundError, and ImageExistsError where the id is taken.
        """
        ...

    async def get_many(self, actor: Actor, image_ids: Collection[str]) -> Sequence[Image]:
        """Return those that exist and that the actor may see, in no order."""
        ...

    async def take_expired(self, limit: int) -> Sequence[Image]:
        """Remove rows whose time is up, at most ``limit``, and return them."""
        ...

    async def named(self, paths: Collection[str]) -> set[str]:
        """Return those blob paths that a row names."""
        ...


NewBlob = tuple[str, AsyncIterator[bytes]]
"""A path, and the chunks that are to lie there."""


class Blobs(Protocol):
    """Bytes by path. What is written is there, whole and lasting, or not at all.

    Every method raises BlobsUnavailableError where the store does not answer or refuses us, and DiskFullError.
    """

    async def write(self, files: Sequence[NewBlob]) -> None:
        """Store files, reading their chunks one after the other. Overwrites.

        Whatever chunks raise comes out; nothing is left of their file, and perhaps of those before it.
        """
        ...

    def read(self, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Iterate over the bytes from ``offset`` on, which must be inside, in chunks of at most 256 KiB.

        Raises BlobMissingError before the first.
        """
        ...

    async def delete(self, path: str) -> None:
        """Remove it; it is fine where there is none."""
        ...

    def older_than(self, time: datetime) -> AsyncIterator[Sequence[str]]:
        """Iterate over batches of paths last written before ``time``."""
        ...

    async def delete_if_older(self, path: str, time: datetime) -> bool:
        """Remove it unless it was written since ``time``; returns whether it was removed."""
        ...

    async def probe(self) -> None:
        """Write something, read it back and remove it."""
        ...


class Accounts(Protocol):
    """Users, and secrets that all replicas share."""

    async def ensure_user(self, actor: Actor, name: str) -> None:
        """Make the user unless there is one. Raises InvalidArgumentError for an id that is no UUID."""
        ...

    async def ensure_secret(self, name: str, proposal: EncryptedKey) -> EncryptedKey:
        """Store the proposal unless a secret of that name exists; returns the stored one, the same for all who ask."""
        ...

    async def get(self, actor: Actor, token_id: str | None) -> Account:
        """Return the acting user and the token that was used. Raises UserNotFoundError."""
        ...


class Stats(Protocol):
    """How the queue is doing."""

    async def queue(self, actor: Actor) -> QueueStats:
        """Count it. Raises AdminOnlyError."""
        ...

    async def key_ids(self) -> set[str]:
        """Return the ids of the master keys that rows are sealed with."""
        ...


class Analytics(Protocol):
    """The ledger of calls, added up."""

    async def usage(self, actor: Actor, query: UsageQuery) -> UsageReport:
        """Add up calls that have ended, those of deleted executions as well.

        Raises UserNotFoundError for a user that the actor may not see, AdminOnlyError where others than admins ask for
        everybody, InvalidArgumentError (group_by) where the groups are too many.
        """
        ...


class Users(Protocol):
    """Users, as admins manage them. All raise AdminOnlyError for whoever is none."""

    async def create(self, actor: Actor, new: NewUser) -> User:
        """Store a user; the same request id of the same actor gives the stored one. Raises RequestIdReusedError."""
        ...

    async def list(self, actor: Actor, page_size: int, cursor: str) -> Page[User]:
        """Return a page, oldest first. Raises InvalidArgumentError (cursor)."""
        ...

    async def update(self, actor: Actor, update: UserUpdate) -> User:
        """Change what the mask names. Raises UserNotFoundError, and OwnAccountError where admins would lock themselves out."""
        ...


class Tokens(Protocol):
    """Tokens, by their hashes."""

    async def ensure_first_admin(self, actor: Actor, name: str, digest: TokenDigest | None) -> bool:
        """Make the digest the one operator's token of this user (None: there is none); say whether any token opens anything.

        With a digest the user exists afterwards, is an admin and not disabled. Idempotent, whoever else does the same.
        Raises AdminTokenTakenError where it is the token of somebody.
        """
        ...

    async def authenticate(self, sha256: str) -> Opened:
        """Return whose token it is. Raises TokenInvalidError, TokenExpiredError."""
        ...

    async def write_uses(self) -> None:
        """Write down when tokens were last used, as far as it is not written yet: a use itself writes nothing."""
        ...

    async def create(self, actor: Actor, new: NewToken) -> Token:
        """Store a token of the actor, or of anybody where the actor is an admin.

        Raises UserNotFoundError, InvalidArgumentError (expire_time), TokenShownError where the same request id of the same
        actor made one before, RequestIdReusedError where it made another one.
        """
        ...

    async def list(self, actor: Actor, user_id: str, page_size: int, cursor: str) -> Page[Token]:
        """Return a page, oldest first. Raises UserNotFoundError, InvalidArgumentError (cursor)."""
        ...

    async def revoke(self, actor: Actor, token_id: str) -> Token:
        """Make a token stop working; repeating it changes nothing. Raises TokenNotFoundError."""
        ...
