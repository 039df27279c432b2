"""Roles at every door, and the order in which a request is judged (P22; CONTRACT, row "order of checks")."""

import json
from itertools import product
from typing import Any

import pytest

from evidence.api import delivery_views, drill_views
from evidence.domain import people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from recovery.api import recovery_views, retry_views, run_views
from tests.builders import person
from tests.endpoints import ALLOWED, Prepared, acts, client, written

BY_VIEW = {one.view: one for one in acts()}


def test_the_table_of_roles_names_every_post() -> None:
    assert set(ALLOWED) == set(BY_VIEW)


def test_each_role_gets_as_far_as_it_should(ready: Prepared) -> None:
    people_of = {role: person(role) for role in Role}
    before = written()
    for act, (role, who) in product(acts(), people_of.items()):
        body = {**ready.bodies[act.view], "notes": 0, "generated_by": 0}
        answer = client(who).post(ready.path(act), body, format="json")
        if role in ALLOWED[act.view]:
            assert answer.status_code == 400, (str(act), role, answer.json())
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "role_required"), (str(act), role)
    assert written() == before


def test_without_a_role_nothing_is_open_and_the_refusal_says_what_is_missing(ready: Prepared) -> None:
    outsider = person()
    for act in acts():
        answer = client(outsider).post(ready.path(act), ready.bodies[act.view], format="json")
        assert (answer.status_code, answer.json()["code"]) == (403, "role_required"), str(act)
        assert outsider.username in answer.json()["detail"]
        assert "no role" in answer.json()["detail"]


def test_a_revoked_role_closes_the_door_at_once(ready: Prepared) -> None:
    one = BY_VIEW[delivery_views.FreezePackage]
    analyst = person(Role.ANALYST)
    api = client(analyst)
    assert api.post(ready.path(one), {}, format="json").status_code == 200
    people.revoke_role(analyst, Role.ANALYST, by=None, clock=system_clock)
    assert api.post(ready.path(one), {}, format="json").status_code == 403


# Each step has everything wrong that the following ones would refuse.
CASES: dict[str, tuple[type, dict[str, str], dict[str, Any]]] = {
    "acknowledgement": (drill_views.Acknowledge, {"schedule_id": "unknown"}, {"provider": "elsewhere"}),
    "retry acknowledgement": (
        retry_views.AcknowledgeRetry,
        {"retry_plan_id": "gordackretry-0000000000000000"},
        {"provider": "elsewhere"},
    ),
    "decision": (
        retry_views.Decide,
        {"approval_plan_id": "gordackretryapproval-0000000000000000"},
        {"provider": "elsewhere", "delivery_id": "d", "audit_id": "a"},
    ),
    "closure": (
        recovery_views.CloseRecovery,
        {"playbook_id": "gordackrecovery-0000000000000000"},
        {"provider": "elsewhere"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_checks_come_in_the_order_of_the_contract(name: str, ready: Prepared) -> None:
    view, wrong_ids, wrong_reference = CASES[name]
    one = BY_VIEW[view]
    right, wrong = ready.path(one), one.path.format(**{**ready.ids, **wrong_ids})
    api, outsider = client(ready.person(one)), client(person(Role.VIEWER))
    bad_shape = {"provider": 0}

    def status(who: Any, path: str, body: Any) -> int:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return int(who.generic("POST", path, data, content_type="application/json").status_code)

    assert status(client(), wrong, b"not json") == 401
    assert status(outsider, wrong, b"not json") == 403
    assert status(api, wrong, b"not json") == 400
    assert status(api, wrong, bad_shape) == 404
    assert status(api, right, bad_shape) == 400
    answer = api.post(right, {**ready.bodies[view], **wrong_reference}, format="json")
    assert answer.status_code == 404
    assert answer.json()["errors"]


def test_the_person_is_judged_before_the_object(ready: Prepared) -> None:
    """A requester who holds the approver role is told so, also when the entry has ended."""
    world = ready.world
    both = world.analyst
    people.grant_role(both, Role.APPROVER, by=None, clock=system_clock)
    one = BY_VIEW[retry_views.Decide]
    body = {**ready.bodies[retry_views.Decide], "approval_state": "denied", "notes": "not now"}
    assert client(world.approver).post(ready.path(one), body, format="json").status_code == 200
    again = client(both).post(ready.path(one), {**body, "approval_state": "approved"}, format="json")
    assert (again.status_code, again.json()["code"]) == (403, "second_person_required")
    other = client(world.second_approver).post(ready.path(one), body, format="json")
    assert (other.status_code, other.json()["code"]) == (409, "entry_ended")


def test_live_runs_are_an_operators_act(ready: Prepared) -> None:
    one = BY_VIEW[run_views.StartRun]
    analyst = client(ready.world.analyst)
    assert analyst.post(ready.path(one), {}, format="json").status_code == 200
    for live in ({"dry_run": False}, {"execute": True}):
        answer = analyst.post(ready.path(one), live, format="json")
        assert (answer.status_code, answer.json()["code"]) == (403, "role_required")
        assert client(ready.world.operator).post(ready.path(one), live, format="json").status_code == 200
