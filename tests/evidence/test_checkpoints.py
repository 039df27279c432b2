"""Signed heads: over stored bytes, one signer at a time, kept beside the database too (P13, P25)."""

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import Tags, run_checks
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.db.models import F, Model

from evidence import guards
from evidence.domain import (
    checkpoints,
    heads,
    ledger,
    live,
    log_keys,
    merkle,
    notes,
    records,
    surroundings,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.domain.notes import Head
from evidence.enums import Role
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed, Unavailable
from evidence.models import (
    CaseLink,
    Checkpoint,
    LedgerHead,
    LedgerKey,
    MerkleNode,
    Record,
    RecordKey,
    SealEntry,
    SigningRefusal,
)
from tests.builders import Clock, person
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.rows_read import rows_read
from tests.processes import together

pytestmark = pytest.mark.django_db

Commits = Callable[..., Any]


def make() -> Checkpoint | None:
    return checkpoints.make(clock=system_clock)


def signed(number: int = 1) -> Checkpoint:
    """A head over ``number`` new records."""
    append(*(draft("case-1") for _ in range(number)))
    made = make()
    assert made
    return made


def kept(commits: Commits, number: int = 1) -> Checkpoint:
    """A head whose transaction was really committed, as far as a test that rolls back can tell."""
    with commits(execute=True):
        return signed(number)


def outside() -> str:
    return checkpoints.outside_path().read_text()


@pytest.fixture
def commits(django_capture_on_commit_callbacks: Commits) -> Commits:
    return django_capture_on_commit_callbacks


# --- making -------------------------------------------------------------------------------------------------------


def test_a_head_says_how_long_the_log_is_and_what_its_root_is(keys: Keys) -> None:
    row = keys.add()
    made = signed(3)
    head = LedgerHead.objects.get()
    opened = notes.opened(made.note, log_keys.verifiers())
    assert notes.parse_checkpoint(opened.text) == Head(head.origin, head.size, bytes(made.root))
    assert [key.public_key for key in opened.signed_by] == [bytes(row.public_key)]
    assert bytes(made.root) == merkle.root(merkle.split(head.peaks))
    # The key's name is the log's, and there is no further line.
    assert made.note.splitlines()[4].startswith(f"— {head.origin} ")
    assert len(made.note.splitlines()) == 5
    assert (made.epoch, made.size, bytes(made.peaks)) == (head.epoch, head.size, bytes(head.peaks))


def test_signing_makes_nothing_new_to_sign(keys: Keys) -> None:
    keys.add()
    before = LedgerHead.objects.get().size
    assert make()
    assert LedgerHead.objects.get().size == before
    assert make() is None
    assert Checkpoint.objects.count() == 1
    assert verification.report().first is None


def test_without_a_key_nothing_is_signed_and_nothing_is_wrong() -> None:
    append(draft())
    assert make() is None
    assert checkpoints.refusal() is None


def test_heads_extend_each_other(keys: Keys) -> None:
    keys.add()
    made = [signed(number) for number in (1, 2, 5, 3)]
    for held in made:
        assert heads.hold_against(held.note).verdict == "extends"
    assert checkpoints.latest() == checkpoints.newest() == made[-1]


@pytest.mark.parametrize("role", Role)
def test_auditors_and_administrators_may_ask_for_a_head(keys: Keys, role: Role) -> None:
    keys.add()
    somebody = person(role)
    if role in (Role.AUDITOR, Role.ADMINISTRATOR):
        assert checkpoints.make(by=somebody, clock=system_clock)
    else:
        with pytest.raises(NotAllowed):
            checkpoints.make(by=somebody, clock=system_clock)
        assert not Checkpoint.objects.exists()


def test_an_erased_body_does_not_keep_the_log_from_being_signed(keys: Keys) -> None:
    keys.add()
    append(draft(), draft())
    guards.drop()
    Record.objects.filter(index=2).update(body=None)
    assert make()


# --- what is not signed -------------------------------------------------------------------------------------------


def changed_body() -> None:
    record = Record.objects.get(index=3)
    assert record.body
    Record.objects.filter(index=3).update(body=bytes(record.body).replace(b"ann", b"eve"))


def rewritten_record() -> None:
    """The body and its digest fit each other, the seal entry does not."""
    changed_body()
    record = Record.objects.get(index=3)
    Record.objects.filter(index=3).update(digest=records.digest(bytes(record.body or b"")))


def rewritten_entry() -> None:
    """Record and seal entry fit each other, the tree does not."""
    rewritten_record()
    record, seal = Record.objects.get(index=3), SealEntry.objects.get(index=3)
    entry = records.load(seal.entry)
    entry["body"]["sha256"] = record.digest
    SealEntry.objects.filter(index=3).update(entry=records.canonical(entry))


def rewritten_leaf() -> None:
    """Everything of the entry fits, but for the nodes above it."""
    rewritten_entry()
    leaf = merkle.leaf_hash(bytes(SealEntry.objects.get(index=3).entry))
    SealEntry.objects.filter(index=3).update(leaf_hash=leaf)
    MerkleNode.objects.filter(level=0, index=3).update(hash=leaf)


def swapped_records() -> None:
    Record.objects.filter(index__in=(3, 4)).update(index=F("index") + 100)
    Record.objects.filter(index=103).update(index=4)
    Record.objects.filter(index=104).update(index=3)


def unreadable_entry() -> None:
    SealEntry.objects.filter(index=3).update(entry=b"[]", leaf_hash=merkle.leaf_hash(b"[]"))


def without(model: type[Model], **place: int) -> Callable[[], None]:
    def remove() -> None:
        model._default_manager.filter(**place).delete()

    remove.__name__ = f"without_{model._meta.model_name}"
    return remove


def wrong_node() -> None:
    MerkleNode.objects.filter(level=1, index=1).update(hash=b"0" * 32)


def wrong_head() -> None:
    head = LedgerHead.objects.get()
    LedgerHead.objects.update(peaks=bytes(head.peaks)[:-1] + b"?")


@pytest.mark.parametrize(
    ("change", "where"),
    (
        (changed_body, "Entry 3: the body is not"),
        (rewritten_record, "Entry 3: the seal entry speaks of another record"),
        (rewritten_entry, "Entry 3: the leaf hash"),
        (rewritten_leaf, "Entry 3: the tree node 1/1"),
        (swapped_records, "Entry 3: the seal entry speaks of another record"),
        (unreadable_entry, "Entry 3: the seal entry cannot be read"),
        (without(Record, index=3), "Entry 3: the record is not there"),
        (without(SealEntry, index=3), "Entry 3: the seal entry is not there"),
        (without(MerkleNode, level=0, index=3), "Entry 3: the tree node 0/3"),
        (wrong_node, "Entry 3: the tree node 1/1"),
        (wrong_head, "The head is not what the entries give"),
    ),
)
def test_what_was_changed_since_the_last_head_is_not_signed(
    keys: Keys, change: Callable[[], None], where: str
) -> None:
    keys.add()
    first = signed()
    append(draft("case-1"), draft("case-1"))
    guards.drop()
    change()
    with pytest.raises(Conflict) as refused:
        make()
    assert refused.value.code == "ledger_differs"
    assert refused.value.detail.startswith(where)
    assert checkpoints.newest() == first
    # Everybody is told, until a head is signed again.
    refusal = checkpoints.refusal()
    assert refusal
    assert refusal.detail == refused.value.detail
    (banner,) = (each for each in surroundings.look(system_clock()).banners if "signed" in each.fact)
    assert banner.tone == "bad"
    assert where.rstrip(".") in banner.fact


def test_the_banner_goes_with_the_next_signed_head(keys: Keys) -> None:
    keys.add()
    append(draft(), draft())
    guards.drop()
    body = Record.objects.get(index=2).body
    Record.objects.filter(index=2).update(body=b"{}")
    with pytest.raises(Conflict):
        make()
    Record.objects.filter(index=2).update(body=body)
    assert make()
    assert checkpoints.refusal() is None


@pytest.mark.parametrize(
    "change",
    (
        {"note": "nothing signed"},
        {"root": b"0" * 32},
        {"peaks": b"0" * 32},
        {"size": 1},
        {"origin": "other"},
    ),
)
def test_a_forged_head_is_not_built_upon(keys: Keys, change: dict[str, Any]) -> None:
    keys.add()
    signed()
    append(draft())
    guards.drop()
    Checkpoint.objects.update(**change)
    with pytest.raises(Conflict) as refused:
        make()
    # The head beside the database may tell first.
    assert refused.value.code in ("ledger_differs", "ledger_behind")


def test_a_head_of_a_revoked_key_is_not_built_upon(keys: Keys) -> None:
    """Whoever had the key could have signed a head over entries of their own making."""
    row = keys.add("stolen")
    signed(4)
    guards.drop()
    Record.objects.filter(index=2).update(body=b"{}")
    append(draft())
    assert make(), "what lies before the head was derived for that head"
    log_keys.revoke(row.key_id, reason="stolen", by=None, clock=system_clock)
    keys.configure()
    keys.add("new")
    with pytest.raises(Conflict, match="Entry 2"):
        make()


def test_a_key_that_is_gone_is_told(keys: Keys) -> None:
    keys.add()
    append(draft())
    keys.path("key").unlink()
    with pytest.raises(Unavailable):
        make()
    refusal = checkpoints.refusal()
    assert refusal
    assert refusal.code == "ledger_key_unusable"


# --- one signer at a time -----------------------------------------------------------------------------------------


def test_who_began_before_another_head_was_signed_signs_none(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deriving takes time and no lock; what was begun from has to be the newest still."""
    keys.add()
    signed()
    append(draft())
    derive = checkpoints.derivation.peaks

    def overtaken(*args: Any, **kwargs: Any) -> list[bytes]:
        monkeypatch.setattr(checkpoints.derivation, "peaks", derive)
        append(draft())
        assert make()
        return derive(*args, **kwargs)

    monkeypatch.setattr(checkpoints.derivation, "peaks", overtaken)
    assert make() is None
    assert Checkpoint.objects.count() == 2


@pytest.mark.parametrize("when", ("before", "after"))
def test_a_head_that_is_signed_while_another_begins_is_no_difference(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The log and its newest head are two rows: of one moment, or the newer log."""
    keys.add()
    signed()
    append(draft())
    read = checkpoints.newest

    def overtaken() -> Checkpoint | None:
        monkeypatch.setattr(checkpoints, "newest", read)
        there = read()
        append(draft())
        assert make()
        return there if when == "after" else read()

    monkeypatch.setattr(checkpoints, "newest", overtaken)
    assert make() is None
    assert checkpoints.refusal() is None
    assert Checkpoint.objects.count() == 2


def test_a_key_that_is_revoked_meanwhile_signs_no_head(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    row = keys.add()
    derive = checkpoints.derivation.peaks

    def revoked(*args: Any, **kwargs: Any) -> list[bytes]:
        log_keys.revoke(row.key_id, reason="stolen", by=None, clock=system_clock)
        return derive(*args, **kwargs)

    monkeypatch.setattr(checkpoints.derivation, "peaks", revoked)
    assert make() is None
    assert not Checkpoint.objects.exists()


def test_the_database_takes_one_root_for_a_size(keys: Keys) -> None:
    keys.add()
    made = signed()
    with pytest.raises(IntegrityError), transaction.atomic():
        Checkpoint.objects.create(
            origin=made.origin,
            epoch=1,
            size=made.size,
            root=b"1" * 32,
            peaks=b"",
            note="",
            created_at=made.created_at,
        )


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_many_signers_at_once_make_one_head_for_a_size(keys: Keys) -> None:
    keys.add()
    append(*(draft() for _ in range(20)))
    stop = threading.Event()

    def write() -> None:
        try:
            for _ in range(10):
                append(draft())
        finally:
            stop.set()

    def sign() -> list[DomainError]:
        failed = []
        while not stop.is_set():
            try:
                make()
            except DomainError as error:
                failed.append(error)
        return failed

    results = together(write, *(sign for _ in range(3)))
    assert [result for result in results if result not in (None, [])] == []
    make()
    sizes = list(Checkpoint.objects.order_by("pk").values_list("size", flat=True))
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == LedgerHead.objects.get().size
    for made in Checkpoint.objects.all():
        assert heads.hold_against(made.note).verdict == "extends"
    head = checkpoints.outside_head()
    assert head
    assert head.size == sizes[-1]


# --- the worker's step --------------------------------------------------------------------------------------------


def test_the_worker_signs_while_something_is_new_and_not_too_often(keys: Keys) -> None:
    keys.add()
    clock = Clock(system_clock() + timedelta(seconds=1))
    assert checkpoints.make_due(clock=clock) == 1
    append(draft())
    assert checkpoints.make_due(clock=clock) == 0
    clock.forward(seconds=settings.CAVRA_CHECKPOINT_S)
    assert checkpoints.make_due(clock=clock) == 1
    clock.forward(days=1)
    assert checkpoints.make_due(clock=clock) == 0


def test_it_is_a_step_of_the_worker() -> None:
    from recovery.management.commands.worker import Command

    assert "checkpoints" in Command().steps()


def test_a_refused_head_is_tried_again_but_not_every_second(keys: Keys) -> None:
    keys.add()
    append(draft())
    guards.drop()
    Record.objects.filter(index=1).update(body=b"{}")
    clock = Clock(system_clock() + timedelta(seconds=1))
    with pytest.raises(Conflict):
        checkpoints.make_due(clock=clock)
    assert checkpoints.make_due(clock=clock) == 0
    clock.forward(seconds=settings.CAVRA_CHECKPOINT_S)
    with pytest.raises(Conflict):
        checkpoints.make_due(clock=clock)


# --- beside the database ------------------------------------------------------------------------------------------


def test_the_newest_head_lies_beside_the_database(keys: Keys, commits: Commits) -> None:
    keys.add()
    assert checkpoints.outside_head() is None
    for number in (1, 2):
        made = kept(commits, number)
        assert outside() == made.note
        assert checkpoints.outside_head() == Head(made.origin, made.size, bytes(made.root))
    assert checkpoints.ledger_behind() == []
    assert sorted(path.name for path in checkpoints.outside_path().parent.iterdir()) == ["head", "head.lock"]


def test_a_head_is_outside_only_once_it_is_committed(keys: Keys, commits: Commits) -> None:
    """But the first one before: a head whose file is not there says that the file was lost."""
    keys.add()
    with commits(execute=False):
        first = signed()
        second = signed()
    assert outside() == first.note
    # A crash between commit and file is made good by the next round.
    assert make() is None
    assert outside() == second.note


def test_p25_a_file_that_is_missing_is_a_reason_and_does_not_come_back_by_itself(
    keys: Keys, commits: Commits
) -> None:
    keys.add()
    kept(commits)
    early = kept(commits)
    kept(commits, 4)
    restored(early.size)
    checkpoints.outside_path().unlink()
    append(draft())
    ((code, sentence),) = live.reasons_against_log(live.LogState.read())
    assert code == "ledger_behind"
    assert "ledger_head keep" in sentence
    assert "new_epoch" in sentence
    with commits(execute=True), pytest.raises(Conflict) as refused:
        make()
    assert refused.value.code == "ledger_behind"
    assert not checkpoints.keep_outside()
    assert checkpoints.outside_head() is None


def test_a_first_head_that_is_signed_meanwhile_is_not_a_lost_file(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.add()
    append(draft())
    read = checkpoints.outside_head

    def signed_after_reading() -> Head | None:
        monkeypatch.setattr(checkpoints, "outside_head", read)
        there = read()
        assert make()
        return there

    monkeypatch.setattr(checkpoints, "outside_head", signed_after_reading)
    assert live.reasons_against_log(live.LogState.read()) == []


def test_who_waited_for_the_file_writes_the_newest_head_of_the_log_as_it_is_called_by_then(
    keys: Keys, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older head of the name before would let the next restore pass for the database that was worked with."""
    keys.add()
    kept(commits)
    with commits(execute=False):
        signed()
    lock = checkpoints._outside_lock

    @contextmanager
    def waited() -> Iterator[None]:
        monkeypatch.setattr(checkpoints, "_outside_lock", lock)
        with transaction.atomic():
            drafts = log_keys.carry_over("cavra-new", at=system_clock(), by=None)
            guards.drop()
            LedgerHead.objects.update(origin="cavra-new", epoch=2)
            ledger.append(drafts)
        assert make()
        with lock():
            yield

    monkeypatch.setattr(checkpoints, "_outside_lock", waited)
    assert not checkpoints.keep_outside()
    head = checkpoints.outside_head()
    assert head
    assert head.origin == "cavra-new"


def test_p25_an_operator_has_the_file_written_where_it_is_missing(keys: Keys, commits: Commits) -> None:
    keys.add()
    with pytest.raises(CommandError, match="no head of this log was signed yet"):
        call_command("ledger_head", "keep", "--reason", "second web host")
    made = kept(commits)
    with pytest.raises(CommandError, match="is there, and stays"):
        call_command("ledger_head", "keep", "--reason", "second web host")
    checkpoints.outside_path().unlink()
    assert checkpoints.ledger_behind()
    with pytest.raises(CommandError, match="say why"):
        call_command("ledger_head", "keep", "--reason", " ")
    call_command("ledger_head", "keep", "--reason", "second web host", stdout=io.StringIO())
    assert outside() == made.note
    assert checkpoints.ledger_behind() == []
    (line,) = checkpoints.outside_path().with_name("head.log").read_text().splitlines()
    assert line.endswith(f"kept anew: {made.origin} at {made.size}: second web host")


def test_the_head_outside_never_goes_back(keys: Keys, commits: Commits) -> None:
    keys.add()
    kept(commits, 5)
    larger = outside()
    guards.drop()
    Checkpoint.objects.all().delete()
    LedgerHead.objects.update(size=1, peaks=MerkleNode.objects.get(level=0, index=0).hash)
    # The verb refuses; writing by itself does too.
    with pytest.raises(Conflict) as refused:
        make()
    assert refused.value.code == "ledger_behind"
    Checkpoint.objects.create(
        origin=LedgerHead.objects.get().origin,
        epoch=1,
        size=1,
        root=b"0" * 32,
        peaks=b"",
        note="small",
        created_at=system_clock(),
    )
    assert checkpoints.keep_outside() is False
    assert outside() == larger


def restored(to: int) -> None:
    """Yesterday's copy: the log is as it was when it had ``to`` entries."""
    guards.drop()
    peaks = [MerkleNode.objects.get(level=level, index=index) for level, index in merkle.peak_positions(to)]
    for model in (Record, SealEntry, CaseLink):
        model._default_manager.filter(index__gte=to).delete()
    RecordKey.objects.filter(record__gte=to).delete()
    for level in range(20):
        MerkleNode.objects.filter(level=level, index__gte=to >> level).delete()
    Checkpoint.objects.filter(size__gt=to).delete()
    LedgerHead.objects.update(size=to, peaks=b"".join(bytes(node.hash) for node in peaks))


def test_a_database_that_was_set_back_is_behind(keys: Keys, commits: Commits) -> None:
    keys.add()
    early = kept(commits)
    late = kept(commits, 4)
    restored(early.size)
    ((code, sentence),) = checkpoints.ledger_behind()
    assert code == "ledger_behind"
    assert f"holds {early.size} entries; a head of {late.size} entries" in sentence
    assert "new_epoch" in sentence
    assert heads.hold_against(late.note).verdict == "shorter"
    assert heads.hold_against(early.note).verdict == "extends"


def test_a_database_that_went_on_from_a_copy_is_beside(keys: Keys, commits: Commits) -> None:
    """As long as the one that was worked with, or longer: the entries are others."""
    keys.add()
    early = kept(commits)
    late = kept(commits, 4)
    restored(early.size)
    append(*(draft() for _ in range(9)))
    ((_, sentence),) = checkpoints.ledger_behind()
    assert f"first {late.size} entries are not those" in sentence
    assert heads.hold_against(late.note).verdict == "differs"
    with pytest.raises(Conflict) as refused:
        make()
    assert refused.value.code == "ledger_behind"


def test_a_head_of_another_log_is_beside(keys: Keys, commits: Commits) -> None:
    keys.add()
    made = kept(commits)
    other = notes.Signer("other/log", next(iter(log_keys.configured_keys().values())))
    checkpoints.outside_path().write_text(notes.signed(Head("other/log", 1, bytes(32)).text, [other]))
    ((_, sentence),) = checkpoints.ledger_behind()
    assert "another log, other/log" in sentence
    assert heads.hold_against(made.note).verdict == "extends"


def test_a_head_under_an_earlier_name_is_no_reason(keys: Keys, commits: Commits) -> None:
    """A new epoch renames the log; the head outside has the old name until the first one under the new."""
    keys.add()
    old = kept(commits)
    with transaction.atomic():
        drafts = log_keys.carry_over("cavra-new", at=system_clock(), by=None)
        guards.drop()
        LedgerHead.objects.update(origin="cavra-new", epoch=2)
        ledger.append(drafts)
    assert checkpoints.ledger_behind() == []
    assert checkpoints.latest() is None
    with commits(execute=True):
        made = make()
    assert made
    assert (made.origin, made.epoch) == ("cavra-new", 2)
    assert heads.hold_against(old.note).verdict == "extends"
    assert outside() == made.note


@pytest.mark.parametrize("content", (b"", b"nothing", b"\xff\xfe"))
def test_a_damaged_head_outside_is_a_reason_too(keys: Keys, content: bytes) -> None:
    keys.add()
    checkpoints.outside_path().parent.mkdir(parents=True)
    checkpoints.outside_path().write_bytes(content)
    ((code, sentence),) = checkpoints.ledger_behind()
    assert code == "ledger_behind"
    assert "damaged" in sentence
    with pytest.raises(Conflict):
        signed()


def test_the_file_is_whole_or_the_one_before(
    keys: Keys, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.add()
    first = kept(commits)

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        second = kept(commits)  # the head itself is signed and stored
    assert outside() == first.note
    assert make() is None
    assert outside() == second.note
    assert stat.S_IMODE(checkpoints.outside_path().stat().st_mode) & 0o022 == 0


# --- heads that others hold ---------------------------------------------------------------------------------------


def test_a_head_that_nobody_here_signed_is_refused(keys: Keys) -> None:
    keys.add()
    made = signed()
    for note in (made.note.replace("\n3\n", "\n2\n"), "nothing", ""):
        with pytest.raises(InvalidInput):
            heads.hold_against(note)


def test_w17_rewritten_history_shows_against_a_head_held_outside(keys: Keys) -> None:
    """Everything made anew from the genesis on, heads included, with the log's own key: only the old head knows."""
    keys.add()
    held = signed(4).note
    guards.drop()
    grown: list[bytes] = []
    for index, seal in enumerate(SealEntry.objects.order_by("index")):
        entry = records.load(seal.entry)
        entry["at"] = entry["at"].replace("2026", "2025")
        seal.entry = records.canonical(entry)
        seal.leaf_hash = merkle.leaf_hash(seal.entry)
        seal.save()
        grown, completed = merkle.append(grown, index, seal.leaf_hash)
        for level, place, digest in completed:
            MerkleNode.objects.filter(level=level, index=place).update(hash=digest)
    LedgerHead.objects.update(peaks=b"".join(grown))
    head = LedgerHead.objects.get()
    text = notes.checkpoint_text(head.origin, head.size, merkle.root(grown))
    Checkpoint.objects.update(
        root=merkle.root(grown), peaks=b"".join(grown), note=notes.signed(text, log_keys.signers())
    )
    checkpoints.outside_path().write_text(Checkpoint.objects.get().note, encoding="utf-8")
    append(draft())
    assert make()
    assert heads.hold_against(held).verdict == "differs"


# --- how much is read ---------------------------------------------------------------------------------------------


def test_a_head_at_a_million_records_reads_no_more_than_25_rows(keys: Keys) -> None:
    keys.add()
    signed()
    guards.drop()
    Checkpoint.objects.all().delete()
    (signer,) = log_keys.signers()
    size = 999_999
    peaks = [merkle.leaf_hash(str(place).encode()) for place in merkle.peak_positions(size)]
    text = notes.checkpoint_text(signer.name, size, merkle.root(peaks))
    Checkpoint.objects.create(
        origin=signer.name,
        epoch=1,
        size=size,
        root=merkle.root(peaks),
        peaks=b"".join(peaks),
        note=notes.signed(text, [signer]),
        created_at=system_clock(),
    )
    LedgerHead.objects.update(size=size, peaks=b"".join(peaks))
    append(draft())
    with rows_read() as read:
        made = make()
    assert made
    assert made.size == 1_000_000
    assert read.rows <= 25


# --- what the operator is told ------------------------------------------------------------------------------------


def check_ids(*tags: str) -> list[str | None]:
    databases = ["default"] if Tags.database in tags else None
    return [found.id for found in run_checks(tags=list(tags) or None, databases=databases)]


def test_production_without_a_key_is_warned(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DEBUG", True)
    assert "evidence.W005" not in check_ids()
    monkeypatch.setattr(settings, "DEBUG", False)
    assert "evidence.W005" in check_ids()
    keys.add()
    assert "evidence.W005" not in check_ids()


def test_a_configured_key_that_does_not_sign_is_warned_of(keys: Keys) -> None:
    assert "evidence.W006" not in check_ids(Tags.database)
    keys.add()
    assert "evidence.W006" not in check_ids(Tags.database)
    log_keys.make(keys.path("other"))
    keys.configure("key", "other")
    assert "evidence.W006" in check_ids(Tags.database)
    keys.configure("gone")
    assert "evidence.W006" in check_ids(Tags.database)


def test_rows_of_signing_are_what_they_say(keys: Keys) -> None:
    row, made = keys.add(), signed()
    assert str(row) == f"{made.origin} {row.key_id}"
    assert str(made) == f"{made.origin} at {made.size}"
    assert LedgerKey.objects.count() == 1
    assert not SigningRefusal.objects.exists()
