"""History: records found by their search keys, newest first (DESIGN §5, P15).

One filter is one range of ``RecordKey``'s primary key (name, value, created_at, record), read backwards.
Of several filters the rarest is walked and the others are probed by that same key, so a page costs what
its rarest filter costs. The number of queries does not depend on the number of records.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from django.db import connection, models

from evidence.documents import KINDS
from evidence.domain import erasures, records
from evidence.errors import InvalidInput, NotFound
from evidence.models import CaseLink, LedgerHead, Record, RecordKey

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_OFFSET = 10_000
# Up to here a total is a number, beyond it only "more than".
EXACT_UP_TO = 10_000

DEFAULT_HISTORY = ("history", "default")

# Filters that also find the record whose own id is looked for (CONTRACT §9).
_OWN_ID = frozenset({"delivery_id"})

_KEYS = RecordKey._meta.db_table
_RECORDS = Record._meta.db_table
_HASH_PREFIX = re.compile(r"[0-9a-f]{8,64}")
_CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00)/(\d{1,18})")


@dataclass(frozen=True)
class Query:
    """What is looked for; everything given has to hold.

    ``keys`` are (search key, value) pairs, ``q`` is any id, reference or the first eight or more digits of a
    record's hash. The times are half open: from ``created_after`` on, before ``created_before``. Without
    ``everything`` the history shows the contract's kinds and whichever kind the query names.
    """

    keys: tuple[tuple[str, str], ...] = ()
    q: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    everything: bool = False

    def having(self, name: str, value: str) -> "Query":
        """This query, narrowed to records with ``value`` under the search key ``name``."""
        return replace(self, keys=(*self.keys, (name, value)))

    def without(self, name: str) -> "Query":
        """This query without the filter ``name``: a search key, ``q``, ``created_after`` or ``created_before``."""
        blank: dict[str, Any] = {"q": "", "created_after": None, "created_before": None}
        if name in blank:
            return replace(self, **{name: blank[name]})
        return replace(self, keys=tuple(key for key in self.keys if key[0] != name))


@dataclass(frozen=True)
class Page:
    """Records of one page in order; ``cursor`` continues after them and is empty at the end."""

    records: list[Record]
    total: int
    total_is_exact: bool
    cursor: str

    @property
    def items(self) -> list[dict[str, Any]]:
        """The records as readers get them."""
        return envelopes(self.records)


@dataclass(frozen=True)
class Place:
    """A record's place in the order: time first, place in the log among equal times."""

    created_at: datetime
    index: int

    @property
    def cursor(self) -> str:
        """An opaque text that ``Place.of`` reads."""
        text = f"{records.timestamp(self.created_at)}/{self.index}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def of(cls, cursor: str) -> "Place":
        """The place a cursor stands for; ``InvalidInput`` when it is none of ours."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
                "ascii"
            )
            if match := _CURSOR.fullmatch(text):
                return cls(datetime.fromisoformat(match[1]), int(match[2]))
        except (binascii.Error, ValueError):
            pass
        raise InvalidInput(
            "This is no cursor of ours.", errors={"cursor": ["Take it from the previous page."]}
        )


# A ``FROM …`` and its parameters.
Part = tuple[str, list[Any]]


@dataclass(frozen=True)
class _Rows:
    """Rows to walk: a table, its column with the place in the log, and a condition on ``d``."""

    table: str
    column: str
    condition: str = "TRUE"
    params: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Search:
    """A query made ready: the rows to walk and the keys to probe for each of them."""

    walk: _Rows
    probes: tuple[tuple[str, str], ...]
    query: Query
    # Probes that the record with this index passes too.
    own: Mapping[tuple[str, str], int] = field(default_factory=dict)
    # Only records whose place in the log is below; None for all there are.
    below: int | None = None
    # How many rows the walk has, as far as counted; None when nobody had to count.
    size: int | None = field(default=None, compare=False)

    @cached_property
    def _where(self) -> tuple[str, list[Any]]:
        conditions, params = [self.walk.condition], list(self.walk.params)
        for sign, moment in ((">=", self.query.created_after), ("<", self.query.created_before)):
            if moment is not None:
                conditions.append(f"d.created_at {sign} %s")
                params.append(_stored(moment))
        if self.below is not None:
            conditions.append(f"d.{self.walk.column} < %s")
            params.append(self.below)
        for key in self.probes:
            # OFFSET 0 keeps PostgreSQL from turning the probe into a join that reads the whole range.
            probe = (
                f"EXISTS (SELECT 1 FROM {_KEYS} p WHERE p.name = %s AND p.value = %s "  # noqa: S608
                f"AND p.created_at = d.created_at AND p.record = d.{self.walk.column} LIMIT 1 OFFSET 0)"
            )
            params += key
            if key in self.own:
                probe = f"({probe} OR d.{self.walk.column} = %s)"
                params.append(self.own[key])
            conditions.append(probe)
        return " AND ".join(conditions), params

    @property
    def part(self) -> Part:
        """The rows that are found, as ``_counts`` takes them."""
        where, params = self._where
        return f"FROM {self.walk.table} d WHERE {where}", params

    @property
    def known_total(self) -> int | None:
        """Number of records found where choosing the walk has counted them already."""
        return self.size if self.size is not None and (not self.probes or not self.size) else None

    def total(self) -> int:
        """Number of records found, counted up to ``EXACT_UP_TO`` + 1."""
        return _counts([self.part])[0] if self.known_total is None else self.known_total

    def page(self, *, after: Place | None, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` records behind ``after`` (or from the newest on), leaving out ``offset``."""
        where, params = self._where
        if after is not None:
            where += f" AND (d.created_at, d.{self.walk.column}) < (%s, %s)"
            params = [*params, _stored(after.created_at), after.index]
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT d.{self.walk.column} FROM {self.walk.table} d WHERE {where} "  # noqa: S608
                f"ORDER BY d.created_at DESC, d.{self.walk.column} DESC LIMIT %s OFFSET %s",
                [*params, limit, offset],
            )
            indexes = [index for (index,) in cursor.fetchall()]
        found = Record.objects.order_by().in_bulk(indexes)
        return [found[index] for index in indexes]


def page(query: Query, *, limit: int = DEFAULT_LIMIT, offset: int = 0, cursor: str = "") -> Page:
    """One page of what ``query`` finds, newest first.

    ``cursor`` continues a walk: it meets each record once, however many are appended meanwhile. Raises
    ``InvalidInput`` naming ``limit``, ``offset`` or ``cursor`` when it is out of bounds.
    """
    after = bounds(limit, offset, cursor)
    search = _prepare(query)
    total = search.total()
    found = search.page(after=after, offset=offset, limit=limit + 1) if total else []
    more = len(found) > limit
    found = found[:limit]
    return Page(
        records=found,
        total=min(total, EXACT_UP_TO),
        total_is_exact=total <= EXACT_UP_TO,
        cursor=Place(found[-1].created_at, found[-1].index).cursor if more else "",
    )


def relaxed(query: Query) -> list[tuple[str, int]]:
    """For each filter of ``query`` how many records there would be without it: (filter's name, count).

    For a page on which nothing fits: filters in the order they were given, then ``q`` and the times. A count
    above ``EXACT_UP_TO`` means that there are more. The number of queries does not depend on the number of
    filters, beyond those that look a record up by its id or hash.
    """
    names = [*dict.fromkeys(name for name, _ in query.keys)]
    names += [name for name in ("q", "created_after", "created_before") if getattr(query, name)]
    plans = [_plan(query.without(name)) for name in names]
    sizes = iter(_counts([part for plan in plans for part in plan.parts]))
    searches = [plan.chosen([next(sizes) for _ in plan.parts]) for plan in plans]
    totals = iter(_counts([search.part for search in searches if search.known_total is None]))
    counts = (next(totals) if search.known_total is None else search.known_total for search in searches)
    return list(zip(names, counts, strict=True))


def stream(query: Query, *, chunk: int = MAX_LIMIT) -> Iterator[Record]:
    """Everything that ``query`` finds at this moment, newest first, read ``chunk`` records at a time."""
    search = replace(_prepare(query), below=_log_size(), size=None)
    after = None
    while found := search.page(after=after, offset=0, limit=chunk):
        yield from found
        after = Place(found[-1].created_at, found[-1].index)


def bounds(limit: int, offset: int, cursor: str) -> Place | None:
    """Check a page's place and size; returns the place that ``cursor`` stands for."""
    errors = {}
    if not 1 <= limit <= MAX_LIMIT:
        errors["limit"] = [f"Must be from 1 to {MAX_LIMIT}."]
    if not 0 <= offset <= MAX_OFFSET:
        errors["offset"] = [f"Must be from 0 to {MAX_OFFSET}; a cursor reaches further."]
    if cursor and offset:
        errors["cursor"] = ["Give a cursor or an offset, not both."]
    if errors:
        raise InvalidInput("The page asked for is out of bounds.", errors=errors)
    return Place.of(cursor) if cursor else None


def envelope(record: Record) -> dict[str, Any]:
    """A stored record as readers get it; an erased one still says which it was, when, and why it has no body."""
    return envelopes([record])[0]


def envelopes(
    found: Sequence[Record], gone: Mapping[int, erasures.Erased] | None = None
) -> list[dict[str, Any]]:
    """The same for several, in their order; two or three queries when any is erased, else none.

    ``gone`` is what ``erasures.erased`` says about them, for who has asked already.
    """
    gone = erasures.erased(found) if gone is None else gone
    return [_envelope(record, gone.get(record.index)) for record in found]


def _envelope(record: Record, gone: erasures.Erased | None) -> dict[str, Any]:
    shown = records.view(KINDS[record.kind], record.body, record.digest, record.index)
    if gone is not None:
        shown |= {"cases": list(gone.cases), **gone.as_dict()}
        if len(gone.cases) == 1:
            shown["case"] = gone.cases[0]
    return {**shown, "session_id": record.record_id, "created_at": records.timestamp(record.created_at)}


def by_id(record_id: str) -> Record:
    """The record with this id; ``NotFound`` (``record_not_found``) when there is none."""
    record = Record.objects.filter(record_id=record_id).first() if "\0" not in record_id else None
    if record is None:
        raise NotFound("There is no record with this id.", code="record_not_found")
    return record


@dataclass(frozen=True)
class ChainLink:
    """One record of a case, at place ``n`` of the case's own chain."""

    n: int
    record: Record


def chain_of(
    case_id: str, *, after: int = 0, limit: int = MAX_LIMIT, bodies: bool = False
) -> list[ChainLink]:
    """Records of a case in the order of its chain, behind place ``after``; without their bodies unless asked."""
    links = list(
        CaseLink.objects.filter(case_id=case_id, n__gt=after).order_by("n").values_list("n", "index")[:limit]
    )
    rows = Record.objects.order_by() if bodies else Record.objects.order_by().defer("body")
    found = rows.in_bulk([index for _, index in links])
    return [ChainLink(n, found[index]) for n, index in links]


def capped_count(rows: "models.QuerySet[Any]") -> tuple[int, bool]:
    """How many rows there are, up to ``EXACT_UP_TO``, and whether that is all of them."""
    count = rows.order_by()[: EXACT_UP_TO + 1].count()
    return min(count, EXACT_UP_TO), count <= EXACT_UP_TO


@dataclass(frozen=True)
class _Plan:
    """What a query could walk: one search for each key, of which the rarest is chosen, or the only one."""

    searches: tuple[_Search, ...]
    # Keys to probe for each row of the walk, beside the one that is walked.
    keys: tuple[tuple[str, str], ...] = ()

    @property
    def parts(self) -> list[Part]:
        """What has to be counted before choosing; nothing where there is no choice."""
        return [search.part for search in self.searches] if self.keys else []

    def chosen(self, sizes: list[int]) -> _Search:
        """The search to run, given the counts of ``parts``."""
        if not self.keys:
            return self.searches[0]
        size, place = min((size, place) for place, size in enumerate(sizes))
        search = self.searches[place]
        others = tuple(key for key in self.keys if key != search.walk.params)
        return replace(search, probes=others, size=size)


def _prepare(query: Query) -> _Search:
    """Choose what is walked: the rarest of what is asked for."""
    plan = _plan(query)
    return plan.chosen(_counts(plan.parts))


def _plan(query: Query) -> _Plan:
    """Everything that could be walked for ``query``."""
    keys = list(dict.fromkeys(query.keys))
    own = _own(keys)
    # What such a key finds lies in one range that can be walked: every record under all that it names.
    keys += [(records.ANY, records.any_value(value)) for _, value in own]
    if query.q:
        found_by = (records.ANY, records.any_value(query.q))
        prefix = query.q.casefold()
        if _HASH_PREFIX.fullmatch(prefix) and not _exists(found_by):
            # Nothing bears this very name, so it is the beginning of a hash.
            ends = (prefix.ljust(64, "0"), prefix.ljust(64, "f"))
            by_hash = _Rows(_RECORDS, '"index"', "d.digest BETWEEN %s AND %s", ends)
            return _Plan((_Search(by_hash, (*keys, *_default(query)), query, own),))
        keys.append(found_by)
    keys += _default(query)
    if not keys:
        everything = query.created_after is None and query.created_before is None
        size = _log_size() if everything else None
        return _Plan((_Search(_Rows(_RECORDS, '"index"'), (), query, size=size),))
    walked = [key for key in dict.fromkeys(keys) if key not in own]
    searches = (
        _Search(_Rows(_KEYS, "record", "d.name = %s AND d.value = %s", key), (), query, own) for key in walked
    )
    return _Plan(tuple(searches), tuple(keys))


def _own(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Those keys that name a record by its own id which it is not listed under, each with that record's index."""
    found = {}
    for key in keys:
        if key[0] in _OWN_ID:
            record = Record.objects.defer("body").filter(record_id=key[1]).first()
            if record and KINDS[record.kind].id_field not in KINDS[record.kind].keys.get(key[0], ()):
                found[key] = record.index
    return found


def _default(query: Query) -> tuple[tuple[str, str], ...]:
    """The condition of the default history, where the query does not imply or lift it."""
    if query.everything or any(_implies_default(name) for name, _ in query.keys):
        return ()
    return (DEFAULT_HISTORY,)


def _implies_default(name: str) -> bool:
    """Whether what has this search key belongs to the default history, or was asked for by its kind."""
    holders = [
        kind for kind in KINDS.values() if name in kind.keys or any(name == key for key, _ in kind.fixed_keys)
    ]
    return name == "metadata_kind" or (bool(holders) and all(kind.contract for kind in holders))


def _log_size() -> int:
    """Number of records in the log."""
    return LedgerHead.objects.values_list("size", flat=True).first() or 0


def _exists(key: tuple[str, str]) -> bool:
    name, value = key
    return RecordKey.objects.filter(name=name, value=value).exists()


def _counts(parts: list[Part]) -> list[int]:
    """Number of rows of each part, counted up to ``EXACT_UP_TO`` + 1, in one query or none."""
    if not parts:
        return []
    capped = ", ".join(
        f"(SELECT COUNT(*) FROM (SELECT 1 AS one {sql} LIMIT {EXACT_UP_TO + 1}) c)"  # noqa: S608
        for sql, _ in parts
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {capped}", [param for _, params in parts for param in params])
        return list(cursor.fetchone())


def _stored(moment: datetime) -> Any:
    """A time as this database compares it."""
    return connection.ops.adapt_datetimefield_value(moment)
