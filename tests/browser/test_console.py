"""Every page in a real browser: accessible in both themes, fits a phone, violates no policy, loads little."""

import gzip
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Response, expect

from tests.browser.console import chromium, cookie
from tests.browser.scene import Shot, scene
from tests.builders import World
from tests.evidence.ledger_keys import Keys

WIDTHS = (1440, 390, 360, 320)
# Another theme changes nothing but colours.
RULES = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "dark": ["color-contrast"],
}
# Django's admin answers for its own structure; colours are ours there too.
ADMIN = ["color-contrast"]
# First load of the overview, as a server that compresses sends it.
MOST_REQUESTS = 6
MOST_BYTES = 60_000

pytestmark = pytest.mark.browser


def faults(context: BrowserContext, base: str, shot: Shot, rules: list[str]) -> list[str]:
    """What axe, the policy and a ruler find on one page at every width."""
    page = context.new_page()
    found: list[str] = []
    # A page that answers 400 or 404 is reported as a failed resource; that is what was asked for.
    page.on(
        "console",
        lambda said: (
            found.append(said.text) if said.type == "error" and "status of 4" not in said.text else None
        ),
    )
    shot.open(page, base)
    address = page.url
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate("document.documentElement.scrollWidth") > width and "/admin/" not in address:
            found.append(f"{address} is wider than {width}")
    looked_at = Axe().run(page, options={"runOnly": rules}).response
    assert looked_at["passes"]
    found += [
        f"{address}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in looked_at["violations"]
    ]
    page.close()
    return found


@pytest.mark.parametrize("scheme", RULES)
def test_pages_are_accessible_and_fit(
    transactional_db: None, live_server: Any, world: World, keys: Keys, scheme: str
) -> None:
    shots = scene(world, keys)
    cookies = {shot.person.pk: cookie(shot.person, live_server.url) for shot in shots}
    found: list[str] = []
    with chromium() as browser:
        nobody = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
        door = Shot("sign-in", "/accounts/login/", world.analyst)
        found += faults(nobody, live_server.url, door, RULES[scheme])
        for shot in shots:
            context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
            context.add_cookies([cookies[shot.person.pk]])
            rules = ADMIN if shot.path.startswith("/admin/") else RULES[scheme]
            found += faults(context, live_server.url, shot, rules)
            context.close()
    assert found == []


def test_the_first_load_of_the_overview_is_small(
    transactional_db: None, live_server: Any, world: World, keys: Keys
) -> None:
    scene(world, keys)
    session = cookie(world.analyst, live_server.url)
    loaded: list[tuple[str, int]] = []

    def weigh(response: Response) -> None:
        loaded.append((response.url, len(gzip.compress(response.body()))))

    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies([session])
        page = context.new_page()
        page.on("requestfinished", lambda request: weigh(request.response()))
        page.goto(f"{live_server.url}/console/", wait_until="networkidle")
    assert len(loaded) <= MOST_REQUESTS, loaded
    assert sum(size for _, size in loaded) <= MOST_BYTES, loaded


def test_a_newcomer_gets_from_the_door_to_a_record_without_script(
    transactional_db: None, live_server: Any, world: World
) -> None:
    (case,) = world.failed()
    with chromium() as browser:
        page = browser.new_context(
            java_script_enabled=False, viewport={"width": 390, "height": 844}
        ).new_page()
        page.goto(f"{live_server.url}/console/")
        page.get_by_label("Name").fill(world.analyst.username)
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{live_server.url}/console/")
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Cases").click()
        page.get_by_role("table").get_by_role("link").first.click()
        expect(page).to_have_url(f"{live_server.url}/console/cases/{case.case_id}/")
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_contain_text("Failed")
        page.locator(".chain a.chip").first.click()
        expect(heading).to_have_text(re.compile("^Audit delivery plan"))
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("button", name="Switch light or dark").click()
        expect(page.locator("html")).to_have_attribute("data-theme", "light")
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{live_server.url}/accounts/login/")
