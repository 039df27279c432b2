"""Worker runs: start a dry or a live one over everything, and see what became of it."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.pages import PAGE, Refusal, act, carried_out, link, numbered, page, page_number
from evidence.domain import history, policies
from evidence.domain.clock import system_clock
from evidence.errors import Conflict
from evidence.models import Person
from evidence.permissions import Permission as Reading
from recovery.console import manifest_words
from recovery.console.actions import against_live_runs, worker_is_silent
from recovery.console.forms import RunForm
from recovery.console.run_progress import progress
from recovery.documents import WORKER_RUN
from recovery.enums import EntryState, RunState
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, WorkerRun
from recovery.permissions import Permission


@page(Reading.READ_EVIDENCE)
def run_list(request: HttpRequest) -> HttpResponse:
    """Every run, the newest first, and the two buttons."""
    return _list(request)


@act
def start(request: HttpRequest) -> HttpResponse:
    """Start a run over everything that is due (dry) or approved (live)."""
    form = RunForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Any) -> runs.Started:
        live = data["live"]
        if live and (silent := worker_is_silent(system_clock)):
            policies.require_role(person, Permission.RUN_LIVE)
            raise Conflict(f"Not executed. {silent[0]}", code="worker_silent")
        providers = tuple(data["providers"])
        asked = RunRequest(
            dry_run=not live, providers=providers, max_retry_deliveries=data["most"] or 25, background=live
        )
        return runs.start(asked, by=person, clock=system_clock)

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _list(request, form=form, refusal=done)
    live = "Handed to the worker" if not done.run.dry_run else "Dry run recorded: nothing was sent"
    messages.success(request, f"{live}; {done.run.selected_count} selected.")
    return redirect("recovery:run", run_id=done.run.run_id)


def _list(
    request: HttpRequest, *, form: RunForm | None = None, refusal: Refusal | None = None
) -> HttpResponse:
    rows = WorkerRun.objects.select_related("requested_by")
    person: Person = request.user  # type: ignore[assignment]
    context = {
        **numbered(request, rows, "runs", at=reverse("recovery:runs")),
        "section": "runs",
        "form": form or RunForm(),
        "refusal": refusal,
        "approved": ApprovalEntry.objects.filter(state=EntryState.APPROVED).count(),
        "against_dry": policies.reasons_against_role(person, Permission.RUN_DRY),
        "against_live": policies.reasons_against_role(person, Permission.RUN_LIVE)
        or against_live_runs(system_clock),
    }
    return render(request, "recovery/runs.html", context, status=refusal.status if refusal else 200)


@page(Reading.READ_EVIDENCE)
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    """One run: what it selected and what became of each, while it goes on and for ever after."""
    found = WorkerRun.objects.select_related("requested_by", "retry_set").filter(run_id=run_id).first()
    if found is None:
        raise Http404
    executions: dict[int, list[Execution]] = {}
    for one in Execution.objects.filter(run=found).order_by("pk"):
        executions.setdefault(one.entry_id, []).append(one)
    entries = ApprovalEntry.objects.filter(pk__in=found.request["entries"]).select_related(
        "case", "connector"
    )
    # A try of which nothing left leaves its approval to the next one: each try is a row of its own.
    rows = [
        (entry, one, manifest_words.failure_words(one.failure_class) if one else "")
        for entry in entries.defer("body").order_by("pk")
        for one in executions.get(entry.pk, [None])
    ]
    number = page_number(request.GET.get("page", "1"), len(rows))
    start = (number - 1) * PAGE
    context = {
        "section": "runs",
        "run": found,
        "rows": rows[start : start + PAGE],
        "total": len(rows),
        "first": start + 1,
        "last": min(start + PAGE, len(rows)),
        "newer": link(request, page=number - 1) if number > 1 else "",
        "older": link(request, page=number + 1) if start + PAGE < len(rows) else "",
        "here": link(request),
        "progress": None if found.dry_run else progress(found),
        "unfinished": found.state != RunState.FINISHED,
        "silent": worker_is_silent(system_clock) if found.state == RunState.QUEUED else [],
        "selected": [] if not found.dry_run else selected_cases(found),
    }
    return render(request, "recovery/run.html", context)


def selected_cases(run: WorkerRun) -> list[Any]:
    """What a dry run would have sent, as its record says."""
    payload = history.envelope(history.by_id(run.run_id))
    return list(payload.get(WORKER_RUN.payload_key, {}).get("selected_retries", []))
