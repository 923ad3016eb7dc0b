"""aiohttp under httpx: answers whole, errors in httpx's words."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from unittest.mock import Mock

import aiohttp
import httpx
import pytest
from aiohttp import web

from nanobatch_generator.providers.aiohttp_transport import AiohttpTransport, _translated


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client whose base is a small server."""

    async def answer(request: web.Request) -> web.Response:
        response = web.json_response(
            {"got": (await request.read()).decode(), "peer": request.transport.get_extra_info("peername")[1]}
        )
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async def leave(_request: web.Request) -> web.Response:
        raise web.HTTPFound("/answer")

    app = web.Application()
    app.router.add_post("/answer", answer)
    app.router.add_post("/leave", leave)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with httpx.AsyncClient(transport=AiohttpTransport(ssl.create_default_context()), base_url=url) as client:
        yield client
    await runner.cleanup()


async def test_a_compressed_answer_is_undone_once(client: httpx.AsyncClient) -> None:
    response = await client.post("/answer", content="grün".encode())
    assert response.json()["got"] == "grün"
    assert response.text == response.content.decode()


async def test_connections_are_used_again(client: httpx.AsyncClient) -> None:
    answers = [await client.post("/answer", content=b"x") for _ in range(3)]
    assert len({answer.json()["peer"] for answer in answers}) == 1


async def test_redirects_are_answers(client: httpx.AsyncClient) -> None:
    assert (await client.post("/leave", content=b"x")).status_code == 302


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ConnectionTimeoutError(), httpx.ConnectTimeout),
        (aiohttp.ClientConnectorError(Mock(), OSError(111, "refused")), httpx.ConnectError),
        (aiohttp.ClientConnectorCertificateError(Mock(), ssl.CertificateError()), httpx.ConnectError),
        (aiohttp.ClientHttpProxyError(Mock(), (), status=407), httpx.ProxyError),
        (aiohttp.InvalidURL("x"), httpx.UnsupportedProtocol),
        (aiohttp.SocketTimeoutError(), httpx.ReadTimeout),
        (TimeoutError(), httpx.ReadTimeout),
        (aiohttp.ServerDisconnectedError(), httpx.RemoteProtocolError),
        (aiohttp.ClientPayloadError(), httpx.RemoteProtocolError),
        (aiohttp.ClientOSError(104, "reset"), httpx.ReadError),
        (aiohttp.ClientError(), httpx.ReadError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_are_told_in_httpxs_words(error: Exception, kind: type[httpx.RequestError]) -> None:
    translated = _translated(error, httpx.Request("POST", "http://x"))
    assert type(translated) is kind
    assert str(translated)
