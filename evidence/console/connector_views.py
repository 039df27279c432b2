"""Connectors: how each does, the worst first."""

from collections import Counter

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from evidence.console.pages import may_read, page
from evidence.domain import connector_health
from evidence.domain.clock import system_clock
from evidence.permissions import Permission
from evidence.templatetags.console import shown


@page(Permission.READ_DASHBOARD)
def connectors(request: HttpRequest) -> HttpResponse:
    """Health of every connector; for viewers too: there are numbers, and no host, body or case."""
    at = system_clock()
    found = connector_health.survey(at)
    counted = Counter(one.word for one in found)
    context = {
        "section": "connectors",
        "connectors": found,
        "summary": ", ".join(f"{count} {shown(word)[2].lower()}" for word, count in counted.items()),
        "updated": at,
        "reads": may_read(request),
    }
    return render(request, "evidence/connectors.html", context)
