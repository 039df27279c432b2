"""A case's page with its one next action, and the addresses its forms are sent to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from evidence.connectors.failures import PROPERTIES
from evidence.console.pages import Refusal, act, carried_out, page
from evidence.console.views import case_context, find_case
from evidence.domain import records
from evidence.domain.clock import system_clock
from evidence.enums import FailureClass
from evidence.models import Attempt, Case, Person
from evidence.permissions import Permission as Reading
from recovery.console.actions import ACTIONS, Action, worker_is_silent
from recovery.domain import manifests, notices, quorum, reconciliations, retry_policies, turns
from recovery.domain.turns import Standing
from recovery.enums import Act
from recovery.models import ApprovalEntry
from recovery.permissions import ROLE_PERMISSIONS


@dataclass(frozen=True)
class Option:
    """An act as the page offers it to this person: possible, or not and why."""

    action: Action
    reasons: list[str]

    @property
    def possible(self) -> bool:
        """Whether nothing stands against it."""
        return not self.reasons


@page(Reading.READ_EVIDENCE)
def case(request: HttpRequest, case_id: str) -> HttpResponse:
    """The whole truth of one delivery and the one thing to do now."""
    return show(request, find_case(case_id))


@act
def perform(request: HttpRequest, case_id: str, act: str) -> HttpResponse:
    """Do one act about this case; a refusal is shown on the case's page, with what was typed."""
    found = find_case(case_id)
    action = ACTIONS[Act(act)]
    form = action.form(request.POST)
    standing = turns.standing(found)
    person: Person = request.user  # type: ignore[assignment]
    said = carried_out(form, lambda data: action.perform(standing, data, person, system_clock))
    if isinstance(said, Refusal):
        return show(request, find_case(case_id), form=form, tried=action, refusal=said)
    messages.success(request, said)
    return redirect("console:case", case_id=case_id)


def show(
    request: HttpRequest,
    found: Case,
    *,
    form: forms.Form | None = None,
    tried: Action | None = None,
    refusal: Refusal | None = None,
) -> HttpResponse:
    """The page of ``found`` as it is now, with the form that was refused, if one was."""
    person: Person = request.user  # type: ignore[assignment]
    at = system_clock()
    standing = turns.standing(found)
    options = {
        which: Option(action, action.reasons(standing, person, at)) for which, action in ACTIONS.items()
    }
    due = options.get(standing.act) if standing.act else None
    entry = standing.open_entry
    if due and (tried is None or due.action is not tried):
        shown_now: dict[str, Any] = {"attempt_no": found.attempt_count}
        if entry:
            shown_now |= {"entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest}
        form = due.action.form(initial=shown_now)
    elif due is None:
        form = None
    facts = case_context(request, found)
    last = facts["attempts"][-1] if facts["attempts"] else None
    context: Mapping[str, Any] = {
        **facts,
        "standing": standing,
        "due": due,
        "act_template": f"recovery/acts/_{standing.act.replace('-', '_')}.html" if standing.act else "",
        "form": form,
        "refusal": refusal,
        "others": [option for which, option in options.items() if which != standing.act],
        "withdraw": options[Act.WITHDRAW],
        "entry": entry,
        "shown": shown(entry, last) if entry else None,
        "mine": bool(due and due.possible),
        "silent": worker_is_silent(system_clock) if standing.act is Act.EXECUTE or standing.run else [],
        "track": track(standing),
        "why": why(last),
        "unsettled_try": reconciliations.standing(found) if standing.act is Act.ATTEST else None,
        "against_asking": reconciliations.reasons_against_asking(found.connector),
        "told": told(standing),
        "whose": turn_words(standing, person),
        "is_sending": standing.is_sending,
        "at": at,
    }
    return render(request, "recovery/case.html", dict(context), status=refusal.status if refusal else 200)


def told(standing: Standing) -> list[notices.Telling]:
    """Who was told that the case waits for them."""
    if standing.act is Act.ATTEST:
        return notices.told_about_case(standing.case)
    return notices.told_about(standing.entry) if standing.act is Act.DECIDE and standing.entry else []


@dataclass(frozen=True)
class Shown:
    """An entry as the approver and the operator read it: what was frozen, and whether it still holds."""

    manifest: Mapping[str, Any]
    preview: str
    changed: tuple[str, ...]
    votes: list[Any]
    same_bytes: bool


def shown(entry: ApprovalEntry, last: Attempt | None) -> Shown:
    """Manifest, body and votes of ``entry``, and the fields that changed since."""
    manifest = records.load(entry.manifest)
    return Shown(
        manifest=manifest,
        preview=bytes(entry.body).decode(errors="replace"),
        changed=manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy)),
        votes=quorum.counted_votes(entry),
        same_bytes=bool(last and last.body_sha256 == manifest["payload"]["sha256"]),
    )


def why(last: Attempt | None) -> str:
    """The last failure in words."""
    if last is None or not last.failure_class:
        return ""
    label = PROPERTIES[FailureClass(last.failure_class)].label
    return f"{last.status_code} {label}" if last.status_code else label


STEPS = ("Failed", "Planned", "Acknowledged", "Approve", "Execute", "Settle", "Recover")
DONE = ("Failed", "Planned", "Acknowledged", "Approved", "Executed", "Settled", "Recovered")


def track(standing: Standing) -> list[tuple[str, str, bool]]:
    """The seven steps: those behind, the present one, those to come."""
    case = standing.case
    if case.settled_at and case.attempt_count == 1:
        return [("ok", "Delivered at the first attempt", False)]
    here = standing.place
    now = {
        Act.PLAN: ("warn", "Plan"),
        Act.ACKNOWLEDGE: ("warn", "Acknowledge"),
        Act.REQUEST: ("warn", "Ask for approval"),
        Act.DECIDE: ("warn", "Approve"),
        Act.EXECUTE: ("warn", "Execute"),
        Act.ATTEST: ("unknown", "Outcome unknown"),
    }
    tone, word = (
        now[standing.act]
        if standing.act
        else ("info", "Executing")
        if standing.is_sending
        else ("idle", "Held")
    )
    steps = [("bad" if place == 0 else "ok", DONE[place], False) for place in range(here)]
    if case.settled_at:
        return [*steps, ("", STEPS[6], False)]
    if standing.act is Act.ATTEST and case.attempt_count == 1:
        steps = []
    return [*steps, (tone, word, True), *(("", step, False) for step in STEPS[max(here + 1, 1) :])]


def turn_words(standing: Standing, person: Person) -> str:
    """Whose turn it is, as the panel's label says it."""
    role = standing.role
    if role is None or standing.act is None:
        return ""
    permission = ACTIONS[standing.act].permission
    held = [
        name for name, acts in ROLE_PERMISSIONS.items() if permission in acts and name in person.role_names
    ]
    if held:
        return f"Your turn as {held[0]}"
    article = "An" if role[0] in "aeiou" else "A"
    return f"{article} {role}’s turn"
