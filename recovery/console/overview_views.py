"""Pages over many cases: the overview, all that waits, the list of cases, and the queue of approvals."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from evidence.console.pages import PAGE, may_read, page
from evidence.console.views import cases_context, overview_context
from evidence.domain import trends
from evidence.domain.clock import system_clock
from evidence.models import Person
from evidence.permissions import Permission
from recovery.console.actions import ACTIONS
from recovery.domain import approvals, attention, cards, turns
from recovery.domain.policies import barred_from_voting
from recovery.enums import EntryState

# Rows of what needs attention on the overview; its own page shows all.
FEW = 5


@page(Permission.READ_DASHBOARD)
def overview(request: HttpRequest) -> HttpResponse:
    """In ten seconds: what is wrong, and whose turn it is."""
    at = system_clock()
    context, status = overview_context(request)
    days = trends.daily(at=at)
    standings = turns.standings(attention.unsettled())
    context |= {
        **waiting_context(request, standings),
        "few": FEW,
        "cards": cards.cards(standings),
        "days": days,
        "sends": sum(day.total for day in days),
        "delivered_share": _share(sum(day.delivered for day in days), sum(day.total for day in days)),
        "worst": max(days, key=lambda day: day.failed + day.unknown),
    }
    return render(request, "recovery/overview.html", context, status=status)


@page(Permission.READ_DASHBOARD)
def waits(request: HttpRequest) -> HttpResponse:
    """All that waits, by whose turn it is; the overview's panel comes from here, too."""
    few = FEW if request.GET.get("rows") == "few" else 0
    context = {"section": "overview", "few": few, "reads": may_read(request)}
    context |= waiting_context(request, turns.standings(attention.unsettled()))
    return render(request, "recovery/attention.html", context)


def waiting_context(request: HttpRequest, standings: list[turns.Standing]) -> dict[str, Any]:
    """What the panel of waiting acts shows."""
    at = system_clock()
    person: Person = request.user  # type: ignore[assignment]
    found = attention.waiting(standings, at, person)
    rows = [
        {"waiting": one, "label": ACTIONS[one.act].label, "own": one.role in person.role_names}
        for one in found
    ]
    return {"rows": rows, "capped": len(standings) >= attention.MOST, "now": at}


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


@page(Permission.READ_EVIDENCE)
def cases(request: HttpRequest) -> HttpResponse:
    """Cases with how far each is and whose turn it is."""
    context, status = cases_context(request)
    found = context.get("cases", [])
    person: Person = request.user  # type: ignore[assignment]
    for case, standing in zip(found, turns.standings(found), strict=True):
        case.standing = standing
        case.turn = "you" if standing.role in person.role_names else standing.role or ""
    return render(request, "recovery/cases.html", context, status=status)


@page(Permission.READ_EVIDENCE)
def approval_queue(request: HttpRequest) -> HttpResponse:
    """What waits for a decision, in the order of running out, and what became of the last ones."""
    person: Person = request.user  # type: ignore[assignment]
    at = system_clock()
    entries = approvals.entries().defer("body").prefetch_related("votes__account")
    pending = list(
        entries.filter(state=EntryState.PENDING, approve_by__gte=at).order_by("approve_by", "pk")[:200]
    )
    barred = barred_from_voting(person, pending)
    context = {
        "section": "approvals",
        "mine": [entry for entry in pending if not barred[entry.pk]],
        "others": [(entry, barred[entry.pk][0]) for entry in pending if barred[entry.pk]],
        "ready": list(entries.filter(state=EntryState.APPROVED).order_by("execute_by", "pk")[:PAGE]),
        "decided": list(
            entries.exclude(state__in=[EntryState.PENDING, EntryState.APPROVED])
            .select_related("execution")
            .order_by("-ended_at", "-pk")[:PAGE]
        ),
        "capped": len(pending) == 200,
    }
    return render(request, "recovery/approvals.html", context)
