"""What the page asks of a browser's network, counted."""

from collections import Counter
from urllib.parse import urljoin

import pytest
from bench.page import picture_bytes
from playwright.async_api import Browser, Page, expect

from nanobatch_client import Client

from .test_processing import MODEL
from .test_results import finished


async def test_a_hundred_pictures_are_looked_at_with_less_than_two_megabytes(browser: Browser, site) -> None:
    async with Client(site.product.target) as client:
        run = await client.create_execution(
            [f"picture number {number}" for number in range(100)], model=MODEL, api_key="a-key-for-a-hundred"
        )
        async for _ in client.watch(run.id):
            pass
        assert (await client.get_execution(run.id)).stats.completed == 100
    weight = await picture_bytes(browser, f"{site.url}results?execution={run.id}")
    assert 100 * 500 < weight < 2_000_000


async def test_a_picture_that_is_shown_is_not_loaded_again_and_none_is_before_it_is_asked_for(page: Page, site) -> None:
    loaded: Counter[str] = Counter()
    page.on("request", lambda request: loaded.update([request.url]) if "/images/" in request.url else None)
    await page.set_viewport_size({"width": 1200, "height": 3_000})
    async with Client(site.product.target) as client:
        run = await client.create_execution([f"picture {number} [delay:1]" for number in range(15)], model="sandbox")
        await page.goto(f"{site.url}?execution={run.id}")
        await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("15")
        await page.get_by_role("tab", name="Processing").click()
        await page.wait_for_function(
            "[...document.querySelectorAll('nb-run .nb-card img')].filter((one) => one.naturalWidth).length === 15"
        )
        results = [result async for result in client.list_results(run.id)]
    assert loaded == Counter(result.thumbnail_url for result in results)


async def test_numbers_are_those_of_get_execution_on_every_page(page: Page, site) -> None:
    async with Client(site.product.target) as client:
        run = await client.create_execution(
            ["one", "two {{fault:image-safety}}", "three"], model=MODEL, api_key="a-key-for-numbers", variations=2
        )
        async for _ in client.watch(run.id):
            pass
        stats = (await client.get_execution(run.id)).stats
        results = [result async for result in client.list_results(run.id)]
        other = await finished(client, ["free"])
    assert (stats.total, stats.completed, stats.failed) == (6, 4, 2)
    cost = f"${stats.total_cost_micros / 1e6:.6f}".rstrip("0")
    counts = f"{stats.completed} of {stats.total} done, {stats.failed} failed"
    await page.goto(f"{site.url}results?execution={run.id}")
    await expect(page.locator(".nb-summary-line")).to_contain_text(f"{counts} · {cost}")
    for name, count in (("All", stats.total), ("Success", stats.completed), ("Failed", stats.failed)):
        await expect(page.get_by_role("button", name=f"{name} ({count})")).to_be_visible()
    for result in results:
        card = page.locator(f"nb-gallery .nb-card[data-id='{result.id}']")
        assert result.processing_time is not None
        facts = [f"{result.processing_time.total_seconds():.1f} s"]
        facts += [f"${result.cost_micros / 1e6:.6f}".rstrip("0")] if result.cost_micros else []
        facts.append("1 attempt" if result.attempts == 1 else f"{result.attempts} attempts")
        await expect(card.locator(".nb-facts-line")).to_have_text(" · ".join(facts))
        name = str(result.batch_index + 1) + (f" · {result.variation + 1}" if result.variation else "")
        await expect(card.locator(".nb-number")).to_have_text(name)
        await expect(card.locator(".nb-opener")).to_have_attribute("aria-label", f"Open picture {name}")
        await expect(card.get_by_role("checkbox", include_hidden=True)).to_have_attribute(
            "aria-label", f"Choose picture {name}"
        )
    durations = await page.evaluate(
        """async (all) => {
            const {duration} = await import("/nano-banana/nb/assets/base.js");
            return all.map(duration);
        }""",
        [0.2, 59.6, 3571, 4800, 7171],
    )
    assert durations == ["1 s", "1 min", "1 h 0 min", "1 h 20 min", "2 h 0 min"]
    await page.goto(f"{site.url}history")
    await expect(page.locator(f".nb-batch[data-id='{run.id}']")).to_contain_text(f"{MODEL} · {counts} · {cost}")
    await expect(page.locator(f".nb-batch[data-id='{other.id}']")).to_contain_text("1 of 1 done, 0 failed · free")


@pytest.mark.parametrize("wrong", ["/nothing-here", "/nano-banana/nothing-here", "/nano-banana/nb/nothing-here"])
async def test_a_wrong_address_leads_back_to_the_page(page: Page, site, wrong: str) -> None:
    answer = await page.goto(urljoin(site.url, wrong))
    assert answer is not None
    assert answer.status == 404
    await expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    await page.get_by_role("link", name="To your batches").click()
    await expect(page).to_have_url(site.url)
    asked = await page.request.get(urljoin(site.url, wrong), headers={"Accept": "*/*"})
    assert (asked.status, await asked.json()) == (404, {"detail": "Not Found"})
