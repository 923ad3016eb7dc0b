"""What tests of the web page have in common."""

import httpx

from nanobatch_runtime.testing import eventually


async def answering(url: str) -> None:
    """Wait until a page answers at all, with whatever."""

    async def answers() -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(url, timeout=60)).status_code > 0
            except httpx.HTTPError:
                return False

    await eventually(answers, within=90)
