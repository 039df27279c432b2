"""Audit packages and their delivery over HTTP (CONTRACT §3)."""

import threading
from typing import Any

import pytest

from evidence.documents import AUDIT_PACKAGE, CONNECTOR_DELIVERY, DELIVERY_PLAN, DELIVERY_STREAM
from evidence.domain import configuration
from evidence.domain.clock import system_clock
from evidence.models import Case, Connector, Record
from tests.builders import World, connector
from tests.endpoints import client, written
from tests.http import A, B
from tests.processes import wait_until

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


@pytest.mark.parametrize("address", (A, B))
@pytest.mark.parametrize(
    ("sent", "field"),
    (
        ({"retries": 6}, "retries"),
        ({"retries": 10**9}, "retries"),
        ({"retries": -1}, "retries"),
        ({"retries": 1.5}, "retries"),
        ({"retries": True}, "retries"),
        ({"retries": "5"}, "retries"),
        ({"timeout_seconds": 31}, "timeout_seconds"),
        ({"timeout_seconds": 10**9}, "timeout_seconds"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 0.05}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": "10"}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
    ),
)
def test_w25_retries_and_times_have_bounds(
    world: World, api: Any, address: str, sent: dict[str, Any], field: str
) -> None:
    url = address if address == A else f"{B}/deliver"
    before, arrived = written(), len(world.receiver.log)
    answer = api.post(url, {"schedule_id": world.schedule.schedule_id, **sent}, format="json")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert (written(), len(world.receiver.log)) == (before, arrived)


def test_w25_a_receiver_that_never_answers_costs_one_time_and_one_try(world: World, api: Any) -> None:
    """Retries are for what never left: with five of them the request takes as long as with none."""
    never = threading.Event()
    world.receiver.behave("/webhook", until=never)
    before = len(world.receiver.arrived("/webhook"))
    answer = api.post(A, {"retries": 5, "timeout_seconds": 1}, format="json").json()
    wait_until(lambda: len(world.receiver.arrived("/webhook")) > before)
    assert len(world.receiver.arrived("/webhook")) == before + 1
    never.set()
    (entry,) = answer["delivery"]["deliveries"]
    assert (entry["failure_class"], entry["attempt_count"]) == ("response_timeout", 1)


# What somebody broke in a connector after it was configured, and the class of what comes of it.
BROKEN = {
    "no_secret": ({"token_ref": "env:CAVRA_TEST_UNSET"}, "auth_setup"),
    "no_url": ({"url": "", "url_ref": "env:CAVRA_TEST_UNSET"}, "auth_setup"),
    "odd_url": ({"url": "", "url_ref": "env:CAVRA_TEST_ODD_URL"}, "misconfigured"),
    "bad_url": ({"url": "http://[::1"}, "misconfigured"),
    "bad_authority": (
        {"ca_pem": "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"},
        "misconfigured",
    ),
    "no_authority": ({"ca_pem": "none"}, "misconfigured"),
    "bad_proxy": ({"proxy_url": "https://proxy.example"}, "misconfigured"),
    "no_proxy": ({"proxy_url": "http://127.0.0.1:1"}, "connect"),
    "bad_header": ({"headers": {"x-team": "a\r\nb: c"}}, "misconfigured"),
    "bad_options": (
        {"product": "syslog", "url": "syslog://127.0.0.1:1", "options": {"max_bytes": "lots"}},
        "misconfigured",
    ),
    "odd_options": (
        {"product": "syslog", "url": "syslog://127.0.0.1:1", "options": {"facility": 13}},
        "misconfigured",
    ),
    "bad_networks": ({"allow_networks": ["127.0.0.1/8"]}, "misconfigured"),
    "no_networks": ({"allow_networks": []}, "blocked_address"),
}


def test_w27_broken_connectors_fail_alone_each_in_its_class(
    world: World, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVRA_TEST_ODD_URL", "http://0x7f.1/s3cr3t")
    for key, (broken, _) in BROKEN.items():
        connector(key, world.receiver.url(f"/{key}"))
        Connector.objects.filter(key=key).update(**broken)
    connector("second", world.receiver.url("/second"))
    response = api.post(A, ONCE, format="json")
    assert response.status_code == 200, response.json()
    answer = response.json()
    entries = {entry["provider"]: entry for entry in answer["delivery"]["deliveries"]}
    assert {key: entry["failure_class"] for key, entry in entries.items()} == {
        "webhook": "",
        "second": "",
        **{key: failure for key, (_, failure) in BROKEN.items()},
    }
    assert {case["case"].rpartition(".")[2]: case["state"] for case in answer["cases"]} == {
        key: "delivered" if key in ("webhook", "second") else "failed" for key in entries
    }
    for key, entry in entries.items():
        delivered = key in ("webhook", "second")
        assert entry["answer"] == ("answered" if delivered else "not_sent")
        # What a broken one says names its field, and no value.
        assert "s3cr3t" not in (entry["error"] or "")
        assert len(world.receiver.arrived(f"/{key}")) >= delivered
        assert delivered or not world.receiver.arrived(f"/{key}")
