"""Routes: who was told about a drill, what they answered, and the form that answers for them."""

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.act_forms import AnswerForm
from evidence.console.forms import connectors
from evidence.console.pages import Refusal, act, carried_out, numbered, page
from evidence.domain import acknowledgements, policies, routing
from evidence.domain.acknowledgements import Answer
from evidence.domain.clock import system_clock
from evidence.enums import RouteAction, RouteState
from evidence.filtersets import RouteFilter, RuleFilter
from evidence.models import Person, Route, Schedule
from evidence.permissions import Permission

Choices = Callable[[], list[tuple[str, str]]]

# Filters of the page in their order: label, and what may be chosen; None is free text.
FILTERS: dict[str, tuple[str, Choices | None]] = {
    "owner": ("Owner", None),
    "schedule_id": ("Drill", lambda: [(name, name) for name in _schedules()]),
    "provider": ("Connector", connectors),
    "acknowledgement_state": ("Answer", lambda: [(state, state.capitalize()) for state in RouteState]),
    "action": (
        "Told",
        lambda: [(RouteAction.DELIVER, "Told"), (RouteAction.SUPPRESS, "Held back")],
    ),
}


class Shown(RouteFilter):
    """Which rows the page shows: the list's filters, and the owners' answers."""

    acknowledgement_state = RuleFilter(choices=tuple(RouteState))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (label, choices) in FILTERS.items():
            self.form.fields[name].label = label
            if choices:
                self.form.fields[name].widget = forms.Select(choices=[("", "All"), *choices()])
        self.form.order_fields(FILTERS)
        # Why somebody was told or not stands in the row; the API filters by it.
        del self.form.fields["category"]


@page(Permission.READ_EVIDENCE)
def routes(request: HttpRequest) -> HttpResponse:
    """Every announcement by connector, the newest first, and the form that answers those that are picked."""
    return _list(request, AnswerForm())


@act
def answer(request: HttpRequest) -> HttpResponse:
    """Record one answer for every row that was picked, or for none."""
    form = AnswerForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> int:
        picked = [name.split("/") for name in data["routes"]]
        answers = [
            Answer(
                schedule_id=schedule_id,
                plan_id=plan_id,
                provider=provider,
                state=RouteState(data["state"]),
                external_ref=data["external_ref"],
                notes=data["notes"],
                field="routes",
            )
            for schedule_id, plan_id, provider in picked
        ]
        return len(acknowledgements.acknowledge(answers, by=person, clock=system_clock))

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _list(request, form, refusal=done)
    word = form.cleaned_data["state"]
    messages.success(request, f"{word.capitalize()}: {done} announcement{'' if done == 1 else 's'} recorded.")
    return redirect(f"{reverse('console:routes')}?{request.GET.urlencode()}")


def _list(request: HttpRequest, form: AnswerForm, *, refusal: Refusal | None = None) -> HttpResponse:
    filters = Shown(request.GET, queryset=Route.objects.all())
    valid = filters.is_valid()
    person: Person = request.user  # type: ignore[assignment]
    status = refusal.status if refusal else 200 if valid else 400
    context: dict[str, Any] = {
        "section": "routes",
        "filters": filters.form,
        "form": form,
        "picked": form["routes"].value() or (),
        "refusal": refusal,
        "against": policies.reasons_against_role(person, Permission.ACKNOWLEDGE),
        "filtered": any(request.GET.get(name) for name in filters.form.fields),
    }
    if valid:
        context |= numbered(request, routing.grouped(filters.qs), "groups", at=reverse("console:routes"))
        context["parts"] = routing.parts(context.pop("groups"))
    return render(request, "evidence/routes.html", context, status=status)


def _schedules() -> list[str]:
    return list(Schedule.objects.values_list("schedule_id", flat=True))
