"""Without its gateway the page says so, and goes on by itself when it is back."""

from pathlib import Path

from pages import answering
from playwright.async_api import Browser, expect
from processes import command, free_port, product

from nanobatch_client import Client


async def test_the_page_waits_for_its_gateway_and_goes_on_by_itself(chromium: Browser, tmp_path: Path) -> None:
    web, grpc, http = free_port(), free_port(), free_port()
    url, data = f"http://127.0.0.1:{web}/nano-banana/", tmp_path / "data"
    places = {"NANOBATCH_GATEWAY_GRPC": f"127.0.0.1:{grpc}", "NANOBATCH_GATEWAY_HTTP": f"127.0.0.1:{http}"}
    page_of_its_own = {
        "NANOBATCH_WEB": f"127.0.0.1:{web}",
        "NANOBATCH_GATEWAY_TARGET": f"127.0.0.1:{grpc}",
        "NANOBATCH_PUBLIC_URL": f"http://127.0.0.1:{http}",
    }
    away = "The server cannot be reached. Nothing was lost; this page goes on by itself when it is back."
    with command(tmp_path, "serve", "web", environment=page_of_its_own):
        await answering(url)
        page = await chromium.new_page(locale="en-US")
        page.set_default_timeout(60_000)
        await page.goto(url)
        await expect(page.get_by_text(away)).to_be_visible()
        await page.locator("#nb-prompts textarea").fill("typed while nobody answers")
        with product(tmp_path, environment=places, data=data) as running:
            await expect(page.locator("#nb-facts")).to_contain_text("free", timeout=90_000)
            await expect(page.get_by_text(away)).to_have_count(0)
            await expect(page.locator("#nb-prompts textarea")).to_have_value("typed while nobody answers")
            async with Client(f"127.0.0.1:{grpc}") as client:
                run = await client.create_execution([f"picture {number}" for number in range(40)], model="sandbox")
                async for update in client.watch(run.id):
                    if update.stats.completed:
                        break
                await client.pause_execution(run.id)
            await page.goto(f"{url}?execution={run.id}")
            await expect(page.locator(".nb-card[data-state='COMPLETED'] img").first).to_be_visible()
            running.popen.kill()
            running.popen.wait()
            await expect(page.get_by_text("No connection. Trying again …")).to_be_visible()
            await expect(page.locator(".nb-card")).to_have_count(40)
            # Pages that are opened meanwhile say so as well, and go on by themselves.
            history, statistics = [await chromium.new_page(locale="en-US") for _ in range(2)]
            for other, path in ((history, "history"), (statistics, "statistics")):
                await other.goto(url + path)
                await expect(other.locator(f"nb-{path}").get_by_text(away)).to_be_visible(timeout=60_000)
            await expect(history.locator(".nb-toast")).to_have_count(0)
        with product(tmp_path, environment=places, data=data):
            await expect(page.get_by_text("No connection. Trying again …")).to_be_hidden(timeout=90_000)
            async with Client(f"127.0.0.1:{grpc}") as client:
                await client.resume_execution(run.id)
            await expect(history.locator(f".nb-batch[data-id='{run.id}']")).to_be_visible(timeout=60_000)
            await expect(history.get_by_text(away)).to_be_hidden()
            await expect(statistics.locator(".nb-totals")).to_be_visible(timeout=60_000)
            await expect(statistics.get_by_text(away)).to_have_count(0)
            await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("40", timeout=90_000)
