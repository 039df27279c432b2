"""What the service says about itself, and answers outside the views."""

from typing import Any

import pytest
from django.core.exceptions import SuspiciousOperation
from django.db import DataError, OperationalError
from django.test import Client, RequestFactory

from cavra_site import problems
from evidence import guards
from evidence.domain import heartbeats
from evidence.domain.clock import system_clock
from evidence.enums import Role
from tests.builders import World, connector, person
from tests.endpoints import client, served
from tests.http import A, B


def test_config_lists_exactly_what_is_served(db: None) -> None:
    config = client(person(Role.VIEWER)).get("/console/config").json()
    assert config["endpoints"]["go_rollback_drill_notifications"] == f"{B}/deliver"
    prefix = "go_rollback_drill_notification_acknowledgement_audit_delivery"
    assert config["endpoints"][f"{prefix}_retry_execution_approval_decide"] == (
        f"{A}/retry-execution-approval-plans/{{approval_plan_id}}/decisions"
    )
    assert set(config["endpoints"].values()) == {
        one.path for one in served() if one.path.startswith("/runtime/")
    }
    assert config["metadata_mode"] in ("sqlite", "postgresql")
    assert config["connector_delivery"] == "disabled"


def test_config_tells_whether_anything_can_be_delivered(world: World) -> None:
    assert client(world.auditor).get("/console/config").json()["connector_delivery"] == "configured"


def test_healthz_answers_anybody() -> None:
    answer = Client().get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_waits_for_a_worker_and_names_no_more_than_checks(db: None) -> None:
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not_ready",
        "checks": {"database": "ok", "guards": "ok", "worker": "failed", "clock": "ok", "ledger": "ok"},
    }
    heartbeats.beat("secret-host:1", clock=system_clock)
    answer = Client().get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert "secret-host" not in answer.content.decode()


def test_readyz_notices_a_missing_guard(transactional_db: None) -> None:
    heartbeats.beat("w", clock=system_clock)
    guards.drop()
    try:
        answer = Client().get("/readyz")
    finally:
        guards.install()
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks == {"database": "ok", "guards": "failed", "worker": "ok", "clock": "ok", "ledger": "ok"}


def test_readyz_answers_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection to host db-internal failed")

    for name in (
        "evidence.domain.health.LedgerHead.objects.exists",
        "evidence.domain.health.guards.differences",
    ):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("evidence.domain.health.heartbeats.alive", refuse)
    monkeypatch.setattr("evidence.domain.health.clocks.reasons_against_live", refuse)
    monkeypatch.setattr("evidence.domain.health.live.LogState.read", refuse)
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()["checks"].values()) == {"failed"}
    assert "db-internal" not in answer.content.decode()


def test_the_schema_describes_every_documented_endpoint(db: None) -> None:
    answer = client(person(Role.AUDITOR)).get("/api/schema", HTTP_ACCEPT="application/vnd.oai.openapi+json")
    described = answer.json()["paths"]
    expected = {
        one.path
        for one in served()
        if one.path.startswith(("/runtime/", "/api/v1/", "/evidence", "/console/config"))
        and "(?" not in one.path
    }
    assert expected <= set(described)
    body = described[f"{A}/worker-run"]["post"]["requestBody"]["content"]
    assert list(body) == ["application/json"]
    assert answer.json()["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_the_docs_are_for_people_with_a_role(db: None) -> None:
    browser = Client()
    assert browser.get("/api/docs")["Location"] == "/accounts/login/?next=/api/docs"
    browser.force_login(person())
    assert browser.get("/api/docs").status_code == 403
    browser.force_login(person(Role.VIEWER))
    answer = browser.get("/api/docs")
    assert answer.status_code == 200
    assert "<style" not in answer.content.decode()
    assert "'unsafe" not in answer["Content-Security-Policy"]


def test_methods_that_are_not_served_are_405_in_json(db: None) -> None:
    answer = client(person(Role.ANALYST)).get(f"{B}/deliver")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer["Allow"] == "POST"


@pytest.mark.parametrize("query", ("limit=%00", "%00=1", "q=a%00b"))
def test_nul_in_a_query_is_refused(db: None, query: str) -> None:
    answer = client(person(Role.AUDITOR)).get(f"{B}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_text")


def test_answers_are_json_whatever_accept_says(db: None) -> None:
    api = client(person(Role.AUDITOR))
    for accept in ("text/html", "*/*", "", "nonsense", "application/xml;q=x"):
        answer = api.get("/console/config", HTTP_ACCEPT=accept)
        assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    (
        (DataError("value too long: secret"), 400, "invalid"),
        (OverflowError("Python int too large"), 400, "invalid"),
        (RecursionError("deep"), 400, "invalid"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), 400, "invalid"),
        (SuspiciousOperation("secret"), 400, "bad_request"),
        (OperationalError("database is locked"), 503, "database_unavailable"),
    ),
)
def test_errors_below_the_views_are_answers_without_their_text(
    error: Exception, status: int, code: str
) -> None:
    answer = problems.exception_handler(error, {})
    assert answer is not None
    assert (answer.status_code, answer.data["code"]) == (status, code)
    assert str(error) not in answer.data["detail"]


def test_faults_of_ours_stay_500s() -> None:
    assert problems.exception_handler(KeyError("x"), {}) is None


@pytest.mark.parametrize(
    ("path", "json"),
    (("/runtime/x", True), ("/api/v1/cases", True), ("/console/config", True), ("/console/", False)),
)
def test_djangos_own_answers_are_json_for_clients_of_the_api(path: str, json: bool) -> None:
    request = RequestFactory().get(path)
    for handler in (problems.handler400, problems.handler403, problems.handler404):
        answer = handler(request, Exception("secret"))
        assert (answer["Content-Type"] == "application/json") is json
        if json:
            assert b"secret" not in answer.content
    answer = problems.handler500(request)
    assert answer.status_code == 500
    assert (answer["Content-Type"] == "application/json") is json


def test_a_wrong_host_is_a_400_in_json(db: None) -> None:
    answer = Client(raise_request_exception=False).get("/api/v1/cases", headers={"host": "evil.example"})
    assert answer.status_code == 400


def test_large_numbers_of_fields_are_no_500(world: World) -> None:
    connector("second", world.receiver.url("/second"))
    query = "&".join(f"f{n}=1" for n in range(5_000))
    answer = client(world.auditor).get(f"{B}?{query}")
    assert answer.status_code == 400
