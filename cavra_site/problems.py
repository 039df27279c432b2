"""Refusals as answers: one shape everywhere, ``{"detail", "code"}`` with ``errors`` per field (CONTRACT).

Domain errors, REST framework errors and Django's own answers all end here; nothing that came in with a
request becomes a 5xx.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
)
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.views import defaults
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler as rest_exception_handler

from evidence import errors
from evidence.connectors import redaction

logger = logging.getLogger(__name__)

# What a value can do to the layers below although every field was checked: too long for a column, too large
# for an integer, nested too deep. The transaction is rolled back and the caller is told.
UNFIT_VALUES = (DataError, UnicodeError, RecursionError, OverflowError)

# Everything else that is not the caller's REST request, by class: status, code, sentence.
OTHERS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int, str, str], ...] = (
    (RequestDataTooBig, 413, "too_large", "The request is larger than this service reads."),
    (UnreadablePostError, 400, "unreadable", "The request ended before it was complete."),
    ((SuspiciousOperation, MultiPartParserError), 400, "bad_request", "The request cannot be read."),
    (UNFIT_VALUES, 400, "invalid", "A value in this request does not fit: too long, too large or not text."),
    (
        (OperationalError, InterfaceError),
        503,
        "database_unavailable",
        "The database did not answer in time. Look at what was done before you try again.",
    ),
)

# Codes that speak for a whole answer when all its field errors share them.
SPEAKING_CODES = frozenset({"unknown_keys", "contradiction"})

# First segments of paths whose clients expect JSON, whatever goes wrong.
API_ROOTS = frozenset({"runtime", "api", "evidence", "healthz", "readyz"})


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """REST framework's hook: the answer to ``error``, or None to let a fault of ours become a 500.

    What the caller sent may be repeated in it, but for secrets.
    """
    answer = _answer(error, context)
    if answer is not None:
        answer.data = redaction.clean(answer.data)
    return answer


def _answer(error: Exception, context: Mapping[str, Any]) -> Response | None:
    if isinstance(error, errors.DomainError):
        return Response(domain_problem(error), status=error.status)
    for classes, code_of_status, code, sentence in OTHERS:
        if isinstance(error, classes):
            logger.warning("answered %s: %s", code_of_status, code, exc_info=error)
            return Response({"detail": sentence, "code": code}, status=code_of_status)
    # REST framework knows the headers that belong to 401, 405 and 429.
    answer = rest_exception_handler(error, dict(context))
    if answer is None:
        return None
    if isinstance(error, exceptions.ValidationError):
        answer.data = validation_problem(error)
        return answer
    if isinstance(error, exceptions.UnsupportedMediaType):
        answer.status_code = status.HTTP_400_BAD_REQUEST
        answer.data = {
            "detail": "The body has to be a JSON object, sent with Content-Type: application/json.",
            "code": "not_json",
        }
        return answer
    answer.data = {"detail": str(answer.data["detail"]), "code": _code(error)}
    return answer


def domain_problem(error: errors.DomainError) -> dict[str, Any]:
    """A domain error as the body of an answer."""
    problem: dict[str, Any] = {**error.extra, "detail": error.detail, "code": error.code}
    if error.errors:
        problem["errors"] = error.errors
    return problem


def validation_problem(error: exceptions.ValidationError) -> dict[str, Any]:
    """Field errors as dotted paths, each with its sentences."""
    found: dict[str, list[str]] = {}
    codes = set()
    for path, detail in _flat(error.detail, ""):
        found.setdefault(path or "body", []).append(str(detail))
        codes.add(detail.code)
    first, *others = found
    sentence = f"{first}: {found[first][0]}"
    if others:
        sentence += f" ({len(others)} more, see errors.)"
    code = codes.pop() if len(codes) == 1 and codes <= SPEAKING_CODES else "invalid"
    return {"detail": sentence, "code": code, "errors": found}


def _flat(detail: Any, path: str) -> Iterator[tuple[str, exceptions.ErrorDetail]]:
    """``(dotted path, message)`` of REST framework's nested errors."""
    if isinstance(detail, Mapping):
        for key, item in detail.items():
            # An object's own errors stand under its path, not under a name of the framework's.
            yield from _flat(
                item, path if key == "non_field_errors" else f"{path}.{key}" if path else str(key)
            )
    elif isinstance(detail, list):
        for place, item in enumerate(detail):
            inner = isinstance(item, Mapping | list)
            yield from _flat(item, f"{path}.{place}" if inner and path else str(place) if inner else path)
    else:
        yield path, detail


def _code(error: Exception) -> str:
    if isinstance(error, Http404):
        return "not_found"
    if isinstance(error, PermissionDenied):
        return "permission_denied"
    return str(error.get_codes()) if isinstance(error, exceptions.APIException) else "error"


# --- answers that Django gives before or after a view --------------------------------------------------------


def wants_json(request: HttpRequest) -> bool:
    """Whether the caller of this path reads JSON."""
    path = request.path_info.lstrip("/")
    return path.partition("/")[0] in API_ROOTS or path == "console/config"


def _handler(
    code_of_status: int, code: str, sentence: str, page: Callable[..., HttpResponse]
) -> Callable[..., HttpResponse]:
    """A Django error handler: JSON for API paths, Django's page for browsers."""

    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if wants_json(request):
            return JsonResponse({"detail": sentence, "code": code}, status=code_of_status)
        return page(request, *args, **kwargs)

    return answer


handler400 = _handler(400, "bad_request", "The request cannot be read.", defaults.bad_request)
handler403 = _handler(403, "permission_denied", "This is not allowed.", defaults.permission_denied)
handler404 = _handler(404, "not_found", "There is nothing at this address.", defaults.page_not_found)
handler500 = _handler(500, "internal_error", "A fault of this service; it was logged.", defaults.server_error)
