"""Faults of the reference implementation, W1 to W15 and W20: shown to be absent through the doors that people use.

Every act goes over the API with its person's token. What a rule says in detail is tested beside the rule; here
each fault has one story of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import OperationalError

from evidence.api import connector_views, delivery_views, drill_views
from evidence.domain import configuration, ledger
from evidence.enums import CaseState, Role
from evidence.models import Attempt, Case, Connector, Person, Record
from recovery.api import reconciliation_views, retry_views, run_views
from recovery.documents import EXECUTION_CLAIM, EXECUTION_RECORD, WORKER_RUN
from recovery.domain import approvals
from recovery.enums import EntryState
from recovery.models import ApprovalEntry, Execution, RetryDecision, Vote, WorkerRun
from tests.builders import Clock, World, person
from tests.endpoints import acts, client, prepared, written
from tests.evidence.ledger_keys import Keys
from tests.http import A, B
from tests.processes import together
from tests.recovery.checks import payload

NOW = {"allow_immediate_retry": True}


@dataclass
class Chain:
    """The chain of one world over the API, each act by the person whose it is."""

    world: World

    def post(self, who: Person | None, path: str, body: Any, expect: int = 200) -> Any:
        answer = client(who).post(path, body, format="json")
        assert answer.status_code == expect, answer.json()
        return answer.json()

    def planned(self, policy: dict[str, Any] | None = None, by: Person | None = None) -> dict[str, Any]:
        """A retry plan over everything unsettled."""
        body = {"retry_policy": NOW if policy is None else policy}
        plan: dict[str, Any] = self.post(by or self.world.analyst, f"{A}/retry-plan", body)["plan"]
        return plan

    def reviewed(self, plan: dict[str, Any], state: str = "accepted", by: Person | None = None) -> None:
        """An answer to every decision of a plan."""
        for decision in plan["retry_decisions"]:
            self.post(
                by or self.world.second_analyst,
                f"{A}/retry-plans/{plan['retry_plan_id']}/acknowledgements",
                about(decision) | {"acknowledgement_state": state},
            )

    def asked(self, by: Person | None = None) -> list[dict[str, Any]]:
        """What an approval plan lists, each entry with the plan's own id."""
        plan = self.post(by or self.world.analyst, f"{A}/retry-execution-approval-plan", {})["plan"]
        return [
            entry | {"approval_plan_id": plan["approval_plan_id"]} for entry in plan["approval_decisions"]
        ]

    def requested(self, policy: dict[str, Any] | None = None) -> dict[str, Any]:
        """The one request that comes of planning, reviewing and asking."""
        self.reviewed(self.planned(policy))
        (entry,) = self.asked()
        return entry

    def decided(
        self,
        entry: dict[str, Any],
        state: str = "approved",
        by: Person | None = None,
        expect: int = 200,
        **fields: Any,
    ) -> dict[str, Any]:
        """One person's word on a request."""
        path = f"{A}/retry-execution-approval-plans/{entry['approval_plan_id']}/decisions"
        body = about(entry) | {"approval_state": state, "notes": "read", **fields}
        said: dict[str, Any] = self.post(by or self.world.approver, path, body, expect)
        return said

    def approved(self, policy: dict[str, Any] | None = None) -> dict[str, Any]:
        """The one request, approved by a second person."""
        entry = self.requested(policy)
        self.decided(entry)
        return entry

    def ran(self, by: Person | None = None, **body: Any) -> list[dict[str, Any]]:
        """A live run's results."""
        answer = self.post(by or self.world.operator, f"{A}/worker-run", {"dry_run": False, **body})
        results: list[dict[str, Any]] = answer["retry_results"]
        return results

    def statuses(self, **body: Any) -> list[str]:
        """What a live run's execution records say."""
        return [result["execution_record"]["execution_status"] for result in self.ran(**body)]

    @contextmanager
    def nothing_leaves(self) -> Iterator[None]:
        """The receiver hears nothing meanwhile, and no approval is used."""
        before = len(self.world.receiver.log), Execution.objects.count()
        yield
        assert (len(self.world.receiver.log), Execution.objects.count()) == before


def about(listed: dict[str, Any]) -> dict[str, Any]:
    """The ids by which a body names a case."""
    return {key: listed[key] for key in ("provider", "delivery_id", "audit_id")}


@pytest.fixture
def chain(world: World) -> Chain:
    """A world in which one delivery has failed."""
    world.failed()
    return Chain(world)


@pytest.fixture
def slow_chain(timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """The same, with a clock that the API goes by."""
    for views in (retry_views, run_views):
        monkeypatch.setattr(views, "system_clock", clock)
    timed.failed()
    return Chain(timed)


# --- W1 to W4: what an approval is good for -----------------------------------------------------------------------


def test_w01_an_approval_is_used_once_whatever_came_of_it(chain: Chain) -> None:
    world, entry = chain.world, chain.approved()
    world.receiver.behave("/webhook", status=502)
    assert chain.statuses() == ["failed"]
    with chain.nothing_leaves():
        for _ in range(2):
            assert chain.ran(retry_policy=NOW) == []
        late = chain.decided(entry, by=world.second_approver, expect=409)
        assert late["code"] == "entry_ended"
        assert chain.asked() == []
    # The next try is another attempt with an approval of its own.
    following = chain.requested()
    assert following["entry_id"] != entry["entry_id"]
    assert (entry["attempt_no"], following["attempt_no"]) == (2, 3)


def test_w02_an_approval_is_taken_back_by_a_later_word(chain: Chain) -> None:
    world = chain.world
    first = chain.approved()
    chain.decided(first, "denied", by=world.second_approver)
    with chain.nothing_leaves():
        assert chain.ran() == []
    second = chain.approved()
    chain.decided(second, "deferred")
    with chain.nothing_leaves():
        assert chain.ran() == []
    chain.decided(second, "denied", by=world.analyst)  # who asked withdraws
    with chain.nothing_leaves():
        assert chain.ran() == []
    states = dict(ApprovalEntry.objects.values_list("entry_id", "state"))
    assert states == {first["entry_id"]: EntryState.DENIED, second["entry_id"]: EntryState.WITHDRAWN}


def test_w03_an_approval_ends_by_itself(slow_chain: Chain, clock: Clock) -> None:
    chain, world = slow_chain, slow_chain.world
    unread = chain.requested()
    clock.at = datetime.fromisoformat(unread["approve_by"]) + timedelta(seconds=1)
    assert chain.decided(unread, expect=409)["code"] == "approval_expired"
    entry = chain.approved()
    clock.forward(hours=4, seconds=1)
    with chain.nothing_leaves():
        (result,) = chain.ran()
        assert result["skipped"] == result["execution_record"]["skipped"] == "approval_expired"
        # The worker's sweep makes it final, and asking again is a new request.
        assert approvals.expire(clock=clock) == 1
        assert chain.ran() == []
        assert chain.decided(entry, by=world.second_approver, expect=409)["code"] == "entry_ended"
    assert chain.requested()["entry_id"] not in (unread["entry_id"], entry["entry_id"])


def test_w04_an_approval_is_for_what_was_shown_and_nothing_else(chain: Chain) -> None:
    world, entry = chain.world, chain.requested()
    # A plan that never was, and a case that this plan does not list.
    nowhere = entry | {"approval_plan_id": "gordackretryapproval-0000000000000000"}
    assert chain.decided(nowhere, expect=404)["code"] == "approval_plan_not_found"
    assert chain.decided(entry | {"audit_id": "gordackaudit-0"}, expect=404)["code"] == "entry_not_found"
    assert chain.decided(entry, manifest_digest="0" * 64, expect=409)["code"] == "manifest_changed"
    assert not Vote.objects.exists()
    chain.decided(entry, manifest_digest=entry["manifest_digest"])
    with chain.nothing_leaves():
        # Who executes brings no policy of their own.
        for looser in ({"max_retry_attempts": 10}, {"retry_delay_minutes": 0}, {"backoff_multiplier": 1}):
            body = {"dry_run": False, "retry_policy": looser}
            refused = chain.post(world.operator, f"{A}/worker-run", body, expect=409)
            assert refused["code"] == "policy_exceeds_limit"
            assert list(refused["errors"]) == list(looser)
        row = Connector.objects.get()
        row.url = world.receiver.url("/elsewhere")
        configuration.save(row, by=world.administrator, clock=world.clock)
        (result,) = chain.ran()
    assert result["skipped"] == "manifest_changed"
    assert "destination_commitment" in result["execution_record"]["changed_fields"]


# --- W5 and W6: what a retry changes about the next one -------------------------------------------------------------


def test_w05_a_success_clears_the_failure_everywhere(chain: Chain) -> None:
    world = chain.world
    chain.approved()
    assert chain.statuses() == ["delivered"]
    with chain.nothing_leaves():
        assert chain.planned()["retry_decisions"] == []
        assert chain.asked() == []
        assert chain.ran(retry_policy=NOW) == []
    numbers = client(world.auditor).get(f"{B}/dashboard").json()
    assert numbers["acknowledgement_audit_delivery_health"] == "healthy"
    shown = client(world.auditor).get(f"/api/v1/cases/{Case.objects.get().case_id}").json()
    assert shown["state"] == CaseState.DELIVERED


def test_w06_limit_and_backoff_are_those_of_the_case_over_all_its_tries(
    slow_chain: Chain, clock: Clock
) -> None:
    chain, world = slow_chain, slow_chain.world
    case = Case.objects.get()
    for tries, minutes in ((1, 15), (2, 30)):
        plan = chain.planned({})
        (decision,) = plan["retry_decisions"]
        assert (decision["action"], decision["case"]) == ("wait", case.case_id)
        assert (decision["retry_count"], decision["attempt_no"]) == (tries, tries + 1)
        assert decision["retry_delay_minutes"] == minutes
        opens = datetime.fromisoformat(decision["next_retry_at"])
        assert opens - datetime.fromisoformat(decision["latest_delivery_at"]) == timedelta(minutes=minutes)
        chain.reviewed(plan)
        (entry,) = chain.asked()
        assert entry["action"] == "wait_for_retry_window"
        chain.decided(entry)
        with chain.nothing_leaves():
            (early,) = chain.ran()
            assert early["skipped"] == "retry_window_not_open"
        clock.at = max(clock.at, opens)
        world.receiver.behave("/webhook", status=503)
        (result,) = chain.ran()
        record = result["execution_record"]
        assert (record["execution_status"], record["attempt_no"]) == ("failed", tries + 1)
        # The retried delivery is the same delivery.
        assert record["delivery_id"] == record["delivery_plan_id"] == decision["delivery_id"]
    clock.forward(days=2)
    (last,) = chain.planned({})["retry_decisions"]
    assert (last["action"], last["retry_count"], last["case"]) == ("suppress", 3, case.case_id)
    with chain.nothing_leaves():
        assert chain.asked() == []
        assert chain.ran(retry_policy=NOW) == []
    numbered = Attempt.objects.order_by("number").values_list("case_id", "number")
    assert list(numbered) == [(case.pk, number) for number in (1, 2, 3)]


# --- W7 to W10: who ---------------------------------------------------------------------------------------------------


def test_w07_no_one_person_takes_a_retry_through(chain: Chain) -> None:
    world = chain.world
    everybody = person(*Role)
    plan = chain.planned(by=everybody)
    chain.reviewed(plan, by=everybody)
    (entry,) = chain.asked(by=everybody)
    refused = chain.decided(entry, by=everybody, expect=403)
    assert refused["code"] == "second_person_required"
    with chain.nothing_leaves():
        assert chain.ran(by=everybody) == []
    chain.decided(entry)
    (result,) = chain.ran(by=everybody)
    execution = result["execution_record"]
    assert execution["executed_by"] == everybody.username
    playbook = chain.post(everybody, f"{A}/connector-recovery-playbook", {"min_failure_count": 1})["playbook"]
    path = f"{A}/connector-recovery-playbooks/{playbook['playbook_id']}/closures"
    closing = {
        "provider": "webhook",
        "closure_state": "resolved",
        "verification_refs": [execution["execution_id"]],
    }
    assert chain.post(everybody, path, closing, expect=403)["code"] == "second_person_required"
    assert chain.post(world.second_analyst, path, closing)["closure"]["closure_state"] == "resolved"


def test_w08_signing_in_is_not_enough(chain: Chain) -> None:
    world, entry = chain.world, chain.requested()
    before = written()
    for role in (Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR):
        assert chain.decided(entry, by=person(role), expect=403)["code"] == "role_required"
    for someone in (world.analyst, world.approver, world.auditor, world.administrator):
        refused = chain.post(someone, f"{A}/worker-run", {"dry_run": False}, expect=403)
        assert refused["code"] == "role_required"
    assert written() == before
    assert not Vote.objects.exists()
    assert not WorkerRun.objects.exists()


def test_w09_claims_in_a_body_are_no_identity(chain: Chain) -> None:
    world, entry = chain.world, chain.requested()
    before = written()
    path = f"{A}/retry-execution-approval-plans/{entry['approval_plan_id']}/decisions"
    claims: dict[str, Any] = {
        "actor_claims": {
            "sub": world.approver.person_id,
            "email": "t.rey@example.com",
            "groups": ["approver"],
        },
        "actor_token": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhcHByb3ZlciJ9.",
    }
    for claim in ({key: value} for key, value in claims.items()):
        for address, body in ((path, about(entry)), (f"{A}/worker-run", {"dry_run": False})):
            assert chain.post(None, address, body | claim, expect=401)["code"] == "not_authenticated"
            knower = world.approver if address == path else world.operator
            assert chain.post(knower, address, body | claim, expect=400)["code"] == "identity_in_body"
    assert written() == before
    # A name is kept as what it is: somebody's word.
    said = chain.decided(entry, decided_by="The Director")
    assert said["decision"]["decided_by"] == world.approver.username
    assert said["metadata"]["claimed_actor"] == "The Director"


def test_w10_nobody_reads_or_does_anything_without_a_token(world: World, keys: Keys) -> None:
    ready = prepared(world, keys)
    before, arrived = written(), len(world.receiver.log)
    anonymous = client()
    for one in acts():
        answer = anonymous.post(ready.path(one), ready.bodies[one.view], format="json")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), str(one)
    reads = [
        f"{B}?include=all",
        f"{B}/dashboard",
        f"{A}/worker-runs",
        f"{A}/worker-dashboard",
        "/evidence",
        f"/evidence/{ready.ids['approval_plan_id']}",
        f"/api/v1/cases/{ready.ids['case_id']}",
        "/console/config",
    ]
    for path in reads:
        assert client(world.auditor).get(path).status_code == 200, path
        assert anonymous.get(path).status_code == 401, path
    assert (written(), len(world.receiver.log)) == (before, arrived)


# --- W11: live only in so many words ------------------------------------------------------------------------------


# What is no plain yes or no; bodies with it, and where the refusal points.
VAGUE: list[Any] = [None, 0, 1, "", "true", "false", [], {}]
ACCIDENTS: list[tuple[dict[str, Any], str]] = [
    *(({"dry_run": value}, "dry_run") for value in VAGUE),
    *(({"execute": value}, "execute") for value in VAGUE),
    ({"dry_run": True, "execute": True}, "execute"),
    ({"dry_run": False, "execute": False}, "execute"),
    *(
        ({"dry_run": False, "retry_policy": {"allow_immediate_retry": value}}, "retry_policy")
        for value in VAGUE
    ),
]


def test_w11_nothing_goes_live_by_accident(chain: Chain) -> None:
    world, entry = chain.world, chain.approved({})
    path = f"{A}/worker-run"
    with chain.nothing_leaves():
        for sent, where in ACCIDENTS:
            refused = chain.post(world.operator, path, sent, expect=400)
            assert {name.partition(".")[0] for name in refused["errors"]} == {where}, sent
        assert not WorkerRun.objects.exists()
        for dry in ({}, {"dry_run": True}, {"execute": False}):
            results = chain.post(world.operator, path, {**dry, "retry_policy": NOW})["retry_results"]
            assert [result["skipped"] for result in results] == ["dry_run"]
    # Nor is the acknowledgement's gate opened by a word that is none.
    for value in (None, 0, "false"):
        body = {"approval_policy": {"require_retry_ack": value}}
        chain.post(world.analyst, f"{A}/retry-execution-approval-plan", body, expect=400)
    assert ApprovalEntry.objects.get().entry_id == entry["entry_id"]
    assert chain.statuses(retry_policy=NOW) == ["delivered"]


# --- W12: at once ---------------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_w12_two_live_runs_at_once_send_once(committed: World) -> None:
    committed.failed()
    chain = Chain(committed)
    chain.approved()
    client(committed.operator)  # its token is there before the threads are
    committed.receiver.behave("/webhook", delay_s=0.3)
    before = len(committed.receiver.log)
    answers = together(chain.ran, chain.ran)
    assert [one for one in answers if isinstance(one, Exception)] == []
    executed = [
        result["execution_record"]["execution_status"]
        for results in answers
        for result in results  # type: ignore[attr-defined]
        if result["execution_record"]
    ]
    assert executed == ["delivered"]
    assert len(committed.receiver.log) == before + 1
    assert Record.objects.filter(kind=EXECUTION_CLAIM.name).count() == 1
    assert WorkerRun.objects.filter(dry_run=False).count() == 2


# --- W13 to W15: what a record cites ------------------------------------------------------------------------------


def test_w13_an_execution_cites_the_votes_of_its_own_request(chain: Chain) -> None:
    world = chain.world
    row = Connector.objects.get()
    row.required_approvals = 2
    configuration.save(row, by=None, clock=world.clock)
    # An older request of the same case had approvals, too.
    older = chain.approved()
    chain.decided(older, "denied", by=world.second_approver)
    entry = chain.requested()
    votes = [
        chain.decided(entry, by=voter)["metadata"]["session_id"]
        for voter in (world.second_approver, world.approver)
    ]
    (result,) = chain.ran()
    record = result["execution_record"]
    assert record["approval_decision_ids"] == votes
    assert record["approval_decision_id"] == votes[-1]  # the one that met the quorum
    assert (record["entry_id"], record["approval_plan_id"]) == (entry["entry_id"], entry["approval_plan_id"])
    claim = payload(Record.objects.get(kind=EXECUTION_CLAIM.name).record_id)
    assert claim["approval_decision_ids"] == votes
    assert claim["manifest_digest"] == record["manifest_digest"] == entry["manifest_digest"]
    named = {one["id"] for one in result["execution_metadata"]["references"]}
    assert set(votes) <= named
    assert not named & set(Vote.objects.exclude(decision_id__in=votes).values_list("decision_id", flat=True))


def test_w14_the_newest_acknowledgement_decides(chain: Chain) -> None:
    plan = chain.planned()
    (unread,) = chain.asked()
    assert (unread["action"], unread["entry_id"]) == ("wait_for_retry_ack", "")
    chain.reviewed(plan)
    chain.reviewed(plan, "dismissed")
    (dismissed,) = chain.asked()
    assert (dismissed["action"], dismissed["entry_id"]) == ("wait_for_retry_ack", "")
    chain.reviewed(plan, "resolved")
    (entry,) = chain.asked()
    chain.decided(entry)
    chain.reviewed(plan, "dismissed")
    with chain.nothing_leaves():
        (result,) = chain.ran()
        assert result["skipped"] == "acknowledgement_withdrawn"
    chain.reviewed(plan)
    assert chain.statuses() == ["delivered"]


def test_w15_the_retry_plan_is_the_one_that_was_asked_with(chain: Chain) -> None:
    world = chain.world
    entry = chain.requested()
    later = chain.planned()["retry_plan_id"]
    assert later != entry["retry_plan_id"]
    for other in (later, "gordackretry-0000000000000000", "free text"):
        assert chain.decided(entry, retry_plan_id=other, expect=409)["code"] == "retry_plan_mismatch"
    assert not Vote.objects.exists()
    said = chain.decided(entry, by=world.second_approver, retry_plan_id=entry["retry_plan_id"])
    assert said["decision"]["retry_plan_id"] == entry["retry_plan_id"]
    (result,) = chain.ran()
    assert result["execution_record"]["retry_plan_id"] == entry["retry_plan_id"]
    assert entry["retry_plan_id"] in {one["id"] for one in result["execution_metadata"]["references"]}


# --- W20: all or nothing --------------------------------------------------------------------------------------------


class Broken(Exception):
    """Something nobody thought of."""


def everything() -> dict[str, list[Any]]:
    """Every row of the product's tables; tokens are Django's."""
    return {
        model._meta.label: sorted(map(repr, model._base_manager.values_list()))
        for app in ("evidence", "recovery")
        for model in apps.get_app_config(app).get_models()
    }


def breaks(monkeypatch: pytest.MonkeyPatch, kind: str, error: Exception, times: int = 99) -> list[str]:
    """The ledger fails behind the last row of a record of ``kind`` (empty: any), so many times; what it met."""
    met: list[str] = []
    append = ledger.append

    def failing(drafts: Any) -> Any:
        done = append(drafts)
        hit = [draft.kind.name for draft in drafts if draft.kind.name == kind or not kind]
        if hit and len(met) < times:
            met.extend(hit[:1])
            raise error
        return done

    monkeypatch.setattr(ledger, "append", failing)
    return met


# What leaves is told afterwards, in a record of its own: a notice, a first delivery, a test, a question.
SENDING = (drill_views.Announce, delivery_views.Deliver, connector_views.SendCanary, reconciliation_views.Ask)
# A capsule is frozen at a head that is signed before it: that one says what is so, whatever comes of the capsule.
SIGNED_ON_THE_WAY = {"evidence.Checkpoint"}


def test_w20_an_act_that_breaks_in_the_middle_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch, keys: Keys
) -> None:
    ready = prepared(world, keys)
    for one in (one for one in acts() if one.view not in SENDING):
        if one.view is delivery_views.FreezePackage:
            world.acknowledged()  # content of its own, or the package is an existing one
        caller = client(ready.person(one))
        before, arrived = everything(), len(world.receiver.log)
        for error, status in ((Broken(), 500), (OperationalError("database is locked"), 503)):
            with monkeypatch.context() as patch:
                met = breaks(patch, "", error)
                answer = caller.post(ready.path(one), ready.bodies[one.view], format="json")
                assert met, f"{one} wrote no record"
            assert answer.status_code == status, str(one)
            after = everything()
            changed = {label for label in after if after[label] != before[label]}
            assert changed <= SIGNED_ON_THE_WAY, str(one)
        assert len(world.receiver.log) == arrived


def test_w20_one_wrong_route_keeps_the_others_unanswered(world: World) -> None:
    world.announced()
    caller = client(world.analyst)
    before = everything()
    right = {"schedule_id": world.schedule.schedule_id, "provider": "webhook"}
    for wrong in (
        {**right, "provider": "nowhere"},
        {**right, "schedule_id": "none"},
        {"provider": "webhook"},
    ):
        answer = caller.post(f"{B}/acknowledgements/bulk", {"routes": [right, wrong]}, format="json")
        assert answer.status_code in (400, 404)
        assert everything() == before


@pytest.mark.parametrize("kind", (WORKER_RUN.name, EXECUTION_CLAIM.name))
def test_w20_a_live_run_that_breaks_before_it_sends_sends_nothing(
    chain: Chain, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.approved()
    with chain.nothing_leaves(), monkeypatch.context() as patch:
        met = breaks(patch, kind, Broken())
        chain.post(chain.world.operator, f"{A}/worker-run", {"dry_run": False}, expect=500)
        assert met == [kind]
    assert not Record.objects.filter(kind__in=[EXECUTION_CLAIM.name, EXECUTION_RECORD.name]).exists()
    assert Record.objects.filter(kind=WORKER_RUN.name).count() == WorkerRun.objects.count()
    assert ApprovalEntry.objects.get().state == EntryState.APPROVED
    assert RetryDecision.objects.get().state == "open"
    assert Case.objects.get().state == CaseState.FAILED
    assert chain.statuses() == ["delivered"]


@pytest.mark.django_db(transaction=True)
def test_w20_what_was_sent_is_written_although_the_database_failed_once(
    committed: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed.failed()
    chain = Chain(committed)
    chain.approved()
    sent = len(committed.receiver.log)
    with monkeypatch.context() as patch:
        met = breaks(patch, EXECUTION_RECORD.name, OperationalError("database is locked"), times=1)
        assert chain.statuses() == ["delivered"]
        assert met == [EXECUTION_RECORD.name]
    assert len(committed.receiver.log) == sent + 1
    assert Record.objects.filter(kind=EXECUTION_RECORD.name).count() == 1
    assert (Execution.objects.get().state, Case.objects.get().state) == ("delivered", CaseState.DELIVERED)


def test_w20_a_broken_connector_breaks_no_run_of_others(two: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAVRA_TEST_TOKEN", "value-of-the-test")
    row = Connector.objects.get(key="backup")
    row.token_ref = "env:CAVRA_TEST_TOKEN"
    configuration.save(row, by=None, clock=two.clock)
    two.failed()
    chain = Chain(two)
    chain.reviewed(chain.planned())
    for entry in chain.asked():
        chain.decided(entry)
    monkeypatch.delenv("CAVRA_TEST_TOKEN")
    results = {result["decision"]["provider"]: result for result in chain.ran()}
    assert results["webhook"]["execution_record"]["execution_status"] == "delivered"
    assert results["backup"]["skipped"] == "connector_config_not_configured"
    runs = client(two.auditor).get(f"{A}/worker-runs").json()
    assert runs["total"] == 1
