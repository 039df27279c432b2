"""Every reason that can stand against an act is produced here by what people and machines really do.

The tables name each code once; the last tests hold them against the enums and against the rules' own source.
"""

import ast
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evidence.connectors.specs import Receipt
from evidence.domain import configuration, configured_secrets, deliveries, packages, people, sending
from evidence.domain import policies as evidence_policies
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import DomainError
from evidence.models import AuditPackage, Case, Connector, Person, Record, Route
from recovery.console.actions import ACTIONS
from recovery.documents import EXECUTION_RECORD
from recovery.domain import (
    approval_plans,
    approvals,
    dispositions,
    policies,
    reconciliations,
    retry_plans,
    turns,
)
from recovery.domain.approvals import Ballot
from recovery.domain.dispositions import Proposal
from recovery.domain.reconciliations import Statement
from recovery.domain.retry_plans import Review
from recovery.enums import (
    Act,
    ApprovalState,
    DispositionKind,
    EntryState,
    PlanAction,
    RetryAckState,
    Seen,
    SkipCode,
)
from recovery.execution import runs
from recovery.models import ApprovalEntry, Disposition, Execution
from tests.builders import IMMEDIATE, Clock, World, connector, person
from tests.evidence.breaking import opened, window
from tests.heads import data_of_its_own, lay_outside
from tests.recovery.checks import behind_the_back, payload

TOKEN = "CAVRA_TEST_TOKEN"


@dataclass
class Scene:
    """A world whose time stands, and the environment its connector refers to."""

    world: World
    clock: Clock
    environment: pytest.MonkeyPatch
    folder: Path

    @property
    def entry(self) -> ApprovalEntry:
        """The newest request."""
        return approvals.entries().latest("pk")

    def configured(self, **fields: Any) -> None:
        """The connector as an administrator leaves it."""
        row = Connector.objects.get(key="webhook")
        for name, value in fields.items():
            setattr(row, name, value)
        configuration.save(row, by=None, clock=self.clock)

    def reviewed(self, state: RetryAckState, by: Person | None = None) -> None:
        """An answer to the newest plan's decision."""
        plan = retry_plans.plan_by_id(self.entry.retry_plan.retry_plan_id)
        review = Review(provider="webhook", state=state)
        retry_plans.acknowledge(plan, review, by=by or self.world.second_analyst, clock=self.clock)

    def voted(self, state: ApprovalState, by: Person) -> None:
        """A word on the newest request."""
        approvals.decide(self.entry, Ballot(state=state, notes="read"), by=by, clock=self.clock)

    def asked(self) -> dict[str, Any]:
        """The one case as an approval plan lists it."""
        draft = approval_plans.request(by=self.world.analyst, clock=self.clock)
        (listed,) = draft.view[draft.kind.payload_key]["approval_decisions"]
        return dict(listed)

    def first_unheard(self) -> tuple[Case, list[Receipt]]:
        """A first try that was sent and given up before its answer was written, and that answer."""
        world = self.world
        world.announced()
        world.acknowledged()
        package = packages.freeze(PackageFilters(), by=world.analyst, clock=self.clock).package
        request = DeliveryRequest(filters=PackageFilters())
        connectors = list(Connector.objects.all())
        opened = deliveries.open_plan(package, connectors, request, by=world.analyst, clock=self.clock)
        receipts = sending.send_cases(opened.cases, retries=0, timeout_s=5.0)
        self.clock.forward(minutes=10)
        assert deliveries.expire_leases(clock=self.clock) == 1
        (case,) = opened.cases
        case.refresh_from_db()
        return case, receipts


@pytest.fixture
def scene(timed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    monkeypatch.setenv(TOKEN, "first-value")
    made = Scene(timed, clock, monkeypatch, tmp_path)
    made.configured(token_ref=f"env:{TOKEN}")
    return made


Doing = Callable[[Scene], object]


# --- against using an approval ------------------------------------------------------------------------------------


def behind(scene: Scene) -> None:
    """Somebody else's clock is two hours ahead and writes an entry."""
    scene.clock.forward(hours=2)
    people.grant_role(scene.world.auditor, Role.VIEWER, by=None, clock=scene.clock)
    scene.clock.forward(hours=-2)


def set_back(scene: Scene) -> None:
    """The head beside the database is larger than the log."""
    data_of_its_own(scene.environment, scene.folder)
    lay_outside()


def erased(scene: Scene) -> None:
    package = Record.objects.filter(record_id=AuditPackage.objects.get().audit_id)
    behind_the_back(lambda: package.update(body=None))


SKIPS: dict[SkipCode, Doing] = {
    SkipCode.AUDIT_PACKAGE_NOT_FOUND: erased,
    SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED: lambda scene: scene.environment.delenv(TOKEN),
    SkipCode.APPROVAL_EXPIRED: lambda scene: scene.clock.forward(hours=5),
    SkipCode.APPROVAL_REVOKED: lambda scene: scene.voted(ApprovalState.DENIED, scene.world.second_approver),
    SkipCode.MANIFEST_CHANGED: lambda scene: scene.configured(headers={"x-lane": "blue"}),
    SkipCode.RETRY_WINDOW_NOT_OPEN: lambda scene: scene.world.policy(allow_immediate_retry=False),
    SkipCode.CONNECTOR_DISABLED: lambda scene: scene.configured(enabled=False),
    SkipCode.SENDING_PAUSED: lambda scene: configuration.pause(
        "*", reason="freeze", by=scene.world.administrator, clock=scene.clock
    ),
    SkipCode.CLOCK_BEHIND: behind,
    SkipCode.LEDGER_BEHIND: set_back,
    SkipCode.ACKNOWLEDGEMENT_WITHDRAWN: lambda scene: scene.reviewed(RetryAckState.DISMISSED),
    SkipCode.RETRY_LIMIT_REACHED: lambda scene: scene.world.policy(max_retry_attempts=1),
    SkipCode.BREAKER_OPEN: lambda scene: opened("webhook", scene.clock),
    SkipCode.MAINTENANCE_WINDOW: lambda scene: window(
        "webhook", scene.clock(), scene.clock() + timedelta(hours=1), scene.clock
    ),
}

# Codes that no record says here, and why.
NOT_YET = {
    SkipCode.THROTTLED: "these approvals lift the delay, and with it this; tests/recovery/test_waits.py has one",
    SkipCode.LEDGER_CLOSED: "a closed log takes no record of it either",
}


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, marks=pytest.mark.tampers if act is erased else ()) for code, act in SKIPS.items()],
)
def test_every_reason_against_using_an_approval_is_recorded(scene: Scene, code: SkipCode) -> None:
    """A run that was left to the worker meets what happened after it was started."""
    world = scene.world
    world.failed()
    world.approved()
    world.ran(background=True)
    SKIPS[code](scene)
    sent = len(world.receiver.log)
    assert runs.execute_due(clock=scene.clock) == 1
    said = payload(Record.objects.filter(kind=EXECUTION_RECORD.name).latest("index").record_id)
    assert (said["execution_status"], said["skipped"], said["attempt_id"]) == ("skipped", code, "")
    assert said["skip_reason"]
    assert scene.entry.last_skip == code
    assert len(world.receiver.log) == sent
    assert not Execution.objects.exists()
    ended = scene.entry.state not in (EntryState.PENDING, EntryState.APPROVED)
    assert ended == (code in (SkipCode.MANIFEST_CHANGED, SkipCode.APPROVAL_REVOKED))


# --- against a person's act ---------------------------------------------------------------------------------------


def failed(scene: Scene) -> Case:
    """A case whose first try failed."""
    (case,) = scene.world.failed()
    return case


def is_sending(scene: Scene) -> Case:
    return scene.world.claimed().execution.case


def is_unknown(scene: Scene) -> Case:
    return scene.world.unknown().execution.case


def is_parked(scene: Scene) -> Case:
    scene.world.announced()
    scene.world.acknowledged()
    opened("webhook", scene.clock)
    request = DeliveryRequest(filters=PackageFilters())
    (case,) = deliveries.deliver_audit(request, by=scene.world.analyst, clock=scene.clock).cases
    return case


def is_settled(scene: Scene) -> Case:
    (case,) = scene.world.delivered()
    return case


def settled_meanwhile(scene: Scene) -> None:
    """A first answer arrives after two people said that it had not arrived, and a retry is asked for."""
    world, (case, receipts) = scene.world, scene.first_unheard()
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    world.requested()
    deliveries.record_first_attempts([case], receipts, by=world.analyst, clock=scene.clock)
    scene.voted(ApprovalState.APPROVED, world.second_approver)


def denied_before(scene: Scene) -> None:
    failed(scene)
    scene.world.requested()
    scene.voted(ApprovalState.DENIED, scene.world.approver)
    scene.voted(ApprovalState.APPROVED, scene.world.second_approver)


def too_late_to_approve(scene: Scene) -> None:
    failed(scene)
    (entry,) = scene.world.requested()
    scene.clock.at = entry.approve_by + timedelta(seconds=1)
    scene.voted(ApprovalState.APPROVED, scene.world.approver)


def too_late_to_deny(scene: Scene) -> None:
    failed(scene)
    (entry,) = scene.world.approved()
    assert entry.execute_by is not None
    scene.clock.at = entry.execute_by + timedelta(seconds=1)
    scene.voted(ApprovalState.DENIED, scene.world.second_approver)


def approved_before(scene: Scene) -> None:
    failed(scene)
    scene.world.approved()
    scene.voted(ApprovalState.APPROVED, scene.world.second_approver)


def attested_a_failure(scene: Scene) -> None:
    reconciliations.attest(
        failed(scene),
        Statement(Seen.DELIVERED, external_ref="INC-1"),
        by=scene.world.second_analyst,
        clock=scene.clock,
    )


def attested_another_try(scene: Scene) -> None:
    statement = Statement(Seen.DELIVERED, external_ref="INC-1", attempt_no=7)
    case = scene.world.unknown().execution.case
    reconciliations.attest(case, statement, by=scene.world.analyst, clock=scene.clock)


def voted_on_ones_own_request(scene: Scene) -> None:
    scene.world.analyst = person(Role.ANALYST, Role.APPROVER)
    failed(scene)
    scene.world.requested()
    scene.voted(ApprovalState.APPROVED, scene.world.analyst)


def acknowledged_what_one_approved(scene: Scene) -> None:
    scene.world.approver = person(Role.ANALYST, Role.APPROVER)
    failed(scene)
    scene.world.approved()
    scene.reviewed(RetryAckState.ACCEPTED, by=scene.world.approver)


def attested_what_one_sent(scene: Scene) -> None:
    scene.world.operator = person(Role.OPERATOR, Role.ANALYST)
    case = scene.world.unknown().execution.case
    scene.world.attested(case, Seen.DELIVERED, scene.world.operator)


def proposed(scene: Scene, case: Case, instead: Case | None = None) -> Disposition:
    """Somebody proposes to settle a case without a delivery."""
    kind = DispositionKind.SUPERSEDED_BY if instead else DispositionKind.ABANDONED
    proposal = Proposal(
        kind, reason="called off", superseded_by=instead.case_id if instead else "", external_ref="CHG-1"
    )
    dispositions.propose(case, proposal, by=scene.world.analyst, clock=scene.clock)
    return dispositions.dispositions().latest("pk")


def disposed_while_sending(scene: Scene) -> None:
    proposed(scene, is_sending(scene))


def disposed_while_unknown(scene: Scene) -> None:
    proposed(scene, is_unknown(scene))


def disposed_although_settled(scene: Scene) -> None:
    proposed(scene, is_settled(scene))


def proposed_twice(scene: Scene) -> None:
    case = failed(scene)
    proposed(scene, case)
    proposed(scene, case)


def superseded_by_another_connectors(scene: Scene) -> None:
    connector("elsewhere", scene.world.receiver.url("/elsewhere"))
    (instead,) = scene.world.delivered("elsewhere")
    (case,) = scene.world.failed("webhook")
    proposed(scene, case, instead)


def superseded_by_a_failure(scene: Scene) -> None:
    proposed(scene, failed(scene), failed(scene))


def superseded_by_something_older(scene: Scene) -> None:
    instead = is_settled(scene)
    scene.clock.forward(minutes=1)
    proposed(scene, failed(scene), instead)


def decided_after_its_end(scene: Scene) -> None:
    disposition = proposed(scene, failed(scene))
    for approver in (scene.world.approver, scene.world.second_approver):
        dispositions.refuse(disposition, by=approver, clock=scene.clock, notes="not yet")


def confirmed_after_another_attempt(scene: Scene) -> None:
    case = failed(scene)
    scene.world.approved()
    disposition = proposed(scene, case)
    scene.world.receiver.behave("/webhook", status=503)
    scene.world.ran()
    dispositions.confirm(disposition, by=scene.world.second_approver, clock=scene.clock)


def confirmed_what_one_proposed(scene: Scene) -> None:
    scene.world.analyst = person(Role.ANALYST, Role.APPROVER)
    disposition = proposed(scene, failed(scene))
    dispositions.confirm(disposition, by=scene.world.analyst, clock=scene.clock)


# By the function that gives the reason, and the code that the act is refused with.
REFUSED: dict[tuple[str, str], tuple[Doing, ...]] = {
    ("reasons_against_decision", "settled"): (settled_meanwhile,),
    ("reasons_against_decision", "entry_ended"): (denied_before,),
    ("reasons_against_decision", "approval_expired"): (too_late_to_approve, too_late_to_deny),
    ("reasons_against_decision", "already_approved"): (approved_before,),
    ("reasons_against_reconciling", "not_unknown"): (attested_a_failure, attested_another_try),
    ("reasons_against_disposing", "sending"): (disposed_while_sending,),
    ("reasons_against_disposing", "outcome_unknown"): (disposed_while_unknown,),
    ("reasons_against_disposing", "settled"): (disposed_although_settled,),
    ("reasons_against_proposing", "disposition_open"): (proposed_twice,),
    ("reasons_against_successor", "successor_elsewhere"): (superseded_by_another_connectors,),
    ("reasons_against_successor", "successor_not_delivered"): (superseded_by_a_failure,),
    ("reasons_against_successor", "successor_older"): (superseded_by_something_older,),
    ("reasons_against_disposition_decision", "disposition_ended"): (decided_after_its_end,),
    ("reasons_against_disposition_decision", "disposition_stale"): (confirmed_after_another_attempt,),
    # What is about the person has one code; the sentences differ.
    ("reasons_against_voting", "second_person_required"): (voted_on_ones_own_request,),
    ("reasons_against_acknowledging", "second_person_required"): (acknowledged_what_one_approved,),
    ("reasons_against_attesting", "second_person_required"): (attested_what_one_sent,),
    ("reasons_against_confirming", "second_person_required"): (confirmed_what_one_proposed,),
}


@pytest.mark.parametrize(
    ("rule", "act"),
    [(rule, act) for rule, acts in REFUSED.items() for act in acts],
    ids=lambda value: value.__name__ if callable(value) else "-".join(value),
)
def test_every_reason_against_an_act_refuses_it(scene: Scene, rule: tuple[str, str], act: Doing) -> None:
    with pytest.raises(DomainError) as refused:
        act(scene)
    assert refused.value.code == rule[1]
    assert refused.value.status == (403 if rule[1] == "second_person_required" else 409)
    assert refused.value.detail


# --- against any retry at all -------------------------------------------------------------------------------------


NO_RETRY: dict[str, Callable[[Scene], Case]] = {
    "parked": is_parked,
    "sending": is_sending,
    "outcome_unknown": is_unknown,
    "settled": is_settled,
}


@pytest.mark.parametrize("code", NO_RETRY)
def test_every_reason_against_a_retry_keeps_one_from_being_planned_and_is_said(
    scene: Scene, code: str
) -> None:
    case = NO_RETRY[code](scene)
    case.refresh_from_db()
    ((found, sentence),) = policies.reasons_against_retry(case)
    assert found == code
    # The console's button asks the same rule.
    planning = ACTIONS[Act.PLAN].reasons(turns.standing(case), scene.world.analyst, scene.clock())
    assert planning == [sentence]
    before = ApprovalEntry.objects.count()
    draft = retry_plans.plan(IMMEDIATE, by=scene.world.analyst, clock=scene.clock)
    assert [one["action"] for one in draft.view[draft.kind.payload_key]["retry_decisions"]] == (
        ["suppress"] if code == "outcome_unknown" else []
    )
    approval_plans.request(by=scene.world.analyst, clock=scene.clock)
    assert ApprovalEntry.objects.count() == before


def test_a_failure_has_no_reason_against_its_retry(scene: Scene) -> None:
    case = failed(scene)
    assert case.state == CaseState.FAILED
    assert policies.reasons_against_retry(case) == []


# --- what an approval plan says -----------------------------------------------------------------------------------


def unreviewed(scene: Scene) -> None:
    scene.world.planned()


def reviewed(scene: Scene) -> None:
    scene.world.reviewed(scene.world.planned())


def too_early(scene: Scene) -> None:
    scene.world.reviewed(scene.world.planned({}))


def approved(scene: Scene) -> None:
    scene.world.approved()


def unusable(scene: Scene) -> None:
    reviewed(scene)
    scene.environment.delenv(TOKEN)


def without_approvers(scene: Scene) -> None:
    reviewed(scene)
    for approver in (scene.world.approver, scene.world.second_approver):
        people.revoke_role(approver, Role.APPROVER, by=None, clock=scene.clock)


def unsafe(scene: Scene) -> None:
    """The connector's new token is a word that stood in what is sent all along."""
    reviewed(scene)
    scene.environment.setenv(TOKEN, Route.objects.latest("pk").route_id)
    configured_secrets.forget()


PLANNED: dict[PlanAction, Doing] = {
    PlanAction.REQUEST_APPROVAL: reviewed,
    PlanAction.WAIT_FOR_RETRY_ACK: unreviewed,
    PlanAction.WAIT_FOR_RETRY_WINDOW: too_early,
    PlanAction.ALREADY_APPROVED: approved,
    PlanAction.WAIT_FOR_CONNECTOR: unusable,
    PlanAction.WAIT_FOR_APPROVERS: without_approvers,
    PlanAction.WAIT_FOR_PUBLIC_SAFETY: unsafe,
}


@pytest.mark.parametrize("action", PLANNED)
def test_every_answer_of_an_approval_plan_is_given_with_its_reason(scene: Scene, action: PlanAction) -> None:
    failed(scene)
    PLANNED[action](scene)
    listed = scene.asked()
    assert listed["action"] == action
    assert listed["reason"]
    asks = action in (
        PlanAction.REQUEST_APPROVAL,
        PlanAction.WAIT_FOR_RETRY_WINDOW,
        PlanAction.ALREADY_APPROVED,
    )
    assert bool(listed["entry_id"]) == asks == ApprovalEntry.objects.exists()


# --- completeness -------------------------------------------------------------------------------------------------


def rules_of(module: Any) -> set[tuple[str, str]]:
    """Every (rule, code) that a module's source can give; a rule without codes is about the person."""
    found = set()
    for function in ast.parse(inspect.getsource(module)).body:
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("reasons_against_"):
            continue
        assert function.returns is not None
        coded = "tuple" in ast.unparse(function.returns)
        codes = {
            item.elts[0].value
            for item in ast.walk(function)
            if isinstance(item, ast.Tuple)
            and len(item.elts) == 2
            and isinstance(item.elts[0], ast.Constant)
            and isinstance(item.elts[0].value, str)
        }
        assert bool(codes) == coded, function.name
        found |= {(function.name, code) for code in codes or {"second_person_required"}}
    return found


def test_every_reason_against_using_an_approval_is_produced() -> None:
    assert SKIPS.keys() | NOT_YET.keys() == set(SkipCode)
    assert not SKIPS.keys() & NOT_YET.keys()


def test_every_answer_of_an_approval_plan_is_produced() -> None:
    assert set(PLANNED) == set(PlanAction)


def test_every_rule_of_recovery_is_produced() -> None:
    produced = set(REFUSED) | {("reasons_against_retry", code) for code in NO_RETRY}
    assert rules_of(policies) == produced


def test_every_rule_about_sending_is_a_reason_against_a_claim() -> None:
    codes = {code for rule, code in rules_of(evidence_policies) if rule == "reasons_against_sending"}
    assert codes <= {code.value for code in SKIPS}
