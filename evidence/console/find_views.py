"""Find: any id, hash or reference leads to what bears it."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.pages import page
from evidence.domain import finding
from evidence.domain.finding import Hit
from evidence.domain.lines import kind_label
from evidence.errors import InvalidInput
from evidence.permissions import Permission

# Where each sort of hit is shown.
ADDRESSES: dict[str, Callable[[str], str]] = {
    finding.CASE: lambda key: reverse("console:case", kwargs={"case_id": key}),
    finding.RECORD: lambda key: reverse("console:record", kwargs={"record_id": key}),
    finding.CONNECTOR: lambda key: f"{reverse('console:connectors')}#connector-{key}",
}


@page(Permission.READ_EVIDENCE)
def find(request: HttpRequest) -> HttpResponse:
    """The one thing that bears the name that was asked for, or a list of what does."""
    sought = request.GET.get("q", "").strip()
    hits: list[Hit] = []
    fault = ""
    if sought:
        try:
            hits = finding.find(sought)
        except InvalidInput as error:
            fault = error.errors["q"][0]
    if len(hits) == 1:
        return redirect(ADDRESSES[hits[0].what](hits[0].id))
    context = {
        "section": "find",
        "sought": sought,
        "fault": fault,
        "rows": [
            (hit, ADDRESSES[hit.what](hit.id), kind_label(hit.kind) if hit.kind else "") for hit in hits
        ],
        "full": len(hits) == finding.LIMIT,
    }
    return render(request, "evidence/find.html", context, status=400 if fault else 200)
