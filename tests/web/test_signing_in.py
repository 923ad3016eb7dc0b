"""Token mode in a browser: in by a token, out by a click, out where the token was revoked."""

import re
from contextlib import suppress

import httpx
from pages import answering
from playwright.async_api import Browser, Error, expect

from nanobatch_client import Client
from nanobatch_runtime.testing import eventually

from .conftest import Guarded


async def test_a_token_opens_the_page_until_it_is_revoked(chromium: Browser, guarded: Guarded) -> None:
    url = guarded.url
    await answering(url)
    async with httpx.AsyncClient(base_url=url) as stranger:
        for path in ("config", "gradio_api/info", "nb/me", "gradio_api/queue/data?session_hash=x"):
            assert (await stranger.get(path)).status_code == 401, path
    async with Client(guarded.product.target, token=guarded.admin_token) as admin:
        user = await admin.create_user("ada")
        made = await admin.create_token(user_id=user.id)
        context = await chromium.new_context(locale="en-US")
        page = await context.new_page()
        page.set_default_timeout(60_000)
        await page.goto(url + "?a=b")
        await page.wait_for_url(re.compile("/nano-banana/login"))
        await page.get_by_label("Your token").fill("nb_nonsense")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_have_text("This token is not known.")
        await page.get_by_label("Your token").fill(made.secret)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(url + "?a=b")
        await expect(page.get_by_text("Signed in as ada")).to_be_visible()
        await expect(page.locator("#nb-facts")).to_contain_text("free")
        (cookie,) = await context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert made.secret not in await page.content()
        await page.goto(f"{url}statistics")
        await expect(page.get_by_text("Nothing was made in these days.")).to_be_visible()
        await expect(page.get_by_role("radio", name="all users")).to_have_count(0)
        refused = await page.evaluate("fetch('/nano-banana/nb/usage?everybody=true').then((answer) => answer.status)")
        assert refused == 403
        await admin.revoke_token(made.token.id)
        # Whatever is asked next leads to the login, as soon as the gateway has forgotten that the token was good.

        async def led_away() -> bool:
            with suppress(Error):  # of a page that is just being left
                await page.evaluate("fetch('/nano-banana/nb/me').then(() => null, () => null)")
            return "/nano-banana/login" in page.url

        await eventually(led_away, within=60)
        await expect(page.get_by_label("Your token")).to_be_visible()


async def test_an_admin_sees_what_all_users_have_used(chromium: Browser, guarded: Guarded) -> None:
    url = guarded.url
    await answering(url)
    async with Client(guarded.product.target, token=guarded.admin_token) as admin:
        made = await admin.create_token(user_id=(await admin.create_user("bob")).id)
        async with Client(guarded.product.target, token=made.secret) as bob:
            run = await bob.create_execution(["one", "two"], model="sandbox")
            async for _ in bob.watch(run.id):
                pass
            his = (await bob.get_usage()).totals.pictures
        everybodys = (await admin.get_usage(all_users=True)).totals.pictures
    assert everybodys > his == 2
    page = await chromium.new_page(locale="en-US")
    page.set_default_timeout(60_000)
    await page.goto(url + "statistics")
    await page.get_by_label("Your token").fill(guarded.admin_token)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Nothing was made in these days.")).to_be_visible()
    await page.get_by_role("radio", name="all users").check()
    await expect(page.locator(".nb-totals dd").first).to_have_text(str(everybodys))
    await page.get_by_role("radio", name="my own").check()
    await expect(page.get_by_text("Nothing was made in these days.")).to_be_visible()
    await page.close()
