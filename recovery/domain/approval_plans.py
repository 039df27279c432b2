"""Approval plans: asking a second person for the next attempt of cases (CONTRACT §5).

An entry freezes what would be sent, under which policy, and who had a part in it. Every verb about a case
locks the case's row first, so that requests, votes, expiry and claims of one case come one after the other.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from evidence.connectors.credentials import Misconfigured
from evidence.domain import attempts, events, ledger, policies, records, safety, sending, text
from evidence.domain import clock as clocks
from evidence.domain.attempts import Known
from evidence.domain.clock import Clock
from evidence.enums import AlertLevel
from evidence.errors import Conflict, InvalidInput
from evidence.models import Attempt, Case, Person
from recovery.documents import (
    APPROVAL_PLAN,
    RETRY_PLAN,
)
from recovery.domain import approvals, manifests, quorum, retry_policies, waits
from recovery.domain.cases import require_cases
from recovery.domain.parties import Parties, parties_of
from recovery.domain.policies import ACKNOWLEDGED, reasons_against_retry
from recovery.enums import (
    OPEN_ENTRY_STATES,
    DecisionState,
    EntryState,
    Part,
    PlanAction,
)
from recovery.models import (
    ApprovalEntry,
    ApprovalPlan,
    ApprovalPlanItem,
    EntryParty,
    RetryDecision,
    RetryPlanItem,
    RetryPolicy,
)
from recovery.permissions import Permission

MAX_ENTRIES = 200


@dataclass(frozen=True)
class Listed:
    """One case as an approval plan lists it; ``entry`` is not saved yet when it is a new one."""

    decision: RetryDecision
    action: PlanAction
    reason: str
    entry: ApprovalEntry | None


@dataclass(frozen=True)
class Asked:
    """What asking about some decisions comes to, before anything of it is written.

    ``ended`` are records of requests that had run out, by the key of their case. ``retry_plans`` holds the
    newest plan of each decision, ``known`` what is known of each case's last try, both by key.
    """

    listed: list[Listed]
    ended: dict[int, records.Draft]
    retry_plans: dict[int, RetryPlanItem]
    known: dict[int, Known]


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

    An open entry is listed again and keeps its requester, unless its clock ran out: then it ends here. A new
    one freezes manifest, body and parties.
    Raises ``NotFound`` for a named case that is none, ``InvalidInput`` ``public_safety`` for one whose content is
    refused; where none is named, such a case only waits.
    """
    policies.require_role(by, Permission.REQUEST_APPROVAL)
    with transaction.atomic():
        decisions = lock_open_decisions(cases, limit=MAX_ENTRIES)
        at = clocks.read(clock)
        asked = ask(decisions, require_retry_ack=require_retry_ack, by=by, at=at)
        if cases is None:
            asked = replace(asked, listed=_with_refused_waiting(asked.listed))
        draft = write(
            asked,
            asked.listed,
            require_retry_ack=require_retry_ack,
            reason=reason,
            at=at,
            by=by,
            claimed_actor=claimed_actor,
        )
        ledger.append([*asked.ended.values(), draft])
    return draft


def ask(decisions: Sequence[RetryDecision], *, require_retry_ack: bool, by: Person, at: datetime) -> Asked:
    """Find out for each decision whether approval may be asked for, and freeze what would be sent.

    The caller holds the cases' locks. Only requests that ran out are ended and parties of open ones added;
    ``write`` stores the rest.
    """
    plans = _newest_plans(decisions)
    open_entries = {
        entry.case_id: entry
        for entry in approvals.entries()
        .filter(case__in=[d.case_id for d in decisions], state__in=OPEN_ENTRY_STATES)
        .prefetch_related("votes__person")
    }
    # What ran out and was not swept up yet ends here, or it would stand in the way of asking again.
    ended = {
        case: draft
        for case, entry in open_entries.items()
        if (draft := approvals.expire_overdue(entry, at=at))
    }
    tries: dict[int, list[Attempt]] = {}
    for attempt in Attempt.objects.filter(case__in=[d.case_id for d in decisions]).order_by("number"):
        tries.setdefault(attempt.case_id, []).append(attempt)
    last = {case: attempts_[-1] for case, attempts_ in tries.items()}
    what_is_known = attempts.what_is_known(last.values())
    under = _Under(retry_policies.configured(), manifests.epoch(), require_retry_ack, by, at)
    listed: list[Listed] = []
    for decision in decisions:
        entry = open_entries.get(decision.case_id)
        if entry and decision.case_id not in ended:
            approvals.add_party(entry, by, Part.REQUESTER)
            listed.append(_again(decision, entry, at))
            continue
        try:
            listed.append(_ask(decision, tries[decision.case_id], plans[decision.pk], under))
        except Misconfigured as error:
            why = f"The connector is misconfigured: {error}."
            listed.append(Listed(decision, PlanAction.WAIT_FOR_CONNECTOR, why, None))
        except Conflict as error:
            listed.append(Listed(decision, PlanAction.WAIT_FOR_CONNECTOR, error.detail, None))
    listed = _with_cautions(_with_approvers(listed), at)
    return Asked(listed, ended, plans, {case: what_is_known[attempt.pk] for case, attempt in last.items()})


@dataclass(frozen=True)
class _Under:
    """What is the same for every request of one act."""

    policy_row: RetryPolicy
    epoch: int
    require_retry_ack: bool
    by: Person
    at: datetime


def _ask(
    decision: RetryDecision, tries: Sequence[Attempt], retry_plan: RetryPlanItem, under: _Under
) -> Listed:
    """List one decision without an open entry; the entry, if there is to be one, is not saved yet."""
    case, at = decision.case, under.at
    if under.require_retry_ack and decision.ack_state not in ACKNOWLEDGED:
        return Listed(decision, PlanAction.WAIT_FOR_RETRY_ACK, "The retry has not been acknowledged.", None)
    event = events.event_for(case)
    prepared = sending.prepare_event(case.connector, event, about=case.case_id)
    terms = manifests.Terms(
        policy=retry_policies.from_dict(decision.policy),
        immediate_by_operator=retry_policies.ceiling(under.policy_row).allow_immediate_retry,
        required_approvals=case.connector.required_approvals,
        require_retry_ack=under.require_retry_ack,
        requested_by=under.by,
        not_before=decision.not_before,
        approve_by=at + timedelta(minutes=under.policy_row.approve_within_minutes),
        execute_within_minutes=under.policy_row.execute_within_minutes,
    )
    manifest, digest = manifests.freeze(
        manifests.build(case, decision.attempt_no, tries, prepared, terms, epoch=under.epoch)
    )
    entry = ApprovalEntry(
        entry_id=mint_entry_id(),
        retry_plan=retry_plan.plan,
        decision=decision,
        case=case,
        connector=case.connector,
        attempt_no=decision.attempt_no,
        manifest=manifest,
        manifest_digest=digest,
        body=prepared.body,
        required_approvals=terms.required_approvals,
        require_retry_ack=under.require_retry_ack,
        requested_by=under.by,
        requested_at=at,
        not_before=terms.not_before,
        approve_by=terms.approve_by,
        execute_within_minutes=terms.execute_within_minutes,
    )
    entry.event = event
    return Listed(decision, *_waiting(entry, at), entry)


def _with_approvers(listed: Sequence[Listed]) -> list[Listed]:
    """The same, with parties and eligible approvers on each new request; none where too few could approve."""
    new = [item.entry for item in listed if item.entry and item.entry._state.adding]
    freeze_parties(new, parties_of(new))
    return [
        Listed(item.decision, PlanAction.WAIT_FOR_APPROVERS, _too_few(item.entry), None)
        if item.entry
        and item.entry._state.adding
        and len(item.entry.eligible) < item.entry.required_approvals
        else item
        for item in listed
    ]


def _with_cautions(listed: Sequence[Listed], at: datetime) -> list[Listed]:
    """The same, where a connector is held back with that in the reason, and whether the approval runs out first."""
    entries = [item.entry for item in listed if item.entry]
    said = iter(waits.cautions(entries, at))
    return [
        replace(item, reason=" ".join([item.reason, *next(said)])) if item.entry else item for item in listed
    ]


def _with_refused_waiting(listed: Sequence[Listed]) -> list[Listed]:
    """The same; what public safety refuses to have sent waits and keeps nothing else from being asked for."""
    found = []
    for item in listed:
        refused = _refusal(item.entry) if item.entry and item.entry._state.adding else ""
        found.append(
            replace(item, action=PlanAction.WAIT_FOR_PUBLIC_SAFETY, reason=refused, entry=None)
            if refused
            else item
        )
    return found


def _refusal(entry: ApprovalEntry) -> str:
    """Why public safety refuses what a new request would have sent; empty when it does not."""
    try:
        safety.require(_sent_by([entry]))
    except InvalidInput as error:
        field, (sentence, *_) = next(iter(error.errors.items()))
        return (
            f"What would be sent {sentence} of public safety ({field}). Ask for this case by its id: the refusal "
            "says what can be done."
        )
    return ""


def _sent_by(entries: Iterable[ApprovalEntry]) -> dict[str, Any]:
    """What new requests would have sent, by case, as public safety looks at it and names it."""
    return {"sends": {entry.case.case_id: entry.event for entry in entries if entry.event}}


def freeze_parties(entries: Sequence[ApprovalEntry], parties: Mapping[int, Parties]) -> None:
    """Put on unsaved requests who had a part in each (by the key of its case), and who could approve it."""
    approvers = quorum.approvers()
    for entry in entries:
        entry.frozen_parties = parties[entry.case_id]
        barred = {person.pk for person, _ in entry.frozen_parties}
        entry.eligible = quorum.eligible(approvers, entry.requested_at, barred)
        entry.eligible_digest = quorum.eligible_digest(entry.eligible)


def mint_entry_id() -> str:
    """An id for a new request."""
    return f"gordackretryentry-{secrets.token_hex(8)}"


def _too_few(entry: ApprovalEntry) -> str:
    """Why nobody could meet the quorum."""
    found = len(entry.eligible)
    people = "Nobody" if not found else "One person" if found == 1 else f"{found} people"
    return (
        f"{people} could approve this, {entry.required_approvals} must: an approver who had no part in this "
        "attempt and holds the role already is missing. An administrator grants it."
    )


def _again(decision: RetryDecision, entry: ApprovalEntry, at: datetime) -> Listed:
    """List an entry that is open already."""
    if entry.state == EntryState.APPROVED:
        return Listed(decision, PlanAction.ALREADY_APPROVED, "Approved and not used yet.", entry)
    return Listed(decision, *_waiting(entry, at), entry)


def _waiting(entry: ApprovalEntry, at: datetime) -> tuple[PlanAction, str]:
    if entry.not_before > at:
        return (
            PlanAction.WAIT_FOR_RETRY_WINDOW,
            f"May be approved now; the retry window opens at {text.moment(entry.not_before)}.",
        )
    return PlanAction.REQUEST_APPROVAL, "Waits for a second person."


def write(
    asked: Asked,
    listed: Sequence[Listed],
    *,
    require_retry_ack: bool,
    reason: str,
    at: datetime,
    by: Person,
    set_id: str = "",
    set_digest: str = "",
    claimed_actor: str = "",
) -> records.Draft:
    """Store a plan over ``listed`` (at most ``MAX_ENTRIES`` of what was asked) with its new entries.

    Returns the plan's document, which the caller appends. ``set_id`` and ``set_digest`` name the set it is
    a part of.
    """
    pending = sum(item.action is PlanAction.REQUEST_APPROVAL for item in listed)
    approved = sum(item.action is PlanAction.ALREADY_APPROVED for item in listed)
    waiting = len(listed) - pending - approved
    level = AlertLevel.CRITICAL if pending else AlertLevel.WARNING if waiting else AlertLevel.HEALTHY
    draft = records.draft(
        APPROVAL_PLAN,
        records.mint_id(APPROVAL_PLAN),
        {
            "generated_at": records.timestamp(at),
            "generated_by": by.username,
            "alert_level": level.value,
            "decision_count": len(listed),
            "approval_required_count": pending,
            "approved_count": approved,
            "waiting_count": waiting,
            "require_retry_ack": require_retry_ack,
            "reason": reason,
            "approval_decisions": [
                _listed_dict(item, asked.retry_plans[item.decision.pk], asked.known[item.decision.case_id])
                for item in listed
            ],
            "set_id": set_id,
            "set_digest": set_digest,
        },
        at=at,
        by=by,
        cases=[item.decision.case.case_id for item in listed],
        references=[
            *(
                records.Reference(RETRY_PLAN.name, plan.retry_plan_id, plan.record_hash)
                for plan in (asked.retry_plans[item.decision.pk].plan for item in listed)
            ),
            *attempts.case_references(item.decision.case for item in listed),
        ],
        claimed_actor=claimed_actor,
        **_sent_by(item.entry for item in listed if item.entry),
    )
    _store(draft, listed, require_retry_ack=require_retry_ack, by=by, at=at)
    return draft


_ASKING = (PlanAction.REQUEST_APPROVAL, PlanAction.WAIT_FOR_RETRY_WINDOW)


def _listed_dict(item: Listed, retry_plan: RetryPlanItem, last: Known) -> dict[str, Any]:
    """An entry as documents list it (CONTRACT §8.8 and the row "approval plan"); ``last`` is its last try."""
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
        "failed_status_codes": [] if last.status_code is None else [last.status_code],
        "failure_class": last.failure_class,
        "may_have_arrived": last.may_have_arrived,
        "outcome_known_by": last.source.value,
        "retry_action": retry_plan.action,
        "acknowledgement_id": decision.ack_id,
        "acknowledgement_hash": decision.ack_hash,
        "entry_id": "",
        "manifest_digest": "",
        "approve_by": "",
        "required_approvals": case.connector.required_approvals,
        "requested_by": "",
        "renews": "",
        "eligible_digest": "",
        "parties": [],
        "votes": [],
    }
    if entry:
        listed |= {
            "entry_id": entry.entry_id,
            "manifest_digest": entry.manifest_digest,
            "approve_by": records.timestamp(entry.approve_by),
            "required_approvals": entry.required_approvals,
            "requested_by": entry.requested_by.username,
            "renews": entry.renews.entry_id if entry.renews else "",
            "eligible_digest": entry.eligible_digest,
            # Of a new one: who may not vote on it, and why (P4). Later ones follow from their own records.
            "parties": sorted(
                (
                    {"person_id": person.person_id, "part": part.value}
                    for person, part in entry.frozen_parties
                ),
                key=lambda party: (party["person_id"], party["part"]),
            ),
            "votes": [] if entry._state.adding else [quorum.vote_dict(vote) for vote in entry.votes.all()],
        }
    return listed


def _store(
    draft: records.Draft, listed: Sequence[Listed], *, require_retry_ack: bool, by: Person, at: datetime
) -> None:
    plan = ApprovalPlan.objects.create(
        approval_plan_id=draft.record_id,
        created_at=at,
        created_by=by,
        require_retry_ack=require_retry_ack,
        record_hash=draft.digest,
    )
    entries = [item.entry for item in listed if item.entry]
    new = [entry for entry in entries if entry._state.adding]
    for entry in new:
        entry.plan = plan
    ApprovalEntry.objects.bulk_create(new)
    EntryParty.objects.bulk_create(
        EntryParty(entry=entry, person=person, part=part)
        for entry in new
        for person, part in entry.frozen_parties
    )
    ApprovalPlanItem.objects.bulk_create(
        ApprovalPlanItem(plan=plan, entry=item.entry, action=item.action) for item in listed if item.entry
    )


def lock_open_decisions(case_ids: Sequence[str] | None, *, limit: int) -> list[RetryDecision]:
    """Open decisions that may be asked about, their cases locked in one order, oldest failure first."""
    require_cases(case_ids)
    decisions = RetryDecision.objects.filter(state=DecisionState.OPEN, suppressed=False)
    if case_ids is not None:
        decisions = decisions.filter(case__case_id__in=case_ids)
    chosen = list(
        decisions.order_by("case__last_outcome_at", "case__pk").values_list("pk", "case_id")[:limit]
    )
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
        .prefetch_related("case__possible_attempts")
        .order_by("case__last_outcome_at", "case__pk")
    )
    return [decision for decision in still_open if not reasons_against_retry(decision.case)]


def _newest_plans(decisions: Sequence[RetryDecision]) -> dict[int, RetryPlanItem]:
    """The newest retry plan that lists each decision."""
    items = RetryPlanItem.objects.filter(decision__in=decisions).select_related("plan").order_by("plan__pk")
    return {item.decision_id: item for item in items}
