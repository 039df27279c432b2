"""Retry plans, reviews, approval plans and votes over HTTP (CONTRACT §4, §5)."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from recovery.enums import EntryState
from recovery.models import ApprovalEntry
from tests.builders import World
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
