"""Telling owners and their answers over HTTP (CONTRACT §2)."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings

from evidence.documents import CONNECTOR_DELIVERY, NOTIFICATION_ACK, NOTIFICATION_PLAN
from evidence.enums import Role
from evidence.models import Connector, Record, Route
from tests.builders import World, connector, person, schedule
from tests.endpoints import client, written
from tests.http import B


def kinds(since: int) -> list[str]:
    return list(Record.objects.filter(index__gte=since).order_by("index").values_list("kind", flat=True))


@pytest.fixture
def api(world: World) -> Any:
    return client(world.analyst)


def test_announcing_tells_the_owners_and_answers_with_plan_and_delivery(world: World, api: Any) -> None:
    since = Record.objects.count()
    answer = api.post(f"{B}/deliver", {"retries": 0, "generated_by": "console"}, format="json").json()
    assert kinds(since) == [NOTIFICATION_PLAN.name, CONNECTOR_DELIVERY.name]
    assert answer["success"] is True
    assert answer["schedule"]["status"] == "needs_attention"
    assert answer["plan"]["selected_providers"] == ["webhook"]
    assert answer["event_id"] == answer["plan"]["plan_id"] == answer["delivery"]["event_id"]
    assert answer["plan_metadata"]["plan"] == answer["plan"]
    assert answer["metadata"]["delivery"] == answer["delivery"]
    assert answer["delivery"]["deliveries"][0]["request"]["url"] == "connector://webhook"
    assert answer["plan_metadata"] == api.get(f"/evidence/{answer['event_id']}").json()
    assert len(world.receiver.arrived("/webhook")) == 1


def test_a_healthy_schedule_is_told_only_by_force(world: World, api: Any) -> None:
    row = world.schedule
    row.next_due_at += timedelta(days=365)
    row.save()
    quiet = api.post(f"{B}/deliver", {}, format="json").json()
    assert (quiet["delivery"], quiet["metadata"], quiet["success"]) == (None, None, True)
    assert world.receiver.arrived("/webhook") == []
    told = api.post(f"{B}/deliver", {"force": True, "retries": 0}, format="json").json()
    assert told["delivery"]["success"] is True


def test_a_failed_notice_is_no_success_and_no_case(world: World, api: Any) -> None:
    world.receiver.behave("/webhook", status=500)
    answer = api.post(f"{B}/deliver", {"retries": 0}, format="json").json()
    assert answer["success"] is False
    assert answer["metadata"]["failed_providers"] == ["webhook"]


def test_a_routing_policy_is_laid_over_the_schedule(world: World, api: Any) -> None:
    policy = {
        "owner_routes": {"payments-platform": {"acknowledgement_minutes": 5, "escalation_owner": "cto"}},
        "maintenance_windows": [
            {
                "window_id": "w1",
                "start_at": "2026-01-01T00:00:00Z",
                "end_at": "2036-01-01T00:00:00Z",
                "owners": ["release-governance"],
                "reason": "move",
            }
        ],
    }
    answer = api.post(f"{B}/deliver", {"routing_policy": policy, "retries": 0}, format="json").json()
    routes = {route["owner"]: route for route in answer["plan"]["route_decisions"]}
    assert routes["payments-platform"]["acknowledgement_minutes"] == 5
    assert routes["payments-platform"]["escalation_owner"] == "cto"
    assert routes["release-governance"]["action"] == "suppress"
    assert answer["plan"]["maintenance_suppressed_count"] == 1


def test_a_wrong_routing_policy_is_refused_by_field(world: World, api: Any) -> None:
    before = written()
    policy = {"maintenance_windows": [{"start_at": "yesterday", "end_at": "2036-01-01T00:00:00Z"}]}
    answer = api.post(f"{B}/deliver", {"routing_policy": policy}, format="json")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["routing_policy.maintenance_windows.0.start_at"]
    assert written() == before


def test_unknown_keys_of_a_routing_policy_are_named(world: World, api: Any, settings: LazySettings) -> None:
    policy = {
        "zz": 1,
        "owner_routes": {"payments-platform": {"ack_minutes": 5.0, "colour": None}},
        "maintenance_windows": [
            {"start_at": "2026-01-01T00:00:00Z", "end_at": "2026-01-02T00:00:00Z", "color": 1}
        ],
    }
    body = {"routing_policy": policy, "retries": 0, "colour": 1}
    inside = [
        "routing_policy.zz",
        "routing_policy.owner_routes.payments-platform.colour",
        "routing_policy.maintenance_windows.0.color",
    ]
    answer = api.post(f"{B}/deliver", body, format="json").json()
    assert sorted(answer["ignored_keys"]) == sorted(["colour", *inside])
    settings.CAVRA_PROFILE = "strict"
    before = written()
    del body["colour"]
    refused = api.post(f"{B}/deliver", body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_keys")
    assert sorted(refused.json()["errors"]) == sorted(inside)
    assert written() == before


@pytest.mark.django_db
def test_without_any_connector_there_is_nothing_to_tell_with() -> None:
    """Said before anything is looked for: neither is there a schedule."""
    assert not Connector.objects.exists()
    for body in ({}, {"schedule_id": "nowhere"}):
        answer = client(person(Role.ANALYST)).post(f"{B}/deliver", body, format="json")
        assert (answer.status_code, answer.json()["code"]) == (400, "connector_config_not_loaded")


def test_several_schedules_have_to_be_told_apart(world: World, api: Any) -> None:
    schedule("ledger-weekly")
    answer = api.post(f"{B}/deliver", {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "ambiguous_schedule")
    assert set(answer.json()["schedules"]) == {"ledger-weekly", world.schedule.schedule_id}
    named = api.post(f"{B}/deliver", {"schedule_id": "ledger-weekly", "retries": 0}, format="json")
    assert named.json()["plan"]["schedule_id"] == "ledger-weekly"
    unknown = api.post(f"{B}/deliver", {"schedule_id": "no-such"}, format="json")
    assert unknown.status_code == 404
    assert "schedule_id" in unknown.json()["errors"]


@pytest.mark.parametrize(
    ("named", "code"), (("nowhere", "connector_not_configured"), ("asleep", "connector_disabled"))
)
def test_p16_a_connector_that_cannot_be_used_is_an_answer(
    world: World, api: Any, named: str, code: str
) -> None:
    connector("asleep", world.receiver.url("/asleep"), enabled=False)
    before = written()
    answer = api.post(f"{B}/deliver", {"provider": f"webhook,{named}"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert written() == before
    assert world.receiver.arrived("/webhook") == []


def test_without_any_connector_nothing_can_be_told(world: World, api: Any) -> None:
    Connector.objects.all().delete()
    answer = api.post(f"{B}/deliver", {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "connector_config_not_loaded")


def test_acknowledging_answers_the_routes(world: World, api: Any) -> None:
    plan_id = world.announced()
    since = Record.objects.count()
    path = f"{B}/{world.schedule.schedule_id}/acknowledgements"
    body = {
        "provider": "Webhook",
        "acknowledgement_state": "Resolved",
        "notes": "read\nagain",
        "external_ref": "CHG:7",
    }
    answer = api.post(path, body, format="json").json()
    assert kinds(since) == [NOTIFICATION_ACK.name]
    ack = answer["acknowledgement"]
    assert (ack["plan_id"], ack["acknowledgement_state"]) == (plan_id, "resolved")
    assert (ack["notes"], ack["external_ref"]) == ("read\nagain", "CHG:7")
    assert answer["metadata"]["acknowledgement"] == ack
    assert set(Route.objects.values_list("acknowledgement_state", flat=True)) == {"resolved"}


def test_acknowledging_what_was_never_told_is_a_404_with_its_field(world: World, api: Any) -> None:
    path = f"{B}/{world.schedule.schedule_id}/acknowledgements"
    answer = api.post(path, {"provider": "webhook"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
    assert list(answer.json()["errors"]) == ["provider"]


def test_bulk_answers_all_routes_or_none(world: World, api: Any) -> None:
    world.announced()
    route = {"schedule_id": world.schedule.schedule_id, "provider": "webhook"}
    before = written()
    half = api.post(
        f"{B}/acknowledgements/bulk", {"routes": [route, {**route, "provider": "elsewhere"}]}, format="json"
    )
    assert half.status_code == 404
    assert list(half.json()["errors"]) == ["routes.1"]
    assert written() == before
    whole = api.post(
        f"{B}/acknowledgements/bulk",
        {
            "routes": [route, {**route, "notes": "own"}],
            "notes": "shared",
            "acknowledgement_state": "escalated",
        },
        format="json",
    ).json()
    assert [ack["notes"] for ack in whole["acknowledgements"]] == ["shared", "own"]
    assert whole["acknowledgement_count"] == 2
    assert whole["acknowledgement_state"] == "escalated"
    assert whole["bulk_id"] == f"gordbulkack-2-{whole['acknowledgements'][0]['acknowledgement_id']}"
    assert whole["schema_version"] == "cavra.go-backend-pilot.rollback-drill-bulk-acknowledgement.v1"
    assert written() == before + 2


@pytest.mark.parametrize(
    "routes", (None, [], [{}], [1], "x", {}, [{"schedule_id": "s", "provider": "p"}] * 101)
)
def test_bulk_needs_one_to_a_hundred_routes(world: World, api: Any, routes: Any) -> None:
    answer = api.post(f"{B}/acknowledgements/bulk", {"routes": routes}, format="json")
    assert answer.status_code == 400
    assert all(path.startswith("routes") for path in answer.json()["errors"])
