"""A connector is tested in the browser, with and without script, and the answer stands in place."""

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.console import chromium, sign_in
from tests.builders import World

pytestmark = pytest.mark.browser
PAGE = "/console/connectors/webhook/"


def test_a_canary_is_sent_in_place_and_the_next_one_has_to_wait(
    transactional_db: None, live_server: Any, world: World
) -> None:
    world.delivered()
    with chromium() as browser:
        desk = sign_in(browser, live_server.url, world.operator)
        desk.open("/console/connectors/")
        desk.page.get_by_role("link", name="Send canary to webhook").click()
        desk.press("Send canary")
        expect(desk.page.locator("#said")).to_contain_text("webhook took the message")
        expect(desk.page.locator("#canary tbody tr")).to_have_count(1)
        expect(desk.page.locator("#why-not")).to_contain_text("the next canary may go in")
        assert desk.complaints == []
        plain = sign_in(
            browser,
            live_server.url,
            world.administrator,
            java_script_enabled=False,
            viewport={"width": 390, "height": 844},
        )
        plain.open(PAGE)
        expect(plain.page.get_by_role("img", name="Latency of the last 24 hours")).to_be_visible()
        # The page is narrow enough, and its button is a form's.
        width = plain.page.locator("main").bounding_box()
        assert width
        assert width["width"] <= 390
        expect(plain.page.locator("#why-not, #canary form")).to_be_visible()
