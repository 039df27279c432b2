"""The list of cases, and what is begun or said about all that its filter finds, on whichever page they stand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.forms import CaseFilter
from evidence.console.pages import Refusal, act, carried_out, page
from evidence.console.views import cases_context
from evidence.domain import policies, records
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.errors import Conflict, InvalidInput
from evidence.models import Case, Person
from evidence.permissions import Permission as Reading
from recovery.console.set_forms import AttestAllForm, ChooseForm
from recovery.domain import reconciliations, sets, turns
from recovery.domain.reconciliations import SaidOfAll, Statement
from recovery.enums import Seen
from recovery.models import RetrySet
from recovery.permissions import Permission


@page(Reading.READ_EVIDENCE)
def cases(request: HttpRequest) -> HttpResponse:
    """Cases with how far each is and whose turn it is."""
    return show(request)


@act
def choose(request: HttpRequest) -> HttpResponse:
    """Make a set of the failed cases that the filter finds now, whatever page of them was shown."""
    person: Person = request.user  # type: ignore[assignment]
    form = ChooseForm(request.POST)

    def verb(data: Any) -> RetrySet:
        chosen = _filter(request)
        cases = _fitting(chosen, CaseState.FAILED).order_by("last_outcome_at", "pk")[: sets.MAX_ITEMS]
        selection = {**chosen.given(), "state": CaseState.FAILED.value}
        ids = list(cases.values_list("case_id", flat=True))
        return sets.choose(ids, selection, by=person, clock=system_clock)

    made = carried_out(form, verb)
    if isinstance(made, Refusal):
        return show(request, refusal=made)
    messages.success(request, f"A set of {made.items.count():,}. Nothing was planned or sent yet.")
    return redirect("recovery:set", set_id=made.set_id)


@act
def attest_all(request: HttpRequest) -> HttpResponse:
    """Say the same about every unknown case that the filter finds, if it finds those that were shown."""
    person: Person = request.user  # type: ignore[assignment]
    form = AttestAllForm(request.POST)

    def verb(data: Any) -> SaidOfAll:
        found = _unknown(_filter(request))
        if shown_cases(found) != data["shown"]:
            raise Conflict(
                f"Not attested: other cases fit the filter than those you were shown; now it is {len(found):,}. "
                "Look again.",
                code="cases_changed",
            )
        statement = Statement(seen=Seen(data["seen"]), external_ref=data["external_ref"], notes=data["notes"])
        return reconciliations.attest_all(found, statement, by=person, clock=system_clock)

    said = carried_out(form, verb)
    if isinstance(said, Refusal):
        return show(request, form=form, refusal=said)
    words = f"What you saw of {len(said.attestations):,} cases is recorded; {len(said.settled):,} are settled by it."
    if said.left_out:
        words += f" Left out: {len(said.left_out):,} that you sent; two others have to look."
    messages.success(request, words)
    address = redirect("recovery:cases")
    address["Location"] += f"?{request.GET.urlencode()}"
    return address


@dataclass(frozen=True)
class Offers:
    """What may be done about all that the filter finds, and what stands against it for this person.

    ``failed`` and ``unknown`` are counts; ``beyond`` is how many failed cases are too many for one set.
    """

    failed: int = 0
    beyond: int = 0
    others: int = 0
    against_set: list[str] = field(default_factory=list)
    unknown: int = 0
    against_attesting: list[str] = field(default_factory=list)
    form: AttestAllForm | None = None

    @property
    def taken(self) -> int:
        """How many cases the set would hold."""
        return self.failed - self.beyond


def show(
    request: HttpRequest, *, form: AttestAllForm | None = None, refusal: Refusal | None = None
) -> HttpResponse:
    """The list as it is now, with the form that was refused, if one was."""
    context, status = cases_context(request, at=reverse("recovery:cases"))
    found = context.get("cases", [])
    person: Person = request.user  # type: ignore[assignment]
    for case, standing in zip(found, turns.standings(found), strict=True):
        case.standing = standing
        case.turn = "you" if standing.role in person.role_names else standing.role or ""
    context |= {
        "refusal": refusal,
        "refused": form,
        "offers": offers(context["form"], context["total"], person, form) if status < 400 else Offers(),
        "most": reconciliations.MAX_AT_ONCE,
    }
    return render(request, "recovery/cases.html", context, status=refusal.status if refusal else status)


def offers(chosen: CaseFilter, total: int, person: Person, form: AttestAllForm | None) -> Offers:
    """What may be done about all cases that ``chosen`` finds; ``form`` is the one that was refused, if one was."""
    failed = _fitting(chosen, CaseState.FAILED).count()
    unknown = _fitting(chosen, CaseState.UNKNOWN).count()
    against = policies.reasons_against_role(person, Permission.ATTEST)
    if not against and unknown > reconciliations.MAX_AT_ONCE:
        against = [f"One statement is about at most {reconciliations.MAX_AT_ONCE} cases; narrow the filter."]
    if unknown and not against:
        shown = shown_cases(_unknown(chosen))
        form = _about(form, shown) if form else AttestAllForm(initial={"shown": shown})
    return Offers(
        failed=failed,
        beyond=max(failed - sets.MAX_ITEMS, 0),
        others=max(total - failed, 0),
        against_set=policies.reasons_against_role(person, Permission.PLAN_RETRY),
        unknown=unknown,
        against_attesting=against,
        form=form,
    )


def _about(form: AttestAllForm, shown: str) -> AttestAllForm:
    """A refused form that keeps what was typed, about what the page shows now."""
    data = form.data.copy()  # type: ignore[attr-defined]
    data["shown"] = shown
    form.data = data
    return form


def shown_cases(cases: Sequence[Case]) -> str:
    """Digest of cases and their unknown attempts: what a statement about all of them was made of."""
    shown = sorted([case.case_id, case.attempt_count] for case in cases)
    return records.digest(records.canonical(shown))


def _filter(request: HttpRequest) -> CaseFilter:
    """The page's filter. Raises ``InvalidInput`` for one that finds nothing because it is none."""
    chosen = CaseFilter(request.GET)
    if not chosen.is_valid():
        raise InvalidInput("Nothing was recorded: the filter is none.", errors={})
    return chosen


def _fitting(chosen: CaseFilter, state: CaseState) -> QuerySet[Case]:
    return Case.objects.filter(**chosen.columns()).filter(state=state)


def _unknown(chosen: CaseFilter) -> list[Case]:
    """Unknown cases that fit; one more than one statement may be about, so that too many are refused."""
    return list(_fitting(chosen, CaseState.UNKNOWN).order_by("pk")[: reconciliations.MAX_AT_ONCE + 1])
