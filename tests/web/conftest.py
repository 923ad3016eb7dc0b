"""A real browser on the real page."""

import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from pages import FLAGS, answering
from playwright.async_api import Browser, Page, async_playwright, expect
from processes import Product, free_port, product, upstream

expect.set_options(timeout=30_000)  # machines that run tests are busy


@dataclass
class Site:
    """A running ``nanobatch up`` with its page."""

    url: str
    product: Product


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The product with its page, for all tests of this session."""
    port = free_port()
    environment = {"NANOBATCH_WEB": f"127.0.0.1:{port}", "NANOBATCH_SANDBOX_LATENCY": "0.3"}
    folder = tmp_path_factory.mktemp("site")
    with (
        upstream(folder, picture_bytes=30_000) as gemini,
        product(folder, upstream_url=gemini.url, environment=environment) as running,
    ):
        yield Site(f"http://127.0.0.1:{port}/nano-banana/", running)


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("Chromium is needed for these tests and was not found: install it (apt-get install chromium).")

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        await running.close()


@pytest.fixture
async def browser(site: Site, chromium: Browser) -> Browser:
    """The Chromium, once the page answers."""
    await answering(site.url)
    return chromium


@pytest.fixture
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
