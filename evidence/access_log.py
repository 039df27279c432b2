"""Notes who read which evidence, after the answer is made: the one place that writes with a GET (P14)."""

import logging
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponseBase

from evidence.domain import access
from evidence.domain.clock import system_clock
from evidence.enums import Via
from evidence.models import Person

logger = logging.getLogger(__name__)


class AccessLog:
    """Middleware. A read that cannot be noted is served all the same, and the log of the service says so."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        match = request.resolver_match
        read = access.READS.get(match.view_name) if match else None
        if (
            match is not None
            and read is not None
            and request.method == "GET"
            and response.status_code == 200
            and isinstance(request.user, Person)
            and not _is_asked_for_again(request)
        ):
            subject_id = str(match.kwargs.get(read.named_by, ""))
            # The framework of the API leaves what it found on the request.
            via = Via.TOKEN if getattr(request, "auth", None) else Via.SESSION
            try:
                access.note(request.user, read, subject_id, page=match.view_name, via=via, clock=system_clock)
            except DatabaseError as error:
                logger.warning(
                    "the access log does not have that %s read %s %s: %s",
                    request.user.username,
                    read.subject,
                    subject_id,
                    error,
                )
        return response


def _is_asked_for_again(request: HttpRequest) -> bool:
    """Whether a page asks for itself, as one that follows a run does every second: that is no read of its own."""
    htmx: Any = getattr(request, "htmx", None)
    return bool(htmx) and htmx.current_url_abs_path == request.get_full_path()
