"""Erasures: what waits for a second person, what went, what is held, how long is kept; and who read what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.erasure_forms import (
    DecideErasureForm,
    LiftHoldForm,
    PlaceHoldForm,
    ProposeErasureForm,
)
from evidence.console.forms import MINUTES
from evidence.console.pages import PAGE, Refusal, act, carried_out, link, page
from evidence.console.views import record_context
from evidence.domain import capsules, erasures, history, holds, policies, retention, retention_terms
from evidence.domain.clock import system_clock
from evidence.domain.history import Place
from evidence.domain.lines import kind_label
from evidence.domain.records import Draft
from evidence.enums import Access, ErasureState
from evidence.errors import InvalidInput, NotFound
from evidence.filtersets import AccessFilter
from evidence.models import AccessLogEntry, Erasure, Person, Record, RetentionRule
from evidence.permissions import Permission

# What is listed of what was decided, and of what waits.
DECIDED = 10
WAITING = 25
VERBS: Mapping[ErasureState, Callable[..., Draft]] = {
    ErasureState.REFUSED: erasures.refuse,
    ErasureState.WITHDRAWN: erasures.withdraw,
}


@dataclass(frozen=True)
class Going:
    """One record of a proposal: its id and kind in words, and what else goes with its body."""

    record_id: str
    label: str
    copies: list[str]


@dataclass(frozen=True)
class Waiting:
    """A proposal with what this person may do about it; reasons in sentences, none means yes."""

    erasure: Erasure
    going: list[Going]
    against_deciding: list[str]
    against_confirming: list[str]
    may_withdraw: bool
    form: DecideErasureForm


@dataclass(frozen=True)
class Rule:
    """A retention rule with what is due under it and what stands against confirming it."""

    row: RetentionRule
    in_force: bool
    due: int
    against: list[str]


@page(Permission.READ_EVIDENCE)
def index(request: HttpRequest) -> HttpResponse:
    """Everything about erasing on one page."""
    return _index(request)


@act
def decide(request: HttpRequest, erasure_id: str) -> HttpResponse:
    """Confirm, refuse or take back a proposal."""
    form = DecideErasureForm(request.POST)
    found = _found(lambda: erasures.erasure_by_id(erasure_id))

    def verb(data: Mapping[str, Any]) -> Any:
        given: dict[str, Any] = {"by": request.user, "clock": system_clock}
        state = ErasureState(data["state"])
        if state in VERBS:
            return VERBS[state](found, notes=data["notes"], **given)
        return erasures.confirm(found, **given)

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _index(request, refusal=done, form=form, about=found)
    word = form.cleaned_data["state"]
    said = (
        "Erased: the bytes are gone, proofs stay."
        if word == ErasureState.CONFIRMED
        else f"{word.capitalize()}."
    )
    return _done(request, said)


@act
def place(request: HttpRequest) -> HttpResponse:
    """Place a legal hold."""
    form = PlaceHoldForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]
    done = carried_out(
        form, lambda data: holds.place(data["scope"], reason=data["reason"], by=person, clock=system_clock)
    )
    if isinstance(done, Refusal):
        return _index(request, refusal=done, form=form, place_form=form)
    return _done(request, f"Held: nothing of {done.scope} is erased until the hold is lifted.", "#holds")


@act
def lift(request: HttpRequest, hold_id: str) -> HttpResponse:
    """Lift a legal hold."""
    form = LiftHoldForm(request.POST)
    found = _found(lambda: holds.hold_by_id(hold_id))
    person: Person = request.user  # type: ignore[assignment]
    done = carried_out(
        form, lambda data: holds.lift(found, reason=data["reason"], by=person, clock=system_clock)
    )
    if isinstance(done, Refusal):
        return _index(request, refusal=done, form=form)
    return _done(request, f"Lifted: the hold on {done.scope} ended.", "#holds")


@act
def confirm_rule(request: HttpRequest, kind: str) -> HttpResponse:
    """Put a retention rule in force."""
    found = _found(lambda: retention.rule_by_kind(kind))
    person: Person = request.user  # type: ignore[assignment]
    form = forms.Form({})
    done = carried_out(form, lambda data: retention.confirm(found, by=person, clock=system_clock))
    if isinstance(done, Refusal):
        return _index(request, refusal=done)
    return _done(
        request, f"In force: records of kind {kind} are kept for {done.keep_days} days.", "#retention"
    )


def _found(look: Any) -> Any:
    try:
        return look()
    except NotFound as error:
        raise Http404 from error


def _done(request: HttpRequest, said: str, where: str = "") -> HttpResponse:
    messages.success(request, said)
    return redirect(f"{reverse('console:erasures')}{where}")


def _index(
    request: HttpRequest,
    *,
    refusal: Refusal | None = None,
    form: forms.Form | None = None,
    about: Erasure | None = None,
    place_form: PlaceHoldForm | None = None,
) -> HttpResponse:
    person: Person = request.user  # type: ignore[assignment]
    rows = erasures.erasures()
    waiting = rows.filter(state=ErasureState.PROPOSED).order_by("pk")[:WAITING]
    context = {
        "section": "erasures",
        "refusal": refusal,
        "refused": form,
        "waiting": [_waiting(one, person, form if about and one.pk == about.pk else None) for one in waiting],
        "decided": rows.exclude(state=ErasureState.PROPOSED).order_by("-pk")[:DECIDED],
        "holds": holds.standing().order_by("-pk")[:WAITING],
        "place_form": place_form or PlaceHoldForm(),
        "lift_form": LiftHoldForm(),
        "against_holding": policies.reasons_against_role(person, Permission.HOLD),
        "rules": [_rule(one, person) for one in retention.rules()],
    }
    return render(request, "evidence/erasures.html", context, status=refusal.status if refusal else 200)


def _waiting(erasure: Erasure, person: Person, form: Any) -> Waiting:
    role = policies.reasons_against_role(person, Permission.CONFIRM_ERASURE)
    found = list(
        Record.objects.filter(index__in=[item.index for item in erasure.items.all()]).order_by("index")
    )
    kept = erasures.reasons_against_erasing(found)
    return Waiting(
        erasure,
        going=_going(found),
        against_deciding=role or erasures.reasons_against_deciding(person, erasure),
        against_confirming=[sentence for reasons in kept.values() for _, sentence in reasons],
        may_withdraw=not erasures.reasons_against_withdrawing(person, erasure),
        form=form or DecideErasureForm(),
    )


def _going(found: Sequence[Record]) -> list[Going]:
    copies = erasures.copies([record.record_id for record in found])
    taken = capsules.holding(found)
    return [
        Going(
            record.record_id,
            kind_label(record.kind),
            [*copies.get(record.record_id, []), *_capsules(taken[record.index])],
        )
        for record in found
    ]


def _capsules(number: int) -> list[str]:
    return [f"the bytes of {number} capsule{'' if number == 1 else 's'}"] if number else []


def _rule(row: RetentionRule, person: Person) -> Rule:
    in_force = retention_terms.in_force(row)
    role = policies.reasons_against_role(person, Permission.CONFIRM_ERASURE)
    against = [] if in_force else role or retention.reasons_against_confirming(person, row)
    return Rule(row, in_force, history.capped_count(retention.due(row, system_clock()))[0], against)


# --- on the page of a record ----------------------------------------------------------------------------------------


@act
def propose(request: HttpRequest, record_id: str) -> HttpResponse:
    """Propose that the bytes of a record go."""
    form = ProposeErasureForm(request.POST)
    found = _found(lambda: history.by_id(record_id))
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> Any:
        return erasures.propose(
            [found.record_id], data["legal_basis"], data["reason"], by=person, clock=system_clock
        )

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        context = {**record_context(request, found, form), "refusal": done, "form": form}
        return render(request, "evidence/record.html", context, status=done.status)
    return _done(request, "Proposed: an auditor who is somebody else confirms or refuses.")


# --- the access log -------------------------------------------------------------------------------------------------


class Shown(AccessFilter):
    """The filters of the page: those of the list, with words."""

    LABELS = {"person": "Who", "subject": "What", "act": "How", "after": "From", "before": "Before"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, label in self.LABELS.items():
            self.form.fields[name].label = label
            self.form.fields[name].help_text = ""
        self.form.fields["act"].widget = forms.Select(
            choices=[("", "All"), *((act, act.capitalize()) for act in Access)]
        )
        for name in ("after", "before"):
            field = self.form.fields[name]
            field.label += ", UTC"
            field.widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MINUTES)


@page(Permission.READ_ACCESS_LOG)
def access_log(request: HttpRequest) -> HttpResponse:
    """Who read which evidence, newest first."""
    filters = Shown(request.GET, queryset=AccessLogEntry.objects.order_by("-pk"))
    context: dict[str, Any] = {
        "section": "access-log",
        "filters": filters.form,
        "filtered": any(request.GET.get(name) for name in Shown.LABELS),
    }
    valid = filters.is_valid()
    if valid:
        rows = filters.qs
        context["total"], context["total_is_exact"] = history.capped_count(rows)
        try:
            after = Place.of(cursor) if (cursor := request.GET.get("cursor", "")) else None
        except InvalidInput:
            raise Http404 from None
        found = list((rows.filter(pk__lt=after.index) if after else rows)[: PAGE + 1])
        context["entries"] = found[:PAGE]
        more = len(found) > PAGE
        context["older"] = (
            link(request, cursor=Place(found[PAGE - 1].at, found[PAGE - 1].pk).cursor) if more else ""
        )
        context["newest"] = link(request, cursor="") if after else ""
    return render(request, "evidence/access_log.html", context, status=200 if valid else 400)
