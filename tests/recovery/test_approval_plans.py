"""Asking for approval: what is listed, and that one case never has two open entries (CONTRACT §5, P4, P6)."""

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction

from evidence.domain import configuration, deliveries, records
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Role
from evidence.errors import NotAllowed, NotFound
from evidence.models import Attempt, Connector, Record
from recovery.documents import APPROVAL_EXPIRY, APPROVAL_PLAN
from recovery.domain import approval_plans, approvals, manifests, retry_plans
from recovery.domain.approvals import Ballot
from recovery.enums import ApprovalState, EntryState
from recovery.models import ApprovalEntry, ApprovalPlan, ApprovalPlanItem
from tests.builders import IMMEDIATE, Clock, World, connector, person
from tests.recovery.checks import appended

PLAN = "retry_execution_approval_plan"


def asked(world: World, **how: object) -> dict:
    return approval_plans.request(by=world.analyst, clock=world.clock, **how).view[PLAN]


def test_the_plan_names_entry_digest_deadline_and_requester(timed: World, clock: Clock) -> None:
    (case,) = timed.failed()
    timed.reviewed(timed.planned())
    plan = asked(timed, reason="SIEM is back")
    entry = ApprovalEntry.objects.get()
    (listed,) = plan["approval_decisions"]
    assert (plan["approval_required_count"], plan["approved_count"], plan["waiting_count"]) == (1, 0, 0)
    assert (plan["reason"], plan["alert_level"]) == ("SIEM is back", "critical")
    assert (listed["action"], listed["entry_id"], listed["case"]) == (
        "request_approval",
        entry.entry_id,
        case.case_id,
    )
    assert listed["manifest_digest"] == entry.manifest_digest == records.digest(bytes(entry.manifest))
    assert (listed["required_approvals"], listed["votes"]) == (1, [])
    assert listed["requested_by"] == timed.analyst.username
    assert listed["approve_by"] == records.timestamp(entry.requested_at + timedelta(hours=24))
    assert (listed["failure_class"], listed["failed_status_codes"]) == ("unavailable", [503])


def test_p5_the_manifest_says_what_would_be_sent_without_address_or_secret(world: World) -> None:
    (case,) = world.failed()
    (entry,) = world.requested()
    manifest = records.load(entry.manifest)
    first = Attempt.objects.get()
    assert (manifest["case"], manifest["attempt_no"], manifest["epoch"]) == (case.case_id, 2, 1)
    assert manifest["payload"]["sha256"] == records.digest(bytes(entry.body)) == first.body_sha256
    assert manifest["previous"]["attempt_id"] == first.attempt_id
    assert manifest["policy"]["allow_immediate_retry"] is True
    assert manifest["requested_by"] == world.analyst.person_id
    assert b"127.0.0.1" not in bytes(entry.manifest)
    assert manifests.freeze(manifest)[0] == bytes(entry.manifest)


def test_p3_the_next_approver_sees_that_it_may_have_arrived(world: World) -> None:
    world.announced()
    world.acknowledged()
    world.receiver.behave("/webhook", hang_up=True)
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
    )
    world.reviewed(world.planned())
    (listed,) = asked(world)["approval_decisions"]
    assert (listed["may_have_arrived"], listed["failure_class"]) == (True, "connection_lost")
    assert records.load(ApprovalEntry.objects.get().manifest)["previous"]["may_have_arrived"] is True


def test_w14_an_acknowledgement_is_for_one_attempt(world: World) -> None:
    world.failed()
    world.approved()
    world.receiver.behave("/webhook", status=500)
    world.ran()
    world.planned()
    (listed,) = asked(world)["approval_decisions"]
    assert (listed["attempt_no"], listed["action"]) == (3, "wait_for_retry_ack")


def test_before_the_window_opens_an_entry_may_be_approved_already(world: World) -> None:
    world.failed()
    world.reviewed(world.planned({}))
    plan = asked(world)
    (listed,) = plan["approval_decisions"]
    assert (listed["action"], listed["approval_required"]) == ("wait_for_retry_window", True)
    assert (plan["approval_required_count"], plan["waiting_count"]) == (0, 1)
    world.vote(ApprovalEntry.objects.get())
    assert ApprovalEntry.objects.get().state == EntryState.APPROVED


def test_an_open_entry_is_listed_again_and_keeps_its_requester(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    draft = approval_plans.request(by=world.second_analyst, clock=world.clock)
    (listed,) = draft.view[PLAN]["approval_decisions"]
    assert (listed["entry_id"], listed["requested_by"]) == (entry.entry_id, world.analyst.username)
    assert ApprovalEntry.objects.count() == 1
    assert ApprovalPlanItem.objects.filter(entry=entry).count() == 2
    # Either plan leads to it.
    plan = ApprovalPlan.objects.get(approval_plan_id=draft.record_id)
    found = approvals.entry_of(
        plan,
        provider="webhook",
        delivery_id=entry.case.plan.delivery_id,
        audit_id=entry.case.package.audit_id,
    )
    assert found == entry


def test_an_approved_entry_is_listed_as_such(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    plan = asked(world)
    (listed,) = plan["approval_decisions"]
    assert (listed["action"], listed["entry_id"]) == ("already_approved", entry.entry_id)
    assert (plan["approved_count"], plan["approval_required_count"], plan["alert_level"]) == (1, 0, "healthy")
    assert [vote["approval_state"] for vote in listed["votes"]] == ["approved"]
    assert listed["votes"][0]["decided_by"] == world.approver.username


def test_w01_a_used_approval_is_not_listed_any_more(world: World) -> None:
    world.failed()
    world.approved()
    world.ran()
    assert asked(world)["approval_decisions"] == []


def test_after_a_failed_retry_a_new_entry_is_asked_for(world: World) -> None:
    world.failed()
    (first,) = world.approved()
    world.receiver.behave("/webhook", status=500)
    world.ran()
    assert asked(world)["approval_decisions"] == []
    (second,) = world.requested()
    assert (second.attempt_no, second.pk != first.pk) == (3, True)


@pytest.mark.parametrize("ended", (ApprovalState.DENIED, ApprovalState.EXPIRED))
def test_after_a_request_has_ended_a_new_one_may_be_made(world: World, ended: ApprovalState) -> None:
    world.failed()
    (entry,) = world.requested()
    world.vote(entry, ended)
    (listed,) = asked(world)["approval_decisions"]
    assert (listed["action"], listed["entry_id"] != entry.entry_id) == ("request_approval", True)
    assert listed["votes"] == []


@pytest.mark.parametrize(("approve", "ran_out"), ((False, "approve_by"), (True, "execute_by")))
def test_w03_what_ran_out_unswept_ends_when_somebody_asks_again(
    timed: World, clock: Clock, approve: bool, ran_out: str
) -> None:
    timed.failed()
    (entry,) = timed.approved() if approve else timed.requested()
    clock.forward(hours=25)
    with appended() as kinds:
        (listed,) = asked(timed)["approval_decisions"]
    assert kinds == ["retry-execution-approval-expiry", "retry-execution-approval-plan"]
    assert (listed["action"], listed["entry_id"] != entry.entry_id) == ("request_approval", True)
    entry.refresh_from_db()
    assert entry.state == EntryState.EXPIRED
    expiry = Record.objects.get(kind=APPROVAL_EXPIRY.name)
    assert records.payload_of(expiry)["clock"] == ran_out
    timed.vote(ApprovalEntry.objects.get(state=EntryState.PENDING))
    assert len(timed.ran(policy=IMMEDIATE).outcome.recorded) == 1


def test_w27_one_misconfigured_connector_waits_and_the_others_get_entries(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVRA_TEST_TOKEN", "a-token-of-the-test")
    backup = Connector.objects.get(key="backup")
    backup.token_ref = "env:CAVRA_TEST_TOKEN"
    configuration.save(backup, by=None, clock=two.clock)
    two.failed()
    two.reviewed(two.planned())
    monkeypatch.delenv("CAVRA_TEST_TOKEN")
    plan = asked(two)
    actions = {one["provider"]: one["action"] for one in plan["approval_decisions"]}
    assert actions == {"backup": "wait_for_connector", "webhook": "request_approval"}
    assert (plan["approval_required_count"], plan["waiting_count"]) == (1, 1)
    assert ApprovalEntry.objects.get().connector.key == "webhook"
    (reason,) = [one["reason"] for one in plan["approval_decisions"] if one["provider"] == "backup"]
    assert "token_ref" in reason
    assert "CAVRA_TEST_TOKEN" not in reason


def test_only_named_cases_are_asked_for(two: World) -> None:
    cases = two.failed()
    two.reviewed(two.planned())
    plan = asked(two, cases=[cases[0].case_id])
    assert [one["case"] for one in plan["approval_decisions"]] == [cases[0].case_id]
    assert ApprovalEntry.objects.get().case == cases[0]


def test_an_unknown_case_id_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        asked(world, cases=["gordackdelivery-0000000000000000.webhook"])
    assert not ApprovalPlan.objects.exists()


def test_nothing_to_ask_for_is_an_empty_plan(world: World) -> None:
    plan = asked(world)
    assert (plan["approval_decisions"], plan["alert_level"]) == ([], "healthy")


def test_w18_entries_are_found_by_exact_ids_only(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    right = {
        "provider": "webhook",
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
    }
    assert approvals.entry_of(entry.plan, **right) == entry
    for name in right:
        with pytest.raises(NotFound):
            approvals.entry_of(entry.plan, **{**right, name: "other"})
    with pytest.raises(NotFound):
        approvals.plan_by_id("gordackretryapproval-0000000000000000")


@pytest.mark.parametrize(
    "role", (Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR)
)
def test_w08_only_analysts_ask(world: World, role: Role) -> None:
    world.failed()
    world.reviewed(world.planned())
    with pytest.raises(NotAllowed):
        approval_plans.request(by=person(role), clock=world.clock)
    assert not ApprovalPlan.objects.exists()


def test_p2_the_database_holds_one_open_entry_for_a_case(world: World) -> None:
    world.failed()
    (entry,) = world.requested()
    twin = ApprovalEntry.objects.get(pk=entry.pk)
    twin.pk, twin.entry_id, twin._state.adding = None, "gordackretryentry-twin", True
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_two_plans_at_once_never_give_two_entries(committed_two: World) -> None:
    world = committed_two
    world.failed()
    world.reviewed(world.planned())
    start = threading.Barrier(6)
    seen: list[dict] = []

    def ask(by: object) -> None:
        try:
            start.wait()
            seen.append(approval_plans.request(by=by, clock=world.clock).view[PLAN])
        finally:
            connection.close()

    threads = [
        threading.Thread(target=ask, args=(by,))
        for by in (world.analyst, world.second_analyst)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6
    assert ApprovalEntry.objects.count() == 2
    entries = {(one["case"], one["entry_id"]) for plan in seen for one in plan["approval_decisions"]}
    assert len(entries) == 2
    assert {len(plan["approval_decisions"]) for plan in seen} == {2}
    # Each document says the same about who asked.
    assert (
        len({(one["case"], one["requested_by"]) for plan in seen for one in plan["approval_decisions"]}) == 2
    )
    assert Record.objects.filter(kind=APPROVAL_PLAN.name).count() == 6


def test_many_cases_are_asked_for_in_one_plan(world: World) -> None:
    for number in range(3):
        connector(f"extra_{number}", world.receiver.url(f"/extra_{number}"))
    keys = ("webhook", "extra_0", "extra_1", "extra_2")
    world.failed(*keys)
    world.reviewed(world.planned())
    plan = asked(world)
    assert plan["approval_required_count"] == 4
    assert {one["provider"] for one in plan["approval_decisions"]} == set(keys)
    for entry in ApprovalEntry.objects.all():
        approvals.decide(
            entry,
            Ballot(state=ApprovalState.APPROVED, manifest_digest=entry.manifest_digest),
            by=world.approver,
            clock=world.clock,
        )
    assert len(world.ran().outcome.recorded) == 4
    assert (
        retry_plans.survey(
            retry_plans.retry_policies.ceiling(retry_plans.retry_policies.configured()), world.clock()
        ).judgements
        == []
    )
