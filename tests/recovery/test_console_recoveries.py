"""Pages of recoveries and of statements: steps, each outcome with what it needs, and what a refusal looks like."""

import csv
import html
import io
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from evidence.domain import people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Person
from recovery.domain.playbooks import CLOSING_STEPS
from recovery.enums import ClosureState, RecoveryState, Seen
from recovery.models import Closure, Execution, Playbook, Recovery, StepTick
from tests.builders import World, person

LIST = "/console/recoveries/"
STATEMENT = "/console/statements/retries/"
# A page of everything may ask this often, however much there is; one of these notes the read.
MOST_QUERIES = 37

FIELDS = {
    "resolved": {"verification_refs"},
    "mitigated": {"owner", "review_at"},
    "deferred": {"owner", "review_at", "reason"},
    "escalated": {"external_ref"},
    "reopened": {"reason"},
}


class Desk:
    """The pages of one connector's recovery as one person uses them, without script."""

    def __init__(self, person: Person, provider: str = "webhook") -> None:
        self.client = Client()
        self.client.force_login(person)
        self.address = f"{LIST}{provider}/"

    def get(self, address: str = "", expect: int = 200) -> str:
        answer = self.client.get(address or self.address)
        assert answer.status_code == expect
        return html.unescape(answer.content.decode())

    def post(self, below: str, expect: int = 302, **fields: Any) -> str:
        """Send a form; the page that follows it, or the one that says why not."""
        answer = self.client.post(f"{self.address}{below}", fields)
        content = html.unescape(answer.content.decode())
        assert answer.status_code == expect, re.sub(r"<[^>]+>", " ", content)
        return content if expect != 302 else self.get(answer["Location"].partition("#")[0])

    def close(self, state: str, expect: int = 302, **fields: Any) -> str:
        """Close by the playbook that the page shows."""
        shown = re.search(r'name="playbook_id"( value="([^"]*)")?', self.get())
        assert shown
        return self.post("close/", expect, **{"playbook_id": shown[2] or "", "state": state, **fields})


def needs(page: str) -> list[tuple[str, str]]:
    """The list of what the chosen outcome needs: tone and sentence."""
    (panel,) = re.findall(r'<div id="needs".*?</ul>', page, re.S)
    return re.findall(r'<li class="is-(\w+)">.*?<b[^>]*>(.*?)</b>', panel, re.S)


def button(page: str) -> str:
    """The opening tag of the closing button."""
    found = re.search(r'id="close-act"><button([^>]*)>', page)
    assert found
    return found[1]


def summary(page: str) -> str:
    """The box that says what did not happen."""
    found = re.search(r'<div class="(?:errors|note is-bad)" role="alert".*?</div>', page, re.S)
    assert found, "no refusal"
    return re.sub(r"<[^>]+>", " ", found[0])


def later(days: int = 7) -> str:
    return f"{system_clock() + timedelta(days=days):%Y-%m-%dT%H:%M}"


def recovered(world: World) -> str:
    """Failed, retried with success, described by a playbook; the execution's id."""
    world.failed()
    world.approved()
    (done,) = world.ran().outcome.recorded
    world.playbook()
    return done.execution.execution_id


# --- playbooks and steps --------------------------------------------------------------------------------------


def test_a_playbook_is_written_from_the_list_and_leads_to_its_recovery(world: World) -> None:
    (case,) = world.failed()
    desk = Desk(world.analyst)
    assert "No connector is being recovered" in desk.get(LIST)
    desk.get(expect=404)
    desk.client.post(f"{LIST}write-playbook/", {"min_failure_count": 1})
    playbook = Playbook.objects.get()
    page = desk.get(LIST)
    assert f"Recovery playbook recorded as {playbook.playbook_id}. It is about webhook." in page
    assert f'href="{desk.address}"' in page
    assert "0 of 1 settled" in page
    assert "receiver is unavailable" in page
    page = desk.get()
    assert f'href="/console/cases/{case.case_id}/"' in page
    steps = page.partition('class="steps"')[2].partition("</ol>")[0]
    assert f"0 of {steps.count('<li')} done" in page


def test_a_playbook_about_nothing_says_so(world: World) -> None:
    world.failed()
    desk = Desk(world.analyst)
    assert desk.client.post(f"{LIST}write-playbook/").status_code == 302
    assert "It is about no connector, for none failed as often." in desk.get(LIST)
    assert not Recovery.objects.exists()


def test_numbers_that_are_none_are_refused_at_their_fields(world: World) -> None:
    answer = Desk(world.analyst).client.post(f"{LIST}write-playbook/", {"lookback_hours": "0"})
    assert answer.status_code == 400
    assert b'href="#playbook_lookback_hours"' in answer.content
    assert not Playbook.objects.exists()


def test_a_newer_failure_asks_for_a_newer_playbook(world: World) -> None:
    world.failed()
    world.playbook()
    desk = Desk(world.analyst)
    assert "Write it anew" in desk.get()
    world.failed()
    page = desk.get()
    assert "It says nothing about a newer failure." in page
    assert "Not in the playbook</dt><dd>1</dd>" in page
    desk.post("playbook/")
    assert "Write it anew" in desk.get()
    assert Playbook.objects.count() == 2


def test_steps_are_ticked_with_a_note_and_taken_back(world: World) -> None:
    world.failed()
    world.playbook()
    desk = Desk(world.analyst)
    page = desk.post("steps/check_owner/", done="true", note="CHG-812")
    tick = StepTick.objects.get()
    assert f"Step ticked. Recorded as {tick.tick_id}." in page
    assert "“CHG-812”" in page
    assert (tick.done, tick.note, tick.ticked_by) == (True, "CHG-812", world.analyst)
    assert re.search(r'id="t-check_owner" aria-pressed="true"', page)
    page = desk.post("steps/check_owner/", done="false")
    assert "Step taken back." in page
    assert re.search(r'id="t-check_owner" aria-pressed="false"', page)


def test_of_two_who_tick_the_second_is_told_who_was_first(world: World) -> None:
    world.failed()
    world.playbook()
    Desk(world.analyst).post("steps/check_owner/", done="true")
    page = Desk(world.second_analyst).post("steps/check_owner/", 409, done="true", note="mine")
    assert f"Not recorded: {world.analyst.username} ticked this step at" in summary(page)
    assert StepTick.objects.count() == 1


@pytest.mark.parametrize(
    ("key", "fields", "status", "said"),
    (
        ("dry_run", {"done": "true"}, 409, "this step ticks itself"),
        ("no_such_step", {"done": "true"}, 404, "lists no such step"),
        ("check_owner", {"done": "true", "note": "a\u200bb"}, 400, "U+200B"),
        ("check_owner", {"done": "true", "note": "x" * 301}, 400, "300 are allowed"),
        ("check_owner", {}, 400, "look at the marked fields"),
    ),
)
def test_a_tick_that_is_refused_says_why(
    world: World, key: str, fields: dict[str, str], status: int, said: str
) -> None:
    world.failed()
    world.playbook()
    page = Desk(world.analyst).post(f"steps/{key}/", status, **fields)
    assert said in summary(page)
    assert "<title>Error: Recovery of webhook" in page
    if fields.get("note"):
        assert f'value="{fields["note"]}" aria-invalid="true"' in page
    assert not StepTick.objects.exists()


@pytest.mark.parametrize("key", tuple(CLOSING_STEPS))
def test_steps_that_tick_themselves_have_no_form(world: World, key: str) -> None:
    world.failed()
    world.playbook()
    page = Desk(world.analyst).get()
    automatic = key in ("dry_run", "approval")
    assert (f'id="f-{key}"' in page) is not automatic
    assert f'id="s-{key}"' in page


def test_who_may_not_sees_the_page_and_the_reason(world: World) -> None:
    world.failed()
    world.playbook()
    desk = Desk(world.auditor)
    page = desk.get()
    assert "This needs a role that may plan recovery" in page
    assert "<form" not in page.partition('id="steps"')[2].partition("</section>")[0]
    assert 'aria-disabled="true"' in button(page)
    assert 'name="verification_refs"' not in page
    assert "This needs a role that may" in summary(desk.post("steps/check_owner/", 403, done="true"))
    assert "This needs a role that may" in summary(desk.post("playbook/", 403))
    assert "This needs a role that may" in summary(desk.close("escalated", 403, external_ref="INC-1"))
    assert not Closure.objects.exists()
    Desk(person(Role.VIEWER)).get(expect=403)


@pytest.mark.parametrize("below", ("", "playbook/", "close/", "steps/check_owner/"))
def test_a_connector_that_never_failed_has_no_page(world: World, below: str) -> None:
    desk = Desk(world.analyst)
    send = desk.client.post if below else desk.client.get
    assert send(desk.address + below, {"done": "true"}).status_code == 404
    assert not Playbook.objects.exists()


# --- what an outcome needs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", tuple(ClosureState))
def test_an_outcome_shows_what_it_needs_and_its_own_fields(world: World, outcome: str) -> None:
    world.failed()
    world.playbook()
    page = Desk(world.analyst).get(f"{LIST}webhook/?outcome={outcome}")
    assert f"“{outcome.capitalize()}” needs" in page
    shown = set(re.findall(r'(?:name|id)="(?:close_)?(\w+)"', page.partition('<div id="needs"')[2])) & {
        field for fields in FIELDS.values() for field in fields
    }
    # A reference may always be named.
    assert shown == FIELDS[outcome] | {"external_ref"}
    optional = re.search(r'for="close_external_ref">Ticket reference <span class="opt">', page)
    assert bool(optional) is (outcome != "escalated")
    # What the form can meet leaves the button as it is; what it cannot takes it away.
    assert ("aria-disabled" in button(page)) is (outcome in ("resolved", "reopened"))


@pytest.mark.parametrize("outcome", ("", "nonsense", "RESOLVED"))
def test_an_outcome_nobody_knows_is_the_usual_one(world: World, outcome: str) -> None:
    world.failed()
    world.playbook()
    assert "“Resolved” needs" in Desk(world.analyst).get(f"{LIST}webhook/?outcome={outcome}")


def test_what_was_typed_is_kept_when_another_outcome_is_looked_at(world: World) -> None:
    world.failed()
    world.playbook()
    date = later()
    page = Desk(world.analyst).get(f"{LIST}webhook/?outcome=deferred&owner=siem-team&review_at={date}")
    assert 'value="siem-team"' in page
    assert f'value="{date}"' in page
    tones = {sentence: tone for tone, sentence in needs(page)}
    assert tones == {
        "This recovery is open and you may close it.": "ok",
        "Name who owns it until then.": "ok",
        "Name when it comes back, within 30 days.": "ok",
        "Say why.": "warn",
    }


def test_resolved_lists_what_proves_it_and_what_is_missing(world: World) -> None:
    execution = recovered(world)
    page = Desk(world.second_analyst).get()
    assert f'value="{execution}" checked' in page
    assert {tone for tone, _ in needs(page)} == {"ok"}
    assert "aria-disabled" not in button(page)
    (left,) = world.failed()
    page = Desk(world.second_analyst).get()
    assert ("bad", f"{left.case_id} is not settled after its newest failure.") in needs(page)
    assert "aria-disabled" in button(page)


def test_many_unsettled_cases_are_counted_not_listed(world: World) -> None:
    for _ in range(7):
        world.failed()
    world.playbook()
    desk = Desk(world.analyst)
    page = desk.get()
    assert sum("is not settled" in sentence for _, sentence in needs(page)) == 5
    assert "2 more cases not settled." in page
    page = desk.close("resolved", 409)
    assert len(re.findall("is not settled", summary(page))) <= 6


# --- closing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "fields"),
    (
        ("mitigated", {"owner": "siem-team", "review_at": True}),
        ("deferred", {"owner": "siem-team", "review_at": True, "reason": "change freeze"}),
        ("escalated", {"external_ref": "SERVICENOW:INC0012345"}),
    ),
)
def test_each_outcome_is_recorded(world: World, state: str, fields: dict[str, Any]) -> None:
    world.failed()
    world.playbook()
    if "review_at" in fields:
        fields = {**fields, "review_at": later()}
    page = Desk(world.analyst).close(state, notes="my words", **fields)
    closure = Closure.objects.get()
    assert (closure.state, closure.closed_by) == (state, world.analyst)
    assert f"{state.capitalize()}. Recorded as {closure.closure_id}." in page
    assert Recovery.objects.get().state == state
    assert "Outcomes so far" in page
    if "review_at" in fields:
        assert f"{Recovery.objects.get().review_at:%Y-%m-%dT%H:%M}" == fields["review_at"]


def test_resolved_then_reopened_begins_the_next_epoch(world: World) -> None:
    execution = recovered(world)
    desk = Desk(world.second_analyst)
    case = f"/console/cases/{Execution.objects.get(execution_id=execution).case.case_id}/"
    assert "<span>Recover</span>" in desk.get(case)
    page = desk.close("resolved", verification_refs=[execution])
    assert Recovery.objects.get().state == RecoveryState.RESOLVED
    assert "<span>Recovered</span>" in desk.get(case)
    # What is left to do with it comes first.
    assert "“Reopened” needs" in page
    assert "is resolved; its steps stay as they are." in page
    assert "resolved" in desk.get(LIST).partition("Ended lately")[2].lower()
    page = desk.close("reopened", reason="it fails again")
    assert list(Recovery.objects.order_by("epoch").values_list("epoch", "state")) == [
        (1, RecoveryState.REOPENED),
        (2, RecoveryState.OPEN),
    ]
    assert "<span>Recover</span>" in desk.get(case)
    assert "No playbook yet" in page
    assert ("bad", "No playbook describes this recovery yet; write one first.") in needs(page)
    page = desk.close("escalated", 409, external_ref="INC-1")
    assert "Recovery not closed. No playbook described it" in summary(page)


@pytest.mark.parametrize(
    ("state", "fields", "missing"),
    (
        ("mitigated", {}, {"owner", "review_at"}),
        ("mitigated", {"owner": "siem-team", "days": 31}, {"review_at"}),
        ("deferred", {"owner": "siem-team"}, {"review_at", "reason"}),
        ("escalated", {"notes": "gone elsewhere"}, {"external_ref"}),
    ),
)
def test_what_is_missing_is_said_at_its_field(
    world: World, state: str, fields: dict[str, Any], missing: set[str]
) -> None:
    world.failed()
    world.playbook()
    if "days" in fields:
        fields = {"owner": fields["owner"], "review_at": later(fields["days"])}
    page = Desk(world.analyst).close(state, 409, **fields)
    assert "Recovery not closed." in summary(page)
    assert set(re.findall(r'<li><a href="#close_(\w+)"', page)) == missing
    assert f"“{state.capitalize()}” needs" in page
    for name in ("owner", "notes"):
        if value := fields.get(name):
            assert value in page
    assert {tone for tone, _ in needs(page)} == {"ok", "bad"}
    assert not Closure.objects.exists()


def test_resolved_without_what_proves_it_is_refused(world: World) -> None:
    (left,) = world.failed()
    world.playbook()
    page = Desk(world.analyst).close("resolved", 409)
    assert f"Recovery not closed. {left.case_id} is not settled" in summary(page)
    assert "Name at least one delivered execution" in summary(page)
    assert 'href="#close_verification_refs"' in page


def test_a_reference_that_proves_nothing_is_named(world: World) -> None:
    execution = recovered(world)
    page = Desk(world.second_analyst).close(
        "resolved", 409, verification_refs=[execution, "gordackretryexec-0000000000000000"]
    )
    assert "gordackretryexec-0000000000000000 is no delivered execution" in summary(page)
    assert f'value="{execution}" checked' in page


def test_who_executed_it_may_not_confirm_it(world: World) -> None:
    people.grant_role(world.operator, Role.ANALYST, by=None, clock=system_clock)
    execution = recovered(world)
    desk = Desk(Person.objects.get(pk=world.operator.pk))
    page = desk.get()
    assert f'value="{execution}" disabled' in page
    assert f"You executed {execution}; somebody else has to confirm it." in page
    assert "aria-disabled" in button(page)
    page = desk.close("resolved", 403, verification_refs=[execution])
    assert f"Recovery not closed. You executed {execution}" in summary(page)
    assert Recovery.objects.get().state == RecoveryState.OPEN


def test_what_turned_out_delivered_can_be_named_as_proof(world: World) -> None:
    case = world.unknown().execution.case
    world.playbook()
    world.attested(case, Seen.DELIVERED, world.analyst, world.approver)
    execution = Execution.objects.get()
    page = Desk(world.second_analyst).get()
    assert f'value="{execution.execution_id}" checked' in page
    assert "attempt 2 turned out delivered" in page
    Desk(world.second_analyst).close("resolved", verification_refs=[execution.execution_id])
    assert Recovery.objects.get().state == RecoveryState.RESOLVED


def test_an_older_playbook_does_not_close(world: World) -> None:
    execution = recovered(world)
    older = Playbook.objects.get()
    world.playbook()
    desk = Desk(world.second_analyst)
    page = desk.close("resolved", 409, verification_refs=[execution], playbook_id=older.playbook_id)
    assert "A newer playbook describes this recovery" in summary(page)
    page = desk.close("resolved", 404, playbook_id="gordackrecovery-0000000000000000")
    assert "There is no playbook with this id" in summary(page)
    assert not Closure.objects.exists()


def test_of_two_who_close_the_second_is_refused(world: World) -> None:
    execution = recovered(world)
    Desk(world.second_analyst).close("resolved", verification_refs=[execution])
    page = Desk(world.analyst).close("resolved", 409, verification_refs=[execution])
    assert "This recovery is resolved; it cannot become resolved." in page
    assert Closure.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "name"),
    (
        ({"state": "gone"}, "state"),
        ({"state": "escalated", "external_ref": "https://tickets.example/1"}, "external_ref"),
        ({"state": "mitigated", "owner": "a\u200bb"}, "owner"),
        ({"state": "mitigated", "owner": "me", "review_at": "tomorrow"}, "review_at"),
        ({"state": "mitigated", "owner": "me", "review_at": "2020-01-01T10:00"}, "review_at"),
        ({"state": "deferred", "reason": "x" * 4001}, "reason"),
    ),
)
def test_what_cannot_be_read_is_refused_at_its_field(world: World, fields: dict[str, str], name: str) -> None:
    world.failed()
    world.playbook()
    page = Desk(world.analyst).post(
        "close/", 400, **{"playbook_id": Playbook.objects.get().playbook_id, **fields}
    )
    assert f'href="#close_{name}"' in page
    assert f'id="close_{name}"' in page
    assert not Closure.objects.exists()


# --- lists ----------------------------------------------------------------------------------------------------


def test_what_was_put_off_shows_its_owner_and_date(world: World) -> None:
    world.failed()
    world.playbook()
    Desk(world.analyst).close("mitigated", owner="siem-team", review_at=later(3))
    page = Desk(world.auditor).get(LIST)
    assert "siem-team" in page
    assert "Mitigated" in page
    assert re.search(r"(71 h|2 days)[^<]* left", page)


def test_the_seventh_card_leads_to_the_recoveries(world: World) -> None:
    world.failed()
    world.playbook()
    page = Desk(world.analyst).get("/console/")
    assert re.search(r'7 Recover</h3><a class="big" href="/console/recoveries/"><b>1</b>', page)


def test_pages_cost_the_same_for_many_cases(world: World) -> None:
    execution = recovered(world)
    pages = (
        LIST,
        STATEMENT,
        *(f"{LIST}webhook/?outcome={outcome}" for outcome in ClosureState),
    )
    desk = Desk(world.second_analyst)

    def queries() -> list[int]:
        counts = []
        for address in pages:
            with CaptureQueriesContext(connection) as captured:
                desk.get(address)
            counts.append(len(captured))
        return counts

    world.failed()
    world.requested()
    world.playbook()
    desk.post("steps/check_owner/", done="true")
    before = queries()
    for _ in range(25):
        world.failed()
    world.requested()
    world.playbook()
    assert execution in desk.get()
    assert queries() == before
    assert max(before) <= MOST_QUERIES, before


# --- statements -----------------------------------------------------------------------------------------------


def test_a_statement_adds_up(two: World) -> None:
    two.failed()
    two.approved()
    two.ran(providers=("webhook",))
    desk = Desk(two.auditor)
    page = desk.get(STATEMENT)
    rows = {
        name: re.findall(r'data-l="(\w+)">(?:<b>)?(\d+)', cells)
        for name, cells in re.findall(r'class="first[^"]*">([^<]+)</th>(.*?)</tr>', page, re.S)
    }
    expected = {"asked": 1, "approved": 1, "unused": 0, "failed": 0, "unknown": 0, "skipped": 0}
    for name, place in (("webhook", "delivered"), ("backup", "ready")):
        places = {"ready": 0, "delivered": 0, **expected, place: 1}
        assert {label: int(number) for label, number in rows[name]} == places
    assert dict(rows["All connectors"])["approved"] == "2"
    assert "Approved = ready + unused + delivered + failed + unknown." in page


def test_a_statement_is_a_file_as_well(world: World) -> None:
    world.failed()
    world.approved()
    answer = Desk(world.auditor).client.get(STATEMENT, {"period": "month", "format": "csv"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(
        r'attachment; filename="retries-[\d-]{10}-to-[\d-]{10}\.csv"', answer["Content-Disposition"]
    )
    lines = list(csv.DictReader(io.StringIO(answer.content.decode())))
    assert [(line["connector"], line["approved"], line["ready"]) for line in lines] == [
        ("webhook", "1", "1"),
        ("total", "1", "1"),
    ]


@pytest.mark.parametrize(("period", "shown"), (("", "7"), ("week", "7"), ("month", "30"), ("century", "7")))
def test_a_period_without_retries_says_so(world: World, period: str, shown: str) -> None:
    page = Desk(world.auditor).get(f"{STATEMENT}?period={period}")
    assert f"No retry was asked for in these {shown} days" in page
    assert re.search(rf'aria-current="true">.*?{shown} days</a>', page)


def test_a_viewer_sees_no_statement(world: World) -> None:
    Desk(person(Role.VIEWER)).get(STATEMENT, 403)
