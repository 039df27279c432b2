"""Whether text may be read by anybody: finds credentials and private addresses in it, by rule (P18).

Pure: text in, places out. What is refused, replaced or let through because of it is ``evidence.domain.safety``'s.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evidence.domain.safety_rules import RULES, Found, Rule

REDACTED = "[redacted]"


@dataclass(frozen=True)
class Hit:
    """Where a rule finds something in a text: from ``start`` to before ``end``. The value itself is not kept."""

    rule: str
    start: int
    end: int


def find(text: str) -> list[Hit]:
    """Everything that the rules find in ``text``, rule by rule.

    Takes time in proportion to the length of the text, whatever is in it. Several texts may be looked at as one with
    NUL between them: no rule finds anything across it.
    """
    lower = _lower(text)
    hits: list[Hit] = []
    for rule in RULES:
        for anchor in rule.anchors:
            if anchor in lower:
                hits += _found(rule, text, lower)
                break
    return hits


def redacted(text: str, hits: Iterable[Hit]) -> str:
    """``text`` with what was found replaced; hits may overlap."""
    parts, done = [], 0
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end)):
        if hit.start >= done:
            parts += [text[done : hit.start], REDACTED]
        done = max(done, hit.end)
    return "".join([*parts, text[done:]])


def strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with its dotted path, keys of objects too (under the object's path)."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield path, key
            yield from strings(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from strings(item, f"{path}.{place}" if path else str(place))


def _lower(text: str) -> str:
    """``text`` in lower case, of the same length: a few letters beyond ASCII have a longer one."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(character.lower() if character.isascii() else character for character in text)


def _found(rule: Rule, text: str, lower: str) -> Iterator[Hit]:
    searched, place = lower if rule.fold else text, 0
    while match := rule.pattern.search(searched, place):
        if rule.accepts(Found(match, text)):
            place = match.end()
            if rule.rest and (more := rule.rest.match(searched, place)):
                place = more.end()
            yield Hit(rule.name, match.start() - rule.before, place)
        else:
            # What is meant may begin inside of what was not.
            place = match.start() + 1
