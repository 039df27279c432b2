"""Writes a picture of every page in light, dark and on a phone; started by ``make screenshots`` alone."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browser.console import chromium, cookie
from tests.browser.scene import scene
from tests.builders import World
from tests.evidence.ledger_keys import Keys

WAYS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1440, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1440, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


@pytest.mark.browser
def test_screenshots(transactional_db: None, live_server: Any, receiver: Any, keys: Keys) -> None:
    """Every page of the scene, and the door."""
    folder = Path(os.environ["CAVRA_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    shots = scene(World(receiver, named=True), keys)
    cookies = {shot.person.pk: cookie(shot.person, live_server.url) for shot in shots}
    with chromium() as browser:
        for way, options in WAYS.items():
            door = browser.new_context(**options).new_page()
            door.goto(f"{live_server.url}/accounts/login/")
            door.screenshot(path=folder / f"sign-in-{way}.png")
            for shot in shots:
                context = browser.new_context(**options)
                context.add_cookies([cookies[shot.person.pk]])
                page = context.new_page()
                shot.open(page, live_server.url)
                page.screenshot(path=folder / f"{shot.name}-{way}.png", full_page=True)
                context.close()
