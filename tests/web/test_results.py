"""The results page in a browser."""

import asyncio
import json
import re
import zipfile
from hashlib import sha256

import pytest_asyncio
from PIL import Image
from playwright.async_api import Page, Route, expect

from nanobatch_client import Client, Execution

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> =HYPERLINK(1) \u202eabc 🦊"
KEY = "a-second-provider-key"
PROMPTS = ["a red fox", HOSTILE, "a blue fish [fail:blocked]", "an old lighthouse [fail:400]"]


async def finished(client: Client, prompts: list[str], **options: object) -> Execution:
    execution = await client.create_execution(prompts, model="sandbox", **options)  # type: ignore[arg-type]
    async for _ in client.watch(execution.id):
        pass
    return await client.get_execution(execution.id)


@pytest_asyncio.fixture(loop_scope="session")
async def run(site) -> Execution:
    async with Client(site.product.target) as client:
        return await finished(client, PROMPTS)


def shown(page: Page):
    return page.locator("nb-gallery .nb-card")


async def open_results(page: Page, site, execution_id: str) -> None:
    await page.goto(f"{site.url}results?execution={execution_id}")
    await expect(shown(page).first).to_be_visible()


async def test_pictures_are_sifted_sorted_and_looked_at_by_keyboard(page: Page, site, run: Execution) -> None:
    await open_results(page, site, run.id)
    await expect(shown(page)).to_have_count(4)
    await expect(page).not_to_have_title("owned")
    await expect(shown(page).nth(1).locator(".nb-text")).to_have_text(HOSTILE)

    await page.get_by_role("button", name="Failed (2)").click()
    await expect(shown(page)).to_have_count(2)
    await expect(shown(page).first).to_contain_text("made a picture and withheld it")
    await expect(shown(page).first).to_contain_text("may have been charged")
    await page.get_by_role("searchbox").fill("LIGHTHOUSE")
    await expect(shown(page)).to_have_count(1)
    await page.get_by_role("searchbox").fill("")
    success = page.get_by_role("button", name="Success (2)")
    await success.click()
    await expect(success).to_have_attribute("aria-pressed", "true")
    await page.get_by_label("Sort by").select_option("newest")
    async with Client(site.product.target) as client:
        results = [result async for result in client.list_results(run.id)]
    newest = sorted((one for one in results if one.image_id), key=lambda one: -one.revision)
    await expect(shown(page).first).to_have_attribute("data-id", newest[0].id)

    await page.get_by_label("Sort by").select_option("prompt")
    opener = page.get_by_role("button", name="Open picture 1")
    await opener.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("a red fox")
    await expect(dialog).to_contain_text("1 of 2")
    await expect(dialog).to_contain_text(f"{results[0].width} \N{MULTIPLICATION SIGN} {results[0].height} pixels")
    await page.wait_for_function("document.querySelector('dialog img').naturalWidth > 0")
    await page.keyboard.press("ArrowRight")
    await expect(dialog.locator(".nb-prompt")).to_have_text(HOSTILE)
    for _ in range(8):
        await page.keyboard.press("Tab")
        assert await page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("button", name="Open picture 2")).to_be_focused()


async def held(page: Page, address: str, *, lose: bool = False) -> tuple[list[str], asyncio.Event]:
    """Hold all posts to an address until the event; return their request ids. ``lose``: the first one's answer breaks off."""
    asked: list[str] = []
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.append(route.request.post_data_json["request_id"])
        lost = lose and len(asked) == 1
        await go.wait()
        if lost:
            await route.fetch()
            await route.fulfill(body='{"success": tr', content_type="application/json")
        else:
            await route.continue_()

    await page.route(address, hold)
    return asked, go


async def test_one_more_is_made_once_until_that_is_answered(page: Page, site, run: Execution) -> None:
    async with Client(site.product.target) as client:

        async def more() -> set[str]:
            return {one.id async for one in client.list_executions() if one.parent_execution_id == run.id}

        await open_results(page, site, run.id)
        asked, go = await held(page, "**/again", lose=True)
        again = shown(page).first.get_by_role("button", name="One more like this")
        link = page.get_by_role("link", name="Watch it")
        await again.dblclick()
        go.set()
        await expect(page.get_by_text("The server cannot be reached.")).to_be_visible()
        assert len(await more()) == 1
        await again.click()
        await expect(link).to_be_visible()
        assert len(set(asked)) == 1
        assert len(await more()) == 1
        # Who clicks again after that wants another one.
        first = await link.get_attribute("href") or ""
        go.clear()
        await again.click()
        await expect(again).to_have_attribute("aria-disabled", "true")
        go.set()
        await expect(link).not_to_have_attribute("href", first)
        assert len(set(asked)) == len(await more()) == 2


async def test_a_failed_one_is_edited_and_tried_again(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        run = await finished(client, ["a good one", "a bad one [fail:400]", "another bad one [fail:blockedx1]"])
        await open_results(page, site, run.id)
        failed = page.locator("nb-gallery .nb-card[data-state=FAILED]")
        await expect(failed).to_have_count(2)
        await failed.first.get_by_role("button", name="Edit and retry").click()
        box = page.get_by_role("textbox", name="Prompt 2, to be tried again")
        await box.fill("")
        await page.get_by_role("button", name="Try again").click()
        # What is wrong is said at the field, and belongs to it.
        wrong = failed.first.get_by_role("alert")
        await expect(wrong).to_contain_text("empty")
        await expect(box).to_have_attribute("aria-invalid", "true")
        await expect(box).to_have_attribute("aria-describedby", await wrong.get_attribute("id") or "")
        await box.fill("a mended one")
        await expect(wrong).to_be_hidden()
        # Nobody was reached: that is said there as well, and what was typed stays.
        await page.route("**/retry", lambda route: route.abort(), times=1)
        await page.get_by_role("button", name="Try again").click()
        await expect(wrong).to_contain_text("The server cannot be reached.")
        await expect(page.locator(".nb-toast")).to_have_count(0)
        await page.get_by_role("button", name="Try again").click()
        await expect(failed).to_have_count(1)
        await expect(page.locator("nb-gallery .nb-card[data-state=COMPLETED]")).to_have_count(2)
        asked, go = await held(page, "**/retry")
        await page.get_by_role("button", name="Retry all failed").dblclick()
        go.set()
        await expect(page.get_by_role("button", name="Success (3)")).to_be_visible()
        assert len(asked) == 1
        await expect(page.locator(".nb-toast", has_text="The batch has ended: 3 done, 0 failed")).to_have_count(1)
        await expect(page.get_by_role("button", name="Retry all failed")).to_be_hidden()
        results = [result async for result in client.list_results(run.id)]
        assert [one.prompt_text for one in results][:2] == ["a good one", "a mended one"]


async def test_a_picture_is_taken_home_asked_for_again_and_used_as_reference(page: Page, site, run, tmp_path) -> None:
    await open_results(page, site, run.id)
    first = shown(page).first
    async with page.expect_download() as downloading:
        await first.get_by_role("link", name="Download").click()
    download = await downloading.value
    assert re.fullmatch(r"001-a-red-fox\.(png|jpg|webp)", download.suggested_filename)
    saved = tmp_path / "saved"
    await download.save_as(saved)
    async with Client(site.product.target) as client:
        results = [result async for result in client.list_results(run.id)]
        assert sha256(saved.read_bytes()).hexdigest() == results[0].sha256
        with Image.open(saved) as picture:
            picture.load()
            assert picture.size == (results[0].width, results[0].height)

        await first.get_by_role("button", name="One more like this").click()
        link = page.get_by_role("link", name="Watch it")
        child = (await link.get_attribute("href") or "").partition("execution=")[2]
        made = await client.get_execution(child)
        assert made.parent_execution_id == run.id
        assert made.stats.total == 1

    await first.get_by_role("button", name="Use as reference").click()
    await expect(page.locator("#nb-references li")).to_have_count(1)
    await page.wait_for_url(lambda url: "reference=" not in url)


async def test_the_page_speaks_french(browser, site, run: Execution) -> None:
    page = await browser.new_page(locale="fr-FR")
    await open_results(page, site, run.id)
    await expect(page.get_by_role("button", name="Échouées (2)")).to_be_visible()
    await expect(page.locator(".nb-summary-line")).to_contain_text("2 sur 4 finies, 2 échouées")
    await expect(shown(page).nth(2)).to_contain_text("Cela a peut-être été facturé.")
    await page.close()


async def test_all_or_the_chosen_ones_come_as_a_zip(page: Page, site, run: Execution, tmp_path) -> None:
    async def taken(link: str) -> zipfile.ZipFile:
        async with page.expect_download() as downloading:
            await page.get_by_role("link", name=link).click()
        download = await downloading.value
        assert download.suggested_filename == f"nanobatch-{run.id[:8]}.zip"
        await download.save_as(tmp_path / "all.zip")
        return zipfile.ZipFile(tmp_path / "all.zip")

    await open_results(page, site, run.id)
    async with Client(site.product.target) as client:
        results = [result async for result in client.list_results(run.id)]
    with await taken("Download all as ZIP") as archive:
        pictures = archive.namelist()[2:]
        assert [name[:3] for name in pictures] == ["001", "002"]
        for name, result in zip(pictures, results, strict=False):
            assert sha256(archive.read(name)).hexdigest() == result.sha256
        told = json.loads(archive.read("manifest.json"))["results"]
        assert [each["error"]["code"] if each["error"] else None for each in told] == [
            None,
            None,
            "CONTENT_BLOCKED",
            "INVALID_REQUEST",
        ]
    await page.get_by_role("checkbox", name="Choose picture 2").check()
    with await taken("Download 1 chosen as ZIP") as archive:
        assert archive.namelist()[2:] == pictures[1:]


async def test_a_part_of_a_run_takes_nothing_away_from_what_is_shown(page: Page, site, run: Execution) -> None:
    await open_results(page, site, run.id)
    await page.get_by_role("checkbox", name="Choose picture 2").check()

    # As after a restart of the page's process that has not heard everything yet.
    async def another_copy(route: Route) -> None:
        answer = await route.fetch()
        delta = await answer.json()
        await route.fulfill(response=answer, json={**delta, "epoch": "another", "results": delta["results"][:1]})

    await page.route("**/nb/live/**", another_copy, times=1)
    async with page.expect_request(lambda request: "epoch=another" in request.url):
        pass  # the part has been seen
    await expect(shown(page)).to_have_count(4)
    await expect(page.get_by_role("checkbox", name="Choose picture 2")).to_be_checked()
    await expect(page.get_by_role("link", name="Download 1 chosen as ZIP")).to_be_visible()


async def test_a_wiped_key_is_asked_for_once_more_and_kept_nowhere(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        prompts = ["a good one", "a bad one {{fault:400-fieldx1}}"]
        run = await client.create_execution(prompts, model="gemini-2.5-flash-image", api_key="the-first-key")
        async for _ in client.watch(run.id):
            pass
    await open_results(page, site, run.id)
    await page.get_by_role("button", name="Retry all failed").click()
    key = page.get_by_label("Provider key")
    await key.fill("a key with blanks")
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".nb-ask [role=alert]")).to_contain_text("white space")
    await expect(key).to_have_attribute("aria-invalid", "true")
    await key.fill(KEY)
    await page.route("**/retry", lambda route: route.abort(), times=1)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".nb-ask [role=alert]")).to_contain_text("The server cannot be reached.")
    await expect(key).to_have_value(KEY)
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_role("button", name="Success (2)")).to_be_visible()
    await expect(page.get_by_label("Provider key")).to_have_count(0)
    await expect(shown(page).nth(1)).to_contain_text("2 attempts")
    kept = await page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, location.href, document.cookie])"
    )
    assert KEY not in kept + await page.content()
