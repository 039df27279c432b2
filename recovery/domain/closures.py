"""Closing a recovery: earned, by a person who executed none of what proves it (P23, CONTRACT §7)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max, QuerySet

from evidence.domain import attempts, ledger, people, policies, records
from evidence.domain import clock as clocks
from evidence.domain.attempts import Known
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import CaseState, Outcome
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from evidence.models import Attempt, Case, Connector, Person
from recovery.documents import CLOSURE, DISPOSITION, EXECUTION_RECORD, PLAYBOOK
from recovery.domain import dispositions, transitions
from recovery.domain.playbooks import FINISHED, listed_cases, newest_playbook
from recovery.domain.retry_plans import UNSETTLED
from recovery.enums import ClosureState, ExecutionState, RecoveryState
from recovery.errors import ClosureNotEarned
from recovery.models import (
    Closure,
    Disposition,
    Execution,
    Playbook,
    PlaybookItem,
    Recovery,
    RecoveryCase,
)
from recovery.permissions import Permission

LONGEST_DEFERRAL = timedelta(days=30)

NOT_SETTLED = (*UNSETTLED, CaseState.SENDING)


@dataclass(frozen=True)
class ClosureRequest:
    """An outcome somebody claims for a connector's recovery, with what is to show for it."""

    provider: str
    state: ClosureState
    verification_refs: tuple[str, ...] = ()
    owner: str = ""
    review_at: datetime | None = None
    reason: str = ""
    external_ref: str = ""
    notes: str = ""
    claimed_actor: str = ""


# What a requirement may be about beside the fields of the form: no form can meet these.
CASES, PERSON = "cases", "person"


@dataclass(frozen=True)
class Requirement:
    """One thing an outcome needs: what it is about, mostly a field of the form, and whether it is met."""

    field: str
    sentence: str
    met: bool

    @property
    def by_form(self) -> bool:
        """Whether filling in the form can still meet it."""
        return self.field in FORM_FIELDS


Check = Callable[[ClosureRequest, Recovery, Person, datetime], list[Requirement]]


def _every_case_settled(
    request: ClosureRequest, recovery: Recovery, by: Person, at: datetime
) -> list[Requirement]:
    """Each listed case, and every unsettled one of the connector that no playbook lists yet."""
    listed = listed_cases(recovery)
    unsettled = [case.case_id for case in listed if case.state in NOT_SETTLED]
    unlisted = (
        Case.objects.filter(connector=recovery.connector, state__in=NOT_SETTLED)
        .exclude(case_id__in=unsettled)
        .values_list("case_id", flat=True)[:50]
    )
    return [
        Requirement(CASES, f"{case_id} is not settled after its newest failure.", False)
        for case_id in (*unsettled, *unlisted)
    ] or [Requirement(CASES, f"Every case of this recovery ({len(listed)}) is settled.", True)]


def _references_prove_it(
    request: ClosureRequest, recovery: Recovery, by: Person, at: datetime
) -> list[Requirement]:
    """Each reference is a delivered execution or a confirmed disposition of a case of this recovery; at least one.

    Where a case turned out delivered after its outcome had been unknown, the reconciliation proves it as well.
    """
    field = "verification_refs"
    if not request.verification_refs:
        sentence = "Name at least one delivered execution or confirmed disposition of this recovery."
        return [Requirement(field, sentence, False)]
    proven = set(delivered_executions(recovery).values_list("execution_id", flat=True))
    proven |= {known.record.id for known in turned_out_delivered(recovery).values()}
    proven |= {disposition.disposition_id for disposition in disposed(recovery)}
    what = "delivered execution and no confirmed disposition of a case of this recovery"
    wrong = [ref for ref in request.verification_refs if ref not in proven]
    return [Requirement(field, f"{ref} is no {what}.", False) for ref in wrong] or [
        Requirement(field, "Every reference proves a case of this recovery delivered or settled.", True)
    ]


def _confirmed_by_another(
    request: ClosureRequest, recovery: Recovery, by: Person, at: datetime
) -> list[Requirement]:
    """Who executed or proposed what proves the recovery does not confirm it."""
    own = executed_by(by, delivered_executions(recovery))
    if own:
        return [
            Requirement(
                PERSON, f"You executed {own[0].execution_id}; somebody else has to confirm it.", False
            )
        ]
    for case in sent_first(recovery):
        if by.principal in people.answering(case.created_by):
            sentence = f"You sent the first attempt of {case.case_id}; somebody else has to confirm it."
            return [Requirement(PERSON, sentence, False)]
    if proposals := proposed_by(by, disposed(recovery)):
        sentence = f"You proposed {proposals[0].disposition_id}; somebody else has to confirm it."
        return [Requirement(PERSON, sentence, False)]
    return [Requirement(PERSON, "Confirmed by a person who executed none of them: you.", True)]


def _owner(request: ClosureRequest, recovery: Recovery, by: Person, at: datetime) -> list[Requirement]:
    return [Requirement("owner", "Name who owns it until then.", bool(request.owner))]


def _review_date(request: ClosureRequest, recovery: Recovery, by: Person, at: datetime) -> list[Requirement]:
    fits = request.review_at is not None and at < request.review_at <= at + LONGEST_DEFERRAL
    return [Requirement("review_at", "Name when it comes back, within 30 days.", fits)]


def _reason(request: ClosureRequest, recovery: Recovery, by: Person, at: datetime) -> list[Requirement]:
    return [Requirement("reason", "Say why.", bool(request.reason))]


def _ticket(request: ClosureRequest, recovery: Recovery, by: Person, at: datetime) -> list[Requirement]:
    return [Requirement("external_ref", "Name the ticket it went to.", bool(request.external_ref))]


# What each outcome needs; one list for API, form and refusal.
REQUIREMENTS: dict[ClosureState, tuple[Check, ...]] = {
    ClosureState.RESOLVED: (_every_case_settled, _references_prove_it, _confirmed_by_another),
    ClosureState.MITIGATED: (_owner, _review_date),
    ClosureState.DEFERRED: (_owner, _review_date, _reason),
    ClosureState.ESCALATED: (_ticket,),
    ClosureState.REOPENED: (_reason,),
}

FORM_FIELDS = frozenset({"verification_refs", "owner", "review_at", "reason", "external_ref"})


def requirements(request: ClosureRequest, recovery: Recovery, by: Person, at: datetime) -> list[Requirement]:
    """Everything the chosen outcome needs when ``by`` closes, met or not."""
    return [needed for check in REQUIREMENTS[request.state] for needed in check(request, recovery, by, at)]


def reasons_against_state(recovery: Recovery, state: ClosureState) -> list[str]:
    """Why a recovery cannot have this outcome, whatever is to show for it."""
    if transitions.RECOVERIES.allows(recovery.state, RecoveryState(state)):
        return []
    return [f"This recovery is {recovery.state}; it cannot become {state.value}."]


def close(playbook: Playbook, request: ClosureRequest, *, by: Person, clock: Clock) -> records.Draft:
    """Record an outcome of the recovery that ``playbook`` describes for a connector.

    Raises ``NotFound`` when the playbook does not speak of the connector, ``Conflict`` ``playbook_superseded``
    for an older playbook, ``closure_requirements_missing`` or ``closure_not_earned`` with ``errors``, and
    ``NotAllowed`` when the person executed or proposed what is to prove it.
    """
    policies.require_role(by, Permission.CLOSE_RECOVERY)
    item = PlaybookItem.objects.filter(playbook=playbook, recovery__connector__key=request.provider).first()
    if item is None:
        raise NotFound(
            f"This playbook says nothing about {request.provider}.",
            code="provider_not_in_playbook",
            errors={"provider": ["not in this playbook"]},
        )
    with transaction.atomic():
        # Like a playbook, the connector first: neither finds the other half done.
        Connector.objects.select_for_update(no_key=True).get(key=request.provider)
        recovery = (
            Recovery.objects.select_for_update(no_key=True, of=("self",))
            .select_related("connector")
            .get(pk=item.recovery_id)
        )
        at = clocks.read(clock)
        if request.review_at is not None and request.review_at <= at:
            raise InvalidInput("review_at lies in the past.", errors={"review_at": ["lies in the past"]})
        _require_newest(playbook, recovery)
        if request.state is ClosureState.REOPENED:
            _require_last(recovery)
        missing = [needed for needed in requirements(request, recovery, by, at) if not needed.met]
        if missing:
            raise _refusal(missing)
        verified = _verified(recovery) if request.state is ClosureState.RESOLVED else []
        draft = records.draft(
            CLOSURE,
            records.mint_id(CLOSURE),
            {
                "playbook_id": playbook.playbook_id,
                "playbook_hash": playbook.record_hash,
                "provider": request.provider,
                "recovery_epoch": recovery.epoch,
                "closure_state": request.state.value,
                "closed_by": by.username,
                "closed_at": records.timestamp(at),
                "external_ref": request.external_ref,
                "notes": request.notes,
                "reason": request.reason,
                "owner": request.owner,
                "review_at": records.timestamp(request.review_at) if request.review_at else "",
                "verification_refs": list(request.verification_refs),
                "verified": verified,
            },
            at=at,
            by=by,
            cases=[case.case_id for case in listed_cases(recovery)][: records.MAX_CASES_PER_RECORD],
            references=[
                records.Reference(PLAYBOOK.name, playbook.playbook_id, playbook.record_hash),
                *(
                    records.Reference(EXECUTION_RECORD.name, execution.execution_id, execution.execution_hash)
                    for execution in delivered_executions(recovery).filter(
                        execution_id__in=request.verification_refs
                    )
                ),
                *(
                    known.record
                    for known in turned_out_delivered(recovery).values()
                    if known.record.id in request.verification_refs
                ),
                *_disposition_references(recovery, request.verification_refs),
            ],
            claimed_actor=request.claimed_actor,
        )
        move(
            transitions.RECOVERIES,
            recovery.pk,
            RecoveryState(request.state),
            detail=next(iter(reasons_against_state(recovery, request.state)), ""),
            owner=request.owner,
            review_at=request.review_at,
        )
        Closure.objects.create(
            closure_id=draft.record_id,
            recovery=recovery,
            playbook=playbook,
            state=request.state,
            closed_by=by,
            closed_at=at,
            record_hash=draft.digest,
        )
        if request.state is ClosureState.REOPENED:
            _next_epoch(recovery, at=at)
        ledger.append([draft])
    return draft


def _require_newest(playbook: Playbook, recovery: Recovery) -> None:
    newest = newest_playbook(recovery)
    if newest is not None and newest != playbook:
        raise Conflict(
            "A newer playbook describes this recovery; close by that one.",
            code="playbook_superseded",
            playbook_id=newest.playbook_id,
        )


def _require_last(recovery: Recovery) -> None:
    """What is reopened goes on as the connector's next recovery; there is one unfinished at a time."""
    newer = Recovery.objects.filter(connector=recovery.connector, epoch__gt=recovery.epoch)
    if following := newer.exclude(state__in=FINISHED).first():
        raise Conflict(
            f"Not reopened: recovery {following.epoch} of {recovery.connector.key} is {following.state}; "
            "work that one.",
            code="recovery_open",
        )


def executed_by(person: Person, executions: Iterable[Execution]) -> list[Execution]:
    """Those of some executions that a person answers for, through whichever account."""
    executions = list(executions)
    own = _answered_for(person, (execution.executed_by for execution in executions))
    return [execution for execution in executions if execution.executed_by in own]


def proposed_by(person: Person, found: Iterable[Disposition]) -> list[Disposition]:
    """Those of some dispositions that a person proposed, through whichever account."""
    found = list(found)
    own = _answered_for(person, (disposition.proposed_through for disposition in found))
    return [disposition for disposition in found if disposition.proposed_through in own]


def _answered_for(person: Person, accounts: Iterable[Person]) -> set[Person]:
    """Those of some accounts that a person answers for, or ever answered for; each is asked about once."""
    return {account for account in set(accounts) if person.principal in people.answering(account)}


def _refusal(missing: Sequence[Requirement]) -> DomainError:
    """What a closure with these requirements unmet is refused with: the person before the object."""
    by_field: dict[str, list[str]] = {}
    for needed in missing:
        by_field.setdefault(needed.field, []).append(needed.sentence)
    if PERSON in by_field:
        return NotAllowed(f"Recovery not closed. {by_field[PERSON][0]}", code="second_person_required")
    detail = f"Recovery not closed. {missing[0].sentence}"
    if CASES in by_field:
        return ClosureNotEarned(detail, errors=by_field)
    return Conflict(detail, code="closure_requirements_missing", errors=by_field)


def delivered_executions(recovery: Recovery) -> QuerySet[Execution]:
    """Executions of a recovery's cases that were delivered: what may prove it."""
    return (
        Execution.objects.filter(case__recovery_items__recovery=recovery, state=ExecutionState.DELIVERED)
        .select_related("executed_by__owner")
        .order_by("execution_id")
    )


def turned_out_delivered(recovery: Recovery) -> dict[int, Known]:
    """What settled those cases (by key) of which no try was delivered by its own record: reconciliations."""
    cases = Case.objects.filter(recovery_items__recovery=recovery, state=CaseState.DELIVERED)
    unheard = list(
        Attempt.objects.filter(attempts.PERHAPS, case__in=cases)
        .exclude(case__attempts__outcome=Outcome.DELIVERED)
        .order_by("number")
    )
    known = attempts.what_is_known(unheard, failed_too=True)
    return {
        attempt.case_id: known[attempt.pk]
        for attempt in unheard
        if known[attempt.pk].outcome is Outcome.DELIVERED
    }


def sent_first(recovery: Recovery) -> list[Case]:
    """Cases that an unknown first attempt turned out to have settled: nobody executed them, somebody sent them."""
    turned = turned_out_delivered(recovery)
    if not turned:
        return []
    executed = delivered_executions(recovery).values_list("case_id", flat=True)
    cases = Case.objects.filter(pk__in=turned.keys() - set(executed))
    return list(cases.select_related("created_by__owner"))


def disposed(recovery: Recovery) -> list[Disposition]:
    """The dispositions that settled cases of a recovery without a delivery."""
    return dispositions.confirmed(Case.objects.filter(recovery_items__recovery=recovery))


def _disposition_references(recovery: Recovery, refs: Sequence[str]) -> list[records.Reference]:
    """How a closure quotes the dispositions it names: what was proposed, and who confirmed it."""
    named = [one for one in disposed(recovery) if one.disposition_id in refs]
    decided = dispositions.decisions(named).values()
    return [
        *(dispositions.proposal_reference(one) for one in named),
        *(records.Reference(DISPOSITION.name, record.record_id, record.digest) for record in decided),
    ]


def _verified(recovery: Recovery) -> list[dict[str, str]]:
    """What settled each case, looked up at commit time."""
    successes = {
        attempt.case_id: attempt
        for attempt in Attempt.objects.filter(
            case__recovery_items__recovery=recovery, outcome=Outcome.DELIVERED
        ).order_by("number")
    }
    executions = {execution.case_id: execution for execution in delivered_executions(recovery)}
    reconciled = turned_out_delivered(recovery)
    settled = {one.case_id: one for one in disposed(recovery)}
    decisions = dispositions.decisions(settled.values())
    verified = []
    for case in listed_cases(recovery):
        attempt, execution = successes.get(case.pk), executions.get(case.pk)
        known, disposition = reconciled.get(case.pk), settled.get(case.pk)
        decision = decisions[disposition.disposition_id] if disposition else None
        verified.append(
            {
                "case": case.case_id,
                "state": case.state,
                "attempt_id": attempt.attempt_id if attempt else "",
                "attempt_record_hash": attempt.record_hash if attempt else "",
                "execution_id": execution.execution_id if execution else "",
                "execution_hash": execution.execution_hash if execution else "",
                "reconciliation_id": known.record.id if known else "",
                "reconciliation_hash": known.record.hash if known else "",
                "disposition_id": disposition.disposition_id if disposition else "",
                "disposition_decision_id": decision.record_id if decision else "",
                "disposition_decision_hash": decision.digest if decision else "",
            }
        )
    return verified


def _next_epoch(recovery: Recovery, *, at: datetime) -> None:
    """Reopening starts the connector's next recovery over the same cases; the old one keeps its closure."""
    last = Recovery.objects.filter(connector=recovery.connector).aggregate(last=Max("epoch"))["last"]
    following = Recovery.objects.create(connector=recovery.connector, epoch=last + 1, opened_at=at)
    RecoveryCase.objects.bulk_create(
        RecoveryCase(recovery=following, case=case, listed_at=at) for case in listed_cases(recovery)
    )
