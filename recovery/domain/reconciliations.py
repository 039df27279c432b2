"""Unknown outcomes: what people saw at the receiver, and what two of them who agree settle (P3).

Nothing is sent again before an unknown outcome is settled: by the receiver's own late answer, by what it says when
it is asked (``inquiries``), or here. All write a reconciliation; the attempt itself stays as it was recorded.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from django.db import transaction

from evidence.connectors.products import PRODUCTS
from evidence.domain import attempts, deliveries, ledger, people, policies, records, text
from evidence.domain import clock as clocks
from evidence.domain.attempts import Known, Said, Source
from evidence.domain.clock import Clock
from evidence.domain.sending import settings_of
from evidence.domain.transitions import move
from evidence.enums import Answer, Assurance, Outcome, Product, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound, StaleState
from evidence.models import Attempt, Case, Connector, Person
from recovery.documents import (
    ATTESTATION,
    EXECUTION_CLAIM,
    EXECUTION_RECONCILIATION,
    EXECUTION_RECORD,
    WORKER_RUN,
)
from recovery.domain import approvals, transitions
from recovery.domain.policies import reasons_against_attesting, reasons_against_reconciling
from recovery.enums import OPEN_ENTRY_STATES, ExecutionState, Seen
from recovery.models import ApprovalEntry, Attestation, Execution
from recovery.permissions import Permission

# What it means for the case when two people saw the same: the outcome, and whether it may have arrived.
SETTLED_AS: dict[Seen, tuple[Outcome, bool]] = {
    Seen.DELIVERED: (Outcome.DELIVERED, True),
    Seen.NOT_DELIVERED: (Outcome.FAILED, False),
    # No dead end: a retry is possible again, and its approver sees that this one may have arrived.
    Seen.UNDETERMINED: (Outcome.FAILED, True),
}

FOUND = "Its connector has it."
# One statement is about at most so many cases.
MAX_AT_ONCE = 200

# What each of them says, inside a sentence.
WORDS = {
    Seen.DELIVERED: "delivered",
    Seen.NOT_DELIVERED: "not delivered",
    Seen.UNDETERMINED: "cannot be told",
}


@dataclass(frozen=True)
class Statement:
    """What one person saw at the receiver; ``external_ref`` is where that can be looked up.

    ``attempt_no`` is the try it is about; None is the case's newest one.
    """

    seen: Seen
    external_ref: str
    notes: str = ""
    claimed_actor: str = ""
    attempt_no: int | None = None


def attest(case: Case, statement: Statement, *, by: Person, clock: Clock) -> records.Draft:
    """Record what somebody saw of a case's unknown attempt; their newest word about it counts.

    When two people's newest words agree and one of the two spoke as approver, the case is settled with it:
    delivered, or failed, so that a retry may be planned again. A contradiction leaves it unknown. Raises
    ``InvalidInput`` without a reference, ``NotAllowed`` ``second_person_required`` for who sent the attempt,
    ``Conflict`` ``not_unknown`` for a case or an attempt whose outcome is known.
    """
    policies.require_role(by, Permission.ATTEST)
    statement = _checked(statement)
    with transaction.atomic():
        (case,) = _locked([case])
        at = clocks.read(clock)
        if against := reasons_against_attesting(by, case):
            raise NotAllowed(against[0], code="second_person_required", reasons=against)
        if refusals := reasons_against_reconciling(case, statement.attempt_no):
            code, sentence = refusals[0]
            raise Conflict(sentence, code=code, case_state=case.state)
        drafts = _say(case, statement, by=by, at=at)
        ledger.append(drafts)
    return drafts[0]


@dataclass(frozen=True)
class SaidOfAll:
    """What one statement about many cases came to: attestations, the records of cases that it settled, and the
    ids of those left out because somebody else has to look at them.
    """

    attestations: list[records.Draft]
    settled: list[records.Draft]
    left_out: list[str]


def attest_all(cases: Sequence[Case], statement: Statement, *, by: Person, clock: Clock) -> SaidOfAll:
    """Record that somebody saw the same of the unknown attempts of all ``cases``: a record for each, or none.

    It is about the attempt that each of ``cases`` was read with. What ``by`` sent is left out and named. Raises
    ``InvalidInput`` without a reference, for none and for more than ``MAX_AT_ONCE``, ``NotAllowed``
    ``second_person_required`` when all are left out, ``Conflict`` ``not_unknown`` naming a case whose outcome is
    known by now.
    """
    policies.require_role(by, Permission.ATTEST)
    statement = _checked(statement)
    shown = {case.pk: case.attempt_count for case in cases}
    if not 1 <= len(shown) <= MAX_AT_ONCE:
        raise InvalidInput(
            f"Not attested: one statement is about 1 to {MAX_AT_ONCE} cases, not {len(shown):,}; narrow the filter.",
            errors={"cases": [f"1 to {MAX_AT_ONCE} cases"]},
        )
    said = SaidOfAll([], [], [])
    with transaction.atomic():
        locked = _locked(cases)
        at = clocks.read(clock)
        for case in locked:
            if refusals := reasons_against_reconciling(case, shown[case.pk]):
                code, sentence = refusals[0]
                raise Conflict(f"{sentence} ({case.case_id})", code=code, case=case.case_id)
            if reasons_against_attesting(by, case):
                said.left_out.append(case.case_id)
                continue
            attestation, *settled = _say(case, statement, by=by, at=at)
            said.attestations.append(attestation)
            said.settled.extend(settled)
        if not said.attestations:
            raise NotAllowed(
                "Not attested: you sent the last attempt of each of these cases. Two others have to look at "
                "the receiver.",
                code="second_person_required",
                cases=said.left_out,
            )
        ledger.append([*said.attestations, *said.settled])
    return said


def _locked(cases: Sequence[Case]) -> list[Case]:
    """The same cases, locked in one order for everybody, with what a statement about them reads."""
    found = Case.objects.select_for_update(no_key=True, of=("self",)).filter(
        pk__in=[case.pk for case in cases]
    )
    # Whose they are is read once they are held: a row that waited for a new owner fits no join with the old one.
    return list(
        found.select_related("plan", "package", "connector")
        .prefetch_related("created_by__owner")
        .order_by("pk")
    )


def _say(case: Case, statement: Statement, *, by: Person, at: datetime) -> list[records.Draft]:
    """Put a checked statement on a case and settle it if that is due; the records to append, the word's first.

    The caller holds the case's lock and has asked for every reason against it.
    """
    attempt = Attempt.objects.get(case=case, number=case.attempt_count)
    execution = _execution_of(attempt)
    as_approver = Role.APPROVER in people.roles_of(by)
    draft = records.draft(
        ATTESTATION,
        records.mint_id(ATTESTATION),
        {
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "provider": case.connector.key,
            "attempt_no": attempt.number,
            "attempt_id": attempt.attempt_id,
            "execution_id": execution.execution_id if execution else "",
            "seen": statement.seen.value,
            "as_approver": as_approver,
            "attested_by": by.username,
            "attested_at": records.timestamp(at),
            "external_ref": statement.external_ref,
            "notes": statement.notes,
        },
        at=at,
        by=by,
        cases=[case.case_id],
        references=[
            *attempts.case_references([case]),
            attempts.delivery_reference(attempt),
            *([_record_of(execution)] if execution else []),
        ],
        claimed_actor=statement.claimed_actor,
    )
    word = Attestation.objects.create(
        attestation_id=draft.record_id,
        case=case,
        attempt_no=attempt.number,
        person=by.principal,
        account=by,
        as_approver=as_approver,
        seen=statement.seen,
        external_ref=statement.external_ref,
        notes=statement.notes,
        attested_at=at,
        record_hash=draft.digest,
    )
    other = _agreeing(word, _newest_words(case, attempt.number))
    settled = [_settle(case, attempt, execution, (other, word), by=by, at=at)] if other else []
    return [draft, *settled]


def _checked(statement: Statement) -> Statement:
    """The statement with its texts in their one form; ``InvalidInput`` when there is no reference."""
    reference = text.external_ref(statement.external_ref)
    if not reference:
        raise InvalidInput(
            "Not attested: name a reference under which others find what you saw.",
            errors={"external_ref": ["Must not be empty."]},
        )
    notes = text.clean(statement.notes, field="notes", limit=text.MAX_NOTES, lines=True)
    return replace(statement, external_ref=reference, notes=notes)


def _newest_words(case: Case, attempt_no: int) -> list[Attestation]:
    """The newest attestation of each person about one attempt, oldest first."""
    newest: dict[int, Attestation] = {}
    about = Attestation.objects.filter(case=case, attempt_no=attempt_no)
    for word in about.select_related("person", "account").order_by("pk"):
        newest[word.person_id] = word
    return sorted(newest.values(), key=lambda word: word.pk)


def _counts(word: Attestation) -> bool:
    """Whether a word counts: nobody stands up any more for what a deactivated account said."""
    return word.person.is_active and word.account.is_active


def _agreeing(word: Attestation, words: Sequence[Attestation]) -> Attestation | None:
    """The word of somebody else that settles the case together with this one, an approver's before others'."""
    same = [
        other
        for other in words
        if other.person_id != word.person_id
        and other.seen == word.seen
        and _counts(other)
        and (other.as_approver or word.as_approver)
    ]
    return min(same, key=lambda other: (not other.as_approver, other.pk), default=None)


def _settle(
    case: Case,
    attempt: Attempt,
    execution: Execution | None,
    words: Sequence[Attestation],
    *,
    by: Person,
    at: datetime,
) -> records.Draft:
    """Move case and execution to what the two words say; returns the reconciliation to append."""
    outcome, may_have_arrived = SETTLED_AS[Seen(words[0].seen)]
    said = Said(
        source=Source.ATTESTATION,
        outcome=outcome,
        answer=Answer.NO_ANSWER,
        may_have_arrived=may_have_arrived,
    )
    references = [
        records.Reference(ATTESTATION.name, word.attestation_id, word.record_hash) for word in words
    ]
    attempts.settle_unknown(case, outcome, at=at)
    if execution is None:
        return deliveries.reconciliation(case, attempt, said, at=at, by=by, references=references)
    settle_execution(execution, outcome)
    return reconciliation(execution, attempt, said, at=at, by=by, references=references)


def settle_found(
    case: Case,
    *,
    reference: str,
    status: int | None,
    by: Person | None,
    at: datetime,
    claimed_actor: str = "",
) -> list[records.Draft]:
    """Settle an unsettled case as delivered because its connector says that it has the message (P3, W29).

    It is about the newest try that may have arrived, and counts as a late success of that one does. The caller
    holds the case's lock and appends the records. Raises ``StaleState`` when nothing that was sent may be there.
    """
    attempt = Attempt.objects.filter(attempts.PERHAPS, case=case).order_by("-number").first()
    if attempt is None:
        raise StaleState("No try of this case may have arrived.", current_state=case.state)
    execution = _execution_of(attempt)
    said = Said(
        source=Source.CONNECTOR,
        outcome=Outcome.DELIVERED,
        answer=Answer.ANSWERED,
        may_have_arrived=True,
        assurance=Assurance.CONFIRMED.value,
        status_code=status,
        external_ref=reference,
    )
    attempts.settle_found(case, at=at)
    if execution is None:
        draft = deliveries.reconciliation(case, attempt, said, at=at, by=by, claimed_actor=claimed_actor)
        # As after a late first answer: a decision that nothing asks for stays as it was recorded.
        waits = ApprovalEntry.objects.filter(case=case, state__in=OPEN_ENTRY_STATES).exists()
        return [draft, *(approvals.cancel_open(case, FOUND, by=None, at=at) if waits else [])]
    settle_execution(execution, Outcome.DELIVERED)
    draft = reconciliation(execution, attempt, said, at=at, by=by, claimed_actor=claimed_actor)
    return [draft, *approvals.cancel_open(case, FOUND, by=None, at=at)]


def settle_execution(execution: Execution, outcome: Outcome) -> None:
    """Move an execution to what turned out, from unknown or from what people had attested.

    The caller moves its case and appends the record.
    """
    move(
        transitions.EXECUTIONS,
        execution.pk,
        ExecutionState(outcome),
        only_from=[ExecutionState.UNKNOWN, ExecutionState.FAILED],
    )


def reconciliation(
    execution: Execution,
    attempt: Attempt,
    said: Said,
    *,
    at: datetime,
    by: Person | None,
    references: Sequence[records.Reference] = (),
    claimed_actor: str = "",
) -> records.Draft:
    """The document of what turned out about an execution; ``references`` are what it rests on."""
    entry = approvals.entries().get(pk=execution.entry_id)
    case, run = entry.case, execution.run
    return records.draft(
        EXECUTION_RECONCILIATION,
        records.mint_id(EXECUTION_RECONCILIATION),
        {
            "execution_id": execution.execution_id,
            "execution_hash": execution.execution_hash,
            "entry_id": entry.entry_id,
            "run_id": run.run_id,
            "audit_id": case.package.audit_id,
            **attempts.reconciliation_fields(case, attempt, said, at=at),
        },
        at=at,
        by=by,
        cases=[case.case_id],
        references=[
            *approvals.entry_references(entry),
            records.Reference(WORKER_RUN.name, run.run_id, run.record_hash),
            records.Reference(EXECUTION_CLAIM.name, execution.claim_id, execution.claim_hash),
            attempts.delivery_reference(attempt),
            _record_of(execution),
            *references,
        ],
        claimed_actor=claimed_actor,
    )


def _record_of(execution: Execution) -> records.Reference:
    return records.Reference(EXECUTION_RECORD.name, execution.execution_id, execution.execution_hash)


def _execution_of(attempt: Attempt) -> Execution | None:
    """The execution behind an attempt; None for a first one."""
    found = Execution.objects.exclude(state=ExecutionState.NOT_SENT)
    found = found.select_related("run", "entry", "executed_by__owner")
    return found.filter(case=attempt.case_id, attempt_no=attempt.number).first()


# --- for pages and answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """One person's newest word. It does not count any more once the account is deactivated."""

    name: str
    as_approver: bool
    seen: Seen
    external_ref: str
    notes: str
    at: datetime
    record_id: str
    counts: bool


@dataclass(frozen=True)
class Standing:
    """What is known of an attempt whose outcome is not, and what is missing to settle it.

    ``claimed_at`` is when it was about to leave, ``lease_until`` how long its answer was waited for (None for
    a first attempt), ``unknown_since`` when it was given up. ``body_size`` and ``look_for`` (what
    and its value) are what the receiver would know it by (None for a first attempt). ``words`` holds each
    person's newest one, oldest first; ``missing`` says in sentences what is still needed.
    """

    attempt_no: int
    attempt_id: str
    execution_id: str
    sent_by: str
    claimed_at: datetime
    lease_until: datetime | None
    unknown_since: datetime
    body_size: int | None
    look_for: tuple[str, str] | None
    words: list[Word]
    missing: list[str]


def standing(case: Case) -> Standing:
    """How the case's newest attempt stands. The case is unknown and comes with its author."""
    attempt = Attempt.objects.get(case=case, number=case.attempt_count)
    execution = _execution_of(attempt)
    words = _newest_words(case, attempt.number)
    sent_by = execution.executed_by if execution else case.created_by
    return Standing(
        attempt_no=attempt.number,
        attempt_id=attempt.attempt_id,
        execution_id=execution.execution_id if execution else "",
        sent_by=sent_by.username,
        claimed_at=execution.claimed_at if execution else case.created_at,
        lease_until=execution.lease_until if execution else None,
        unknown_since=attempt.completed_at,
        body_size=len(execution.entry.body) if execution else None,
        look_for=_look_for(execution) if execution else None,
        words=[
            Word(
                name=word.person.username,
                as_approver=word.as_approver,
                seen=Seen(word.seen),
                external_ref=word.external_ref,
                notes=word.notes,
                at=word.attested_at,
                record_id=word.attestation_id,
                counts=_counts(word),
            )
            for word in words
        ],
        missing=_missing([word for word in words if _counts(word)]),
    )


def _look_for(execution: Execution) -> tuple[str, str]:
    """What the receiver knows it by, if it got it: a key in a header, or what stands in the message itself."""
    approved = records.load(execution.entry.manifest)
    if mark := PRODUCTS[Product(approved["connector_product"])].mark:
        return "in the message", mark(settings_of(execution.entry.connector), execution.case.case_id)
    return "idempotency key", approved["headers"]["idempotency-key"]


def _missing(words: Sequence[Attestation]) -> list[str]:
    """What the words that count leave open."""
    if not words:
        return [
            "Two people have to look at the receiver and say the same; nobody has yet.",
            "One of the two has to be an approver.",
        ]
    said, most = Counter(word.seen for word in words).most_common(1)[0]
    agreeing = [word for word in words if word.seen == said]
    approver = any(word.as_approver for word in (agreeing if most > 1 else words))
    missing = []
    if len(words) == 1:
        missing.append("A second person has to look at the receiver and say the same.")
    elif most == 1:
        each = ", ".join(f"{word.person.username} says {WORDS[Seen(word.seen)]}" for word in words)
        missing.append(f"They contradict each other: {each}. Two of them have to say the same.")
    elif approver:
        # One of them did not count when the other spoke; only a new word settles anything.
        missing.append("They agree by now; one of them has to say it once more.")
    if not approver:
        missing.append("One of the two has to be an approver.")
    return missing


def reasons_against_asking(connector: Connector) -> list[str]:
    """Why the receiver itself cannot be asked whether it has the message; empty when it can."""
    why = PRODUCTS[Product(connector.product)].against_asking
    return [f"{connector.key} cannot be asked: {reason}." for reason in why]


def settled_by(case: Case, attempt_no: int) -> Known | None:
    """What two people's words made of an attempt, with its record; None while they have not."""
    attempt = Attempt.objects.filter(case=case, number=attempt_no)
    said = [known for found in attempts.reconciliations(attempt).values() for known in found]
    return next((known for known in said if known.source is Source.ATTESTATION), None)


def execution_by_id(execution_id: str) -> Execution:
    """The execution with this id and its case; ``NotFound`` otherwise."""
    row = Execution.objects.select_related("case").filter(execution_id=execution_id).first()
    if row is None:
        raise NotFound("There is no execution with this id.", code="execution_not_found")
    return row
