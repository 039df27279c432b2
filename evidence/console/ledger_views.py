"""The ledger: its head, how it grew, and whether what is stored is what was sealed."""

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.pages import act, page
from evidence.domain import merkle, trends, verifications
from evidence.domain.clock import system_clock
from evidence.enums import TaskState
from evidence.models import LedgerHead, Person, Verification
from evidence.permissions import Permission

DAYS = 30
# Finished passes that are listed.
PASSES = 8
# A pass that takes longer than this is asked for less often.
LONG = timedelta(seconds=30)


@page(Permission.READ_EVIDENCE)
def ledger(request: HttpRequest) -> HttpResponse:
    """Head, growth, and the result of the last verification."""
    at = system_clock()
    head = LedgerHead.objects.get()
    grown = trends.growth(DAYS, at=at)
    context = {
        **_verification(),
        "section": "ledger",
        "head": head,
        "root": merkle.root(merkle.split(head.peaks)).hex(),
        "growth": grown,
        "sizes": [day.size for day in grown],
        "added": sum(day.added for day in grown),
    }
    return render(request, "evidence/ledger.html", context)


@page(Permission.READ_EVIDENCE)
def verification(request: HttpRequest) -> HttpResponse:
    """The part about verifying alone, for a page that watches a pass."""
    return render(request, "evidence/_verification.html", _verification())


@act
def verify(request: HttpRequest) -> HttpResponse:
    """Ask the worker for a pass over the log."""
    person: Person = request.user  # type: ignore[assignment]
    verifications.ask(by=person, clock=system_clock)
    messages.success(request, "The worker verifies the ledger; what it finds appears here.")
    return redirect(f"{reverse('console:ledger')}#verify")


def _verification() -> dict[str, Any]:
    """What goes on and what was found; ``every`` is how often to look again while a pass goes on."""
    current = verifications.current()
    long = current is not None and system_clock() - current.requested_at > LONG
    finished = Verification.objects.filter(state=TaskState.FINISHED).order_by("-finished_at", "-pk")
    passes = list(finished.select_related("requested_by")[:PASSES])
    return {
        "current": current,
        "every": "5s" if long else "1s",
        "latest": passes[0] if passes else None,
        "took": _took(passes[0].duration_ms) if passes else "",
        "passes": passes,
    }


def _took(ms: int) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms} ms"
