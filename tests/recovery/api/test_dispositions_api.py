"""Dispositions over HTTP: one person proposes, an approver who is another decides (P8)."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from evidence.enums import CaseState, Role
from evidence.models import Case, Person
from recovery.models import Disposition
from tests.builders import World, person
from tests.endpoints import client, written

ABANDONED = {"kind": "abandoned", "reason": "The receiver is gone.", "external_ref": "CHG-1"}


def proposals(case: Case) -> str:
    return f"/api/v1/cases/{case.case_id}/dispositions"


def decisions(disposition: Disposition) -> str:
    return f"/api/v1/dispositions/{disposition.disposition_id}/decisions"


def post(path: str, who: Person, body: dict[str, Any]) -> Any:
    return client(who).post(path, body, format="json")


def test_two_people_supersede_a_case(world: World) -> None:
    (case,) = world.failed()
    (newer,) = world.delivered()
    body = {
        "kind": "Superseded-By",
        "superseded_by": newer.case_id,
        "reason": "Newer answers.",
        "proposed_by": "The Director",
    }
    proposed = post(proposals(case), world.analyst, body)
    assert proposed.status_code == 200, proposed.json()
    said = proposed.json()
    assert (said["case"], said["case_state"]) == (case.case_id, "failed")
    assert said["metadata"]["claimed_actor"] == "The Director"
    assert said["disposition_proposal"]["superseded_by"] == newer.case_id
    found = Disposition.objects.get(disposition_id=said["disposition_proposal"]["disposition_id"])
    confirmed = post(decisions(found), world.approver, {"state": "confirmed"}).json()
    assert (confirmed["case"], confirmed["case_state"]) == (case.case_id, "superseded_by")
    assert confirmed["disposition"]["disposition_id"] == found.disposition_id
    assert confirmed["disposition"]["notes"] == ""
    assert confirmed["actor"]["actor"] == world.approver.username
    assert found.disposition_id in {one["id"] for one in confirmed["metadata"]["references"]}
    case.refresh_from_db()
    assert case.state == CaseState.SUPERSEDED


def test_who_proposed_it_withdraws_and_others_refuse(world: World) -> None:
    (case,) = world.failed()
    first = world.proposed(case)
    other = post(decisions(first), world.second_analyst, {"state": "withdrawn"})
    assert (other.status_code, other.json()["code"]) == (403, "proposer_required")
    taken_back = post(decisions(first), world.analyst, {"state": "withdrawn", "notes": "Wrong case."}).json()
    assert (taken_back["disposition"]["disposition_state"], taken_back["case_state"]) == (
        "withdrawn",
        "failed",
    )
    second = world.proposed(case)
    refused = post(decisions(second), world.approver, {"state": "refused", "notes": "Try again."}).json()
    assert refused["disposition"]["disposition_state"] == "refused"
    again = post(decisions(second), world.approver, {"state": "confirmed"})
    assert (again.status_code, again.json()["code"]) == (409, "disposition_ended")
    assert again.json()["disposition_state"] == "refused"


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({"kind": "deleted"}, "kind"),
        ({"kind": None}, "kind"),
        ({"reason": ""}, "reason"),
        ({"reason": 7}, "reason"),
        ({"reason": "x" * 4_001}, "reason"),
        ({"external_ref": ""}, "external_ref"),
        ({"external_ref": "https://tickets.example.com/INC-1"}, "external_ref"),
        ({"superseded_by": "x.webhook"}, "superseded_by"),
        ({"superseded_by": ["x.webhook"]}, "superseded_by"),
        ({"superseded_by": "x" * 91}, "superseded_by"),
        ({"kind": "superseded_by"}, "superseded_by"),
        ({"state": "confirmed"}, "state"),
    ),
)
def test_a_proposal_without_its_parts_is_refused(world: World, body: dict[str, Any], field: str) -> None:
    (case,) = world.failed()
    before = written()
    answer = post(proposals(case), world.analyst, {**ABANDONED, **body})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert written() == before


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({"state": "proposed"}, "state"),
        ({}, "state"),
        ({"state": "refused"}, "notes"),
        ({"state": "confirmed", "notes": "a\u202eb"}, "notes"),
        ({"state": "confirmed", "kind": "abandoned"}, "kind"),
    ),
)
def test_a_decision_without_its_parts_is_refused(world: World, body: dict[str, Any], field: str) -> None:
    found = world.proposed(*world.failed())
    before = written()
    answer = post(decisions(found), world.approver, body)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert written() == before


def test_refusals_say_who_and_what(world: World) -> None:
    world.analyst = person(Role.ANALYST, Role.APPROVER)
    (case,) = world.failed()
    (newer,) = world.delivered()
    found = world.proposed(case)
    before = written()
    for path, who, body, expected in (
        (decisions(found), world.analyst, {"state": "confirmed"}, (403, "second_person_required")),
        (decisions(found), world.second_analyst, {"state": "confirmed"}, (403, "role_required")),
        (decisions(found), world.auditor, {"state": "confirmed"}, (403, "role_required")),
        (proposals(case), world.operator, ABANDONED, (403, "role_required")),
        (proposals(case), world.second_analyst, ABANDONED, (409, "disposition_open")),
        (proposals(newer), world.second_analyst, ABANDONED, (409, "settled")),
        ("/api/v1/cases/nothing.here/dispositions", world.analyst, ABANDONED, (404, "case_not_found")),
        (
            "/api/v1/dispositions/gordackdisposition-0000000000000000/decisions",
            world.approver,
            {"state": "confirmed"},
            (404, "disposition_not_found"),
        ),
    ):
        answer = post(path, who, body)
        assert (answer.status_code, answer.json()["code"]) == expected, (path, answer.json())
    assert written() == before


def test_an_unknown_successor_is_named(world: World) -> None:
    (case,) = world.failed()
    body = {"kind": "superseded_by", "superseded_by": "gordackdelivery-00.webhook", "reason": "Newer."}
    answer = post(proposals(case), world.analyst, body)
    assert (answer.status_code, answer.json()["code"]) == (404, "case_not_found")
    assert list(answer.json()["errors"]) == ["superseded_by"]


def test_in_the_strict_profile_people_confirm_and_tokens_do_not(world: World, settings: LazySettings) -> None:
    settings.CAVRA_PROFILE = "strict"
    (case,) = world.failed()
    assert post(proposals(case), world.analyst, ABANDONED).status_code == 200
    found = Disposition.objects.get()
    by_token = post(decisions(found), world.approver, {"state": "confirmed"})
    assert (by_token.status_code, by_token.json()["code"]) == (403, "interactive_session_required")
    browser = Client()
    browser.force_login(world.approver)
    answer = browser.post(decisions(found), {"state": "confirmed"}, content_type="application/json")
    assert answer.status_code == 200
