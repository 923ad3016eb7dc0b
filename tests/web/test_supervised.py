"""The page as a child of ``nanobatch up``."""

import asyncio

import httpx
import psutil
from pages import answering

from .conftest import Site


def page_of(site: Site) -> psutil.Process | None:
    return next((one for one in site.product.process.children() if "nanobatch_web.main" in one.cmdline()), None)


async def test_a_page_that_dies_is_there_again_at_the_address_that_was_told(site: Site) -> None:
    await answering(site.url)
    assert f"  page  {site.url}\n" in (site.product.data.parent / "up.log").read_text()
    first = page_of(site)
    assert first is not None
    first.kill()
    await asyncio.to_thread(first.wait, 10)
    # Who comes while it is being started again waits, and is not turned away.
    async with httpx.AsyncClient(timeout=90) as visitor:
        assert (await visitor.get(site.url)).status_code == 200
    again = page_of(site)
    assert again is not None
    assert again.pid != first.pid
