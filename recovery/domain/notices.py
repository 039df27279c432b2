"""Telling people that something waits for them: by mail, and through a connector if one is chosen for it.

Rows decide: what waits and has no notice yet gets one, and what is due is told. Nothing hangs on the verb that
made it wait, so a crash loses nothing. A message says how many and where, never anything of the evidence.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from functools import partial
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import (
    CharField,
    DateTimeField,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    Func,
    OuterRef,
    Q,
    QuerySet,
    Value,
)
from django.db.models.functions import Cast, Concat
from django.db.models.lookups import LessThan

from evidence.connectors import sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import Receipt
from evidence.domain import attempts, breakers, ledger, live, policies, sending, text
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import CaseState, PersonKind, Role
from evidence.models import Case, Connector, Person, RoleGrant
from recovery.domain.policies import barred_from_voting
from recovery.enums import EntryState, NoticeKind
from recovery.models import ApprovalEntry, Notice, Vote

logger = logging.getLogger(__name__)

# At most so many rows are made, and so many of a kind told, in one round of the worker.
ROUND = 500
# A request runs out when less than this is left, or less than a quarter of its time.
RUNS_OUT = timedelta(minutes=60)
# Before each further try; after the last one a notice is given up.
PAUSES = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=15), timedelta(hours=1))
# Nobody else takes a notice while whoever took it is sending: longer than a mail server and a connector may take.
TAKEN_FOR = timedelta(minutes=5)
# How soon a notice that a switch holds back is looked at again. It costs no try.
HELD_FOR = timedelta(minutes=1)
# How long a notice waits for one of its connector's slots.
SLOT_S = 10.0
# Links in one message; the rest is a number.
LINKS = 20

NO_LONGER = "no longer waiting"

# Subject of a notice and the case it is about.
Need = tuple[str, str]


@dataclass(frozen=True)
class Waiting:
    """What a message says about one subject, and to whom: a link, a connector key, and until when it waits."""

    case_id: str
    connector: str
    until: datetime | None
    addresses: frozenset[str]

    @property
    def link(self) -> str:
        """The page where it is dealt with."""
        return f"{settings.CAVRA_BASE_URL}/console/cases/{self.case_id}/"


@dataclass(frozen=True)
class Wording:
    """How one kind of notice reads: about one subject and about ``{count}``, ``{left}`` the shortest time left."""

    subject: tuple[str, str]
    sentence: tuple[str, str]
    way_out: str
    # Where all of them are listed.
    page: str
    nobody: str


_TO_APPROVE = {
    "way_out": "Sign in to read what would be sent.",
    "page": "/console/approvals/",
    "nobody": "nobody with the approver role who may decide on this has an address",
}
WORDINGS = {
    NoticeKind.APPROVAL_REQUESTED: Wording(
        subject=("an approval waits for you", "{count} approvals wait for you"),
        sentence=(
            "A retry of a failed delivery waits for approval.",
            "{count} retries of failed deliveries wait for approval.",
        ),
        **_TO_APPROVE,
    ),
    NoticeKind.APPROVAL_RUNS_OUT: Wording(
        subject=("an approval runs out in {left}", "{count} approvals run out, the first in {left}"),
        sentence=(
            "The request to approve a retry ends in {left}; afterwards it has to be asked for again.",
            "{count} requests to approve a retry end soon, the first in {left}; afterwards they have to be "
            "asked for again.",
        ),
        **_TO_APPROVE,
    ),
    NoticeKind.OUTCOME_UNKNOWN: Wording(
        subject=("the outcome of a delivery is unknown", "the outcome of {count} deliveries is unknown"),
        sentence=(
            "We do not know whether a delivery arrived. Nothing is sent again until this is settled.",
            "We do not know whether {count} deliveries arrived. Nothing is sent again until this is settled.",
        ),
        way_out="Sign in to see what is known.",
        page=f"/console/cases/?state={CaseState.UNKNOWN}",
        nobody="nobody with the analyst role has an address",
    ),
}


# --- what has to be told ------------------------------------------------------------------------------------------


def notice(*, clock: Clock, limit: int = ROUND) -> int:
    """Make the notices that are missing, at most ``limit`` of a kind; how many. Making them again adds nothing."""
    at = clocks.read(clock)
    made = 0
    for kind, needed in _NEEDED.items():
        missing = list(needed(at)[:limit])
        Notice.objects.bulk_create(
            (
                Notice(kind=kind, subject=subject, case_id=case_id, created_at=at, due_at=at)
                for subject, case_id in missing
            ),
            ignore_conflicts=True,  # another worker found it too
        )
        made += len(missing)
    return made


def _pending(at: datetime) -> QuerySet[ApprovalEntry]:
    """Entries that still take votes."""
    return ApprovalEntry.objects.filter(state=EntryState.PENDING, approve_by__gt=at)


def _untold(*kinds: NoticeKind, subject: str) -> Q:
    """Rows without a notice of these kinds; ``subject`` is the column that such a notice would name."""
    return Q(~Exists(Notice.objects.filter(kind__in=kinds, subject=OuterRef(subject))))


def _running_out(at: datetime) -> QuerySet[ApprovalEntry, Need]:
    whole = ExpressionWrapper(F("approve_by") - F("requested_at"), output_field=DurationField())
    left = ExpressionWrapper(F("approve_by") - Value(at, DateTimeField()), output_field=DurationField())
    # Multiplied by hand: on SQLite a length of time that is multiplied becomes text and compares as such.
    less_than_a_quarter = LessThan(Func(left, template="4 * (%(expressions)s)"), whole)
    untold = _untold(NoticeKind.APPROVAL_RUNS_OUT, subject="entry_id")
    return (
        _pending(at)
        .filter(Q(approve_by__lt=at + RUNS_OUT) | Q(less_than_a_quarter), untold)
        .order_by("approve_by")
        .values_list("entry_id", "case__case_id")
    )


def _requested(at: datetime) -> QuerySet[ApprovalEntry, Need]:
    """Who was told that it runs out need not be told that it was asked for."""
    untold = _untold(NoticeKind.APPROVAL_REQUESTED, NoticeKind.APPROVAL_RUNS_OUT, subject="entry_id")
    return _pending(at).filter(untold).order_by("approve_by").values_list("entry_id", "case__case_id")


def _unknown(at: datetime) -> QuerySet[Case, Need]:
    subject = Concat("case_id", Value("#"), Cast("attempt_count", CharField()))
    return (
        Case.objects.filter(state=CaseState.UNKNOWN)
        .annotate(subject=subject)
        .filter(_untold(NoticeKind.OUTCOME_UNKNOWN, subject="subject"))
        .order_by("-pk")
        .values_list("subject", "case_id")
    )


# In this order: see ``_requested``.
_NEEDED: Mapping[NoticeKind, Callable[[datetime], QuerySet[Any, Need]]] = {
    NoticeKind.APPROVAL_RUNS_OUT: _running_out,
    NoticeKind.APPROVAL_REQUESTED: _requested,
    NoticeKind.OUTCOME_UNKNOWN: _unknown,
}


# --- what still waits, and for whom -------------------------------------------------------------------------------


def _approvals(subjects: Sequence[str], at: datetime) -> dict[str, Waiting]:
    """Entries that are pending, each with the addresses of those who may vote on it and have not."""
    entries = list(
        _pending(at)
        .filter(entry_id__in=subjects)
        .select_related("case", "connector")
        .only("entry_id", "requested_at", "approve_by", "case__case_id", "connector__key")
    )
    voted = set(Vote.objects.filter(entry__in=entries).values_list("entry_id", "person_id"))
    addresses: dict[int, set[str]] = {entry.pk: set() for entry in entries}
    for person in _holders(Role.APPROVER):
        barred = barred_from_voting(person, entries)
        for entry in entries:
            if not barred[entry.pk] and (entry.pk, person.pk) not in voted:
                addresses[entry.pk].add(person.email)
    return {
        entry.entry_id: Waiting(
            entry.case.case_id, entry.connector.key, entry.approve_by, frozenset(addresses[entry.pk])
        )
        for entry in entries
    }


def _unknown_outcomes(subjects: Sequence[str], at: datetime) -> dict[str, Waiting]:
    """Cases that are unknown by that very attempt; analysts settle them."""
    cases = Case.objects.filter(
        case_id__in=[subject.rpartition("#")[0] for subject in subjects], state=CaseState.UNKNOWN
    ).values_list("case_id", "attempt_count", "connector__key")
    analysts = frozenset(person.email for person in _holders(Role.ANALYST))
    return {
        f"{case_id}#{number}": Waiting(case_id, connector, None, analysts)
        for case_id, number, connector in cases
    }


_STILL_WAITING: Mapping[NoticeKind, Callable[[Sequence[str], datetime], dict[str, Waiting]]] = {
    NoticeKind.APPROVAL_REQUESTED: _approvals,
    NoticeKind.APPROVAL_RUNS_OUT: _approvals,
    NoticeKind.OUTCOME_UNKNOWN: _unknown_outcomes,
}


def _holders(role: Role) -> QuerySet[Person]:
    """Active humans who hold a role and have an address."""
    held = RoleGrant.objects.filter(role=role, revoked_at=None).values("person")
    return Person.objects.filter(pk__in=held, is_active=True, kind=PersonKind.HUMAN).exclude(email="")


# --- telling ------------------------------------------------------------------------------------------------------


class How(IntEnum):
    """What a channel made of a message. The lowest of several channels decides."""

    TOLD = 1
    FAILED = 2
    HELD = 3
    NOBODY = 4


@dataclass(frozen=True)
class Reply:
    """What came of one channel, in a few words without address or content."""

    how: How
    words: str


@dataclass(frozen=True)
class Taken:
    """A notice that this process, and nobody else, is telling."""

    notice: Notice
    waiting: Waiting


def tell(*, clock: Clock, beat: Callable[[], None] = lambda: None, limit: int = ROUND) -> int:
    """Send what is due, as few messages as there are kinds and circles of people; how many notices were dealt with.

    What no longer waits is closed instead. ``beat`` is called before each message, for a worker's heartbeat.
    """
    dealt_with = 0
    due = _due(clocks.read(clock)).order_by().values_list("kind", flat=True).distinct()
    for kind in sorted(map(NoticeKind, due)):
        taken, closed = _take(kind, clock=clock, limit=limit)
        dealt_with += len(taken) + closed
        if not taken:
            continue
        beat()
        chat = _by_connector(kind, taken, clock=clock)
        for addresses, some in _by_circle(taken).items():
            beat()
            mail = _by_mail(kind, some, addresses, at=clocks.read(clock))
            replies = [reply for reply in (mail, chat) if reply]
            attempts.written(partial(_write, some, replies, clock=clock))
    return dealt_with


def _due(at: datetime) -> QuerySet[Notice]:
    return Notice.objects.filter(told_at=None, given_up=False, due_at__lte=at)


def _take(kind: NoticeKind, *, clock: Clock, limit: int) -> tuple[list[Taken], int]:
    """What is due of a kind and still waits, for this process alone; and how many others were closed.

    Another worker's statement waits for the rows and then finds them due later. Should this process die, they
    are due again after ``TAKEN_FOR``.
    """
    with transaction.atomic():
        at = clocks.read(clock)
        due = list(_due(at).filter(kind=kind).select_for_update(no_key=True).order_by("due_at", "pk")[:limit])
        waiting = _STILL_WAITING[kind]([one.subject for one in due], at)
        taken, closed = [], []
        for one in due:
            if one.subject not in waiting:
                one.given_up, one.told = True, NO_LONGER
            elif one.tries > len(PAUSES):
                one.given_up, one.told = True, one.told or "whoever told it never came back"
            else:
                one.tries, one.due_at = one.tries + 1, at + TAKEN_FOR
                taken.append(Taken(one, waiting[one.subject]))
                continue
            closed.append(one)
        Notice.objects.bulk_update(due, ["tries", "due_at", "given_up", "told"])
    return sorted(taken, key=_soonest_first), len(closed)


def _soonest_first(one: Taken) -> tuple[bool, Any]:
    until = one.waiting.until
    return until is None, until or one.notice.pk


def _by_circle(taken: Iterable[Taken]) -> dict[frozenset[str], list[Taken]]:
    """Notices by who is to be told: the same people get one message."""
    circles: dict[frozenset[str], list[Taken]] = defaultdict(list)
    for one in taken:
        circles[one.waiting.addresses].append(one)
    return circles


def _write(taken: Sequence[Taken], replies: Sequence[Reply], *, clock: Clock) -> None:
    """Note what came of telling some notices through their channels."""
    how = min(reply.how for reply in replies)
    words = ", ".join(reply.words for reply in replies if how is How.NOBODY or reply.how is not How.NOBODY)
    if how is How.FAILED:
        logger.warning("%d notices were not told: %s", len(taken), words)
    held: dict[tuple[int, datetime], list[int]] = defaultdict(list)
    for one in taken:
        held[one.notice.tries, one.notice.due_at].append(one.notice.pk)
    with transaction.atomic():
        at = clocks.read(clock)
        for (tries, due_at), pks in held.items():
            # What was outlasted was freed, and whoever took it since says what came of it.
            own = Notice.objects.filter(pk__in=pks, told_at=None, given_up=False, tries=tries, due_at=due_at)
            own.update(told=words[:200], **_after(how, tries, at))


def _after(how: How, tries: int, at: datetime) -> dict[str, Any]:
    """Columns of a notice after its ``tries``-th try came to ``how``."""
    if how is How.TOLD:
        return {"told_at": at}
    if how is How.HELD:
        return {"tries": tries - 1, "due_at": at + HELD_FOR}
    if how is How.FAILED and tries <= len(PAUSES):
        return {"due_at": at + PAUSES[tries - 1]}
    return {"given_up": True}


# --- channels -----------------------------------------------------------------------------------------------------


def _by_mail(kind: NoticeKind, taken: Sequence[Taken], addresses: frozenset[str], *, at: datetime) -> Reply:
    """One mail to everybody, none of whom sees the others' addresses."""
    if not settings.CAVRA_BASE_URL:
        return Reply(How.NOBODY, "mail needs CAVRA_BASE_URL to link to")
    if not settings.CAVRA_SENDS_MAIL:
        return Reply(How.NOBODY, "mail is not set up")
    if not addresses:
        return Reply(How.NOBODY, WORDINGS[kind].nobody)
    words = _Words(kind, taken, at)
    mail = EmailMessage(
        f"CAVRA: {words.subject}",
        words.letter,
        bcc=sorted(addresses),
        headers={"To": "undisclosed-recipients:;", "Auto-Submitted": "auto-generated"},
    )
    try:
        mail.send()
    except (OSError, ValueError) as error:  # an answer of the server is an OSError; its text may name people
        code = getattr(error, "smtp_code", "")
        return Reply(How.FAILED, f"mail: {type(error).__name__} {code}".rstrip())
    return Reply(How.TOLD, f"mail to {len(addresses)} {'person' if len(addresses) == 1 else 'people'}")


def _by_connector(kind: NoticeKind, taken: Sequence[Taken], *, clock: Clock) -> Reply | None:
    """A small fixed body through the chosen connector; None when none is. No case and no attempt comes of it."""
    key = settings.CAVRA_NOTICE_CONNECTOR
    if not key:
        return None
    if not settings.CAVRA_BASE_URL:
        return Reply(How.NOBODY, f"connector {key} needs CAVRA_BASE_URL to link to")
    connector = Connector.objects.filter(key=key).first()
    if connector is None:
        return Reply(How.FAILED, f"connector {key} is not configured")
    at = clocks.read(clock)
    if against := policies.reasons_against_telling(connector):
        return Reply(How.NOBODY, against[0][1].rstrip("."))
    reasons = [
        *live.reasons_against_log(live.LogState.read()),
        *policies.reasons_against_sending(connector, policies.paused_scopes(), at),
    ]
    if reasons:
        return Reply(How.HELD, f"connector {key} held back: {reasons[0][1]}")
    words = _Words(kind, taken, at)
    # Its own id, and with it an idempotency key of its own: never a case's.
    about = f"notice-{min(one.notice.pk for one in taken)}-{max(one.notice.pk for one in taken)}"
    receipt = _posted(connector, {"text": words.line, "link": words.link}, about=about)
    attempts.written(partial(_counted, receipt, clock=clock))
    if receipt.delivered:
        return Reply(How.TOLD, f"connector {key}")
    return Reply(How.FAILED, f"connector {key}: {receipt.error}")


def _posted(connector: Connector, body: dict[str, Any], *, about: str) -> Receipt:
    """What came of sending ``body`` once."""
    try:
        prepared = sending.prepare_event(connector, body, about=about)
    except Misconfigured as error:
        return sending.misconfigured(about, connector, error)
    spec = sending.spec_for(prepared, connector, token=about, timeout_s=connector.timeout_ms / 1000)
    (receipt,) = sender.shared().send_all([spec], deadline_s=SLOT_S)
    return receipt


def _counted(receipt: Receipt, *, clock: Clock) -> None:
    """Let what came of it move its connector's breaker, like anything else that is sent there."""
    with transaction.atomic():
        ledger.append(breakers.heard([receipt], at=clocks.read(clock)))


@dataclass(frozen=True)
class _Words:
    """A message about some notices of one kind, soonest first: counts, links, connector keys and times."""

    kind: NoticeKind
    taken: Sequence[Taken]
    at: datetime

    @property
    def subject(self) -> str:
        return self._about(WORDINGS[self.kind].subject)

    @property
    def link(self) -> str:
        """The case, or the list when there are several."""
        return self.taken[0].waiting.link if len(self.taken) == 1 else self._page

    @property
    def line(self) -> str:
        """All of it in one line, for a chat."""
        return f"{self._about(WORDINGS[self.kind].sentence)} {WORDINGS[self.kind].way_out} {self.link}"

    @property
    def letter(self) -> str:
        wording = WORDINGS[self.kind]
        lines = [self._about(wording.sentence), ""]
        for one in self.taken[:LINKS]:
            left = f", {text.span(one.waiting.until - self.at)} left" if one.waiting.until else ""
            lines += [one.waiting.link, f"    {one.waiting.connector}{left}"]
        if (more := len(self.taken) - LINKS) > 0:
            lines.append(f"and {more} more: {self._page}")
        return "\n".join([*lines, "", wording.way_out, ""])

    @property
    def _page(self) -> str:
        return f"{settings.CAVRA_BASE_URL}{WORDINGS[self.kind].page}"

    def _about(self, one_and_many: tuple[str, str]) -> str:
        until = self.taken[0].waiting.until
        return one_and_many[len(self.taken) > 1].format(
            count=len(self.taken), left=text.span(until - self.at) if until else ""
        )


# --- who was told -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling:
    """What became of one notice: a sentence without its time, and the time it speaks of."""

    kind: NoticeKind
    sentence: str
    at: datetime


def told_about(entry: ApprovalEntry) -> list[Telling]:
    """Who was told of a request for approval, and that it runs out; oldest first."""
    return _tellings(entry.entry_id, kinds=(NoticeKind.APPROVAL_REQUESTED, NoticeKind.APPROVAL_RUNS_OUT))


def told_about_case(case: Case) -> list[Telling]:
    """Who was told that the outcome of a case's newest attempt is unknown."""
    return _tellings(f"{case.case_id}#{case.attempt_count}", kinds=(NoticeKind.OUTCOME_UNKNOWN,))


def _tellings(subject: str, *, kinds: Sequence[NoticeKind]) -> list[Telling]:
    """What was closed untold because nothing waited any more is nothing to speak of."""
    found = Notice.objects.filter(kind__in=kinds, subject=subject).exclude(told=NO_LONGER).order_by("pk")
    return [_telling(one) for one in found]


def _telling(one: Notice) -> Telling:
    kind = NoticeKind(one.kind)
    if one.told_at:
        return Telling(kind, f"Told by {one.told}", one.told_at)
    if one.given_up:
        return Telling(kind, f"Nobody was told: {one.told}", one.created_at)
    return Telling(kind, f"Not told yet: {one.told}" if one.told else "Not told yet", one.created_at)
