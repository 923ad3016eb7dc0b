"""The third step in a browser: numbers that are the gateway's, pauses that say what they need, tabs that all live."""

import re
from datetime import timedelta

import pytest
from pages import paused
from playwright.async_api import Browser, Page, Route, expect

from nanobatch_client import Client, Execution

MODEL = "gemini-2.5-flash-image"


def dollars(micros: int) -> str:
    text = f"{micros / 1e6:.6f}".rstrip("0")
    whole, _, cents = text.partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"


async def expect_numbers(page: Page, execution: Execution) -> None:
    """Compare every number of the board with what GetExecution says."""
    stats = execution.stats
    facts = {
        "percent": f"{stats.completion_percentage} %",
        "done": f"{stats.completed} done",
        "failed": f"{stats.failed} failed",
        "left": f"{stats.pending + stats.processing} left",
        "cost": f"{dollars(stats.total_cost_micros)} cost so far",
    }
    if stats.cancelled:
        facts["cancelled"] = f"{stats.cancelled} cancelled"
    if stats.uncertain_cost_micros:
        facts["uncertain"] = f"{dollars(stats.uncertain_cost_micros)} maybe charged besides"
    for name, fact in facts.items():
        await expect(page.locator(f".nb-numbers [data-fact='{name}']")).to_have_text(fact)
    await expect(page.locator("#nb-run nb-run > div > progress")).to_have_js_property(
        "value", stats.completion_percentage
    )


async def expect_outcome(page: Page, execution: Execution) -> None:
    """Compare every number of the last step with what GetExecution says; there are no others."""
    stats = execution.stats
    left = stats.pending + stats.processing
    facts = {
        "done": str(stats.completed),
        "failed": str(stats.failed),
        "cancelled": str(stats.cancelled or ""),
        "left": str(left or ""),
        "cost" if left else "cost_all": dollars(stats.total_cost_micros),
        "maybe": dollars(stats.uncertain_cost_micros) if stats.uncertain_cost_micros else "",
    }
    wanted = {f"run.{name}": fact for name, fact in facts.items() if fact}
    for name, fact in wanted.items():
        await expect(page.locator(f".nb-outcome [data-fact='{name}'] dd")).to_have_text(fact)
    await expect(page.locator(".nb-outcome dd")).to_have_count(len(wanted))


async def test_a_cap_that_is_reached_is_raised_where_it_is_told(page: Page, site, client: Client) -> None:
    prompts = [
        "one",
        "two, with more words than the others have",
        "three {{fault:image-safety}}",
        "four {{fault:junkx1}}",
    ]
    run = await client.create_execution(prompts, model=MODEL, api_key="a-good-key", max_cost_micros=80_000)
    await page.goto(f"{site.url}?execution={run.id}")
    await expect(page.locator(".nb-note").last).to_contain_text("Cap reached")
    await expect_numbers(page, await client.get_execution(run.id))
    cap = page.get_by_label("New spend cap in US dollars (it was $0.08)")
    await cap.fill("0.5")
    await page.get_by_role("button", name="Resume").click()
    await expect(page.locator(".nb-outcome")).to_be_visible()
    ended = await client.get_execution(run.id)
    assert ended.state.is_final
    await page.get_by_role("tab", name="Processing").click()
    await expect_numbers(page, ended)
    withheld = page.locator("nb-run .nb-card[data-state='FAILED']")
    await expect(withheld).to_contain_text("The provider made a picture and withheld it.")
    assert ended.stats.total_cost_micros
    assert ended.stats.uncertain_cost_micros
    await expect_outcome(page, ended)

    results = [one async for one in client.list_results(run.id)]
    await page.goto(f"{site.url}results?execution={run.id}")
    cards = page.locator("nb-gallery .nb-card")
    await expect(cards).to_have_count(4)
    dearest = sorted(results, key=lambda one: -one.cost_micros)
    assert dearest[0].prompt_text == prompts[1]
    slowest = sorted(results, key=lambda one: -round((one.processing_time or timedelta()).total_seconds() * 1000))
    for order, wanted in (("cost", dearest), ("slowest", slowest)):
        await page.get_by_label("Sort by").select_option(order)
        for place, result in enumerate(wanted):
            await expect(cards.nth(place)).to_have_attribute("data-id", result.id)


async def test_what_takes_time_says_how_far_it_is_and_what_it_waits_for(page: Page, site, client: Client) -> None:
    # Five have to be seen before anything is concluded from how long they took.
    prompts = [*(f"quick {number}" for number in range(5)), "slow [delay:60]", "again [fail:500]"]
    run = await client.create_execution(prompts, model="sandbox", max_attempts=10)
    await page.goto(f"{site.url}?execution={run.id}")
    slow, again = page.locator(".nb-card").nth(5), page.locator(".nb-card").nth(6)
    await expect(slow.locator("progress")).to_have_attribute("value", re.compile(r"^[1-9]\d?(\.\d+)?$"))
    await expect(page.locator(".nb-numbers [data-fact='eta']")).to_have_text(re.compile(r"^about \d.* left$"))
    await expect(again.locator(".nb-why")).to_have_text(re.compile(r"^trying again after a failure, until \d+:\d\d"))
    await client.cancel_execution(run.id)


async def test_a_key_that_is_refused_is_asked_for_where_that_is_told(page: Page, site, client: Client) -> None:
    run = await client.create_execution(["one", "two"], model=MODEL, api_key="bad-key")
    await page.goto(f"{site.url}?execution={run.id}")
    await expect(page.get_by_text("The provider does not take the key.")).to_be_visible()
    key = page.locator("#nb-resume-key")
    await expect(key).to_have_attribute("autocomplete", "new-password")
    resume = page.get_by_role("button", name="Resume")
    await key.fill("a key with blanks")
    await resume.click()
    wrong = page.locator(".nb-resume [role=alert]", has_text="white space")
    await expect(key).to_have_attribute("aria-describedby", await wrong.get_attribute("id") or "")
    await expect(key).to_have_attribute("aria-invalid", "true")
    await key.fill("another-good-key")
    await page.route("**/resume", lambda route: route.abort(), times=1)
    await resume.click()
    await expect(page.locator(".nb-resume [role=alert]", has_text="The server cannot be reached.")).to_be_visible()
    await expect(key).to_have_value("another-good-key")
    await resume.click()
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("2")
    assert "another-good-key" not in await page.evaluate("document.documentElement.outerHTML + location.href")


@pytest.mark.timeout(300)
async def test_ten_tabs_of_one_browser_all_stay_live(browser: Browser, site, client: Client) -> None:
    run = await paused(client)
    context = await browser.new_context(locale="en-US")
    # Browsers open six connections to a host: if a tab held one, the seventh would get nothing.
    pages = [await context.new_page() for _ in range(10)]
    for page in pages:
        await page.goto(f"{site.url}?execution={run.id}", timeout=120_000)
    for page in pages:
        await expect(page.locator(".nb-card")).to_have_count(40, timeout=120_000)
    await pages[9].get_by_role("button", name="Resume").click()
    for page in pages:
        await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("39", timeout=120_000)
    ended = await client.get_execution(run.id)
    await pages[3].get_by_role("tab", name="Processing").click()
    await expect_numbers(pages[3], ended)
    await context.close()


async def test_a_run_goes_on_without_its_page_and_is_found_where_it_is(
    browser: Browser, page: Page, site, client: Client
) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await page.locator("#nb-prompts textarea").fill("one\n\ntwo\n\nthree [delay:60]\n\nfour [fail:blocked]")
    await page.locator("#nb-next").click()
    await page.locator("#nb-start").click()
    shown, failed = page.locator(".nb-card[data-state='COMPLETED'] img"), page.locator(".nb-card[data-state='FAILED']")
    await expect(shown).to_have_count(2)
    await expect(failed).to_have_count(1)
    address = page.url
    run_id = address.partition("execution=")[2]

    await page.reload()
    assert page.url == address
    await expect(shown).to_have_count(2)
    await expect(failed).to_have_count(1)
    await expect(page.locator(".nb-card[data-state='PROCESSING']")).to_have_count(1)
    await expect_numbers(page, await client.get_execution(run_id))

    await page.close()
    back = await browser.new_page(locale="en-US")
    await back.goto(site.url)  # without its address
    await back.locator(f"nb-running a[href$='{run_id}']").click()
    await expect(back.locator(".nb-card[data-state='COMPLETED'] img")).to_have_count(2)
    await back.get_by_role("tab", name="Configure").click()
    await back.locator("#nb-prompts textarea").fill("the next batch")
    ended = (await client.cancel_execution(run_id)).execution
    await expect(back.locator(".nb-toast", has_text="The batch has ended")).to_be_visible()
    await back.get_by_role("button", name="Fill in three samples").click()  # who writes is not interrupted
    await expect(back.get_by_text("3 prompts", exact=True)).to_be_visible()
    await back.goto(address)
    await expect(back.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("2")
    await back.get_by_role("tab", name="Processing").click()
    await expect_numbers(back, ended)
    assert [one.id async for one in client.list_executions()].count(run_id) == 1
    await back.close()


async def test_a_run_that_ends_while_the_page_is_arriving_leads_on_to_its_results(
    page: Page, site, client: Client
) -> None:
    run = await paused(client)

    async def end_before_the_first_look(route: Route) -> None:
        await client.resume_execution(run.id)
        async for _ in client.watch(run.id):
            pass
        await route.fallback()

    await page.route("**/nb/live/**", end_before_the_first_look, times=1)
    await page.goto(f"{site.url}?execution={run.id}")
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("39")


async def test_an_unknown_run_is_told_and_a_final_one_opens_at_its_results(page: Page, site, client: Client) -> None:
    await page.goto(f"{site.url}?execution=00000000-0000-4000-8000-00000000dead")
    await expect(page.get_by_text("There is no such batch.")).to_be_visible()
    run = await client.create_execution(["[delay:20] one"], model="sandbox")
    await client.cancel_execution(run.id)
    await page.goto(f"{site.url}?execution={run.id}")
    await expect_outcome(page, await client.get_execution(run.id))
    await expect(page.locator(".nb-outcome [data-fact='run.cancelled'] dd")).to_have_text("1")


async def test_the_last_step_goes_on_counting_when_something_is_tried_again(page: Page, site, client: Client) -> None:
    run = await client.create_execution(["one", "two [fail:400]"], model="sandbox")
    async for _ in client.watch(run.id):
        pass
    await page.goto(f"{site.url}?execution={run.id}")
    await expect_outcome(page, await client.get_execution(run.id))
    failed = [one async for one in client.list_results(run.id)][1]
    await client.retry_execution(run.id, edits={failed.id: "two [delay:60]"}, result_ids=[failed.id])
    await expect_outcome(page, await client.get_execution(run.id))
    await expect(page.locator(".nb-outcome [data-fact='run.left'] dd")).to_have_text("1")
    await client.cancel_execution(run.id)
