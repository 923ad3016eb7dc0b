"""The whole road without a mouse."""

import re

from playwright.async_api import Locator, Page, expect

_MOST_STEPS = 60


async def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until something has the focus; fails where that never happens."""
    await expect(wanted).to_be_visible()
    for _ in range(_MOST_STEPS):
        # Asked in one breath: a step that ends takes its elements away.
        shown = await wanted.evaluate(
            """(one) => one !== document.activeElement || !one.offsetParent ? null
                : [one, one.closest("label")].filter(Boolean).map((part) => getComputedStyle(part))
                    .some((style) => style.outlineStyle !== "none" || style.boxShadow !== "none")"""
        )
        if shown is not None:
            assert shown, f"nothing shows that this has the focus: {wanted}"
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to {wanted}")


async def expect_to_stay(page: Page, focused: Locator) -> None:
    """See to it that something keeps the focus, and is the very same thing, while its run is looked at again and again."""
    drawn = await focused.element_handle()
    for _ in range(4):
        async with page.expect_response("**/nb/live/**"):
            pass
    await expect(focused).to_be_focused()
    assert await focused.evaluate("(one, drawn) => one === drawn", drawn)


async def test_from_prompts_to_pictures_by_keyboard_alone(page: Page, site) -> None:
    await page.goto(site.url)
    await expect(page.locator("#nb-facts")).to_contain_text("free")
    await tab_to(page, page.locator("#nb-prompts textarea"))
    await page.keyboard.type("a fox")
    for _ in range(2):
        await page.keyboard.press("Enter")
    await page.keyboard.type("a boat [delay:2]")
    await expect(page.get_by_text("2 prompts", exact=True)).to_be_visible()
    await tab_to(page, page.get_by_role("button", name="Choose pictures"))
    await tab_to(page, page.locator("#nb-ratio input:checked"))
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("radiogroup", name="Aspect ratio").get_by_label("2:3")).to_be_checked()
    await expect(page.get_by_role("radio", checked=True)).to_have_count(1)
    await tab_to(page, page.locator("#nb-next"))
    await page.keyboard.press("Enter")
    box = page.get_by_role("textbox", name="Prompt 2")
    await tab_to(page, box)
    await page.keyboard.press("End")
    await page.keyboard.type(" at dawn")
    await tab_to(page, page.locator("#nb-start"))
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("execution="))
    # Where the button was, a step ends: the focus must not be lost with it.
    await tab_to(page, page.get_by_role("link", name="View All Results").last)
    await expect(page.locator(".nb-outcome [data-fact='run.done'] dd")).to_have_text("2")
    await tab_to(page, page.get_by_role("link", name="View All Results").last)
    await expect_to_stay(page, page.get_by_role("link", name="View All Results").last)
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("/results"))
    await tab_to(page, page.get_by_role("button", name="Failed (0)"))
    await page.keyboard.press("Space")
    await expect(page.get_by_text("No picture fits this filter and search.")).to_be_visible()
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Shift+Tab")
    await page.keyboard.press("Space")
    await tab_to(page, page.get_by_role("button", name="Open picture 1"))
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("a fox")
    await page.keyboard.press("ArrowRight")
    await expect(dialog).to_contain_text("a boat [delay:2] at dawn")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Open picture 2")).to_be_focused()
    await tab_to(page, page.get_by_role("checkbox", name="Choose picture 2"))
    await page.keyboard.press("Space")
    await expect(page.get_by_role("link", name="Download 1 chosen as ZIP")).to_be_visible()
    await tab_to(page, page.get_by_role("link", name="Download", exact=True).last)
    async with page.expect_download() as downloading:
        await page.keyboard.press("Enter")
    assert (await downloading.value).suggested_filename.startswith("002-a-boat")
