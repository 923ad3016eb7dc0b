"""Every step of the page against axe-core, light and dark: ``python -m axe AXE_SOURCE`` (``make axe`` brings the source).

Exit code 1 where something serious or critical is found in our markup. What is Gradio's own is listed apart: it cannot be
changed here. Our markup is whatever lies in one of our elements or was written into one of Gradio's, and the plain pages that
are no Gradio's at all.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pages import answering, headless_chromium
from playwright.async_api import Browser, Page
from processes import free_port, product
from web.steps import pick

_SERIOUS = frozenset({"serious", "critical"})
_TOKEN = "an-operators-token-of-some-length"  # of a product that lives as long as this check
_NOBODY = "http://127.0.0.1:9"  # a provider that cannot be reached: nothing leaves the machine
_PROMPTS = ("A red fox asleep", "A market street [fail:blocked]", "A glass teapot [delay:60]", "A cat [delay:60]")
_OURS_IN_GRADIOS = ".nb-facts, #nb-facts a, .nb-status, .nb-summary, .nb-problems"
"""What pages/*.py write as HTML: the elements of Gradio's around it are not ours."""
# Which rules fail where, and whether the place is ours.
_RUN = """async () => {
    const found = await axe.run(document, {resultTypes: ["violations"]});
    const ours = (selector) => {
        if (!document.querySelector(".gradio-container")) return true;
        const place = selector.length === 1 ? document.querySelector(selector[0]) : null;
        return !!place?.closest("[data-nb], .nb-toasts, dialog, .nb-wrong, OURS_IN_GRADIOS");
    };
    return found.violations.flatMap((rule) => rule.nodes.map((node) => (
        {rule: rule.id, help: rule.help, impact: node.impact ?? rule.impact, ours: ours(node.target),
         html: node.html.slice(0, 160), why: node.failureSummary ?? ""})));
}""".replace("OURS_IN_GRADIOS", _OURS_IN_GRADIOS)


class Checks:
    """What was found, by step."""

    def __init__(self, source: str) -> None:
        """``source`` is axe-core's script."""
        self._source = source
        self.steps: list[str] = []
        self.bad: list[tuple[str, dict[str, Any]]] = []
        self.lesser: Counter[tuple[str, str]] = Counter()
        self.gradios: Counter[tuple[str, str]] = Counter()

    async def look(self, page: Page, step: str) -> None:
        """Check a page as it is now."""
        await page.evaluate(self._source)  # past the page's content security policy, which lets no other script in
        self.steps.append(step)
        for finding in await page.evaluate(_RUN):
            name = (finding["rule"], finding["impact"])
            if not finding["ours"]:
                self.gradios[name] += 1
            elif finding["impact"] in _SERIOUS:
                self.bad.append((step, finding))
            else:
                self.lesser[name] += 1

    def report(self) -> int:
        """Print it all and return the exit code."""
        print(f"{len(self.steps)} steps checked: {', '.join(self.steps)}")
        for title, found in (("ours, moderate or minor", self.lesser), ("Gradio's own", self.gradios)):
            told = ", ".join(f"{rule} ({impact}) x {count}" for (rule, impact), count in sorted(found.items()))
            print(f"{title}: {told or 'none'}")
        for step, finding in self.bad:
            print(f"{step}: {finding['rule']} ({finding['impact']}): {finding['help']}")
            print(f"  {finding['html']}\n  {finding['why']}")
        print(f"ours, serious or critical: {len(self.bad)}")
        return 1 if self.bad else 0


async def walk(browser: Browser, url: str, scheme: str, checks: Checks) -> None:
    """Walk the road once, from an empty form to the statistics."""
    page = await browser.new_page(viewport={"width": 1200, "height": 900}, locale="en-US", color_scheme=scheme)  # type: ignore[arg-type]  # light or dark
    page.set_default_timeout(120_000)
    page.on("dialog", lambda dialog: dialog.accept())

    async def look(step: str) -> None:
        await page.wait_for_timeout(400)  # what fades in has no contrast yet
        await checks.look(page, f"{step} ({scheme})")

    await page.goto(url)
    await page.locator("#nb-facts li").first.wait_for()
    await pick(page, "Nano Banana")
    await page.locator("#nb-facts a").wait_for()
    await page.locator("#nb-key input").fill("a key that nobody can ask about here")
    await page.locator("#nb-check").click()
    await page.locator("#nb-key-status .nb-status").wait_for()
    await look("a paid model")
    await pick(page, "Sandbox")
    await page.locator("#nb-key").wait_for(state="hidden")
    await page.locator("#nb-prompts textarea").fill("\n\n".join([*_PROMPTS, _PROMPTS[0], "x" * 10_001]))
    await page.get_by_text("too long", exact=False).wait_for()
    await look("configure")
    await page.locator("#nb-next").click()
    await page.locator("#nb-review textarea").nth(5).wait_for()
    await look("review")
    for _ in range(2):
        await page.locator("#nb-review").get_by_role("button").last.click()
    await page.locator("#nb-start:enabled").wait_for()
    await look("review, mended")
    await page.locator("#nb-start").click()
    await page.wait_for_url(re.compile("execution="))
    await page.locator(".nb-card[data-state='FAILED']").wait_for()
    await page.locator(".nb-card[data-state='COMPLETED'] img").wait_for()
    await look("processing")
    run = page.url.partition("execution=")[2]
    await page.get_by_role("button", name="Pause").click()
    await page.locator("#nb-run .nb-resume").wait_for()
    await look("paused")
    await page.get_by_role("button", name="Cancel").click()
    await page.locator(".nb-outcome").wait_for()
    await look("results")
    await page.goto(f"{url}results?execution={run}")
    await page.locator("nb-gallery img").first.wait_for()
    await page.get_by_role("button", name="Edit and retry").first.click()
    await look("all results")
    await page.get_by_role("button", name="Open picture 1").click()
    await page.get_by_role("dialog").wait_for()
    await look("one picture")
    for path, there in (("history", "nb-history img"), ("statistics", "[data-chart='by-model']")):
        await page.goto(url + path)
        await page.locator(there).first.wait_for()
        await look(path)
    await page.close()


async def sign_in(browser: Browser, url: str, scheme: str, checks: Checks) -> None:
    """Check the login, before and after a wrong token."""
    page = await browser.new_page(locale="en-US", color_scheme=scheme)  # type: ignore[arg-type]  # light or dark
    page.set_default_timeout(120_000)
    await page.goto(url)
    await page.get_by_label("Your token").fill("nb_nonsense")
    await checks.look(page, f"login ({scheme})")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("alert").wait_for()
    await checks.look(page, f"login refused ({scheme})")
    await page.close()


async def on_a_product(
    browser: Browser, checks: Checks, act: Callable[[Browser, str, str, Checks], Awaitable[None]], **environment: str
) -> None:
    """Act on a product of its own, light and dark."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/nano-banana/"
    with (
        tempfile.TemporaryDirectory() as scratch,
        product(Path(scratch), upstream_url=_NOBODY, environment={"NANOBATCH_WEB": f"127.0.0.1:{port}", **environment}),
    ):
        await answering(url)
        for scheme in ("light", "dark"):
            await act(browser, url, scheme, checks)


async def main(source: Path) -> int:
    """Check everything."""
    checks = Checks(source.read_text(encoding="utf-8"))  # noqa: ASYNC240  # nothing else runs yet
    async with headless_chromium() as browser:
        await on_a_product(browser, checks, walk)
        await on_a_product(browser, checks, sign_in, NANOBATCH_AUTH="token", NANOBATCH_ADMIN_TOKEN=_TOKEN)
    return checks.report()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path(sys.argv[1]))))
