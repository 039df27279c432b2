"""Dispositions: two people settle a failed case that no delivery settles, so that nothing ends in a dead end (P8).

One proposes that another delivery stands in its place, or that it is abandoned; an approver who is somebody
else confirms or refuses. The case stays, with all that is recorded about it, and its content is not sent again.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from evidence.domain import attempts, ledger, policies, records, text
from evidence.domain import clock as clocks
from evidence.domain import transitions as facts
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import CaseState
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Attempt, Case, Person, Record, RecordKey
from recovery.documents import DISPOSITION, DISPOSITION_PROPOSAL
from recovery.domain import approvals, transitions
from recovery.domain.policies import (
    reasons_against_confirming,
    reasons_against_disposition_decision,
    reasons_against_proposing,
    reasons_against_successor,
)
from recovery.enums import DispositionKind, DispositionState
from recovery.models import Disposition
from recovery.permissions import Permission

# What a confirmed disposition makes of its case.
SETTLES_AS: dict[DispositionKind, CaseState] = {
    DispositionKind.SUPERSEDED_BY: CaseState.SUPERSEDED,
    DispositionKind.ABANDONED: CaseState.ABANDONED,
}


@dataclass(frozen=True)
class Proposal:
    """How somebody proposes to settle a case; ``superseded_by`` is the id of the delivered case in its place."""

    kind: DispositionKind
    reason: str
    superseded_by: str = ""
    external_ref: str = ""
    claimed_actor: str = ""


def propose(case: Case, proposal: Proposal, *, by: Person, clock: Clock) -> records.Draft:
    """Propose to settle a failed case without a delivery; nothing changes before another person confirms.

    Raises ``InvalidInput`` naming the field that is missing or too much, ``NotFound`` ``case_not_found`` for a
    successor that is no case, ``Conflict`` when the case is not failed, is proposed for already, or the
    successor cannot stand in its place.
    """
    policies.require_role(by, Permission.PROPOSE_DISPOSITION)
    proposal = _checked(case, proposal)
    with transaction.atomic():
        case = _locked(case)
        at = clocks.read(clock)
        _refuse_for(reasons_against_proposing(case, newest_of(case)), "Not proposed", case_state=case.state)
        successor = _successor(case, proposal.superseded_by)
        # A parked case was never tried.
        attempt = Attempt.objects.filter(case=case, number=case.attempt_count).first()
        draft = records.draft(
            DISPOSITION_PROPOSAL,
            records.mint_id(DISPOSITION_PROPOSAL),
            {
                "delivery_id": case.plan.delivery_id,
                "audit_id": case.package.audit_id,
                "provider": case.connector.key,
                "attempt_no": case.attempt_count,
                "attempt_id": attempt.attempt_id if attempt else "",
                "disposition_kind": proposal.kind.value,
                "superseded_by": proposal.superseded_by,
                "reason": proposal.reason,
                "external_ref": proposal.external_ref,
                "proposed_by": by.username,
                "proposed_at": records.timestamp(at),
            },
            at=at,
            by=by,
            cases=[case.case_id],
            references=[
                *attempts.case_references([case, *([successor] if successor else [])]),
                *([attempts.delivery_reference(attempt)] if attempt else []),
                *([_delivery_of(successor)] if successor else []),
            ],
            claimed_actor=proposal.claimed_actor,
        )
        Disposition.objects.create(
            disposition_id=draft.record_id,
            case=case,
            kind=proposal.kind,
            superseded_by=successor,
            reason=proposal.reason,
            external_ref=proposal.external_ref,
            proposed_by=by.principal,
            proposed_through=by,
            proposed_at=at,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return draft


def _checked(case: Case, proposal: Proposal) -> Proposal:
    """The proposal in its one form; ``InvalidInput`` with every field that does not fit its kind."""
    reason = text.clean(proposal.reason, field="reason", limit=text.MAX_NOTES, lines=True)
    reference = text.external_ref(proposal.external_ref)
    successor = text.clean(proposal.superseded_by, field="superseded_by", limit=text.MAX_REFERENCE)
    errors = {}
    if not reason:
        errors["reason"] = ["Say why."]
    if proposal.kind is DispositionKind.SUPERSEDED_BY:
        if not successor:
            errors["superseded_by"] = ["Name the delivered case that stands in its place."]
        elif successor == case.case_id:
            errors["superseded_by"] = ["Name another case: this is the case itself."]
    else:
        if successor:
            errors["superseded_by"] = ["An abandoned case has none."]
        if not reference:
            errors["external_ref"] = ["Name the decision under which it is abandoned."]
    if errors:
        first = next(iter(errors.values()))[0]
        raise InvalidInput(f"Not proposed. {first}", errors=errors)
    return Proposal(proposal.kind, reason, successor, reference, proposal.claimed_actor)


def _successor(case: Case, case_id: str) -> Case | None:
    """The case that stands in its place; None when none is named. Being delivered is final, so it needs no lock."""
    if not case_id:
        return None
    found = Case.objects.select_related("plan", "package", "connector").filter(case_id=case_id).first()
    if found is None:
        raise NotFound(
            "Not proposed: there is no case with the id that is to stand in its place.",
            code="case_not_found",
            errors={"superseded_by": ["There is no such case."]},
        )
    if reasons := reasons_against_successor(case, found):
        code, sentence = reasons[0]
        raise Conflict(f"Not proposed: {sentence}", code=code, errors={"superseded_by": [sentence]})
    return found


def confirm(
    disposition: Disposition, *, by: Person, clock: Clock, notes: str = "", claimed_actor: str = ""
) -> records.Draft:
    """Settle the case as proposed, and end what still asks for its retry.

    Raises ``NotAllowed`` ``second_person_required`` for who proposed it or was no approver by then, ``Conflict``
    when the proposal has ended, the case is not failed or parked any more, or another attempt was made since
    (``disposition_stale``).
    """
    return _decide(
        disposition, DispositionState.CONFIRMED, by=by, clock=clock, notes=notes, claimed_actor=claimed_actor
    )


def refuse(
    disposition: Disposition, *, by: Person, clock: Clock, notes: str, claimed_actor: str = ""
) -> records.Draft:
    """End a proposal; the case stays as it is. Raises like ``confirm``, and ``InvalidInput`` without a word why."""
    if not notes.strip():
        raise InvalidInput(
            "Not refused: say why; who proposed it has to know.", errors={"notes": ["Say why."]}
        )
    return _decide(
        disposition, DispositionState.REFUSED, by=by, clock=clock, notes=notes, claimed_actor=claimed_actor
    )


def withdraw(
    disposition: Disposition, *, by: Person, clock: Clock, notes: str = "", claimed_actor: str = ""
) -> records.Draft:
    """The proposer takes a proposal back. Raises ``NotAllowed`` ``proposer_required`` for anybody else."""
    return _decide(
        disposition, DispositionState.WITHDRAWN, by=by, clock=clock, notes=notes, claimed_actor=claimed_actor
    )


def _decide(
    disposition: Disposition,
    state: DispositionState,
    *,
    by: Person,
    clock: Clock,
    notes: str,
    claimed_actor: str,
) -> records.Draft:
    withdrawing = state is DispositionState.WITHDRAWN
    policies.require_role(
        by, Permission.PROPOSE_DISPOSITION if withdrawing else Permission.CONFIRM_DISPOSITION
    )
    notes = text.clean(notes, field="notes", limit=text.MAX_NOTES, lines=True)
    with transaction.atomic():
        case = _locked(disposition.case)
        at = clocks.read(clock)
        disposition = dispositions().get(pk=disposition.pk)
        if withdrawing:
            if reasons := reasons_against_withdrawing(disposition, by):
                raise NotAllowed(reasons[0], code="proposer_required", reasons=reasons)
        elif reasons := reasons_against_confirming(by, disposition):
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)
        _refuse_for(
            reasons_against_disposition_decision(disposition, state),
            f"Not {state.value}",
            disposition_state=disposition.state,
            case_state=case.state,
        )
        move(transitions.DISPOSITIONS, disposition.pk, state, decided_by=by.principal, decided_at=at)
        settled = SETTLES_AS[DispositionKind(disposition.kind)]
        cancelled: list[records.Draft] = []
        if state is DispositionState.CONFIRMED:
            move(
                facts.CASES,
                case.pk,
                settled,
                only_from=[CaseState.FAILED, CaseState.PARKED],
                settled_at=at,
            )
            cancelled = approvals.cancel_open(case, _ends_because(disposition), by=by, at=at)
        draft = _decision(
            disposition,
            state,
            case_state=settled if state is DispositionState.CONFIRMED else CaseState(case.state),
            by=by,
            at=at,
            notes=notes,
            claimed_actor=claimed_actor,
        )
        ledger.append([draft, *cancelled])
    return draft


def _ends_because(disposition: Disposition) -> str:
    """Why nothing asks for a retry of the case any more."""
    if disposition.superseded_by:
        return f"Its case is superseded by {disposition.superseded_by.case_id}."
    return "Its case is abandoned."


def _decision(
    disposition: Disposition,
    state: DispositionState,
    *,
    case_state: CaseState,
    by: Person,
    at: datetime,
    notes: str,
    claimed_actor: str,
) -> records.Draft:
    case, successor = disposition.case, disposition.superseded_by
    return records.draft(
        DISPOSITION,
        records.mint_id(DISPOSITION),
        {
            "disposition_id": disposition.disposition_id,
            "disposition_hash": disposition.record_hash,
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "provider": case.connector.key,
            "disposition_kind": disposition.kind,
            "superseded_by": successor.case_id if successor else "",
            "external_ref": disposition.external_ref,
            "disposition_state": state.value,
            "case_state": case_state.value,
            "proposed_by": disposition.proposed_through.username,
            "decided_by": by.username,
            "decided_at": records.timestamp(at),
            "notes": notes,
        },
        at=at,
        by=by,
        cases=[case.case_id],
        references=[*attempts.case_references([case]), proposal_reference(disposition)],
        claimed_actor=claimed_actor,
    )


def _locked(case: Case) -> Case:
    """The case, held until the verb ends."""
    rows = Case.objects.select_for_update(no_key=True, of=("self",))
    return rows.select_related("plan", "package", "connector").get(pk=case.pk)


def _refuse_for(reasons: list[tuple[str, str]], what: str, **extra: Any) -> None:
    """Raise ``Conflict`` for the first of some reasons, if there is one."""
    if reasons:
        code, sentence = reasons[0]
        raise Conflict(f"{what}: {sentence}", code=code, **extra)


def _delivery_of(case: Case) -> records.Reference:
    """The record of the try that a delivered case was delivered by."""
    return attempts.delivery_reference(Attempt.objects.get(case=case, number=case.attempt_count))


# --- queries ------------------------------------------------------------------------------------------------------


def dispositions() -> QuerySet[Disposition]:
    """Dispositions with everything that judging and showing one needs."""
    return Disposition.objects.select_related(
        "case__plan",
        "case__package",
        "case__connector",
        "superseded_by",
        "proposed_by",
        "proposed_through__owner",
        "decided_by",
    )


def disposition_by_id(disposition_id: str) -> Disposition:
    """The disposition with this id; ``NotFound`` otherwise."""
    row = dispositions().filter(disposition_id=disposition_id).first()
    if row is None:
        raise NotFound("There is no disposition with this id.", code="disposition_not_found")
    return row


def newest_of(case: Case) -> Disposition | None:
    """A case's newest disposition: the open one or the confirmed one, if it has either. None without any."""
    return dispositions().filter(case=case).order_by("-pk").first()


def proposed(limit: int) -> list[Disposition]:
    """Proposals that nobody decided on yet, the oldest first."""
    return list(dispositions().filter(state=DispositionState.PROPOSED).order_by("proposed_at", "pk")[:limit])


def confirmed(cases: Iterable[Case] | QuerySet[Case]) -> list[Disposition]:
    """The dispositions that settled some of these cases, one each."""
    found = dispositions().filter(case__in=cases, state=DispositionState.CONFIRMED)
    return list(found.order_by("disposition_id"))


def successors(case: Case, limit: int = 10) -> list[Case]:
    """Cases that could stand in the place of this one, newest first."""
    found = Case.objects.filter(
        connector=case.connector_id, state=CaseState.DELIVERED, created_at__gte=case.created_at
    )
    return list(found.exclude(pk=case.pk).order_by("-pk")[:limit])


def reasons_against_withdrawing(disposition: Disposition, person: Person) -> list[str]:
    """Why this person may not take a proposal back: it is not theirs."""
    if disposition.proposed_by_id == person.principal.pk:
        return []
    return [f"Only {disposition.proposed_by.username}, who proposed this, may withdraw it."]


def proposal_reference(disposition: Disposition) -> records.Reference:
    """How a later document quotes a proposal."""
    return records.Reference(DISPOSITION_PROPOSAL.name, disposition.disposition_id, disposition.record_hash)


def decisions(found: Iterable[Disposition]) -> dict[str, Record]:
    """The record of the decision on each disposition that has one, by the disposition's id (two queries)."""
    ids = [disposition.disposition_id for disposition in found]
    named = RecordKey.objects.filter(name=DISPOSITION_PROPOSAL.id_field, value__in=ids)
    about = dict(named.values_list("record", "value"))
    rows = Record.objects.filter(index__in=about, kind=DISPOSITION.name)
    return {about[record.index]: record for record in rows}
