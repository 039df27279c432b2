"""The console in Chromium as several people use it at once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from evidence.domain import heartbeats
from evidence.domain.clock import system_clock
from evidence.models import Person
from tests.builders import World
from tests.processes import environment, wait_until

CHROMIUM = os.environ.get("CAVRA_TEST_BROWSER", "/usr/bin/chromium")
PASSWORD = "correct horse battery"
# How long a page, or the worker behind it, may take on a busy machine.
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser. Questions to the database come before: Playwright's event loop is in this thread afterwards."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@contextmanager
def worker() -> Iterator[None]:
    """The product's own worker beside the running server, on the same database, from when it says that it is there.

    Pages hand nothing to a worker that was not heard of. The question goes to the database: see ``chromium``.
    """
    process = subprocess.Popen(
        [sys.executable, "manage.py", "worker"],
        cwd=settings.BASE_DIR,
        env=environment(LOG_LEVEL="WARNING"),
    )
    try:
        wait_until(lambda: heartbeats.alive(clock=system_clock))
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def cookie(person: Person, url: str) -> dict[str, str]:
    """The cookie of somebody who signed in."""
    client = Client()
    client.force_login(person)
    name = settings.SESSION_COOKIE_NAME
    return {"name": name, "value": client.cookies[name].value, "url": url}


@dataclass
class Desk:
    """One person before the console; ``complaints`` is what the browser's own console said."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go to an address of the console."""
        self.page.goto(self.base + path)

    def press(self, name: str, **options: Any) -> None:
        """Press the button of this name."""
        self.page.get_by_role("button", name=name, **options).click()

    def due(self, title: str) -> None:
        """Wait until this is the next action."""
        expect(self.page.locator("#act-h")).to_have_text(title)


def sign_in(browser: Browser, base: str, person: Person, **options: Any) -> Desk:
    """Somebody who came through the sign-in page, in a context of their own."""
    context: BrowserContext = browser.new_context(**options)
    desk = Desk(context.new_page(), base)

    def heard(message: ConsoleMessage) -> None:
        # A refusal is an answer with a status of its own; that is what was asked for.
        if message.type == "error" and "status of 4" not in message.text:
            desk.complaints.append(message.text)

    desk.page.on("console", heard)
    desk.open("/accounts/login/?next=/console/")
    desk.page.get_by_label("Name").fill(person.username)
    desk.page.get_by_label("Password").fill(PASSWORD)
    desk.press("Sign in")
    expect(desk.page.get_by_role("heading", level=1)).to_have_text("Go Rollback Drill Notifications")
    return desk


def staff(browser: Browser, base: str, world: World, **options: Any) -> dict[str, Desk]:
    """Everybody of a world who has a part in the chain, each signed in."""
    names = ("analyst", "second_analyst", "approver", "second_approver", "operator")
    return {name: sign_in(browser, base, getattr(world, name), **options) for name in names}
