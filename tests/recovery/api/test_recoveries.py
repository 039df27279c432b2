"""Playbooks and closures over HTTP (CONTRACT §7)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recovery.models import Recovery
from tests.builders import World
from tests.endpoints import client, written
from tests.http import A


@pytest.fixture
def delivered(world: World) -> World:
    """A failure that was retried with success."""
    world.failed()
    world.approved()
    world.ran()
    return world


def playbook(world: World) -> Any:
    body = {"min_failure_count": 1, "lookback_hours": 24}
    return (
        client(world.analyst).post(f"{A}/connector-recovery-playbook", body, format="json").json()["playbook"]
    )


def close(world: World, playbook_id: str, **body: Any) -> Any:
    path = f"{A}/connector-recovery-playbooks/{playbook_id}/closures"
    return client(world.second_analyst).post(path, {"provider": "webhook", **body}, format="json")


def executions(world: World) -> list[str]:
    items = client(world.auditor).get(
        "/evidence?metadata_kind=go-backend-rollback-drill-acknowledgement-audit-delivery-retry-execution-record"
    )
    return [item["execution_id"] for item in items.json()["items"]]


def test_a_playbook_describes_each_connector_in_trouble(delivered: World) -> None:
    document = playbook(delivered)
    (described,) = document["provider_playbooks"]
    assert (described["provider"], described["failure_count"], described["status_codes"]) == (
        "webhook",
        1,
        ["503"],
    )
    assert [step["text"] for step in described["steps"]] == described["recovery_steps"]


def test_resolved_is_earned_by_a_delivered_execution(delivered: World) -> None:
    document = playbook(delivered)
    before = written()
    empty = close(delivered, document["playbook_id"])
    assert (empty.status_code, empty.json()["code"]) == (409, "closure_requirements_missing")
    assert list(empty.json()["errors"]) == ["verification_refs"]
    made_up = close(
        delivered, document["playbook_id"], verification_refs=["gordackretryexec-0000000000000000"]
    )
    assert made_up.status_code == 409
    assert written() == before
    answer = close(
        delivered, document["playbook_id"], verification_refs=executions(delivered), external_ref="CHG:9"
    )
    assert answer.status_code == 200, answer.json()
    closure = answer.json()["closure"]
    assert closure["closure_state"] == "resolved"
    assert closure["closure_hash"] == answer.json()["metadata"]["record_hash"]
    assert Recovery.objects.get().state == "resolved"


def test_resolved_is_not_earned_while_a_case_is_unsettled(world: World) -> None:
    world.failed()
    answer = close(world, playbook(world)["playbook_id"], verification_refs=["x"])
    assert (answer.status_code, answer.json()["code"]) == (409, "closure_not_earned")
    assert set(answer.json()["errors"]) == {"cases", "verification_refs"}


def test_an_older_playbook_closes_nothing(delivered: World) -> None:
    old, new = playbook(delivered), playbook(delivered)
    answer = close(delivered, old["playbook_id"], closure_state="escalated", external_ref="INC:1")
    assert (answer.status_code, answer.json()["code"]) == (409, "playbook_superseded")
    assert answer.json()["playbook_id"] == new["playbook_id"]


@pytest.mark.parametrize(
    ("state", "missing"),
    (
        ("mitigated", {"owner", "review_at"}),
        ("deferred", {"owner", "review_at", "reason"}),
        ("escalated", {"external_ref"}),
        ("reopened", {"reason"}),
    ),
)
def test_each_outcome_names_what_it_needs(delivered: World, state: str, missing: set[str]) -> None:
    document = playbook(delivered)
    refused = close(delivered, document["playbook_id"], closure_state=state)
    assert (refused.status_code, refused.json()["code"]) == (409, "closure_requirements_missing")
    assert set(refused.json()["errors"]) == missing
    review_at = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    given = {"owner": "ops", "review_at": review_at, "reason": "because", "external_ref": "INC:1"}
    accepted = close(
        delivered, document["playbook_id"], closure_state=state, **{name: given[name] for name in missing}
    )
    assert accepted.status_code == (409 if state == "reopened" else 200), accepted.json()


def test_a_url_is_no_reference(delivered: World) -> None:
    answer = close(
        delivered,
        playbook(delivered)["playbook_id"],
        closure_state="escalated",
        external_ref="https://tickets.invalid/INC-1?token=s3cret",
    )
    assert answer.status_code == 400
    assert "SYSTEM:KEY" in answer.json()["detail"]
    assert "s3cret" not in answer.content.decode()
