"""Connectors over HTTP: how they do, and testing them; never where they are (P16, P17, P18)."""

import json
from datetime import timedelta
from typing import Any

import pytest

from evidence.domain import canaries, configuration, deliveries, records
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Role
from evidence.models import Canary, Connector
from tests.builders import Clock, World, connector, person
from tests.endpoints import client, written
from tests.evidence import breaking
from tests.receiver import Receiver

LIST = "/api/v1/connectors"
ONE = f"{LIST}/webhook"
CANARY = f"{ONE}/canary"


@pytest.fixture
def two(db: None, receiver: Receiver) -> World:
    return World(receiver, providers=("webhook", "backup"))


def listed(world: World, query: str = "") -> dict[str, Any]:
    answer = client(world.analyst).get(LIST + query)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def sent(world: World) -> Any:
    return client(world.operator).post(CANARY, {}, format="json")


def test_it_says_how_a_connector_does(two: World) -> None:
    two.failed("webhook")
    said = listed(two)
    assert (said["total"], [one["key"] for one in said["items"]]) == (2, ["webhook", "backup"])
    one = said["items"][0]
    assert {name: one[name] for name in ("product", "state", "paused", "sends_24h", "success_rate_24h")} == {
        "product": "webhook",
        "state": "warning",
        "paused": False,
        "sends_24h": 1,
        "success_rate_24h": 0.0,
    }
    assert one["breaker"]["state"] == "closed"
    assert one["maintenance"] == {"now": None, "next": None}
    assert one["last_failure"]["failure_class"] == "unavailable"
    assert one["last_failure"]["words"] == "receiver is unavailable"
    assert (one["unsettled_count"], one["unknown_count"], one["parked"]) == (1, 0, None)
    assert one["assurance"] == "accepted"
    assert "2xx" in one["assurance_earned"]
    assert one["limits"]["max_concurrency"] == 4
    assert (one["announce_through"], one["trouble"]) == ("", None)


def test_the_limit_of_a_connector_is_its_own(two: World) -> None:
    connector("log", "syslog://127.0.0.1:601", product="syslog", options={"max_bytes": "2048"})
    limits = {one["key"]: one["limits"]["max_body_bytes"] for one in listed(two)["items"]}
    assert limits == {"webhook": 2**20, "backup": 2**20, "log": 2_048}


def test_p16_what_is_parked_has_an_age_and_an_owner(two: World) -> None:
    two.announced()
    two.acknowledged()
    breaking.opened("webhook", Clock())
    request = DeliveryRequest(filters=PackageFilters(), providers=("webhook",), retries=0, timeout_s=5.0)
    (case,) = deliveries.deliver_audit(request, by=two.analyst, clock=two.clock).cases
    (one,) = listed(two, "?state=critical")["items"]
    assert one["key"] == "webhook"
    assert one["parked"]["count"] == 1
    assert one["parked"]["owner"] == two.analyst.username
    assert one["parked"]["oldest_at"] == records.timestamp(case.created_at)
    breaker = one["breaker"]
    assert (breaker["state"], breaker["failures"], breaker["failure_class"]) == ("open", 5, "unavailable")
    assert breaker["since"] < breaker["next_probe_at"]
    assert case.state == "parked"


def test_filters_and_what_they_refuse(two: World) -> None:
    assert [one["key"] for one in listed(two, "?product=webhook&state=healthy")["items"]] == [
        "backup",
        "webhook",
    ]
    assert listed(two, "?product=splunk")["items"] == []
    assert listed(two, "?other=1")["ignored_keys"] == ["other"]
    refused = client(two.analyst).get(f"{LIST}?state=ill")
    assert refused.status_code == 400
    assert refused.json()["errors"].keys() == {"state"}


def test_a_canary_over_http_is_recorded_and_shown(two: World) -> None:
    answer = sent(two)
    assert answer.status_code == 200
    canary = answer.json()["canary"]
    assert (canary["connector"], canary["outcome"], canary["means"], canary["words"]) == (
        "webhook",
        "delivered",
        "message",
        "",
    )
    assert canary["tested_by"] == two.operator.username
    assert answer.json()["metadata"]["metadata_kind"] == "connector-canary"
    shown = client(two.analyst).get(ONE).json()
    assert shown["canaries"] == [canary]
    assert shown["connector"]["sends_24h"] == 0


def test_a_refusal_says_why_and_sends_nothing(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "PAUSE", timedelta(minutes=10))
    assert sent(two).status_code == 200
    again = sent(two)
    assert (again.status_code, again.json()["code"]) == (409, "canary_too_soon")
    assert again.json()["detail"].startswith("No canary was sent. webhook was tested just now")
    row = Connector.objects.get(key="webhook")
    row.enabled = False
    configuration.save(row, by=None, clock=system_clock)
    assert sent(two).json()["code"] == "connector_disabled"
    assert len(two.receiver.arrived("/webhook")) == Canary.objects.count() == 1


@pytest.mark.parametrize("part", ("analyst", "approver", "auditor"))
def test_p22_only_operators_and_administrators_test(two: World, part: str) -> None:
    answer = client(getattr(two, part)).post(CANARY, {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
    assert not two.receiver.log


def test_bad_input_is_named_and_writes_nothing(two: World) -> None:
    before = written()
    refused = client(two.operator).post(CANARY, {"message": "hello"}, format="json")
    assert (refused.status_code, refused.json()["errors"].keys()) == (400, {"message"})
    for key in ("nothing", "%20", "a" * 200, "..%2F"):
        answer = client(two.operator).post(f"{LIST}/{key}/canary", {}, format="json")
        assert answer.status_code == 404, key
    assert client(two.analyst).get(f"{LIST}/nothing").json()["code"] == "connector_not_found"
    assert written() == before
    assert not two.receiver.log


def test_p18_no_answer_tells_where_a_connector_is(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a viewer, who reads numbers: no address, no header, no reference, no case."""
    monkeypatch.setenv("CAVRA_TEST_TOKEN", "a-token-value")
    connector(
        "chat",
        two.receiver.url("/chat-path"),
        headers={"x-team": "header-value"},
        token_ref="env:CAVRA_TEST_TOKEN",
    )
    (case,) = two.failed("webhook")
    sent(two)
    viewer = client(person(Role.VIEWER))
    for path in (LIST, ONE, f"{LIST}/chat"):
        answer = viewer.get(path)
        assert answer.status_code == 200
        text = json.dumps(answer.json())
        for word in (
            "127.0.0.1",
            "chat-path",
            "header-value",
            "x-team",
            "CAVRA_TEST_TOKEN",
            "a-token-value",
            case.case_id,
            case.plan.delivery_id,
        ):
            assert word not in text, (path, word)
