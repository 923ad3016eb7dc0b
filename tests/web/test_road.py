"""The whole road in a browser: prompts in, review, live board, pictures."""

import re

from playwright.async_api import Page, expect

from nanobatch_client import Client


async def pick_sandbox(page: Page) -> None:
    await page.locator("#nb-model input").click()
    await page.get_by_role("option", name="Sandbox").click()


async def test_three_samples_become_three_pictures(page: Page, site) -> None:
    await page.goto(site.url)
    await page.get_by_role("button", name="Fill in three samples").click()
    await expect(page.get_by_text("3 prompts", exact=True)).to_be_visible()
    await pick_sandbox(page)
    await page.locator("#nb-next").click()
    await page.get_by_role("textbox", name="Prompt 2").fill("A changed <b>prompt</b>")
    await page.get_by_role("textbox", name="Prompt 1").click()
    await page.locator("#nb-start").click()
    await page.wait_for_url(re.compile(r"\?execution=[0-9a-f-]{36}$"))
    execution_id = page.url.partition("execution=")[2]
    await expect(page.get_by_role("link", name="View All Results")).to_be_visible()
    await expect(page.locator(".nb-outcome dd").first).to_have_text("3")
    async with Client(site.product.target) as client:
        execution = await client.get_execution(execution_id)
        texts = [result.prompt_text async for result in client.list_results(execution_id)]
    assert execution.stats.completed == 3
    assert texts[1] == "A changed <b>prompt</b>"


async def test_the_key_is_asked_for_at_its_field(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("$")
    await page.locator("#nb-prompts textarea").fill("a fox")
    await page.locator("#nb-next").click()
    await page.locator("#nb-start").click()
    await expect(page.locator("#nb-key-status")).to_contain_text("key")
    await expect(page.locator("#nb-key")).to_be_visible()
