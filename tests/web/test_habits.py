"""What a person need not look at: the title, notifications, another device, pauses that say what to do."""

from playwright.async_api import Browser, Page, expect

MODEL = "gemini-2.5-flash-image"
# What a headless browser has none of: somebody who answers its question, and a desktop to show something on.
NOTES = """
window.asked = 0;
window.notes = [];
window.Notification = class {
    static permission = "default";
    static async requestPermission() { window.asked += 1; return Notification.permission = "granted"; }
    constructor(text) {
        window.notes.push(text);
        if (window.refused) throw new TypeError("Illegal constructor. Use ServiceWorkerRegistration.showNotification()");
    }
};
Object.defineProperty(document, "hidden", {get: () => window.away === true});
"""


async def test_the_title_tells_how_far_it_is_and_a_hidden_tab_is_notified_once(page: Page, site, client) -> None:
    await page.add_init_script(NOTES)
    # The cap is reached after two pictures, and holds the run until it is raised.
    prompts = ["one", "two", "three {{fault:image-safety}}", "four"]
    run = await client.create_execution(prompts, model=MODEL, api_key="a-key-with-a-cap", max_cost_micros=80_000)
    await page.goto(f"{site.url}?execution={run.id}")
    assert await page.evaluate("window.asked") == 0
    ask = page.get_by_role("button", name="Tell me when it has ended")
    await ask.click()
    await expect(ask).to_be_hidden()
    await expect(page).to_have_title("50 % · nanobatch")
    await page.evaluate("window.away = true")
    await client.resume_execution(run.id, max_cost_micros=500_000)
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("3")
    await expect(page).to_have_title("nanobatch")
    assert await page.evaluate("window.notes") == ["The batch has ended: 3 done, 1 failed"]
    assert await page.evaluate("window.asked") == 1
    # What had ended before somebody came is no news.
    await page.reload()
    await expect(page.locator(".nb-outcome")).to_be_visible()
    assert await page.evaluate("window.notes") == []


async def test_a_browser_that_makes_no_notifications_tells_the_end_once_on_the_page(page: Page, site, client) -> None:
    await page.add_init_script(NOTES)  # Android's browsers have the class, and it throws
    run = await client.create_execution(["one [delay:60]"], model="sandbox")
    await page.goto(f"{site.url}?execution={run.id}")
    await page.get_by_role("button", name="Tell me when it has ended").click()
    await page.evaluate("window.refused = window.away = true")
    await client.cancel_execution(run.id)
    await expect(page.locator(".nb-toast")).to_have_text(["The batch has ended: 0 done, 0 failed"])
    for _ in range(4):
        async with page.expect_response("**/nb/live/**"):
            pass
    await expect(page.locator(".nb-outcome [data-fact='run.cancelled'] dd")).to_have_text("1")
    assert await page.evaluate("window.notes") == ["The batch has ended: 0 done, 0 failed"]
    await expect(page.get_by_text("No connection.")).to_have_count(0)


async def test_a_slip_of_the_page_is_not_told_as_a_lost_connection_and_ends_nothing(page: Page, site, client) -> None:
    run = await client.create_execution(["one [delay:60]"], model="sandbox")
    await page.goto(f"{site.url}statistics")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    told = await page.evaluate(
        """async (id) => {
            const {Live} = await import("/nano-banana/nb/assets/live.js");
            const kinds = new Set();
            let looks = 0;
            await new Promise((done) => {
                const live = new Live(id, {
                    seen: () => {
                        looks += 1;
                        if (looks === 3) { live.stop(); done(); }
                        throw new Error("a slip");
                    },
                    trouble: (kind) => kinds.add(kind),
                });
            });
            return [looks, ...kinds];
        }""",
        run.id,
    )
    assert told == [3, ""]
    assert sum("a slip" in each for each in said) >= 2
    await client.cancel_execution(run.id)


async def test_what_is_never_answered_is_given_up_and_asked_for_again(page: Page, site, client) -> None:
    # Ten seconds are long for a test.
    await page.add_init_script(
        "const wait = AbortSignal.timeout.bind(AbortSignal); AbortSignal.timeout = (time) => wait(time / 5);"
    )
    run = await client.create_execution(["one"], model="sandbox")
    async for _ in client.watch(run.id):
        pass
    await page.route("**/nb/texts", lambda route: route.abort(), times=1)
    await page.route("**/nb/live/**", lambda _: None, times=1)
    await page.goto(f"{site.url}results?execution={run.id}")
    await expect(page.get_by_text("No connection. Trying again …")).to_be_visible()
    await expect(page.locator("nb-gallery .nb-card")).to_have_count(1)
    await expect(page.get_by_text("No connection. Trying again …")).to_be_hidden()


async def test_a_second_device_sees_and_steers_the_same_run(browser: Browser, site, client) -> None:
    run = await client.create_execution(["one", "two [delay:2]", "three [delay:60]"], model="sandbox")
    address = f"{site.url}?execution={run.id}"
    desk = await (await browser.new_context(locale="en-US")).new_page()
    phone = await (
        await browser.new_context(
            locale="fr-FR", viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True
        )
    ).new_page()
    for page in (desk, phone):
        page.set_default_timeout(60_000)
        await page.goto(address)
        await expect(page.locator(".nb-card[data-state='COMPLETED'] img")).to_have_count(2)
    await phone.get_by_role("button", name="Pause").tap()
    await expect(desk.get_by_text("Paused by you.")).to_be_visible()
    await desk.get_by_role("button", name="Resume").click()
    await expect(phone.get_by_text("Mis en pause par vous.")).to_be_hidden()
    phone.on("dialog", lambda dialog: dialog.accept())
    await phone.get_by_role("button", name="Annuler").tap()
    for page in (desk, phone):
        await expect(page.locator(".nb-outcome [data-fact='run.cancelled'] dd")).to_have_text("1")
    # French counts its pictures: none and one in the singular, and pictures are feminine.
    for name, fact in (("done", "2 finies"), ("failed", "0 échouée"), ("cancelled", "1 annulée")):
        await expect(phone.locator(f".nb-numbers [data-fact='{name}']")).to_have_text(fact)
    for page in (desk, phone):
        await page.context.close()


async def test_a_daily_quota_tells_until_when_and_that_nothing_is_to_be_done(page: Page, site, client) -> None:
    run = await client.create_execution(["one {{fault:429-day}}", "two"], model=MODEL, api_key="a-key-of-a-small-quota")
    await page.goto(f"{site.url}?execution={run.id}")
    note = page.locator("nb-run .nb-note[role=status]")
    await expect(note).to_contain_text("The provider's daily quota is used up")
    await expect(note).to_contain_text("You need not do anything.")
    execution = await client.get_execution(run.id)
    assert execution.resume_time is not None
    told = await page.evaluate(
        """(iso) => {
            const at = new Date(iso), time = {hour: "2-digit", minute: "2-digit"};
            return at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString([], {...time, second: "2-digit"})
                : at.toLocaleString([], {weekday: "short", day: "numeric", month: "short", ...time});
        }""",
        execution.resume_time.isoformat(),
    )
    await expect(note).to_contain_text(f"Goes on by itself at {told}.")
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()


async def test_a_model_that_is_gone_leads_to_the_rest_with_its_successor(page: Page, site, client) -> None:
    prompts = ["one", "two {{fault:404}}", "three"]
    run = await client.create_execution(prompts, model=MODEL, api_key="a-key-whose-model-goes", variations=1)
    await page.goto(f"{site.url}?execution={run.id}")
    await expect(page.get_by_text("The provider no longer offers this model.")).to_be_visible()
    await expect(page.get_by_role("button", name="Resume")).to_have_count(0)
    stats = (await client.get_execution(run.id)).stats
    left = [
        result.prompt_text
        async for result in client.list_results(run.id)
        if result.state.value in {"PENDING", "FAILED"}
    ]
    assert len(left) == stats.total - stats.completed
    await page.get_by_role("link", name="Run the rest with another model").click()
    await expect(page.locator("#nb-prompts textarea")).to_have_value("\n\n".join(left))
    successor = next(model for model in await client.list_models() if model.id == MODEL).successor
    name = next(model for model in await client.list_models() if model.id == successor).display_name
    await expect(page.locator("#nb-model input")).to_have_value(name)
    await page.wait_for_url(lambda url: "rest=" not in url)


async def test_the_rest_of_a_run_holds_no_picture_that_was_made(page: Page, site, client) -> None:
    prompts = ["one", "two"]  # the cap lets three pictures of four be made
    run = await client.create_execution(
        prompts, model=MODEL, api_key="a-key-with-a-low-cap", variations=2, max_cost_micros=120_000
    )
    async for _ in client.watch(run.id):
        if (await client.get_execution(run.id)).stats.completed == 3:
            break
    left = [result async for result in client.list_results(run.id) if result.state.value != "COMPLETED"]
    assert len(left) == 1
    await page.goto(f"{site.url}?again={run.id}&rest=true")
    await expect(page.locator("#nb-prompts textarea")).to_have_value(left[0].prompt_text)
    await page.wait_for_url(lambda url: "rest=" not in url)
    await page.locator("#nb-next").click()
    await expect(page.locator("#nb-summary")).to_contain_text("1 picture")
    await client.cancel_execution(run.id)
