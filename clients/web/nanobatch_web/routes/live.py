"""What has changed in a run since a browser last asked.

Asked often and answered at once, rather than a stream that stays open: a browser opens six connections to one host, so
the seventh tab of a stream would starve.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from nanobatch_web.live.hub import Feed, Hub
from nanobatch_web.viewers import Viewers

_QUICK, _SLOWER, _ENDED = 250, 500, 2000
_MANY_VIEWERS = 60


def router(hub: Hub, viewers: Viewers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter()

    @routes.get("/live/{execution_id}")
    async def live(request: Request, execution_id: str, since: int = -1, epoch: str = "", tab: str = "") -> Response:
        viewer = await viewers.of(request.headers)
        feed = await hub.view(viewer, execution_id, tab[:32])
        return Response(
            feed.run.delta(since, epoch),
            media_type="application/json",
            headers={"Cache-Control": "no-store", "X-Poll-Milliseconds": str(_pause(feed))},
        )

    return routes


def _pause(feed: Feed) -> int:
    """Milliseconds until the browser should ask again."""
    if feed.run.is_final:
        return _ENDED
    return _QUICK if feed.viewers <= _MANY_VIEWERS else _SLOWER
