from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from nanobatch_client import UnauthenticatedError, UnreachableError
from nanobatch_web.gate import Gate
from nanobatch_web.routes import login
from nanobatch_web.viewers import COOKIE, Viewers

GOOD = "nb_good"
NAVIGATES = {"sec-fetch-mode": "navigate", "accept": "text/html"}


class Door(Viewers):
    """Viewers whose gateway knows one token, until that is revoked or nobody can be asked."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1:1", token_mode=True)
        self.known = {GOOD}
        self.down = False

    async def check(self, token: str) -> None:
        if self.down:
            raise UnreachableError("Nobody answers.")
        if token not in self.known:
            raise UnauthenticatedError("Unknown.", reason="UNAUTHENTICATED")


def site(viewers: Viewers) -> ASGIApp:
    app = FastAPI()
    app.include_router(login.router(viewers, secure=True))

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def inside(path: str) -> str:
        return f"inside {path}"

    return Gate(app, viewers)


@pytest.fixture
def viewers() -> Door:
    return Door()


@pytest.fixture
async def browser(viewers: Door):
    transport = httpx.ASGITransport(site(viewers))
    async with httpx.AsyncClient(transport=transport, base_url="https://page.test") as client:
        yield client


async def sign_in(browser: httpx.AsyncClient, token: str, after: str = "") -> httpx.Response:
    return await browser.post("/nano-banana/login", data={"token": token, "after": after})


async def test_who_navigates_is_led_to_the_login_and_back_to_what_was_wanted(browser: httpx.AsyncClient) -> None:
    led = await browser.get("/nano-banana/?execution=abc", headers=NAVIGATES)
    assert led.status_code == 303
    where = urlsplit(led.headers["location"])
    assert where.path == "/nano-banana/login"
    after = parse_qs(where.query)["after"][0]
    assert after == "/nano-banana/?execution=abc"
    assert (await sign_in(browser, GOOD, after)).headers["location"] == after


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nano-banana/config"),
        ("GET", "/nano-banana/gradio_api/info"),
        ("GET", "/nano-banana/gradio_api/file=/etc/passwd"),
        ("GET", "/nano-banana/gradio_api/queue/data"),
        ("POST", "/nano-banana/gradio_api/queue/join"),
        ("POST", "/nano-banana/gradio_api/upload"),
        ("GET", "/nano-banana/nb/live/x"),
        ("GET", "/nano-banana/login/x"),
        ("POST", "/nano-banana/"),
        ("GET", "/"),
    ],
)
async def test_nothing_is_open_without_a_token(browser: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await browser.request(method, path)
    assert answer.status_code == 401
    assert "inside" not in answer.text


async def test_the_cookie_is_for_this_page_alone_and_no_script_reads_it(browser: httpx.AsyncClient) -> None:
    signed_in = await sign_in(browser, GOOD)
    morsel = SimpleCookie(signed_in.headers["set-cookie"])[COOKIE]
    assert morsel["httponly"]
    assert morsel["secure"]
    assert morsel["samesite"] == "strict"
    assert morsel["path"] == "/nano-banana"
    assert (await browser.get("/nano-banana/")).text == '"inside nano-banana/"'


async def test_a_wrong_token_is_told_so_and_gets_no_cookie(browser: httpx.AsyncClient) -> None:
    for token in ("nb_wrong", "", "a b", "é" * 10, "x" * 1000, "a\r\nset-cookie: b"):
        answer = await sign_in(browser, token)
        assert answer.status_code == 401, token
        assert "set-cookie" not in answer.headers
        assert "This token is not known." in answer.text
        assert not token or token not in answer.text


async def test_a_revoked_token_leads_back_to_the_login(browser: httpx.AsyncClient, viewers: Door) -> None:
    await sign_in(browser, GOOD)
    viewers.known.clear()
    assert (await browser.get("/nano-banana/", headers=NAVIGATES)).status_code == 303
    assert (await browser.post("/nano-banana/gradio_api/queue/join")).status_code == 401


async def test_signing_out_takes_the_cookie_away(browser: httpx.AsyncClient) -> None:
    await sign_in(browser, GOOD)
    assert (await browser.post("/nano-banana/logout")).headers["location"] == "/nano-banana/login"
    assert (await browser.get("/nano-banana/")).status_code == 401


async def test_without_the_gateway_nobody_comes_in_and_the_page_says_why(
    browser: httpx.AsyncClient, viewers: Door
) -> None:
    viewers.down = True
    browser.cookies.set(COOKIE, GOOD)
    shown = await browser.get("/nano-banana/", headers=NAVIGATES | {"accept-language": "fr"})
    assert shown.status_code == 503
    assert "Le serveur est injoignable" in shown.text
    assert 'http-equiv="refresh"' in shown.text
    assert (await browser.get("/nano-banana/config")).status_code == 503
    assert (await sign_in(browser, GOOD)).status_code == 503


@pytest.mark.parametrize(
    "after",
    [
        "https://evil.test/",
        "//evil.test",
        "/nano-banana.evil.test",
        "/nano-banana/\\evil",
        "javascript:alert(1)",
        "/nano-banana/\r\nx: y",
    ],
)
async def test_nobody_is_led_to_another_site(browser: httpx.AsyncClient, after: str) -> None:
    assert (await sign_in(browser, GOOD, after)).headers["location"] == "/nano-banana/"


async def test_the_form_shows_what_it_was_given_as_text(browser: httpx.AsyncClient) -> None:
    page = await browser.get("/nano-banana/login", params={"after": '/nano-banana/"><script>alert(1)</script>'})
    assert "<script>alert(1)" not in page.text
