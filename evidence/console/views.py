"""Pages of the browser console. They read; what a person does goes through the verbs of the domain."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render, resolve_url
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from evidence.console import erasing
from evidence.console.erasure_forms import ProposeErasureForm
from evidence.console.forms import CaseFilter, HistoryFilter
from evidence.console.pages import PAGE, act, link, may_read, numbered, page, sign_in_first
from evidence.documents import KINDS
from evidence.domain import capsules, checkpoints, diagnostics, history, lines, parking, policies
from evidence.domain import clock as clocks
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.errors import DomainError, InvalidInput, NotFound
from evidence.models import Attempt, Case, Person, Record
from evidence.permissions import Permission

# A chain is rarely longer; what is, goes on with a link.
CHAIN_PAGE = 100
# Earlier capsules that a case's page lists.
CAPSULES = 5
THEMES = ("auto", "light", "dark")

# What stands above the history, in the order of urgency.
GAUGES = (
    (CaseState.UNKNOWN, "unknown", "unknown", "We do not know whether they arrived."),
    (CaseState.FAILED, "bad", "failed", "They wait for a retry."),
    (CaseState.PARKED, "warn", "parked", "Their connector is held back; they go by themselves."),
    (CaseState.SENDING, "info", "being sent", "A first attempt or an approved retry."),
    (CaseState.DELIVERED, "", "delivered", "The receiver said so."),
)


@page(Permission.READ_DASHBOARD)
def overview(request: HttpRequest) -> HttpResponse:
    """Where the cases stand, and the history for those who may read evidence."""
    context, status = overview_context(request)
    context["gauges"] = [
        (state, tone, words, hint, *history.capped_count(Case.objects.filter(state=state)))
        for state, tone, words, hint in GAUGES
    ]
    return render(request, "evidence/overview.html", context, status=status)


def overview_context(request: HttpRequest) -> tuple[dict[str, Any], int]:
    """What the overview shows of the history, for those who may read it, and the answer's status."""
    context: dict[str, Any] = {"section": "overview", "reads": may_read(request), "updated": system_clock()}
    if not context["reads"]:
        return context, 200
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
        "lines": lines.lines(found.records) if found else [],
        "older": link(request, cursor=found.cursor) if found and found.cursor else "",
        "newest": link(request, cursor="") if request.GET.get("cursor") else "",
        "filtered": any(request.GET.get(name) for name in form.fields),
        "tags": [(label, link(request, cursor="", **{name: ""})) for name, label in form.shown()]
        if found
        else [],
        "exports": form.exports() if found else "",
        "without": [
            (words, f"{count:,}", link(request, cursor="", **{name: ""}))
            for name, words, count in (form.without() if found and not found.total else ())
        ],
    }
    return context, 200 if found else 400


@page(Permission.READ_EVIDENCE)
def cases(request: HttpRequest) -> HttpResponse:
    """All cases, the newest first."""
    context, status = cases_context(request)
    return render(request, "evidence/cases.html", context, status=status)


def cases_context(request: HttpRequest, *, at: str = "") -> tuple[dict[str, Any], int]:
    """One page of the cases that a filter finds, and the answer's status; ``at`` as in ``numbered``."""
    form = CaseFilter(request.GET)
    if not form.is_valid():
        return {"section": "cases", "form": form}, 400
    rows = Case.objects.filter(**form.columns()).select_related("connector", "plan", "package", "created_by")
    return {
        **numbered(request, rows, "cases", at=at),
        "section": "cases",
        "form": form,
        "filtered": bool(form.columns()),
    }, 200


@page(Permission.READ_EVIDENCE)
def case(request: HttpRequest, case_id: str) -> HttpResponse:
    """One case: state, attempts, and every record that names it, in the order of its chain."""
    return render(request, "evidence/case.html", case_context(request, find_case(case_id)))


def find_case(case_id: str) -> Case:
    """The case with this id and what its page says of it; ``Http404`` otherwise."""
    rows = Case.objects.select_related("connector", "plan__created_by", "package", "created_by__owner")
    return get_object_or_404(rows, case_id=case_id)


def case_context(request: HttpRequest, found: Case) -> dict[str, Any]:
    """What a case's page shows of the facts: attempts and chain, both oldest first."""
    after = request.GET.get("after", "0")
    if not (after.isdecimal() and after.isascii() and len(after) < 10):
        raise Http404
    links = history.chain_of(found.case_id, after=int(after), limit=CHAIN_PAGE + 1, bodies=True)
    more = links[CHAIN_PAGE:]
    links = links[:CHAIN_PAGE]
    return {
        "section": "cases",
        "case": found,
        "attempts": list(Attempt.objects.filter(case=found).select_related("receiver_answer")),
        "chain": list(
            zip(
                [chained.n for chained in links],
                lines.lines([chained.record for chained in links], about=found.case_id),
                strict=True,
            )
        ),
        "newest": more[-1].n if more else links[-1].n if links else 0,
        **capsules_context(request, found.case_id),
        "sees_connections": not policies.reasons_against_role(
            request.user,  # type: ignore[arg-type]
            Permission.READ_DIAGNOSTICS,
        ),
        "more": link(request, after=links[-1].n) if more else "",
        "now": system_clock(),
        "parked": parking.why(found, clocks.read(system_clock), clock=system_clock),
    }


def capsules_context(request: HttpRequest, case_id: str) -> dict[str, Any]:
    """Capsules of a case, and why this person can make no further one now."""
    person: Person = request.user  # type: ignore[assignment]
    against = policies.reasons_against_role(person, Permission.EXPORT)
    rows = capsules.of_case(case_id)
    return {
        "capsules": list(rows[:CAPSULES]),
        "capsule_count": rows.count(),
        "may_take": not against,
        "against_capsule": against or [sentence for _, sentence in capsules.reasons_against_freezing()],
    }


@act
def freeze(request: HttpRequest, case_id: str) -> HttpResponse:
    """Freeze the case into a capsule and lead to its bytes; a refusal is said on the case's page."""
    found = find_case(case_id)
    person: Person = request.user  # type: ignore[assignment]
    try:
        made = capsules.freeze(found, by=person, clock=system_clock)
    except DomainError as error:
        messages.warning(request, error.detail)
        return redirect("console:case", case_id=case_id)
    return redirect("capsule", capsule_id=made.capsule_id)


@page(Permission.READ_DIAGNOSTICS)
def connections(request: HttpRequest, case_id: str) -> HttpResponse:
    """Where a case's attempts really went: a page, or the panel of it for the case's page."""
    found = find_case(case_id)
    context = {"section": "cases", "case": found, "connections": list(diagnostics.of_case(found))}
    part = bool(getattr(request, "htmx", None))
    return render(request, f"evidence/{'_' if part else ''}connections.html", context)


@page(Permission.READ_EVIDENCE)
def stamp(request: HttpRequest, case_id: str) -> HttpResponse:
    """Whether a case's chain went on since the page that asks was made: a line, or a banner that says what."""
    since = request.GET.get("since", "0")
    if not (since.isdecimal() and since.isascii() and len(since) < 10):
        raise Http404
    found = find_case(case_id)
    links = history.chain_of(case_id, after=int(since), bodies=True)
    line = lines.line(links[-1].record, about=case_id) if links else None
    context = {"case": found, "newest": since, "changed": line, "now": system_clock()}
    return render(request, "components/_stamp.html", context)


@page(Permission.READ_EVIDENCE)
def record(request: HttpRequest, record_id: str) -> HttpResponse:
    """One record: what it says, what it refers to, and its place in the log."""
    try:
        found = history.by_id(record_id)
    except NotFound as error:
        raise Http404 from error
    return render(request, "evidence/record.html", record_context(request, found))


def record_context(
    request: HttpRequest, found: Record, form: ProposeErasureForm | None = None
) -> dict[str, Any]:
    """What a record's page shows; ``form`` is a proposal to erase it that was refused."""
    shown = history.envelope(found)
    return {
        # A record is found from everywhere and belongs to no item of the rail.
        "section": "",
        "line": lines.line(found),
        "facts": lines.facts(shown.get(KINDS[found.kind].payload_key, {})),
        "references": shown.get("references", []),
        "cases": shown.get("cases", []),
        "body": bytes(found.body).decode() if found.body is not None else "",
        "proven": checkpoints.covering(found.index) is not None,
        "gone": {name: shown[name] for name in ("erasure_id", "legal_basis") if name in shown},
        **erasing.offer(request, found, form),
    }


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Light, dark or as the system has it, one after the other: the switch for those without script."""
    if not request.user.is_authenticated:
        return sign_in_first(request)
    after = dict(zip(THEMES, (*THEMES[1:], THEMES[0]), strict=True))
    chosen = after.get(request.COOKIES.get("theme", THEMES[0]), THEMES[0])
    answer = redirect(_here(request))
    # Read by our own script too: it keeps the admin's switch and this one the same.
    answer.set_cookie("theme", chosen, max_age=365 * 24 * 3600, samesite="Lax", secure=request.is_secure())
    return answer


def _here(request: HttpRequest) -> str:
    """The page the person came from, if it is one of ours."""
    came_from = request.META.get("HTTP_REFERER", "")
    ours = url_has_allowed_host_and_scheme(came_from, {request.get_host()}, require_https=request.is_secure())
    return came_from if ours else resolve_url("console:overview")
