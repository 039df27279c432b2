"""What every page of the console shares: who may open it, links to itself, refusals as part of the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, QueryDict
from django.shortcuts import resolve_url

from evidence.connectors.redaction import redact
from evidence.console.fields import TextField
from evidence.domain import configured_secrets, history, policies, public_safety, safety, text
from evidence.errors import DomainError
from evidence.permissions import Permission

# Rows of a page of a list.
PAGE = 25

View = Callable[..., HttpResponse]

# What a value can do to the layers below although every field was checked; nothing was written.
UNFIT_VALUES = (DataError, OverflowError, UnicodeError)


def page(permission: str) -> Callable[[View], View]:
    """A page for people who are signed in and hold ``permission``; GET and HEAD only."""
    return _door(permission, ("GET", "HEAD"))


def act(view: View) -> View:
    """An address that a form is sent to, by people who may read evidence; the verb itself checks the role."""
    return _door(Permission.READ_EVIDENCE, ("POST",))(view)


def _door(permission: str, methods: tuple[str, ...]) -> Callable[[View], View]:
    def decorate(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if not request.user.is_authenticated:
                return sign_in_first(request)
            if reasons := policies.reasons_against_role(request.user, permission):
                raise PermissionDenied(reasons[0])
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            if any("\0" in value for value in kwargs.values() if isinstance(value, str)):
                raise Http404
            try:
                return view(request, **kwargs)
            except UNFIT_VALUES as error:
                raise SuspiciousOperation("A value does not fit: too long, too large or not text.") from error

        return checked

    return decorate


def sign_in_first(request: HttpRequest) -> HttpResponse:
    """To the sign-in page and back; a fragment's request takes the whole window there."""
    here = getattr(request, "htmx", None) and request.htmx.current_url_abs_path  # type: ignore[attr-defined]
    if not here:
        return redirect_to_login(request.get_full_path())
    answer = HttpResponse(status=204)
    answer["HX-Redirect"] = redirect_to_login(here, resolve_url(settings.LOGIN_URL)).url
    return answer


@dataclass(frozen=True)
class Refusal:
    """What did not happen and why, as a page shows it; ``status`` is the answer's."""

    sentence: str
    status: int
    code: str
    reasons: tuple[str, ...] = ()
    extra: Mapping[str, Any] | None = None
    # What was sent, to be sent again with a reason: only where public safety refused and a person may say otherwise.
    again: "SendAgain | None" = None


@dataclass(frozen=True)
class SendAgain:
    """A refused form as hidden fields: name and value of each. A password is asked for again, never written."""

    fields: tuple[tuple[str, str], ...]
    asks_password: bool
    reason: str
    errors: tuple[str, ...] = ()


# The field in which a form is sent again with the reason why a hit of public safety is none.
OVERRIDE = "public_safety_override"
_NOT_REPEATED = frozenset({OVERRIDE, "csrfmiddlewaretoken", "password"})


def carried_out(form: forms.Form, verb: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Call ``verb`` with the checked form; returns what it returns, or a ``Refusal``.

    What the verb says about a field of the form stands at that field as well. A form that is sent again with the
    reason of an override lets false hits of public safety through (P18).
    """
    if not form.is_valid():
        _show_no_secret(form)
        return Refusal("Nothing was sent or recorded: look at the marked fields.", 400, "invalid")
    reason = str(form.data.get(OVERRIDE, ""))
    try:
        reason = text.clean(reason, field=OVERRIDE, limit=text.MAX_NOTES, lines=True)
        safety.require({OVERRIDE: reason})
        with safety.overriding(reason):
            safety.require({field: form.cleaned_data[field] for field in _said(form)})
            return verb(form.cleaned_data)
    except DomainError as error:
        elsewhere = []
        for name, sentences in error.errors.items():
            if name in form.fields:
                form.add_error(name, [str(sentence) for sentence in sentences])
            else:
                elsewhere += sentences
        reasons = error.extra.get("reasons", ()) or elsewhere
        others = tuple(redact(str(reason)) for reason in reasons if str(reason) != error.detail)
        again = _again(form, error, reason)
        _show_no_secret(form)
        return Refusal(redact(error.detail), error.status, error.code, others, error.extra, again=again)


def _show_no_secret(form: forms.Form) -> None:
    """Have a refused form shown again without a secret of a connector that somebody typed into it."""
    if not isinstance(form.data, QueryDict):
        return
    data, known = form.data.copy(), configured_secrets.known()
    for name in map(form.add_prefix, form.fields):
        typed = data.get(name)
        if isinstance(typed, str) and (hits := known.find(typed)):
            data[name] = public_safety.redacted(typed, hits)
    form.data = data


def _said(form: forms.Form) -> list[str]:
    """Fields in which a person writes; not a password, nor what a page put into a form."""
    return [name for name, field in form.fields.items() if isinstance(field, TextField)]


def _again(form: forms.Form, error: DomainError, reason: str) -> SendAgain | None:
    """What was sent, where a reason may let it through; nothing of a secret that a connector refers to."""
    faulty = OVERRIDE in error.errors
    if not faulty and not (error.code == safety.CODE and error.extra.get("may_be_overridden")):
        return None
    lists = form.data.lists() if isinstance(form.data, QueryDict) else ()
    sent = tuple(
        (name, str(value)) for name, values in lists if name not in _NOT_REPEATED for value in values
    )
    return SendAgain(
        sent,
        asks_password=bool(form.data.get("password")),
        reason="" if faulty else reason,
        errors=tuple(error.errors.get(OVERRIDE, ())),
    )


def may_read(request: HttpRequest) -> bool:
    """Whether the person may read records; viewers see numbers only (P22)."""
    return not policies.reasons_against_role(request.user, Permission.READ_EVIDENCE)  # type: ignore[arg-type]


def link(request: HttpRequest, **changed: Any) -> str:
    """This page's address with some parameters changed; an empty one is left out."""
    query = request.GET.copy()
    for name, value in changed.items():
        query.pop(name, None)
        if value:
            query[name] = str(value)
    return f"?{query.urlencode()}"


def page_number(text: str, total: int) -> int:
    """The page a text asks for, kept within what there is."""
    number = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 1
    return max(1, min(number, -(-total // PAGE)))


def numbered(request: HttpRequest, rows: QuerySet[Any], name: str, *, at: str = "") -> dict[str, Any]:
    """One page of ``rows``, as ``name``, with its place among all of them and links to its neighbours.

    ``at`` is the page's address, for a page that may stand at the address of an act.
    """
    total, exact = history.capped_count(rows)
    number = page_number(request.GET.get("page", "1"), total)
    start = (number - 1) * PAGE
    return {
        name: list(rows[start : start + PAGE]),
        "total": total,
        "total_is_exact": exact,
        "first": start + 1,
        "last": min(start + PAGE, total),
        "newer": at + link(request, page=number - 1) if number > 1 else "",
        "older": at + link(request, page=number + 1) if start + PAGE < total else "",
    }
