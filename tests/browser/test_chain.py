"""The chain by its people in a real browser: at a desk, on a phone, without script, by keyboard alone."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from evidence.domain import configuration, heartbeats, verification
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.models import Case, Connector
from recovery.enums import RecoveryState
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Attestation, Recovery, Vote
from tests.browser.console import Desk, chromium, sign_in, staff, worker
from tests.builders import Clock, World

pytestmark = pytest.mark.browser

WAYS: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1440, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
    "without script": {"java_script_enabled": False},
}


def walk(people: dict[str, Desk], path: str) -> None:
    """From a failed delivery to a settled one, by those whose turn it is."""
    analyst, second, approver, operator = (
        people[name] for name in ("analyst", "second_analyst", "approver", "operator")
    )
    analyst.open(path)
    analyst.due("Next: Plan Audit Retry")
    analyst.page.get_by_label("Lift the delay for this retry").check()
    analyst.press("Plan Audit Retry")
    analyst.due("Next: Ack Retry")
    second.open(path)
    second.due("Next: Ack Retry")
    second.page.get_by_label("Notes").fill("read it")
    second.press("Ack Retry")
    second.due("Next: Plan Retry Approval")
    analyst.open(path)
    analyst.press("Plan Retry Approval")
    analyst.due("Next: decide on attempt 2")
    expect(analyst.page.get_by_role("button", name="Approve")).to_have_attribute("aria-disabled", "true")
    approver.open("/console/approvals/")
    approver.page.get_by_role("link", name="Read and decide").click()
    approver.due("Next: decide on attempt 2")
    approver.press("Approve")
    approver.due("Next: Execute Retry")
    operator.open(path)
    operator.press("Execute Retry: send 1 request")


def check_again(operator: Desk) -> None:
    """Follow a run by hand, one page after the other; it may be over before the first of them is there."""
    heading = operator.page.locator("#act-h")
    expect(heading).not_to_have_text("Next: Execute Retry")
    while heading.inner_text() != "Nothing left to do":
        with operator.page.expect_navigation():
            operator.page.get_by_role("link", name="Check again").click()


def close(analyst: Desk) -> None:
    """Write the playbook, tick a step, and close the recovery by the execution that proves it."""
    analyst.open("/console/recoveries/")
    analyst.press("Recovery Playbook")
    expect(analyst.page.locator("#said")).to_contain_text("gordackrecovery-")
    analyst.open("/console/recoveries/webhook/?outcome=resolved")
    analyst.page.locator(".steps input[name=note]").first.fill("asked the owner")
    analyst.press("Tick with note")
    expect(analyst.page.locator(".steps")).to_contain_text("asked the owner")
    analyst.press("Close as resolved")
    expect(analyst.page.get_by_role("heading", level=1)).to_contain_text("Resolved")


@pytest.mark.parametrize("way", WAYS)
def test_four_people_take_a_failed_delivery_to_its_end(
    transactional_db: None, live_server: Any, world: World, way: str
) -> None:
    (case,) = world.failed()
    path = f"/console/cases/{case.case_id}/"
    before = len(world.receiver.arrived("/webhook"))
    with worker(), chromium() as browser:
        people = staff(browser, live_server.url, world, **WAYS[way])
        walk(people, path)
        operator = people["operator"]
        if way == "without script":
            check_again(operator)
        operator.due("Nothing left to do")
        expect(operator.page.get_by_role("heading", level=1)).to_contain_text("Delivered")
        close(people["second_analyst"])
        complaints = {name: desk.complaints for name, desk in people.items() if desk.complaints}
    assert complaints == {}
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    assert Recovery.objects.get().state == RecoveryState.RESOLVED
    assert list(verification.verify()) == []
    assert len(world.receiver.arrived("/webhook")) == before + 1


def test_another_approver_was_first(transactional_db: None, live_server: Any, world: World) -> None:
    (case,) = world.failed()
    world.requested()
    path = f"/console/cases/{case.case_id}/"
    with chromium() as browser:
        late = sign_in(browser, live_server.url, world.second_approver)
        first = sign_in(browser, live_server.url, world.approver)
        late.open(path)
        late.page.get_by_label("Notes").fill("looks right")
        first.open(path)
        first.page.get_by_label("Notes").fill("not tonight")
        first.press("Deny", exact=True)
        first.due("Next: Plan Retry Approval")
        late.press("Approve")
        refusal = late.page.locator("[data-refusal]")
        expect(refusal).to_contain_text(f"{world.approver.username} denied this")
        expect(refusal).to_be_focused()
        late.due("Next: Plan Retry Approval")
        assert late.complaints == []
    assert Vote.objects.count() == 1


def test_a_page_says_that_it_went_stale_and_keeps_what_was_typed(
    transactional_db: None, live_server: Any, world: World
) -> None:
    (case,) = world.failed()
    world.requested()
    with chromium() as browser:
        reader = sign_in(browser, live_server.url, world.second_approver)
        other = sign_in(browser, live_server.url, world.approver)
        reader.page.clock.install()
        for desk in (reader, other):
            desk.open(f"/console/cases/{case.case_id}/")
        reader.page.get_by_label("Notes").fill("half a thought")
        other.press("Defer")
        expect(other.page.locator("#said")).to_contain_text("Deferred")
        # The page asks every 15 seconds.
        reader.page.clock.run_for(16_000)
        expect(reader.page.locator(".banner", has_text="This case changed at")).to_be_visible()
        expect(reader.page.get_by_label("Notes")).to_have_value("half a thought")
        reader.page.get_by_role("link", name="Show the new state").click()
        expect(reader.page.locator(".chain")).to_contain_text(world.approver.username)


def test_the_connector_changes_between_page_and_vote(
    transactional_db: None, live_server: Any, world: World
) -> None:
    (case,) = world.failed()
    world.requested()
    with chromium() as browser:
        approver = sign_in(browser, live_server.url, world.approver)
        approver.open(f"/console/cases/{case.case_id}/")
        # In a thread of its own: this one has the browser's event loop.
        in_a_thread(lambda: change_connector(world))
        approver.press("Approve")
        expect(approver.page.locator("[data-refusal]")).to_contain_text("what would be sent has changed")
        approver.due("Next: Plan Retry Approval")
    assert ApprovalEntry.objects.get().state == "manifest_changed"
    assert not Vote.objects.exists()


def change_connector(world: World) -> None:
    connector = Connector.objects.get()
    connector.headers = {"x-lane": "blue"}
    configuration.save(connector, by=world.administrator, clock=system_clock)


def in_a_thread(act: Any) -> None:
    from threading import Thread

    from django.db import connection

    def run() -> None:
        act()
        connection.close()

    thread = Thread(target=run)
    thread.start()
    thread.join(timeout=30)


def test_p7_a_run_that_waits_is_followed_while_somebody_types_a_denial(
    transactional_db: None, live_server: Any, world: World
) -> None:
    (case,) = world.failed()
    (entry,) = world.approved()
    # A worker that stays alive for as long as this takes.
    long = Clock()
    long.forward(hours=1)
    heartbeats.beat("worker", clock=long)
    request = RunRequest(dry_run=False, cases=(case.case_id,), background=True)
    run = runs.start(request, by=world.operator, clock=system_clock).run
    with chromium() as browser:
        approver = sign_in(browser, live_server.url, world.second_approver)
        approver.open(f"/console/cases/{case.case_id}/")
        approver.due("Executing attempt 2")
        panel = approver.page.locator("#running")
        approver.page.get_by_label("Notes").fill("half a thought")
        panel.evaluate("panel => panel.dataset.seen = 'before'")
        # The panel about the run is another one by now, the form is the same.
        expect(panel).not_to_have_attribute("data-seen", "before")
        expect(approver.page.get_by_label("Notes")).to_have_value("half a thought")
        approver.press("Deny (revoke)")
        approver.due("Next: Plan Retry Approval")
        assert approver.complaints == []
    entry.refresh_from_db()
    assert entry.state == "denied"
    assert runs.execute_due(clock=system_clock) == 1
    assert not run.executions.exists()


def test_your_own_approval_is_refused_with_the_reason(
    transactional_db: None, live_server: Any, world: World
) -> None:
    (case,) = world.failed()
    world.requested()
    with chromium() as browser:
        analyst = sign_in(browser, live_server.url, world.analyst)
        analyst.open(f"/console/cases/{case.case_id}/")
        button = analyst.page.get_by_role("button", name="Approve")
        expect(button).to_have_attribute("aria-disabled", "true")
        described = button.get_attribute("aria-describedby")
        expect(analyst.page.locator(f"#{described}")).to_contain_text("You are signed in as")
        button.click(force=True)
        analyst.due("Next: decide on attempt 2")
    assert not Vote.objects.exists()


def unknown(world: World) -> Case:
    """A case whose retry was claimed and never heard of again."""
    return world.unknown().execution.case


def test_two_people_reconcile_an_unknown_outcome(
    transactional_db: None, live_server: Any, world: World
) -> None:
    case = unknown(world)
    with chromium() as browser:
        for person in (world.analyst, world.approver):
            desk = sign_in(browser, live_server.url, person)
            desk.open(f"/console/cases/{case.case_id}/")
            desk.due("Next: Reconcile")
            desk.page.get_by_label("Not delivered").check()
            desk.page.get_by_role("textbox", name="Reference").fill("INC-4471")
            desk.press(f"Attest as {person.username}")
            expect(desk.page.locator("#said")).to_contain_text("recorded")
        desk.due("Next: Plan Audit Retry")
    case.refresh_from_db()
    assert case.state == CaseState.FAILED
    assert Attestation.objects.count() == 2


def test_an_act_by_keyboard_alone(transactional_db: None, live_server: Any, world: World) -> None:
    """From the overview to a recorded plan without a pointer."""
    world.failed()
    with chromium() as browser:
        analyst = sign_in(browser, live_server.url, world.analyst)
        page = analyst.page
        to(page, "Plan Audit Retry")
        page.keyboard.press("Enter")
        analyst.due("Next: Plan Audit Retry")
        to(page, "Lift the delay for this retry")
        page.keyboard.press("Space")
        to(page, "Plan Audit Retry")
        page.keyboard.press("Enter")
        analyst.due("Next: Ack Retry")
        to(page, "Accept")
        page.keyboard.press("ArrowRight")
        to(page, "Ack Retry")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("Answer recorded")


def to(page: Page, name: str) -> None:
    """Press Tab until what has the focus is called ``name``."""
    for _ in range(80):
        page.keyboard.press("Tab")
        words = page.evaluate(
            "(e => e.labels?.length ? e.labels[0].innerText : e.innerText)(document.activeElement) || ''"
        )
        if words.strip().startswith(name):
            return
    raise AssertionError(f"the keyboard never came to {name}")
