"""Screenshots of every step, from the real product with the sandbox: ``python -m shots FOLDER`` (``make shots``)."""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from pages import answering, headless_chromium
from PIL import Image
from playwright.async_api import Browser, Page
from processes import free_port, product

_PROMPTS = (
    "A red fox asleep in fresh snow, early morning light",
    "A lighthouse on a cliff during a storm, oil painting",
    "A small reading nook under a staircase, warm lamp light",
    "An astronaut tending tomatoes in a greenhouse on Mars [delay:4]",
    "A paper boat crossing a puddle, macro photograph [delay:5]",
    "A market street in the rain, neon reflections [fail:blocked]",
    "A glass teapot with a tiny garden inside [delay:60]",
    "A cat in a tailored coat, studio portrait [delay:60]",
)
_COLOURS = 256


async def take(page: Page, folder: Path, name: str, *, whole: bool = False) -> None:
    """Write a picture of what is seen, small enough for a repository."""
    path = folder / f"{name}.png"
    await page.screenshot(path=path, full_page=whole, animations="disabled")
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(path, optimize=True)


async def look(browser: Browser, url: str, folder: Path) -> None:
    """Walk the road once and take pictures on the way."""
    page = await browser.new_page(viewport={"width": 1200, "height": 900}, locale="en-US")
    page.set_default_timeout(60_000)
    await page.goto(url)
    await page.locator("#nb-facts li").first.wait_for()
    await page.locator("#nb-prompts textarea").fill("\n\n".join(_PROMPTS))
    await page.get_by_text("8 prompts", exact=True).wait_for()
    await take(page, folder, "1-configure", whole=True)
    await page.locator("#nb-next").click()
    await page.locator("#nb-review textarea").nth(7).wait_for()
    await take(page, folder, "2-review", whole=True)
    await page.locator("#nb-start").click()
    await page.wait_for_url(re.compile("execution="))
    await page.locator(".nb-card[data-state='COMPLETED'] img").nth(3).wait_for()
    await page.locator(".nb-card[data-state='FAILED']").wait_for()
    await take(page, folder, "3-processing")
    run = page.url
    for name, options in {
        "3-processing-phone-dark-french": {
            "viewport": {"width": 360, "height": 740},
            "locale": "fr-FR",
            "color_scheme": "dark",
        },
        "3-processing-dark": {"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"},
    }.items():
        other = await browser.new_page(**options)
        await other.goto(run)
        await other.locator(".nb-card[data-state='COMPLETED'] img").nth(3).wait_for()
        await take(other, folder, name, whole=True)
        await other.close()
    page.on("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Cancel").click()
    await page.locator(".nb-outcome").wait_for()
    await take(page, folder, "4-results")
    await page.goto(f"{url}results?execution={run.partition('execution=')[2]}")
    await page.locator("nb-gallery img").first.wait_for()
    await take(page, folder, "5-all-results")
    await page.goto(f"{url}history")
    await page.locator("nb-history img").first.wait_for()
    await take(page, folder, "6-history")
    await page.goto(f"{url}statistics")
    await page.locator("[data-chart='by-model']").wait_for()
    await take(page, folder, "7-statistics", whole=True)
    phone = await browser.new_page(viewport={"width": 360, "height": 740}, locale="fr-FR", color_scheme="dark")
    places = {
        "1-configure": ("", "#nb-facts li"),
        "5-all-results": (f"results?execution={run.partition('execution=')[2]}", "nb-gallery img"),
        "6-history": ("history", "nb-history img"),
        "7-statistics": ("statistics", "[data-chart='by-model']"),
    }
    for name, (path, there) in places.items():
        await phone.goto(url + path)
        await phone.locator(there).first.wait_for()
        await take(phone, folder, f"{name}-phone-dark-french", whole=True)


async def main(folder: Path) -> int:
    """Take all pictures into a folder."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/nano-banana/"
    with (
        tempfile.TemporaryDirectory() as scratch,
        product(Path(scratch), environment={"NANOBATCH_WEB": f"127.0.0.1:{port}"}),
    ):
        await answering(url)
        async with headless_chromium() as browser:
            await look(browser, url, folder)
    return 0


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    _folder.mkdir(parents=True, exist_ok=True)
    sys.exit(asyncio.run(main(_folder)))
