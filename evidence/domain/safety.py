"""Public safety where records are made: refuse, let through with a reason, or replace (P18).

Every document passes here once, with all its text; whatever a door checked before is checked again. What a person
says is refused by field and rule. What the service has to write down, whatever comes, is never refused: what matches
is replaced there. A false hit is let through by a person's reason, which becomes a record of its own and waits for
another person's look; the same text is not asked about again. A configured secret is never let through, nor is what
that other person called a leak.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from evidence.documents import LEDGER_ANCHOR, PUBLIC_SAFETY_OVERRIDE, Kind
from evidence.domain import configured_secrets, public_safety
from evidence.domain.commitments import commit
from evidence.domain.public_safety import Hit
from evidence.domain.safety_rules import RULESET
from evidence.errors import InvalidInput
from evidence.models import RecordKey

CODE = "public_safety"
# Search keys: what was let through, and what a reviewer called a leak afterwards.
PASSED = "safety_match"
LEAKED = "safety_leak"
# What a text may hold of hits before the refusal stops counting.
SHOWN = 20

# All text of a document is looked at but what stands in these fields: by kind, or in every kind.
NOT_FREE: dict[str, re.Pattern[str]] = {
    # Names of accounts: chosen once, in the administration, and part of everything that the account does.
    "": re.compile(r"(?:.*\.)?(?:person_name|[a-z_]{1,40}_by)"),
    # Where a head is kept is what the record is about; ``anchors`` takes no address with a credential.
    LEDGER_ANCHOR.name: re.compile(r"place"),
}


class Result(StrEnum):
    """What the check of a document came to; its controls say so."""

    CLEAN = "clean"
    OVERRIDDEN = "overridden"
    REDACTED = "redacted"


@dataclass(frozen=True)
class Match:
    """A hit in a document: field and rule, and a keyed commitment to what matched, never the value itself."""

    field: str
    rule: str
    commitment: str

    def as_dict(self) -> dict[str, str]:
        """As the record of an override lists it."""
        return {"field": self.field, "rule": self.rule, "match": self.commitment}


@dataclass(frozen=True)
class Judged:
    """A document that may be written: what it says, what the look at it came to, and what is let through with it."""

    payload: Mapping[str, Any]
    claimed_actor: str
    result: Result
    passed: tuple[Match, ...] = ()
    reason: str = ""

    @property
    def control(self) -> str:
        """Rule set and result, no more."""
        return f"{RULESET}:{self.result}"


# Around a verb rather than an argument of each: thirty verbs pass text on, none decides anything about this.
_REASON: ContextVar[str] = ContextVar("public_safety_override", default="")


@contextmanager
def overriding(reason: str) -> Iterator[None]:
    """Let false hits through in what is written inside, for this reason; an empty one lets nothing through."""
    token = _REASON.set(reason)
    try:
        yield
    finally:
        _REASON.reset(token)


def judge(
    kind: Kind,
    payload: Mapping[str, Any],
    *,
    by_itself: bool,
    claimed_actor: str = "",
    sends: Mapping[str, Any] | None = None,
) -> Judged:
    """Look at everything that a document of ``kind`` says, and at what is to be sent because of it.

    Raises ``InvalidInput`` ``public_safety`` naming fields and rules, unless the kind is ``observed`` or the service
    writes it ``by_itself``: then what matches is replaced. What is sent is named under ``sends``.
    """
    beside = {"claimed_actor": claimed_actor, "sends": sends or {}}
    if not _may_match([payload, beside]):
        return Judged(payload, claimed_actor, Result.CLEAN)
    if kind.observed or by_itself:
        return _replaced(kind, payload, claimed_actor)
    found = [*_matches(payload, kind), *_matches(beside, kind)]
    if not found:
        return Judged(payload, claimed_actor, Result.CLEAN)
    reason = "" if kind is PUBLIC_SAFETY_OVERRIDE else _REASON.get()
    new = _explained(found, reason)
    return Judged(payload, claimed_actor, Result.OVERRIDDEN, tuple(new), reason)


def require(said: Mapping[str, Any]) -> None:
    """The same for what a door has read, so that the refusal names the fields as they were sent.

    Raises ``InvalidInput``, or nothing where the reason of an override stands.
    """
    if not _may_match([said]):
        return
    # Without a kind: a name that somebody sends is a claim, no account's.
    _explained(list(_matches(said)), _REASON.get())


def _explained(found: Sequence[Match], reason: str) -> list[Match]:
    """What nobody let through before and ``reason`` does now; raises where there is none, or it is not enough."""
    passed, leaked = _known(found)
    new = [match for match in found if match.commitment not in passed]
    if any(match.rule == configured_secrets.RULE for match in new):
        raise _refusal(
            new,
            "It holds a secret of a connector, which is never recorded: take it out, and change the secret.",
        )
    if any(match.commitment in leaked for match in new):
        raise _refusal(new, "A reviewer called it a leak, and it is not let through again: take it out.")
    if new and not reason:
        raise _refusal(new)
    return new


def _refusal(matches: Sequence[Match], why_never: str = "") -> InvalidInput:
    errors: dict[str, list[str]] = {}
    for match in matches:
        sentence = f"matches rule {match.rule}"
        if sentence not in errors.setdefault(match.field, []):
            errors[match.field].append(sentence)
    shown = dict(list(errors.items())[:SHOWN])
    field, (sentence, *_) = next(iter(shown.items()))
    then = why_never or "Take it out. If it is none, say so with a reason (public_safety_override)."
    return InvalidInput(
        f"Nothing was recorded: {field} {sentence} of public safety. {then}",
        code=CODE,
        errors=shown,
        may_be_overridden=not why_never,
    )


def _may_match(values: Sequence[Any]) -> bool:
    """Whether anything is found in all the text at once: that is quick, and nearly always the end of it."""
    texts: list[str] = []
    for value in values:
        _gather(value, texts)
    together = "\0".join(texts)
    return bool(public_safety.find(together) or configured_secrets.known().find(together))


def _gather(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            texts.append(key)
            _gather(item, texts)
    elif isinstance(value, list | tuple):
        for item in value:
            _gather(item, texts)


def _hits(text: str) -> list[Hit]:
    return [*configured_secrets.known().find(text), *public_safety.find(text)]


def _is_free(kind: Kind | None, path: str) -> bool:
    """Whether what stands at ``path`` of a document is looked at; of what is no document everything is."""
    return kind is None or not any(
        NOT_FREE[name].fullmatch(path) for name in ("", kind.name) if name in NOT_FREE
    )


def _matches(value: Any, kind: Kind | None = None) -> Iterator[Match]:
    for path, text in public_safety.strings(value):
        if _is_free(kind, path):
            for hit in _hits(text):
                matched = f"{hit.rule}\0{text[hit.start : hit.end]}"
                yield Match(path, hit.rule, commit("public-safety", matched.encode()))


def _known(found: Sequence[Match]) -> tuple[set[str], set[str]]:
    """Commitments of what is let through from before, and of what a reviewer called a leak since.

    No secret of a connector is ever among the former.
    """
    asked = {match.commitment for match in found if match.rule != configured_secrets.RULE}
    keys = RecordKey.objects.filter(name__in=(PASSED, LEAKED), value__in=asked) if asked else ()
    seen: dict[str, set[str]] = {PASSED: set(), LEAKED: set()}
    for key in keys:
        seen[key.name].add(key.value)
    return seen[PASSED] - seen[LEAKED], seen[LEAKED]


def _replaced(kind: Kind, payload: Mapping[str, Any], claimed_actor: str) -> Judged:
    document = {**payload, "claimed_actor": claimed_actor}
    found = list(_matches(document, kind))
    passed, _ = _known(found)
    clean = _without(document, kind, "", passed)
    result = Result.REDACTED if clean != document else Result.OVERRIDDEN if found else Result.CLEAN
    return Judged({name: clean[name] for name in payload}, clean["claimed_actor"], result)


def _without(value: Any, kind: Kind, path: str, passed: set[str]) -> Any:
    """A JSON value without what matches; what was let through before stays."""
    if isinstance(value, str):
        if not _is_free(kind, path):
            return value
        hits = [
            hit
            for hit in _hits(value)
            if commit("public-safety", f"{hit.rule}\0{value[hit.start : hit.end]}".encode()) not in passed
        ]
        return public_safety.redacted(value, hits) if hits else value
    if isinstance(value, Mapping):
        return {
            key: _without(item, kind, f"{path}.{key}" if path else key, passed) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_without(item, kind, f"{path}.{place}", passed) for place, item in enumerate(value)]
    return value
