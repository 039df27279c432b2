"""Asking for approval of a retry, and deciding about it (CONTRACT §5, P4 to P7).

Every verb about a case locks the case's row first, so that votes, withdrawals, expiry and claims of one
case happen one after the other.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from evidence.connectors.credentials import Misconfigured
from evidence.domain import clock as clocks
from evidence.domain import deliveries, ledger, policies, records
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import AlertLevel
from evidence.errors import Conflict, NotAllowed, NotFound
from evidence.models import Attempt, Case, ConnectorEdit, Person
from recovery.documents import (
    APPROVAL_DECISION,
    APPROVAL_EXPIRY,
    APPROVAL_PLAN,
    APPROVAL_VOID,
    APPROVAL_WITHDRAWAL,
    RETRY_PLAN,
)
from recovery.domain import manifests, retry_policies, transitions
from recovery.domain.policies import (
    ACKNOWLEDGED,
    reasons_against_decision,
    reasons_against_retry,
    reasons_against_voting,
)
from recovery.enums import (
    OPEN_ENTRY_STATES,
    ApprovalState,
    DecisionState,
    EntryState,
    Part,
    PlanAction,
)
from recovery.errors import ManifestChanged
from recovery.models import (
    ApprovalEntry,
    ApprovalPlan,
    ApprovalPlanItem,
    EntryParty,
    RetryDecision,
    RetryPlanItem,
    RetryPolicy,
    Vote,
)
from recovery.permissions import Permission

MAX_ENTRIES = 200


# --- asking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listed:
    """One case as an approval plan lists it."""

    decision: RetryDecision
    action: PlanAction
    reason: str
    entry: ApprovalEntry | None


def request(
    *,
    by: Person,
    clock: Clock,
    require_retry_ack: bool = True,
    cases: Sequence[str] | None = None,
    reason: str = "",
    claimed_actor: str = "",
) -> records.Draft:
    """Ask for approval of every open retry decision (or those of ``cases``) that may be asked for.

    An open entry is listed again and keeps its requester; a new one freezes manifest, body and parties.
    Raises ``NotFound`` for a named case that is none.
    """
    policies.require_role(by, Permission.REQUEST_APPROVAL)
    with transaction.atomic():
        decisions = _lock_open_decisions(cases)
        at = clocks.read(clock)
        policy_row = retry_policies.configured()
        plan_id = records.mint_id(APPROVAL_PLAN)
        plans = _newest_plans(decisions)
        open_entries = {
            entry.case_id: entry
            for entry in ApprovalEntry.objects.filter(
                case__in=[d.case_id for d in decisions], state__in=OPEN_ENTRY_STATES
            ).prefetch_related("votes")
        }
        latest = {
            attempt.case_id: attempt
            for attempt in Attempt.objects.filter(case__in=[d.case_id for d in decisions]).order_by("number")
        }
        listed = []
        for decision in decisions:
            if entry := open_entries.get(decision.case_id):
                listed.append(_again(decision, entry, at))
                continue
            try:
                listed.append(
                    _ask(
                        decision,
                        latest[decision.case_id],
                        plans[decision.pk],
                        policy_row,
                        require_retry_ack=require_retry_ack,
                        by=by,
                        at=at,
                    )
                )
            except Misconfigured as error:
                listed.append(
                    _Listed(decision, PlanAction.WAIT_FOR_CONNECTOR, f"The connector is misconfigured: {error}.", None)
                )
            except Conflict as error:
                listed.append(_Listed(decision, PlanAction.WAIT_FOR_CONNECTOR, error.detail, None))
        draft = _plan_document(
            plan_id,
            listed,
            plans,
            latest,
            require_retry_ack=require_retry_ack,
            reason=reason,
            at=at,
            by=by,
            claimed_actor=claimed_actor,
        )
        _store(draft, listed, require_retry_ack=require_retry_ack, by=by, at=at)
        ledger.append([draft])
    return draft


def _ask(
    decision: RetryDecision,
    previous: Attempt,
    retry_plan: RetryPlanItem,
    policy_row: RetryPolicy,
    *,
    require_retry_ack: bool,
    by: Person,
    at: datetime,
) -> _Listed:
    """List one decision without an open entry; the entry, if there is to be one, is not saved yet."""
    case = decision.case
    if require_retry_ack and decision.ack_state not in ACKNOWLEDGED:
        return _Listed(decision, PlanAction.WAIT_FOR_RETRY_ACK, "The retry has not been acknowledged.", None)
    event = deliveries.event_for(case.plan, case.package)
    prepared = deliveries.prepare_event(case.connector, event, about=case.case_id)
    policy = retry_policies.from_dict(decision.policy)
    terms = manifests.Terms(
        policy=policy,
        required_approvals=case.connector.required_approvals,
        require_retry_ack=require_retry_ack,
        requested_by=by,
        not_before=decision.not_before,
        approve_by=at + timedelta(minutes=policy_row.approve_within_minutes),
        execute_within_minutes=policy_row.execute_within_minutes,
    )
    manifest, digest = manifests.freeze(
        manifests.build(case, decision.attempt_no, previous, prepared, terms)
    )
    entry = ApprovalEntry(
        entry_id=f"gordackretryentry-{secrets.token_hex(8)}",
        retry_plan=retry_plan.plan,
        decision=decision,
        case=case,
        connector=case.connector,
        attempt_no=decision.attempt_no,
        manifest=manifest,
        manifest_digest=digest,
        body=prepared.body,
        public_headers=dict(prepared.public_headers),
        required_approvals=terms.required_approvals,
        require_retry_ack=require_retry_ack,
        requested_by=by,
        requested_at=at,
        not_before=terms.not_before,
        approve_by=terms.approve_by,
        execute_within_minutes=terms.execute_within_minutes,
    )
    return _Listed(decision, *_waiting(entry, at), entry)


def _again(decision: RetryDecision, entry: ApprovalEntry, at: datetime) -> _Listed:
    """List an entry that is open already."""
    if entry.state == EntryState.APPROVED:
        return _Listed(decision, PlanAction.ALREADY_APPROVED, "Approved and not used yet.", entry)
    return _Listed(decision, *_waiting(entry, at), entry)


def _waiting(entry: ApprovalEntry, at: datetime) -> tuple[PlanAction, str]:
    if entry.not_before > at:
        return (
            PlanAction.WAIT_FOR_RETRY_WINDOW,
            f"May be approved now; the retry window opens at {records.timestamp(entry.not_before)}.",
        )
    return PlanAction.REQUEST_APPROVAL, "Waits for a second person."


def _plan_document(
    plan_id: str,
    listed: Sequence[_Listed],
    plans: dict[int, RetryPlanItem],
    latest: dict[int, Attempt],
    *,
    require_retry_ack: bool,
    reason: str,
    at: datetime,
    by: Person,
    claimed_actor: str,
) -> records.Draft:
    asked = sum(item.action in _ASKING for item in listed)
    approved = sum(item.action is PlanAction.ALREADY_APPROVED for item in listed)
    waiting = len(listed) - asked - approved
    level = AlertLevel.CRITICAL if asked else AlertLevel.WARNING if waiting else AlertLevel.HEALTHY
    return records.draft(
        APPROVAL_PLAN,
        plan_id,
        {
            "generated_at": records.timestamp(at),
            "generated_by": by.username,
            "alert_level": level.value,
            "decision_count": len(listed),
            "approval_required_count": asked,
            "approved_count": approved,
            "waiting_count": waiting,
            "require_retry_ack": require_retry_ack,
            "reason": reason,
            "approval_decisions": [
                _listed_dict(item, plans[item.decision.pk], latest[item.decision.case_id]) for item in listed
            ],
        },
        at=at,
        by=by,
        cases=[item.decision.case.case_id for item in listed],
        references=dict.fromkeys(
            records.Reference(RETRY_PLAN.name, item.plan.retry_plan_id, item.plan.record_hash)
            for item in plans.values()
        ),
        claimed_actor=claimed_actor,
    )


_ASKING = (PlanAction.REQUEST_APPROVAL, PlanAction.WAIT_FOR_RETRY_WINDOW)


def _listed_dict(item: _Listed, retry_plan: RetryPlanItem, latest: Attempt) -> dict[str, Any]:
    """An entry as documents list it (CONTRACT §8.8 and the row "approval plan")."""
    decision, entry, case = item.decision, item.entry, item.decision.case
    listed: dict[str, Any] = {
        "case": case.case_id,
        "retry_plan_id": retry_plan.plan.retry_plan_id,
        "provider": case.connector.key,
        "delivery_id": case.plan.delivery_id,
        "audit_id": case.package.audit_id,
        "attempt_no": decision.attempt_no,
        "action": item.action.value,
        "reason": item.reason,
        "approval_required": item.action in _ASKING,
        "retry_count": case.counted_attempts,
        "next_retry_at": records.timestamp(decision.not_before),
        "failed_status_codes": [] if latest.status_code is None else [latest.status_code],
        "failure_class": latest.failure_class,
        "may_have_arrived": latest.may_have_arrived,
        "retry_action": retry_plan.action,
        "acknowledgement_id": decision.ack_id,
        "acknowledgement_hash": decision.ack_hash,
        "entry_id": "",
        "manifest_digest": "",
        "approve_by": "",
        "required_approvals": case.connector.required_approvals,
        "requested_by": "",
        "votes": [],
    }
    if entry:
        listed |= {
            "entry_id": entry.entry_id,
            "manifest_digest": entry.manifest_digest,
            "approve_by": records.timestamp(entry.approve_by),
            "required_approvals": entry.required_approvals,
            "requested_by": entry.requested_by.username,
            "votes": [] if entry.pk is None else [vote_dict(vote) for vote in entry.votes.all()],
        }
    return listed


def vote_dict(vote: Vote) -> dict[str, Any]:
    """A vote as lists show it."""
    return {
        "decision_id": vote.decision_id,
        "decision_hash": vote.record_hash,
        "approval_state": vote.state,
        "decided_by": vote.person.username,
        "decided_at": records.timestamp(vote.decided_at),
        "digest_presented": vote.digest_presented,
    }


def _store(
    draft: records.Draft, listed: Sequence[_Listed], *, require_retry_ack: bool, by: Person, at: datetime
) -> None:
    plan = ApprovalPlan.objects.create(
        approval_plan_id=draft.record_id,
        created_at=at,
        created_by=by,
        require_retry_ack=require_retry_ack,
        record_hash=draft.digest,
    )
    for item in listed:
        if item.entry is None:
            continue
        if item.entry.pk is None:
            item.entry.plan = plan
            item.entry.save(force_insert=True)
            EntryParty.objects.bulk_create(
                EntryParty(entry=item.entry, person=person, part=part) for person, part in _parties(item.entry)
            )
        ApprovalPlanItem.objects.create(plan=plan, entry=item.entry, action=item.action)


def _parties(entry: ApprovalEntry) -> set[tuple[Person, Part]]:
    """Who had a part in this attempt: they do not vote on it (P4)."""
    decision, case = entry.decision, entry.case
    failed_at = case.last_outcome_at or case.created_at
    parties = {(entry.requested_by, Part.REQUESTER), (decision.planned_by, Part.PLANNER)}
    if decision.acknowledged_by:
        parties.add((decision.acknowledged_by, Part.ACKNOWLEDGER))
    for edit in ConnectorEdit.objects.filter(connector=entry.connector, at__gte=failed_at).select_related("person"):
        parties.add((edit.person, Part.CONNECTOR_EDITOR))
    policy = retry_policies.configured()
    if policy.edited_by and policy.edited_at and policy.edited_at >= failed_at:
        parties.add((policy.edited_by, Part.POLICY_EDITOR))
    return {(person.principal, part) for person, part in parties}


def _lock_open_decisions(case_ids: Sequence[str] | None) -> list[RetryDecision]:
    """Open decisions that may be asked about, their cases locked in one order, oldest failure first."""
    decisions = RetryDecision.objects.filter(state=DecisionState.OPEN, suppressed=False)
    if case_ids is not None:
        known = set(Case.objects.filter(case_id__in=case_ids).values_list("case_id", flat=True))
        if unknown := [case_id for case_id in case_ids if case_id not in known]:
            raise NotFound(
                "There is no such case.", code="case_not_found", errors={"cases": [f"unknown: {c}" for c in unknown]}
            )
        decisions = decisions.filter(case__case_id__in=case_ids)
    chosen = list(decisions.order_by("case__last_outcome_at", "case__pk").values_list("pk", "case_id")[:MAX_ENTRIES])
    list(
        Case.objects.select_for_update(no_key=True)
        .filter(pk__in=[case for _, case in chosen])
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    still_open = (
        RetryDecision.objects.filter(pk__in=[pk for pk, _ in chosen], state=DecisionState.OPEN)
        .select_related(
            "case__plan",
            "case__package",
            "case__connector",
            "planned_by__owner",
            "acknowledged_by__owner",
        )
        .order_by("case__last_outcome_at", "case__pk")
    )
    return [decision for decision in still_open if not reasons_against_retry(decision.case)]


def _newest_plans(decisions: Sequence[RetryDecision]) -> dict[int, RetryPlanItem]:
    """The newest retry plan that lists each decision."""
    items = RetryPlanItem.objects.filter(decision__in=decisions).select_related("plan").order_by("plan__pk")
    return {item.decision_id: item for item in items}


# --- deciding ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ballot:
    """One person's word on an entry; ``manifest_digest`` is what they were shown, if they say so."""

    state: ApprovalState
    manifest_digest: str = ""
    retry_plan_id: str = ""
    external_ref: str = ""
    notes: str = ""
    reason_code: str = ""
    claimed_actor: str = ""


def plan_by_id(approval_plan_id: str) -> ApprovalPlan:
    """The approval plan with this id; ``NotFound`` otherwise."""
    row = ApprovalPlan.objects.filter(approval_plan_id=approval_plan_id).first()
    if row is None:
        raise NotFound("There is no approval plan with this id.", code="approval_plan_not_found")
    return row


def entry_of(plan: ApprovalPlan, *, provider: str, delivery_id: str, audit_id: str) -> ApprovalEntry:
    """The one entry that a plan lists for a case; ``NotFound`` or ``Conflict`` ``ambiguous_entry`` otherwise."""
    found = list(
        entries()
        .filter(
            listed_in__plan=plan,
            connector__key=provider,
            case__plan__delivery_id=delivery_id,
            case__package__audit_id=audit_id,
        )[:2]
    )
    if not found:
        raise NotFound(
            "This approval plan lists no such entry.",
            code="entry_not_found",
            errors={"provider": [f"no entry about {provider} with these ids"]},
        )
    if len(found) > 1:
        raise Conflict(
            "Several entries fit.", code="ambiguous_entry", entries=[entry.entry_id for entry in found]
        )
    return found[0]


def entries() -> QuerySet[ApprovalEntry]:
    """Entries with everything that judging one needs."""
    return ApprovalEntry.objects.select_related(
        "plan",
        "retry_plan",
        "decision__acknowledged_by__owner",
        "case__plan",
        "case__package",
        "case__connector",
        "connector",
        "requested_by__owner",
    )


def decide(entry: ApprovalEntry, ballot: Ballot, *, by: Person, clock: Clock) -> records.Draft:
    """Record one person's vote; the quorum approves the entry, one denial ends it.

    The requester's denial is a withdrawal. Raises ``NotAllowed`` by the person rule (P4), ``Conflict`` when
    the entry takes no such vote, ``ManifestChanged`` when what would be sent is not what was shown: then
    the entry is void for good, which is recorded, and the vote is not counted.
    """
    policies.require_role(by, Permission.DECIDE)
    with transaction.atomic():
        Case.objects.select_for_update(no_key=True).get(pk=entry.case_id)
        entry = entries().get(pk=entry.pk)
        at = clocks.read(clock)
        if ballot.state is ApprovalState.DENIED and by.principal == entry.requested_by.principal:
            return _withdraw(entry, ballot, by=by, at=at)
        if reasons := reasons_against_voting(by, entry):
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)
        if ballot.retry_plan_id and ballot.retry_plan_id != entry.retry_plan.retry_plan_id:
            raise Conflict(
                "This entry was asked for by another retry plan.",
                code="retry_plan_mismatch",
                errors={"retry_plan_id": [f"the entry's is {entry.retry_plan.retry_plan_id}"]},
            )
        if refusals := reasons_against_decision(entry, ballot.state, at):
            code, sentence = refusals[0]
            raise Conflict(sentence, code=code, entry_state=entry.state)
        if ballot.manifest_digest and ballot.manifest_digest != entry.manifest_digest:
            raise ManifestChanged(
                "The manifest you present is not this entry's.",
                errors={"manifest_digest": [f"the entry's is {entry.manifest_digest}"]},
                manifest_digest=entry.manifest_digest,
            )
        changed: tuple[str, ...] = ()
        if ballot.state is ApprovalState.APPROVED:
            changed = manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy))
        if changed:
            void = void_entry(entry, changed, by=by, at=at)
            ledger.append([void])
        else:
            draft = _vote(entry, ballot, by=by, at=at)
    if changed:
        raise ManifestChanged(
            "Not approved: what would be sent has changed since this was asked for. Your vote was not counted, "
            "nothing is sent, and this request is void for good. Ask again.",
            changed_fields=list(changed),
        )
    return draft


def void_entry(entry: ApprovalEntry, changed: Sequence[str], *, by: Person, at: datetime) -> records.Draft:
    """End an entry whose manifest no longer holds; the caller holds the case's lock and appends the record."""
    move(transitions.ENTRIES, entry.pk, EntryState.VOID, only_from=OPEN_ENTRY_STATES, ended_at=at)
    return records.draft(
        APPROVAL_VOID,
        records.mint_id(APPROVAL_VOID),
        {
            **_entry_ids(entry),
            "manifest_digest": entry.manifest_digest,
            "changed_fields": list(changed),
            "voided_at": records.timestamp(at),
        },
        at=at,
        by=by,
        cases=[entry.case.case_id],
        references=[records.Reference(APPROVAL_PLAN.name, entry.plan.approval_plan_id, entry.plan.record_hash)],
    )


def counted_votes(entry: ApprovalEntry) -> list[Vote]:
    """Approvals that count: those of people whose newest vote is an approval, oldest first."""
    newest: dict[int, Vote] = {}
    for vote in Vote.objects.filter(entry=entry).select_related("person").order_by("pk"):
        newest[vote.person_id] = vote
    return sorted(
        (vote for vote in newest.values() if vote.state == ApprovalState.APPROVED), key=lambda vote: vote.pk
    )


def _vote(entry: ApprovalEntry, ballot: Ballot, *, by: Person, at: datetime) -> records.Draft:
    approvals = {vote.person_id for vote in counted_votes(entry)}
    if ballot.state is ApprovalState.APPROVED:
        approvals.add(by.principal.pk)
    else:
        approvals.discard(by.principal.pk)
    state = _state_after(entry, ballot.state, len(approvals))
    values: dict[str, Any] = {}
    if state is EntryState.APPROVED and entry.state != EntryState.APPROVED:
        within = timedelta(minutes=entry.execute_within_minutes)
        values = {"approved_at": at, "execute_by": max(at, entry.not_before) + within, "last_skip": ""}
    elif state is EntryState.PENDING:
        values = {"approved_at": None, "execute_by": None}
    elif state not in OPEN_ENTRY_STATES:
        values = {"ended_at": at}
    execute_by = values.get("execute_by", entry.execute_by)
    draft = records.draft(
        APPROVAL_DECISION,
        records.mint_id(APPROVAL_DECISION),
        {
            **_entry_ids(entry),
            "retry_plan_id": entry.retry_plan.retry_plan_id,
            "attempt_no": entry.attempt_no,
            "approval_state": ballot.state.value,
            "entry_state": state.value,
            "decided_by": by.username,
            "decided_at": records.timestamp(at),
            "external_ref": ballot.external_ref,
            "notes": ballot.notes,
            "reason_code": ballot.reason_code,
            "manifest_digest": entry.manifest_digest,
            "digest_presented": bool(ballot.manifest_digest),
            "approve_by": records.timestamp(entry.approve_by),
            "execute_by": records.timestamp(execute_by) if execute_by else "",
        },
        at=at,
        by=by,
        cases=[entry.case.case_id],
        references=[records.Reference(APPROVAL_PLAN.name, entry.plan.approval_plan_id, entry.plan.record_hash)],
        claimed_actor=ballot.claimed_actor,
    )
    try:
        with transaction.atomic():
            Vote.objects.create(
                decision_id=draft.record_id,
                entry=entry,
                person=by.principal,
                account=by,
                state=ballot.state,
                manifest_digest=entry.manifest_digest,
                digest_presented=bool(ballot.manifest_digest),
                decided_at=at,
                record_hash=draft.digest,
            )
    except IntegrityError as error:
        raise Conflict("You have decided on this request already.", code="already_decided") from error
    move(transitions.ENTRIES, entry.pk, state, only_from=[EntryState(entry.state)], **values)
    ledger.append([draft])
    return draft


def _state_after(entry: ApprovalEntry, vote: ApprovalState, approvals: int) -> EntryState:
    """Where an open entry goes with this vote, ``approvals`` people then approving."""
    if vote is ApprovalState.DENIED:
        return EntryState.DENIED
    if vote is ApprovalState.EXPIRED:
        return EntryState.EXPIRED
    return EntryState.APPROVED if approvals >= entry.required_approvals else EntryState.PENDING


def withdraw(entry: ApprovalEntry, ballot: Ballot, *, by: Person, clock: Clock) -> records.Draft:
    """The requester takes a request back. Raises ``NotAllowed`` for anybody else."""
    policies.require_role(by, Permission.REQUEST_APPROVAL)
    with transaction.atomic():
        Case.objects.select_for_update(no_key=True).get(pk=entry.case_id)
        entry = entries().get(pk=entry.pk)
        at = clocks.read(clock)
        if by.principal != entry.requested_by.principal:
            raise NotAllowed("Only who asked for this may withdraw it.", code="requester_required")
        return _withdraw(entry, ballot, by=by, at=at)


def _withdraw(entry: ApprovalEntry, ballot: Ballot, *, by: Person, at: datetime) -> records.Draft:
    move(
        transitions.ENTRIES,
        entry.pk,
        EntryState.WITHDRAWN,
        only_from=OPEN_ENTRY_STATES,
        detail=f"This request is {entry.state} and cannot be withdrawn any more.",
        ended_at=at,
    )
    draft = records.draft(
        APPROVAL_WITHDRAWAL,
        records.mint_id(APPROVAL_WITHDRAWAL),
        {
            **_entry_ids(entry),
            "withdrawn_by": by.username,
            "withdrawn_at": records.timestamp(at),
            "external_ref": ballot.external_ref,
            "notes": ballot.notes,
            "manifest_digest": entry.manifest_digest,
        },
        at=at,
        by=by,
        cases=[entry.case.case_id],
        references=[records.Reference(APPROVAL_PLAN.name, entry.plan.approval_plan_id, entry.plan.record_hash)],
        claimed_actor=ballot.claimed_actor,
    )
    ledger.append([draft])
    return draft


def expire(*, clock: Clock, limit: int = 50) -> int:
    """End entries whose clock ran out (P6): permission goes, evidence stays. Returns how many."""
    moment = clocks.read(clock)
    due = list(
        ApprovalEntry.objects.filter(state=EntryState.PENDING, approve_by__lt=moment)
        .union(ApprovalEntry.objects.filter(state=EntryState.APPROVED, execute_by__lt=moment))
        .values_list("pk", "case_id")[:limit]
    )
    return sum(_expire_one(pk, case_pk, clock=clock) for pk, case_pk in due)


def _expire_one(pk: int, case_pk: int, *, clock: Clock) -> bool:
    with transaction.atomic():
        if not Case.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=case_pk).exists():
            return False
        entry = entries().get(pk=pk)
        at = clocks.read(clock)
        approving = entry.state == EntryState.PENDING
        deadline = entry.approve_by if approving else entry.execute_by
        if entry.state not in OPEN_ENTRY_STATES or deadline is None or at <= deadline:
            return False
        move(transitions.ENTRIES, entry.pk, EntryState.EXPIRED, only_from=OPEN_ENTRY_STATES, ended_at=at)
        ledger.append(
            [
                records.draft(
                    APPROVAL_EXPIRY,
                    records.mint_id(APPROVAL_EXPIRY),
                    {
                        **_entry_ids(entry),
                        "expired_at": records.timestamp(at),
                        "deadline": records.timestamp(deadline),
                        "clock": "approve_by" if approving else "execute_by",
                    },
                    at=at,
                    by=None,
                    cases=[entry.case.case_id],
                    references=[
                        records.Reference(APPROVAL_PLAN.name, entry.plan.approval_plan_id, entry.plan.record_hash)
                    ],
                )
            ]
        )
    return True


def _entry_ids(entry: ApprovalEntry) -> dict[str, str]:
    """Ids that every document about an entry quotes."""
    return {
        "approval_plan_id": entry.plan.approval_plan_id,
        "approval_plan_hash": entry.plan.record_hash,
        "entry_id": entry.entry_id,
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
        "provider": entry.connector.key,
    }

