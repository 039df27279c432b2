"""Worker runs, their lists and dashboards over HTTP (CONTRACT §6, §9)."""

from typing import Any

import pytest

from evidence.documents import KINDS
from evidence.enums import Role
from recovery.api.dashboard_views import Dashboard
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.builders import World, connector, person
from tests.endpoints import client
from tests.http import A, B
from tests.recovery.checks import nobody_listens

IMMEDIATE = {"allow_immediate_retry": True}


def run(world: World, **body: Any) -> Any:
    answer = client(world.operator).post(f"{A}/worker-run", body, format="json")
    assert answer.status_code == 200, answer.json()
    return answer.json()


@pytest.fixture
def failed(world: World) -> World:
    world.failed()
    return world


def test_a_run_is_dry_unless_told_otherwise(failed: World) -> None:
    failed.approved()
    sent = len(failed.receiver.arrived("/webhook"))
    answer = run(failed, retry_policy=IMMEDIATE)
    (result,) = answer["retry_results"]
    assert (result["skipped"], result["delivery"], result["execution_record"]) == ("dry_run", None, None)
    assert result["delivery_plan"]["delivery_id"] == result["decision"]["delivery_id"]
    assert answer["run"]["dry_run"] is True
    assert answer["run_state"] == "finished"
    assert answer["retry_metadata"]["observation"] is True
    assert len(failed.receiver.arrived("/webhook")) == sent
    assert Execution.objects.count() == 0


def test_a_live_run_executes_the_approved_entry_and_shows_every_document(failed: World) -> None:
    failed.approved()
    answer = run(
        failed,
        dry_run=False,
        schedule={"interval_minutes": 30, "cadence": "manual_retry"},
        timeout_seconds=0.1,
    )
    (result,) = answer["retry_results"]
    record = result["execution_record"]
    assert (record["execution_status"], result["skipped"]) == ("delivered", None)
    assert record["delivery_plan_id"] == record["delivery_id"] == result["delivery_plan"]["delivery_id"]
    assert record["delivery_metadata_id"] == result["delivery_metadata"]["session_id"]
    assert result["case"] == result["execution_metadata"]["case"] == result["decision"]["case"]
    assert answer["run"]["schedule"]["cadence"] == "manual_retry"
    auditor = client(failed.auditor)
    for name in ("execution_metadata", "delivery_metadata", "plan_metadata"):
        assert result[name] == auditor.get(f"/evidence/{result[name]['session_id']}").json()
    assert run(failed, execute=True)["retry_results"] == []


def test_a_skip_says_why_and_uses_nothing_up(failed: World) -> None:
    failed.approved(policy={})
    (result,) = run(failed, dry_run=False)["retry_results"]
    assert result["skipped"] == result["execution_record"]["skipped"] == "retry_window_not_open"
    assert result["skip_reason"]
    assert result["delivery"] is None
    (again,) = run(failed, dry_run=False)["retry_results"]
    assert (again["skipped"], again["execution_record"]) == ("retry_window_not_open", None)
    assert ApprovalEntry.objects.get().state == "approved"
    lifted = run(failed, dry_run=False, retry_policy=IMMEDIATE)["retry_results"]
    assert lifted[0]["execution_record"]["execution_status"] == "delivered"


def test_a_run_for_the_worker_is_left_to_it(failed: World) -> None:
    failed.approved()
    answer = run(failed, dry_run=False, background=True)
    assert (answer["run_state"], answer["retry_results"]) == ("queued", [])
    assert WorkerRun.objects.get().state == "queued"


def test_cases_and_providers_narrow_a_run(failed: World) -> None:
    (entry,) = failed.approved()
    connector("elsewhere", failed.receiver.url("/elsewhere"))
    assert run(failed, dry_run=False, provider="elsewhere")["retry_results"] == []
    nowhere = client(failed.operator).post(f"{A}/worker-run", {"provider": "nowhere"}, format="json")
    assert (nowhere.status_code, nowhere.json()["code"]) == (409, "connector_not_configured")
    assert run(failed, dry_run=False, cases=[])["retry_results"] == []
    unknown = client(failed.operator).post(f"{A}/worker-run", {"cases": ["x.y"]}, format="json")
    assert (unknown.status_code, list(unknown.json()["errors"])) == (404, ["cases"])
    assert len(run(failed, dry_run=False, cases=[entry.case.case_id])["retry_results"]) == 1


@pytest.mark.parametrize("amount", (0, 26, True, "5"))
def test_a_run_sends_one_to_twenty_five(world: World, amount: Any) -> None:
    answer = client(world.operator).post(f"{A}/worker-run", {"max_retry_deliveries": amount}, format="json")
    assert list(answer.json()["errors"]) == ["max_retry_deliveries"]


def test_who_may_only_run_dry_is_told_so_before_any_fault_of_shape(world: World) -> None:
    analyst = client(world.analyst)
    for body in ({"dry_run": False, "colour": 1}, {"execute": True, "retries": "x"}):
        answer = analyst.post(f"{A}/worker-run", body, format="json")
        assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
    for body, wrong in (
        ({"dry_run": True, "colour": 1}, "colour"),
        ({"dry_run": 0}, "dry_run"),
        ({"dry_run": True, "execute": True}, "execute"),
    ):
        answer = analyst.post(f"{A}/worker-run", body, format="json")
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [wrong])
    shape = client(world.operator).post(f"{A}/worker-run", {"dry_run": False, "colour": 1}, format="json")
    assert (shape.status_code, shape.json()["code"]) == (400, "unknown_keys")


def test_runs_are_listed_newest_first_and_by_kind_of_run(failed: World) -> None:
    first, second = run(failed)["run"], run(failed, dry_run=False)["run"]
    auditor = client(failed.auditor)
    listed = auditor.get(f"{A}/worker-runs").json()
    assert listed["schema_version"].endswith("worker-history.v1")
    assert [item["run_id"] for item in listed["items"]] == [second["run_id"], first["run_id"]]
    assert listed["total"] == 2
    dry = auditor.get(f"{A}/worker-runs?dry_run=true&limit=1").json()
    assert [item["run_id"] for item in dry["items"]] == [first["run_id"]]
    assert auditor.get(f"{A}/worker-runs?dry_run=maybe").status_code == 400
    assert client(person(Role.VIEWER)).get(f"{A}/worker-runs").status_code == 403


def test_the_worker_dashboard_counts_runs(failed: World) -> None:
    run(failed)
    run(failed, dry_run=False)
    numbers = client(failed.auditor).get(f"{A}/worker-dashboard").json()
    assert (numbers["run_count"], numbers["dry_run_count"], numbers["executed_count"]) == (2, 1, 1)
    assert len(numbers["latest"]) == 2


def test_a_try_of_which_nothing_left_is_no_failed_retry(two: World) -> None:
    two.failed()
    nobody_listens("backup")
    two.approved()
    two.receiver.behave("/webhook", status=503)
    two.ran()
    states = dict(Execution.objects.values_list("case__connector__key", "state"))
    assert states == {"webhook": "failed", "backup": "not_sent"}
    numbers = client(two.auditor).get(f"{B}/dashboard").json()
    of_retries = "acknowledgement_audit_delivery_retry_execution_"
    assert numbers[f"{of_retries}record_count"] == 2
    assert numbers[f"{of_retries}failed_count"] == 1


def test_the_dashboard_is_described_completely(failed: World) -> None:
    numbers = client(failed.auditor).get(f"{B}/dashboard").json()
    assert set(numbers) == set(Dashboard.answer.fields)
    assert numbers["acknowledgement_audit_delivery_health"] == "critical"


@pytest.mark.parametrize("path", (f"{B}/dashboard", f"{A}/worker-dashboard"))
def test_p22_viewers_see_numbers_and_no_documents(failed: World, path: str) -> None:
    run(failed)
    shown = client(person(Role.VIEWER)).get(path).json()["latest"]
    assert shown
    for item in shown:
        assert KINDS[item["metadata_kind"]].payload_key not in item
        assert item["record_hash"]
    assert all(
        KINDS[item["metadata_kind"]].payload_key in item
        for item in client(failed.auditor).get(path).json()["latest"]
    )
