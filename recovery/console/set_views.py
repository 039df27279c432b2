"""Sets: the failures of one outage on one page, with the one act that is due about all of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence import signed_in
from evidence.console.pages import PAGE, Refusal, act, carried_out, link, numbered, page, page_number
from evidence.domain import policies
from evidence.domain.clock import system_clock
from evidence.errors import NotFound
from evidence.models import Person
from evidence.permissions import Permission as Reading
from recovery.console import set_actions
from recovery.console.actions import worker_is_silent
from recovery.console.forms import SignedForm
from recovery.console.run_progress import progress
from recovery.console.set_actions import ACTIONS, SetAction
from recovery.console.set_forms import ChooseForm
from recovery.domain import manifests, set_turns, sets, turns
from recovery.domain.set_turns import SetStanding
from recovery.enums import Act, ItemState, RunState
from recovery.models import RetrySet
from recovery.permissions import ROLE_PERMISSIONS, Permission

# What the page calls the filter that a set was chosen by.
SELECTION = {
    "state": "State",
    "provider": "Connector",
    "since": "Last outcome since",
    "until": "Last outcome until",
    "set": "What was left of set",
}


@dataclass(frozen=True)
class Option:
    """An act as the page offers it to this person: possible, or not and why."""

    action: SetAction
    reasons: list[str]

    @property
    def possible(self) -> bool:
        """Whether nothing stands against it."""
        return not self.reasons


@page(Reading.READ_EVIDENCE)
def set_list(request: HttpRequest) -> HttpResponse:
    """Every set, the newest first, with how far it is."""
    context = numbered(request, RetrySet.objects.select_related("created_by"), "sets")
    context |= {"section": "sets", "sets": set_turns.summaries(context["sets"])}
    return render(request, "recovery/sets.html", context)


@page(Reading.READ_EVIDENCE)
def retry_set(request: HttpRequest, set_id: str) -> HttpResponse:
    """What a set is, where its items stand, and the one thing to do now; ``?act=`` is another that is due too."""
    return show(request, _found(set_id))


@act
def select(request: HttpRequest, set_id: str) -> HttpResponse:
    """The ballot paper with the items that are left in and their digest; nothing is written."""
    form = ACTIONS[Act.DECIDE].form(request.POST)
    return show(request, _found(set_id), form=form, tried=ACTIONS[Act.DECIDE], checked=False)


@act
def perform(request: HttpRequest, set_id: str, act: str) -> HttpResponse:
    """Do one act about this set; a refusal is shown on its page, with what was typed."""
    row = _found(set_id)
    action = ACTIONS[Act(act)]
    form = action.form(request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> str:
        if action.signed:
            signed = signed_in.confirmed(request, data["password"], clock=system_clock)
            data = {**data, "signed_in": signed}
        return action.perform(set_turns.standing(row, system_clock()), data, person, system_clock)

    said = carried_out(form, verb)
    if isinstance(said, Refusal):
        return show(request, _found(set_id), form=form, tried=action, refusal=said)
    messages.success(request, said)
    return redirect("recovery:set", set_id=set_id)


@act
def begin_again(request: HttpRequest, set_id: str) -> HttpResponse:
    """A new set of what this one left failed."""
    row = _found(set_id)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Any) -> RetrySet:
        left = [item.case.case_id for item in set_turns.standing(row, system_clock()).again]
        selection = {"set": row.set_id, "state": "failed"}
        return sets.choose(left, selection, by=person, clock=system_clock)

    made = carried_out(ChooseForm(request.POST), verb)
    if isinstance(made, Refusal):
        return show(request, row, refusal=made)
    messages.success(request, f"A set of {made.items.count():,}. Nothing was planned or sent yet.")
    return redirect("recovery:set", set_id=made.set_id)


def _found(set_id: str) -> RetrySet:
    try:
        return sets.set_by_id(set_id)
    except NotFound as error:
        raise Http404 from error


def show(
    request: HttpRequest,
    row: RetrySet,
    *,
    form: forms.Form | None = None,
    tried: SetAction | None = None,
    refusal: Refusal | None = None,
    checked: bool = True,
) -> HttpResponse:
    """The page of ``row`` as it is now, with the form that was refused, if one was.

    That form keeps what was typed, and is from now on about what the page shows. With ``checked`` False it was
    not sent to be carried out: nothing is wrong with it yet.
    """
    person: Person = request.user  # type: ignore[assignment]
    at = system_clock()
    standing = set_turns.standing(row, at)
    options = {which: Option(action, action.reasons(standing, person)) for which, action in ACTIONS.items()}
    which = tried.act if tried and tried.act in standing.due else _due(request, standing, options)
    due = options[which] if which else None
    # What may be denied as a whole holds a form: a page that replaces itself has none.
    polls = standing.running is not None and which is None and "act" not in request.GET
    revocable = [] if polls else set_actions.revocable(standing, person)
    context: dict[str, Any] = {
        "section": "sets",
        "set": row,
        "selection": [(SELECTION.get(name, name), value) for name, value in row.selection.items()],
        "standing": standing,
        "due": due,
        "act_template": f"recovery/set_acts/_{which.replace('-', '_')}.html" if which else "",
        "whose": whose(which, person) if which else "",
        "also": [option for act, option in options.items() if act in standing.due and act != which],
        "going_on": polls and bool(standing.those(ItemState.QUEUED)),
        "plan_again": options[Act.PLAN] if Act.PLAN not in standing.due and not row.digest else None,
        "refusal": refusal,
        "progress": progress(standing.running) if standing.running else None,
        "silent": worker_is_silent(system_clock)
        if standing.running and standing.running.state == RunState.QUEUED
        else [],
        "polls": polls,
        "revocable": revocable,
        "revoke_digest": manifests.digest_of(revocable) if revocable else "",
        "revoke_asks_password": not signed_in.of(request).is_recent(at),
        "at": at,
        **items_context(request, standing, reverse("recovery:set", kwargs={"set_id": row.set_id})),
    }
    if due:
        of_act = _about(which, standing, person, at, form if due.action is tried else None)
        context |= of_act | _form(request, due, of_act, form if due.action is tried else None, at, checked)
    context["mine"] = bool(due and not context.get("against"))
    return render(request, "recovery/set.html", context, status=refusal.status if refusal else 200)


def _due(request: HttpRequest, standing: SetStanding, options: Mapping[Act, Option]) -> Act | None:
    """The act the page is about: the one asked for, else the first this person may do, else the first.

    None while a run is under way, unless an act is asked for: then the page shows how far it is.
    """
    asked = request.GET.get("act", "")
    offered = [*standing.due, *([Act.PLAN] if options[Act.PLAN].possible else [])]
    if asked in offered:
        return Act(asked)
    if standing.running or not standing.due:
        return None
    mine = [which for which in standing.due if options[which].possible]
    # Not mine, because the worker is silent or another role is asked for: it is due all the same.
    return (mine or standing.due)[0]


def _about(
    which: Act | None, standing: SetStanding, person: Person, at: datetime, form: forms.Form | None
) -> dict[str, Any]:
    """What the panel of an act shows, and what the form sends back so that nobody acts on something else."""
    match which:
        case Act.ACKNOWLEDGE:
            return {
                "decisions": set_actions.decisions(standing),
                "shows": {"shown": set_actions.to_answer(standing)},
            }
        case Act.DECIDE:
            picked, without = _picked(form)
            paper = set_actions.paper(standing.row, person, at, picked=picked, without=without)
            against = [] if paper.parts else list(dict.fromkeys(reason for _, reason in paper.barred))
            changed = [] if policies.reasons_against_role(person, Permission.DECIDE) else paper.changed
            return {
                "paper": paper,
                "others_reasons": against,
                "changed": changed,
                "changed_digest": manifests.digest_of(changed) if changed else "",
                "shows": {"set_digest": paper.digest},
            }
        case Act.RENEW:
            mine, others = set_actions.lapsed(standing.row, person)
            against = [] if mine else list(dict.fromkeys(reason for _, reason in others))
            digest = manifests.digest_of(mine) if mine else ""
            shows = {"set_digest": digest, "items": [entry.entry_id for entry in mine]}
            return {"lapsed": mine, "not_lapsed": others, "others_reasons": against, "shows": shows}
        case Act.EXECUTE:
            load = set_actions.load(standing, at)
            stopped = progress(standing.runs[0]).stopped if standing.runs else []
            return {"load": load, "stopped": stopped, "shows": {"set_digest": load.digest}}
        case _:
            return {"shows": {}}


def _picked(form: forms.Form | None) -> tuple[Collection[str] | None, Collection[str]]:
    """Items and taken-out parts of a form that was sent; without one everything is in."""
    if form is None:
        return None, ()
    return set(form.data.getlist("items")), set(form.data.getlist("without"))  # type: ignore[attr-defined]


def _form(
    request: HttpRequest,
    due: Option,
    of_act: Mapping[str, Any],
    sent: forms.Form | None,
    at: datetime,
    checked: bool,
) -> dict[str, Any]:
    """The form of the due act, filled with what was typed, and what stands against sending it."""
    shows = of_act["shows"]
    if sent is None:
        form = due.action.form(initial=shows)
    else:
        data = sent.data.copy()  # type: ignore[attr-defined]
        for name, value in shows.items():
            if isinstance(value, list):
                data.setlist(name, value)
            else:
                data[name] = value
        sent.data = data
        form = sent if checked else due.action.form(initial=_typed(data, due.action.form))
    signed = signed_in.of(request)
    asks_password = isinstance(form, SignedForm) and not signed.is_recent(at)
    if asks_password and isinstance(form, SignedForm):
        form.ask_password(signed.age(at))
    against = due.reasons or of_act.get("others_reasons", [])
    return {"form": form, "asks_password": asks_password, "against": against}


def _typed(data: Any, form: type[forms.Form]) -> dict[str, Any]:
    """What was typed so far, as a new form takes it; nothing of it was checked, and no password is kept."""
    return {
        name: data.getlist(name) if isinstance(field, forms.MultipleChoiceField) else data.get(name, "")
        for name, field in form.base_fields.items()
        if name != "password"
    }


def items_context(request: HttpRequest, standing: SetStanding, here: str) -> dict[str, Any]:
    """One page of the items, all or those that stand as ``?stand=`` says, with links to its neighbours."""

    def other(**changed: Any) -> str:
        return f"{here}{link(request, **changed)}"

    asked = request.GET.get("stand", "")
    stand = ItemState(asked) if asked in list(ItemState) else None
    found = standing.those(stand) if stand else standing.items
    number = page_number(request.GET.get("page", "1"), len(found))
    start = (number - 1) * PAGE
    shown = found[start : start + PAGE]
    return {
        "stand": stand,
        "stands": [(state, count, other(stand=state.value, page="")) for state, count in standing.counts],
        "all_items": other(stand="", page=""),
        "items": shown,
        "found": len(found),
        "first": start + 1,
        "last": start + len(shown),
        "newer": other(page=number - 1) if number > 1 else "",
        "older": other(page=number + 1) if start + PAGE < len(found) else "",
        "unknown": len(standing.those(ItemState.UNKNOWN)),
    }


def whose(which: Act, person: Person) -> str:
    """Whose turn it is, as the panel's label says it."""
    permission = ACTIONS[which].permission
    held = [
        name for name, acts in ROLE_PERMISSIONS.items() if permission in acts and name in person.role_names
    ]
    if held:
        return f"Your turn as {held[0]}"
    role = turns.ROLES.get(which) or turns.ROLES[Act.DECIDE]
    return f"{'An' if role[0] in 'aeiou' else 'A'} {role}’s turn"
