"""The application: routes behind gate, guard and doors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from nanobatch_gateway.domain import InvalidRequestError
from nanobatch_gateway.export import ExportExecution
from nanobatch_gateway.http.access import Gate
from nanobatch_gateway.http.archive import archive_routes
from nanobatch_gateway.http.docs import docs_routes
from nanobatch_gateway.http.doors import Doors, Sharing
from nanobatch_gateway.http.errors import MethodNotAllowedError, RouteNotFoundError
from nanobatch_gateway.http.events import event_routes
from nanobatch_gateway.http.forms import MAX_BODY_BYTES
from nanobatch_gateway.http.guard import Guard
from nanobatch_gateway.http.observed import Observed
from nanobatch_gateway.http.pictures import picture_routes
from nanobatch_gateway.http.rest import BatchUseCases, batch_routes
from nanobatch_gateway.http.shapes import Failure
from nanobatch_gateway.http.single import single_routes
from nanobatch_gateway.limits import WatchStreams
from nanobatch_gateway.ports import Images, PictureLinks
from nanobatch_gateway.watch import WatchExecution
from nanobatch_runtime.errors import FieldViolation, NanobatchError
from nanobatch_runtime.own_names import OwnNames


@dataclass(frozen=True, slots=True)
class HttpParts:
    """What the application is made of."""

    batch: BatchUseCases
    watch: WatchExecution
    streams: WatchStreams
    links: PictureLinks
    images: Images
    export: ExportExecution
    gate: Gate


def make_app(parts: HttpParts, names: OwnNames, allowed_origins: Collection[str], *, stall: timedelta) -> FastAPI:
    """Return the application; ``stall`` is how long a client may leave one piece of an answer lying."""
    app = FastAPI(
        title="nanobatch",
        version="1",
        description="Lists of prompts in, pictures out. The gRPC contract does more; docs/api.md tells of both.",
        openapi_url=None,  # our own routes, so that they stand in the table of rules like all others
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(Observed),
            Middleware(Sharing, allowed_origins),
            Middleware(Guard, MAX_BODY_BYTES),
            Middleware(Doors, names, allowed_origins),
        ],
        dependencies=[Depends(parts.gate)],
        exception_handlers={HTTPException: _as_ours, RequestValidationError: _as_violations},
        responses={"4XX": {"model": Failure}, "5XX": {"model": Failure}},
        redirect_slashes=False,
        # Its own spans would hold addresses, and those of pictures are permissions. Ours are made in `observed`.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.include_router(batch_routes(parts.batch))
    app.include_router(single_routes(parts.batch))
    app.include_router(event_routes(parts.watch, parts.streams, parts.batch.linker, stall=stall))
    app.include_router(archive_routes(parts.export, stall=stall))
    app.include_router(picture_routes(parts.links, parts.images, stall=stall))
    app.include_router(docs_routes(app))
    return app


async def _as_ours(_request: Request, error: Exception) -> NoReturn:
    """Say in our form what the framework found wrong."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:  # noqa: PLR2004  # HTTP's own number
        raise RouteNotFoundError("There is nothing at this address; /docs lists what there is.") from None
    if status == 405:  # noqa: PLR2004  # as above
        headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
        raise MethodNotAllowedError(headers.get("Allow", "")) from None
    raise NanobatchError("The request cannot be answered.") from None


async def _as_violations(_request: Request, error: Exception) -> NoReturn:
    """Name what is wrong; what was sent is not repeated, it may be a key."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    raise InvalidRequestError(
        [FieldViolation(str(each["loc"][-1]), str(each["msg"]), "MALFORMED") for each in problems]
    ) from None
