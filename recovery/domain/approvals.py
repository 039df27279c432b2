"""Deciding about an approval entry: votes, withdrawal, expiry (CONTRACT §5, P4 to P7).

Every verb about a case locks the case's row first, so that votes, withdrawals, expiry and claims of one
case happen one after the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet

from evidence.domain import attempts, ledger, policies, records
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Case, Person
from recovery.documents import (
    APPROVAL_CANCELLATION,
    APPROVAL_DECISION,
    APPROVAL_EXPIRY,
    APPROVAL_PLAN,
    APPROVAL_RECOUNT,
    APPROVAL_VOID,
    APPROVAL_WITHDRAWAL,
    RETRY_PLAN,
)
from recovery.domain import manifests, quorum, retry_policies, transitions
from recovery.domain.policies import (
    reasons_against_decision,
    reasons_against_voting,
)
from recovery.enums import (
    OPEN_ENTRY_STATES,
    ApprovalState,
    DecisionState,
    EntryState,
    Part,
)
from recovery.errors import ManifestChanged
from recovery.models import (
    ApprovalEntry,
    ApprovalPlan,
    EntryParty,
    RetryDecision,
    Vote,
)
from recovery.permissions import Permission


@dataclass(frozen=True)
class Ballot:
    """One person's word on an entry; ``manifest_digest`` is what they were shown, if they say so.

    With a set, ``set_digest`` is what they were shown of all items they decide on together; with a renewal,
    ``renewed_digest`` is that of what had run out.
    ``authenticated_by`` and ``authenticated_at`` say how and when the account had signed in (P21).
    """

    state: ApprovalState
    manifest_digest: str = ""
    retry_plan_id: str = ""
    external_ref: str = ""
    notes: str = ""
    reason_code: str = ""
    claimed_actor: str = ""
    authenticated_by: str = ""
    authenticated_at: datetime | None = None
    set_id: str = ""
    set_digest: str = ""
    renewed_digest: str = ""


def plan_by_id(approval_plan_id: str) -> ApprovalPlan:
    """The approval plan with this id; ``NotFound`` otherwise."""
    row = ApprovalPlan.objects.filter(approval_plan_id=approval_plan_id).first()
    if row is None:
        raise NotFound("There is no approval plan with this id.", code="approval_plan_not_found")
    return row


def entry_of(plan: ApprovalPlan, *, provider: str, delivery_id: str, audit_id: str) -> ApprovalEntry:
    """The one entry that a plan lists for a case; ``NotFound`` or ``Conflict`` ``ambiguous_entry`` otherwise."""
    found = list(
        entries().filter(
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
        "decision__planned_by",
        "case__plan",
        "case__package",
        "case__connector",
        "connector",
        "requested_by__owner",
    )


def decide(entry: ApprovalEntry, ballot: Ballot, *, by: Person, clock: Clock) -> records.Draft:
    """Record one person's vote; the quorum approves the entry, one denial ends it.

    The requester's denial is a withdrawal. Raises ``InvalidInput`` for a denial without a word why,
    ``NotAllowed`` by the person rule (P4), ``Conflict`` when the entry takes no such vote,
    ``ManifestChanged`` when what would be sent is not what was shown: then the entry is void for good, which
    is recorded, and the vote is not counted.
    """
    if ballot.state is ApprovalState.DENIED and by.principal == entry.requested_by.principal:
        return withdraw(entry, ballot, by=by, clock=clock)
    policies.require_role(by, Permission.DECIDE)
    require_words(ballot)
    with transaction.atomic():
        Case.objects.select_for_update(no_key=True).get(pk=entry.case_id)
        entry = entries().get(pk=entry.pk)
        at = clocks.read(clock)
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
                changed_fields=_changed_since(entry, ballot.manifest_digest),
            )
        changed: tuple[str, ...] = ()
        if ballot.state is ApprovalState.APPROVED:
            changed = manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy))
        if changed:
            void = void_entry(entry, changed, by=by, at=at)
            ledger.append([void])
        else:
            draft = cast(entry, ballot, by=by, at=at)
            ledger.append([draft])
    if changed:
        raise ManifestChanged(
            "Not approved: what would be sent has changed since this was asked for. Your vote was not counted, "
            "nothing is sent, and this request is void for good. Ask again.",
            changed_fields=list(changed),
        )
    return draft


def require_words(ballot: Ballot) -> None:
    """Raise ``InvalidInput`` for a denial that does not say why."""
    if ballot.state is ApprovalState.DENIED and not ballot.notes.strip():
        raise InvalidInput(
            "Not denied: say why; who asked has to know what to change.", errors={"notes": ["Say why."]}
        )


def _changed_since(entry: ApprovalEntry, digest: str) -> list[str]:
    """What an older request of the same case with this digest said otherwise; empty when there is none."""
    older = ApprovalEntry.objects.filter(case=entry.case, manifest_digest=digest).order_by("pk").last()
    return manifests.differences(records.load(older.manifest), records.load(entry.manifest)) if older else []


def void_entry(entry: ApprovalEntry, changed: Sequence[str], *, by: Person, at: datetime) -> records.Draft:
    """End an entry whose manifest no longer holds, open or run out.

    The caller holds the case's lock and appends the record.
    """
    voidable = [*OPEN_ENTRY_STATES, EntryState.EXPIRED]
    move(transitions.ENTRIES, entry.pk, EntryState.VOID, only_from=voidable, ended_at=at)
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
        references=entry_references(entry),
    )


def recount(entry: ApprovalEntry, *, at: datetime) -> records.Draft | None:
    """Back to pending when an approver was deactivated and the quorum is gone with them (P4).

    None while enough votes count. The caller holds the case's lock and appends the record.
    """
    said = quorum.approving_votes(entry)
    void = [vote for vote in said if quorum.is_void(vote)]
    if entry.state != EntryState.APPROVED or not void or len(said) - len(void) >= entry.required_approvals:
        return None
    move(
        transitions.ENTRIES,
        entry.pk,
        EntryState.PENDING,
        only_from=[EntryState.APPROVED],
        approved_at=None,
        execute_by=None,
    )
    entry.refresh_from_db(fields=["state", "approved_at", "execute_by"])
    return records.draft(
        APPROVAL_RECOUNT,
        records.mint_id(APPROVAL_RECOUNT),
        {
            **_entry_ids(entry),
            "void_decision_ids": [vote.decision_id for vote in void],
            "counted": len(said) - len(void),
            "required_approvals": entry.required_approvals,
            "entry_state": EntryState.PENDING.value,
            "recounted_at": records.timestamp(at),
        },
        at=at,
        by=None,
        cases=[entry.case.case_id],
        references=[
            *entry_references(entry),
            *(records.Reference(APPROVAL_DECISION.name, vote.decision_id, vote.record_hash) for vote in void),
        ],
    )


def recount_all(*, clock: Clock, limit: int = 50) -> int:
    """Recount approved entries with a vote of somebody who was deactivated. Returns how many fell back."""
    void = Q(votes__person__last_deactivated_at__gte=F("votes__decided_at")) | Q(
        votes__account__last_deactivated_at__gte=F("votes__decided_at")
    )
    found = ApprovalEntry.objects.filter(void, state=EntryState.APPROVED, votes__state=ApprovalState.APPROVED)
    due = found.order_by("pk").distinct().values_list("pk", "case_id")[:limit]
    return sum(_swept(pk, case_pk, recount, clock=clock) for pk, case_pk in list(due))


def cancel_open(case: Case, reason: str, *, by: Person | None, at: datetime) -> list[records.Draft]:
    """End what still asks for a retry of a case that is settled: open entry and open decision (P8).

    The caller holds the case's lock and appends the records.
    """
    RetryDecision.objects.filter(case=case, state=DecisionState.OPEN).update(state=DecisionState.CLOSED)
    drafts = []
    for entry in entries().filter(case=case, state__in=OPEN_ENTRY_STATES):
        move(transitions.ENTRIES, entry.pk, EntryState.CANCELLED, only_from=OPEN_ENTRY_STATES, ended_at=at)
        drafts.append(
            records.draft(
                APPROVAL_CANCELLATION,
                records.mint_id(APPROVAL_CANCELLATION),
                {
                    **_entry_ids(entry),
                    "manifest_digest": entry.manifest_digest,
                    "reason": reason,
                    "cancelled_at": records.timestamp(at),
                },
                at=at,
                by=by,
                cases=[case.case_id],
                references=entry_references(entry),
            )
        )
    return drafts


def cancel_settled(*, clock: Clock, limit: int = 50) -> int:
    """End open entries of cases that were settled by an answer that came late. Returns how many."""
    due = ApprovalEntry.objects.filter(state__in=OPEN_ENTRY_STATES, case__settled_at__isnull=False)
    return sum(
        _swept(pk, case_pk, _cancel, clock=clock)
        for pk, case_pk in list(due.order_by("pk").values_list("pk", "case_id")[:limit])
    )


def _cancel(entry: ApprovalEntry, *, at: datetime) -> records.Draft | None:
    drafts = cancel_open(entry.case, "Its case is settled.", by=None, at=at) if entry.case.settled_at else []
    return drafts[0] if drafts else None


def _swept(pk: int, case_pk: int, act: Callable[..., records.Draft | None], *, clock: Clock) -> bool:
    """One step of the worker about one entry, unless somebody else holds its case right now."""
    with transaction.atomic():
        if not Case.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=case_pk).exists():
            return False
        draft = act(entries().get(pk=pk), at=clocks.read(clock))
        ledger.append([draft] if draft else [])
    return draft is not None


def cast(entry: ApprovalEntry, ballot: Ballot, *, by: Person, at: datetime) -> records.Draft:
    """Write one vote and what follows from it for its entry.

    The caller holds the case's lock, has asked for every reason against it, and appends the record. Raises
    ``Conflict`` ``already_decided`` for somebody who said this, or anything but an approval, before.
    """
    approvals = {vote.person_id for vote in quorum.counted_votes(entry)}
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
            "set_id": ballot.set_id,
            "set_digest": ballot.set_digest,
            "renewed_digest": ballot.renewed_digest,
            "authenticated_by": ballot.authenticated_by,
            "authenticated_at": records.timestamp(ballot.authenticated_at) if ballot.authenticated_at else "",
            "approve_by": records.timestamp(entry.approve_by),
            "execute_by": records.timestamp(execute_by) if execute_by else "",
        },
        at=at,
        by=by,
        cases=[entry.case.case_id],
        references=entry_references(entry),
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
                reason_code=ballot.reason_code,
                authenticated_by=ballot.authenticated_by,
                authenticated_at=ballot.authenticated_at,
                decided_at=at,
                record_hash=draft.digest,
            )
    except IntegrityError as error:
        earlier = [vote for vote in quorum.approving_votes(entry) if vote.person_id == by.principal.pk]
        sentence = (
            "Your earlier approval was void once your account was deactivated, and it does not come back: "
            "another approver decides."
            if earlier and quorum.is_void(earlier[0])
            else "You have decided on this request already and nobody takes back a deferral: another approver "
            "decides, or who asked withdraws and asks again."
        )
        raise Conflict(sentence, code="already_decided") from error
    move(transitions.ENTRIES, entry.pk, state, only_from=[EntryState(entry.state)], **values)
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
                "retry_plan_id": entry.retry_plan.retry_plan_id,
                "attempt_no": entry.attempt_no,
                # The requester's denial, as reference clients send it.
                "approval_state": ApprovalState.DENIED.value,
                "decided_by": by.username,
                "decided_at": records.timestamp(at),
                "external_ref": ballot.external_ref,
                "notes": ballot.notes,
                "reason_code": ballot.reason_code,
                "manifest_digest": entry.manifest_digest,
            },
            at=at,
            by=by,
            cases=[entry.case.case_id],
            references=entry_references(entry),
            claimed_actor=ballot.claimed_actor,
        )
        ledger.append([draft])
    return draft


def expire(*, clock: Clock, limit: int = 50) -> int:
    """End entries whose clock ran out (P6): permission goes, evidence stays. Returns how many."""
    moment = clocks.read(clock)
    due = ApprovalEntry.objects.filter(
        Q(state=EntryState.PENDING, approve_by__lt=moment)
        | Q(state=EntryState.APPROVED, execute_by__lt=moment)
    ).order_by("pk")
    return sum(
        _swept(pk, case_pk, expire_overdue, clock=clock)
        for pk, case_pk in list(due.values_list("pk", "case_id")[:limit])
    )


def expire_overdue(entry: ApprovalEntry, *, at: datetime) -> records.Draft | None:
    """End an open entry whose clock ran out; None while it has time left.

    The caller holds the case's lock and appends the record.
    """
    approving = entry.state == EntryState.PENDING
    deadline = entry.approve_by if approving else entry.execute_by
    if entry.state not in OPEN_ENTRY_STATES or deadline is None or at <= deadline:
        return None
    move(transitions.ENTRIES, entry.pk, EntryState.EXPIRED, only_from=OPEN_ENTRY_STATES, ended_at=at)
    return records.draft(
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
        references=entry_references(entry),
    )


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


def add_party(entry: ApprovalEntry, person: Person, part: Part) -> None:
    """Somebody had a part in an attempt after it was asked for: from now on they do not vote on it (P4).

    Who approved it before had none: listing or planning it once more changes nothing about what they approved.
    """
    if Vote.objects.filter(entry=entry, person=person.principal, state=ApprovalState.APPROVED).exists():
        return
    EntryParty.objects.get_or_create(entry=entry, person=person.principal, part=part)


def entry_references(entry: ApprovalEntry) -> list[records.Reference]:
    """The documents that every record about an entry quotes: approval plan, retry plan, delivery, package."""
    return [
        records.Reference(APPROVAL_PLAN.name, entry.plan.approval_plan_id, entry.plan.record_hash),
        records.Reference(RETRY_PLAN.name, entry.retry_plan.retry_plan_id, entry.retry_plan.record_hash),
        *attempts.case_references([entry.case]),
    ]
