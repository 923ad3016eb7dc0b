"""The history in a browser."""

import re

from playwright.async_api import Page, expect

from nanobatch_client import Client, NotFoundError

from .test_results import HOSTILE, finished


def batch(page: Page, execution_id: str):
    return page.locator(f'.nb-batch[data-id="{execution_id}"]')


async def test_a_run_is_opened_run_again_with_changes_and_deleted(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        prompts = ["a red fox\n\nin two paragraphs", HOSTILE, "a bad one [fail:400]"]
        run = await finished(
            client, prompts, aspect_ratio="16:9", variations=2, suffix="in oil", max_cost_micros=500_000
        )
        await page.goto(f"{site.url}history")
        card = batch(page, run.id)
        await expect(card).to_contain_text("4 of 6 done, 2 failed")
        await page.wait_for_function("document.querySelector('.nb-batch img').naturalWidth > 0")

        await card.get_by_role("link", name="Run again with changes").click()
        box = page.locator("#nb-prompts textarea")
        await expect(box).to_have_value(
            f"a red fox\nin two paragraphs in oil\n\n{HOSTILE} in oil\n\na bad one [fail:400] in oil"
        )
        await expect(page.get_by_label("16:9")).to_be_checked()
        await expect(page.get_by_label("Spend cap in US dollars")).to_have_value("0.5")
        await page.wait_for_url(lambda url: "again=" not in url)

        await page.goto(f"{site.url}history")
        await batch(page, run.id).get_by_role("link", name="Open").click()
        await page.wait_for_url(re.compile(rf"/results\?execution={run.id}$"))
        await expect(page.locator("nb-gallery .nb-card")).to_have_count(6)

        await page.goto(f"{site.url}history")
        page.once("dialog", lambda dialog: dialog.accept())
        await batch(page, run.id).get_by_role("button", name="Delete").click()
        await expect(batch(page, run.id)).to_have_count(0)
        try:
            await client.get_execution(run.id)
        except NotFoundError:
            return
        raise AssertionError("it is still there")


async def test_what_runs_opens_live_cannot_be_deleted_and_older_ones_come_on_demand(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        older = [await client.create_execution(["quick"], model="sandbox") for _ in range(21)]
        slow = await client.create_execution(["slow [delay:60]"], model="sandbox")
        await page.goto(f"{site.url}history")
        await expect(page.locator(".nb-batch")).to_have_count(20)
        first = page.locator(".nb-batch").first
        await expect(first).to_have_attribute("data-id", slow.id)
        await expect(first.get_by_role("button", name="Delete")).to_have_count(0)
        await page.get_by_role("button", name="Show more").click()
        await expect(batch(page, older[0].id)).to_have_count(1)
        await first.get_by_role("link", name="Open").click()
        await page.wait_for_url(re.compile(rf"/nano-banana/\?execution={slow.id}$"))
        await client.cancel_execution(slow.id)
