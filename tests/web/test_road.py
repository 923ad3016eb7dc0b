"""The whole road in a browser: prompts in, review, live board, pictures."""

import re

from playwright.async_api import Page, expect

from nanobatch_client import Client

from .steps import pick


async def test_three_samples_become_three_pictures(page: Page, site) -> None:
    await page.goto(site.url)
    await page.get_by_role("button", name="Fill in three samples").click()
    await expect(page.get_by_text("3 prompts", exact=True)).to_be_visible()
    await page.locator("#nb-next").click()
    await page.get_by_role("textbox", name="Prompt 2").fill("A changed <b>prompt</b>")
    await page.get_by_role("textbox", name="Prompt 1").click()
    await page.locator("#nb-start").click()
    await page.wait_for_url(re.compile(r"\?execution=[0-9a-f-]{36}$"))
    execution_id = page.url.partition("execution=")[2]
    await expect(page.get_by_role("link", name="View All Results")).to_be_visible()
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("3")
    await page.get_by_role("tab", name="Processing").click()
    pictures = page.locator(".nb-card img")
    await expect(pictures).to_have_count(3)
    for number in range(3):
        await expect(pictures.nth(number)).not_to_have_js_property("naturalWidth", 0)
    async with Client(site.product.target) as client:
        execution = await client.get_execution(execution_id)
        texts = [result.prompt_text async for result in client.list_results(execution_id)]
    assert execution.stats.completed == 3
    assert texts[1] == "A changed <b>prompt</b>"


async def test_the_key_is_asked_for_at_its_field(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await expect(page.locator("#nb-key")).to_have_count(0)
    await expect(page.locator("#nb-check")).to_have_count(0)
    await pick(page, "Nano Banana 2 Lite")
    await expect(page.locator("#nb-key input")).to_have_attribute("autocomplete", "new-password")
    await page.locator("#nb-prompts textarea").fill("a fox\n\nan owl\n\na boat")
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-summary")).to_contain_text("The provider key is missing")
    await expect(page.locator("#nb-summary")).to_contain_text("3 pictures")
    await page.get_by_role("textbox", name="Prompt 3").fill("a boat at dawn\n\nin oil")
    await page.get_by_role("button", name="Remove prompt 2").click()
    await expect(page.locator("#nb-summary")).to_contain_text("2 pictures")
    await expect(page.locator("#nb-summary")).to_contain_text("The provider key is missing")
    await page.locator("#nb-start").click()
    await expect(page.locator("#nb-key .nb-wrong")).to_contain_text("key")
    await expect(page.locator("#nb-key input")).to_be_focused()
    # What was changed in the review is changed, for whoever goes back, and after a reload.
    prompts = page.locator("#nb-prompts textarea")
    await expect(prompts).to_have_value("a fox\n\na boat at dawn\nin oil")
    await page.reload()
    await expect(prompts).to_have_value("a fox\n\na boat at dawn\nin oil")
    await page.locator("#nb-key input").fill("a-good-key")
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-summary")).to_contain_text("2 pictures")
    await expect(page.locator("#nb-summary")).not_to_contain_text("key")
    await expect(page.locator("#nb-review textarea")).to_have_count(2)


async def test_every_page_has_one_heading_that_names_it(page: Page, site) -> None:
    for path, name in (("", "New batch"), ("results", "Results"), ("history", "History"), ("statistics", "Statistics")):
        await page.goto(site.url + path)
        await expect(page.get_by_role("heading", level=1)).to_have_text([name])
