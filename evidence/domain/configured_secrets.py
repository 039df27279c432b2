"""The secrets that connectors refer to, and the service's own, looked for in text by their value (P18).

Rules know what a credential looks like; a password that looks like nothing is known by its value alone. The values
are those that the redactor keeps out of what is written (``evidence.connectors.references``). It hides more of them
than is refused here: the host of a secret URL, and a path like ``/services/collector/event``, stand in every manual.
"""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from evidence.connectors import references
from evidence.connectors.credentials import REFERENCES
from evidence.connectors.redaction import forms, pieces
from evidence.domain.public_safety import Hit
from evidence.models import Connector

RULE = "configured-secret"
# How long the list of references is believed: one that another process added is known here after as long.
KEPT_S = 5.0
# A shorter value counts as a word of its own, not as a part of another one.
LONG = 8
# An ordinary word: no sentence with it gives it away, but refusing every such sentence would.
_WORD = re.compile(r"[a-z]{1,12}")
# What nobody could guess of a secret URL: long, and with a digit or in both cases.
_PIECE = re.compile(r"[A-Za-z0-9_-]{16,}", re.ASCII)
# An ``Authorization`` value: one word, and what stands behind it. Other texts with a space in them are one secret.
_SCHEME = re.compile(r"[A-Za-z]{3,24} [^\s]+", re.ASCII)


@dataclass(frozen=True)
class Secrets:
    """Values in every form in which they are recognised, and the set they are of; ``repr`` tells none of them."""

    forms: tuple[str, ...] = ()
    made_of: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<{len(self.forms)} forms of configured secrets>"

    def find(self, text: str) -> list[Hit]:
        """Where one of them stands in ``text``."""
        return [hit for form in self.forms if form in text for hit in _places(form, text)]


def _places(form: str, text: str) -> Iterator[Hit]:
    place = text.find(form)
    while place >= 0:
        end = place + len(form)
        around = text[place - 1 : place] + text[end : end + 1] if place else text[end : end + 1]
        if len(form) >= LONG or not any(character.isalnum() for character in around):
            yield Hit(RULE, place, end)
        place = text.find(form, place + 1)


@dataclass
class _Known:
    """What was made of the newest values; ``looked`` is at whose wish the references were last read, and when.

    Without a lock, like ``references``: a list counts only once it was read, and only for the newest wish.
    """

    secrets: Secrets = Secrets()
    wish: object = None
    looked: tuple[object, float] = (None, float("-inf"))


_known = _Known()


def known() -> Secrets:
    """Every secret that a connector refers to and that can be read now, and those of the service itself."""
    now, wish = time.monotonic(), _known.wish
    for_whom, at = _known.looked
    if for_whom is not wish or now - at >= KEPT_S:
        _learn()
        _known.looked = wish, now
    values = references.secrets()
    secrets = _known.secrets
    if secrets.made_of is not values:
        # One step, and not read again: another thread may write down what it made of older values meanwhile.
        secrets = _known.secrets = Secrets(forms_of(values), values)
    return secrets


def forget() -> None:
    """Ask for the references again when somebody wants to know next; for who has changed a connector."""
    _known.wish = object()


def _learn() -> None:
    for refs in Connector.objects.values_list(*REFERENCES):
        references.learn(refs)


def telling(value: str) -> set[str]:
    """A secret, and what of it gives it away where it stands alone."""
    if _WORD.fullmatch(value):
        return set()
    if "://" in value.split(None, 1)[0]:
        host, _, rest = value.partition("://")[2].partition("/")
        found = {
            piece
            for piece in _PIECE.findall(rest)
            if not piece.islower() or any(character.isdigit() for character in piece)
        }
        # What urlsplit calls the password; it refuses some URLs, and this may not fail.
        password = host.rpartition("@")[0].partition(":")[2]
        return {value, *found, *({password} if password and not _WORD.fullmatch(password) else ())}
    if _SCHEME.fullmatch(value) or "\n" in value:
        return {value, *pieces(value)}
    return {value}


def forms_of(values: Iterable[str]) -> tuple[str, ...]:
    """Each value and what is telling of it, in every usual spelling, longest first."""
    parts = {part for value in values if value.strip() for part in telling(value)}
    found = {form for part in parts for form in forms(part) if len(form) >= references.MIN_SECRET}
    return tuple(sorted(found, key=len, reverse=True))
