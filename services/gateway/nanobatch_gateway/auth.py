"""Who may call what. A method that is not in the table is called by nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from enum import Enum
from typing import Protocol, TypeAlias

from nanobatch_gateway.domain import LOCAL_CALLER, Caller
from nanobatch_runtime.errors import UnauthenticatedError


class Rule(Enum):
    """What a method asks of its caller."""

    OPEN = "anybody may call it, without a token: it tells nothing"
    CATALOGUE = "any user may call it, and it needs no storage of its own"
    USER = "any user may call it"
    ADMIN = "admins may call it"


_PACKAGE = "/nanobatch.gateway.v1."
_EXECUTIONS = (
    "CreateExecution",
    "EstimateCost",
    "GetExecution",
    "ListExecutions",
    "WatchExecution",
    "CancelExecution",
    "PauseExecution",
    "ResumeExecution",
    "RetryExecution",
    "DeleteExecution",
    "ListResults",
    "GetResult",
)

_IMAGES = ("UploadImage", "GetImage", "DownloadImage", "ExportExecution")
_OWN_ACCOUNT = ("WhoAmI", "CreateToken", "ListTokens", "RevokeToken")
_ALL_ACCOUNTS = ("CreateUser", "ListUsers", "UpdateUser")

RULES: Mapping[str, Rule] = {
    **{f"{_PACKAGE}ExecutionService/{name}": Rule.USER for name in _EXECUTIONS},
    **{f"{_PACKAGE}ImageService/{name}": Rule.USER for name in _IMAGES},
    f"{_PACKAGE}ModelService/ListModels": Rule.CATALOGUE,
    f"{_PACKAGE}ModelService/CheckApiKey": Rule.USER,
    f"{_PACKAGE}AnalyticsService/GetUsage": Rule.USER,
    f"{_PACKAGE}AnalyticsService/GetServerStats": Rule.ADMIN,
    **{f"{_PACKAGE}AccountService/{name}": Rule.USER for name in _OWN_ACCOUNT},
    **{f"{_PACKAGE}AccountService/{name}": Rule.ADMIN for name in _ALL_ACCOUNTS},
    **{f"/grpc.health.v1.Health/{name}": Rule.OPEN for name in ("Check", "Watch")},
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule.CATALOGUE,
}
"""By full method name. Denied by default: a new method is dead until somebody decides here."""


Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
"""What a client sent along: keys in lower case, in the order of the wire, repeated ones too."""


class Authenticator(Protocol):
    """Finds out who is calling."""

    @property
    def lasting(self) -> bool:
        """Whether a caller who was let in stays so; otherwise long streams ask again."""
        ...

    async def authenticate(self, metadata: Metadata) -> Caller:
        """Return the caller that the request's metadata prove. Raises UnauthenticatedError, StorageUnavailableError."""
        ...


class LocalAuthenticator:
    """``NANOBATCH_AUTH=local``: whoever reaches the loopback port is the one local admin."""

    lasting = True

    async def authenticate(self, metadata: Metadata) -> Caller:  # noqa: ARG002  # the port's signature
        """See :class:`Authenticator`; the metadata are not looked at."""
        return LOCAL_CALLER


_caller: ContextVar[Caller | None] = ContextVar("nanobatch_caller", default=None)


def set_caller(caller: Caller) -> None:
    """Note who makes the current call."""
    _caller.set(caller)


def caller_if_known() -> Caller | None:
    """Return who makes the current call; None where nobody was asked, or nobody let in."""
    return _caller.get()


def current_caller() -> Caller:
    """Return who makes the current call. Raises UnauthenticatedError where nobody was let in."""
    caller = _caller.get()
    if caller is None:
        raise UnauthenticatedError("This call was made by nobody we know.")
    return caller
