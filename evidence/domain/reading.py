"""Reads other people's JSON key by key and names everything that is wrong with it at once.

Used for files and for objects inside a body whose shape is the reference's (CONTRACT §1.5, §2).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from evidence.domain.text import MAX_NAME, clean, connector_key
from evidence.errors import InvalidInput

MAX_ITEMS = 200
# Beyond it two numbers look alike to a reader that works with doubles (RFC 7493, section 2.2).
MAX_WHOLE = 2**53 - 1

Errors = dict[str, list[str]]


def parse(data: bytes) -> Any:
    """The value of a JSON text in UTF-8 (RFC 8259), I-JSON rules applied (RFC 7493): no duplicate keys, no NaN.

    Raises ``InvalidInput`` with the place of the fault.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"Not UTF-8 at byte {error.start}.", code="not_json") from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"Not JSON: line {error.lineno}, column {error.colno}: {error.msg}.", code="not_json"
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
        raise InvalidInput("Not JSON: nested too deep or a number too long.", code="not_json") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInput(
                f"Not JSON as agreed: one object has the key {_shown(name)} twice.", code="not_json"
            )
        found[name] = value
    return found


def _refuse(name: str) -> Any:
    raise InvalidInput(f"Not JSON: {name} is no number.", code="not_json")


def whole(value: Any) -> int | None:
    """A JSON number without a fraction as an integer, ``2.0`` too; None for anything else and beyond 2^53 - 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if not isinstance(value, int) and not math.isfinite(value):
        return None
    return int(value) if -MAX_WHOLE <= value <= MAX_WHOLE and value == int(value) else None


class Reader:
    """One JSON object; each method reads one key and notes what is wrong under its dotted path.

    Of several names the first one given counts, two at once are a fault. Null is the same as absent. A bad
    value reads as the default, so that reading goes on to the end; ``finish`` then refuses all faults together.
    """

    def __init__(self, data: Any, path: str = "", errors: Errors | None = None) -> None:
        self.path = path
        self.errors: Errors = {} if errors is None else errors
        self.seen: set[str] = set()
        self.inner: list[Reader] = []
        self.broken = not isinstance(data, Mapping)
        if self.broken:
            self.errors.setdefault(path or "file", []).append("Must be an object.")
            data = {}
        self.names = list(data)
        self.data: dict[str, Any] = {name: value for name, value in data.items() if value is not None}

    def at(self, name: str) -> str:
        """Dotted path of ``name`` inside this object."""
        return ".".join(part for part in (self.path, name) if part)

    def fault(self, name: str, sentence: str) -> None:
        """Note that ``name`` is wrong. What is missing in something that is no object is no further news."""
        if self.broken:
            return
        self.errors.setdefault(self.at(name) or "file", []).append(sentence)

    def finish(self, detail: str) -> None:
        """Raise ``InvalidInput`` with every fault noted so far; nothing when there is none."""
        if self.errors:
            raise InvalidInput(detail, errors=self.errors)

    def has(self, *names: str) -> bool:
        """Whether one of the names is given."""
        return any(name in self.data for name in names)

    def ignored(self) -> list[str]:
        """Paths of the keys that nobody read, here and in the objects below."""
        own = [self.at(_shown(name)) for name in self.names if name not in self.seen]
        return [*own, *(path for reader in self.inner for path in reader.ignored())]

    def take(self, *names: str) -> tuple[str, Any]:
        """The name that is given and its raw value, None when there is none."""
        self.seen.update(names)
        given = [name for name in names if name in self.data]
        if len(given) > 1:
            self.fault(given[1], f"Says the same as {given[0]}; give one of them.")
        return (given[0], self.data[given[0]]) if given else (names[0], None)

    def text(self, *names: str, limit: int, required: bool = False) -> str:
        """A clean text of at most ``limit`` characters, empty when absent."""
        name, value = self.take(*names)
        cleaned = "" if value is None else self._clean(name, value, limit)
        if required and not cleaned and self.at(name) not in self.errors:
            self.fault(name, "Is required.")
        return cleaned

    def integer(self, *names: str, low: int, high: int, required: bool = False) -> int | None:
        """A whole number from ``low`` to ``high``, None when absent."""
        name, value = self.take(*names)
        if value is None:
            if required:
                self.fault(name, "Is required.")
            return None
        number = whole(value)
        if number is None or not low <= number <= high:
            self.fault(name, f"Must be a whole number from {low} to {high}.")
            return None
        return number

    def seconds(self, *names: str, low: float, high: float) -> int | None:
        """A time in seconds, from ``low`` to ``high``, as whole milliseconds; None when absent."""
        name, value = self.take(*names)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.fault(name, f"Must be a number of seconds from {low:g} to {high:g}.")
            return None
        return round(value * 1000)

    def flag(self, name: str, *, default: bool) -> bool:
        """A JSON boolean."""
        _, value = self.take(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.fault(name, "Must be true or false.")
        return default

    def moment(self, name: str) -> datetime | None:
        """A required time in ISO 8601 with an offset, in UTC; None only when it is missing or wrong."""
        _, value = self.take(name)
        if value is None:
            self.fault(name, "Is required.")
            return None
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        self.fault(name, "Must be a time with an offset, like 2026-06-20T15:40:00+00:00.")
        return None

    def span(self) -> tuple[datetime, datetime] | None:
        """``start_at`` and a later ``end_at`` of this object; None when either is missing or wrong."""
        start, end = self.moment("start_at"), self.moment("end_at")
        if start is None or end is None:
            return None
        if end <= start:
            self.fault("end_at", "Must be later than start_at.")
            return None
        return start, end

    def texts(self, *names: str, limit: int = MAX_NAME, key: bool = False) -> list[str]:
        """A list of texts without repetition, connector keys in their one form with ``key``; empty when absent."""
        name, value = self.take(*names)
        found: dict[str, None] = {}
        for place, item in self._items(name, value):
            cleaned = self.key(place, item) if key else self._clean(place, item, limit)
            if cleaned:
                found[cleaned] = None
            elif self.at(place) not in self.errors:
                self.fault(place, "Must not be empty.")
        return list(found)

    def objects(self, *names: str) -> list["Reader"]:
        """A list of objects; empty when absent."""
        return self.each(*self.take(*names))

    def each(self, name: str, value: Any) -> list["Reader"]:
        """A reader for each object of a list that stands at ``name``."""
        return [self.inside(place, item) for place, item in self._items(name, value)]

    def named(self, *names: str, limit: int = MAX_NAME) -> Iterator[tuple[str, str, Any]]:
        """Path below this object, clean name and raw value of each member of an object; nothing when absent."""
        name, value = self.take(*names)
        if value is None:
            return
        if not isinstance(value, Mapping):
            self.fault(name, "Must be an object.")
            return
        if len(value) > MAX_ITEMS:
            self.fault(name, f"Has {len(value)} members; {MAX_ITEMS} are allowed.")
            return
        taken: set[str] = set()
        for raw, item in value.items():
            place = f"{name}.{_shown(raw)}"
            cleaned = self._clean(place, raw, limit)
            if not cleaned or cleaned in taken:
                self.fault(place, "Must be a name that stands here once.")
                continue
            taken.add(cleaned)
            yield place, cleaned, item

    def inside(self, name: str, data: Any) -> "Reader":
        """A reader for an object below this one; its faults are noted here too."""
        reader = Reader(data, self.at(name), self.errors)
        self.inner.append(reader)
        return reader

    def key(self, name: str, value: Any) -> str:
        """A connector key that stands at ``name``, in its one form; empty when it is none."""
        if not isinstance(value, str):
            self.fault(name, "Must be a text.")
            return ""
        return self._refusing(name, lambda: connector_key(value, field=name))

    def _items(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if value is None:
            return
        if not isinstance(value, list):
            self.fault(name, "Must be a list.")
        elif len(value) > MAX_ITEMS:
            self.fault(name, f"Has {len(value)} items; {MAX_ITEMS} are allowed.")
        else:
            yield from ((f"{name}.{place}", item) for place, item in enumerate(value))

    def _clean(self, name: str, value: Any, limit: int) -> str:
        if not isinstance(value, str):
            self.fault(name, "Must be a text.")
            return ""
        return self._refusing(name, lambda: clean(value, field=name, limit=limit))

    def _refusing(self, name: str, read: Callable[[], str]) -> str:
        try:
            return read()
        except InvalidInput as error:
            for sentence in error.errors.get(name, [error.detail]):
                self.fault(name, sentence)
            return ""


def _shown(name: str) -> str:
    """A key as part of a path: printable ASCII and short, whatever was sent."""
    return ascii(name)[1:-1][:80]
