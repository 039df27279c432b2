"""A set with script: the digest follows the ticks, and the page follows the run."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from recovery.models import RetrySet
from tests.browser.console import chromium, sign_in, worker
from tests.builders import World
from tests.recovery.test_console_sets import failed, requested


@pytest.mark.browser
@pytest.mark.slow
def test_a_set_is_voted_on_as_it_is_ticked_and_sent_while_somebody_watches(
    transactional_db: None, live_server: Any, receiver: Any
) -> None:
    world = World(receiver, providers=("webhook", "backup"))
    failed(world, 4)
    address = requested(world).address
    row = RetrySet.objects.get()
    whole = f"{row.digest[:4]} {row.digest[4:8]}"
    before = len(receiver.log)
    with worker(), chromium() as browser:
        approver = sign_in(browser, live_server.url, world.approver)
        approver.open(address)
        page = approver.page
        button = page.get_by_role("button", name=re.compile("^Approve"))
        expect(button).to_have_text(f"Approve 8, {whole}")
        page.get_by_label("Notes").fill("half typed")
        page.locator("details", has_text="4 to backup").locator("summary").click()
        box = page.locator('input[name="items"]').first
        box.uncheck()
        expect(button).to_have_text(re.compile(r"^Approve 7, [0-9a-f]{4} [0-9a-f]{4}$"))
        expect(button).not_to_contain_text(whole)
        expect(page.get_by_text("1 taken out: 7 left")).to_be_visible()
        expect(page.locator("#act-h")).to_have_text("Next: decide on 7 of 8")
        expect(page.get_by_label("Notes")).to_have_value("half typed")
        box.check()
        expect(button).to_have_text(f"Approve 8, {whole}")
        page.get_by_label("Take out all 4 to backup").check()
        expect(button).to_have_text(re.compile("^Approve 4, "))
        page.get_by_label("Take out all 4 to backup").uncheck()
        expect(button).to_have_text(f"Approve 8, {whole}")
        button.click()
        expect(page.get_by_text("8 cases approved with")).to_be_visible()
        operator = sign_in(browser, live_server.url, world.operator)
        operator.open(address)
        operator.due("Next: Execute Retry")
        operator.press("Execute Retry: send 8 requests")
        operator.due("Nothing left to do")
        assert operator.complaints == approver.complaints == []
    assert len(receiver.log) - before == 8
