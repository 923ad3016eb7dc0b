"""Signing in and out, as plain forms: they work before anything else of the page has been let through."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from nanobatch_client import NanobatchError, UnauthenticatedError
from nanobatch_web import texts
from nanobatch_web.routes.plain import plain
from nanobatch_web.settings import LOGIN, LOGOUT, MOUNT, OWN
from nanobatch_web.viewers import COOKIE, Viewers

_MAX_FORM = 8_192
_KEPT = 30 * 24 * 3600
"""Seconds for which a browser keeps the cookie; the token itself may end sooner."""
# A link from another site comes without our SameSite=Strict cookie. This page's own question carries it.
_ALREADY_IN = """<script>
fetch("{own}/me").then((answer) => {{ if (answer.ok) location.replace({after}); }}).catch(() => {{}});
</script>"""


def router(viewers: Viewers, *, secure: bool) -> APIRouter:
    """Return the routes; ``secure``: browsers reach the page by https only."""
    routes = APIRouter()

    @routes.get(LOGIN)
    async def form(request: Request, after: str = "") -> Response:
        if not viewers.token_mode:
            return RedirectResponse(MOUNT + "/", 303)
        return _form(request, after)

    @routes.post(LOGIN)
    async def sign_in(request: Request) -> Response:
        fields = await _fields(request)
        token, after = fields.get("token", "").strip(), fields.get("after", "")
        try:
            await viewers.check(token)
        except UnauthenticatedError:
            return _form(request, after, "login.bad", 401)
        except NanobatchError:
            return _form(request, after, "error.gateway", 503)
        answer = RedirectResponse(_own_address(after), 303)
        answer.set_cookie(COOKIE, token, max_age=_KEPT, path=MOUNT, httponly=True, samesite="strict", secure=secure)
        return answer

    @routes.post(LOGOUT)
    async def sign_out() -> Response:
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(COOKIE, path=MOUNT, httponly=True, samesite="strict", secure=secure)
        return answer

    return routes


def login_address(after: str) -> str:
    """Return where a browser signs in that wanted to see ``after``."""
    return f"{LOGIN}?after={quote(after, safe='')}"


def unreachable(language: str) -> Response:
    """Return a page that says that nobody can be asked who this is, and asks again by itself."""
    sentence = escape(texts.say(language, "login.unreachable"))
    content = f'<p class="info" role="alert">{sentence}</p><meta http-equiv="refresh" content="3">'
    return plain(language, "nanobatch", content, 503)


def _form(request: Request, after: str, wrong: str = "", status: int = 200) -> Response:
    language = texts.language_of(request.headers)
    said = {key: escape(texts.say(language, f"login.{key}")) for key in ("title", "label", "info", "button")}
    problem = f'<p class="bad" id="wrong" role="alert">{escape(texts.say(language, wrong))}</p>' if wrong else ""
    target = escape(_own_address(after), quote=True)
    content = f"""<form method="post" action="{LOGIN}">
<input type="hidden" name="after" value="{target}">
<label for="token">{said["label"]}</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus
 aria-describedby="{"wrong " if wrong else ""}info"{' aria-invalid="true"' if wrong else ""}>
<p class="info" id="info">{said["info"]}</p>{problem}
<button>{said["button"]}</button>
</form>"""
    if not wrong:
        content += _ALREADY_IN.format(own=OWN, after='document.querySelector("[name=after]").value')
    return plain(language, said["title"], content, status)


async def _fields(request: Request) -> dict[str, str]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return {}
    parsed = parse_qs(body.decode("utf-8", "replace"), max_num_fields=10)
    return {name: values[-1] for name, values in parsed.items()}


def _own_address(after: str) -> str:
    """Return an address of this page, whatever was asked for: never another site's."""
    own = after == MOUNT or after.startswith((MOUNT + "/", MOUNT + "?"))
    return after if own and after.isascii() and after.isprintable() and "\\" not in after else MOUNT + "/"
