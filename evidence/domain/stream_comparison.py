"""Does a receiver have everything? Its export held against a connector's stream, place by place.

Memory does not grow with either side: what the file holds is sorted in a temporary database on disk, and both
sides are then read once in the order of their places.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

import rfc8785

from evidence.domain import checkpoints, events, heads, reading, records, stream_files
from evidence.domain.notes import Head
from evidence.domain.stream_files import Held
from evidence.enums import CaseState
from evidence.errors import Conflict, InvalidInput
from evidence.models import Case, Connector, StreamHead

AT_ONCE = 500


class What(StrEnum):
    """How the two sides differ: at a place, or (``HEAD``) in what the log was when an event was made."""

    MISSING = "missing"
    EXTRA = "extra"
    ALTERED = "altered"
    REPEATED = "repeated"
    CHAIN = "chain"
    HEAD = "head"


@dataclass(frozen=True)
class Finding:
    """One thing to know about place ``seq`` (0: no place); ``line`` is the first of the file that shows it.

    ``differs`` is false for what needs no explanation: a repeat of what was sent that often.
    """

    what: What
    seq: int
    sentence: str
    case: str = ""
    state: str = ""
    line: int = 0
    differs: bool = True


@dataclass
class Summary:
    """What a comparison came to, complete once its findings were read.

    ``others`` are objects of the file that are no events of this connector's stream. ``head`` is the newest head
    of the log that the file holds: something held outside, to verify the log against.
    """

    connector: str
    first: int
    last: int
    events: int = 0
    others: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    differences: int = 0
    head: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the file holds every event from ``first`` to ``last`` unaltered, and nothing else."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Plain form, every count there."""
        counts = {what.value: self.counts[what.value] for what in What}
        return {**asdict(self), "counts": counts, "complete": self.complete}


@dataclass(frozen=True)
class _Event:
    """One event of the file: the place it says or is known by, and the digest of what it holds."""

    seq: int
    digest: str
    line: int
    previous: str = ""
    origin: str = ""
    size: int = 0
    root: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Copies:
    """The same event, as often as the file holds it."""

    seq: int
    digest: str
    copies: int
    line: int
    previous: str
    origin: str
    note: str


class Comparison:
    """Reads ``lines`` of a receiver's export and compares them with places ``first`` to ``last`` of a stream.

    ``last`` None is the newest place. Making one reads the whole file; ``InvalidInput`` when it cannot be read, or
    is not empty and holds no event of ours at all.
    """

    def __init__(
        self, connector: Connector, lines: Iterable[bytes], *, first: int = 1, last: int | None = None
    ) -> None:
        self.connector = connector
        head = StreamHead.objects.filter(connector=connector).first()
        self.end, self.end_digest = (head.seq, head.digest) if head else (0, "")
        self.summary = Summary(connector.key, first, self.end if last is None else min(last, self.end))
        # An empty name: a private database in a temporary file, gone when it is closed.
        self.shelf = sqlite3.connect("")
        self.shelf.execute(
            "CREATE TABLE held (seq INTEGER, digest TEXT, line INTEGER, previous TEXT, origin TEXT, size INTEGER, "
            "root TEXT, note TEXT)"
        )
        held = stream_files.held_in(lines)
        while batch := list(islice(held, AT_ONCE)):
            self._shelve(batch)
        if self.summary.others and not self.summary.events:
            raise InvalidInput(
                "The file holds no event of this stream; it should have one JSON object a line, as the receiver got "
                "them or as its search exports them.",
                code="no_events",
            )
        self.shelf.execute("CREATE INDEX held_in_order ON held (seq, digest, line)")

    # --- reading the file ---------------------------------------------------------------------------------------

    def _shelve(self, batch: Sequence[Held]) -> None:
        """Put the events of one batch on the shelf, each under its place."""
        found = [(held.line, held.event) for held in batch if held.event is not None]
        self.summary.others += len(batch) - len(found)
        known = _known_places([event for _, event in found])
        shelved = []
        for line, event in found:
            one = self._placed(line, event, known)
            if one is None:
                self.summary.others += 1
                continue
            self.summary.events += 1
            shelved.append(one)
        ours = {
            case.stream_seq: case
            for case in Case.objects.filter(
                connector=self.connector, stream_seq__in={one.seq for one in shelved}
            ).select_related("plan", "package", "connector")
        }
        for one in shelved:
            self._note_head(one, ours.get(one.seq))
        by_line = dict(found)
        self.shelf.executemany(
            "INSERT INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    one.seq,
                    one.digest,
                    one.line,
                    one.previous,
                    one.origin,
                    one.size,
                    one.root,
                    _what_differs(by_line[one.line], ours.get(one.seq), one.digest),
                )
                for one in shelved
            ],
        )

    def _note_head(self, one: _Event, case: Case | None) -> None:
        """Keep the newest head that the file holds; an altered event's is none."""
        altered = case is not None and case.stream_digest != one.digest
        if one.root and not altered and one.size > self.summary.head.get("size", 0):
            self.summary.head = {"origin": one.origin, "size": one.size, "root": one.root}

    def _placed(
        self, line: int, event: Mapping[str, Any], known: Mapping[str, Mapping[str, int]]
    ) -> _Event | None:
        """An event of this stream with its place; None for one that belongs elsewhere."""
        if event["event_type"] != events.EVENT_TYPE:
            return None
        stream = event.get("stream")
        stream = stream if isinstance(stream, dict) else {}
        if isinstance(named := stream.get("connector"), str) and named != self.connector.key:
            return None
        seq = reading.whole(stream.get("seq"))
        if seq is None:
            # Sent before events had a place, or robbed of it: what it is about says which one it is.
            places = known.get(_id(event.get("session_id")), {})
            if places and self.connector.key not in places:
                return None
            seq = places.get(self.connector.key, 0)
        head = stream.get("head")
        head = head if isinstance(head, dict) else {}
        return _Event(
            seq=seq,
            digest=_digest(event),
            line=line,
            previous=_hash(stream.get("previous")),
            origin=_origin(head.get("origin")),
            size=reading.whole(head.get("size")) or 0,
            root=_hash(head.get("root")),
        )

    # --- comparing --------------------------------------------------------------------------------------------------

    def findings(self) -> Iterator[Finding]:
        """Everything to know, in the order of the places; ``summary`` is complete when they are read."""
        with closing(self.shelf):
            for finding in self._in_order():
                self.summary.counts[finding.what.value] += 1
                self.summary.differences += finding.differs
                yield finding

    def _in_order(self) -> Iterator[Finding]:
        first, last = self.summary.first, self.summary.last
        for nowhere in ((-reading.MAX_WHOLE, 0), (self.end + 1, reading.MAX_WHOLE)):
            for one in self._held(*nowhere):
                yield _extra(one, f"there is no such place in the stream, it ends with {self.end}")
        before = self._digest_before(first)
        expected = first
        quoted: dict[str, _Copies] = {}
        places = Case.objects.filter(connector=self.connector, stream_seq__gte=first, stream_seq__lte=last)
        held = _by_place(self._held(first, last))
        waiting = next(held, None)
        for case in places.order_by("stream_seq").iterator(chunk_size=AT_ONCE):
            while waiting and waiting[0] < case.stream_seq:
                yield from (_extra(one, "the stream has lost this place") for one in waiting[1])
                waiting = next(held, None)
            here: list[_Copies] = []
            if waiting and waiting[0] == case.stream_seq:
                here, waiting = waiting[1], next(held, None)
            yield from _our_chain(case, expected, before)
            yield from _their_chain(here, quoted, case, before)
            yield from _at_place(case, here)
            quoted = {one.digest: one for one in here}
            expected, before = case.stream_seq + 1, case.stream_digest
        while waiting:
            yield from (_extra(one, "the stream has lost this place") for one in waiting[1])
            waiting = next(held, None)
        yield from self._against_head()
        if last == self.end and (expected, before) != (last + 1, self.end_digest) and first <= last:
            yield Finding(
                What.CHAIN,
                last,
                f"the stream's own end is not what its head says, place {last}: verify the ledger",
            )

    def _against_head(self) -> Iterator[Finding]:
        """Whether the log still begins with what the receiver holds a head of: it is out of our reach."""
        if not self.summary.head:
            return
        held = self.summary.head
        verdict, sentence = checkpoints.verdict(
            Head(held["origin"], held["size"], bytes.fromhex(held["root"]))
        )
        if verdict != heads.EXTENDS:
            yield Finding(What.HEAD, 0, f"the newest head in the file: {sentence} Verify the ledger")

    def _digest_before(self, first: int) -> str:
        """What the event at ``first`` has to quote."""
        before = Case.objects.filter(connector=self.connector, stream_seq=first - 1)
        return before.values_list("stream_digest", flat=True).first() or ""

    def _held(self, first: int, last: int) -> Iterator[_Copies]:
        """What the shelf has from place ``first`` to ``last``, each event once, in their order."""
        rows = self.shelf.execute(
            "SELECT seq, digest, count(*), min(line), previous, origin, max(note) FROM held "
            "WHERE seq BETWEEN ? AND ? GROUP BY seq, digest ORDER BY seq, min(line)",
            (first, last),
        )
        return (_Copies(*row) for row in rows)


def _by_place(copies: Iterable[_Copies]) -> Iterator[tuple[int, list[_Copies]]]:
    """The copies of each place together."""
    together: list[_Copies] = []
    for one in copies:
        if together and one.seq != together[0].seq:
            yield together[0].seq, together
            together = []
        together.append(one)
    if together:
        yield together[0].seq, together


def _known_places(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """For events that say no place: by delivery plan, each connector's place of it."""
    plans = {_id(event.get("session_id")) for event in found if not isinstance(event.get("stream"), dict)}
    known: dict[str, dict[str, int]] = {}
    if plans:
        rows = Case.objects.filter(plan__delivery_id__in=plans)
        for plan, key, seq in rows.values_list("plan__delivery_id", "connector__key", "stream_seq"):
            known.setdefault(plan, {})[key] = seq
    return known


# What a file says is not trusted to be text that a database takes and a terminal shows.
_ID = re.compile(r"[A-Za-z0-9._-]{1,60}")
_HASH = re.compile(r"[0-9a-f]{64}")


def _id(value: Any) -> str:
    return value if isinstance(value, str) and _ID.fullmatch(value) else ""


def _hash(value: Any) -> str:
    return value if isinstance(value, str) and _HASH.fullmatch(value) else ""


def _origin(value: Any) -> str:
    if not value:
        return ""
    return value[:200] if isinstance(value, str) and value.isprintable() else "unreadable"


def _digest(event: Mapping[str, Any]) -> str:
    """The event's digest; empty when it has no canonical form, which no event of ours is without."""
    try:
        return events.digest(event)
    except (rfc8785.CanonicalizationError, RecursionError, UnicodeEncodeError):
        return ""


def _what_differs(event: Mapping[str, Any], case: Case | None, digest: str) -> str:
    """Names of the fields in which an event is not what was sent; empty when it is, or nobody can tell any more."""
    if case is None or case.stream_digest == digest:
        return ""
    try:
        sent = events.event_for(case)
    except Conflict:  # erased
        return ""
    names = sorted(name for name in sent if name not in event or sent[name] != event[name])
    return ", ".join([*names, *(["further fields"] if event.keys() - sent.keys() else [])])


def _extra(one: _Copies, why: str) -> Finding:
    return Finding(What.EXTRA, max(one.seq, 0), why, line=one.line)


def _at_place(case: Case, here: Sequence[_Copies]) -> Iterator[Finding]:
    """What the file holds at the place of ``case``."""
    about: dict[str, Any] = {"case": case.case_id, "state": case.state}
    right = [one for one in here if one.digest == case.stream_digest]
    lost = [
        one for one in here if one.digest != case.stream_digest and one.origin not in ("", case.head_origin)
    ]
    wrong = [one for one in here if one not in right and one not in lost]
    if not right and not wrong:
        yield Finding(What.MISSING, case.stream_seq, _why_missing(case), **about)
    for one in lost:
        yield _extra(
            one, f"sent from another log, {one.origin}: its end was lost before this place was given anew"
        )
    for one in wrong:
        fields = f" in {one.note}" if one.note else ""
        yield Finding(
            What.ALTERED, case.stream_seq, f"is not what was sent: differs{fields}", line=one.line, **about
        )
    for one in right:
        # A try under way is counted when it ends.
        tries = case.counted_attempts + (case.state == CaseState.SENDING)
        if one.copies > 1:
            yield Finding(
                What.REPEATED,
                case.stream_seq,
                f"is there {one.copies} times and was sent {tries} time{'' if tries == 1 else 's'}",
                line=one.line,
                differs=one.copies > tries,
                **about,
            )


def _why_missing(case: Case) -> str:
    """What we know of an event that the receiver has not."""
    tries = f"{case.attempt_count} attempt{'' if case.attempt_count == 1 else 's'}"
    if case.state == CaseState.DELIVERED:
        at = records.timestamp(case.settled_at) if case.settled_at else "some time"
        return f"delivered according to this console, at {at} after {tries}"
    return {
        CaseState.PARKED: "not sent yet: its connector is held back",
        CaseState.FAILED: f"never delivered: {tries} failed",
        CaseState.UNKNOWN: f"unknown whether it arrived, after {tries}",
        CaseState.SENDING: "being sent right now",
        CaseState.SUPERSEDED: f"never delivered in {tries}: another delivery took its place by two persons' word",
        CaseState.ABANDONED: f"never delivered in {tries}: given up by two persons' word",
    }[CaseState(case.state)]


def _our_chain(case: Case, expected: int, before: str) -> Iterator[Finding]:
    """Whether our own places follow each other."""
    if case.stream_seq != expected:
        yield Finding(
            What.CHAIN,
            expected,
            f"the stream has lost places {expected} to {case.stream_seq - 1}: verify the ledger",
        )
    elif case.stream_prev != before:
        yield Finding(
            What.CHAIN,
            case.stream_seq,
            f"the stream itself does not quote place {case.stream_seq - 1} as it is: verify the ledger",
            case=case.case_id,
            state=case.state,
        )


def _their_chain(
    here: Sequence[_Copies], quoted: Mapping[str, _Copies], case: Case, before: str
) -> Iterator[Finding]:
    """Whether the file's events quote each other; one that was altered is told from outside by the next one."""
    for one in here:
        if not quoted or not one.previous or one.previous in quoted:
            continue
        ours = "as it was sent" if one.previous == before else "as neither side has it"
        yield Finding(
            What.CHAIN,
            one.seq,
            f"quotes place {one.seq - 1} {ours}, and not as the file holds it",
            case=case.case_id,
            state=case.state,
            line=one.line,
        )
