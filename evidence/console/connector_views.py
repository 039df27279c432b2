"""Connectors: how each does, the worst first; one of them closely, and testing it."""

from collections import Counter
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.connectors.failures import PROPERTIES, STEPS
from evidence.connectors.products import PRODUCTS
from evidence.console import chrome
from evidence.console.pages import Refusal, act, may_read, page
from evidence.domain import canaries, connector_health, policies, trends, troubles
from evidence.domain.clock import system_clock
from evidence.domain.connector_health import Health, Slot
from evidence.enums import CanaryMeans, CaseState, FailureClass, Outcome, Product
from evidence.errors import DomainError
from evidence.models import Attempt, Canary, Case, Connector, Person
from evidence.permissions import Permission
from evidence.templatetags.console import shown

# Rows of each list on the page of one connector.
TRIES, CANARIES, PARKED, TROUBLES = 10, 8, 10, 5
# What a test does, before and after.
BEFORE = {
    CanaryMeans.MESSAGE: "One fixed message leaves: it says that it is a test, and holds no evidence.",
    CanaryMeans.QUESTION: "A message would leave a ticket behind, so it is only asked for one that never was.",
    CanaryMeans.CONNECTION: "A message would wake somebody, so a connection is opened and closed.",
}
DONE = {
    CanaryMeans.MESSAGE: "took the message",
    CanaryMeans.QUESTION: "answered the question",
    CanaryMeans.CONNECTION: "was reached",
}


@page(Permission.READ_DASHBOARD)
def connectors(request: HttpRequest) -> HttpResponse:
    """Health of every connector; for viewers too: there are numbers, and no host, body or case."""
    at = system_clock()
    found = connector_health.survey(at)
    counted = Counter(one.word for one in found)
    context = {
        "section": "connectors",
        "connectors": found,
        "summary": ", ".join(f"{count} {shown(word)[2].lower()}" for word, count in counted.items()),
        "updated": at,
        "reads": may_read(request),
        "tests": _may_test(request) == [],
    }
    return render(request, "evidence/connectors.html", context)


@page(Permission.READ_DASHBOARD)
def connector(request: HttpRequest, key: str) -> HttpResponse:
    """One connector: what holds it back, how it did, its tests. Cases are shown to who may read evidence."""
    return show(request, _found(key))


@act
def canary(request: HttpRequest, key: str) -> HttpResponse:
    """Test a connector; what came of it is shown on its page."""
    row = _found(key)
    person: Person = request.user  # type: ignore[assignment]
    try:
        done = canaries.send(row, by=person, clock=system_clock)
    except DomainError as error:
        return show(request, row, Refusal(error.detail, error.status, error.code))
    (messages.success if done.outcome == Outcome.DELIVERED else messages.warning)(request, said_of(done))
    return redirect(f"{reverse('console:connector', kwargs={'key': row.key})}#canary")


def said_of(canary: Canary) -> str:
    """What came of a canary, in a sentence."""
    protocol = PRODUCTS[Product(canary.connector.product)].transport.name
    status = f" ({protocol} {canary.status_code})" if canary.status_code else ""
    if canary.outcome == Outcome.DELIVERED:
        what = DONE[CanaryMeans(canary.means)]
        return f"Canary: {canary.connector} {what} in {canary.duration_ms:,} ms{status}."
    if canary.outcome == Outcome.UNKNOWN:
        return f"Canary: nobody heard what came of it at {canary.connector}."
    return f"Canary: {canary.connector} did not take it: {troubles.label_of(canary.failure_class)}{status}."


def show(request: HttpRequest, row: Connector, refusal: Refusal | None = None) -> HttpResponse:
    """The page of a connector as it is now, with the test that was refused, if one was."""
    at = system_clock()
    (health,) = connector_health.survey(at, row)
    reads = may_read(request)
    days = trends.daily(at=at, connector=row)
    means = canaries.means_of(row)
    against = canaries.reasons_against([row], clock=system_clock)[row.pk]
    failing = [] if health.trouble else troubles.failing(at, [row])
    context = {
        "section": "connectors",
        "one": health,
        "row": row,
        "adapter": health.adapter,
        "reads": reads,
        "refusal": refusal,
        "steps": _steps(health),
        "days": days,
        "sends": sum(day.total for day in days),
        "share": _share(sum(day.delivered for day in days), sum(day.total for day in days)),
        "rates": [(day, _share(day.delivered, day.total)) for day in days],
        "timeout": f"{row.timeout_ms / 1000:g} s",
        "top_ms": max((slot.median_ms or 0 for slot in health.slots), default=0),
        "slots": [(slot, _hour(place)) for place, slot in enumerate(health.slots) if _spoke(slot)],
        "tries": _tries(row) if reads else [],
        "parked": _parked(row) if reads and health.parked else [],
        "canaries": [(one, _answer(one)) for one in canaries.latest(row, CANARIES)],
        "before": BEFORE[means],
        "against": [*_may_test(request), *(sentence for _, sentence in against)],
        "troubles": row.troubles.order_by("-pk")[:TROUBLES],
        "failing": failing[0] if failing else None,
        "links": chrome.about(row) if reads else [],
    }
    return render(request, "evidence/connector.html", context, status=refusal.status if refusal else 200)


def _found(key: str) -> Connector:
    row = Connector.objects.filter(key=key).first()
    if row is None:
        raise Http404
    return row


def _may_test(request: HttpRequest) -> list[str]:
    person: Person = request.user  # type: ignore[assignment]
    return policies.reasons_against_role(person, Permission.SEND_CANARY)


def _steps(health: Health) -> list[str]:
    """What to do about the newest failure, while it has not passed."""
    last = health.last_failure
    passed = last is None or (health.last_success is not None and health.last_success > last.at)
    name = health.standing.failure_class or ("" if passed or last is None else last.failure_class)
    return [STEPS[step] for step in PROPERTIES[FailureClass(name)].steps] if name else []


def _answer(canary: Canary) -> str:
    """What came back, as a table says it."""
    said = [] if canary.outcome != Outcome.FAILED else [troubles.label_of(canary.failure_class)]
    return " ".join([*said, *([str(canary.status_code)] if canary.status_code else [])])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _spoke(slot: Slot) -> bool:
    return slot.median_ms is not None or bool(slot.failed)


def _hour(place: int) -> str:
    """How long ago a slot of the day began, in hours."""
    return f"{(connector_health.SLOTS - place) / 2:g} h ago"


def _tries(row: Connector) -> list[dict[str, Any]]:
    """The newest tries, each with its failure in words."""
    found = (
        Attempt.objects.filter(case__connector=row).select_related("case").order_by("-completed_at", "-pk")
    )
    return [
        {
            "attempt": one,
            "label": PROPERTIES[FailureClass(one.failure_class)].label if one.failure_class else "",
            "took": round((one.completed_at - one.started_at).total_seconds() * 1000),
        }
        for one in found[:TRIES]
    ]


def _parked(row: Connector) -> list[Case]:
    """First deliveries that wait, the oldest first."""
    waiting = Case.objects.filter(connector=row, state=CaseState.PARKED)
    return list(waiting.select_related("created_by", "parking").order_by("pk")[:PARKED])
