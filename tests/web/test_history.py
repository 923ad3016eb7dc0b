"""The history in a browser."""

import re

from pages import paused
from playwright.async_api import Page, expect

from nanobatch_client import Client, NotFoundError, Prompt

from .drawing import drawn
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


async def test_it_shows_how_things_are_now(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        old = await finished(client, ["an old one"])
        run = await paused(client)
        await page.goto(f"{site.url}history")
        await expect(batch(page, run.id).locator(".nb-state")).to_have_text("paused")
        await expect(batch(page, run.id).get_by_role("progressbar")).to_have_count(1)
        link = batch(page, run.id).get_by_role("link", name="Run again with changes")
        await link.focus()
        await client.resume_execution(run.id)
        await expect(batch(page, run.id)).to_contain_text("39 of 40 done, 1 failed")
        await expect(batch(page, run.id).get_by_role("button", name="Delete")).to_have_count(1)
        await expect(link).to_be_focused()
        newer = await client.create_execution(["from elsewhere"], model="sandbox")
        await client.delete_execution(old.id)
        await expect(page.locator(".nb-batch").first).to_have_attribute("data-id", newer.id)
        await expect(batch(page, old.id)).to_have_count(0)


async def test_what_single_prompts_have_of_their_own_comes_along_when_a_run_is_run_again(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        common, own = [(await client.upload_image(drawn(colour))).id for colour in ("red", "blue")]
        prompts = [
            Prompt("a fox", reference_image_ids=(own,)),
            "a boat",
            Prompt("a fox", reference_image_ids=(common, own), variations=2),
        ]
        run = await client.create_execution(prompts, model="sandbox", references=[common])
        async for _ in client.watch(run.id):
            pass
        await page.goto(f"{site.url}?again={run.id}")
        await expect(page.locator("#nb-references")).to_contain_text("2 prompts bring pictures of their own")
        await expect(page.locator("#nb-references")).to_contain_text(
            "One prompt asks for a number of pictures of its own"
        )
        await page.wait_for_url(lambda url: "again=" not in url)
        await page.locator("#nb-next").click()
        await page.get_by_role("textbox", name="Prompt 3").fill("an owl")
        await page.locator("#nb-back").click()
        await page.locator("#nb-next").click()
        await expect(page.get_by_role("textbox", name="Prompt 3")).to_have_value("an owl")
        await page.locator("#nb-start").click()
        await page.wait_for_url(re.compile("execution="))
        again = page.url.partition("execution=")[2]
        made = [result async for result in client.list_results(again)]
        assert [(one.prompt_text, one.reference_image_ids) for one in made] == [
            ("a fox", (own,)),
            ("a boat", (common,)),
            ("an owl", (common, own)),
            ("an owl", (common, own)),
        ]

        await page.goto(f"{site.url}results?execution={run.id}")
        await page.get_by_role("button", name="One more like this").first.click()
        link = page.get_by_role("link", name="Watch it")
        child = (await link.get_attribute("href") or "").partition("execution=")[2]
        (more,) = [result async for result in client.list_results(child)]
        assert more.reference_image_ids == (own,)
