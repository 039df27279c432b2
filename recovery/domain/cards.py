"""The chain in numbers: seven cards in the order of the work (CONSOLE.md §1, CONTRACT §13).

A card's headline is what somebody has to act on; the small numbers below it are counters over everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count

from evidence.documents import (
    AUDIT_PACKAGE,
    CONNECTOR_DELIVERY,
    DELIVERY_PARKING,
    DELIVERY_PLAN,
    NOTIFICATION_ACK,
    NOTIFICATION_PLAN,
)
from evidence.enums import CaseState, DeliverySource
from evidence.models import Case
from recovery.documents import (
    APPROVAL_DECISION,
    APPROVAL_EXPIRY,
    CLOSURE,
    EXECUTION_RECORD,
    PLAYBOOK,
    RETRY_ACK,
    RETRY_PLAN,
    WORKER_RUN,
)
from recovery.domain.dashboard import Counters, outstanding_routes
from recovery.domain.turns import Standing
from recovery.enums import Act, RecoveryState
from recovery.models import Recovery

AUDIT = DeliverySource.AUDIT.value
NOTIFICATION = DeliverySource.NOTIFICATION.value


@dataclass(frozen=True)
class Number:
    """A counter with the history filter that shows what it counts."""

    label: str
    value: str
    query: str


@dataclass(frozen=True)
class Card:
    """One step of the chain. ``page`` and ``query`` lead to what the headline counts; ``tone`` only above 0."""

    title: str
    headline: int
    words: str
    tone: str
    page: str
    query: str
    numbers: tuple[Number, ...]


def cards(standings: Sequence[Standing]) -> list[Card]:
    """The seven cards; ``standings`` are those of every unsettled case. Five queries."""
    counted = Counters()
    due = {act: sum(one.act is act for one in standings) for act in Act}
    failed = sum(one.case.state == CaseState.FAILED for one in standings)
    parked = Case.objects.filter(state=CaseState.PARKED).count()
    recoveries = dict(Recovery.objects.order_by().values_list("state").annotate(count=Count("pk")))
    unfinished = sum(
        count
        for state, count in recoveries.items()
        if state not in (RecoveryState.RESOLVED, RecoveryState.REOPENED)
    )
    delivery = CONNECTOR_DELIVERY.name
    unsent = counted.of(delivery, f"{NOTIFICATION}/false")
    good, bad = counted.of(delivery, f"{AUDIT}/true"), counted.of(delivery, f"{AUDIT}/false")

    def number(label: str, kind: str, *states: str, query: str = "") -> Number:
        return Number(label, f"{counted.of(kind, *states):,}", query or f"kind={kind}")

    rate = f"{100 * good / (good + bad):.1f} %" if good + bad else "none"
    return [
        _card(
            "Notify",
            unsent,
            "failed sends",
            "bad",
            "overview",
            f"kind={delivery}&source={NOTIFICATION}&state=not_delivered",
            number("Plans", NOTIFICATION_PLAN.name),
            number("Sent", delivery, f"{NOTIFICATION}/true", query=f"kind={delivery}&source={NOTIFICATION}"),
        ),
        _card(
            "Acknowledge",
            outstanding_routes().count(),
            "outstanding",
            "warn",
            "routes",
            "",
            number("Answers", NOTIFICATION_ACK.name),
            number("Escalated", NOTIFICATION_ACK.name, "escalated"),
            number("Packages", AUDIT_PACKAGE.name),
        ),
        _card(
            "Deliver",
            failed,
            "failed now",
            "bad",
            "cases",
            "state=failed",
            number("Plans", DELIVERY_PLAN.name),
            Number("Parked now", f"{parked:,}", f"kind={DELIVERY_PARKING.name}"),
            number(
                "Sends", delivery, f"{AUDIT}/true", f"{AUDIT}/false", query=f"kind={delivery}&source={AUDIT}"
            ),
            Number("Delivered", rate, f"kind={delivery}&source={AUDIT}&state=delivered"),
        ),
        _card(
            "Retry",
            due[Act.PLAN] + due[Act.ACKNOWLEDGE] + due[Act.REQUEST],
            "to prepare",
            "warn",
            "cases",
            "state=failed",
            number("Plans", RETRY_PLAN.name, "false"),
            number("Answers", RETRY_ACK.name),
        ),
        _card(
            "Approve",
            due[Act.DECIDE],
            "pending",
            "warn",
            "approvals",
            "",
            number("Approved", APPROVAL_DECISION.name, "approved"),
            number("Denied", APPROVAL_DECISION.name, "denied"),
            number("Expired", APPROVAL_EXPIRY.name),
        ),
        _card(
            "Execute",
            due[Act.ATTEST] or due[Act.EXECUTE],
            "unknown" if due[Act.ATTEST] or not due[Act.EXECUTE] else "to execute",
            "unknown" if due[Act.ATTEST] else "warn",
            "cases",
            "state=outcome_unknown" if due[Act.ATTEST] or not due[Act.EXECUTE] else "state=failed",
            number("Delivered", EXECUTION_RECORD.name, "delivered"),
            number("Failed", EXECUTION_RECORD.name, "failed"),
            number("Skipped", EXECUTION_RECORD.name, "skipped"),
            number("Runs", WORKER_RUN.name),
        ),
        _card(
            "Recover",
            unfinished,
            "open",
            "warn",
            "recoveries",
            "",
            number("Closures", CLOSURE.name),
            number("Reopened", CLOSURE.name, "reopened"),
            number("Playbooks", PLAYBOOK.name),
        ),
    ]


def _card(title: str, headline: int, words: str, tone: str, page: str, query: str, *numbers: Number) -> Card:
    return Card(title, headline, words, tone if headline else "", page, query, numbers)
