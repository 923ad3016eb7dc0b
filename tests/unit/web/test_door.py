import httpx
import pytest
from starlette.responses import PlainTextResponse

from nanobatch_runtime.own_names import OwnNames
from nanobatch_web.door import Door

NAMES = OwnNames.of("127.0.0.1:7860", "https://pictures.example")


async def knock(method: str = "GET", path: str = "/", names: OwnNames = NAMES, **headers: str) -> httpx.Response:
    door = Door(PlainTextResponse("in"), names=names, pictures="http://127.0.0.1:8080")
    transport = httpx.ASGITransport(door)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
        return await client.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "pictures.example", "LOCALHOST:7860"]
)
async def test_our_own_names_are_let_in(host: str) -> None:
    assert (await knock(host=host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1.evil.test:7860",
        "evil.test",
        "127.0.0.1",
        "127.0.0.1:8080",
        "localhost",
        "",
        "127.0.0.1:7860.evil.test",
    ],
)
async def test_other_names_are_not(host: str) -> None:
    assert (await knock(host=host)).status_code == 403


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("POST", {"origin": "http://127.0.0.1:7860"}, 200),
        ("POST", {"origin": "https://pictures.example"}, 200),
        ("POST", {"origin": "http://evil.test"}, 403),
        ("POST", {"origin": "http://127.0.0.1:7861"}, 403),
        ("POST", {"origin": "http://pictures.example"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("GET", {"origin": "http://evil.test"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-site"}, 403),
        ("POST", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("POST", {}, 200),
    ],
)
async def test_only_our_own_pages_may_act(method: str, headers: dict[str, str], status: int) -> None:
    assert (await knock(method, **headers)).status_code == status


@pytest.mark.parametrize(
    ("address", "page_url", "host", "origin"),
    [
        ("127.0.0.1:80", "", "127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1:80", "", "localhost", "http://localhost"),
        ("127.0.0.1:7860", "https://pictures.example:443", "pictures.example", "https://pictures.example"),
        ("127.0.0.1:7860", "https://pictures.example:8443", "pictures.example:8443", "https://pictures.example:8443"),
    ],
)
async def test_browsers_leave_out_the_port_that_goes_with_the_scheme(
    address: str, page_url: str, host: str, origin: str
) -> None:
    assert (await knock("POST", names=OwnNames.of(address, page_url), host=host, origin=origin)).status_code == 200


async def test_nothing_may_be_loaded_from_elsewhere() -> None:
    policy = (await knock()).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "img-src 'self' data: blob: http://127.0.0.1:8080" in policy
    assert "frame-ancestors 'none'" in policy


async def test_a_probe_is_answered_under_any_name_and_sees_nothing_of_the_page() -> None:
    answer = await knock(path="/healthz", host="10.1.2.3:7860")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert (await knock("POST", path="/healthz", host="10.1.2.3:7860")).status_code == 403
    assert (await knock(path="/healthz/..", host="10.1.2.3:7860")).status_code == 403
