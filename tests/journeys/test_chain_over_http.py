"""Journeys over the documented endpoints, by different people, against a receiver with its own log."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evidence.models import Attempt, Case, Record
from recovery.execution import outcomes
from recovery.models import ApprovalEntry, Execution
from tests.builders import World
from tests.http import A, B
from tests.journeys.conftest import Cast
from tests.processes import environment, wait_until
from tests.receiver import Receiver
from tests.recovery.checks import once_recorded

ROOT = Path(__file__).resolve().parents[2]


def audit_requests(cast: Cast, key: str = "webhook") -> int:
    """Audit deliveries that the receiver counted."""
    return sum(
        b"acknowledgement_audit_delivery" in one.body for one in cast.world.receiver.arrived(f"/{key}")
    )


def test_failed_delivery_becomes_a_resolved_recovery_by_four_people(cast: Cast) -> None:
    failed = cast.failed_delivery()
    (case,) = Case.objects.all()
    assert failed["delivery"]["deliveries"][0]["status_code"] == 503
    approval = cast.requested()
    (decision,) = cast.decide(approval)
    assert decision["decision"]["approval_state"] == "approved"
    run = cast.run()
    (result,) = run["retry_results"]
    assert result["skipped"] is None
    assert result["execution_record"]["execution_status"] == "delivered"
    playbook = cast.analyst.post(f"{A}/connector-recovery-playbook", {"min_failure_count": 1})["playbook"]
    closure = cast.second_analyst.post(
        f"{A}/connector-recovery-playbooks/{playbook['playbook_id']}/closures",
        {
            "provider": "webhook",
            "closure_state": "resolved",
            "verification_refs": [result["execution_record"]["execution_id"]],
            "external_ref": "CHG-789",
        },
    )["closure"]
    assert closure["closure_state"] == "resolved"
    shown = cast.auditor.get(f"/api/v1/cases/{case.case_id}")
    assert shown["state"] == "delivered"
    chain = cast.auditor.get(f"{B}?case={case.case_id}&include=all&limit=100")
    people = {item["signer"] for item in chain["items"]}
    world = cast.world
    assert {
        p.username for p in (world.analyst, world.second_analyst, world.approver, world.operator)
    } <= people
    dashboard = cast.auditor.get(f"{B}/dashboard")
    assert dashboard["acknowledgement_audit_delivery_health"] == "healthy"
    assert audit_requests(cast) == 2
    cast.in_order()


def test_denied_retry_sends_nothing_and_can_be_asked_for_again(cast: Cast) -> None:
    cast.failed_delivery()
    approval = cast.requested()
    cast.decide(approval, "denied")
    assert cast.run()["retry_results"] == []
    assert audit_requests(cast) == 1
    again = cast.analyst.post(f"{A}/retry-execution-approval-plan", {})["plan"]
    assert again["approval_decisions"][0]["entry_id"] != approval["approval_decisions"][0]["entry_id"]
    cast.decide(again)
    assert cast.run()["retry_results"][0]["execution_record"]["execution_status"] == "delivered"
    assert audit_requests(cast) == 2
    cast.in_order()


def test_dry_run_changes_nothing_at_the_receiver(cast: Cast) -> None:
    cast.failed_delivery()
    before = audit_requests(cast)
    cast.decide(cast.requested())
    answer = cast.analyst.post(
        f"{A}/worker-run", {"dry_run": True, "retry_policy": {"allow_immediate_retry": True}}
    )
    assert [result["skipped"] for result in answer["retry_results"]] == ["dry_run"]
    assert audit_requests(cast) == before
    assert Execution.objects.count() == 0
    assert ApprovalEntry.objects.get().state == "approved"
    cast.in_order()


def test_live_run_without_approval_sends_nothing(cast: Cast) -> None:
    cast.failed_delivery()
    cast.requested()
    answer = cast.run(retry_policy={"allow_immediate_retry": True})
    assert answer["retry_results"] == []
    assert answer["run"]["summary"]["approval_pending_count"] == 1
    assert audit_requests(cast) == 1
    cast.in_order()


def test_same_content_again_while_unsettled_is_refused(cast: Cast) -> None:
    failed = cast.failed_delivery()
    records = Record.objects.count()
    body = {"delivery_provider": "webhook", "retries": 0, "timeout_seconds": 5}
    refused = cast.analyst.post(A, body, expect=409)
    assert refused["code"] == "delivery_unsettled"
    assert refused["case"] == f"{failed['delivery_plan']['delivery_id']}.webhook"
    assert audit_requests(cast) == 1
    assert Record.objects.count() == records
    cast.in_order()


def test_two_approval_plans_never_give_two_approvals(cast: Cast) -> None:
    cast.failed_delivery()
    cast.acknowledged_plan()
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: cast.analyst.post(f"{A}/retry-execution-approval-plan", {}), range(8))
        )
    entries = {answer["plan"]["approval_decisions"][0]["entry_id"] for answer in answers}
    assert len(entries) == 1
    for answer in answers[:2]:
        plan = answer["plan"]
        entry = plan["approval_decisions"][0]
        body = {key: entry[key] for key in ("provider", "delivery_id", "audit_id")}
        path = f"{A}/retry-execution-approval-plans/{plan['approval_plan_id']}/decisions"
        cast.approver.post(path, body, expect=200 if answer is answers[0] else 409)
    cast.run()
    cast.run()
    assert audit_requests(cast) == 2
    cast.in_order()


def test_requester_cannot_approve_and_analyst_cannot_execute(cast: Cast) -> None:
    cast.failed_delivery()
    plan = cast.requested()
    (entry,) = plan["approval_decisions"]
    path = f"{A}/retry-execution-approval-plans/{plan['approval_plan_id']}/decisions"
    body = {key: entry[key] for key in ("provider", "delivery_id", "audit_id")}
    assert cast.analyst.post(path, body, expect=403)["code"] == "role_required"
    assert cast.analyst.post(f"{A}/worker-run", {"dry_run": False}, expect=403)["code"] == "role_required"
    cast.in_order()


@pytest.mark.race
def test_sixty_live_runs_at_once_send_one_request(cast: Cast) -> None:
    cast.failed_delivery()
    cast.decide(cast.requested())
    operator = cast.operator
    with ThreadPoolExecutor(60) as threads:
        answers = list(
            threads.map(lambda _: operator.call("POST", f"{A}/worker-run", {"dry_run": False}), range(60))
        )
    assert {answer.status for answer in answers} == {200}
    executed = [
        result
        for answer in answers
        for result in answer.json["retry_results"]
        if result["execution_record"] and result["execution_record"]["execution_status"] != "skipped"
    ]
    assert len(executed) == 1
    assert audit_requests(cast) == 2
    assert Execution.objects.count() == 1
    cast.in_order()


@pytest.fixture
def two_connectors(transactional_db: None, receiver: Receiver) -> World:
    return World(receiver, providers=("webhook", "slow"))


def test_slow_connector_does_not_slow_the_other(
    transactional_db: None, live_server: Any, two_connectors: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast(two_connectors, live_server.url)
    cast.failed_delivery()
    cast.decide(cast.requested())
    recorded = once_recorded(monkeypatch, "webhook", 1)
    two_connectors.receiver.behave("/slow", delay_s=5.0, until=recorded)
    run = cast.run(timeout_seconds=30)
    statuses = {r["execution_record"]["provider"]: r["execution_record"] for r in run["retry_results"]}
    assert {key: record["execution_status"] for key, record in statuses.items()} == {
        "webhook": "delivered",
        "slow": "delivered",
    }
    fast, slow = (Attempt.objects.get(case__connector__key=key, number=2) for key in ("webhook", "slow"))
    assert fast.completed_at < slow.completed_at
    assert slow.completed_at - slow.started_at >= timedelta(seconds=5)
    # Written as it arrived, not with the slow one.
    assert Execution.objects.get(case__connector__key="webhook").recorded_at < slow.completed_at
    cast.in_order()


def test_killed_worker_leaves_one_unknown_outcome_and_no_second_request(cast: Cast) -> None:
    cast.failed_delivery()
    cast.decide(cast.requested())
    cast.world.receiver.behave("/webhook", delay_s=20.0)
    queued = cast.run(background=True, timeout_seconds=30)
    assert queued["retry_results"] == []
    worker = subprocess.Popen(
        [sys.executable, "manage.py", "worker", "--once"],
        cwd=ROOT,
        env=environment(),
    )
    try:
        wait_until(lambda: audit_requests(cast) == 2)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    execution = Execution.objects.get()
    assert execution.state == "claimed"
    later = execution.lease_until + timedelta(seconds=1)
    assert outcomes.expire_leases(clock=lambda: later) == 1
    execution.refresh_from_db()
    assert (execution.state, execution.case.state) == ("outcome_unknown", "outcome_unknown")
    # Nothing sends it again: no plan, no run, no worker.
    plan = cast.analyst.post(f"{A}/retry-plan", {"retry_policy": {"allow_immediate_retry": True}})["plan"]
    assert [decision["action"] for decision in plan["retry_decisions"]] == ["suppress"]
    cast.run()
    subprocess.run(
        [sys.executable, "manage.py", "worker", "--once"],
        cwd=ROOT,
        env=environment(),
        check=True,
        timeout=120,
    )
    assert audit_requests(cast) == 2
    attempt = Attempt.objects.get(number=2)
    assert (attempt.outcome, attempt.may_have_arrived) == ("outcome_unknown", True)
    cast.in_order()
