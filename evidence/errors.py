"""What a verb may refuse with; each class is answered with one HTTP status."""

from collections.abc import Mapping, Sequence
from typing import Any


class DomainError(Exception):
    """A refusal: nothing was written.

    ``code`` is stable and part of the contract, ``detail`` is a sentence, ``errors`` maps a field of the
    caller's input to its sentences, ``extra`` holds further keys of the answer (ids, lists).
    """

    default_code = "refused"
    status = 400

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Mapping[str, Sequence[str]] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = {key: list(value) for key, value in (errors or {}).items()}
        self.extra = extra


class InvalidInput(DomainError):
    """The input itself is wrong (400)."""

    default_code = "invalid"


class NotAllowed(DomainError):
    """This person may not do this: role or person rule (403)."""

    default_code = "not_allowed"
    status = 403


class NotFound(DomainError):
    """An id names nothing (404)."""

    default_code = "not_found"
    status = 404


class Conflict(DomainError):
    """The object is in no state for this (409)."""

    default_code = "conflict"
    status = 409


class StaleState(Conflict):
    """Somebody else moved the object first (409)."""

    default_code = "stale_state"


class Gone(DomainError):
    """What the id names was there and is not any more (410)."""

    default_code = "gone"
    status = 410


class Unavailable(DomainError):
    """The service itself cannot do this now, whatever is asked (503)."""

    default_code = "unavailable"
    status = 503
