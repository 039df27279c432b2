"""Retry plans, reviews, approval plans and votes over HTTP (CONTRACT §4, §5)."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from evidence import signed_in
from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Person
from recovery.enums import ApprovalState, EntryState
from recovery.models import ApprovalEntry, Vote
from tests.builders import World, person
from tests.endpoints import Prepared, client, written
from tests.http import A


@pytest.fixture
def failed(world: World) -> World:
    world.failed()
    return world


def plan(world: World, **body: Any) -> Any:
    return client(world.analyst).post(f"{A}/retry-plan", body, format="json")


def test_a_plan_decides_over_unsettled_cases(failed: World) -> None:
    answer = plan(failed, retry_policy={"allow_immediate_retry": True, "max_retries": 2}).json()
    (decision,) = answer["plan"]["retry_decisions"]
    assert (decision["action"], decision["retry_count"], decision["max_retry_attempts"]) == ("retry", 1, 2)
    assert answer["metadata"]["case"] == decision["case"]
    waiting = plan(failed).json()["plan"]["retry_decisions"][0]
    assert waiting["action"] == "wait"


def test_a_looser_policy_than_the_administrators_is_refused(failed: World) -> None:
    before = written()
    answer = plan(failed, retry_policy={"max_retry_attempts": 10, "retry_delay_minutes": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "policy_exceeds_limit")
    assert set(answer.json()["errors"]) == {"max_retry_attempts", "retry_delay_minutes"}
    assert written() == before


def test_named_cases_alone_are_planned_and_unknown_ones_refused(failed: World) -> None:
    case = plan(failed).json()["plan"]["retry_decisions"][0]["case"]
    assert plan(failed, cases=[case]).json()["plan"]["decision_count"] == 1
    assert plan(failed, cases=[]).json()["plan"]["decision_count"] == 0
    answer = plan(failed, cases=[case, "nothing.here"])
    assert answer.status_code == 404
    assert answer.json()["errors"] == {"cases": ["unknown: nothing.here"]}


def test_a_review_is_recorded_and_counts(failed: World) -> None:
    planned = plan(failed).json()["plan"]
    path = f"{A}/retry-plans/{planned['retry_plan_id']}/acknowledgements"
    answer = (
        client(failed.second_analyst)
        .post(path, {"provider": "WEBHOOK", "notes": "seen"}, format="json")
        .json()
    )
    assert answer["acknowledgement"]["acknowledgement_state"] == "accepted"
    assert answer["case"] == planned["retry_decisions"][0]["case"]
    asked = (
        client(failed.analyst).post(f"{A}/retry-execution-approval-plan", {}, format="json").json()["plan"]
    )
    assert asked["approval_decisions"][0]["action"] in ("request_approval", "wait_for_retry_window")
    assert asked["approval_decisions"][0]["manifest_digest"]


def test_without_a_review_approval_waits(failed: World) -> None:
    plan(failed)
    api = client(failed.analyst)
    waiting = api.post(f"{A}/retry-execution-approval-plan", {}, format="json").json()["plan"]
    assert waiting["approval_decisions"][0]["action"] == "wait_for_retry_ack"
    body = {"approval_policy": {"require_retry_ack": False}, "reason": "drill tonight"}
    asked = api.post(f"{A}/retry-execution-approval-plan", body, format="json").json()["plan"]
    assert asked["approval_decisions"][0]["entry_id"]
    assert asked["reason"] == "drill tonight"


def asked(ready: Prepared) -> ApprovalEntry:
    """The entry that waits for a decision."""
    entries = ApprovalEntry.objects.select_related("case__plan", "case__package", "connector", "plan")
    return entries.get(plan__approval_plan_id=ready.ids["approval_plan_id"])


def decide(ready: Prepared, person: Any, **body: Any) -> Any:
    entry = asked(ready)
    about = {
        "provider": entry.connector.key,
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
    }
    path = f"{A}/retry-execution-approval-plans/{entry.plan.approval_plan_id}/decisions"
    return client(person).post(path, {**about, **body}, format="json")


def test_a_vote_says_whether_the_digest_was_presented(ready: Prepared) -> None:
    digest = asked(ready).manifest_digest
    blind = decide(ready, ready.world.second_approver, approval_state="deferred").json()["decision"]
    assert (blind["digest_presented"], blind["manifest_digest"]) == (False, digest)
    shown = decide(
        ready, ready.world.approver, manifest_digest=digest.upper(), reason_code="planned", approved_by="x"
    ).json()
    assert shown["decision"]["digest_presented"] is True
    assert (shown["decision"]["entry_state"], shown["decision"]["reason_code"]) == ("approved", "planned")
    assert shown["case"] == shown["metadata"]["case"]
    assert "ignored_keys" not in shown


def test_a_vote_on_something_else_is_refused(ready: Prepared) -> None:
    approver = ready.world.approver
    before = written()
    other = decide(ready, approver, manifest_digest="0" * 64)
    assert (other.status_code, other.json()["code"]) == (409, "manifest_changed")
    plan_id = decide(ready, approver, retry_plan_id="gordackretry-0000000000000000")
    assert (plan_id.status_code, plan_id.json()["code"]) == (409, "retry_plan_mismatch")
    missing = decide(ready, approver, audit_id="")
    assert list(missing.json()["errors"]) == ["audit_id"]
    assert written() == before
    assert asked(ready).state == EntryState.PENDING


def test_the_requester_withdraws_by_denying_and_may_not_approve(ready: Prepared) -> None:
    requester = ready.world.analyst
    refused = decide(ready, requester, approval_state="approved")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    taken_back = decide(ready, requester, approval_state="denied").json()
    assert taken_back["decision"]["decided_by"] == requester.username
    assert asked(ready).state == EntryState.WITHDRAWN
    late = decide(ready, ready.world.approver)
    assert late.status_code == 409


def test_in_the_strict_profile_tokens_do_not_decide(ready: Prepared, settings: LazySettings) -> None:
    settings.CAVRA_PROFILE = "strict"
    digest = asked(ready).manifest_digest
    by_token = decide(ready, ready.world.approver, manifest_digest=digest)
    assert (by_token.status_code, by_token.json()["code"]) == (403, "interactive_session_required")
    browser = Client()
    browser.force_login(ready.world.approver)
    path = f"{A}/retry-execution-approval-plans/{ready.ids['approval_plan_id']}/decisions"
    entry = asked(ready)
    about = {
        "provider": "webhook",
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
    }
    unseen = browser.post(path, about, content_type="application/json")
    assert list(unseen.json()["errors"]) == ["manifest_digest"]
    seen = browser.post(path, {**about, "manifest_digest": digest}, content_type="application/json")
    assert seen.status_code == 200


@pytest.mark.parametrize("digest", ("0" * 63, "g" * 64, "0x" + "0" * 62, 1, ["0" * 64]))
def test_a_digest_that_is_none_is_refused_by_its_field(ready: Prepared, digest: Any) -> None:
    before = written()
    for answer in (
        decide(ready, ready.world.approver, manifest_digest=digest),
        renew(ready, ready.world.approver, manifest_digest=digest),
    ):
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["manifest_digest"])
    assert written() == before


def test_a_stale_digest_names_what_changed(ready: Prepared) -> None:
    world, old = ready.world, asked(ready)
    world.vote(old, ApprovalState.DENIED)
    row = old.connector
    row.headers = {"x-lane": "blue"}
    configuration.save(row, by=world.administrator, clock=world.clock)
    (new,) = (entry for entry in world.requested() if entry.case == old.case)
    about = {
        "provider": new.connector.key,
        "delivery_id": new.case.plan.delivery_id,
        "audit_id": new.case.package.audit_id,
        "manifest_digest": old.manifest_digest,
    }
    path = f"{A}/retry-execution-approval-plans/{new.plan.approval_plan_id}/decisions"
    stale = client(world.approver).post(path, about, format="json")
    assert (stale.status_code, stale.json()["code"]) == (409, "manifest_changed")
    assert {"connector_commitment", "headers"} <= set(stale.json()["changed_fields"])
    assert stale.json()["manifest_digest"] == new.manifest_digest


def test_a_vote_says_by_what_its_account_was_known(ready: Prepared) -> None:
    """A token knows no time; a session in a browser does."""
    by_token = decide(ready, ready.world.second_approver, approval_state="deferred").json()["decision"]
    assert (by_token["authenticated_by"], by_token["authenticated_at"]) == ("token", "")
    browser = Client()
    browser.force_login(ready.world.approver)
    path = f"/api/v1/approval-entries/{ready.ids['entry_id']}/renewals"
    by_session = browser.post(path, {}, content_type="application/json").json()["decision"]
    at = datetime.fromisoformat(by_session["authenticated_at"])
    assert by_session["authenticated_by"] == "session"
    assert at == datetime.fromisoformat(browser.session[signed_in.KEY]["at"])
    kept = Vote.objects.exclude(authenticated_by="").values_list("authenticated_by", "authenticated_at")
    assert set(kept) == {("token", None), ("session", at)}


def test_a_session_that_is_not_recent_signs_nothing(ready: Prepared) -> None:
    entry = asked(ready)
    about = {
        "provider": "webhook",
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
    }
    doors = (
        (f"{A}/retry-execution-approval-plans/{ready.ids['approval_plan_id']}/decisions", about),
        (f"/api/v1/approval-entries/{ready.ids['entry_id']}/renewals", {}),
    )
    browser = Client()
    browser.force_login(ready.world.approver)
    session = browser.session
    before = written()
    for minutes, known in ((16, True), (-16, True), (0, False)):
        at = system_clock() - timedelta(minutes=minutes)
        if known:
            session[signed_in.KEY] = {"by": "session", "at": at.isoformat()}
        else:
            session.pop(signed_in.KEY)
        session.save()
        for path, body in doors:
            answer = browser.post(path, body, content_type="application/json")
            assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_too_old")
            assert "Sign in again." in answer.json()["detail"]
    assert written() == before
    assert not Vote.objects.filter(entry=entry).exists()
    session[signed_in.KEY] = {"by": "password", "at": (system_clock() - timedelta(minutes=14)).isoformat()}
    session.save()
    for path, body in doors:
        assert browser.post(path, body, content_type="application/json").status_code == 200


# --- renewals -----------------------------------------------------------------------------------------------------


def renew(ready: Prepared, who: Person, **body: Any) -> Any:
    """Renew the entry that ran out."""
    path = f"/api/v1/approval-entries/{ready.ids['entry_id']}/renewals"
    return client(who).post(path, body, format="json")


def test_what_ran_out_is_renewed_with_one_vote(ready: Prepared) -> None:
    old = ApprovalEntry.objects.get(entry_id=ready.ids["entry_id"])
    digest = old.manifest_digest.upper()
    answer = renew(ready, ready.world.approver, manifest_digest=digest, notes="still right").json()
    new = ApprovalEntry.objects.get(renews=old)
    assert (new.state, new.requested_by) == (EntryState.APPROVED, old.requested_by)
    (listed,) = answer["plan"]["approval_decisions"]
    assert (listed["entry_id"], listed["renews"]) == (new.entry_id, old.entry_id)
    decision = answer["decision"]
    assert (decision["entry_id"], decision["digest_presented"]) == (new.entry_id, True)
    assert (decision["manifest_digest"], decision["notes"]) == (new.manifest_digest, "still right")
    assert answer["case"] == old.case.case_id
    again = renew(ready, ready.world.second_approver)
    assert (again.status_code, again.json()["code"]) == (409, "not_renewable")
    assert again.json()["detail"] == "Not renewed: approval was asked for again since."


def test_a_renewal_is_refused_with_the_reason(ready: Prepared) -> None:
    approver = ready.world.approver
    before = written()
    role = renew(ready, ready.world.analyst)
    assert (role.status_code, role.json()["code"]) == (403, "role_required")
    other = renew(ready, approver, manifest_digest="0" * 64)
    assert (other.status_code, other.json()["code"]) == (409, "manifest_changed")
    path = f"/api/v1/approval-entries/{asked(ready).entry_id}/renewals"
    pending = client(approver).post(path, {}, format="json")
    assert (pending.status_code, pending.json()["code"]) == (409, "not_renewable")
    nowhere = client(approver).post("/api/v1/approval-entries/x/renewals", {}, format="json")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "entry_not_found")
    young = renew(ready, person(Role.APPROVER))
    assert (young.status_code, young.json()["code"]) == (403, "second_person_required")
    assert written() == before


def test_in_the_strict_profile_renewals_are_bound_as_votes_are(
    ready: Prepared, settings: LazySettings
) -> None:
    settings.CAVRA_PROFILE = "strict"
    by_token = renew(ready, ready.world.approver)
    assert (by_token.status_code, by_token.json()["code"]) == (403, "interactive_session_required")
    browser = Client()
    browser.force_login(ready.world.approver)
    path = f"/api/v1/approval-entries/{ready.ids['entry_id']}/renewals"
    unseen = browser.post(path, {}, content_type="application/json")
    assert (unseen.status_code, list(unseen.json()["errors"])) == (400, ["manifest_digest"])
    digest = ApprovalEntry.objects.get(entry_id=ready.ids["entry_id"]).manifest_digest
    assert browser.post(path, {"manifest_digest": digest}, content_type="application/json").status_code == 200
