"""Inquiries: connectors that can answer are asked whether a try arrived of which that is not known (P3, W29).

A question carries an id and none of the content, so it is no try (P1). *It is there* settles the case as a late
success does; *it is not there* settles nothing, for it may be under way or not be indexed yet, and is only shown.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from evidence.connectors.failures import PROPERTIES
from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import Receipt
from evidence.domain import attempts, ledger, live, policies, records
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import CaseState, FailureClass, Product
from evidence.models import Attempt, Case, Connector, Person
from recovery.domain import reconciliations
from recovery.enums import EntryState, Told
from recovery.models import ApprovalEntry, Inquiry

# After each question that the worker asks about a try; from then on once a day, and no more after MAX_AGE.
PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
DAILY = timedelta(days=1)
MAX_AGE = timedelta(days=30)
UNSETTLED = (CaseState.FAILED, CaseState.UNKNOWN)
ASKABLE = tuple(product for product, adapter in PRODUCTS.items() if adapter.question is not None)

# What is looked for, in a sentence; anything else is a message.
THING = {Product.JIRA: "ticket", Product.SERVICENOW: "ticket"}


@dataclass(frozen=True)
class Question:
    """A case to ask about, and the number of its newest try when the question is asked."""

    case_pk: int
    case_id: str
    attempt_no: int
    connector: Connector


@dataclass(frozen=True)
class Heard:
    """What came of one question. ``settled`` are the records of a case that it settled, the reconciliation's first.

    ``moved_on``: a try was claimed or made meanwhile, or the case is settled; the answer is of no use any more.
    """

    told: Told
    failure_class: str
    reference: str
    at: datetime
    settled: tuple[records.Draft, ...] = ()
    moved_on: bool = False


def question_about(case: Case) -> Question:
    """The question about a case, which comes with its connector."""
    return Question(case.pk, case.case_id, case.attempt_count, case.connector)


def may_have_arrived(case: Case) -> bool:
    """Whether some try of the case may have arrived as far as its own record tells, whatever people attested."""
    return Attempt.objects.filter(attempts.PERHAPS, case=case).exists()


def worth_asking(case: Case) -> bool:
    """Whether an answer of the case's connector would be of use, now or later."""
    askable = case.connector.product in ASKABLE
    return askable and case.state in UNSETTLED and may_have_arrived(case)


def reasons_against_inquiry(case: Case, *, clock: Clock) -> list[tuple[str, str]]:
    """Why the case's connector is not asked now, as ``(code, sentence)``, the most lasting first."""
    connector = case.connector
    if against := reconciliations.reasons_against_asking(connector):
        return [("cannot_be_asked", sentence) for sentence in against]
    if case.state == CaseState.SENDING:
        return [("sending", "A try is under way; wait for what comes of it.")]
    if case.state not in UNSETTLED:
        return [("settled", f"This case is {case.state.replace('_', ' ')}; there is nothing to ask.")]
    if not may_have_arrived(case):
        return [("nothing_sent", "No try of this case can have arrived; there is nothing to ask.")]
    sending = policies.reasons_against_sending(connector, policies.paused_scopes(), clocks.read(clock))
    return [*live.reasons_against_live(clock), *sending]


# --- by itself ----------------------------------------------------------------------------------------------------


def take_due(connector: Connector, *, clock: Clock, limit: int) -> list[Question]:
    """Questions to ask ``connector`` now, at most ``limit``; each is marked as asked, so that nobody else asks it.

    A question whose answer is never written (a crash) is asked again after its pause.
    """
    at = clocks.read(clock)
    return [
        question
        for pk in _due(connector, at).values_list("pk", flat=True)[:limit]
        if (question := _take(pk, clock=clock))
    ]


def _due(connector: Connector, at: datetime) -> QuerySet[Case]:
    """Cases to ask about: never asked since their newest try, or not for their pause; who waits longest first.

    A request for approval is a reason to ask at once: the approver is to see the answer.
    """
    seen = PRODUCTS[Product(connector.product)].visible_after_s
    rows = Case.objects.filter(
        Exists(Attempt.objects.filter(attempts.PERHAPS, case=OuterRef("pk"))),
        connector=connector,
        state__in=UNSETTLED,
        last_outcome_at__lte=at - timedelta(seconds=seen),
    )
    unasked = Q(inquiry__isnull=True) | Q(inquiry__attempt_no__lt=F("attempt_count"))
    requested = ApprovalEntry.objects.filter(case=OuterRef("pk"), state=EntryState.PENDING)
    newly = Exists(requested.filter(requested_at__gt=OuterRef("inquiry__asked_at"))) | (
        Q(inquiry__isnull=True) & Exists(requested)
    )
    scheduled = (unasked & Q(last_outcome_at__gt=at - MAX_AGE)) | Q(inquiry__next_at__lte=at)
    return rows.filter(scheduled | newly).order_by(
        F("inquiry__next_at").asc(nulls_first=True), "last_outcome_at", "pk"
    )


def _take(case_pk: int, *, clock: Clock) -> Question | None:
    """Mark a case as asked; None when somebody holds it, or it is not due any more."""
    with transaction.atomic():
        held = Case.objects.select_for_update(no_key=True, skip_locked=True, of=("self",))
        case = held.select_related("connector").filter(pk=case_pk).first()
        at = clocks.read(clock)
        if case is None or not _due(case.connector, at).filter(pk=case_pk).exists():
            return None
        row = Inquiry.objects.filter(case=case).first()
        times = row.times + 1 if row and row.attempt_no == case.attempt_count else 1
        _write(case, times=times, asked_at=at, asked_by=None, next_at=_next(case, times, at), told="")
    return question_about(case)


def _next(case: Case, times: int, at: datetime) -> datetime | None:
    """When the worker asks again after its ``times``-th question; None when it has asked for long enough."""
    due = at + (PAUSES[times - 1] if times <= len(PAUSES) else DAILY)
    since = case.last_outcome_at or case.created_at
    return due if due <= since + MAX_AGE else None


def _write(case: Case, **values: object) -> None:
    Inquiry.objects.update_or_create(
        case=case, defaults={"attempt_no": case.attempt_count, "failure_class": "", **values}
    )


# --- what was answered --------------------------------------------------------------------------------------------


def hear(
    question: Question, receipt: Receipt, *, by: Person | None, clock: Clock, claimed_actor: str = ""
) -> Heard:
    """Write what came of a question: a case whose message is there is settled; anything else is only kept.

    ``by`` asked it, or nobody did and it was the worker. An answer about a case of which a try was claimed since
    is dropped: which try it speaks of could not be told, and it can be had again.
    """
    told = {True: Told.THERE, False: Told.NOT_THERE, None: Told.NOTHING}[receipt.found]
    failure = receipt.failure_class.value if receipt.failure_class else ""
    with transaction.atomic():
        locked = Case.objects.select_for_update(no_key=True, of=("self",))
        case = locked.select_related("connector", "plan", "package").get(pk=question.case_pk)
        at = clocks.read(clock)
        if case.state not in UNSETTLED or case.attempt_count != question.attempt_no:
            return Heard(told, failure, receipt.reference, at, moved_on=True)
        row = Inquiry.objects.filter(case=case).first()
        known = row if row and row.attempt_no == case.attempt_count else None
        since = case.last_outcome_at or case.created_at
        visible = timedelta(seconds=PRODUCTS[Product(case.connector.product)].visible_after_s)
        _write(
            case,
            # Somebody's question in between moves none of the worker's.
            times=known.times if known else 0,
            next_at=known.next_at if known else max(at, since + visible),
            asked_at=at,
            asked_by=by,
            told=told,
            failure_class=failure,
        )
        drafts: list[records.Draft] = []
        if told is Told.THERE:
            drafts = reconciliations.settle_found(
                case,
                reference=receipt.reference,
                status=receipt.status_code,
                by=by,
                at=at,
                claimed_actor=claimed_actor,
            )
            ledger.append(drafts)
    return Heard(told, failure, receipt.reference, at, tuple(drafts))


# --- for pages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What a connector said last, for a page: when, who asked (empty: the worker), and in words what came of it."""

    at: datetime
    by: str
    words: str
    next_at: datetime | None


def shown(case: Case) -> Shown | None:
    """What was last asked about the case's newest try; None when nothing was."""
    if case.connector.product not in ASKABLE:
        return None
    row = Inquiry.objects.filter(case=case, attempt_no=case.attempt_count).select_related("asked_by").first()
    if row is None:
        return None
    words = told_words(Product(case.connector.product), row.told, row.failure_class)
    return Shown(row.asked_at, row.asked_by.username if row.asked_by else "", words, row.next_at)


def told_words(product: Product, told: str, failure_class: str) -> str:
    """An answer as a sentence's end says it."""
    if told == Told.NOTHING:
        why = PROPERTIES[FailureClass(failure_class)].label if failure_class else "no answer in time"
        return f"it could not be told ({why})"
    thing = THING.get(product, "message")
    return {Told.THERE: f"the {thing} is there", Told.NOT_THERE: f"no such {thing}"}.get(
        Told(told) if told else Told.NOTHING, "no answer yet"
    )
