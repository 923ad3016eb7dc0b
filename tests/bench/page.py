"""The web page in a real Chromium: paint, pictures as they are committed, coming back, many who look on.

``python -m bench.page URL EXECUTION COUNT`` is so many viewers without a browser: they ask for what is new as its script does.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pages import answering, headless_chromium
from playwright.async_api import Browser, Page
from processes import ROOT, free_port, product

from bench.watchers import commit_times
from nanobatch_client import Client

_PICTURES = 100
_VIEWERS = 200
_RATE = 10
_LONG_TASK = 200
_BOARD, _GALLERY = 6_000, 20_000
"""Pixels of height at which every card of 100 is in sight, so that no picture waits to be scrolled to."""
# What a page notes of itself from its first moment: when each picture was drawn, how long the main thread was held, whether
# a picture that was shown went away, and how long it took from the first question about the run to all cards.
_NOTES = """
window.noted = {drawn: {}, held: [], lost: 0, asked: null, complete: null};
new PerformanceObserver((list) => noted.held.push(...list.getEntries().map((one) => one.duration)))
    .observe({type: "longtask", buffered: true});
document.addEventListener("load", (event) => {
    const id = event.target.closest?.(".nb-card")?.dataset.id;
    if (!id) return;
    if (id in noted.drawn) { noted.lost += 1; return; }
    requestAnimationFrame(() => setTimeout(() => { noted.drawn[id] ??= Date.now(); }));
}, true);
const ask = window.fetch;
window.fetch = (...what) => {
    if (String(what[0]).includes("/nb/live/")) noted.asked ??= performance.now();
    return ask(...what);
};
new MutationObserver((changes) => {
    noted.lost += changes.flatMap((one) => [...one.removedNodes]).filter((one) => one.querySelector?.("img[src]")).length;
    if (noted.complete === null && document.querySelectorAll("nb-run .nb-card").length === PICTURES) {
        noted.complete = performance.now();
    }
}).observe(document, {childList: true, subtree: true});
""".replace("PICTURES", str(_PICTURES))


async def bench_page(folder: Path, rounds: int) -> None:
    """First paint, commit to sight at 10 pictures a second (alone and beside 200 viewers), coming back, bytes."""
    paints, usable, returns, alone, beside, held, lost, weights = [], [], [], [], [], [], 0, []
    for _ in range(rounds):
        async with _site(folder) as (browser, client, url, data):
            page = await _opened(browser, url)
            await page.locator("#nb-facts li").first.wait_for()
            usable.append(await page.evaluate("performance.now()"))
            paints.append(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            await page.close()
            for viewers, delays in ((0, alone), (_VIEWERS, beside)):
                run = await _paused(client)
                page = await _opened(browser, f"{url}?execution={run}")
                await page.locator(".nb-card").nth(_PICTURES - 1).wait_for()
                with _viewers(url, run, viewers):
                    await page.evaluate("noted.held.length = 0")
                    resumed = time.time()
                    await client.resume_execution(run)
                    await page.wait_for_function(f"Object.keys(noted.drawn).length === {_PICTURES}", timeout=300_000)
                    noted = await page.evaluate("noted")
                await page.close()
                begun = commit_times(data)
                drawn = {result_id: at / 1000 for result_id, at in noted["drawn"].items() if begun[result_id] > resumed}
                delays += [at - begun[result_id] for result_id, at in drawn.items()]
                lost += noted["lost"]
                if not viewers:
                    held.append(sum(duration > _LONG_TASK for duration in noted["held"]))
            page = await _opened(browser, f"{url}?execution={run}")
            await page.get_by_role("tab", name="Processing").click()
            await page.locator("nb-run .nb-card").nth(_PICTURES - 1).wait_for()
            noted = await page.evaluate("noted")
            returns.append(noted["complete"] - noted["asked"])
            await page.close()
            weights.append(await picture_bytes(browser, f"{url}results?execution={run}"))
    _tell("first paint, ms", paints, 2000)
    print(f"  the form with its models: {statistics.median(usable):.0f} ms")
    _tell("commit to sight, p95 of ms", [_p95(alone)], 500)
    _tell(f"the same beside {_VIEWERS} viewers", [_p95(beside)], 2 * _p95(alone))
    _tell(f"from asking to {_PICTURES} cards, ms", returns, 500)
    quiet = sum(not count for count in held)
    print(
        f"  runs without a task over {_LONG_TASK} ms: {quiet} of {len(held)} (goal: 4 of 5); pictures that went away: {lost}"
    )
    _tell(f"bytes of pictures per viewer of {_PICTURES}", weights, 2_000_000)


async def picture_bytes(browser: Browser, url: str) -> int:
    """Return how many bytes of pictures a fresh visitor of a results page loads, all of it looked at once."""
    page = await _opened(browser, url, tall=_GALLERY)
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    addresses: dict[str, str] = {}
    weights: dict[str, int] = {}

    def answered(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["response"]["url"]

    def finished(event: dict[str, Any]) -> None:
        weights[event["requestId"]] = int(event["encodedDataLength"])

    session.on("Network.responseReceived", answered)
    session.on("Network.loadingFinished", finished)
    await page.reload()
    await page.locator("nb-gallery .nb-card").nth(_PICTURES - 1).wait_for()
    await page.wait_for_function(
        f"[...document.querySelectorAll('nb-gallery img')].filter((one) => one.naturalWidth).length === {_PICTURES}"
    )
    await page.close()
    return sum(weights.get(name, 0) for name, address in addresses.items() if "/images/" in urlsplit(address).path)


@asynccontextmanager
async def _site(folder: Path) -> AsyncIterator[tuple[Browser, Client, str, Path]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}/nano-banana/"
    # Ten calls at a time, so that the sandbox's delay makes the rate.
    environment = {"NANOBATCH_WEB": f"127.0.0.1:{port}", "NANOBATCH_SANDBOX_DELAY": str(10 / _RATE)}
    with product(folder, environment=environment) as running:
        await answering(url)
        async with Client(running.target) as client, headless_chromium() as browser:
            yield browser, client, url, running.data


async def _opened(browser: Browser, url: str, *, tall: int = _BOARD) -> Page:
    """Return a page of a fresh visitor who has nothing in the cache; it goes with its context."""
    page = await browser.new_page(viewport={"width": 1200, "height": tall}, locale="en-US")
    page.set_default_timeout(120_000)
    await page.add_init_script(_NOTES)
    await page.goto(url)
    return page


async def _paused(client: Client) -> str:
    run = await client.create_execution([f"prompt {n}" for n in range(_PICTURES)], model="sandbox")
    await client.pause_execution(run.id)
    while (await client.get_execution(run.id)).stats.processing:  # noqa: ASYNC110  # a look costs less than a watch
        await asyncio.sleep(0.1)
    return run.id


@contextmanager
def _viewers(url: str, execution_id: str, count: int) -> Iterator[None]:
    """Have viewers in a process of their own while the context is open."""
    if not count:
        yield
        return
    command = [sys.executable, "-m", "bench.page", url, execution_id, str(count)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "looking on":
            raise SystemExit("the viewers' process ended early")
        yield
        if process.poll() is not None:
            raise SystemExit("the viewers' process ended early")
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def _look_on(url: str, execution_id: str, count: int) -> None:
    there = [asyncio.Event() for _ in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for number, seen in enumerate(there):
            tasks.create_task(_viewer(url, execution_id, number, seen))
        for seen in there:
            await seen.wait()
        print("looking on", flush=True)


async def _viewer(url: str, execution_id: str, number: int, seen: asyncio.Event) -> None:
    """Ask as assets/live.js does, over one connection, until killed."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    since, epoch = -1, ""
    await asyncio.sleep(number / 1000)
    while True:
        path = f"{parts.path}nb/live/{execution_id}?since={since}&epoch={epoch}&tab=viewer{number}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if " 200 " not in f"{status} ":
            raise SystemExit(f"a viewer was told {status}")
        delta = orjson.loads(await reader.readexactly(int(headers["content-length"])))
        since, epoch = delta["version"], delta["epoch"]
        seen.set()
        await asyncio.sleep(int(headers["x-poll-milliseconds"]) / 1000)


def _p95(delays: list[float]) -> float:
    return 1000 * sorted(delays)[int(len(delays) * 0.95)]


def _tell(name: str, figures: list[float], goal: float) -> None:
    median = statistics.median(figures)
    print(f"{name}: {median:,.0f} (goal: at most {goal:,.0f}) {'ok' if median <= goal else 'MISSED'}, n={len(figures)}")


if __name__ == "__main__":
    asyncio.run(_look_on(sys.argv[1], sys.argv[2], int(sys.argv[3])))
