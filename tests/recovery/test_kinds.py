"""Every verb appends exactly the kinds it declares, and no kind is declared by a verb that never writes it (P10)."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from evidence.connectors import sender
from evidence.connectors.credentials import Misconfigured
from evidence.documents import KINDS, PUBLIC_SAFETY_OVERRIDE
from evidence.domain import (
    acknowledgements,
    anchors,
    canaries,
    capsules,
    checkpoints,
    configuration,
    deliveries,
    drills,
    epochs,
    erasures,
    holds,
    ledger,
    log_keys,
    overrides,
    packages,
    parking,
    people,
    records,
    retention,
    safety,
    sending,
    troubles,
)
from evidence.domain.acknowledgements import Answer
from evidence.domain.anchors import Kept
from evidence.domain.configuration import Entry
from evidence.domain.deliveries import DeliveryRequest, OpenedPlan
from evidence.domain.packages import PackageFilters
from evidence.enums import Administration, AnchorMeans, FailureClass, Role, RouteState, SafetyVerdict
from evidence.errors import DomainError
from evidence.models import (
    Case,
    Connector,
    EpochProposal,
    Erasure,
    NotificationPlan,
    Record,
    RecordCounter,
    RetentionRule,
)
from recovery.domain import (
    approval_plans,
    approvals,
    closures,
    dispositions,
    inquiries,
    playbooks,
    reconciliations,
    recoveries,
    renewals,
    retry_plans,
    sets,
    steps,
)
from recovery.domain.approvals import Ballot
from recovery.domain.closures import ClosureRequest
from recovery.domain.reconciliations import Statement
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, ClosureState, RetryAckState, Seen
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Recovery, RetrySet, WorkerRun
from tests.builders import IMMEDIATE, Clock, World, connector, person
from tests.evidence import breaking
from tests.evidence.ledger_keys import Keys
from tests.heads import data_of_its_own, lay_outside
from tests.recovery.checks import CHAIN, appended

Act = Callable[[], object]
# Takes what it names of: world, clock, keys.
Scenario = Callable[..., Act]

SCENARIOS: list[tuple[str, list[str], Scenario]] = []


def appends(verb: str, *kinds: str) -> Callable[[Scenario], Scenario]:
    """The decorated function prepares the call of ``verb``, which is to append exactly ``kinds``, in order."""

    def register(scenario: Scenario) -> Scenario:
        SCENARIOS.append((verb, list(kinds), scenario))
        return scenario

    return register


def event() -> dict[str, Any]:
    return {"session_id": "gordn-0000000000000000", "title": "a notice"}


# --- evidence -----------------------------------------------------------------------------------------------------


@appends("drills.announce", "go-backend-rollback-drill-notification-plan", "release-connector-delivery")
def announcing(world: World, clock: Clock) -> Act:
    return world.announced


@appends("drills.record_notification", "release-connector-delivery")
def recording_a_notice(world: World, clock: Clock) -> Act:
    done = drills.announce(world.schedule, by=world.analyst, clock=clock, retries=0)
    receipts = sending.send_event(list(Connector.objects.all()), event(), retries=0, timeout_s=5)
    plan = NotificationPlan.objects.get()
    return lambda: drills.record_notification(plan, done.plan, receipts, by=world.analyst, clock=clock)


@appends("acknowledgements.acknowledge", "go-backend-rollback-drill-notification-ack")
def answering(world: World, clock: Clock) -> Act:
    world.announced()
    answer = Answer(schedule_id=world.schedule.schedule_id, provider="webhook", state=RouteState.ACKNOWLEDGED)
    return lambda: acknowledgements.acknowledge([answer], by=world.analyst, clock=clock)


@appends("packages.freeze", "go-backend-rollback-drill-acknowledgement-audit-package")
def freezing(world: World, clock: Clock) -> Act:
    world.announced()
    return lambda: packages.freeze(PackageFilters(), by=world.analyst, clock=clock)


@appends("packages.freeze")
def freezing_the_same_again(world: World, clock: Clock) -> Act:
    freezing(world, clock)()
    return lambda: packages.freeze(PackageFilters(), by=world.analyst, clock=clock)


def opening(world: World, clock: Clock) -> Callable[[], OpenedPlan]:
    world.announced()
    package = packages.freeze(PackageFilters(), by=world.analyst, clock=clock).package
    return lambda: deliveries.open_plan(
        package,
        list(Connector.objects.all()),
        DeliveryRequest(filters=PackageFilters()),
        by=world.analyst,
        clock=clock,
    )


appends("deliveries.open_plan", CHAIN + "plan", CHAIN + "stream")(opening)


def parking_one(world: World, clock: Clock) -> Callable[[], OpenedPlan]:
    act = opening(world, clock)
    breaking.opened("webhook", clock)
    return act


appends("deliveries.open_plan", CHAIN + "plan", CHAIN + "stream", CHAIN + "parking")(parking_one)


@appends("parking.release", CHAIN + "release")
def releasing_a_parked_one(world: World, clock: Clock) -> Act:
    (case,) = parking_one(world, clock)().cases
    breaking.closed("webhook", clock)
    return lambda: parking.release(case.pk, clock=clock)


@appends("parking.take_over", CHAIN + "takeover")
def taking_a_parked_one_over(world: World, clock: Clock) -> Act:
    (case,) = parking_one(world, clock)().cases
    return lambda: parking.take_over(case, reason="gone", by=world.second_analyst, clock=clock)


@appends("deliveries.record_first_attempts", "release-connector-delivery", "connector-breaker")
def recording_the_first_attempt_that_is_one_too_many(world: World, clock: Clock) -> Act:
    opened_plan = opening(world, clock)()
    breaking.heard("webhook", *[FailureClass.UNAVAILABLE] * 4, clock=clock)
    world.receiver.behave("/webhook", status=503)
    receipts = sending.send_cases(opened_plan.cases, retries=0, timeout_s=5)
    return lambda: deliveries.record_first_attempts(
        opened_plan.cases, receipts, by=world.analyst, clock=clock
    )


@appends("drills.record_notification", "release-connector-delivery", "connector-breaker")
def recording_a_notice_that_is_one_too_many(world: World, clock: Clock) -> Act:
    done = drills.announce(world.schedule, by=world.analyst, clock=clock, retries=0)
    breaking.heard("webhook", *[FailureClass.UNAVAILABLE] * 4, clock=clock)
    world.receiver.behave("/webhook", status=503)
    receipts = sending.send_event(list(Connector.objects.all()), event(), retries=0, timeout_s=5)
    plan = NotificationPlan.objects.get()
    return lambda: drills.record_notification(plan, done.plan, receipts, by=world.analyst, clock=clock)


@appends("deliveries.record_first_attempts", "release-connector-delivery")
def recording_first_attempts(world: World, clock: Clock) -> Act:
    opened = opening(world, clock)()
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    return lambda: deliveries.record_first_attempts(opened.cases, receipts, by=world.analyst, clock=clock)


@appends("deliveries.record_first_attempts", "release-connector-delivery", CHAIN + "reconciliation")
def recording_a_late_first_attempt(world: World, clock: Clock) -> Act:
    opened = opening(world, clock)()
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    clock.forward(minutes=10)
    deliveries.expire_leases(clock=clock)
    return lambda: deliveries.record_first_attempts(opened.cases, receipts, by=world.analyst, clock=clock)


@appends("deliveries.expire_leases", "release-connector-delivery")
def giving_a_first_attempt_up(world: World, clock: Clock) -> Act:
    opening(world, clock)()
    clock.forward(minutes=10)
    return lambda: deliveries.expire_leases(clock=clock)


@appends("people.create", "person")
def creating(world: World, clock: Clock) -> Act:
    return lambda: people.create("newcomer", by=world.administrator, clock=clock)


@appends("people.update", "person")
def renaming(world: World, clock: Clock) -> Act:
    return lambda: people.update(world.analyst, by=world.administrator, clock=clock, full_name="Ada")


@appends("people.set_password", "person")
def changing_a_password(world: World, clock: Clock) -> Act:
    return lambda: people.set_password(
        world.analyst, "another correct horse", by=world.administrator, clock=clock
    )


@appends("people.set_active", "person")
def deactivating(world: World, clock: Clock) -> Act:
    return lambda: people.set_active(world.auditor, False, by=world.administrator, clock=clock)


@appends("people.issue_token", "person")
def issuing_a_token(world: World, clock: Clock) -> Act:
    return lambda: people.issue_token(world.analyst, by=world.administrator, clock=clock)


@appends("people.grant_role", "role-grant")
def granting(world: World, clock: Clock) -> Act:
    return lambda: people.grant_role(world.auditor, Role.VIEWER, by=world.administrator, clock=clock)


@appends("people.revoke_role", "role-grant")
def revoking(world: World, clock: Clock) -> Act:
    return lambda: people.revoke_role(world.auditor, Role.AUDITOR, by=world.administrator, clock=clock)


@appends("people.set_roles", "role-grant", "role-grant")
def exchanging_roles(world: World, clock: Clock) -> Act:
    return lambda: people.set_roles(world.auditor, [Role.VIEWER], by=world.administrator, clock=clock)


def renamed_connector() -> Connector:
    row = Connector.objects.get(key="webhook")
    row.title = "Another title"
    return row


@appends("configuration.save", "configuration-change")
def configuring(world: World, clock: Clock) -> Act:
    row = renamed_connector()
    return lambda: configuration.save(row, by=world.administrator, clock=clock)


@appends("configuration.save")
def configuring_what_is_so_already(world: World, clock: Clock) -> Act:
    row = Connector.objects.get(key="webhook")
    return lambda: configuration.save(row, by=world.administrator, clock=clock)


@appends("configuration.save_all", "configuration-change")
def configuring_several(world: World, clock: Clock) -> Act:
    entries = [Entry(renamed_connector())]
    return lambda: configuration.save_all(entries, by=world.administrator, clock=clock)


@appends("configuration.pause", "configuration-change")
def pausing(world: World, clock: Clock) -> Act:
    return lambda: configuration.pause("*", reason="freeze", by=world.administrator, clock=clock)


@appends("configuration.resume", "configuration-change")
def resuming(world: World, clock: Clock) -> Act:
    pausing(world, clock)()
    return lambda: configuration.resume("*", by=world.administrator, clock=clock)


def letting_through(world: World, clock: Clock) -> str:
    """Somebody lets a false hit through; the record that says so."""
    with safety.overriding("A placeholder of the manual."):
        holds.place("*", reason="as at http://splunk/manual", by=world.auditor, clock=clock)
    return Record.objects.get(kind=PUBLIC_SAFETY_OVERRIDE.name).record_id


@appends("holds.place", "legal-hold", "public-safety-override")
def holding_with_a_false_hit(world: World, clock: Clock) -> Act:
    return lambda: letting_through(world, clock)


@appends("overrides.review", "public-safety-review")
def reviewing_what_was_let_through(world: World, clock: Clock) -> Act:
    override = overrides.by_id(letting_through(world, clock))
    return lambda: overrides.review(
        override, verdict=SafetyVerdict.FALSE_HIT, by=world.administrator, clock=clock
    )


# --- testing connectors -------------------------------------------------------------------------------------------


@appends("canaries.send", "connector-canary")
def trying_a_connector(world: World, clock: Clock) -> Act:
    return lambda: canaries.send(Connector.objects.get(), by=world.operator, clock=clock)


def opened(world: World, clock: Clock) -> Connector:
    """A connector whose breaker was opened by canaries that failed."""
    row = Connector.objects.get()
    world.receiver.behave("/webhook", status=503)
    for _ in range(settings.CAVRA_BREAKER_FAILURES):
        canaries.send(row, by=world.operator, clock=clock)
        clock.forward(seconds=11)
    return row


@appends("canaries.send", "connector-canary", "connector-breaker")
def trying_a_connector_that_is_well_again(world: World, clock: Clock) -> Act:
    row = opened(world, clock)
    world.receiver.behave("/webhook", status=200)
    return lambda: canaries.send(row, by=world.operator, clock=clock)


@appends("canaries.probe_due", "connector-canary", "connector-breaker")
def trying_what_is_due(world: World, clock: Clock) -> Act:
    opened(world, clock)
    world.receiver.behave("/webhook", status=200)
    clock.forward(minutes=1)
    return lambda: canaries.probe_due(clock=clock)


@appends("canaries.give_up", "connector-canary")
def giving_a_canary_up(world: World, clock: Clock) -> Act:
    canaries._begin(Connector.objects.get(), by=world.operator, clock=clock)
    clock.forward(minutes=10)
    return lambda: canaries.give_up(clock=clock)


def failing(world: World, clock: Clock) -> None:
    """One connector failed an hour ago, and another one is to be told."""
    connector("chat", world.receiver.url("/chat"))
    row = Connector.objects.get(key="webhook")
    row.announce_through = "chat"
    configuration.save(row, by=None, clock=clock)
    world.failed("webhook")
    clock.forward(hours=1, minutes=1)


@appends("troubles.announce", "connector-trouble", "connector-trouble-notice")
def announcing_trouble(world: World, clock: Clock) -> Act:
    failing(world, clock)
    return lambda: troubles.announce(clock=clock)


@appends("troubles.announce", "connector-trouble", "connector-trouble-notice", "connector-breaker")
def announcing_trouble_through_one_that_fails(world: World, clock: Clock) -> Act:
    failing(world, clock)
    world.receiver.behave("/chat", status=503)
    for _ in range(settings.CAVRA_BREAKER_FAILURES - 1):
        canaries.send(Connector.objects.get(key="chat"), by=world.operator, clock=clock)
        clock.forward(seconds=11)
    return lambda: troubles.announce(clock=clock)


@appends("troubles.announce", "connector-trouble-end", "connector-trouble-notice")
def saying_that_it_is_over(world: World, clock: Clock) -> Act:
    announcing_trouble(world, clock)()
    canaries.send(Connector.objects.get(key="webhook"), by=world.operator, clock=clock)
    return lambda: troubles.announce(clock=clock)


# --- deciding -----------------------------------------------------------------------------------------------------


@appends("retry_plans.plan", CHAIN + "retry-plan")
def planning(world: World, clock: Clock) -> Act:
    world.failed()
    return lambda: retry_plans.plan(IMMEDIATE, by=world.analyst, clock=clock)


@appends("retry_plans.acknowledge", CHAIN + "retry-ack")
def reviewing(world: World, clock: Clock) -> Act:
    world.failed()
    plan = world.planned()
    review = Review(provider="webhook", state=RetryAckState.ACCEPTED)
    return lambda: retry_plans.acknowledge(plan, review, by=world.second_analyst, clock=clock)


@appends("approval_plans.request", CHAIN + "retry-execution-approval-plan")
def asking(world: World, clock: Clock) -> Act:
    world.failed()
    world.reviewed(world.planned())
    return lambda: approval_plans.request(by=world.analyst, clock=clock)


@appends(
    "approval_plans.request",
    CHAIN + "retry-execution-approval-expiry",
    CHAIN + "retry-execution-approval-plan",
)
def asking_again_after_it_ran_out(world: World, clock: Clock) -> Act:
    asking(world, clock)()
    clock.forward(hours=25)
    return lambda: approval_plans.request(by=world.analyst, clock=clock)


def asked(world: World) -> ApprovalEntry:
    world.failed()
    (entry,) = world.requested()
    return entry


@pytest.mark.parametrize("state", ApprovalState)
def test_every_word_of_an_approver_is_one_decision(timed: World, state: ApprovalState) -> None:
    entry = asked(timed)
    with appended() as kinds:
        timed.vote(entry, state)
    assert kinds == ["retry-execution-approval-decision"]


@appends("approvals.decide", CHAIN + "retry-execution-approval-decision")
def voting(world: World, clock: Clock) -> Act:
    entry = asked(world)
    return lambda: approvals.decide(
        entry, Ballot(state=ApprovalState.APPROVED), by=world.approver, clock=clock
    )


@appends("approvals.decide", CHAIN + "retry-execution-withdrawal")
def denying_ones_own(world: World, clock: Clock) -> Act:
    entry = asked(world)
    return lambda: approvals.decide(entry, Ballot(state=ApprovalState.DENIED), by=world.analyst, clock=clock)


@appends("approvals.decide", CHAIN + "retry-execution-approval-void")
def voting_on_what_has_changed(world: World, clock: Clock) -> Act:
    entry = asked(world)
    move_connector(world)
    return lambda: refusal(
        lambda: approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=world.approver, clock=clock)
    )


def refusal(act: Act) -> DomainError:
    with pytest.raises(DomainError) as refused:
        act()
    return refused.value


def move_connector(world: World) -> None:
    row = Connector.objects.get(key="webhook")
    row.url = world.receiver.url("/elsewhere")
    configuration.save(row, by=None, clock=world.clock)


@appends("approvals.withdraw", CHAIN + "retry-execution-withdrawal")
def withdrawing(world: World, clock: Clock) -> Act:
    entry = asked(world)
    ballot = Ballot(state=ApprovalState.DENIED)
    return lambda: approvals.withdraw(entry, ballot, by=world.analyst, clock=clock)


@appends("approvals.expire", CHAIN + "retry-execution-approval-expiry")
def expiring(world: World, clock: Clock) -> Act:
    asked(world)
    clock.forward(hours=25)
    return lambda: approvals.expire(clock=clock)


@appends("approvals.recount_all", CHAIN + "retry-execution-recount")
def counting_again(world: World, clock: Clock) -> Act:
    approve_and_leave(world)
    return lambda: approvals.recount_all(clock=clock)


def approve_and_leave(world: World) -> ApprovalEntry:
    """Approved by somebody who was deactivated since."""
    world.failed()
    (entry,) = world.approved()
    people.set_active(world.approver, False, by=world.administrator, clock=world.clock)
    return entry


@appends(
    "renewals.renew", CHAIN + "retry-execution-approval-plan", CHAIN + "retry-execution-approval-decision"
)
def renewing(world: World, clock: Clock) -> Act:
    world.failed()
    (entry,) = world.approved()
    clock.forward(hours=25)
    approvals.expire(clock=clock)
    ballot = Ballot(state=ApprovalState.APPROVED)
    return lambda: renewals.renew([entry], ballot, by=world.second_approver, clock=clock)


@appends("renewals.renew", CHAIN + "retry-execution-approval-void")
def renewing_what_has_changed(world: World, clock: Clock) -> Act:
    renew = renewing(world, clock)
    move_connector(world)
    return lambda: refusal(renew)


# --- sets ---------------------------------------------------------------------------------------------------------


def failed_set(world: World) -> RetrySet:
    cases = [case.case_id for case in world.failed()]
    return sets.choose(cases, {"state": "failed"}, by=world.analyst, clock=world.clock)


@appends("sets.choose", CHAIN + "retry-set")
def choosing(world: World, clock: Clock) -> Act:
    cases = [case.case_id for case in world.failed()]
    return lambda: sets.choose(cases, {"state": "failed"}, by=world.analyst, clock=clock)


def planned_set(world: World) -> RetrySet:
    row = failed_set(world)
    sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    return row


@appends("sets.acknowledge", CHAIN + "retry-ack")
def reviewing_a_set(world: World, clock: Clock) -> Act:
    row = planned_set(world)
    review = Review(provider="", state=RetryAckState.ACCEPTED)
    return lambda: sets.acknowledge(row, review, by=world.second_analyst, clock=clock)


def reviewed_set(world: World, clock: Clock) -> RetrySet:
    row = planned_set(world)
    review = Review(provider="", state=RetryAckState.ACCEPTED)
    sets.acknowledge(row, review, by=world.second_analyst, clock=clock)
    return row


@appends("sets.request", CHAIN + "retry-execution-approval-plan")
def asking_for_a_set(world: World, clock: Clock) -> Act:
    row = reviewed_set(world, clock)
    return lambda: sets.request(row, by=world.analyst, clock=clock)


@appends("sets.request", CHAIN + "retry-execution-approval-expiry", CHAIN + "retry-execution-approval-plan")
def asking_for_a_set_of_which_something_ran_out(world: World, clock: Clock) -> Act:
    row = reviewed_set(world, clock)
    approval_plans.request(by=world.analyst, clock=clock)
    clock.forward(hours=25)
    return lambda: sets.request(row, by=world.analyst, clock=clock)


def asked_set(world: World, clock: Clock) -> tuple[RetrySet, Ballot]:
    row = sets.request(reviewed_set(world, clock), by=world.analyst, clock=clock)
    return row, Ballot(state=ApprovalState.APPROVED, set_digest=row.digest)


@appends("sets.decide", CHAIN + "retry-execution-approval-decision")
def voting_on_a_set(world: World, clock: Clock) -> Act:
    row, ballot = asked_set(world, clock)
    return lambda: sets.decide(row, ballot, by=world.approver, clock=clock)


@appends("sets.decide", CHAIN + "retry-execution-approval-void")
def voting_on_a_set_that_has_changed(world: World, clock: Clock) -> Act:
    row, ballot = asked_set(world, clock)
    move_connector(world)
    return lambda: sets.decide(row, ballot, by=world.approver, clock=clock)


# --- executing ----------------------------------------------------------------------------------------------------


@appends("runs.start", CHAIN + "retry-plan", CHAIN + "worker-run")
def running_dry(world: World, clock: Clock) -> Act:
    world.failed()
    return lambda: runs.start(RunRequest(), by=world.operator, clock=clock)


@appends("runs.start", CHAIN + "retry-plan", CHAIN + "worker-run")
def running_live(world: World, clock: Clock) -> Act:
    world.failed()
    world.approved()
    return lambda: runs.start(RunRequest(dry_run=False), by=world.operator, clock=clock)


def ready(world: World, clock: Clock) -> tuple[ApprovalEntry, WorkerRun]:
    world.failed()
    (entry,) = world.approved()
    request = RunRequest(dry_run=False, policy=IMMEDIATE)
    return entry, runs.start(request, by=world.operator, clock=clock).run


@appends("claims.claim", CHAIN + "retry-execution-claim")
def claiming(world: World, clock: Clock) -> Act:
    entry, run = ready(world, clock)
    return lambda: claims.claim(entry.pk, run, clock=clock)


@appends("claims.claim", CHAIN + "retry-execution-record")
def passing_over(world: World, clock: Clock) -> Act:
    entry, run = ready(world, clock)
    pausing(world, clock)()
    return lambda: claims.claim(entry.pk, run, clock=clock)


@appends("claims.claim", CHAIN + "retry-execution-approval-void", CHAIN + "retry-execution-record")
def claiming_what_has_changed(world: World, clock: Clock) -> Act:
    entry, run = ready(world, clock)
    move_connector(world)
    return lambda: claims.claim(entry.pk, run, clock=clock)


@appends("claims.claim", CHAIN + "retry-execution-recount", CHAIN + "retry-execution-record")
def claiming_what_counts_no_more(world: World, clock: Clock) -> Act:
    entry, run = ready(world, clock)
    people.set_active(world.approver, False, by=world.administrator, clock=clock)
    return lambda: claims.claim(entry.pk, run, clock=clock)


def taken(world: World, clock: Clock) -> Claimed:
    entry, run = ready(world, clock)
    claimed = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(claimed, Claimed)
    return claimed


@appends("outcomes.record", "release-connector-delivery", CHAIN + "retry-execution-record")
def recording(world: World, clock: Clock) -> Act:
    claimed = taken(world, clock)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    return lambda: outcomes.record([(claimed.execution.pk, receipt)], clock=clock)


@appends(
    "outcomes.record", "release-connector-delivery", CHAIN + "retry-execution-record", "connector-breaker"
)
def recording_one_failure_too_many(world: World, clock: Clock) -> Act:
    claimed = taken(world, clock)
    breaking.heard("webhook", *[FailureClass.UNAVAILABLE] * 3, clock=clock)
    world.receiver.behave("/webhook", status=503)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    return lambda: outcomes.record([(claimed.execution.pk, receipt)], clock=clock)


@appends("outcomes.record", CHAIN + "retry-execution-reconciliation")
def recording_late(world: World, clock: Clock) -> Act:
    claimed = taken(world, clock)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    clock.at = claimed.execution.lease_until + timedelta(seconds=1)
    outcomes.expire_leases(clock=clock)
    return lambda: outcomes.record([(claimed.execution.pk, receipt)], clock=clock)


@appends("outcomes.record", CHAIN + "retry-execution-reconciliation", CHAIN + "retry-execution-cancellation")
def recording_late_what_people_had_given_up(world: World, clock: Clock) -> Act:
    """Two people attested that nothing arrived, the next try was approved, and then the answer came."""
    claimed = taken(world, clock)
    (receipt,) = sender.shared().send_all([claimed.spec], deadline_s=5)
    world.unheard(claimed)
    clock.at = claimed.execution.lease_until + timedelta(seconds=1)
    case = claimed.execution.case
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    world.approved()
    return lambda: outcomes.record([(claimed.execution.pk, receipt)], clock=clock)


@appends("approvals.cancel_settled", CHAIN + "retry-execution-cancellation")
def ending_what_a_late_first_answer_settled(world: World, clock: Clock) -> Act:
    opened = opening(world, clock)()
    receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5)
    clock.forward(minutes=10)
    deliveries.expire_leases(clock=clock)
    case = Case.objects.get()
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    world.requested()
    deliveries.record_first_attempts(opened.cases, receipts, by=world.analyst, clock=clock)
    return lambda: approvals.cancel_settled(clock=clock)


@appends("outcomes.expire_leases", "release-connector-delivery", CHAIN + "retry-execution-record")
def giving_up(world: World, clock: Clock) -> Act:
    claimed = taken(world, clock)
    clock.at = claimed.execution.lease_until + timedelta(seconds=1)
    return lambda: outcomes.expire_leases(clock=clock)


@appends("reconciliations.attest", CHAIN + "attestation")
def attesting(world: World, clock: Clock) -> Act:
    case = world.unknown().execution.case
    return lambda: world.attested(case, Seen.DELIVERED, world.approver)


@appends("reconciliations.attest", CHAIN + "attestation", CHAIN + "retry-execution-reconciliation")
def settling_by_attesting(world: World, clock: Clock) -> Act:
    case = world.unknown().execution.case
    world.attested(case, Seen.DELIVERED, world.approver)
    return lambda: world.attested(case, Seen.DELIVERED, world.second_analyst)


@appends("reconciliations.attest_all", *[CHAIN + "attestation"] * 2, CHAIN + "retry-execution-reconciliation")
def attesting_to_many(world: World, clock: Clock) -> Act:
    cases = [world.unknown().execution.case for _ in range(2)]
    world.attested(cases[0], Seen.DELIVERED, world.approver)
    said = Statement(Seen.DELIVERED, external_ref="INC-1")
    return lambda: reconciliations.attest_all(cases, said, by=world.second_analyst, clock=clock)


@appends("reconciliations.attest_all", CHAIN + "attestation", CHAIN + "reconciliation")
def settling_a_first_attempt_with_others(world: World, clock: Clock) -> Act:
    giving_a_first_attempt_up(world, clock)()
    case = Case.objects.get()
    world.attested(case, Seen.NOT_DELIVERED, world.approver)
    said = Statement(Seen.NOT_DELIVERED, external_ref="INC-1")
    return lambda: reconciliations.attest_all([case], said, by=world.second_analyst, clock=clock)


@appends("reconciliations.attest", CHAIN + "attestation", CHAIN + "reconciliation")
def settling_a_first_attempt_by_attesting(world: World, clock: Clock) -> Act:
    giving_a_first_attempt_up(world, clock)()
    case = Case.objects.get()
    world.attested(case, Seen.NOT_DELIVERED, world.approver)
    return lambda: world.attested(case, Seen.NOT_DELIVERED, world.second_analyst)


def found(case: Case, clock: Clock) -> Act:
    """The connector says that it has the case's message."""
    question = inquiries.question_about(Case.objects.select_related("connector").get(pk=case.pk))
    said = sending.misconfigured("token", question.connector, Misconfigured("url", "nowhere"))
    receipt = replace(said, failure_class=None, status_code=200, found=True, reference="JIRA:PAY-1")
    return lambda: inquiries.hear(question, receipt, by=None, clock=clock)


@appends("inquiries.hear", CHAIN + "retry-execution-reconciliation")
def finding_an_unknown_retry(world: World, clock: Clock) -> Act:
    return found(world.unknown().execution.case, clock)


@appends("inquiries.hear", CHAIN + "reconciliation", CHAIN + "retry-execution-cancellation")
def finding_a_first_attempt_whose_retry_was_asked_for(world: World, clock: Clock) -> Act:
    (case,) = world.failed()
    world.requested()
    return found(case, clock)


# --- settling without a delivery ----------------------------------------------------------------------------------


@appends("dispositions.propose", CHAIN + "disposition-proposal")
def proposing(world: World, clock: Clock) -> Act:
    (case,) = world.failed()
    return lambda: world.proposed(case)


@appends("dispositions.confirm", CHAIN + "disposition")
def confirming(world: World, clock: Clock) -> Act:
    (case,) = world.failed()
    found = world.proposed(case)
    return lambda: dispositions.confirm(found, by=world.approver, clock=clock)


@appends("dispositions.confirm", CHAIN + "disposition", CHAIN + "retry-execution-cancellation")
def confirming_while_a_retry_is_asked_for(world: World, clock: Clock) -> Act:
    entry = asked(world)
    found = world.proposed(entry.case)
    return lambda: dispositions.confirm(found, by=world.approver, clock=clock)


@appends("dispositions.refuse", CHAIN + "disposition")
def refusing(world: World, clock: Clock) -> Act:
    (case,) = world.failed()
    found = world.proposed(case)
    return lambda: dispositions.refuse(found, by=world.approver, clock=clock, notes="Try again first.")


@appends("dispositions.withdraw", CHAIN + "disposition")
def taking_a_proposal_back(world: World, clock: Clock) -> Act:
    (case,) = world.failed()
    found = world.proposed(case)
    return lambda: dispositions.withdraw(found, by=world.analyst, clock=clock)


# --- recovering ---------------------------------------------------------------------------------------------------


@appends("playbooks.generate", CHAIN + "connector-recovery-playbook")
def writing_a_playbook(world: World, clock: Clock) -> Act:
    world.failed()
    return lambda: playbooks.generate(by=world.analyst, clock=clock, min_failure_count=1)


@appends("closures.close", CHAIN + "connector-recovery-closure")
def closing(world: World, clock: Clock) -> Act:
    world.failed()
    request = ClosureRequest(
        provider="webhook", state=ClosureState.ESCALATED, external_ref="SERVICENOW:INC0012345"
    )
    playbook = world.playbook()
    return lambda: closures.close(playbook, request, by=world.analyst, clock=clock)


@appends("steps.tick", CHAIN + "connector-recovery-step")
def ticking(world: World, clock: Clock) -> Act:
    world.failed()
    world.playbook()
    recovery = Recovery.objects.get()
    return lambda: steps.tick(recovery, "check_owner", done=True, note="", by=world.analyst, clock=clock)


@appends("recoveries.bring_back", CHAIN + "connector-recovery-return")
def bringing_back(world: World, clock: Clock) -> Act:
    world.failed()
    request = ClosureRequest(
        provider="webhook",
        state=ClosureState.MITIGATED,
        owner="siem-team",
        review_at=clock() + timedelta(days=1),
    )
    closures.close(world.playbook(), request, by=world.analyst, clock=clock)
    clock.forward(days=1)
    return lambda: recoveries.bring_back(clock=clock)


# --- erasing ------------------------------------------------------------------------------------------------------


def about_to_be_erased(world: World) -> Erasure:
    answering(world, world.clock)()  # type: ignore[arg-type]
    record = Record.objects.latest("index")
    return erasures.propose([record.record_id], "law", "asked", by=world.administrator, clock=world.clock)


@appends("erasures.propose", "erasure-proposal")
def proposing_an_erasure(world: World, clock: Clock) -> Act:
    answering(world, clock)()
    record = Record.objects.latest("index")
    return lambda: erasures.propose([record.record_id], "law", "asked", by=world.administrator, clock=clock)


@appends("erasures.confirm", "erasure")
def confirming_an_erasure(world: World, clock: Clock) -> Act:
    found = about_to_be_erased(world)
    return lambda: erasures.confirm(found, by=world.auditor, clock=clock)


@appends("erasures.refuse", "erasure-refusal")
def refusing_an_erasure(world: World, clock: Clock) -> Act:
    found = about_to_be_erased(world)
    return lambda: erasures.refuse(found, by=world.auditor, clock=clock, notes="Still needed.")


@appends("erasures.withdraw", "erasure-refusal")
def taking_an_erasure_back(world: World, clock: Clock) -> Act:
    found = about_to_be_erased(world)
    return lambda: erasures.withdraw(found, by=world.administrator, clock=clock)


def kept_for_a_day(world: World) -> RetentionRule:
    rule = RetentionRule(kind="go-backend-rollback-drill-notification-plan", keep_days=1, legal_basis="law")
    configuration.save(rule, by=world.administrator, clock=world.clock)
    return rule


@appends("retention.confirm", "configuration-change")
def confirming_a_retention_rule(world: World, clock: Clock) -> Act:
    rule = kept_for_a_day(world)
    return lambda: retention.confirm(rule, by=world.auditor, clock=clock)


@appends("erasures.retire", "erasure")
def erasing_what_was_kept_long_enough(world: World, clock: Clock) -> Act:
    world.announced()
    rule = retention.confirm(kept_for_a_day(world), by=world.auditor, clock=clock)
    clock.forward(days=2)
    found = list(retention.due(rule, clock()))
    return lambda: erasures.retire(rule, found, clock=clock)


@appends("holds.place", "legal-hold")
def placing_a_hold(world: World, clock: Clock) -> Act:
    return lambda: holds.place("*", reason="court", by=world.auditor, clock=clock)


@appends("holds.lift", "legal-hold-lift")
def lifting_a_hold(world: World, clock: Clock) -> Act:
    hold = holds.place("*", reason="court", by=world.auditor, clock=clock)
    return lambda: holds.lift(hold, reason="over", by=world.auditor, clock=clock)


# --- the log itself -----------------------------------------------------------------------------------------------


@appends("log_keys.introduce", "ledger-key")
def introducing_a_key(keys: Keys) -> Act:
    return keys.add


@appends("log_keys.retire", "ledger-key")
def retiring_a_key(world: World, clock: Clock, keys: Keys) -> Act:
    old = keys.add()
    keys.add("next")
    checkpoints.make(clock=clock)
    return lambda: log_keys.retire(old.key_id, reason="rotated", by=world.administrator, clock=clock)


@appends("log_keys.revoke", "ledger-key")
def revoking_a_key(world: World, clock: Clock, keys: Keys) -> Act:
    key = keys.add()
    return lambda: log_keys.revoke(key.key_id, reason="stolen", by=world.administrator, clock=clock)


@appends("anchors.hold", "ledger-anchor")
def holding_a_head_outside(world: World, clock: Clock, keys: Keys) -> Act:
    keys.add()
    head = checkpoints.make(clock=clock)
    assert head
    kept = Kept(AnchorMeans.FILE, "heads", b"")
    return lambda: anchors.hold(
        head, kept, administered_by=Administration.ORGANISATION, by=world.auditor, clock=clock
    )


@appends("capsules.freeze", "case-capsule")
def taking_a_case_away(world: World, clock: Clock, keys: Keys) -> Act:
    keys.add()
    (case,) = world.failed()
    return lambda: capsules.freeze(case, by=world.auditor, clock=clock)


def set_back(world: World, clock: Clock) -> EpochProposal:
    """An administrator proposes a new epoch, because the head that is kept outside is further on."""
    lay_outside(ahead=20)
    return epochs.propose(reason="backup of 10:00", by=world.administrator, clock=clock)


@appends("epochs.propose", "ledger-epoch-proposal")
def proposing_an_epoch(world: World, clock: Clock) -> Act:
    lay_outside(ahead=20)
    return lambda: epochs.propose(reason="backup of 10:00", by=world.administrator, clock=clock)


@appends("epochs.withdraw", "ledger-epoch-withdrawal")
def withdrawing_an_epoch(world: World, clock: Clock) -> Act:
    proposal = set_back(world, clock)
    return lambda: epochs.withdraw(proposal, reason="the disk was found", by=world.administrator, clock=clock)


@appends(
    "epochs.confirm",
    "ledger-epoch-genesis",
    "ledger-key",
    CHAIN + "retry-execution-approval-void",
    "release-connector-delivery",
    CHAIN + "retry-execution-record",
    "ledger-epoch-effects",
)
def beginning_an_epoch(world: World, clock: Clock, keys: Keys) -> Act:
    keys.add()
    world.claimed()
    world.failed()
    world.approved()
    proposal = set_back(world, clock)
    return lambda: epochs.confirm(proposal, by=world.auditor, clock=clock)


# --- the tests ----------------------------------------------------------------------------------------------------

# Verbs that have others do part of it: a notice is recorded once it was sent, an epoch ends what stood.
INNER: dict[str, tuple[str, ...]] = {
    "holds.place": ("ledger.append",),
    "drills.announce": ("drills.record_notification",),
    "epochs.confirm": ("log_keys.carry_over", "restored.end_old_epoch"),
}
# Written by no verb's call here: the log's first entry before any test, and a transfer in the other database.
ELSEWHERE = {"ledger.start": {"ledger-genesis"}, "transfers.transfer": {"ledger-transfer"}}


def declared() -> dict[str, set[str]]:
    """Which kinds each verb declares, from the kinds table."""
    found: dict[str, set[str]] = defaultdict(set)
    for kind in KINDS.values():
        for verb in kind.written_by:
            found[verb].add(kind.name)
    return found


@pytest.mark.parametrize(
    ("verb", "kinds", "scenario"), tuple(SCENARIOS), ids=[f"{v}-{s.__name__}" for v, _, s in SCENARIOS]
)
def test_p10_a_verb_appends_exactly_what_it_says(
    timed: World,
    clock: Clock,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verb: str,
    kinds: list[str],
    scenario: Scenario,
) -> None:
    data_of_its_own(monkeypatch, tmp_path)
    there = {"world": timed, "clock": clock, "keys": keys}
    act = scenario(**{name: there[name] for name in signature(scenario).parameters})
    before = Record.objects.count()
    act()
    written = list(Record.objects.filter(index__gte=before).order_by("index").values_list("kind", flat=True))
    assert written == kinds
    assert set(written) <= declared()[verb].union(*(declared()[inner] for inner in INNER.get(verb, ())))


def test_p10_every_declared_kind_is_shown_here() -> None:
    shown: dict[str, set[str]] = defaultdict(set)
    for verb, kinds, _ in SCENARIOS:
        by_others = {inner: declared()[inner] & set(kinds) for inner in INNER.get(verb, ())}
        shown[verb] |= set(kinds).difference(*by_others.values())
        for inner, found in by_others.items():
            shown[inner] |= found
    assert shown | ELSEWHERE == declared()


def test_the_log_starts_once(timed: World) -> None:
    with appended() as kinds:
        ledger.start("another-name", at=timed.clock())
    assert kinds == []
    assert Record.objects.filter(kind="ledger-genesis").count() == 1
    first = records.payload_of(Record.objects.get(index=0))
    assert first is not None
    assert first["epoch"] == 1


def test_p10_a_refused_verb_appends_nothing(timed: World, clock: Clock) -> None:
    entry = asked(timed)
    nobody = person()
    with appended() as kinds:
        for act in (
            lambda: retry_plans.plan(IMMEDIATE, by=nobody, clock=clock),
            lambda: retry_plans.plan({"max_retry_attempts": 99}, by=timed.analyst, clock=clock),
            lambda: approval_plans.request(by=nobody, clock=clock),
            lambda: approvals.decide(entry, Ballot(state=ApprovalState.APPROVED), by=nobody, clock=clock),
            lambda: runs.start(RunRequest(dry_run=False), by=timed.analyst, clock=clock),
            lambda: playbooks.generate(by=nobody, clock=clock),
        ):
            refusal(act)
    assert kinds == []


@pytest.mark.parametrize("column", ("kind", "record_id"))
def test_what_the_database_keeps_has_room_for_every_kind(column: str) -> None:
    """SQLite does not mind a text that is too long; PostgreSQL refuses the verb."""
    room = Record._meta.get_field(column).max_length
    for kind in KINDS.values():
        needed = kind.name if column == "kind" else f"{kind.prefix}-{'0' * 16}"
        assert len(needed) <= room, needed
        assert len(kind.name) <= RecordCounter._meta.get_field("kind").max_length
