"""Retry plans over unsettled cases, and the review of their decisions (CONTRACT §4).

The unit is the decision row: (case, attempt number, policy digest), one open per case. A plan is a
document over decisions; acknowledgements, entries and executions hang on the row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Case as SqlCase
from django.db.models import Value, When

from evidence.connectors.failures import PROPERTIES, STEPS
from evidence.documents import CONNECTOR_DELIVERY
from evidence.domain import attempts, breakers, ledger, policies, records, text
from evidence.domain import clock as clocks
from evidence.domain.attempts import Known, Source
from evidence.domain.breakers import Wait
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import AlertLevel, CaseState, FailureClass, Hold, Outcome
from evidence.errors import Conflict, NotAllowed, NotFound
from evidence.models import Attempt, Case, Person
from recovery.documents import RETRY_ACK, RETRY_PLAN
from recovery.domain import approvals, retry_policies, transitions
from recovery.domain.cases import require_cases
from recovery.domain.policies import ACKNOWLEDGED, reasons_against_acknowledging, reasons_against_retry
from recovery.domain.retry_policies import Policy
from recovery.enums import OPEN_ENTRY_STATES, DecisionState, Part, RetryAckState, RetryAction
from recovery.models import ApprovalEntry, RetryDecision, RetryPlan, RetryPlanItem
from recovery.permissions import Permission

MAX_DECISIONS = 200

UNSETTLED = (CaseState.FAILED, CaseState.UNKNOWN)


@dataclass(frozen=True)
class Judgement:
    """What a policy says about one unsettled case at one moment."""

    case: Case
    attempt: Attempt
    known: Known
    policy: Policy
    action: RetryAction
    reason: str
    not_before: datetime

    @property
    def attempt_no(self) -> int:
        """Number of the attempt that would come next."""
        return self.case.attempt_count + 1

    def as_dict(self, ack_state: str = "") -> dict[str, Any]:
        """The decision as documents list it (CONTRACT §8.6)."""
        case, attempt = self.case, self.attempt
        return {
            "case": case.case_id,
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "provider": case.connector.key,
            "provider_product": case.connector.product,
            "attempt_no": self.attempt_no,
            "policy_digest": self.policy.digest,
            "action": self.action.value,
            "reason": self.reason,
            "retry_count": case.counted_attempts,
            "max_retry_attempts": self.policy.max_retry_attempts,
            "retry_delay_minutes": int(self.policy.delay_after(case.counted_attempts).total_seconds() // 60),
            "latest_delivery_id": attempt.record_id,
            "latest_delivery_hash": attempt.record_hash,
            "latest_attempt_id": attempt.attempt_id,
            "latest_delivery_at": records.timestamp(attempt.completed_at),
            "next_retry_at": records.timestamp(self.not_before),
            "failed_status_codes": [] if self.known.status_code is None else [self.known.status_code],
            "failure_class": self.known.failure_class,
            "may_have_arrived": self.known.may_have_arrived,
            "outcome_known_by": self.known.source.value,
            "acknowledgement_state": ack_state,
        }


@dataclass(frozen=True)
class Survey:
    """Unsettled cases as a policy judges them: what a plan document is made of."""

    judgements: list[Judgement]
    remaining: int

    def count(self, action: RetryAction) -> int:
        """How many judgements say ``action``."""
        return sum(judgement.action is action for judgement in self.judgements)

    @property
    def alert_level(self) -> AlertLevel:
        """Critical when something is due, warning when something waits."""
        if self.count(RetryAction.RETRY):
            return AlertLevel.CRITICAL
        return AlertLevel.WARNING if self.count(RetryAction.WAIT) else AlertLevel.HEALTHY


def plan(
    sent_policy: Mapping[str, Any],
    *,
    by: Person,
    clock: Clock,
    cases: Sequence[str] | None = None,
    claimed_actor: str = "",
) -> records.Draft:
    """Decide about unsettled cases (all of them, or those named) and record the plan.

    A case keeps its open decision when policy and attempt are the same, or while an approval hangs on it;
    otherwise the old decision is superseded. Raises ``NotFound`` for a named case that is none,
    ``Conflict`` for a policy looser than the ceiling.
    """
    policies.require_role(by, Permission.PLAN_RETRY)
    with transaction.atomic():
        policy = retry_policies.tightened(retry_policies.ceiling(retry_policies.configured()), sent_policy)
        chosen, remaining = _unsettled(cases)
        locked = _lock(chosen)
        at = clocks.read(clock)
        open_decisions = {
            decision.case_id: decision
            for decision in RetryDecision.objects.filter(case__in=locked, state=DecisionState.OPEN)
        }
        # An approval hangs on these: the plan says what stands, not what was wished for.
        asked = ApprovalEntry.objects.filter(case__in=locked, state__in=OPEN_ENTRY_STATES).select_related(
            "decision"
        )
        bound = {entry.case_id: retry_policies.from_dict(entry.decision.policy) for entry in asked}
        for entry in asked:
            # Who plans again after an approval was asked for does not vote on it.
            approvals.add_party(entry, by, Part.PLANNER)
        survey = Survey(judge(locked, policy, at, bound), remaining)
        listed: list[tuple[RetryDecision, Judgement]] = []
        for judgement in survey.judgements:
            case = judgement.case
            decision = open_decisions.get(case.pk)
            if reasons_against_retry(case):
                continue
            same = decision and (decision.attempt_no, decision.policy_digest) == (
                judgement.attempt_no,
                judgement.policy.digest,
            )
            if decision and not same:
                move(transitions.DECISIONS, decision.pk, DecisionState.SUPERSEDED)
                decision = None
            if decision is None:
                decision = RetryDecision.objects.create(
                    case=case,
                    attempt_no=judgement.attempt_no,
                    policy_digest=policy.digest,
                    policy=policy.as_dict(),
                    suppressed=judgement.action is RetryAction.SUPPRESS,
                    not_before=judgement.not_before,
                    created_at=at,
                    planned_by=by,
                )
            listed.append((decision, judgement))
        acks = {decision.case_id: decision.ack_state for decision, _ in listed}
        draft = plan_document(survey, policy, acks=acks, at=at, by=by, claimed_actor=claimed_actor)
        row = RetryPlan.objects.create(
            retry_plan_id=draft.record_id, created_at=at, created_by=by, record_hash=draft.digest
        )
        RetryPlanItem.objects.bulk_create(
            RetryPlanItem(plan=row, decision=decision, action=judgement.action)
            for decision, judgement in listed
        )
        ledger.append([draft])
    return draft


def survey(policy: Policy, at: datetime, cases: Sequence[str] | None = None) -> Survey:
    """Judge unsettled cases without deciding anything: what a worker's own plan shows."""
    chosen, remaining = _unsettled(cases)
    return Survey(judge(chosen, policy, at), remaining)


def plan_document(
    surveyed: Survey,
    policy: Policy,
    *,
    at: datetime,
    by: Person,
    acks: Mapping[int, str] | None = None,
    claimed_actor: str = "",
    run_id: str = "",
    dry_run: bool = False,
) -> records.Draft:
    """The retry plan's document. With ``run_id`` it is a worker's observation and decides nothing."""
    acks = acks or {}
    judgements = surveyed.judgements
    return records.draft(
        RETRY_PLAN,
        records.mint_id(RETRY_PLAN),
        {
            "generated_at": records.timestamp(at),
            "generated_by": by.username,
            "alert_level": surveyed.alert_level.value,
            "decision_count": len(judgements),
            "retryable_count": surveyed.count(RetryAction.RETRY),
            "waiting_count": surveyed.count(RetryAction.WAIT),
            "suppressed_count": surveyed.count(RetryAction.SUPPRESS),
            "remaining_count": surveyed.remaining,
            "max_retry_attempts": policy.max_retry_attempts,
            "base_retry_delay_minutes": policy.retry_delay_minutes,
            "allow_immediate_retry": policy.allow_immediate_retry,
            "backoff_multiplier": float(policy.backoff_multiplier),
            "retry_decisions": [
                judgement.as_dict(acks.get(judgement.case.pk, "")) for judgement in judgements
            ],
            "observation": bool(run_id),
            "dry_run": dry_run,
            "run_id": run_id,
        },
        at=at,
        by=by,
        cases=[judgement.case.case_id for judgement in judgements],
        references=[
            *attempts.case_references(judgement.case for judgement in judgements),
            *(
                records.Reference(CONNECTOR_DELIVERY.name, j.attempt.record_id, j.attempt.record_hash)
                for j in judgements
            ),
        ],
        claimed_actor=claimed_actor,
    )


def judge(
    cases: Iterable[Case], general: Policy, at: datetime, bound: Mapping[int, Policy] | None = None
) -> list[Judgement]:
    """What a policy says about each case at ``at``: suppress, wait or retry (CONTRACT §10).

    ``bound`` maps cases (by key) to a policy of their own, ``general`` is that of the others.
    """
    cases, bound = list(cases), bound or {}
    standing = breakers.standing([case.connector for case in cases], at)
    latest = {
        attempt.case_id: attempt for attempt in Attempt.objects.filter(case__in=cases).order_by("number")
    }
    known = attempts.what_is_known(latest.values())
    judgements = []
    for case in cases:
        attempt, policy = latest[case.pk], bound.get(case.pk, general)
        # What the receiver asked for is part of the delay, as far as the policy heeds it.
        waits = [wait for wait in standing[case.connector_id].waits if wait.code is not Hold.THROTTLED]
        not_before = _opens(case, attempt, policy, waits)
        if against := reasons_against_retry(case):
            action, reason = RetryAction.SUPPRESS, against[0][1]
        elif case.counted_attempts >= policy.max_retry_attempts:
            action = RetryAction.SUPPRESS
            reason = f"{case.counted_attempts} tries left us; the policy allows {policy.max_retry_attempts}."
        elif waits:
            action, reason = RetryAction.WAIT, waits[0].sentence
        elif at < not_before:
            action, reason = RetryAction.WAIT, f"The retry window opens at {text.moment(not_before)}."
        else:
            action, reason = RetryAction.RETRY, _due(known[attempt.pk])
        judgements.append(Judgement(case, attempt, known[attempt.pk], policy, action, reason, not_before))
    return judgements


def _opens(case: Case, attempt: Attempt, policy: Policy, waits: Iterable[Wait]) -> datetime:
    """When the window opens: an approval that is asked for now outlasts the receiver's planned downtime."""
    opens = earliest_retry(case, attempt, policy)
    planned = (wait.until for wait in waits if wait.code is Hold.MAINTENANCE_WINDOW)
    return max([opens, *(until for until in planned if until)])


def _due(last: Known) -> str:
    """Why a retry is due, by what is known of the last try."""
    if last.outcome is Outcome.DELIVERED:
        return "People attested that the last try failed; its late answer says that it arrived. A retry repeats it."
    if last.source is not Source.ATTESTATION:
        return _due_after(last.failure_class)
    if last.may_have_arrived:
        return "Two people could not tell whether the last try arrived; a retry is due and may repeat it."
    return "Two people attested that the last try did not arrive; a retry is due."


def _due_after(failure_class: str) -> str:
    """Why a retry is due after a failure; one that does not pass by itself is said with what somebody has to do."""
    said = f"The last try failed ({failure_class or 'not sent'})"
    failure = PROPERTIES[FailureClass(failure_class)] if failure_class else None
    if failure is None or failure.retryable:
        return f"{said} and a retry is due."
    return f"{said}, which does not pass by itself. First: {STEPS[failure.steps[0]]} Then a retry is due."


def earliest_retry(case: Case, attempt: Attempt, policy: Policy) -> datetime:
    """When the window opens: the policy's delay, and what the receiver asked for with Retry-After."""
    opens = attempt.completed_at + policy.delay_after(case.counted_attempts)
    if attempt.retry_after_s is not None and not policy.allow_immediate_retry:
        opens = max(opens, attempt.completed_at + timedelta(seconds=attempt.retry_after_s))
    return opens


@dataclass(frozen=True)
class Review:
    """An analyst's answer to one decision of a plan."""

    provider: str
    state: RetryAckState
    delivery_id: str = ""
    audit_id: str = ""
    external_ref: str = ""
    notes: str = ""
    claimed_actor: str = ""


def acknowledge(row: RetryPlan, review: Review, *, by: Person, clock: Clock) -> records.Draft:
    """Record that somebody reviewed a decision. The newest state counts, whichever plan is quoted.

    Raises ``NotFound`` when the plan lists no such decision, ``Conflict`` ``ambiguous_entry`` when it lists
    several, ``decision_closed`` when the decision is not open any more, ``NotAllowed`` for somebody who
    approved this retry.
    """
    policies.require_role(by, Permission.ACKNOWLEDGE_RETRY)
    listed = _listed(row, review)
    with transaction.atomic():
        # Every verb about a case starts with its row.
        Case.objects.select_for_update(no_key=True).get(pk=listed.case_id)
        decision = (
            RetryDecision.objects.filter(
                case_id=listed.case_id,
                attempt_no=listed.attempt_no,
                policy_digest=listed.policy_digest,
                state=DecisionState.OPEN,
            )
            .select_related("case__plan", "case__package", "case__connector")
            .first()
        )
        if decision is None:
            raise Conflict("This decision is not open any more; plan again.", code="decision_closed")
        at = clocks.read(clock)
        draft = _review(decision, row, review, by=by, at=at)
        ledger.append([draft])
    return draft


def review_all(
    decisions: Sequence[RetryDecision], review: Review, *, by: Person, at: datetime
) -> list[records.Draft]:
    """The same answer to each open decision, whose cases the caller has locked; the records to append.

    Raises ``NotAllowed`` for somebody who approved one of these retries.
    """
    items = RetryPlanItem.objects.filter(decision__in=decisions).select_related("plan").order_by("plan__pk")
    newest = {item.decision_id: item.plan for item in items}
    return [_review(decision, newest[decision.pk], review, by=by, at=at) for decision in decisions]


def _review(
    decision: RetryDecision, row: RetryPlan, review: Review, *, by: Person, at: datetime
) -> records.Draft:
    """Put an answer on a decision; its record."""
    case = decision.case
    asked = list(ApprovalEntry.objects.filter(case=case, state__in=OPEN_ENTRY_STATES))
    if review.state in ACKNOWLEDGED and (against := reasons_against_acknowledging(by, asked)):
        raise NotAllowed(against[0], code="second_person_required", reasons=against)
    for entry in asked:
        # Who acknowledges after an approval was asked for does not vote on it either.
        approvals.add_party(entry, by, Part.ACKNOWLEDGER)
    draft = records.draft(
        RETRY_ACK,
        records.mint_id(RETRY_ACK),
        {
            "retry_plan_id": row.retry_plan_id,
            "retry_plan_hash": row.record_hash,
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "provider": case.connector.key,
            "attempt_no": decision.attempt_no,
            "policy_digest": decision.policy_digest,
            "acknowledgement_state": review.state.value,
            "acknowledged_by": by.username,
            "acknowledged_at": records.timestamp(at),
            "external_ref": review.external_ref,
            "notes": review.notes,
        },
        at=at,
        by=by,
        cases=[case.case_id],
        references=[
            records.Reference(RETRY_PLAN.name, row.retry_plan_id, row.record_hash),
            *attempts.case_references([case]),
        ],
        claimed_actor=review.claimed_actor,
    )
    move(
        transitions.DECISIONS,
        decision.pk,
        DecisionState.OPEN,
        ack_state=review.state,
        ack_id=draft.record_id,
        ack_hash=draft.digest,
        acknowledged_by=by,
        acknowledged_at=at,
    )
    return draft


def plan_by_id(retry_plan_id: str) -> RetryPlan:
    """The plan with this id; ``NotFound`` otherwise."""
    row = RetryPlan.objects.filter(retry_plan_id=retry_plan_id).first()
    if row is None:
        raise NotFound("There is no retry plan with this id.", code="retry_plan_not_found")
    return row


def _listed(row: RetryPlan, review: Review) -> RetryDecision:
    """The one decision of the plan that a review names."""
    items = RetryPlanItem.objects.filter(plan=row, decision__case__connector__key=review.provider)
    if review.delivery_id:
        items = items.filter(decision__case__plan__delivery_id=review.delivery_id)
    if review.audit_id:
        items = items.filter(decision__case__package__audit_id=review.audit_id)
    found = [item.decision for item in items.select_related("decision__case")[:50]]
    if not found:
        raise NotFound(
            "This retry plan lists no such decision.",
            code="decision_not_found",
            errors={"provider": [f"no decision about {review.provider} with these ids"]},
        )
    if len(found) > 1:
        raise Conflict(
            "Several decisions of this plan fit; add delivery_id.",
            code="ambiguous_entry",
            cases=[decision.case.case_id for decision in found],
        )
    return found[0]


def _unsettled(case_ids: Sequence[str] | None) -> tuple[list[Case], int]:
    """Unsettled cases, at most ``MAX_DECISIONS``, and how many more there are.

    Failed ones first, the oldest failure first: what waits for an answer takes no retryable case's place.
    """
    require_cases(case_ids)
    cases = Case.objects.filter(state__in=UNSETTLED).select_related("plan", "package", "connector")
    if case_ids is not None:
        cases = cases.filter(case_id__in=case_ids)
    total = cases.count()
    waits = SqlCase(When(state=CaseState.UNKNOWN, then=Value(1)), default=Value(0))
    chosen = list(cases.order_by(waits, "last_outcome_at", "pk")[:MAX_DECISIONS])
    return chosen, total - len(chosen)


def _lock(cases: Sequence[Case]) -> list[Case]:
    """The same cases, locked in one order for everybody, still unsettled, oldest failure first."""
    locked = (
        Case.objects.select_for_update(no_key=True, of=("self",))
        .filter(pk__in=[case.pk for case in cases], state__in=UNSETTLED)
        .select_related("plan", "package", "connector")
        .order_by("pk")
    )
    return sorted(locked, key=lambda case: (case.last_outcome_at or case.created_at, case.pk))
