"""What a person does on the page in more than one test."""

from playwright.async_api import Page


async def pick(page: Page, model: str) -> None:
    """Choose a model by its name."""
    await page.locator("#nb-model input").click()
    await page.get_by_role("option", name=model, exact=True).click()
