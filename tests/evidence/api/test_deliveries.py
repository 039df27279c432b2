"""Audit packages and their delivery over HTTP (CONTRACT §3)."""

from typing import Any

import pytest

from evidence.documents import AUDIT_PACKAGE, CONNECTOR_DELIVERY, DELIVERY_PLAN, DELIVERY_STREAM
from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.models import Case, Connector, Record
from tests.builders import World, connector
from tests.endpoints import client, written
from tests.http import A, B

PACKAGE = f"{B}/acknowledgements/audit-package"
ONCE = {"retries": 0, "timeout_seconds": 5}


@pytest.fixture
def api(world: World) -> Any:
    world.announced()
    world.acknowledged()
    return client(world.analyst)


def test_the_same_content_again_is_the_same_package(world: World, api: Any) -> None:
    first = api.post(PACKAGE, {"provider": "all"}, format="json").json()
    again = api.post(PACKAGE, {}, format="json").json()
    assert (first["existing"], again["existing"]) == (False, True)
    assert first["metadata"] == again["metadata"]
    assert first["audit_package"]["route_count"] == 2
    assert first["metadata"] == api.get(f"/evidence/{first['audit_package']['audit_id']}").json()


def test_a_package_of_an_unknown_schedule_is_refused(world: World, api: Any) -> None:
    before = written()
    answer = api.post(PACKAGE, {"schedule_id": "no-such"}, format="json")
    assert answer.status_code == 404
    assert list(answer.json()["errors"]) == ["schedule_id"]
    assert written() == before


def test_delivering_answers_with_every_document_and_its_case(world: World, api: Any) -> None:
    since = Record.objects.count()
    answer = api.post(A, {**ONCE, "cadence": "hourly", "schedule_ref": "r-1"}, format="json").json()
    assert list(Record.objects.filter(index__gte=since).order_by("index").values_list("kind", flat=True)) == [
        AUDIT_PACKAGE.name,
        DELIVERY_PLAN.name,
        DELIVERY_STREAM.name,
        CONNECTOR_DELIVERY.name,
    ]
    assert answer["success"] is True
    case = f"{answer['delivery_plan']['delivery_id']}.webhook"
    assert (answer["case"], answer["cases"]) == (case, [{"case": case, "state": "delivered"}])
    assert answer["metadata"]["case"] == case
    assert answer["plan_metadata"]["case"] == case
    assert (answer["held"], answer["unsettled_cases"]) == ([], [])
    assert answer["delivery_plan"]["cadence"] == "hourly"
    assert answer["delivery_plan"]["audit_hash"] == answer["audit_metadata"]["record_hash"]
    for name in ("audit_metadata", "plan_metadata", "metadata"):
        assert answer[name] == api.get(f"/evidence/{answer[name]['session_id']}").json()
    (entry,) = answer["delivery"]["deliveries"]
    assert (entry["answer"], entry["assurance"], entry["may_have_arrived"]) == ("answered", "accepted", True)


def test_p01_unsettled_content_is_held_and_free_connectors_are_served(world: World, api: Any) -> None:
    connector("second", world.receiver.url("/second"))
    world.receiver.behave("/webhook", status=503)
    failed = api.post(A, {**ONCE, "delivery_provider": "webhook"}, format="json").json()
    assert failed["success"] is False
    again = api.post(A, {**ONCE, "delivery_provider": "webhook"}, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "delivery_unsettled")
    assert again.json()["case"] == failed["case"]
    both = api.post(A, ONCE, format="json").json()
    assert [case["case"].rpartition(".")[2] for case in both["cases"]] == ["second"]
    assert both["held"] == [{"provider": "webhook", "case": failed["case"], "code": "delivery_unsettled"}]
    assert len(world.receiver.arrived("/second")) == 1


def test_changed_content_is_delivered_and_names_unsettled_cases(world: World, api: Any) -> None:
    world.receiver.behave("/webhook", status=503)
    failed = api.post(A, ONCE, format="json").json()
    world.acknowledged()
    world.receiver.behave("/webhook", status=200)
    changed = api.post(A, ONCE, format="json").json()
    assert changed["success"] is True
    assert changed["unsettled_cases"] == [failed["case"]]


def test_delivery_provider_defaults_to_provider(world: World, api: Any) -> None:
    connector("second", world.receiver.url("/second"))
    answer = api.post(A, {**ONCE, "provider": "webhook"}, format="json").json()
    assert answer["delivery_plan"]["selected_providers"] == ["webhook"]
    assert answer["delivery_plan"]["filters"]["provider"] == "webhook"


@pytest.mark.parametrize(
    ("named", "code"), (("nowhere", "connector_not_configured"), ("asleep", "connector_disabled"))
)
def test_p16_a_connector_that_cannot_be_used_is_an_answer(
    world: World, api: Any, named: str, code: str
) -> None:
    connector("asleep", world.receiver.url("/asleep"), enabled=False)
    before = written()
    answer = api.post(A, {**ONCE, "delivery_provider": f"webhook,{named}"}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert written() == before
    assert Case.objects.count() == 0


def test_all_means_the_enabled_connectors(world: World, api: Any) -> None:
    connector("asleep", world.receiver.url("/asleep"), enabled=False)
    answer = api.post(A, {**ONCE, "delivery_provider": "all"}, format="json").json()
    assert answer["delivery_plan"]["selected_providers"] == ["webhook"]


def test_a_paused_connector_gets_nothing_and_nothing_is_written(world: World, api: Any) -> None:
    configuration.pause("webhook", reason="maintenance", by=world.administrator, clock=system_clock)
    before = written()
    answer = api.post(A, ONCE, format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "sending_paused")
    assert written() == before


def test_without_any_connector_nothing_is_frozen(world: World, api: Any) -> None:
    Connector.objects.all().delete()
    before = written()
    answer = api.post(A, {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "connector_config_not_loaded")
    assert written() == before
