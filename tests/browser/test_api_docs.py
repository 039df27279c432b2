"""The API page works without the internet and under the product's own Content-Security-Policy."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import ConsoleMessage, Page, Request

from evidence.enums import Role
from tests.browser.console import PATIENCE_MS, chromium
from tests.builders import person


@pytest.mark.browser
def test_docs_page_shows_every_operation_and_violates_no_policy(
    transactional_db: None, live_server: Any
) -> None:
    session = Client()
    session.force_login(person(Role.AUDITOR))
    cookie = session.cookies[settings.SESSION_COOKIE_NAME].value
    complaints: list[str] = []
    hosts: set[str] = set()

    def listen(page: Page) -> None:
        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        def asked(request: Request) -> None:
            hosts.add(urlsplit(request.url).scheme + "://" + urlsplit(request.url).netloc)

        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)

    with chromium() as browser:
        context = browser.new_context()
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}])
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        listen(page)
        answer = page.goto(f"{live_server.url}/api/docs")
        page.wait_for_selector(".opblock")
        page.click("#operations-deliveries-deliver_package .opblock-summary-control")
        page.wait_for_selector(
            "#operations-deliveries-deliver_package .opblock-body .parameters-container, .opblock-section"
        )
        operations = page.locator(".opblock").count()

    assert answer is not None
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]
    assert operations >= 25
    assert complaints == []
    assert {host for host in hosts if host != "data://"} == {live_server.url}
