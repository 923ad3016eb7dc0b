"""A real browser on the real page."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from pages import answering, headless_chromium
from playwright.async_api import Browser, Page, expect
from processes import Product, free_port, product, upstream

from nanobatch_client import Client

from .ledger import write_ledger

expect.set_options(timeout=30_000)  # machines that run tests are busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One event loop for all tests of this folder: a Chromium belongs to the loop that started it, and is started once."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass
class Site:
    """A running ``nanobatch up`` with its page."""

    url: str
    product: Product


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The product with its page, for all tests of this session."""
    port = free_port()
    environment = {
        "NANOBATCH_WEB": f"127.0.0.1:{port}",
        "NANOBATCH_SANDBOX_DELAY": "0.3",
        "NANOBATCH_DRAIN_SECONDS": "1",  # what tests have cancelled may still be out when they end
    }
    folder = tmp_path_factory.mktemp("site")
    with (
        upstream(folder, picture_bytes=30_000) as gemini,
        product(folder, upstream_url=gemini.url, environment=environment) as running,
    ):
        yield Site(f"http://127.0.0.1:{port}/nano-banana/", running)


@dataclass
class Guarded(Site):
    """The same in token mode."""

    admin_token: str


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A product that asks for a token, and that has a bookkeeper with a past; for all tests of this session."""
    folder, port, admin = tmp_path_factory.mktemp("guarded"), free_port(), "an-operators-token-of-some-length"
    data = folder / "data"
    data.mkdir(mode=0o700)
    write_ledger(data / "nanobatch.db")
    environment = {
        "NANOBATCH_WEB": f"127.0.0.1:{port}",
        "NANOBATCH_AUTH": "token",
        "NANOBATCH_ADMIN_TOKEN": admin,
        "ENCRYPTION_KEY": os.urandom(32).hex(),
    }
    with product(folder, environment=environment, data=data) as running:
        yield Guarded(f"http://127.0.0.1:{port}/nano-banana/", running, admin)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def one_chromium() -> AsyncIterator[Browser]:
    """The headless Chromium of this session."""
    async with headless_chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def chromium(one_chromium: Browser) -> AsyncIterator[Browser]:
    """A Chromium in which nothing of another test is open."""
    yield one_chromium
    for context in one_chromium.contexts:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(site: Site, chromium: Browser) -> Browser:
    """The Chromium, once the page answers."""
    await answering(site.url)
    return chromium


@pytest_asyncio.fixture(loop_scope="session")
async def client(site: Site) -> AsyncIterator[Client]:
    """A client of the product behind the page."""
    async with Client(site.product.target) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """A page of a fresh visitor; a request to another host or an error in a script fails the test."""
    opened = await browser.new_page(viewport={"width": 1200, "height": 1000}, locale="en-US")
    wrong: list[str] = []
    own = site.url.split("/nano-banana")[0]
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request",
        lambda request: (
            wrong.append(request.url)
            if not request.url.startswith((own, "http://127.0.0.1:", "data:", "blob:"))
            else None
        ),
    )
    opened.set_default_timeout(30_000)
    yield opened
    await opened.close()
    assert wrong == []
