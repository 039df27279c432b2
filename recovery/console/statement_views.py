"""Statements of a period: proof for the release manager, and what became of the retries for the platform owner."""

import csv
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse

from evidence.console.pages import page
from evidence.domain import records
from evidence.domain.clock import system_clock
from evidence.domain.exports import safe_cell
from evidence.errors import InvalidInput
from evidence.models import Record
from evidence.permissions import Permission
from recovery.domain import proofs, statements
from recovery.filtersets import PeriodFilter

# What may be chosen, the first unless somebody does: the days up to now that count, whole ones in UTC.
PERIODS = {"week": ("7 days", 7), "month": ("30 days", 30)}

# Rows of one list on the page; the answer of the API has all of them.
ROWS = 500

# The numbers at the top: name, words, tone when above 0, the place on the page with the list behind it.
NUMBERS = (
    ("live_retries", "Live retries", "", "retries"),
    ("approved_by_another_before_claim", "Approved by another before the claim", "ok", "retries"),
    ("not_so_approved", "Not so approved", "bad", "not_so_approved"),
    ("delivered", "Delivered", "", "delivered"),
    ("failed", "Failed", "", "failed"),
    ("unknown", "Unknown", "unknown", "unknown"),
    ("turned_out_later", "Turned out later", "", "turned_out_later"),
    ("nothing_left", "Nothing left", "", "nothing_left"),
    ("unused_approvals", "Unused approvals", "", "unused_approvals"),
)
# Numbers that are 0 as long as nothing was erased or altered; shown only when they are not.
RARE = (
    ("approval_not_readable", "Approval not readable", "warn", "approval_not_readable"),
    ("outcome_not_readable", "Outcome not readable", "warn", "outcome_not_readable"),
    ("records_not_readable", "Records not readable", "warn", "records_not_readable"),
)
# Lists of live retries in which each stands once, by what came of it, and what a list says that is empty.
OUTCOMES = (
    ("delivered", "Delivered"),
    ("failed", "Failed"),
    ("unknown", "Unknown so far"),
    ("turned_out_later", "Unknown, turned out later"),
    ("nothing_left", "Nothing left"),
    ("outcome_not_readable", "Outcome not readable"),
)


@dataclass(frozen=True)
class Period:
    """A period that somebody chose; ``name`` is one of ``PERIODS``, or empty for two times of their own."""

    since: datetime
    until: datetime
    name: str = ""

    @property
    def query(self) -> str:
        """The query string that shows the same again."""
        return urlencode({"period": self.name} if self.name else self.ends)

    @property
    def ends(self) -> dict[str, str]:
        """Both ends as the API reads them."""
        return {"from": records.timestamp(self.since), "to": records.timestamp(self.until)}

    @property
    def last_day(self) -> datetime:
        """The first midnight that is not before the end, as a form for days takes it."""
        day = self.until.replace(hour=0, minute=0, second=0, microsecond=0)
        return day if day == self.until or day.date() == date.max else day + timedelta(days=1)


@page(Permission.READ_EVIDENCE)
def retries(request: HttpRequest) -> HttpResponse:
    """The live retries of a period with their proof, and retries by connector; the latter as a file with
    ``?format=csv``.
    """
    at = system_clock()
    form = _form(request.GET)
    period = _period(request.GET, form, at)
    context: dict[str, Any] = {
        "section": "statements",
        "form": form,
        "period": period,
        "periods": [
            (name, label, period is not None and name == period.name) for name, (label, _) in PERIODS.items()
        ],
    }
    if period is not None:
        try:
            by_connector = statements.approved_retries(period.since, period.until)
            if request.GET.get("format") == "csv":
                return _file(by_connector)
            context |= {"statement": by_connector, "words": PERIODS.get(period.name, ("",))[0]}
            context |= _proof(proofs.retries(period.since, period.until, at=at))
        except InvalidInput as error:
            form = context["form"] = _form(QueryDict(urlencode(period.ends)))
            for sentence in error.errors.get("to", error.errors.get("until", [error.detail])):
                form.add_error("to", sentence)
    status = 400 if form.errors else 200
    if period is not None:
        context["api"] = f"{reverse('retry-statement')}?{urlencode(period.ends)}"
    return render(request, "recovery/statements.html", context, status=status)


def _form(sent: QueryDict) -> Any:
    """The two ends of a period as the API reads them, bound as soon as one of them is given."""
    given = {name: sent[name] for name in PeriodFilter.base_filters if sent.get(name)}
    return PeriodFilter(given or None, queryset=Record.objects.none()).form


def _period(sent: QueryDict, form: Any, at: datetime) -> Period | None:
    """The period that was asked for; None for two times that are none."""
    if form.is_bound:
        if not form.is_valid():
            return None
        return Period(form.cleaned_data["from"], form.cleaned_data["to"])
    chosen = sent.get("period", "")
    name = chosen if chosen in PERIODS else next(iter(PERIODS))
    today = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return Period(today - timedelta(days=PERIODS[name][1] - 1), at, name)


def _proof(proof: proofs.Statement) -> dict[str, Any]:
    """What the page shows of the proof: its numbers, and each list once."""
    numbers = proof.numbers
    shown = [*NUMBERS, *(rare for rare in RARE if numbers[rare[0]])]
    lists = {name: proof.of(name) for name, _ in OUTCOMES}
    lists["unknown"] = [one for one in lists["unknown"] if one.turned_out is None]
    return {
        "proof": proof,
        "profile": settings.CAVRA_PROFILE,
        "numbers": [
            (words, numbers[name], tone if numbers[name] else "", place, proofs.NUMBERS[name])
            for name, words, tone, place in shown
        ],
        "doubtful": [
            (name, words, proof.of(name)[:ROWS], numbers[name])
            for name, words in (
                ("not_so_approved", "Not so approved"),
                ("approval_not_readable", "Approval not readable"),
            )
            if numbers[name] or name == "not_so_approved"
        ],
        "lists": [
            (name, words, lists[name][:ROWS], len(lists[name]))
            for name, words in OUTCOMES
            if lists[name] or name != "outcome_not_readable"
        ],
        "unused": proof.unused[:ROWS],
        "lost": proof.lost[:ROWS],
        "rows": ROWS,
    }


def _file(statement: statements.Statement) -> HttpResponse:
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    name = f"retries-{statement.since:%Y-%m-%d}-to-{statement.until:%Y-%m-%d}.csv"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    csv.writer(answer).writerows([safe_cell(cell) for cell in line] for line in statement.as_csv())
    return answer
