"""Pages over many cases: the overview, all that waits, and the queue of approvals."""

from typing import Any

from django.db.models import Exists, F, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from evidence.console.pages import PAGE, may_read, page
from evidence.console.views import overview_context
from evidence.domain import policies, trends
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.models import Person
from evidence.permissions import Permission
from recovery.console.actions import ACTIONS
from recovery.domain import approvals, attention, cards, dispositions, set_turns, turns
from recovery.domain.policies import barred_from_confirming, barred_from_voting
from recovery.enums import DecisionState, EntryState
from recovery.models import ApprovalEntry, Disposition
from recovery.permissions import Permission as Deciding

# Rows of what needs attention on the overview; its own page shows all.
FEW = 5
# Proposals shown in the queue, the oldest; the page says when there may be more.
MOST_PROPOSALS = 200


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
def approval_queue(request: HttpRequest) -> HttpResponse:
    """What waits for a decision, in the order of running out, and what became of the last ones."""
    person: Person = request.user  # type: ignore[assignment]
    at = system_clock()
    # What was asked for as a set is decided on as a set.
    entries = approvals.entries().filter(set_items=None).defer("body").prefetch_related("votes__account")
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
            .prefetch_related("executions")
            .order_by("-ended_at", "-pk")[:PAGE]
        ),
        "lapsed": lapsed(person),
        "capped": len(pending) == 200,
        "proposals": proposals(person),
        "most_proposals": MOST_PROPOSALS,
        "sets": set_turns.open_sets(),
    }
    return render(request, "recovery/approvals.html", context)


def lapsed(person: Person) -> list[tuple[ApprovalEntry, list[str]]]:
    """Requests that ran out and were not asked for again, each with why this person may not renew it."""
    newer = ApprovalEntry.objects.filter(case=OuterRef("case"), pk__gt=OuterRef("pk"))
    found = (
        approvals.entries()
        .defer("body")
        .filter(
            ~Exists(newer),
            set_items=None,
            state=EntryState.EXPIRED,
            case__state=CaseState.FAILED,
            decision__state=DecisionState.OPEN,
            attempt_no=F("case__attempt_count") + 1,
        )
    )
    rows = list(found.order_by("-ended_at", "-pk")[:PAGE])
    against = policies.reasons_against_role(person, Deciding.DECIDE)
    barred = barred_from_voting(person, rows)
    return [(entry, against or barred[entry.pk]) for entry in rows]


def proposals(person: Person) -> list[tuple[Disposition, list[str]]]:
    """Open proposals to settle a case without a delivery, each with why this person may not decide on it."""
    against = policies.reasons_against_role(person, Deciding.CONFIRM_DISPOSITION)
    found = dispositions.proposed(MOST_PROPOSALS)
    barred = barred_from_confirming(person, found)
    return [(one, against or barred[one.pk]) for one in found]
