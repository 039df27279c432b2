"""The ledger: its head, how it grew, and whether what is stored is what was sealed."""

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.pages import act, page
from evidence.domain import anchors, checkpoints, log_keys, merkle, policies, trends, verifications
from evidence.domain.clock import system_clock
from evidence.enums import Administration, KeyState, TaskState
from evidence.errors import DomainError
from evidence.models import Anchor, Checkpoint, LedgerHead, LedgerKey, Person, Verification
from evidence.permissions import Permission

DAYS = 30
# Finished passes that are listed.
PASSES = 8
# Signed heads that are listed.
HEADS = 8
# Who could change what is held outside, in a sentence.
KEEPERS = {
    Administration.US: "administered by ourselves",
    Administration.ORGANISATION: "administered by others in the organisation",
    Administration.THIRD_PARTY: "administered by a third party",
}
# A pass that takes longer than this is asked for less often.
LONG = timedelta(seconds=30)


@page(Permission.READ_EVIDENCE)
def ledger(request: HttpRequest) -> HttpResponse:
    """Head, growth, and the result of the last verification."""
    at = system_clock()
    head = LedgerHead.objects.get()
    grown = trends.growth(DAYS, at=at)
    context = {
        **_verification(),
        **_signing(request),
        "section": "ledger",
        "head": head,
        "root": merkle.root(merkle.split(head.peaks)).hex(),
        "growth": grown,
        "sizes": [day.size for day in grown],
        "added": sum(day.added for day in grown),
    }
    return render(request, "evidence/ledger.html", context)


@page(Permission.READ_EVIDENCE)
def verification(request: HttpRequest) -> HttpResponse:
    """The part about verifying alone, for a page that watches a pass."""
    return render(request, "evidence/_verification.html", _verification())


@act
def verify(request: HttpRequest) -> HttpResponse:
    """Ask the worker for a pass over the log."""
    person: Person = request.user  # type: ignore[assignment]
    verifications.ask(by=person, clock=system_clock)
    messages.success(request, "The worker verifies the ledger; what it finds appears here.")
    return redirect(f"{reverse('console:ledger')}#verify")


@act
def sign(request: HttpRequest) -> HttpResponse:
    """Sign the head of the log as it is now."""
    person: Person = request.user  # type: ignore[assignment]
    try:
        head, made = checkpoints.signed_now(by=person, clock=system_clock)
    except DomainError as error:
        what = "" if error.detail.startswith("No head") else "No head was signed. "
        messages.error(request, what + error.detail)
    else:
        said = f"Signed: {head.size:,} entries." if made else "Nothing was new to sign."
        messages.success(request, said)
    return redirect(f"{reverse('console:ledger')}#heads")


@page(Permission.READ_EVIDENCE)
def signed_head(request: HttpRequest, pk: int) -> HttpResponse:
    """One signed head as it was signed, to keep elsewhere."""
    head = Checkpoint.objects.filter(pk=pk).first()
    if head is None:
        raise Http404
    return _file(head.note, f"checkpoint-{head.size}")


@page(Permission.READ_EVIDENCE)
def public_keys(request: HttpRequest) -> HttpResponse:
    """The keys that verify heads of this log, one a line; not those that were revoked."""
    rows = LedgerKey.objects.exclude(state=KeyState.REVOKED).order_by("pk")
    return _file("".join(f"{log_keys.vkey_of(row)}\n" for row in rows), "ledger.vkey")


def _file(text: str, name: str) -> HttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-cache"}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)


def _signing(request: HttpRequest) -> dict[str, Any]:
    """Signed heads, who signed the newest, what is held outside and by whom, and why nothing is signed."""
    rows = list(Checkpoint.objects.order_by("-pk")[: HEADS + 1])
    held = anchors.of_heads(rows)
    heads = [
        {
            "row": row,
            "added": row.size - rows[place + 1].size if place + 1 < len(rows) else row.size,
            "root": bytes(row.root).hex(),
            "held": [_kept(anchor) for anchor in held.get((row.origin, row.size), [])],
        }
        for place, row in enumerate(rows[:HEADS])
    ]
    refusal = checkpoints.refusal()
    return {
        "heads": heads,
        "heads_total": Checkpoint.objects.count(),
        "signed": rows[0] if rows else None,
        "signed_by": checkpoints.signed_by(rows[0]) if rows else [],
        "outside": [_kept(anchor) for anchor in anchors.ends()],
        "refusal": refusal,
        "behind": checkpoints.ledger_behind(),
        "may_sign": not policies.reasons_against_role(request.user, Permission.SIGN_HEADS),  # type: ignore[arg-type]
    }


def _kept(anchor: Anchor) -> dict[str, Any]:
    return {"anchor": anchor, "by": KEEPERS[Administration(anchor.administered_by)]}


def _verification() -> dict[str, Any]:
    """What goes on and what was found; ``every`` is how often to look again while a pass goes on."""
    current = verifications.current()
    long = current is not None and system_clock() - current.requested_at > LONG
    finished = Verification.objects.filter(state=TaskState.FINISHED).order_by("-finished_at", "-pk")
    passes = list(finished.select_related("requested_by")[:PASSES])
    size = passes[0].size if passes else 0
    # What the pass could look at; heads that were held outside since wait for the next one.
    ends = anchors.ends()
    held = [anchor for anchor in ends if anchor.size <= size]
    return {
        "current": current,
        "every": "5s" if long else "1s",
        "latest": passes[0] if passes else None,
        "took": _took(passes[0].duration_ms) if passes else "",
        "passes": passes,
        "any_head": Checkpoint.objects.filter(size__lte=size).exists(),
        "oldest": held[0] if held else None,
        "newest": ends[-1] if held else None,
    }


def _took(ms: int) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms} ms"
