"""How and when the account behind a request had signed in: votes are signed with it (P4, P21)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.http import HttpRequest

from evidence.domain import text
from evidence.domain.clock import Clock, system_clock
from evidence.errors import NotAllowed
from evidence.models import Person

# Where the session keeps it.
KEY = "signed_in"
# Whoever signed in or gave the password within this need not give it to sign a vote.
RECENT = timedelta(minutes=15)


class Method(StrEnum):
    """What an account was known by."""

    SESSION = "session"
    PASSWORD = "password"
    TOKEN = "token"


@dataclass(frozen=True)
class SignedIn:
    """By what an account was known, and since when; a token says nothing of a time."""

    by: Method
    at: datetime | None = None

    def is_recent(self, now: datetime) -> bool:
        """Whether it is new enough to sign a vote. A time ahead of the clock is as old as one behind it."""
        return self.at is not None and abs(now - self.at) <= RECENT

    def age(self, now: datetime) -> str:
        """How long ago it was, as a sentence."""
        if self.at is None:
            return "It is not known when you signed in"
        return f"It is {text.span(abs(now - self.at))} since you signed in"


def remember(sender: Any, request: HttpRequest, **kwargs: Any) -> None:
    """Django's signal after every sign-in, whatever its door: from now on the session is new."""
    _keep(request, SignedIn(Method.SESSION, system_clock()))


def of(request: HttpRequest) -> SignedIn:
    """How and when the session behind ``request`` was authenticated; a session that does not say is old."""
    kept = request.session.get(KEY)
    if not kept:
        return SignedIn(Method.SESSION)
    return SignedIn(Method(kept["by"]), datetime.fromisoformat(kept["at"]))


def confirmed(request: HttpRequest, password: str, *, clock: Clock) -> SignedIn:
    """A sign-in that may sign a vote: the session's while it is recent, else ``password`` makes it so.

    Raises ``NotAllowed`` about the field ``password`` when it is needed and missing or wrong.
    """
    now = clock()
    found = of(request)
    if found.is_recent(now):
        return found
    person: Person = request.user  # type: ignore[assignment]
    if not person.has_usable_password():
        _refuse(f"{found.age(now)}, and this account has no password. Sign in again.", "sign_in_too_old")
    if not password:
        _refuse(f"{found.age(now)}. Give your password to sign this.", "sign_in_too_old")
    if not person.check_password(password):
        _refuse("This is not your password.", "password_wrong")
    given = SignedIn(Method.PASSWORD, now)
    _keep(request, given)
    return given


def _refuse(sentence: str, code: str) -> None:
    raise NotAllowed(f"Nothing was recorded. {sentence}", code=code, errors={"password": [sentence]})


def _keep(request: HttpRequest, signed_in: SignedIn) -> None:
    at = signed_in.at or system_clock()
    request.session[KEY] = {"by": signed_in.by.value, "at": at.isoformat()}
