"""What a person does on the page in more than one test."""

from playwright.async_api import Page


async def pick(page: Page, model: str) -> None:
    """Choose a model by its name."""
    await page.locator("#nb-model input").click()
    await page.get_by_role("option", name=model, exact=True).click()


async def colours(page: Page, selector: str) -> tuple[float, float]:
    """Return the luminance of an element's ground, whichever element paints it, and the contrast of its text (WCAG)."""
    ground, contrast = await page.locator(selector).first.evaluate(
        """(element) => {
            const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
            const channels = (colour) => {
                pen.clearRect(0, 0, 1, 1);
                pen.fillStyle = colour;
                pen.fillRect(0, 0, 1, 1);
                return [...pen.getImageData(0, 0, 1, 1).data];
            };
            const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, index) => {
                const part = rgb[index] / 255;
                return sum + share * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
            }, 0);
            let painted = element;
            while (painted.parentElement && channels(getComputedStyle(painted).backgroundColor)[3] < 255) {
                painted = painted.parentElement;
            }
            const ground = luminance(channels(getComputedStyle(painted).backgroundColor));
            const text = luminance(channels(getComputedStyle(element).color));
            const [dark, light] = [ground, text].sort((one, other) => one - other);
            return [ground, (light + 0.05) / (dark + 0.05)];
        }"""
    )
    return ground, contrast


async def cut_off(page: Page) -> list[str]:
    """Return what sticks out of the window to the right, or would have to be scrolled to: Gradio's containers hide it."""
    return await page.evaluate(
        """() => [...document.querySelectorAll("main *")].filter((one) => {
            const place = one.getBoundingClientRect();
            if (!place.width || place.right <= innerWidth + 1) return false;
            for (let around = one.parentElement; around; around = around.parentElement) {
                if (["auto", "scroll"].includes(getComputedStyle(around).overflowX)) return false;
            }
            return true;
        }).map((one) => one.outerHTML.slice(0, 120))"""
    )
