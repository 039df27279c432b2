"""Statements for the platform owner: what became of the retries of a period."""

import csv
from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from evidence.console.pages import page
from evidence.domain.clock import system_clock
from evidence.domain.exports import safe_cell
from evidence.permissions import Permission
from recovery.domain import statements

# What may be chosen, the first unless somebody does: the days up to now that count, whole ones in UTC.
PERIODS = {"week": ("7 days", 7), "month": ("30 days", 30)}


@page(Permission.READ_EVIDENCE)
def retries(request: HttpRequest) -> HttpResponse:
    """Retries by connector and what became of them; a file of the same with ``?format=csv``."""
    chosen = request.GET.get("period", "")
    period = chosen if chosen in PERIODS else next(iter(PERIODS))
    words, days = PERIODS[period]
    until = system_clock()
    today = until.replace(hour=0, minute=0, second=0, microsecond=0)
    statement = statements.approved_retries(today - timedelta(days=days - 1), until)
    if request.GET.get("format") == "csv":
        return _file(statement)
    context = {
        "section": "statements",
        "statement": statement,
        "periods": [(name, label, name == period) for name, (label, _) in PERIODS.items()],
        "period": period,
        "words": words,
    }
    return render(request, "recovery/statements.html", context)


def _file(statement: statements.Statement) -> HttpResponse:
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    name = f"retries-{statement.since:%Y-%m-%d}-to-{statement.until:%Y-%m-%d}.csv"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    csv.writer(answer).writerows([safe_cell(cell) for cell in line] for line in statement.as_csv())
    return answer
