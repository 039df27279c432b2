"""Shapes of bodies (CONTRACT, rows "null", "booleans", "unknown keys", "identity")."""

from decimal import Decimal
from typing import Any

import pytest
from django.conf import LazySettings

from evidence.api import connector_views, delivery_views, drill_views, fields
from evidence.api.bodies import Body
from evidence.enums import RouteState
from recovery.api import (
    bodies,
    disposition_views,
    reconciliation_views,
    recovery_views,
    retry_views,
    run_views,
    step_views,
)
from recovery.api.bodies import RetryPolicyBody, WorkerRunBody, is_dry
from recovery.api.permissions import InteractiveWhenStrict
from tests.endpoints import ERASING, Prepared, acts, client, written

BY_VIEW = {one.view: one for one in acts()}


class Sample(Body):
    """One field of each sort."""

    flag = fields.StrictBoolean(default=False)
    strict_flag = fields.StrictBoolean(refuse_null=True, default=False)
    text = fields.CleanText()
    needed = fields.CleanText(required=True)
    key = fields.ConnectorKey()
    state = fields.StateField(RouteState, default=RouteState.RESOLVED)
    whole = fields.WholeNumber(low=1, high=5, default=2)
    number = fields.Number(low="0.1", high="30", default=10)
    providers = fields.ProviderList()
    moment = fields.Moment(required=False)
    refs = fields.TextList(limit=3, required=False)
    digest = fields.Digest()


def read(**sent: Any) -> Any:
    body = Sample(data={"needed": "x", **sent})
    return body.validated_data if body.is_valid() else sorted(body.errors)


@pytest.mark.parametrize(
    ("sent", "expected"),
    (
        ({"flag": True}, {"flag": True}),
        ({"flag": None}, {"flag": False}),
        ({"text": " e\u0301 "}, {"text": "\u00e9"}),
        ({"text": None}, {"text": ""}),
        ({"key": " Splunk-EU "}, {"key": "splunk_eu"}),
        ({"key": ""}, {"key": ""}),
        ({"state": " Acknowledged "}, {"state": RouteState.ACKNOWLEDGED}),
        ({"state": None}, {"state": RouteState.RESOLVED}),
        ({"whole": 5}, {"whole": 5}),
        ({"whole": Decimal("2.0")}, {"whole": 2}),
        ({"whole": 3.0}, {"whole": 3}),
        ({"number": Decimal("0.1")}, {"number": Decimal("0.1")}),
        ({"number": 30}, {"number": Decimal(30)}),
        ({"providers": "all"}, {"providers": ()}),
        ({"providers": ""}, {"providers": ()}),
        ({"providers": "Splunk, webhook,splunk"}, {"providers": ("splunk", "webhook")}),
        ({"providers": "splunk,all"}, {"providers": ()}),
        ({"refs": ["a", "b", "a"]}, {"refs": ["a", "b"]}),
        ({"digest": f" {'Ab' * 32} "}, {"digest": "ab" * 32}),
        ({"digest": ""}, {"digest": ""}),
    ),
)
def test_values_are_taken_in_their_one_form(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    found = read(**sent)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "values"),
    (
        ("flag", (0, 1, "true", "false", "", [], {})),
        ("strict_flag", (None, 0, "false")),
        ("text", (0, True, [], {}, "a\0", "a\nb", "\u202e", "a\u00adb", "\U000e0041", "x" * 201)),
        ("needed", (None, "", "  ", 1)),
        ("key", ("a b", "\u00fcber", "x" * 41, 1, ["splunk"])),
        ("state", ("outstanding!", "", 1, ["resolved"])),
        ("whole", (0, 6, True, False, "2", Decimal("2.5"), 2.5, 1e300, float("inf"), float("nan"), 10**20)),
        ("number", (0, Decimal("0.099"), 31, "10", True, [10])),
        ("providers", (1, ["splunk"], "a b", ",".join(f"c{n}" for n in range(51)))),
        ("moment", ("2026-06-20", "2026-06-20T15:40:00", "", 0, "0001-01-01T00:00:00+14:00")),
        ("digest", ("a" * 63, "a" * 65, "g" * 64, "a" * 63 + "\u0660", 1, ["a" * 64], "0x" + "a" * 62)),
        ("refs", ("a", {"a": 1}, [1], [""], [None], ["a", "b", "c", "d"])),
    ),
)
def test_other_types_and_values_are_refused_by_field(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert read(**{name: value}) == [name], value


@pytest.mark.parametrize(
    ("sent", "dry"),
    (
        ({}, True),
        ({"dry_run": True}, True),
        ({"dry_run": False}, False),
        ({"execute": True}, False),
        ({"execute": False}, True),
        ({"dry_run": False, "execute": True}, False),
        ({"dry_run": True, "execute": False}, True),
    ),
)
def test_w11_only_a_json_boolean_makes_a_run_live(sent: dict[str, Any], dry: bool) -> None:
    body = WorkerRunBody(data=sent)
    assert body.is_valid()
    assert is_dry(body.validated_data) is dry


@pytest.mark.parametrize(
    "sent",
    (
        {"dry_run": True, "execute": True},
        {"dry_run": False, "execute": False},
        {"dry_run": None},
        {"dry_run": 0},
        {"dry_run": ""},
        {"execute": "false"},
        {"execute": 1},
        {"execute": None},
        {"retry_policy": {"allow_immediate_retry": "false"}},
        {"retry_policy": {"allow_immediate_retry": None}},
    ),
)
def test_w11_what_was_live_by_accident_is_refused(sent: dict[str, Any]) -> None:
    assert not WorkerRunBody(data=sent).is_valid()


def test_w11_require_retry_ack_is_not_switched_off_by_null() -> None:
    assert not bodies.ApprovalPlanBody(data={"approval_policy": {"require_retry_ack": None}}).is_valid()


@pytest.mark.parametrize(
    ("sent", "live"),
    (
        ({}, False),
        ({"dry_run": False}, True),
        ({"execute": True, "colour": 1}, True),
        ({"dry_run": False, "execute": True}, True),
        ({"dry_run": True}, False),
        ({"dry_run": False, "execute": False}, False),
        ({"dry_run": True, "execute": True}, False),
        ({"dry_run": 0}, False),
        ({"dry_run": False, "execute": None}, False),
        ({"execute": "true"}, False),
    ),
)
def test_only_well_formed_words_ask_for_the_role_of_a_live_run(sent: dict[str, Any], live: bool) -> None:
    assert bodies.asks_live(sent) is live


def test_aliases_mean_the_same_and_may_not_contradict() -> None:
    body = RetryPolicyBody(data={"max_retries": 4, "delay_minutes": 20, "multiplier": Decimal("2.5")})
    assert body.is_valid()
    assert dict(body.validated_data) == {
        "max_retry_attempts": 4,
        "retry_delay_minutes": 20,
        "backoff_multiplier": Decimal("2.5"),
    }
    assert RetryPolicyBody(data={"max_retries": 4, "max_retry_attempts": 4}).is_valid()
    twice = RetryPolicyBody(data={"max_retries": 4, "max_retry_attempts": 5})
    assert not twice.is_valid()
    assert twice.errors["max_retry_attempts"][0].code == "contradiction"


REFUSING = {
    *ERASING,
    connector_views.SendCanary,
    delivery_views.TakeOver,
    reconciliation_views.Ask,
    retry_views.Decide,
    retry_views.Renew,
    run_views.StartRun,
    recovery_views.CloseRecovery,
    reconciliation_views.Attest,
    reconciliation_views.Reconcile,
    disposition_views.ProposeDisposition,
    disposition_views.DecideDisposition,
    step_views.TickStep,
}


def test_unknown_keys_are_named_refused_or_ignored(ready: Prepared) -> None:
    for view, one in BY_VIEW.items():
        before = written()
        body = {**ready.bodies[view], "colour": 1, "n\u00e4me": None}
        answer = client(ready.person(one)).post(ready.path(one), body, format="json")
        if view in REFUSING:
            assert (answer.status_code, answer.json()["code"]) == (400, "unknown_keys"), view
            assert set(answer.json()["errors"]) == {"colour", "n\\xe4me"}
            assert written() == before
        elif view is delivery_views.Deliver:
            assert answer.status_code in (200, 409)  # Unsettled content is held.
        else:
            assert answer.json()["ignored_keys"] == ["colour", "n\\xe4me"], view


@pytest.mark.parametrize(
    ("view", "key"),
    (
        (retry_views.PlanRetries, "retry_policy"),
        (retry_views.RequestApproval, "approval_policy"),
        (run_views.StartRun, "retry_policy"),
        (run_views.StartRun, "schedule"),
    ),
)
def test_unknown_keys_inside_policies_and_schedules_are_refused(view: Any, key: str, ready: Prepared) -> None:
    one = BY_VIEW[view]
    answer = client(ready.person(one)).post(ready.path(one), {key: {"max_attempts": 9}}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_keys")
    assert list(answer.json()["errors"]) == [f"{key}.max_attempts"]


def test_ignored_keys_inside_a_bulk_answer_are_named_by_their_place(ready: Prepared) -> None:
    one = BY_VIEW[drill_views.BulkAcknowledge]
    (route,) = ready.bodies[one.view]["routes"]
    answer = client(ready.world.analyst).post(
        ready.path(one), {"routes": [{**route, "state": "x"}]}, format="json"
    )
    assert answer.json()["ignored_keys"] == ["routes.0.state"]


def test_the_strict_profile_refuses_unknown_keys_everywhere(ready: Prepared, settings: LazySettings) -> None:
    settings.CAVRA_PROFILE = "strict"
    for view, one in BY_VIEW.items():
        if InteractiveWhenStrict in view.permission_classes:
            continue  # Tokens do not decide in this profile at all.
        answer = client(ready.person(one)).post(
            ready.path(one), {**ready.bodies[view], "colour": 1}, format="json"
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "unknown_keys"), view


NAMES = {
    drill_views.Announce: "generated_by",
    drill_views.Acknowledge: "acknowledged_by",
    delivery_views.FreezePackage: "generated_by",
    retry_views.PlanRetries: "generated_by",
    retry_views.AcknowledgeRetry: "acknowledged_by",
    retry_views.RequestApproval: "generated_by",
    retry_views.Decide: "decided_by",
    retry_views.Renew: "decided_by",
    run_views.StartRun: "generated_by",
    reconciliation_views.Attest: "attested_by",
    reconciliation_views.Reconcile: "attested_by",
    disposition_views.ProposeDisposition: "proposed_by",
    disposition_views.DecideDisposition: "decided_by",
    recovery_views.GeneratePlaybook: "generated_by",
    recovery_views.CloseRecovery: "closed_by",
}


@pytest.mark.parametrize("view", NAMES, ids=lambda view: view.__name__)
def test_w09_a_name_in_the_body_identifies_nobody(view: Any, ready: Prepared) -> None:
    one, who = BY_VIEW[view], ready.person(BY_VIEW[view])
    body = ready.bodies[view]
    if view is delivery_views.FreezePackage:
        ready.world.acknowledged()  # content of its own, or the package is an existing one
    answer = client(who).post(ready.path(one), {**body, NAMES[view]: "The Director"}, format="json")
    assert answer.status_code == 200, answer.json()
    metadata = answer.json().get("metadata") or answer.json()["plan_metadata"]
    if view is drill_views.Announce:
        metadata = answer.json()["plan_metadata"]
    assert metadata["signer"] == who.username
    assert metadata["claimed_actor"] == "The Director"
    assert answer.json()["actor"]["actor"] == who.username
    assert answer.json()["actor"]["subject"] == who.person_id


def test_ones_own_name_in_the_body_claims_nothing(ready: Prepared) -> None:
    one = BY_VIEW[retry_views.PlanRetries]
    who = ready.person(one)
    answer = client(who).post(ready.path(one), {"generated_by": who.username.upper()}, format="json")
    assert "claimed_actor" not in answer.json()["metadata"]
