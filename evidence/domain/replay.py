"""The rows that people work with, held against what the records say of them (P10, P12).

Every state change appends a record, so the rows can be told again from the records alone. Records are folded
in index order: a *rule* for each kind says which columns of which rows it sets. Then every row is read and
compared. Rules and tables are data that each app registers; nothing here knows a kind or a table by name.

No lock is taken. What differs is looked at again together with the records that came meanwhile, until no
newer record speaks of it: a row that just moved is no difference.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import Any, Final

from django.apps import apps
from django.db.models import Q

from evidence.domain import erasures, records
from evidence.domain.differences import Difference, short
from evidence.models import LedgerHead, Record

# Records read at once, and rows.
PAGE = 500
# Subjects looked up at once.
KEYS_PER_QUERY = 300
# Record ids of differences are looked up for so many; the index names the others.
NAMED = 1_000


class _Unknown:
    """What cannot be told: it was said before the first record that was folded, or was erased since."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
# What a column holds whose bytes went with an erased record.
ERASED: Final = "erased"

Key = tuple[Any, ...]
# A column's ORM path, or how its value is made of several of them.
Column = str | tuple[Callable[..., Any], *tuple[str, ...]]


@dataclass(frozen=True)
class Document:
    """One record as rules read it. ``by`` is the actor's person id, empty for the service itself."""

    index: int
    record_id: str
    digest: str
    at: str
    by: str
    cases: Sequence[str]
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """How rows of one model are told apart and compared.

    ``key`` are the ORM paths that name a subject; ``numbered`` rows share them and are told apart by their
    order. ``columns`` maps each column to where its value is read. ``within`` holds a row against itself and
    yields ``(column, expected, found)``; ``besides`` adds values that are read for many rows (by primary key)
    at once. ``only`` leaves out rows that no record speaks of yet.
    ``case`` is the path to the case a row is about; ``erasable`` columns read ``ERASED`` once
    a record of that case was erased. ``whole``: a pass that began in the middle of
    the log cannot say anything about these rows.
    """

    model: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    numbered: bool = False
    within: Callable[[Mapping[str, Any]], Iterable[tuple[str, Any, Any]]] | None = None
    within_paths: tuple[str, ...] = ()
    besides: Callable[[Sequence[Any]], Mapping[Any, Mapping[str, Any]]] | None = None
    case: str = ""
    erasable: tuple[str, ...] = ()
    only: Q = field(default_factory=Q)
    whole: bool = False

    @property
    def name(self) -> str:
        """What a difference calls a row of it."""
        return str(apps.get_model(self.model)._meta.verbose_name)

    def paths(self) -> list[str]:
        """Every ORM path that is read, the primary key first."""
        wanted = ["pk", *self.key, *self.within_paths, *([self.case] if self.case else [])]
        for column in self.columns.values():
            wanted += [column] if isinstance(column, str) else column[1:]
        return list(dict.fromkeys(wanted))

    def rows(self, keys: Iterable[Key] | None = None) -> Iterator["Row"]:
        """Rows in the order of their primary keys; with ``keys`` only those subjects'."""
        if keys is None:
            yield from self._scan(Q())
            return
        wanted = set(keys)
        heads = sorted({key[0] for key in wanted}, key=str)
        for start in range(0, len(heads), KEYS_PER_QUERY):
            there = Q(**{f"{self.key[0]}__in": heads[start : start + KEYS_PER_QUERY]})
            yield from (row for row in self._scan(there) if row.key in wanted)

    def _scan(self, there: Q) -> Iterator["Row"]:
        paths, seen = self.paths(), Counter[Key]()
        found = apps.get_model(self.model)._base_manager.filter(self.only, there).order_by("pk")
        last: Any = None
        while True:
            page = list(
                (found if last is None else found.filter(pk__gt=last)).values_list(*paths, named=False)[:PAGE]
            )
            if not page:
                return
            last = page[-1][0]
            more = self.besides([values[0] for values in page]) if self.besides else {}
            for values in page:
                read = dict(zip(paths, values, strict=True))
                key = tuple(read[path] for path in self.key)
                if self.numbered:
                    seen[key] += 1
                    key = (*key, seen[key])
                yield self._row(key, read, more.get(values[0], {}))

    def _row(self, key: Key, read: Mapping[str, Any], more: Mapping[str, Any]) -> "Row":
        found = {
            name: plain(read[column])
            if isinstance(column, str)
            else column[0](*(read[p] for p in column[1:]))
            for name, column in self.columns.items()
        }
        own = tuple(self.within(read)) if self.within else ()
        return Row(key, {**found, **more}, own, read[self.case] if self.case else "")


@dataclass(frozen=True)
class Row:
    """A stored row as it is compared."""

    key: Key
    found: Mapping[str, Any]
    own: Sequence[tuple[str, Any, Any]]
    case: str


def plain(value: Any) -> Any:
    """A column's value as documents write it: times as text, nothing as an empty text."""
    if value is None:
        return ""
    return records.timestamp(value) if isinstance(value, datetime) else value


class Said:
    """What was said of one row: its columns as it came into being, and those that changed since.

    Kept small, there is one for each row of the product: names are shared, short values are too.
    """

    __slots__ = ("changed", "index", "names", "touched", "values")

    def __init__(self, index: int, columns: Mapping[str, Any]) -> None:
        self.index = self.touched = index
        self.names = _shared_names(tuple(columns))
        self.values = tuple(_shared(value) for value in columns.values())
        self.changed: dict[str, tuple[Any, int]] | None = None

    def change(self, index: int, columns: Mapping[str, Any]) -> None:
        """These columns are otherwise from this entry on."""
        self.touched = index
        if columns:
            self.changed = self.changed or {}
            self.changed.update({name: (_shared(value), index) for name, value in columns.items()})

    def value(self, column: str) -> Any:
        """What was said last of a column; ``UNKNOWN`` when nobody did."""
        if self.changed and column in self.changed:
            return self.changed[column][0]
        return self.values[self.names.index(column)] if column in self.names else UNKNOWN

    def columns(self) -> Iterator[tuple[str, Any, int]]:
        """Each column with what was said last, and the entry that says so."""
        changed = self.changed or {}
        for name, value in zip(self.names, self.values, strict=True):
            if name not in changed:
                yield name, value, self.index
        for name, (value, index) in changed.items():
            yield name, value, index


_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {}
# Longer ones are hashes and times, of which hardly two are the same.
_SHORT = 28


def _shared_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return _NAMES.setdefault(names, names)


def _shared(value: Any) -> Any:
    return intern(value) if type(value) is str and len(value) <= _SHORT else value


class Fold:
    """What records said of rows so far. ``whole``: from the first one on.

    Rules call ``opens`` for a row that came into being and ``says`` for columns that changed; ``value`` is what
    was said last. ``notes`` is what rules remember from one record to the next.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.index = 0
        self.notes: dict[Any, Any] = {}
        self.erased: list[Erased] = []
        self._said: dict[str, dict[Key, Said]] = defaultdict(dict)

    def opens(self, table: str, key: Any, **columns: Any) -> None:
        """A row came into being with these columns."""
        key = _key(key)
        if UNKNOWN not in key:
            self._said[table][key] = Said(self.index, columns)

    def says(self, table: str, key: Any, **columns: Any) -> None:
        """These columns of a row changed. A subject that cannot be told is left alone."""
        said = self._said[table].get(_key(key))
        if said is None:
            self.opens(table, key, **columns)
        else:
            said.change(self.index, columns)

    def value(self, table: str, key: Any, column: str) -> Any:
        """What was said last of a column; ``UNKNOWN`` when nobody did."""
        said = self._said[table].get(_key(key))
        return said.value(column) if said else UNKNOWN

    def knows(self, table: str, key: Any) -> bool:
        """Whether anything was said of this row."""
        return _key(key) in self._said[table]

    def subjects(self, table: str) -> Mapping[Key, Said]:
        """Everything that was said of a table's rows."""
        return self._said[table]

    def touched(self, table: str, key: Key) -> int:
        """The newest entry that speaks of a row; -1 when none does."""
        said = self._said[table].get(key)
        return said.touched if said else -1

    def count(self, *name: Any) -> Any:
        """The next number under ``name``, from 1; ``UNKNOWN`` when the fold began in the middle."""
        if not self.whole:
            return UNKNOWN
        self.notes[name] = self.notes.get(name, 0) + 1
        return self.notes[name]

    def counted(self, *name: Any) -> Any:
        """The newest number under ``name``; ``UNKNOWN`` before the first."""
        return self.notes.get(name, UNKNOWN)


@dataclass(frozen=True)
class Erased:
    """A record that says nothing any more: its body is gone or cannot be read."""

    index: int
    kind: str
    cases: frozenset[str]


def _key(key: Any) -> Key:
    return key if isinstance(key, tuple) else (key,)


Apply = Callable[[Fold, Document], None]
# Called now and then; what it raises ends the replay.
Beat = Callable[[], None]


@dataclass(frozen=True)
class Rule:
    """What a kind of record says, and of which tables."""

    tables: tuple[str, ...]
    apply: Apply


TABLES: dict[str, Table] = {}
RULES: dict[str, Rule] = {}
# Columns no record can speak of, with the reason for each: model → column → reason.
NOT_EVIDENCE: dict[str, dict[str, str]] = {}
# Kinds of records that set no column of a row, with the reason for each.
SILENT: dict[str, str] = {}
# Configuration whose records say that it changed and hold no values, so that rows cannot be held against them.
UNTOLD: set[str] = set()


def register(
    *,
    tables: Iterable[Table],
    rules: Mapping[str, Rule],
    not_evidence: Mapping[str, Mapping[str, str]],
    silent: Mapping[str, str],
    untold: Iterable[str],
) -> None:
    """Add an app's tables and rules; each app does so once when it is ready."""
    TABLES.update({table.model: table for table in tables})
    RULES.update(rules)
    NOT_EVIDENCE.update({model: dict(columns) for model, columns in not_evidence.items()})
    SILENT.update(silent)
    UNTOLD.update(untold)


def untold() -> list[str]:
    """Rows that no replay compares, as people call them."""
    return sorted(str(apps.get_model(model)._meta.verbose_name_plural) for model in UNTOLD)


@dataclass
class Outcome:
    """How far a replay went and what it could not judge."""

    rows: int = 0
    unjudged: int = 0
    skipped: list[str] = field(default_factory=list)


def differences(
    size: int, *, since: int = 0, beat: Beat = lambda: None, outcome: Outcome | None = None
) -> Iterator[Difference]:
    """Fold the records from ``since`` to before ``size`` and yield every way in which the rows differ.

    From 0 on that is all of it, rows without a record too. From anywhere else only columns are compared that
    the folded records set. ``beat`` is called after each page.
    """
    yield from compare(folded(size, since=since, beat=beat), size, beat=beat, outcome=outcome)


def folded(size: int, *, since: int = 0, beat: Beat = lambda: None) -> Fold:
    """Everything that the records from ``since`` to before ``size`` say."""
    fold = Fold(whole=since == 0)
    _advance(fold, since, size, beat)
    return fold


def compare(
    fold: Fold,
    size: int,
    models: Iterable[str] | None = None,
    *,
    beat: Beat = lambda: None,
    outcome: Outcome | None = None,
) -> Iterator[Difference]:
    """Hold the rows of ``models`` (all of them) against what the first ``size`` records say."""
    outcome = outcome or Outcome()
    suspects: set[tuple[str, Key]] = set()
    for table in [TABLES[model] for model in (TABLES if models is None else models)]:
        if table.whole and not fold.whole:
            outcome.skipped.append(table.name)
            continue
        missing = set(fold.subjects(table.model))
        for place, row in enumerate(table.rows(None if fold.whole else list(missing)), start=1):
            missing.discard(row.key)
            outcome.rows += 1
            if next(_wrong(table, fold, row.key, row), None):
                suspects.add((table.model, row.key))
            if place % PAGE == 0:
                beat()
        suspects |= {(table.model, key) for key in missing}
    yield from _confirmed(fold, size, suspects, beat, outcome)


def _advance(fold: Fold, start: int, stop: int, beat: Beat) -> None:
    """Fold the records from ``start`` to before ``stop``."""
    kinds = list(RULES)
    for first in range(start, stop, PAGE):
        found = Record.objects.filter(index__gte=first, index__lt=min(first + PAGE, stop), kind__in=kinds)
        for record in found.order_by("index"):
            fold.index = record.index
            _apply(fold, record)
        beat()


def _apply(fold: Fold, record: Record) -> None:
    """What one record says. One that cannot be read says nothing; the pass over the entries names it."""
    try:
        if record.body is None:
            raise LookupError
        said = records.load(record.body)
        document = Document(
            index=record.index,
            record_id=record.record_id,
            digest=record.digest,
            at=records.timestamp(record.created_at),
            by=said["actor"]["person_id"],
            cases=said["cases"],
            payload=said["payload"],
        )
        RULES[record.kind].apply(fold, document)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        # The cases that it names or was sent for; its body does not tell any more.
        about = erasures.cases_about([record])[record.index]
        fold.erased.append(Erased(record.index, record.kind, frozenset(about)))


def _confirmed(
    fold: Fold,
    size: int,
    suspects: set[tuple[str, Key]],
    beat: Beat,
    outcome: Outcome,
) -> Iterator[Difference]:
    """Look at ``suspects`` again with every record that came meanwhile; what still differs does."""
    named: dict[int, str] = {}
    while suspects:
        before = _size()
        _advance(fold, size, before, beat)
        wrong: dict[tuple[str, Key], list[tuple[str, Any, Any, int | None]]] = {}
        by_table: dict[str, list[Key]] = defaultdict(list)
        for model, key in sorted(suspects, key=str):
            by_table[model].append(key)
        for model, keys in by_table.items():
            table = TABLES[model]
            rows = {row.key: row for row in table.rows(keys)}
            for key in keys:
                wrong[model, key] = list(_wrong(table, fold, key, rows.get(key), outcome))
        size = _size()
        _advance(fold, before, size, beat)
        grew = size > before
        moving = {suspect for suspect in suspects if grew and fold.touched(*suspect) >= before}
        settled = [
            (index, model, key, column, expected, found)
            for (model, key), differing in wrong.items()
            if (model, key) not in moving
            for column, expected, found, index in differing
        ]
        # In the order of the log, and last what no record speaks of.
        for index, model, key, column, expected, found in sorted(settled, key=_place):
            subject = f"{TABLES[model].name} {'/'.join(str(part) for part in key)}"
            record_id = _record_id(index, named)
            yield Difference(f"{subject}, {column}", short(expected), short(found), index, record_id)
        suspects = moving


def _place(difference: tuple[int | None, str, Key, str, Any, Any]) -> tuple[bool, int, str, str]:
    index, model, key, *_ = difference
    return index is None, index or 0, model, str(key)


def _wrong(
    table: Table, fold: Fold, key: Key, row: Row | None, outcome: Outcome | None = None
) -> Iterator[tuple[str, Any, Any, int | None]]:
    """``(column, expected, found, entry that says so)`` of everything in which a row is not as was said."""
    for column, expected, found, index in _compared(table, fold, key, row):
        gone = column in table.erasable and found == ERASED
        if any(_may_speak(erased, table, row, index, gone=gone) for erased in fold.erased):
            # Somebody erased what would say so.
            if outcome:
                outcome.unjudged += 1
            continue
        yield column, expected, found, index


def _compared(
    table: Table, fold: Fold, key: Key, row: Row | None
) -> Iterator[tuple[str, Any, Any, int | None]]:
    said = fold.subjects(table.model).get(key)
    if said is None:
        yield "record", "one that speaks of it", "none", None
        return
    newest = fold.touched(table.model, key)
    if row is None:
        yield "row", "one", "none", newest
        return
    for column, expected, index in said.columns():
        if expected is not UNKNOWN and column in row.found and row.found[column] != expected:
            yield column, expected, row.found[column], index
    for column, expected, found in row.own:
        if expected != found:
            yield column, expected, found, newest


def _may_speak(
    erased: Erased, table: Table, row: Row | None, index: int | None, *, gone: bool = False
) -> bool:
    """Whether an erased record may have said what is missing here, or took along what is ``gone``."""
    if gone:
        return row is not None and row.case in erased.cases
    if table.model not in RULES[erased.kind].tables or (index is not None and erased.index < index):
        return False
    return not (row and row.case and erased.cases) or row.case in erased.cases


def _record_id(index: int | None, named: dict[int, str]) -> str:
    if index is None or (index not in named and len(named) >= NAMED):
        return ""
    if index not in named:
        found = Record.objects.filter(index=index).values_list("record_id", flat=True).first()
        named[index] = found or ""
    return named[index]


def _size() -> int:
    return LedgerHead.objects.values_list("size", flat=True).first() or 0
