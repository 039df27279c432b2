"""Finding by whatever somebody has in hand: an id, the short form of one, a hash, a reference, a connector."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from itertools import chain
from operator import or_

from django.db.models import Q, QuerySet

from evidence.documents import CONNECTOR_DELIVERY, DELIVERY_PLAN, KINDS, Kind
from evidence.domain import records, text
from evidence.models import Case, Connector, Record, RecordKey

LIMIT = 20
# Records that are looked through for hits: many may lead to the same case.
RECORDS_READ = 200

CASE, RECORD, CONNECTOR = "case", "record", "connector"

# Digits of an id as a chip shows them or somebody typed them off; of cases and attempts with the connector.
_SHORT_ID = re.compile(r"([0-9a-f]{8,16})(?:\.([a-z0-9_]{1,40}))?")
_HASH_PREFIX = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class Hit:
    """One thing that was found: ``what`` it is (case, record or connector), its full id, and since when.

    ``kind`` and ``record_id`` name the record that led to it, if one did; ``state`` is a case's.
    """

    what: str
    id: str
    at: datetime | None = None
    state: str = ""
    kind: str = ""
    record_id: str = ""


def find(given: str) -> list[Hit]:
    """At most ``LIMIT`` hits; empty when nothing bears that name.

    What has ``given`` as its own id comes before what names it, and short forms are tried last. A record that
    names exactly one case leads to the case. Raises ``InvalidInput`` for what no name can hold.
    """
    sought = text.clean(given, field="q", limit=text.MAX_REFERENCE).casefold()
    if not sought:
        return []
    for ways in _WAYS:
        found: dict[tuple[str, str], Hit] = {}
        for hit in chain.from_iterable(way(sought) for way in ways):
            found.setdefault((hit.what, hit.id), hit)
        if found:
            return list(found.values())[:LIMIT]
    return []


def _connector(sought: str) -> Iterator[Hit]:
    if Connector.objects.filter(key=sought).exists():
        yield Hit(CONNECTOR, sought)


def _cases_of(sought: str) -> Iterator[Hit]:
    """The case of this id or of this attempt, the cases of this delivery or audit package."""
    for where in (
        Q(case_id=sought),
        Q(attempts__attempt_id=sought),
        Q(plan__delivery_id=sought),
        Q(package__audit_id=sought),
    ):
        yield from _cases(Case.objects.filter(where))


def _record(sought: str) -> Iterator[Hit]:
    yield from _records(Record.objects.filter(record_id=sought))


def _naming(sought: str) -> Iterator[Hit]:
    """Records that name it: an external reference, a digest, an id that has no record of its own."""
    keys = RecordKey.objects.filter(name=records.ANY, value=records.any_value(sought))
    indexes = keys.order_by("-created_at", "-record").values_list("record", flat=True)
    yield from _records(Record.objects.filter(index__in=list(indexes[:RECORDS_READ])))


def _by_short_id(sought: str) -> Iterator[Hit]:
    """What a chip shows: a case or an attempt with its connector, a record of any kind without."""
    match = _SHORT_ID.fullmatch(sought)
    if match is None:
        return
    digits, key = match.groups()
    if key:
        there = Case.objects.filter(connector__key=key)
        yield from _cases(there.filter(_begins("plan__delivery_id", DELIVERY_PLAN, digits)))
        of_attempts = there.filter(_begins("attempts__attempt_id", CONNECTOR_DELIVERY, digits))
        yield from _cases(of_attempts.distinct())
        return
    yield from _cases(Case.objects.filter(_begins("plan__delivery_id", DELIVERY_PLAN, digits)))
    of_any_kind = reduce(or_, (_begins("record_id", kind, digits) for kind in KINDS.values()))
    yield from _records(Record.objects.filter(of_any_kind))


def _by_hash(sought: str) -> Iterator[Hit]:
    if _HASH_PREFIX.fullmatch(sought):
        ends = (sought.ljust(64, "0"), sought.ljust(64, "f"))
        yield from _records(Record.objects.filter(digest__range=ends))


# Tried in this order, each group only when the one before found nothing.
_WAYS: tuple[tuple[Callable[[str], Iterable[Hit]], ...], ...] = (
    (_connector, _cases_of, _record),
    (_naming,),
    (_by_short_id, _by_hash),
)


def _begins(column: str, kind: Kind, digits: str) -> Q:
    """Ids of ``kind`` that begin with ``digits``, as a range of the index; "g" is behind every hex digit."""
    start = f"{kind.prefix}-{digits}"
    return Q(**{f"{column}__gte": start, f"{column}__lt": f"{start}g"})


def _cases(found: "QuerySet[Case]") -> Iterator[Hit]:
    rows = found.order_by("-created_at", "-pk").values_list("case_id", "created_at", "state")
    return (Hit(CASE, case_id, at, state) for case_id, at, state in rows[:LIMIT])


def _records(found: "QuerySet[Record]") -> Iterator[Hit]:
    """A hit for each record, newest first: its one case, else the record itself."""
    # Sorted here: asked for an order, SQLite would walk all records in that order instead of the range.
    rows = sorted(found.defer("body").order_by()[:RECORDS_READ], key=lambda row: -row.index)
    named: dict[int, list[str]] = defaultdict(list)
    keys = RecordKey.objects.filter(record__in=[row.index for row in rows], name="case")
    for index, case_id in keys.values_list("record", "value"):
        named[index].append(case_id)
    alone = {index: cases[0] for index, cases in named.items() if len(cases) == 1}
    states = dict(Case.objects.filter(case_id__in=alone.values()).values_list("case_id", "state"))
    for row in rows:
        case_id = alone.get(row.index, "")
        if case_id in states:
            yield Hit(CASE, case_id, row.created_at, states[case_id], row.kind, row.record_id)
        else:
            yield Hit(RECORD, row.record_id, row.created_at, "", row.kind, row.record_id)
