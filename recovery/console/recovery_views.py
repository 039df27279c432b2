"""Recoveries: what failed, which steps are done, and the closure that has to be earned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.pages import PAGE, Refusal, act, carried_out, page
from evidence.domain import policies, records
from evidence.domain.clock import system_clock
from evidence.errors import Conflict, NotFound
from evidence.models import Person
from evidence.permissions import Permission as Reading
from recovery.console.recovery_forms import (
    OUTCOMES,
    CloseForm,
    PlaybookForm,
    StepForm,
    closure_request,
)
from recovery.documents import PLAYBOOK
from recovery.domain import closures, playbooks, recoveries, steps, turns
from recovery.domain.closures import Requirement
from recovery.domain.recoveries import Summary, VerificationChoice
from recovery.enums import ClosureState
from recovery.models import Playbook, Recovery
from recovery.permissions import Permission

# So many cases that are not settled are named one by one; the table of cases shows more.
FEW = 5


@dataclass(frozen=True)
class Tried:
    """An act that was refused: the panel it belongs to, its form as it was sent, and what was said.

    ``filled`` are the values that could be read before anything was refused; ``step`` is the key of a step.
    """

    panel: str
    form: forms.Form
    refusal: Refusal
    filled: Mapping[str, Any] = field(default_factory=dict)
    step: str = ""


# --- pages ----------------------------------------------------------------------------------------------------


@page(Reading.READ_EVIDENCE)
def recovery_list(request: HttpRequest) -> HttpResponse:
    """Every unfinished recovery, those that ended lately, and the button that writes a playbook."""
    return _list(request)


@page(Reading.READ_EVIDENCE)
def recovery(request: HttpRequest, provider: str) -> HttpResponse:
    """A connector's trouble: playbook, cases, outcomes so far, and what the chosen outcome needs."""
    return show(request, provider)


# --- acts -----------------------------------------------------------------------------------------------------


@act
def write_playbook(request: HttpRequest, provider: str = "") -> HttpResponse:
    """Write a recovery playbook about every connector that keeps failing."""
    if provider:
        newest(provider)
    form = PlaybookForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]
    said = carried_out(form, lambda _: playbooks.generate(by=person, clock=system_clock, **form.given()))
    if isinstance(said, Refusal):
        tried = Tried("playbook", form, said)
        return show(request, provider, tried) if provider else _list(request, tried)
    about = [one["provider"] for one in said.view[PLAYBOOK.payload_key]["provider_playbooks"]]
    what = ", ".join(about) if about else "no connector, for none failed as often"
    messages.success(request, f"Recovery playbook recorded as {said.record_id}. It is about {what}.")
    return redirect("recovery:recovery", provider=provider) if provider else redirect("recovery:recoveries")


@act
def tick(request: HttpRequest, provider: str, step_key: str) -> HttpResponse:
    """Tick a step of the newest playbook, or take a tick back."""
    found = newest(provider)
    form = StepForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]
    said = carried_out(
        form,
        lambda data: steps.tick(
            found, step_key, done=data["done"], note=data["note"], by=person, clock=system_clock
        ),
    )
    if isinstance(said, Refusal):
        return show(request, provider, Tried("playbook", form, said, step=step_key))
    what = "ticked" if form.cleaned_data["done"] else "taken back"
    messages.success(request, f"Step {what}. Recorded as {said.record_id}.")
    return redirect(f"{reverse('recovery:recovery', kwargs={'provider': provider})}#steps")


@act
def close(request: HttpRequest, provider: str) -> HttpResponse:
    """Record the outcome of a connector's recovery by the playbook that the page showed."""
    found = newest(provider)
    form = CloseForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> records.Draft:
        policies.require_role(person, Permission.CLOSE_RECOVERY)
        if not data["playbook_id"]:
            raise Conflict(
                "Recovery not closed. No playbook described it; write one first.", code="playbook_not_found"
            )
        asked = closure_request(found.connector.key, ClosureState(data["state"]), data)
        shown = playbooks.playbook_by_id(data["playbook_id"])
        return closures.close(shown, asked, by=person, clock=system_clock)

    # A refusal takes values out of the form; what was claimed is judged as it was sent.
    form.is_valid()
    filled = dict(form.cleaned_data)
    said = carried_out(form, verb)
    if isinstance(said, Refusal):
        return show(request, provider, Tried("close", form, _cut(form, said), filled))
    words, _ = OUTCOMES[ClosureState(filled["state"])]
    messages.success(request, f"{words}. Recorded as {said.record_id}.")
    return redirect("recovery:recovery", provider=provider)


def _cut(form: forms.Form, refusal: Refusal) -> Refusal:
    """A refusal that names a few cases; beside marked fields they stand in the summary as well."""
    few = refusal.reasons[:FEW]
    if form.errors:
        for reason in few:
            form.add_error(None, reason)
    return replace(refusal, reasons=few)


# --- what the pages show --------------------------------------------------------------------------------------


def newest(provider: str) -> Recovery:
    """The newest recovery of a connector; ``Http404`` when it never had one."""
    try:
        return recoveries.newest(provider)
    except NotFound as error:
        raise Http404 from error


def _list(request: HttpRequest, tried: Tried | None = None) -> HttpResponse:
    person: Person = request.user  # type: ignore[assignment]
    context = {
        "section": "recoveries",
        "open": recoveries.open_recoveries(),
        "finished": recoveries.finished_recoveries(),
        "form": tried.form if tried else PlaybookForm(),
        "refusal": tried.refusal if tried else None,
        "against_planning": policies.reasons_against_role(person, Permission.PLAN_RECOVERY),
    }
    status = tried.refusal.status if tried else 200
    return render(request, "recovery/recoveries.html", context, status=status)


def show(request: HttpRequest, provider: str, tried: Tried | None = None) -> HttpResponse:
    """The page of a connector's newest recovery as it is now, with the act that was refused, if one was."""
    person: Person = request.user  # type: ignore[assignment]
    try:
        epochs = recoveries.recovery_of(provider)
    except NotFound as error:
        raise Http404 from error
    summary = epochs.current
    playbook = playbooks.newest_playbook(summary.recovery)
    cases = recoveries.affected_cases(summary.recovery, PAGE)
    listed = steps.steps_of(summary.recovery, system_clock())
    context = {
        "section": "recoveries",
        "recovery": summary.recovery,
        "connector": summary.recovery.connector,
        "summary": summary,
        "playbook": playbook,
        "outdated": _outdated(summary, playbook),
        "steps": listed,
        "done": sum(step.done for step in listed),
        "next_step": tried.step
        if tried and tried.step
        else next((step.key for step in listed if not step.done and not step.automatic), ""),
        "against_ticking": _against_ticking(summary.recovery, person),
        "against_planning": policies.reasons_against_role(person, Permission.PLAN_RECOVERY),
        "cases": list(zip(cases, turns.standings([row.case for row in cases]), strict=True)),
        "case_count": summary.cases + summary.unlisted,
        "epochs": [summary, *epochs.earlier],
        "closed_before": any(epoch.closures for epoch in (summary, *epochs.earlier)),
        "tried": tried,
        "refusal": tried.refusal if tried else None,
        **_closing(request, summary.recovery, playbook, person, tried),
    }
    status = tried.refusal.status if tried else 200
    return render(request, "recovery/recovery.html", context, status=status)


def _outdated(summary: Summary, playbook: Playbook | None) -> bool:
    """Whether the playbook is silent about a failure that the recovery is about by now."""
    if playbook is None or summary.unlisted:
        return True
    last = summary.newest_failure
    return last is not None and last.newest_at > playbook.created_at


def _against_ticking(found: Recovery, person: Person) -> list[str]:
    if found.state in playbooks.FINISHED:
        return [f"Recovery {found.epoch} is {found.state}; its steps stay as they are."]
    return policies.reasons_against_role(person, Permission.PLAN_RECOVERY)


def _closing(
    request: HttpRequest, found: Recovery, playbook: Playbook | None, person: Person, tried: Tried | None
) -> dict[str, Any]:
    """The closing panel: the chosen outcome, what it needs, and the fields of it."""
    refused = tried if tried and tried.panel == "close" else None
    state = _outcome(request, found, refused)
    proofs = recoveries.verification_choices(found, person) if state is ClosureState.RESOLVED else []
    if refused:
        form, filled = refused.form, refused.filled
    else:
        form, filled = _blank(request, playbook, proofs)
    asked = closure_request(found.connector.key, state, filled)
    needs = recoveries.requirements_for(found, state, person, system_clock(), asked)
    fields = dict.fromkeys(needed.field for needed in needs if needed.by_form)
    form.mark_needed(fields)  # type: ignore[attr-defined]
    names = dict.fromkeys((*fields, "external_ref"))
    unmet_cases = sum(need.field == closures.CASES and not need.met for need in needs)
    return {
        "form": form,
        "refused": refused,
        "outcomes": [
            (word, words, hint, _page_with(found, word), word is state)
            for word, (words, hint) in OUTCOMES.items()
        ],
        "outcome": state,
        "outcome_words": OUTCOMES[state][0],
        "needs": _few_cases(needs),
        "more_cases": max(0, unmet_cases - FEW),
        "fields": [form[name] for name in names if name != "verification_refs"],
        "proofs": proofs,
        "picked": filled.get("verification_refs") or (),
        "may_close": not policies.reasons_against_role(person, Permission.CLOSE_RECOVERY),
        "can_close": all(need.met or need.by_form for need in needs),
    }


def _page_with(found: Recovery, outcome: ClosureState) -> str:
    """Address of a recovery's page with an outcome chosen."""
    address = reverse("recovery:recovery", kwargs={"provider": found.connector.key})
    return f"{address}?outcome={outcome}"


def _outcome(request: HttpRequest, found: Recovery, refused: Tried | None) -> ClosureState:
    """The outcome that was chosen, else the first that the recovery can have."""
    chosen = refused.filled.get("state", "") if refused else request.GET.get("outcome", "")
    if chosen in OUTCOMES:
        return ClosureState(chosen)
    possible = (state for state in OUTCOMES if not closures.reasons_against_state(found, state))
    return next(possible, ClosureState.RESOLVED)


def _blank(
    request: HttpRequest, playbook: Playbook | None, proofs: Sequence[VerificationChoice]
) -> tuple[CloseForm, dict[str, Any]]:
    """A form with what was typed for another outcome, every proof picked, and its values as they can be read."""
    kept = {name: request.GET[name] for name in CloseForm.KEPT if name in request.GET}
    typed = CloseForm(kept)
    typed.is_valid()
    picked = [proof.reference for proof in proofs if not proof.own]
    shown = {"playbook_id": playbook.playbook_id if playbook else "", "verification_refs": picked}
    filled = {**typed.cleaned_data, **shown}
    return CloseForm(initial={**kept, **shown}), filled


def _few_cases(needs: Sequence[Requirement]) -> list[Requirement]:
    """The needs with a few of the cases that are not settled."""
    few = [need for need in needs if need.field == closures.CASES][:FEW]
    return [need for need in needs if need.field != closures.CASES or need in few]
