"""Settling a case without a delivery in the console: offered on its page, decided by another, kept when refused."""

import re

import pytest
from django.test import Client

from evidence.enums import CaseState, Role
from evidence.models import Case
from recovery.domain import dispositions
from recovery.enums import Act, DispositionKind, DispositionState
from recovery.models import Disposition
from tests.builders import World, person
from tests.recovery import desk
from tests.recovery.test_console_votes import PASSWORD, signed_in_ago

ABANDONED = {"kind": "abandoned", "external_ref": "CHG-1", "reason": "The receiver is gone."}


class Desk(desk.Desk):
    """A person before a case's page, with the panel about settling it without a delivery."""

    def panel(self) -> str:
        """That panel; empty when the page has none."""
        found = re.search(r'<section class="panel" id="disposition".*?</section>', self.page(), re.S)
        return found[0] if found else ""


@pytest.fixture
def case(world: World) -> Case:
    (failed,) = world.failed()
    return failed


def test_one_proposes_and_an_approver_confirms(world: World, case: Case) -> None:
    (newer,) = world.delivered()
    analyst, approver = Desk(world.analyst, case), Desk(world.approver, case)
    offered = analyst.panel()
    assert "Propose a disposition" in offered
    assert f'<option value="{newer.case_id}">' in offered
    analyst.send(
        Act.PROPOSE_DISPOSITION, kind="superseded_by", superseded_by=newer.case_id, reason="Newer answers."
    )
    found = Disposition.objects.get()
    waits = approver.panel()
    assert (world.analyst.username in waits, "Newer answers." in waits) == (True, True)
    assert f'name="disposition_id" value="{found.disposition_id}"' in waits
    queue = approver.client.get("/console/approvals/").content.decode()
    assert f'href="/console/cases/{case.case_id}/#disposition">Read and decide' in queue
    approver.send(Act.DECIDE_DISPOSITION, disposition_id=found.disposition_id, state="confirmed")
    case.refresh_from_db()
    assert case.state == CaseState.SUPERSEDED
    settled = analyst.panel()
    assert "Settled without a delivery" in settled
    assert f'href="/console/cases/{newer.case_id}/"' in settled
    assert (world.analyst.username in settled, world.approver.username in settled) == (True, True)
    assert "is not sent to webhook again" in settled
    assert "<form" not in settled
    page = analyst.page()
    assert "Superseded: two people settled it after 1 attempt." in page
    assert "Delivered at the first attempt" not in page
    assert case.case_id not in approver.client.get("/console/approvals/").content.decode()


def test_an_approver_refuses_and_says_why(world: World, case: Case) -> None:
    found = world.proposed(case)
    approver = Desk(world.approver, case)
    shown = {"disposition_id": found.disposition_id, "state": "refused"}
    page = approver.send(Act.DECIDE_DISPOSITION, 400, **shown)
    assert "say why; who proposed it has to know" in page
    approver.send(Act.DECIDE_DISPOSITION, notes="Try again first.", **shown)
    found.refresh_from_db()
    assert found.state == DispositionState.REFUSED
    # It can be proposed again, and the page says what became of the last one.
    panel = Desk(world.second_analyst, case).panel()
    assert "Refused by" in panel
    assert "Propose a disposition" in panel


def test_who_proposed_it_is_told_why_not_and_may_take_it_back(world: World, case: Case) -> None:
    world.analyst = person(Role.ANALYST, Role.APPROVER)
    found = world.proposed(case)
    own = Desk(world.analyst, case)
    panel = own.panel()
    assert "you proposed this disposition; another approver decides" in panel
    assert "decide-disposition" not in panel
    refused = own.send(Act.DECIDE_DISPOSITION, 403, disposition_id=found.disposition_id, state="confirmed")
    assert "you proposed this disposition" in refused
    queue = own.client.get("/console/approvals/").content.decode()
    assert "you proposed this disposition" in queue
    other = Desk(world.second_analyst, case)
    assert "withdraw-disposition" not in other.panel()
    other.send(Act.WITHDRAW_DISPOSITION, 403, disposition_id=found.disposition_id)
    own.send(Act.WITHDRAW_DISPOSITION, disposition_id=found.disposition_id, notes="Wrong case.")
    found.refresh_from_db()
    assert found.state == DispositionState.WITHDRAWN


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    (
        ({"external_ref": ""}, 400, "Name the decision under which it is abandoned."),
        ({"kind": "superseded_by"}, 400, "Name the delivered case that stands in its place."),
        ({"kind": "superseded_by", "superseded_by": "no.such"}, 404, "There is no such case."),
        ({"external_ref": "https://tickets.example/1"}, 400, "as SYSTEM:KEY or a plain key"),
        ({"kind": "deleted"}, 400, "look at the marked fields"),
    ),
)
def test_what_was_typed_stays(
    world: World, case: Case, fields: dict[str, str], status: int, said: str
) -> None:
    page = Desk(world.analyst, case).send(
        Act.PROPOSE_DISPOSITION, status, **{**ABANDONED, "reason": "my own words", **fields}
    )
    assert said in page
    assert "my own words</textarea>" in page
    if value := fields.get("superseded_by"):
        assert f'value="{value}"' in page
    assert "<details open>" in page
    assert not Disposition.objects.exists()


def test_a_second_proposal_keeps_its_words_although_it_has_no_place(world: World, case: Case) -> None:
    world.proposed(case)
    page = Desk(world.second_analyst, case).send(Act.PROPOSE_DISPOSITION, 409, **ABANDONED)
    assert f"{world.analyst.username} proposed a disposition already" in page
    assert "The receiver is gone.</textarea>" in page


def test_a_proposal_of_another_case_is_not_decided_here(world: World, case: Case) -> None:
    world.delivered()
    (other,) = world.failed()
    found = world.proposed(other)
    page = Desk(world.approver, case).send(
        Act.DECIDE_DISPOSITION, 409, disposition_id=found.disposition_id, state="confirmed"
    )
    assert "this case has no such proposal" in page
    found.refresh_from_db()
    assert found.state == DispositionState.PROPOSED


def test_the_tries_are_used_up_and_the_page_says_the_ways_out(world: World, case: Case) -> None:
    world.policy(max_retry_attempts=1)
    world.planned()
    analyst = Desk(world.analyst, case)
    page = analyst.page()
    assert '<h2 id="act-h">The tries are used up</h2>' in page
    assert "1 try left this service and the last plan allows 1." in page
    assert "The retry policy allows 1; an administrator may raise that up to 10." in page
    assert "One person proposes it, an approver who is somebody else confirms." in page
    assert "<details open>" in analyst.panel()
    world.policy(max_retry_attempts=2)
    assert "The retry policy allows 2 now." in analyst.page()
    world.proposed(case)
    assert f"{world.analyst.username} proposed it; an approver decides." in analyst.page()
    analyst.send(Act.PLAN, immediate="on")
    assert "Next: Ack Retry" in analyst.page()


def test_an_unknown_outcome_is_attested_first(world: World) -> None:
    case = world.unknown().execution.case
    desk = Desk(world.analyst, case)
    assert "two people have to attest that first" in desk.panel()
    page = desk.send(Act.PROPOSE_DISPOSITION, 409, **ABANDONED)
    assert "two people have to attest that first" in page


def test_a_delivered_case_offers_nothing_but_to_end_an_old_proposal(world: World, case: Case) -> None:
    world.approved()
    found = world.proposed(case)
    world.ran()
    approver = Desk(world.approver, case)
    panel = approver.panel()
    assert "Not to be confirmed any more: This case is settled: delivered." in panel
    assert 'value="confirmed"' not in panel
    shown = {"disposition_id": found.disposition_id, "notes": "Delivered meanwhile."}
    approver.send(Act.DECIDE_DISPOSITION, 409, state="confirmed", **shown)
    approver.send(Act.DECIDE_DISPOSITION, state="refused", **shown)
    (other,) = world.delivered()
    assert Desk(world.analyst, other).panel() == ""


def test_a_proposal_from_before_another_attempt_says_so_where_it_would_be_confirmed(
    world: World, case: Case
) -> None:
    world.approved()
    found = world.proposed(case)
    world.receiver.behave("/webhook", status=503)
    world.ran()
    approver = Desk(world.approver, case)
    panel = approver.panel()
    said = "Another attempt was made since it was proposed; propose it again."
    assert f"Not to be confirmed any more: {said}" in panel
    assert 'aria-disabled="true" aria-describedby="why-settle">Confirm</button>' in panel
    assert 'value="confirmed"' not in panel
    shown = {"disposition_id": found.disposition_id, "notes": "Tried again since."}
    assert said in approver.send(Act.DECIDE_DISPOSITION, 409, state="confirmed", **shown)
    approver.send(Act.DECIDE_DISPOSITION, state="refused", **shown)


@pytest.mark.parametrize("state", ("confirmed", "refused"))
def test_deciding_needs_the_password_once_the_sign_in_is_old(world: World, case: Case, state: str) -> None:
    found = world.proposed(case)
    approver = Desk(world.approver, case)
    assert 'type="password"' not in approver.panel()
    signed_in_ago(approver, minutes=16)
    assert "It is 16 min since you signed in: your password" in approver.panel()
    typed = {"disposition_id": found.disposition_id, "state": state, "notes": "my own words"}
    for password in ("", "wrong horse battery"):
        page = approver.send(Act.DECIDE_DISPOSITION, 403, **typed, password=password)
        assert ("This is not your password." if password else "Give your password to sign this.") in page
        assert "my own words</textarea>" in page or 'value="my own words"' in page
        assert not password or password not in page
    found.refresh_from_db()
    assert found.state == DispositionState.PROPOSED
    approver.send(Act.DECIDE_DISPOSITION, **typed, password=PASSWORD)
    found.refresh_from_db()
    assert found.state == state


def test_words_are_text_on_the_page(world: World, case: Case) -> None:
    Desk(world.analyst, case).send(
        Act.PROPOSE_DISPOSITION, **{**ABANDONED, "reason": "<script>alert(1)</script>"}
    )
    page = Desk(world.approver, case).page()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_closure_offers_what_was_disposed_of(world: World, case: Case) -> None:
    world.playbook()
    found = world.disposed(case)
    client = Client()
    client.force_login(world.second_analyst)
    page = client.get("/console/recoveries/webhook/?outcome=resolved").content.decode()
    assert f'value="{found.disposition_id}" checked' in page
    assert f"abandoned, proposed by {world.analyst.username}" in page
    own = Client()
    own.force_login(world.analyst)
    page = own.get("/console/recoveries/webhook/?outcome=resolved").content.decode()
    assert f'value="{found.disposition_id}" disabled' in page


def test_the_overview_of_deliveries_says_what_became_of_the_same_content(world: World, case: Case) -> None:
    world.disposed(case)
    client = Client()
    client.force_login(world.analyst)
    answer = client.post("/console/deliver/audit/", {})
    assert answer.status_code == 409
    assert "two people settled the same content as abandoned" in answer.content.decode()
    assert dispositions.newest_of(case).kind == DispositionKind.ABANDONED
