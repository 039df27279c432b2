"""Pages of the browser console. They read; what a person does goes through the verbs of the domain."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from evidence.console import presenters
from evidence.console.forms import CaseFilter, HistoryFilter
from evidence.documents import KINDS
from evidence.domain import history, policies
from evidence.enums import CaseState
from evidence.errors import InvalidInput, NotFound
from evidence.models import Attempt, Case, Record
from evidence.permissions import Permission

PAGE = 25
# A chain is rarely longer; what is, goes on with a link.
CHAIN_PAGE = 100

View = Callable[..., HttpResponse]

# What stands above the history, in the order of urgency.
GAUGES = (
    (CaseState.UNKNOWN, "unknown", "unknown", "We do not know whether they arrived."),
    (CaseState.FAILED, "bad", "failed", "They wait for a retry."),
    (CaseState.SENDING, "info", "being sent", "A first attempt or an approved retry."),
    (CaseState.DELIVERED, "", "delivered", "The receiver said so."),
)


def page(permission: Permission) -> Callable[[View], View]:
    """A page for people who are signed in and hold ``permission``; GET and HEAD only."""

    def decorate(view: View) -> View:
        @require_safe
        @login_required
        @wraps(view)
        def checked(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if reasons := policies.reasons_against_role(request.user, permission):  # type: ignore[arg-type]
                raise PermissionDenied(reasons[0])
            return view(request, **kwargs)

        return checked

    return decorate


@page(Permission.READ_DASHBOARD)
def overview(request: HttpRequest) -> HttpResponse:
    """Where the cases stand, and the history for those who may read evidence."""
    gauges = [
        (state, tone, words, hint, *history.capped_count(Case.objects.filter(state=state)))
        for state, tone, words, hint in GAUGES
    ]
    context: dict[str, Any] = {"section": "overview", "gauges": gauges, "reads": may_read(request)}
    if not context["reads"]:
        return render(request, "evidence/overview.html", context)
    form = HistoryFilter(request.GET)
    found = None
    if form.is_valid():
        try:
            found = history.page(form.query(), limit=PAGE, cursor=request.GET.get("cursor", ""))
        except InvalidInput as error:
            form.add_error(None, error.detail)
    context |= {
        "form": form,
        "found": found,
        "lines": [presenters.line(record) for record in found.records] if found else [],
        "older": link(request, cursor=found.cursor) if found and found.cursor else "",
        "newest": link(request, cursor="") if request.GET.get("cursor") else "",
        "filtered": any(request.GET.get(name) for name in form.fields),
    }
    return render(request, "evidence/overview.html", context, status=200 if found else 400)


@page(Permission.READ_EVIDENCE)
def cases(request: HttpRequest) -> HttpResponse:
    """All cases, the newest first."""
    form = CaseFilter(request.GET)
    if not form.is_valid():
        return render(request, "evidence/cases.html", {"section": "cases", "form": form}, status=400)
    rows = Case.objects.filter(**form.columns()).select_related("connector", "plan")
    total, exact = history.capped_count(rows)
    number = page_number(request.GET.get("page", "1"), total)
    start = (number - 1) * PAGE
    context = {
        "section": "cases",
        "form": form,
        "cases": rows[start : start + PAGE],
        "first": start + 1,
        "last": min(start + PAGE, total),
        "total": total,
        "total_is_exact": exact,
        "newer": link(request, page=number - 1) if number > 1 else "",
        "older": link(request, page=number + 1) if start + PAGE < total else "",
        "filtered": bool(form.columns()),
    }
    return render(request, "evidence/cases.html", context)


@page(Permission.READ_EVIDENCE)
def case(request: HttpRequest, case_id: str) -> HttpResponse:
    """One case: state, attempts, and every record that names it, in the order of its chain."""
    found = get_object_or_404(
        Case.objects.select_related("connector", "plan", "package", "created_by"), case_id=case_id
    )
    after = request.GET.get("after", "0")
    if not (after.isdecimal() and after.isascii() and len(after) < 10):
        raise Http404
    links = history.chain_of(case_id, after=int(after), limit=CHAIN_PAGE + 1)
    more = links[CHAIN_PAGE:]
    bodies = Record.objects.in_bulk([chained.record.index for chained in links[:CHAIN_PAGE]])
    context = {
        "section": "cases",
        "case": found,
        "attempts": Attempt.objects.filter(case=found).select_related("receiver_answer"),
        "chain": [
            (chained.n, presenters.line(bodies[chained.record.index], about=case_id))
            for chained in links[:CHAIN_PAGE]
        ],
        "more": link(request, after=links[CHAIN_PAGE - 1].n) if more else "",
    }
    return render(request, "evidence/case.html", context)


@page(Permission.READ_EVIDENCE)
def record(request: HttpRequest, record_id: str) -> HttpResponse:
    """One record: what it says, what it refers to, and its place in the log."""
    try:
        found = history.by_id(record_id)
    except NotFound as error:
        raise Http404 from error
    shown = history.envelope(found)
    context = {
        "section": "overview",
        "line": presenters.line(found),
        "facts": presenters.facts(shown.get(KINDS[found.kind].payload_key, {})),
        "references": shown.get("references", []),
        "cases": shown.get("cases", []),
        "body": bytes(found.body).decode() if found.body is not None else "",
    }
    return render(request, "evidence/record.html", context)


def may_read(request: HttpRequest) -> bool:
    """Whether the person may read records; viewers see numbers only (P22)."""
    return not policies.reasons_against_role(request.user, Permission.READ_EVIDENCE)  # type: ignore[arg-type]


def link(request: HttpRequest, **changed: Any) -> str:
    """This page's address with some parameters changed; an empty one is left out."""
    query = request.GET.copy()
    for name, value in changed.items():
        query.pop(name, None)
        if value:
            query[name] = str(value)
    return f"?{query.urlencode()}"


def page_number(text: str, total: int) -> int:
    """The page a text asks for, kept within what there is."""
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 1
    return max(1, min(number, -(-total // PAGE)))
