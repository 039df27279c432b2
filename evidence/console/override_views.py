"""What was let through past public safety, and the form in which a second person reviews it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.override_forms import ReviewForm
from evidence.console.pages import Refusal, act, carried_out, numbered, page
from evidence.domain import overrides
from evidence.domain.clock import system_clock
from evidence.domain.lines import kind_label
from evidence.domain.overrides import Override
from evidence.domain.safety_rules import RULESET
from evidence.enums import SafetyVerdict
from evidence.errors import NotFound
from evidence.models import Person
from evidence.permissions import Permission

# What is listed of what was reviewed.
REVIEWED = 10


@dataclass(frozen=True)
class Waiting:
    """An override with what stands against this person's review, in sentences; none means nothing does."""

    override: Override
    label: str
    against: list[str]
    form: ReviewForm


@page(Permission.REVIEW_OVERRIDES)
def index(request: HttpRequest) -> HttpResponse:
    """What waits for a second person, and what was reviewed lately."""
    return _index(request)


@act
def review(request: HttpRequest, override_id: str) -> HttpResponse:
    """Say what it was."""
    try:
        found = overrides.by_id(override_id)
    except NotFound as error:
        raise Http404 from error
    form = ReviewForm(found, request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> Any:
        return overrides.review(
            found,
            verdict=SafetyVerdict(data["verdict"]),
            notes=data["notes"],
            by=person,
            clock=system_clock,
        )

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _index(request, refusal=done, form=form, about=override_id)
    leak = form.cleaned_data["verdict"] == SafetyVerdict.LEAK
    messages.success(
        request,
        "Reviewed: a leak. It is not let through again; propose the erasure of the record that holds it."
        if leak
        else "Reviewed: a false hit.",
    )
    return redirect(reverse("console:public-safety"))


def _index(
    request: HttpRequest, *, refusal: Refusal | None = None, form: ReviewForm | None = None, about: str = ""
) -> HttpResponse:
    person: Person = request.user  # type: ignore[assignment]
    context = numbered(
        request, overrides.overrides(reviewed=False), "rows", at=reverse("console:public-safety")
    )
    waiting = [
        Waiting(
            override,
            kind_label(override.said["overridden_kind"]),
            overrides.reasons_against_reviewing(person, override),
            form if form and override.record.record_id == about else ReviewForm(override.record),
        )
        for override in overrides.described(context["rows"])
    ]
    context |= {
        "section": "public-safety",
        "refusal": refusal,
        "refused": form,
        "ruleset": RULESET,
        "waiting": waiting,
        "done": overrides.described(overrides.reviewed_lately()[:REVIEWED]),
    }
    return render(request, "evidence/public_safety.html", context, status=refusal.status if refusal else 200)
