"""Worker runs: start a dry or a live one over everything, and see what became of it."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from evidence.console.pages import Refusal, act, carried_out, numbered, page
from evidence.domain import history, policies
from evidence.domain.clock import system_clock
from evidence.errors import Conflict
from evidence.models import Person
from evidence.permissions import Permission as Reading
from recovery.console.actions import worker_is_silent
from recovery.console.forms import RunForm
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
        **numbered(request, rows, "runs"),
        "section": "runs",
        "form": form or RunForm(),
        "refusal": refusal,
        "approved": ApprovalEntry.objects.filter(state=EntryState.APPROVED).count(),
        "against_dry": policies.reasons_against_role(person, Permission.RUN_DRY),
        "against_live": policies.reasons_against_role(person, Permission.RUN_LIVE)
        or worker_is_silent(system_clock),
    }
    return render(request, "recovery/runs.html", context, status=refusal.status if refusal else 200)


@page(Reading.READ_EVIDENCE)
def run(request: HttpRequest, run_id: str) -> HttpResponse:
    """One run: what it selected and what became of each, while it goes on and for ever after."""
    found = WorkerRun.objects.select_related("requested_by").filter(run_id=run_id).first()
    if found is None:
        raise Http404
    executions = {
        one.entry_id: one
        for one in Execution.objects.filter(run=found).select_related("case", "entry__connector")
    }
    entries = ApprovalEntry.objects.filter(pk__in=found.request["entries"]).select_related(
        "case", "connector"
    )
    rows = [(entry, executions.get(entry.pk)) for entry in entries.defer("body").order_by("pk")]
    done = sum(one is not None and one.recorded_at is not None for _, one in rows)
    context = {
        "section": "runs",
        "run": found,
        "rows": rows,
        "done": done,
        "unfinished": found.state != RunState.FINISHED,
        "silent": worker_is_silent(system_clock) if found.state == RunState.QUEUED else [],
        "selected": [] if not found.dry_run else selected_cases(found),
    }
    return render(request, "recovery/run.html", context)


def selected_cases(run: WorkerRun) -> list[Any]:
    """What a dry run would have sent, as its record says."""
    payload = history.envelope(history.by_id(run.run_id))
    return list(payload.get(WORKER_RUN.payload_key, {}).get("selected_retries", []))
