"""A case's page with its one next action, and the addresses its forms are sent to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import prefetch_related_objects
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from evidence import signed_in
from evidence.console.pages import Refusal, act, carried_out, page
from evidence.console.views import case_context, find_case
from evidence.domain import records
from evidence.domain.clock import system_clock
from evidence.enums import CaseState
from evidence.models import Attempt, Case, Person
from evidence.permissions import Permission as Reading
from recovery.console import disposing, manifest_words
from recovery.console.actions import ACTIONS, Action, worker_is_silent
from recovery.console.forms import SignedForm
from recovery.domain import (
    inquiries,
    manifests,
    notices,
    quorum,
    reconciliations,
    retry_policies,
    turns,
    waits,
)
from recovery.domain.turns import Standing
from recovery.enums import Act, ExecutionState, RecoveryState
from recovery.models import ApprovalEntry, EntryParty, Execution, PossibleAttempt
from recovery.permissions import ROLE_PERMISSIONS


@dataclass(frozen=True)
class Option:
    """An act as the page offers it to this person: possible, or not and why."""

    action: Action
    reasons: list[str]
    form: forms.Form

    @property
    def possible(self) -> bool:
        """Whether nothing stands against it."""
        return not self.reasons


@page(Reading.READ_EVIDENCE)
def case(request: HttpRequest, case_id: str) -> HttpResponse:
    """The whole truth of one delivery and the one thing to do now; ``?part=run`` is the run it waits for alone."""
    if request.GET.get("part") == "run":
        return show_run(request, find_case(case_id))
    return show(request, find_case(case_id))


@act
def perform(request: HttpRequest, case_id: str, act: str) -> HttpResponse:
    """Do one act about this case; a refusal is shown on the case's page, with what was typed."""
    found = find_case(case_id)
    action = ACTIONS[Act(act)]
    form = action.form(request.POST)
    standing = turns.standing(found)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> str:
        if action.signed:
            signed = signed_in.confirmed(request, data["password"], clock=system_clock)
            data = {**data, "signed_in": signed}
        return action.perform(standing, data, person, system_clock)

    said = carried_out(form, verb)
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
    """The page of ``found`` as it is now, with the form that was refused, if one was.

    That form keeps what was typed, and is from now on about what the page shows.
    """
    person: Person = request.user  # type: ignore[assignment]
    at = system_clock()
    standing = turns.standing(found)
    changes = changed_since(standing, form, refusal) if form and refusal else []
    options = {}
    for which, action in ACTIONS.items():
        filled = refreshed(form, action.shows(standing)) if form and action is tried else None
        options[which] = Option(
            action,
            action.reasons(standing, person, at),
            filled or action.form(initial=dict(action.shows(standing))),
        )
    asks_password = not (signed := signed_in.of(request)).is_recent(at)
    for option in options.values():
        if asks_password and isinstance(option.form, SignedForm):
            option.form.ask_password(signed.age(at))
    due = options.get(standing.act) if standing.act else None
    entry = standing.open_entry
    lapsed = standing.lapsed_entry if options[Act.RENEW].possible else None
    # To renew is offered by itself, or with the reason against it; where nothing ran out it is no act at all.
    apart = {Act.ASK, Act.TAKE_OVER, *({Act.RENEW} if lapsed or not standing.lapsed_entry else ())}
    others = [
        option
        for which, option in options.items()
        if which != standing.act and which not in disposing.FORMS and which not in apart
    ]
    facts = case_context(request, found)
    asked = [found, *(one.case for one in (entry, lapsed) if one)]
    prefetch_related_objects(asked, "possible_attempts")
    last = facts["attempts"][-1] if facts["attempts"] else None
    context: Mapping[str, Any] = {
        **facts,
        "standing": standing,
        "due": due,
        "act_template": f"recovery/acts/_{standing.act.replace('-', '_')}.html" if standing.act else "",
        "form": due.form if due else None,
        "refused": form,
        "refusal": refusal,
        "changes": changes,
        "unplaced": typed(form) if tried and not options[tried.act].possible else [],
        "possible": found.possible_attempts.all(),
        "asks_password": asks_password,
        "others": others,
        "dispose": disposing.panel(standing, options, tried.act if tried else None),
        "renew": options[Act.RENEW],
        "entry": entry,
        "shown": shown(entry, last) if entry else None,
        "cautions": waits.cautions([entry], at)[0] if entry and standing.act is Act.DECIDE else [],
        "could_approve": could_approve(entry) if entry and standing.act is Act.DECIDE else None,
        "lapsed": shown(lapsed, last) if lapsed else None,
        "unsent": unsent(entry) if entry and standing.act is Act.EXECUTE else None,
        "mine": bool(due and due.possible),
        "silent": worker_is_silent(system_clock) if standing.act is Act.EXECUTE or standing.run else [],
        "track": track(standing),
        "why": why(last),
        "unsettled_try": reconciliations.standing(found) if standing.act is Act.ATTEST else None,
        "asked": inquiries.shown(found),
        "ask": options[Act.ASK],
        "take_over": options[Act.TAKE_OVER],
        "worth_asking": inquiries.worth_asking(found),
        "against_asking": reconciliations.reasons_against_asking(found.connector),
        "told": told(standing),
        "whose": turn_words(standing, person),
        "polls": standing.is_sending
        or (standing.is_queued and not any(option.possible for option in options.values())),
        "at": at,
    }
    return render(request, "recovery/case.html", dict(context), status=refusal.status if refusal else 200)


def show_run(request: HttpRequest, found: Case) -> HttpResponse:
    """What became of the run a case waits for: a panel that replaces itself and no form beside it."""
    standing = turns.standing(found)
    context = {
        "case": found,
        "standing": standing,
        "entry": standing.entry,
        "polls": False,
        "silent": worker_is_silent(system_clock) if standing.run else [],
    }
    return render(request, "recovery/_run_part.html", context)


def refreshed(form: forms.Form, shows: Mapping[str, Any]) -> forms.Form:
    """A refused form that keeps what was typed; what it is about is what the page shows now."""
    sent: Any = form.data
    data = sent.copy()
    for name, value in shows.items():
        if name in form.fields:
            data[name] = str(value)
    form.data = data
    return form


def typed(form: forms.Form | None) -> list[str]:
    """The words of a refused form that has no place on the page any more."""
    words = [form.data.get(name, "").strip() for name in ("notes", "reason")] if form else []
    return [word for word in words if word]


def changed_since(standing: Standing, form: forms.Form, refusal: Refusal) -> list[str]:
    """What is otherwise in the request that the page shows now than in the one the form was about."""
    if names := (refusal.extra or {}).get("changed_fields"):
        return manifest_words.field_words(names)
    entry = standing.open_entry
    read = form.data.get("entry_id", "")
    if entry is None or not read or read == entry.entry_id or "\0" in read:
        return []
    older = ApprovalEntry.objects.filter(case=standing.case, entry_id=read).first()
    if older is None:
        return []
    names = manifests.differences(records.load(older.manifest), records.load(entry.manifest))
    return manifest_words.field_words(names)


def told(standing: Standing) -> list[notices.Telling]:
    """Who was told that the case waits for them."""
    if standing.act is Act.ATTEST:
        return notices.told_about_case(standing.case)
    return notices.told_about(standing.entry) if standing.act is Act.DECIDE and standing.entry else []


@dataclass(frozen=True)
class Shown:
    """An entry as the approver and the operator read it: what was frozen, and whether it still holds.

    ``changed`` names what is otherwise now. ``body_before`` is the SHA-256 of the last try's bytes. ``retried``
    says whether an approved try came before this one; then ``unlike`` names in what it differs. ``tries`` are
    all earlier ones, ``possible`` times in which one may have been made that nothing is known of.
    """

    manifest: Mapping[str, Any]
    preview: str
    changed: list[str]
    votes: list[Any]
    body_before: str
    same_bytes: bool
    retried: bool
    unlike: list[str]
    tries: list[dict[str, Any]]
    possible: list[PossibleAttempt]


def shown(entry: ApprovalEntry, last: Attempt | None) -> Shown:
    """Manifest, body and votes of ``entry``, what changed since, and how it differs from the tries before it."""
    manifest = records.load(entry.manifest)
    before = executed_before(entry) if entry.attempt_no > FIRST_RETRY else None
    return Shown(
        manifest=manifest,
        preview=manifest_words.preview(bytes(entry.body)),
        changed=manifest_words.field_words(
            manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy))
        ),
        votes=quorum.counted_votes(entry),
        body_before=last.body_sha256 if last else "",
        same_bytes=bool(last and last.body_sha256 == manifest["payload"]["sha256"]),
        retried=before is not None,
        unlike=manifest_words.unlike(records.load(before.manifest), manifest) if before else [],
        tries=manifest_words.tries(manifest),
        possible=list(entry.case.possible_attempts.all()),
    )


# Attempt 1 is the original; what was approved begins with attempt 2.
FIRST_RETRY = 2


def executed_before(entry: ApprovalEntry) -> ApprovalEntry | None:
    """The newest request of the same case that was used for a try before this one."""
    used = Execution.objects.exclude(state=ExecutionState.NOT_SENT)
    execution = (
        used.filter(case=entry.case_id, attempt_no__lt=entry.attempt_no)
        .select_related("entry")
        .defer("entry__body")
        .order_by("-attempt_no")
        .first()
    )
    return execution.entry if execution else None


@dataclass(frozen=True)
class Unsent:
    """A run of an approval that stands: nothing left, and why."""

    execution: Execution
    why: str


def unsent(entry: ApprovalEntry) -> Unsent | None:
    """The newest run of ``entry`` of which nothing left this service."""
    tried = entry.executions.filter(state=ExecutionState.NOT_SENT).select_related("run").first()
    return Unsent(tried, manifest_words.failure_words(tried.failure_class)) if tried else None


def could_approve(entry: ApprovalEntry) -> int:
    """How many people may decide about ``entry`` now."""
    parties = EntryParty.objects.filter(entry=entry).values_list("person_id", flat=True)
    return len(quorum.eligible(quorum.approvers(), entry.requested_at, set(parties)))


def why(last: Attempt | None) -> str:
    """The last failure in words."""
    if last is None or not last.failure_class:
        return ""
    label = manifest_words.failure_words(last.failure_class)
    return f"{last.status_code} {label}" if last.status_code else label


STEPS = ("Failed", "Planned", "Acknowledged", "Approve", "Execute", "Settle", "Recover")
DONE = ("Failed", "Planned", "Acknowledged", "Approved", "Executed", "Settled", "Recovered")


def track(standing: Standing) -> list[tuple[str, str, bool]]:
    """The seven steps: those behind, the present one, those to come."""
    case = standing.case
    if case.state in (CaseState.SUPERSEDED, CaseState.ABANDONED):
        word = "Superseded" if case.state == CaseState.SUPERSEDED else "Abandoned"
        failed = [("bad", DONE[0], False)] if case.attempt_count else []
        return [*failed, ("idle", word, True), _last_step(case)]
    if case.state == CaseState.PARKED:
        return [("idle", "Waits for its connector", True), ("", "Sent by itself", False)]
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
        if standing.is_sending or standing.is_queued
        else ("idle", "Held")
    )
    steps = [("bad" if place == 0 else "ok", DONE[place], False) for place in range(here)]
    if case.settled_at:
        return [*steps, _last_step(case)]
    if standing.act is Act.ATTEST and case.attempt_count == 1:
        steps = []
    return [*steps, (tone, word, True), *(("", step, False) for step in STEPS[max(here + 1, 1) :])]


def _last_step(case: Case) -> tuple[str, str, bool]:
    """Whether the trouble that a settled case was part of is closed as resolved."""
    closed = case.recovery_items.filter(recovery__state=RecoveryState.RESOLVED).exists()
    return ("ok", DONE[6], False) if closed else ("", STEPS[6], False)


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
