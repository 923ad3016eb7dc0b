"""The statistics page against what GetUsage says, of a user whose ledger was written before the product started."""

from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from nanobatch_client import Client, UsageGrouping, UsageReport

from .conftest import Guarded, Site
from .ledger import BOOKKEEPER, HOSTILE

pytestmark = pytest.mark.timeout(300)  # the first of them waits for a product and its page


@pytest.fixture
def site(guarded: Guarded) -> Site:
    """The product that asks for a token."""
    return guarded


@pytest_asyncio.fixture(loop_scope="session")
async def token(guarded: Guarded) -> str:
    """A token of who has a past."""
    async with Client(guarded.product.target, token=guarded.admin_token) as admin:
        return (await admin.create_token(user_id=BOOKKEEPER)).secret


@pytest_asyncio.fixture(loop_scope="session")
async def page(page: Page, site: Site, token: str) -> Page:
    """A page of somebody who has signed in."""
    await sign_in(page, site, token)
    return page


async def sign_in(page: Page, site: Site, token: str) -> None:
    await page.context.add_cookies([{"name": "nanobatch_token", "value": token, "url": site.url}])


async def usage(site: Site, token: str, days: int, *groups: UsageGrouping) -> UsageReport:
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1)
    async with Client(site.product.target, token=token) as client:
        return await client.get_usage(start=start, group_by=groups)


def dollars(micros: int) -> str:
    whole, _, cents = f"{micros / 1e6:.6f}".rstrip("0").partition(".")
    return f"${whole}.{cents.ljust(2, '0')}"


async def table(page: Page, chart: str) -> list[list[str]]:
    """Return the cells of a chart's table by row, without those that hold a bar alone."""
    rows: list[list[str]] = await page.locator(f'[data-chart="{chart}"] tbody tr').evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()).filter(Boolean))"
    )
    return rows


async def opened(page: Page, site: Site) -> None:
    await page.goto(f"{site.url}statistics")
    await expect(page.locator('[data-chart="by-model"]')).to_be_visible()


async def test_every_number_is_that_of_get_usage(page: Page, site: Site, token: str) -> None:
    await opened(page, site)
    for days in (30, 7):
        if days != 30:
            old = await page.locator(".nb-totals").inner_text()
            await page.get_by_role("radio", name=f"{days} days").check()
            await expect(page.locator(".nb-totals")).not_to_have_text(old, use_inner_text=True)
        day, model = UsageGrouping.DAY, UsageGrouping.MODEL
        by_day, by_model = await usage(site, token, days, day, model), await usage(site, token, days, model)
        by_outcome = await usage(site, token, days, UsageGrouping.OUTCOME)
        totals = by_day.totals
        assert await page.locator(".nb-totals dd").all_inner_texts() == [
            str(totals.pictures),
            str(totals.attempts),
            dollars(totals.cost_micros),
            dollars(totals.uncertain_micros),
            f"{totals.pictures * 1000 // totals.attempts / 10:g} %",
        ]
        sums: dict[str, list[int]] = {}
        for row in by_day.rows:
            of_day = sums.setdefault(str(row.day), [0, 0])
            of_day[0] += row.usage.pictures
            of_day[1] += row.usage.cost_micros
        for index, (chart, show) in enumerate((("by-day-pictures", str), ("by-day-cost", dollars))):
            shown = {cells[0]: cells[-1] for cells in await table(page, chart)}
            assert shown == {name: show(of_day[index]) for name, of_day in sums.items()}
        counts = {cells[1]: cells[2] for cells in await table(page, "by-outcome")}
        assert sorted(counts) == sorted(str(row.usage.attempts) for row in by_outcome.rows)
        latencies = {cells[0]: cells[1:] for cells in await table(page, "by-model")}
        assert set(latencies) == {row.model for row in by_model.rows if row.usage.latency_p50 is not None}
        for row in by_model.rows:
            if row.model in latencies:
                wanted = (row.usage.latency_p50, row.usage.latency_p90, row.usage.latency_p99)
                for text, latency in zip(latencies[row.model], wanted, strict=True):
                    assert latency is not None
                    assert abs(float(text.removesuffix(" s")) - latency.total_seconds()) < 0.06
    assert await page.title() != "hacked"
    assert HOSTILE in latencies or HOSTILE in {row.model for row in by_model.rows}


async def test_bars_are_as_long_as_their_numbers_and_begin_at_zero(page: Page, site: Site, token: str) -> None:
    await opened(page, site)
    chart = page.locator('[data-chart="by-day-pictures"] svg.nb-chart')
    assert await chart.locator("text").first.text_content() == "0"
    floor = float(await chart.locator("line").first.get_attribute("y1") or 0)
    drawn = await chart.locator("rect").evaluate_all(
        "(bars) => bars.map((bar) => [...['y', 'height'].map((name) => Number(bar.getAttribute(name))), bar.textContent])"
    )
    bars = [(y, height, int(title.rpartition(": ")[2])) for y, height, title in drawn]
    report = await usage(site, token, 30, UsageGrouping.DAY)
    assert sum(count for _, _, count in bars) == report.totals.pictures
    per_picture = {round(height / count, 6) for _, height, count in bars}
    assert len(per_picture) == 1
    lowest = max(y + height for y, height, _ in bars)
    assert lowest == pytest.approx(floor)
    assert str(max(sum(r.usage.pictures for r in report.rows if r.day == row.day) for row in report.rows)) in (
        await chart.get_attribute("aria-label") or ""
    )


async def test_it_reads_well_in_french_on_a_phone_in_the_dark(browser: Browser, site: Site, token: str) -> None:
    phone = await browser.new_page(viewport={"width": 360, "height": 800}, locale="fr-FR", color_scheme="dark")
    await sign_in(phone, site, token)
    await phone.goto(f"{site.url}statistics?__theme=dark")
    await expect(phone.get_by_role("heading", name="Images par jour et par modèle")).to_be_visible()
    await expect(phone.get_by_role("radio", name="7 jours")).to_be_visible()
    outside = await phone.evaluate(
        "[...document.querySelectorAll('nb-statistics *')].filter((e) => !e.closest('.nb-scroll') &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert outside == []
    await phone.close()


async def test_without_a_gateway_it_says_so_and_goes_on_by_itself_and_after_a_refusal_when_told(
    page: Page, site: Site
) -> None:
    await page.route("**/nb/usage*", lambda route: route.fulfill(status=503, json={"success": False, "error": {}}))
    await page.goto(f"{site.url}statistics")
    await expect(page.locator("nb-statistics [role=status]")).to_contain_text("cannot be reached")
    await page.unroute("**/nb/usage*")
    await expect(page.locator('[data-chart="by-model"]')).to_be_visible()
    refusal = {"success": False, "error": {"code": "NO", "message": "Not today."}}
    await page.route("**/nb/usage*", lambda route: route.fulfill(status=403, json=refusal), times=1)
    await page.get_by_role("radio", name="7 days").check()
    status = page.locator("nb-statistics [role=status]")
    await expect(status).to_contain_text("Not today.")
    await status.get_by_role("button", name="Try again").click()
    await expect(status).to_contain_text("Calls count on the day")
