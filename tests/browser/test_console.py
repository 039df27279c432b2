"""The console in a real browser: accessible in both themes, fits a phone, violates no policy, needs no script."""

import os
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import BrowserContext, sync_playwright

from evidence.enums import Role
from evidence.models import Case
from tests.builders import World, person

CHROMIUM = os.environ.get("CAVRA_TEST_BROWSER", "/usr/bin/chromium")
WIDTHS = (1440, 390, 320)
# Another theme changes nothing but colours.
RULES = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "dark": ["color-contrast"],
}

pytestmark = pytest.mark.browser


def worked_case(world: World) -> Case:
    """A case that went through its whole chain, so that pages have something to show."""
    (case,) = world.failed()
    world.approved()
    (done,) = world.ran().outcome.recorded
    world.closed(world.playbook(), "webhook", (done.execution.execution_id,))
    return case


def cookie(url: str) -> dict[str, str]:
    """The cookie of somebody who signed in."""
    client = Client()
    client.force_login(person(Role.AUDITOR))
    name = settings.SESSION_COOKIE_NAME
    return {"name": name, "value": client.cookies[name].value, "url": url}


def addresses(case: Case) -> list[str]:
    """Every page, filled and empty, and what is said when something is not there."""
    return [
        "/console/",
        "/console/?case=nothing",
        "/console/?kind=nonsense",
        "/console/cases/",
        f"/console/cases/{case.case_id}/",
        f"/console/records/{case.plan.delivery_id}/",
        "/console/nothing/",
    ]


def faults(context: BrowserContext, address: str, rules: list[str]) -> list[str]:
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
    page.goto(address)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"{address} is wider than {width}")
    looked_at = Axe().run(page, options={"runOnly": rules}).response
    assert looked_at["passes"]
    found += [
        f"{address}: {violation['id']}: {violation['nodes'][0]['html'][:200]}"
        for violation in looked_at["violations"]
    ]
    page.close()
    return found


def test_pages_are_accessible_and_fit_in_both_themes(
    transactional_db: None, live_server: Any, world: World
) -> None:
    # All questions to the database come first: Playwright's event loop is in this thread afterwards.
    pages, session = addresses(worked_case(world)), cookie(live_server.url)
    found: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, rules in RULES.items():
            context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
            found += faults(context, f"{live_server.url}/accounts/login/", rules)
            context.add_cookies([session])
            for address in pages:
                found += faults(context, live_server.url + address, rules)
        browser.close()
    assert found == []


def test_a_newcomer_gets_from_the_door_to_a_record_without_script(
    transactional_db: None, live_server: Any, world: World
) -> None:
    case = worked_case(world)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(
            java_script_enabled=False, viewport={"width": 390, "height": 844}
        ).new_page()
        page.goto(f"{live_server.url}/console/")
        page.get_by_label("Name").fill(world.analyst.username)
        page.get_by_label("Password").fill("correct horse battery")
        page.get_by_role("button", name="Sign in").click()
        assert page.url == f"{live_server.url}/console/"
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Cases").click()
        page.get_by_role("table").get_by_role("link").first.click()
        assert page.url == f"{live_server.url}/console/cases/{case.case_id}/"
        assert page.get_by_role("heading", level=1).inner_text().endswith("Delivered")
        page.locator(".chain a.chip").first.click()
        assert page.get_by_role("heading", level=1).inner_text().startswith("Audit delivery plan")
        page.get_by_role("button", name="Menu").click()
        page.get_by_role("button", name="Sign out").click()
        assert page.url == f"{live_server.url}/accounts/login/"
        browser.close()
