"""Attesting over HTTP: by case or by execution, settled by the second who agrees (P3)."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from evidence.enums import CaseState, Role
from evidence.models import Case, Person
from recovery.enums import Seen
from recovery.models import Attestation, Execution
from tests.builders import World, person
from tests.endpoints import client, written


def by_case(case: Case) -> str:
    return f"/api/v1/cases/{case.case_id}/attestations"


def by_execution(execution: Execution) -> str:
    return f"/api/v1/executions/{execution.execution_id}/reconcile"


def attest(path: str, who: Person, seen: str = "not_delivered", **body: Any) -> Any:
    return client(who).post(path, {"seen": seen, "external_ref": "INC-4471", **body}, format="json")


def test_two_people_settle_a_case_by_either_address(world: World) -> None:
    execution = world.unknown().execution
    case = execution.case
    first = attest(by_case(case), world.approver, "Not-Delivered", attested_by="The Director").json()
    assert (first["attestation"]["seen"], first["attestation"]["as_approver"]) == ("not_delivered", True)
    assert (first["case"], first["case_state"]) == (case.case_id, "outcome_unknown")
    assert (first["reconciliation"], first["reconciliation_metadata"]) == (None, None)
    assert first["metadata"]["claimed_actor"] == "The Director"
    second = attest(by_execution(execution), world.second_analyst, notes="No such row.").json()
    assert (second["attestation"]["execution_id"], second["case_state"]) == (execution.execution_id, "failed")
    reconciled = second["reconciliation"]
    assert (reconciled["source"], reconciled["outcome"]) == ("attestation", "failed")
    assert (reconciled["may_have_arrived"], reconciled["attempt_no"]) == (False, 2)
    assert second["reconciliation_metadata"]["session_id"] == reconciled["reconciliation_id"]
    quoted = {one["id"] for one in second["reconciliation_metadata"]["references"]}
    assert {first["metadata"]["session_id"], second["metadata"]["session_id"]} < quoted
    case.refresh_from_db()
    assert case.state == CaseState.FAILED


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({"seen": "maybe"}, "seen"),
        ({"seen": None}, "seen"),
        ({"external_ref": ""}, "external_ref"),
        ({"external_ref": "https://tickets.example.com/INC-1"}, "external_ref"),
        ({"notes": "x" * 4_001}, "notes"),
        ({"outcome": "delivered"}, "outcome"),
    ),
)
def test_a_word_without_its_parts_is_refused(world: World, body: dict[str, Any], field: str) -> None:
    case = world.unknown().execution.case
    before = written()
    answer = client(world.approver).post(
        by_case(case), {"seen": "delivered", "external_ref": "INC-1", **body}, format="json"
    )
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert written() == before


def test_refusals_say_who_and_what(world: World) -> None:
    world.operator = person(Role.OPERATOR, Role.APPROVER)
    execution = world.unknown().execution
    before = written()
    own = attest(by_execution(execution), world.operator)
    assert (own.status_code, own.json()["code"]) == (403, "second_person_required")
    assert own.json()["reasons"] == [own.json()["detail"]]
    auditor = attest(by_case(execution.case), world.auditor)
    assert (auditor.status_code, auditor.json()["code"]) == (403, "role_required")
    nothing = attest("/api/v1/cases/nothing.here/attestations", world.approver)
    assert (nothing.status_code, nothing.json()["code"]) == (404, "case_not_found")
    nowhere = attest("/api/v1/executions/gordackretryexec-0000000000000000/reconcile", world.approver)
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "execution_not_found")
    assert written() == before


def test_an_execution_that_is_settled_takes_no_words_for_a_later_one(world: World) -> None:
    first = world.unknown().execution
    world.attested(first.case, Seen.NOT_DELIVERED, world.approver, world.analyst)
    settled = attest(by_execution(first), world.second_analyst)
    assert (settled.status_code, settled.json()["code"]) == (409, "not_unknown")
    assert settled.json()["case_state"] == "failed"
    later = world.unheard(world.taken(*world.approved())).execution
    assert later.case == first.case
    stale = attest(by_execution(first), world.second_analyst)
    assert (stale.status_code, stale.json()["code"]) == (409, "not_unknown")
    assert stale.json()["detail"] == "Not attested: it is attempt 3 whose outcome is unknown, not 2."
    assert attest(by_execution(later), world.second_analyst).status_code == 200
    assert Attestation.objects.filter(attempt_no=3).count() == 1


def test_in_the_strict_profile_people_attest_and_tokens_do_not(world: World, settings: LazySettings) -> None:
    settings.CAVRA_PROFILE = "strict"
    case = world.unknown().execution.case
    by_token = attest(by_case(case), world.approver)
    assert (by_token.status_code, by_token.json()["code"]) == (403, "interactive_session_required")
    browser = Client()
    browser.force_login(world.approver)
    body = {"seen": "delivered", "external_ref": "INC-1"}
    assert browser.post(by_case(case), body, content_type="application/json").status_code == 200
