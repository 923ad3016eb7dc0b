"""The first two steps in a browser: what survives, what must not, what is shown as text."""

import re

from playwright.async_api import Browser, Page, Request, expect

from nanobatch_client import Client

from .steps import colours, cut_off, pick

KEY = "AIza-a-key-that-must-stay-nowhere"
AT_REST = """() => {
    const kept = JSON.stringify({...localStorage});
    if (kept !== window.kept) { window.kept = kept; window.since = Date.now(); }
    return Object.keys(localStorage).length > 0 && Date.now() - window.since > 2000;
}"""
HOSTILE = (
    "<img src=x onerror=\"document.title='broken'\">",
    '=HYPERLINK("http://evil.test","click")',
    "\u202egnp.exe \u2066marks of direction\u2069",
    ("🦊🏳️‍🌈 emoji " + "long " * 800)[:4000],
    "<script>document.title='broken'</script>{{7*7}}${7*7}",
)


async def kept(page: Page) -> str:
    """Everything that a browser keeps of a page, or that a person could find in it."""
    return await page.evaluate(
        """() => JSON.stringify([
            location.href, document.cookie, {...localStorage}, {...sessionStorage}, history.state, window.name,
            document.documentElement.outerHTML, [...document.querySelectorAll("input, textarea")].map((one) => one.value),
        ])"""
    )


async def test_a_draft_survives_a_reload_and_the_key_does_not(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await pick(page, "Nano Banana")
    await page.locator("#nb-key input").fill(KEY)
    await page.locator("#nb-prompts textarea").fill("one\n\ntwo\n\none")
    await expect(page.locator("nb-prompt-list")).to_contain_text("same as 1")
    await page.locator("#nb-cap input").fill("1.5")
    await page.wait_for_function(AT_REST)
    before = await page.evaluate("JSON.stringify({...localStorage})")
    await page.locator("#nb-ratio label", has_text="16:9").click()

    await expect(page.locator("#nb-ratio input[value='16:9']")).to_be_checked()
    # Rest alone may be that of a crowded machine, which has not begun to keep it.
    await page.wait_for_function("(before) => JSON.stringify({...localStorage}) !== before", arg=before)
    await page.wait_for_function(AT_REST)
    await page.reload()
    await expect(page.locator("#nb-facts")).to_contain_text("$")
    await expect(page.locator("#nb-prompts textarea")).to_have_value("one\n\ntwo\n\none")
    await expect(page.locator("#nb-cap input")).to_have_value("1.5")
    await expect(page.locator("#nb-ratio input[value='16:9']")).to_be_checked()
    await expect(page.locator("#nb-key input")).to_have_value("")
    assert KEY not in await kept(page)


async def test_a_key_is_nowhere_once_the_run_has_started(page: Page, site) -> None:
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request))  # noqa: PLW0108  # a builtin cannot be marked
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await pick(page, "Nano Banana")
    await expect(page.get_by_role("link", name="Where keys are made")).to_be_visible()
    await page.locator("#nb-key input").fill("bad-key")
    await page.locator("#nb-check").click()
    await expect(page.locator("#nb-key-status")).to_contain_text("does not take this key")
    await page.locator("#nb-key input").fill(KEY)
    await page.locator("#nb-check").click()
    await expect(page.locator("#nb-key-status")).to_contain_text("takes this key")
    await page.locator("#nb-prompts textarea").fill("a fox")
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-summary")).to_contain_text("$0.039 = $0.039")
    await page.locator("#nb-start").click()
    await page.wait_for_url(re.compile("execution="))
    before = len(sent)
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("1")
    assert KEY not in await kept(page)
    await page.locator("#nb-again").click()
    await expect(page.locator("#nb-key input")).to_have_value("")
    assert not [request.url for request in sent[before:] if KEY in request.url + (request.post_data or "")]
    assert not [request.url for request in sent if KEY in request.url]


async def test_the_price_is_told_before_anything_is_spent(page: Page, site, client: Client) -> None:
    known = {model.id: model for model in await client.list_models()}["gemini-2.5-flash-image"]
    before = [one.id async for one in client.list_executions()]
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await pick(page, known.display_name)
    await expect(page.locator("#nb-facts")).to_contain_text(f"up to {known.max_reference_images} reference pictures")
    await expect(page.locator("#nb-facts").get_by_role("link")).to_have_attribute("href", known.key_url)
    await page.locator("#nb-prompts textarea").fill("one\n\ntwo\n\nthree")
    await page.locator("#nb-variations input[type=number]").fill("2")
    await page.locator("#nb-cap input").fill("1.5")
    await page.locator("#nb-next").click()
    summary = page.locator("#nb-summary")
    estimate = await client.estimate_cost(["one", "two", "three"], model=known.id, variations=2)
    assert (estimate.image_count, estimate.per_image_micros, estimate.total_micros) == (6, 39_000, 234_000)
    await expect(summary).to_contain_text("6 pictures \N{MULTIPLICATION SIGN} $0.039 = $0.234")
    await expect(summary).to_contain_text("Cap: $1.50")
    await expect(summary).to_contain_text("about ")
    await expect(page.locator("#nb-start")).to_have_text("Start: $0.234")
    assert [one.id async for one in client.list_executions()] == before


async def test_everything_wrong_is_told_at_its_field_and_nothing_is_started(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    broken = {"name": "a.csv", "mimeType": "text/csv", "buffer": b'one,1:1\n"two,1:1\n' + b"three,1:1\n" * 20_000}
    await page.locator("input[type=file][accept*='.csv']").set_input_files(broken)
    await expect(page.locator("#nb-prompts .nb-wrong")).to_contain_text("cannot be read from line 2 on")
    await page.locator("#nb-cap input").fill("-1")
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-cap .nb-wrong")).to_contain_text("Give an amount of 0 or more")
    await expect(page.locator("#nb-prompts .nb-wrong")).to_be_visible()
    await expect(page.locator("#nb-cap input")).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#nb-review textarea")).to_have_count(0)
    await page.locator("#nb-cap input").fill("10000000000000")
    await expect(page.locator("#nb-cap .nb-wrong")).to_have_count(0)
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-cap .nb-wrong")).to_contain_text("at most 9 trillion dollars")
    await page.locator("#nb-cap input").fill("2")
    await expect(page.locator("#nb-cap .nb-wrong")).to_have_count(0)


async def test_hostile_prompts_are_text_and_editing_keeps_the_focus(page: Page, site) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await page.locator("#nb-prompts textarea").fill("\n\n".join([*HOSTILE, "short", "x" * 10_001]))
    await expect(page.locator("nb-prompt-list")).to_contain_text("too long: 10001 of 10000 characters")
    await page.locator("#nb-next").click()
    boxes = page.locator("#nb-review textarea")
    await expect(boxes).to_have_count(7)
    await expect(page.locator("#nb-wrong-7")).not_to_be_empty()
    await expect(page.locator("#nb-start")).to_be_disabled()
    await page.get_by_role("button", name="Remove prompt 7").click()
    await expect(page.get_by_role("button", name="Remove prompt 6")).to_be_focused()
    await expect(page.locator("#nb-start")).to_be_enabled()
    await boxes.nth(5).fill("")
    await boxes.nth(5).press_sequentially("a fox, typed while the price is asked for", delay=30)
    await expect(boxes.nth(5)).to_be_focused()
    await expect(boxes.nth(5)).to_have_value("a fox, typed while the price is asked for")
    await page.locator("#nb-start").click()
    cards = page.locator(".nb-card .nb-text")
    await expect(cards).to_have_count(6)
    for number, prompt in enumerate(HOSTILE):
        assert (await cards.nth(number).text_content()) == prompt.strip()
    assert (await cards.nth(5).text_content()) == "a fox, typed while the price is asked for"
    assert await page.locator(".nb-text *").count() == 0
    assert "broken" not in await page.title()
    assert dialogs == []


async def test_a_french_browser_gets_a_french_page(chromium: Browser, browser: Browser, site) -> None:
    page = await chromium.new_page(locale="fr-FR", viewport={"width": 360, "height": 740}, color_scheme="dark")
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("gratuit")
    for name in ("Nouveau lot", "Résultats", "Historique", "Statistiques"):
        await expect(page.get_by_role("navigation").get_by_role("link", name=name)).to_be_visible()
    await expect(page.locator("html")).to_have_attribute("lang", "fr")
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-prompts .nb-wrong")).to_have_text("Écrivez au moins un prompt.")
    for place in ("h1", "#nb-prompts textarea", "#nb-prompts .nb-wrong", "#nb-facts li", "#nb-next"):
        ground, contrast = await colours(page, place)
        assert contrast >= 4.5, place
        assert ground < 0.1 or place == "#nb-next", place  # which is of one colour in the dark, too
    await page.get_by_role("button", name="Insérer trois exemples").click()
    await expect(page.get_by_text("3 prompts", exact=True)).to_be_visible()
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-summary")).to_contain_text("3 images, gratuit")
    await page.locator("#nb-start").click()
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("3")
    await expect(page.get_by_role("link", name="Voir tous les résultats").last).to_be_visible()
    assert await cut_off(page) == []
    run = page.url.partition("execution=")[2]
    for path, there in (
        (f"results?execution={run}", "nb-gallery .nb-card img"),
        ("history", "nb-history .nb-batch img"),
    ):
        await page.goto(site.url + path)
        await expect(page.locator(there).first).to_be_visible()
        assert await cut_off(page) == []
    await page.close()
