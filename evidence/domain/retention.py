"""Retention: how long the bytes of a kind are kept, and what goes when that time is over (P24).

A rule is configuration of an administrator. It is in force once an auditor who did not edit it has confirmed its
terms; from then on what is due is erased without asking again, but never under legal hold and never while a case
that needs it is unsettled. Changing the terms takes the rule out of force until somebody confirms them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from evidence.documents import CONFIGURATION
from evidence.domain import clock as clocks
from evidence.domain import commitments, erasures, ledger, people, policies, records
from evidence.domain.clock import Clock
from evidence.domain.retention_terms import in_force, kept, terms
from evidence.enums import Role
from evidence.errors import Conflict, NotAllowed, NotFound
from evidence.models import Case, LegalHold, Person, Record, RecordKey, RetentionRule
from evidence.permissions import Permission

# Erasures that one look makes at most; what is left is due at the next one.
MOST_AT_ONCE = 20


def confirm(rule: RetentionRule, *, by: Person, clock: Clock) -> RetentionRule:
    """Put a rule's terms in force, as somebody else than who edited them.

    Raises ``NotAllowed`` ``second_person_required`` for who edited it or was no auditor by then, ``Conflict``
    ``retention_in_force`` for terms that were confirmed before.
    """
    policies.require_role(by, Permission.CONFIRM_ERASURE)
    with transaction.atomic():
        rule = rules().select_for_update(no_key=True, of=("self",)).get(pk=rule.pk)
        at = clocks.read(clock)
        if reasons := reasons_against_confirming(by, rule):
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons)
        if in_force(rule):
            raise Conflict("Not confirmed: these terms are in force already.", code="retention_in_force")
        rule.confirmed_by, rule.confirmed_at, rule.confirmed_terms = by.principal, at, terms(rule)
        rule.save(update_fields=["confirmed_by", "confirmed_at", "confirmed_terms"])
        ledger.append(
            [
                records.draft(
                    CONFIGURATION,
                    records.mint_id(CONFIGURATION),
                    {
                        "subject": "retentionrule",
                        "subject_id": rule.kind,
                        "change": "confirmed",
                        "changed_fields": [],
                        "configuration_digest": commitments.commit(
                            "configuration", rule.confirmed_terms.encode()
                        ),
                        "reason": kept(rule.keep_days, rule.legal_basis),
                        "at": records.timestamp(at),
                    },
                    at=at,
                    by=by,
                )
            ]
        )
    return rule


def run(*, clock: Clock) -> int:
    """Erase what rules in force let go; returns how many records went. Each erasure is a transaction of its own."""
    gone = 0
    for rule in rules().filter(enabled=True):
        if in_force(rule):
            gone += _run(rule, clock=clock)
    return gone


def _run(rule: RetentionRule, *, clock: Clock) -> int:
    """Erase what is due by one rule, as many at a time as one erasure takes, in the order of the log.

    Each begins after the one before: what has to stay for a reason that only the erasure sees is passed by.
    """
    rows = due(rule, clock()).defer("body").order_by("index")
    gone, last = 0, -1
    while gone < MOST_AT_ONCE * erasures.MOST:
        batch = list(rows.filter(index__gt=last)[: erasures.MOST])
        if not batch:
            break
        gone += _retired(rule, batch, clock=clock)
        last = batch[-1].index
    return gone


def _retired(rule: RetentionRule, batch: list[Record], *, clock: Clock) -> int:
    try:
        draft = erasures.retire(rule, batch, clock=clock)
    except Conflict:  # A hold, a case or an edit of the rule came between: it is due no more.
        return 0
    return int(records.load(draft.body)["payload"]["record_count"]) if draft else 0


@dataclass(frozen=True)
class Due:
    """What a rule would let go now."""

    rule: RetentionRule
    in_force: bool
    count: int


def look(*, clock: Clock) -> list[Due]:
    """For every rule that is enabled, what is due; nothing is erased."""
    return [Due(rule, in_force(rule), due(rule, clock()).count()) for rule in rules().filter(enabled=True)]


def due(rule: RetentionRule, at: datetime) -> QuerySet[Record]:
    """Records of the rule's kind that were kept long enough and that nothing keeps, oldest first."""
    if LegalHold.objects.filter(scope=LegalHold.ALL, lifted_at__isnull=True).exists():
        return Record.objects.none()
    held = LegalHold.objects.filter(lifted_at__isnull=True).values("scope")
    keeping = Case.objects.filter(Q(settled_at__isnull=True) | Q(case_id__in=held))
    names_one = RecordKey.objects.filter(
        record=OuterRef("index"), name="case", value__in=keeping.values("case_id")
    )
    return (
        Record.objects.filter(
            kind=rule.kind, body__isnull=False, created_at__lt=at - timedelta(days=rule.keep_days)
        )
        .exclude(record_id__in=held)
        .exclude(record_id__in=keeping.values("package__audit_id"))
        .exclude(record_id__in=keeping.values("plan__delivery_id"))
        .exclude(Exists(names_one))
        .order_by("created_at", "index")
    )


# --- rules --------------------------------------------------------------------------------------------------------


def reasons_against_confirming(person: Person, rule: RetentionRule) -> list[str]:
    """Why this person may not confirm a rule: they edited it, or hold too young a role (P4)."""
    reasons = []
    if rule.edited_by and people.answering(person) & people.answering(rule.edited_by):
        reasons.append("Not confirmed: you edited this rule; another auditor confirms it.")
    since = people.holds_role_since(person, Role.AUDITOR)
    if since is None or (rule.edited_at is not None and since >= rule.edited_at):
        reasons.append("Not confirmed: you did not hold the auditor role when this rule was edited.")
    return reasons


def rules() -> QuerySet[RetentionRule]:
    """Every rule with the people behind it."""
    return RetentionRule.objects.select_related("edited_by__owner", "confirmed_by")


def rule_by_kind(kind: str) -> RetentionRule:
    """The rule about a kind; ``NotFound`` otherwise."""
    rule = rules().filter(kind=kind).first()
    if rule is None:
        raise NotFound("There is no retention rule for this kind.", code="retention_rule_not_found")
    return rule
