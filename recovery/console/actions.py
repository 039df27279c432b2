"""What can be done about one case, as data: label, form, the verb behind it, and what stands against it now.

Whether something may be done is asked of the lists of reasons that the verbs themselves ask.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms

from evidence.domain import heartbeats, live, parking, policies
from evidence.domain.clock import Clock, system_clock
from evidence.enums import Product
from evidence.errors import Conflict
from evidence.models import Person
from evidence.permissions import Permission as Sending
from recovery.console import disposing
from recovery.console.forms import (
    AcknowledgeForm,
    AskForm,
    AttestForm,
    DecideForm,
    ExecuteForm,
    PlanForm,
    RenewForm,
    RequestForm,
    TakeOverForm,
    WithdrawForm,
)
from recovery.domain import approval_plans, approvals, inquiries, reconciliations, renewals, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.policies import (
    ACKNOWLEDGED,
    reasons_against_acknowledging,
    reasons_against_attesting,
    reasons_against_decision,
    reasons_against_reconciling,
    reasons_against_retry,
    reasons_against_voting,
)
from recovery.domain.retry_plans import Review
from recovery.domain.turns import Standing
from recovery.enums import Act, ApprovalState, EntryState, RetryAckState, Seen
from recovery.execution import asking, claims, runs
from recovery.execution.selection import RunRequest, applied
from recovery.models import ApprovalEntry, RetryPlanItem
from recovery.permissions import Permission

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Action:
    """One act: the contract's label, who may, its form, and what it does.

    ``against`` gives the reasons why nobody may now, ``against_person`` those about somebody who has the role;
    ``perform`` calls the verb and returns what is said afterwards. ``shows`` is what the page shows of the case
    and the form sends back, so that nobody acts on something else. Of an act that is ``signed``, ``perform``
    finds under ``signed_in`` how and when the person had signed in.
    """

    act: Act
    label: str
    permission: str
    form: type[forms.Form]
    against: Callable[[Standing, datetime], list[str]]
    perform: Callable[[Standing, Data, Person, Clock], str]
    against_person: Callable[[Standing, Person, datetime], list[str]] = lambda standing, person, at: []
    shows: Callable[[Standing], Data] = lambda standing: {}
    signed: bool = False

    def reasons(self, standing: Standing, person: Person, at: datetime) -> list[str]:
        """Everything that stands against it for this person now; empty means yes."""
        return (
            self.against(standing, at)
            or policies.reasons_against_role(person, self.permission)
            or self.against_person(standing, person, at)
        )


def _sentences(reasons: list[tuple[str, str]]) -> list[str]:
    return [sentence for _, sentence in reasons]


# --- plan, acknowledge, ask -----------------------------------------------------------------------------------


def _against_planning(standing: Standing, at: datetime) -> list[str]:
    if standing.is_sending:
        return ["A try is under way."]
    if standing.open_entry:
        return ["An approval was asked for; the plan stands until that ends."]
    return _sentences(reasons_against_retry(standing.case))


def _plan(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    policy = {"allow_immediate_retry": True} if data["immediate"] else {}
    draft = retry_plans.plan(policy, by=by, clock=clock, cases=[standing.case.case_id])
    return f"Planned. Recorded as {draft.record_id}."


def _against_acknowledging(standing: Standing, at: datetime) -> list[str]:
    if reasons := reasons_against_retry(standing.case):
        return _sentences(reasons)
    if standing.is_sending:
        return ["A try is under way."]
    if standing.decision is None:
        return ["No retry is planned."]
    return []


def _shown_decision(standing: Standing) -> Data:
    decision = standing.decision
    return {"attempt_no": decision.attempt_no, "policy_digest": decision.policy_digest} if decision else {}


def _against_acknowledger(standing: Standing, person: Person, at: datetime) -> list[str]:
    return reasons_against_acknowledging(person, [standing.open_entry]) if standing.open_entry else []


def _acknowledge(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    case, decision = standing.case, standing.decision
    shown = (data["attempt_no"], data["policy_digest"])
    if decision and shown != (decision.attempt_no, decision.policy_digest):
        raise Conflict(
            f"Not acknowledged: the retry was planned again since you read it, now as attempt "
            f"{decision.attempt_no} by {decision.planned_by.username}. Read it as it is now.",
            code="decision_changed",
        )
    item = (
        RetryPlanItem.objects.filter(decision=decision).select_related("plan").order_by("-plan__pk").first()
    )
    if item is None:
        raise Conflict("Not acknowledged: no retry is planned for this case.", code="decision_closed")
    review = Review(
        provider=case.connector.key,
        state=RetryAckState(data["state"]),
        delivery_id=case.plan.delivery_id,
        audit_id=case.package.audit_id,
        external_ref=data["external_ref"],
        notes=data["notes"],
    )
    draft = retry_plans.acknowledge(item.plan, review, by=by, clock=clock)
    return f"Answer recorded as {draft.record_id}. Nothing was sent."


def _against_asking(standing: Standing, at: datetime) -> list[str]:
    if reasons := reasons_against_retry(standing.case):
        return _sentences(reasons)
    decision = standing.decision
    if decision is None:
        return ["No retry is planned."]
    if standing.open_entry:
        return ["Approval was asked for already."]
    if decision.suppressed:
        return ["The tries that the policy allows are used up."]
    if decision.ack_state not in ACKNOWLEDGED:
        said = (
            f"The newest answer is “{decision.ack_state}”."
            if decision.ack_state
            else "Nobody acknowledged it yet."
        )
        return [f"The retry has to be acknowledged first. {said}"]
    return []


def _ask(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    draft = approval_plans.request(by=by, clock=clock, cases=[standing.case.case_id], reason=data["reason"])
    listed = draft.view[draft.kind.payload_key]["approval_decisions"]
    if not listed or not listed[0]["entry_id"]:
        why = listed[0]["reason"] if listed else "no retry of this case is open any more."
        raise Conflict(f"Not asked for approval: {why}", code="not_requested")
    return f"Approval asked for. Recorded as {draft.record_id}; an approver decides now."


# --- decide, renew, withdraw ----------------------------------------------------------------------------------


def _against_deciding(standing: Standing, at: datetime) -> list[str]:
    entry = standing.open_entry
    if entry is None:
        return ["Nothing waits for a decision."]
    return _sentences(reasons_against_decision(entry, ApprovalState.DENIED, at))


def _against_voter(standing: Standing, person: Person, at: datetime) -> list[str]:
    return reasons_against_voting(person, standing.open_entry) if standing.open_entry else []


def _shown_request(standing: Standing) -> Data:
    return _shown(standing.open_entry)


def _shown_lapsed(standing: Standing) -> Data:
    return _shown(standing.lapsed_entry)


def _shown(entry: ApprovalEntry | None) -> Data:
    return {"entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest} if entry else {}


def shown_entry(standing: Standing, entry_id: str) -> ApprovalEntry:
    """The entry of this case that a page showed; ``Conflict`` when it is not one of this case."""
    entry = approvals.entries().filter(case=standing.case, entry_id=entry_id).first()
    if entry is None:
        raise Conflict("Not recorded: this case has no such request.", code="entry_not_found")
    return entry


def _decide(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    ballot = _ballot(ApprovalState(data["state"]), data)
    draft = approvals.decide(shown_entry(standing, data["entry_id"]), ballot, by=by, clock=clock)
    return f"{DECIDED[ballot.state]} Recorded as {draft.record_id}."


def _ballot(state: ApprovalState, data: Data) -> Ballot:
    """A vote as the form says it, signed."""
    return Ballot(
        state=state,
        manifest_digest=data["manifest_digest"],
        external_ref=data["external_ref"],
        notes=data["notes"],
        reason_code=data["reason_code"],
        authenticated_by=data["signed_in"].by,
        authenticated_at=data["signed_in"].at,
    )


DECIDED = {
    ApprovalState.APPROVED: "Approved. Nothing was sent: an operator executes.",
    ApprovalState.DEFERRED: "Deferred. Another approver may decide.",
    ApprovalState.DENIED: "Denied. This request has ended; nothing is sent.",
}


def _against_renewing(standing: Standing, at: datetime) -> list[str]:
    entry = standing.lapsed_entry
    if entry is None:
        return ["No request about this attempt ran out."]
    return [f"Not renewed: {reason}" for reason in renewals.reasons_against_renewing(entry)]


def _against_renewer(standing: Standing, person: Person, at: datetime) -> list[str]:
    entry = standing.lapsed_entry
    return renewals.barred_from_renewing(person, [entry])[entry.pk] if entry else []


def _renew(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    entry = shown_entry(standing, data["entry_id"])
    *_, vote = renewals.renew([entry], _ballot(ApprovalState.APPROVED, data), by=by, clock=clock)
    return (
        f"Renewed, with your approval. Recorded as {vote.record_id}. Nothing was sent: an operator executes."
    )


def _against_withdrawing(standing: Standing, at: datetime) -> list[str]:
    return [] if standing.open_entry else ["Nothing was asked for that could be withdrawn."]


def _against_withdrawer(standing: Standing, person: Person, at: datetime) -> list[str]:
    entry = standing.open_entry
    if entry and entry.requested_by.principal != person.principal:
        return [f"Only {entry.requested_by.username}, who asked for this, may withdraw it."]
    return []


def _withdraw(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    ballot = Ballot(state=ApprovalState.DENIED, notes=data["notes"])
    draft = approvals.withdraw(shown_entry(standing, data["entry_id"]), ballot, by=by, clock=clock)
    return f"Withdrawn. Recorded as {draft.record_id}; nothing is sent."


# --- reconcile ------------------------------------------------------------------------------------------------


def _against_attesting(standing: Standing, at: datetime) -> list[str]:
    return _sentences(reasons_against_reconciling(standing.case))


def _against_witness(standing: Standing, person: Person, at: datetime) -> list[str]:
    return reasons_against_attesting(person, standing.case)


def _attest(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    statement = reconciliations.Statement(
        seen=Seen(data["seen"]),
        external_ref=data["external_ref"],
        notes=data["notes"],
        attempt_no=data["attempt_no"],
    )
    draft = reconciliations.attest(standing.case, statement, by=by, clock=clock)
    return f"What you saw is recorded as {draft.record_id}."


def _against_inquiring(standing: Standing, at: datetime) -> list[str]:
    return _sentences(inquiries.reasons_against_inquiry(standing.case, clock=system_clock))


def _inquire(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    connector = standing.case.connector
    heard = asking.ask_now(standing.case, by=by, clock=clock)
    if heard.moved_on:
        return "Asked, and the case moved on meanwhile: the answer is of no use any more."
    words = inquiries.told_words(Product(connector.product), heard.told, heard.failure_class)
    if not heard.settled:
        return f"{connector.key} was asked: {words}. Nothing is settled by that."
    where = f" as {heard.reference}" if heard.reference else ""
    settled = heard.settled[0].record_id
    return f"{connector.key} was asked: {words}{where}. The case is delivered; recorded as {settled}."


# --- take over ------------------------------------------------------------------------------------------------


def _against_taker(standing: Standing, person: Person, at: datetime) -> list[str]:
    return _sentences(parking.reasons_against_taking_over(standing.case, person))


def _take_over(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    draft = parking.take_over(standing.case, reason=data["reason"], by=by, clock=clock)
    return f"Taken over. Recorded as {draft.record_id}; it is sent for you once nothing holds it back."


# --- execute --------------------------------------------------------------------------------------------------


def _against_executing(standing: Standing, at: datetime) -> list[str]:
    entry = standing.open_entry
    if standing.is_sending:
        return ["It is being executed."]
    if standing.is_queued:
        return ["A run has it and waits for the worker."]
    if entry is None or entry.state != EntryState.APPROVED:
        missing = entry.required_approvals if entry else standing.case.connector.required_approvals
        return [f"Needs {missing} approval{'s' if missing > 1 else ''}; not given yet."]
    return []


def _against_claiming(standing: Standing, person: Person, at: datetime) -> list[str]:
    entry = standing.open_entry
    if entry is None:
        return []
    last = standing.case.last_outcome_at or standing.case.created_at
    return _sentences(
        [*claims.reasons_against_claim(entry, applied(entry, {}, last), at, clock=system_clock)]
    )


def worker_is_silent(clock: Clock) -> list[str]:
    """Why nothing that is left to the worker would happen soon."""
    return [] if heartbeats.alive(clock=clock) else ["The worker is not running: nothing would be sent."]


def against_live_runs(clock: Clock) -> list[str]:
    """Why no live run is started now, whoever asks: the database was set back, or nobody would execute it."""
    return _sentences(live.reasons_against_log(live.LogState.read())) or worker_is_silent(clock)


def _execute(standing: Standing, data: Data, by: Person, clock: Clock) -> str:
    policy = {"allow_immediate_retry": True} if data["immediate"] else {}
    cases = (standing.case.case_id,)
    if data["dry_run"]:
        # A dry run speaks of what is due; the delay that an approved manual run lifts is lifted here too.
        asked = RunRequest(dry_run=True, cases=cases, max_retry_deliveries=1, policy=policy)
        started = runs.start(asked, by=by, clock=clock)
        return f"Dry run recorded as {started.run.run_id}: nothing was sent, {started.run.selected_count} would be."
    if silent := worker_is_silent(clock):
        raise Conflict(f"Not executed. {silent[0]}", code="worker_silent")
    policies.require_role(by, Permission.RUN_LIVE)
    if standing.open_entry != shown_entry(standing, data["entry_id"]):
        raise Conflict("Not executed: the request that you were shown has ended.", code="entry_ended")
    at = clock()
    held = [] if data["immediate"] else _against_claiming(standing, by, at)
    if reasons := _against_executing(standing, at) or held:
        raise Conflict(f"Not executed. {reasons[0]}", code="not_executable", reasons=reasons)
    asked = RunRequest(dry_run=False, cases=cases, max_retry_deliveries=1, policy=policy, background=True)
    started = runs.start(asked, by=by, clock=clock)
    if not started.entries:
        raise Conflict("Not executed: the approval does not stand any more.", code="approval_revoked")
    return f"Handed to the worker as {started.run.run_id}. You can leave this page."


ACTIONS: dict[Act, Action] = {
    action.act: action
    for action in (
        Action(Act.PLAN, "Plan Audit Retry", Permission.PLAN_RETRY, PlanForm, _against_planning, _plan),
        Action(
            Act.ACKNOWLEDGE,
            "Ack Retry",
            Permission.ACKNOWLEDGE_RETRY,
            AcknowledgeForm,
            _against_acknowledging,
            _acknowledge,
            _against_acknowledger,
            _shown_decision,
        ),
        Action(
            Act.REQUEST,
            "Plan Retry Approval",
            Permission.REQUEST_APPROVAL,
            RequestForm,
            _against_asking,
            _ask,
        ),
        Action(
            Act.DECIDE,
            "Approve / Deny / Defer",
            Permission.DECIDE,
            DecideForm,
            _against_deciding,
            _decide,
            _against_voter,
            _shown_request,
            signed=True,
        ),
        Action(
            Act.RENEW,
            "Renew and approve",
            Permission.DECIDE,
            RenewForm,
            _against_renewing,
            _renew,
            _against_renewer,
            _shown_lapsed,
            signed=True,
        ),
        Action(
            Act.EXECUTE,
            "Execute Retry",
            Permission.RUN_LIVE,
            ExecuteForm,
            _against_executing,
            _execute,
            _against_claiming,
            _shown_request,
        ),
        Action(
            Act.ATTEST,
            "Reconcile",
            Permission.ATTEST,
            AttestForm,
            _against_attesting,
            _attest,
            _against_witness,
            lambda standing: {"attempt_no": standing.case.attempt_count},
        ),
        Action(
            Act.ASK,
            "Ask the connector now",
            Permission.ATTEST,
            AskForm,
            _against_inquiring,
            _inquire,
        ),
        Action(
            Act.TAKE_OVER,
            "Take it over",
            Sending.DELIVER,
            TakeOverForm,
            lambda standing, at: [],
            _take_over,
            _against_taker,
        ),
        Action(
            Act.WITHDRAW,
            "Withdraw",
            Permission.REQUEST_APPROVAL,
            WithdrawForm,
            _against_withdrawing,
            _withdraw,
            _against_withdrawer,
            _shown_request,
        ),
        Action(
            Act.PROPOSE_DISPOSITION,
            "Settle without a delivery",
            Permission.PROPOSE_DISPOSITION,
            disposing.FORMS[Act.PROPOSE_DISPOSITION],
            disposing.against_proposing,
            disposing.propose,
        ),
        Action(
            Act.DECIDE_DISPOSITION,
            "Confirm or refuse it",
            Permission.CONFIRM_DISPOSITION,
            disposing.FORMS[Act.DECIDE_DISPOSITION],
            disposing.against_deciding,
            disposing.decide,
            disposing.against_confirmer,
            disposing.shown,
            signed=True,
        ),
        Action(
            Act.WITHDRAW_DISPOSITION,
            "Take it back",
            Permission.PROPOSE_DISPOSITION,
            disposing.FORMS[Act.WITHDRAW_DISPOSITION],
            disposing.against_deciding,
            disposing.take_back,
            disposing.against_taking_back,
            disposing.shown,
        ),
    )
}
