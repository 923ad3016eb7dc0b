"""Reference pictures in a browser: dropped, pasted, chosen, put in order, and what is refused."""

import asyncio
import base64
from pathlib import Path

from playwright.async_api import Browser, Page, Route, expect

from nanobatch_client import Client

from .drawing import drawn
from .steps import pick

DROP = """([name, kind, data, padding]) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const given = new DataTransfer();
    given.items.add(new File([bytes, new Uint8Array(padding)], name, {type: kind}));
    return given;
}"""
COPY = """async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
}"""


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def drop(page: Page, name: str, data: bytes, kind: str = "image/png", padding: int = 0) -> None:
    """Drop a file; ``padding`` are empty bytes behind its data, which need not travel to the browser."""
    given = await page.evaluate_handle(DROP, [name, kind, coded(data), padding])
    await page.locator("#nb-references section").dispatch_event("drop", {"dataTransfer": given})


async def colours(page: Page) -> list[str]:
    """Return what is shown, by the colour of each picture's middle."""
    await page.wait_for_function(
        "[...document.querySelectorAll('#nb-references img')].every((one) => one.complete && one.naturalWidth)"
    )
    seen: list[list[int]] = await page.locator("#nb-references img").evaluate_all(
        """(pictures) => pictures.map((picture) => {
            const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
            canvas.getContext("2d").drawImage(picture, 0, 0, 1, 1);
            return [...canvas.getContext("2d").getImageData(0, 0, 1, 1).data.slice(0, 3)];
        })"""
    )
    names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue"}
    return [names.get(tuple(colour), str(colour)) for colour in seen]  # type: ignore[call-overload]  # three of them


async def begun_with(page: Page, target: str) -> int:
    """Start a run and return how many stored pictures it has for reference."""
    await page.locator("#nb-prompts textarea").fill("a fox")
    await page.locator("#nb-next").click()
    await page.locator("#nb-start").click()
    await page.wait_for_url(lambda url: "execution=" in url)
    async with Client(target) as client:
        settings = (await client.get_execution(page.url.partition("execution=")[2])).settings
        return len([await client.get_image(image_id) for image_id in settings.reference_image_ids])


async def test_pictures_are_dropped_pasted_chosen_and_put_in_order(browser: Browser, site, tmp_path: Path) -> None:
    context = await browser.new_context(locale="en-US", permissions=["clipboard-read", "clipboard-write"])
    page = await context.new_page()
    page.set_default_timeout(30_000)
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    pictures = page.locator("#nb-references li")

    await drop(page, "red.png", drawn("red"))
    await expect(pictures).to_have_count(1)
    await page.evaluate(COPY, coded(drawn("green")))
    await page.keyboard.press("Control+V")
    await expect(pictures).to_have_count(2)
    (tmp_path / "blue.png").write_bytes(drawn("blue"))
    async with page.expect_file_chooser() as choosing:
        await page.get_by_role("button", name="Choose pictures").click()
    await (await choosing.value).set_files(tmp_path / "blue.png")
    await expect(pictures).to_have_count(3)
    assert await colours(page) == ["red", "green", "blue"]
    await expect(page.get_by_role("button", name="Choose pictures")).to_be_hidden()
    await drop(page, "one more.png", drawn("red"))
    await expect(page.get_by_text("At most 3 reference pictures.")).to_be_visible()

    await pictures.nth(2).drag_to(pictures.nth(0))
    assert await colours(page) == ["blue", "red", "green"]
    await page.get_by_role("button", name="Move picture 1 back").click()
    assert await colours(page) == ["red", "blue", "green"]
    await page.get_by_role("button", name="Move picture 3 forward").focus()
    await page.keyboard.press("Enter")
    assert await colours(page) == ["red", "green", "blue"]
    # Who moves by keyboard goes on with the same picture.
    await expect(page.get_by_role("button", name="Move picture 2 forward")).to_be_focused()
    await page.get_by_role("button", name="Remove picture 1").click()
    assert await colours(page) == ["green", "blue"]

    assert await begun_with(page, site.product.target) == 2
    await context.close()


async def test_pictures_are_taken_by_elements_that_came_later_than_their_values(page: Page, site) -> None:
    come = asyncio.Event()

    async def hold_the_elements(route: Route) -> None:
        await come.wait()
        await route.continue_()

    await page.route("**/assets/base.js*", hold_the_elements)
    await page.goto(site.url, wait_until="commit")
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    come.set()
    await expect(page.locator("#nb-references section")).to_be_visible()
    await drop(page, "red.png", drawn("red"))
    await expect(page.locator("#nb-references li")).to_have_count(1)
    assert await begun_with(page, site.product.target) == 1


async def test_an_answer_that_comes_late_takes_no_picture_away(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await pick(page, "Nano Banana")
    await expect(page.locator("#nb-facts")).to_contain_text("$")
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def hold_what_the_model_offers(route: Route) -> None:
        sent = (route.request.post_data_json or {}).get("data") or []
        if len(sent) == 4 and sent[0] == "sandbox":
            asked.set()
            await goes_on.wait()
        await route.continue_()

    await page.route("**/queue/join*", hold_what_the_model_offers)
    await pick(page, "Sandbox")
    await asyncio.wait_for(asked.wait(), 30)
    await drop(page, "red.png", drawn("red"))
    await expect(page.locator("#nb-references li")).to_have_count(1)
    goes_on.set()
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    assert await colours(page) == ["red"]
    assert await begun_with(page, site.product.target) == 1


async def test_what_is_no_picture_or_too_large_is_told_and_left_out(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await drop(page, "huge.png", drawn("red"), padding=10 * 2**20)
    await expect(page.get_by_text("huge.png is larger than 10 MB.")).to_be_visible()
    await drop(page, "words.png", b"these are words")
    await expect(page.locator(".nb-toast.nb-bad").last).to_contain_text("PNG")
    await expect(page.locator("#nb-references li")).to_have_count(0)
    await drop(page, "<b>good</b>.png", drawn("blue"))
    await expect(page.locator("#nb-references li")).to_have_count(1)
    assert await page.locator("#nb-references b").count() == 0


async def test_prompts_come_out_of_files(page: Page, site, tmp_path: Path) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    box, file = page.locator("#nb-prompts textarea"), page.locator("input[type=file][accept*='csv']")
    (tmp_path / "list.txt").write_text("a fox\n\na boat\n\nan owl", encoding="utf-8")
    await file.set_input_files(tmp_path / "list.txt")
    await expect(box).to_have_value("a fox\n\na boat\n\nan owl")
    await expect(page.get_by_text("3 prompts", exact=True)).to_be_visible()
    rows = 'number,Prompt\n1,"a fox, asleep"\n2,"=HYPERLINK(""http://evil.test"")"\n'
    (tmp_path / "list.csv").write_text(rows, encoding="utf-8-sig")
    await file.set_input_files(tmp_path / "list.csv")
    await expect(box).to_have_value('a fox, asleep\n\n=HYPERLINK("http://evil.test")')
    (tmp_path / "picture.txt").write_bytes(drawn("red"))
    await file.set_input_files(tmp_path / "picture.txt")
    await expect(page.locator("#nb-prompts .nb-wrong")).to_have_text("This file cannot be read as text.")
    await expect(box).to_have_value('a fox, asleep\n\n=HYPERLINK("http://evil.test")')
