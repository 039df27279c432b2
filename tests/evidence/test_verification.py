"""``verify_ledger``: what was tampered with is named; what was not is green."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F, Model, Q

from evidence import guards
from evidence.domain import entries, heads, ledger, merkle, records, verification
from evidence.domain.differences import Difference
from evidence.models import (
    CaseLink,
    LedgerHead,
    MerkleNode,
    Record,
    RecordCounter,
    RecordKey,
    SealEntry,
)
from tests.evidence.rows import NOON, append, draft

SOON = NOON + timedelta(days=1)


# Rows are ``test_tamper``'s.
pytestmark = pytest.mark.usefixtures("log_alone")


@pytest.fixture
def log(db: None, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Seven entries in stretches of three, so that every check also works across their borders."""
    monkeypatch.setattr(entries, "STRETCH", 3)
    append(draft("a"))
    append(draft("a", "b"), draft("b", change="deactivated"))
    append(draft())
    append(draft("a", at=SOON), draft("b", "a"))
    return list(Record.objects.order_by("index"))


def report() -> verification.Report:
    return verification.report()


def first() -> Difference:
    found = report().first
    assert found
    return found


# --- all is well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stretch", (1, 2, 3, 256))
def test_an_untouched_log_verifies(log: list[Record], monkeypatch: pytest.MonkeyPatch, stretch: int) -> None:
    monkeypatch.setattr(entries, "STRETCH", stretch)
    head = LedgerHead.objects.get()
    root = merkle.root([bytes(head.peaks)[place : place + 32] for place in range(0, len(head.peaks), 32)])
    assert report() == verification.Report(head.origin, 7, root.hex(), None, 0)
    assert list(verification.verify()) == []


@pytest.mark.django_db
def test_every_size_verifies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "STRETCH", 4)
    for size in range(1, 13):
        assert (report().records, report().differences) == (size, 0)
        append(draft("a", f"case-{size % 3}"))


def test_it_reads_and_takes_no_lock(log: list[Record]) -> None:
    """P14: nothing is written, and no append waits."""
    statements: list[str] = []

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        assert report().differences == 0
    assert statements
    assert {sql.split()[0] for sql in statements} == {"SELECT"}
    assert not [sql for sql in statements if "FOR " in sql and "UPDATE" in sql]


def test_queries_grow_with_stretches_only(
    log: list[Record], monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    append(*(draft("a", f"c{number}") for number in range(300)))
    monkeypatch.setattr(entries, "STRETCH", 64)
    with django_assert_max_num_queries(6 * 5 + 18):
        assert report().differences == 0


def test_processes_share_a_log(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They find what one process finds, in the order of the log."""
    append(*(draft("a", f"case-{number % 5}") for number in range(40)))
    monkeypatch.setattr(verification, "WORTH_SHARING", 1)
    monkeypatch.setattr(verification, "SHARE", 16)
    told: list[tuple[int, int]] = []
    alone = verification.report()
    assert verification.report(lambda *so_far: told.append(so_far), processes=2) == alone
    assert (alone.records, alone.differences, told[-1]) == (41, 0, (41, 41))
    assert told == sorted(told)
    with transaction.atomic():
        guards.drop()
        Record.objects.filter(index__in=(7, 30)).update(size=1)
        MerkleNode.objects.filter(level=1, index=0).update(hash=b"0" * 32)
        guards.install()
    alone = verification.report()
    assert verification.report(processes=2) == alone
    assert alone.first
    assert (alone.differences, alone.first.what) == (5, "seal entry, body")


def test_what_is_appended_meanwhile_is_left_to_the_next_pass(
    log: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = entries._Stretch.read.__func__  # type: ignore[attr-defined]

    def read_and_append(cls: Any, start: int, stop: int) -> Any:
        found = read(cls, start, stop)
        append(draft("a", "late"), draft("late"))
        return found

    monkeypatch.setattr(entries._Stretch, "read", classmethod(read_and_append))
    assert (report().records, report().differences) == (7, 0)
    monkeypatch.undo()
    assert report().records > 7
    assert report().differences == 0


# --- something is not ----------------------------------------------------------------------------------------------


@pytest.fixture
def tampering(log: list[Record]) -> Iterator[list[Record]]:
    """The owner of the database takes the guards away for a moment, and puts them back."""
    guards.drop()
    yield log
    guards.install()


def rewrite(index: int, *, reseal: bool = False, relink: bool = False) -> None:
    """Another body under the old id, with as much of the evidence about it adapted as asked."""
    record = Record.objects.get(index=index)
    document = records.load(record.body or b"")
    document["payload"]["person_name"] = "eve"
    body = records.canonical(document)
    Record.objects.filter(index=index).update(body=body, digest=records.digest(body), size=len(body))
    if not reseal:
        return
    sealed = json.loads(bytes(SealEntry.objects.get(index=index).entry))
    sealed["body"] = {"sha256": records.digest(body), "size": len(body)}
    entry = records.canonical(sealed)
    leaf = merkle.leaf_hash(entry)
    SealEntry.objects.filter(index=index).update(entry=entry, leaf_hash=leaf)
    if relink:
        CaseLink.objects.filter(index=index).update(leaf_hash=leaf)
        MerkleNode.objects.filter(level=0, index=index).update(hash=leaf)


def rewrite_everything_after(index: int) -> None:
    """The most that can be done without the head: entry, chain and tree all follow the new body."""
    rewrite(index, reseal=True, relink=True)
    peaks: list[bytes] = []
    for sealed in SealEntry.objects.order_by("index"):
        peaks, completed = merkle.append(peaks, sealed.index, bytes(sealed.leaf_hash))
        for level, place, digest in completed:
            MerkleNode.objects.filter(level=level, index=place).update(hash=digest)


def cut_off_the_end() -> None:
    """A head that was set back, counters and all: the rows beyond it give it away."""
    record = Record.objects.get(index=6)
    peaks: list[bytes] = []
    for sealed in SealEntry.objects.filter(index__lt=6).order_by("index"):
        peaks, _ = merkle.append(peaks, sealed.index, bytes(sealed.leaf_hash))
    LedgerHead.objects.update(size=6, peaks=b"".join(peaks))
    RecordCounter.objects.filter(kind=record.kind, state="created").update(count=F("count") - 1)


def entry_with(index: int, change: Callable[[dict[str, Any]], Any]) -> None:
    sealed = json.loads(bytes(SealEntry.objects.get(index=index).entry))
    change(sealed)
    SealEntry.objects.filter(index=index).update(entry=records.canonical(sealed))


def spaced(index: int) -> None:
    entry = json.dumps(json.loads(bytes(SealEntry.objects.get(index=index).entry))).encode()
    SealEntry.objects.filter(index=index).update(entry=entry, leaf_hash=merkle.leaf_hash(entry))


def stray_record() -> None:
    with transaction.atomic():
        made = draft()
        Record.objects.create(
            index=7, record_id=made.record_id, kind="person", created_at=NOON, body=made.body, digest=made.digest,
            size=len(made.body),
        )  # fmt: skip


def no_document(body: bytes) -> Callable[[], Any]:
    """Stored bytes that are no document at all, digest and size adapted."""
    return lambda: Record.objects.filter(index=2).update(
        body=body, digest=records.digest(body), size=len(body)
    )


def of(model: type[Model], **where: Any) -> Any:
    return model._default_manager.filter(**where)


# What was done → what is named first: (entry, what, a part of what was found).
TAMPERED: dict[str, tuple[Callable[[], Any], tuple[int | None, str, str]]] = {
    "a body": (lambda: of(Record, index=2).update(body=b"{}"), (2, "body digest", "44136fa355b3678a")),
    "a body and its digest": (lambda: rewrite(2), (2, "seal entry, body", "sha256")),
    "a body and its entry": (lambda: rewrite(2, reseal=True), (2, "case link a #2", "entry 2, leaf")),
    "a body, its entry, link and leaf": (
        lambda: rewrite(2, reseal=True, relink=True),
        (3, "chain of b, previous leaf of #2", ""),
    ),
    "a body without cases, up to the tree": (lambda: rewrite_everything_after(4), (None, "head, peaks", "")),
    "a body, erased": (lambda: of(Record, index=2).update(body=None), (2, "body", "erased")),
    "a body that is no JSON": (no_document(b"\xff\x00"), (2, "seal entry, body", "")),
    "a body of another shape": (no_document(b"[1]"), (2, "seal entry, body", "")),
    "a body of bottomless depth": (no_document(b"[" * 100_000), (2, "seal entry, body", "")),
    "a digest": (lambda: of(Record, index=2).update(digest="0" * 64), (2, "seal entry, body", "sha256")),
    "a size": (lambda: of(Record, index=2).update(size=1), (2, "seal entry, body", "size")),
    "a kind": (lambda: of(Record, index=2).update(kind="role-grant"), (2, "seal entry, kind", "person")),
    "an unknown kind": (lambda: of(Record, index=2).update(kind="rumour"), (2, "seal entry, kind", "person")),
    "a record id": (
        lambda: of(Record, index=2).update(record_id="personrec-0"),
        (2, "seal entry, record", "personrec-"),
    ),
    "a time": (lambda: of(Record, index=2).update(created_at=SOON), (2, "seal entry, at", "2026-03-01T12")),
    "a record, gone": (lambda: of(Record, index=2).delete(), (2, "record", "none")),
    "the genesis, gone": (lambda: of(Record, index=0).delete(), (0, "record", "none")),
    "an entry, gone": (lambda: of(SealEntry, index=2).delete(), (2, "seal entry", "none")),
    "an entry": (lambda: entry_with(2, lambda e: e.update(v=2)), (2, "leaf hash", "")),
    "an entry that is no JSON": (lambda: of(SealEntry, index=2).update(entry=b"{"), (2, "leaf hash", "")),
    "an entry that is no object": (lambda: of(SealEntry, index=2).update(entry=b"[]"), (2, "leaf hash", "")),
    "an entry, spaced": (lambda: spaced(4), (4, "seal entry", "other bytes")),
    "a leaf hash": (lambda: of(SealEntry, index=2).update(leaf_hash=b"0" * 32), (2, "leaf hash", "3030")),
    "a link, gone": (lambda: of(CaseLink, case_id="a", n=2).delete(), (2, "case link a #2", "none")),
    "a link's leaf": (
        lambda: of(CaseLink, case_id="a", n=2).update(leaf_hash=b"0" * 32),
        (2, "case link a #2", "3030"),
    ),
    "a link's entry": (
        lambda: of(CaseLink, case_id="a", n=2).update(index=3),
        (2, "case link a #2", "entry 3"),
    ),
    "a link too many": (
        lambda: CaseLink.objects.create(case_id="a", n=9, index=4, leaf_hash=b"0" * 32),
        (4, "case link", "a #9"),
    ),
    "a link to no entry": (
        lambda: CaseLink.objects.create(case_id="a", n=9, index=99, leaf_hash=b"0" * 32),
        (None, "stray case link", "99"),
    ),
    "a node": (lambda: of(MerkleNode, level=1, index=1).update(hash=b"0" * 32), (3, "tree node 1/1", "3030")),
    "a node, gone": (lambda: of(MerkleNode, level=2, index=0).delete(), (3, "tree node 2/0", "none")),
    "a node too many": (
        lambda: MerkleNode.objects.create(level=2, index=1, hash=b"0" * 32),
        (None, "tree nodes of level 2", "2 from 0 to 1"),
    ),
    "a level too many": (
        lambda: MerkleNode.objects.create(level=9, index=0, hash=b"0" * 32),
        (None, "tree nodes of level 9", "1 from 0 to 0"),
    ),
    "a search key, gone": (
        lambda: of(RecordKey, record=2, name="person_id").delete(),
        (2, "search key", "none"),
    ),
    "a search key too many": (
        lambda: RecordKey.objects.create(record=2, name="person_id", value="person-9", created_at=NOON),
        (2, "search key", "person_id=person-9"),
    ),
    "a search key's time": (
        lambda: of(RecordKey, record=2, name="person_id").update(created_at=SOON),
        (2, "search key", "none"),
    ),
    "a search key of no record": (
        lambda: RecordKey.objects.create(record=99, name="person_id", value="person-9", created_at=NOON),
        (None, "stray record key", "99"),
    ),
    "a counter": (
        lambda: of(RecordCounter, kind="person", state="created").update(count=9),
        (None, "counter of person created", "9"),
    ),
    "a counter, gone": (
        lambda: of(RecordCounter, kind="person", state="created").delete(),
        (None, "counter of person created", "none"),
    ),
    "a counter too many": (
        lambda: RecordCounter.objects.create(kind="person", state="promoted", count=1),
        (None, "counter of person promoted", "1"),
    ),
    "the head, gone": (lambda: of(LedgerHead).delete(), (None, "ledger head", "none")),
    "the head's size": (lambda: of(LedgerHead).update(size=8), (7, "record", "none")),
    "the head, set back": (cut_off_the_end, (None, "stray record", "6")),
    "the head of an empty log": (
        lambda: of(LedgerHead).update(size=0, peaks=b""),
        (None, "genesis", "an empty log"),
    ),
    "the head's peaks": (lambda: of(LedgerHead).update(peaks=b"0" * 96), (None, "head, peaks", "3030")),
    "the head's epoch": (lambda: of(LedgerHead).update(epoch=2), (None, "head, epoch", "2")),
    "the head's time": (
        lambda: of(LedgerHead).update(newest_at=NOON - SOON.resolution),
        (None, "head, newest_at", "2026-03-01T11"),
    ),
    "the head's origin": (
        lambda: of(LedgerHead).update(origin="elsewhere"),
        (None, "head, origin", "elsewhere"),
    ),
    "a record beyond the head": (stray_record, (None, "stray record", "7")),
    "a record before the genesis": (
        lambda: of(Record, index=4).update(index=-1),
        (4, "record", "none"),
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_named_first(tampering: list[Record], name: str) -> None:
    tamper, (index, what, found) = TAMPERED[name]
    tamper()
    guards.install()
    difference = first()
    assert (difference.index, difference.what) == (index, what)
    assert found in difference.found
    assert difference.expected != difference.found
    stored = Record.objects.filter(index=index).first() if index is not None else None
    assert difference.record_id == (
        stored.record_id if stored and "node" not in what and what != "case link" else ""
    )


def test_a_dropped_guard_is_a_difference(log: list[Record]) -> None:
    guards.drop()
    assert report().differences == len(guards.expected(connection.vendor))
    missing = min(guards.expected(connection.vendor))
    assert first() == Difference("guards", "as listed", f"guard {missing} is missing")


def test_the_same_case_twice_in_one_entry(tampering: list[Record]) -> None:
    entry_with(4, lambda sealed: sealed.update(cases=[{"case": "z", "n": 1, "prev": None}] * 2))
    assert "cases" in {difference.what for difference in verification.verify()}


@pytest.mark.parametrize(
    "cases",
    ("a", [1], [{"case": "a"}], [{"case": "a", "n": 0, "prev": None}], [{"case": 1, "n": 1, "prev": None}]),
)
def test_malformed_cases_are_a_difference_and_no_crash(tampering: list[Record], cases: Any) -> None:
    entry_with(4, lambda sealed: sealed.update(cases=cases))
    assert {"leaf hash", "cases"} <= {difference.what for difference in verification.verify()}


def test_a_chain_that_starts_late_or_points_forward(tampering: list[Record]) -> None:
    entry_with(4, lambda sealed: sealed.update(cases=[{"case": "z", "n": 3, "prev": "00"}]))
    found = {difference.what for difference in verification.verify()}
    assert {"case link z #3", "chain of z, place before #3"} <= found


def test_an_epoch_begins_with_its_own_first_record_only(tampering: list[Record]) -> None:
    entry_with(4, lambda sealed: sealed.update(epoch=2, log="elsewhere"))
    origin = LedgerHead.objects.get().origin
    differences = [d for d in verification.verify() if d.what in ("seal entry, epoch", "seal entry, log")]
    assert [(d.index, d.what, d.expected, d.found) for d in differences] == [
        (4, "seal entry, epoch", "1", "2"),
        (4, "seal entry, log", origin, "elsewhere"),
    ]


def test_long_values_are_cut(tampering: list[Record]) -> None:
    RecordKey.objects.create(record=2, name="person_id", value="x" * 200, created_at=NOON)
    assert len(first().found) <= 201


# --- nothing in a ledger table changes unnoticed ---------------------------------------------------------------------


def changed(value: Any) -> Any:
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, bytes | memoryview):
        return bytes(value)[:-1] + bytes([bytes(value)[-1] ^ 1])
    if isinstance(value, int):
        return value + 1_000
    return value[:-1] + "~"


LEDGER_TABLES = (Record, RecordKey, SealEntry, CaseLink, MerkleNode, LedgerHead, RecordCounter)


@pytest.mark.parametrize("model", LEDGER_TABLES, ids=lambda model: model.__name__)
def test_no_column_of_no_row_changes_unnoticed(tampering: list[Record], model: type[Model]) -> None:
    """Every cell of every ledger table, and every row; of the many keys, which are all alike, the first few."""
    unnoticed = []
    tried = 0
    for row in model._default_manager.all()[:12]:
        where = Q(**{field.attname: getattr(row, field.attname) for field in model._meta.pk_fields})
        changes: list[Callable[[], Any]] = [lambda where=where: model._default_manager.filter(where).delete()]
        for field in model._meta.local_concrete_fields:
            value = getattr(row, field.attname)
            if model is LedgerHead and field.name in ("id", "closed_to"):
                continue  # one head: the database has no other id for it; a closed one is said on every page
            other = {field.attname: changed(value) if value != "" else "~"}
            changes.append(
                lambda where=where, other=other: model._default_manager.filter(where).update(**other)
            )
        for change in changes:
            with transaction.atomic():
                change()
                tried += 1
                # The guards are down in this test; they are no difference that counts here.
                if all(difference.what == "guards" for difference in verification.verify()):
                    unnoticed.append((str(row), len(changes)))
                transaction.set_rollback(True)
    assert tried > 5
    assert unnoticed == []


# --- the command -----------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[str, str, int]:
    out = StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error), error.returncode
    return out.getvalue(), "", 0


def test_the_command_says_one_line_when_all_is_well(log: list[Record]) -> None:
    out, error, code = run()
    assert (error, code) == ("", 0)
    assert out.splitlines()[0] == f"7 records verified, 0 rows as they say, root {report().root}"
    out, error, code = run("--json")
    assert (error, code) == ("", 0)
    assert json.loads(out) == {
        "origin": LedgerHead.objects.get().origin,
        "records": 7,
        "root": report().root,
        "first": None,
        "differences": 0,
        "since": 0,
        "rows": 0,
        "not_checked": [],
        "held": [],
        "not_shown": heads.not_shown([]),
    }


def test_the_command_names_the_first_difference_and_counts_the_rest(tampering: list[Record]) -> None:
    Record.objects.filter(index=2).update(body=b"{}")
    guards.install()
    out, error, code = run()
    assert (out, code) == ("", 1)
    named, counted = error.split("\n")
    assert named.startswith(
        f"entry 2 ({tampering[2].record_id}): body digest: expected {tampering[2].digest}, found "
    )
    assert counted == f"and {report().differences - 1} more differences"
    out, error, code = run("--json")
    shown = json.loads(out)
    assert code == 1
    assert (shown["first"]["index"], shown["first"]["what"]) == (2, "body digest")
    assert shown["differences"] == report().differences > 1


def test_a_single_difference_needs_no_count(tampering: list[Record]) -> None:
    LedgerHead.objects.update(epoch=2)
    guards.install()
    assert run() == ("", "head, epoch: expected 1, found 2", 1)


def test_a_database_without_tables_is_an_answer_too(log: list[Record]) -> None:
    with connection.cursor() as cursor:
        guards.drop()
        cursor.execute('ALTER TABLE "evidence_record" RENAME TO "elsewhere"')
    with transaction.atomic():
        out, error, code = run()
        transaction.set_rollback(True)
    assert (out, code) == ("", 2)
    assert error.startswith("The ledger cannot be read: ")


def test_ten_times_as_much_takes_no_more_memory(log: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one stretch of rows is held at a time, however long the log."""
    held: list[int] = []
    read = entries._Stretch.read.__func__  # type: ignore[attr-defined]

    def note(cls: Any, start: int, stop: int) -> Any:
        found = read(cls, start, stop)
        held.append(len(found.records) + len(found.entries))
        return found

    monkeypatch.setattr(entries._Stretch, "read", classmethod(note))
    monkeypatch.setattr(entries, "STRETCH", 16)
    with transaction.atomic():
        ledger.append([draft("a") for _ in range(160)])
    assert report().differences == 0
    assert len(held) == 11
    assert max(held) == 32
