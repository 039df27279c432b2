"""What a verification cannot see by itself, and the heads kept elsewhere that show it; incremental passes (P13)."""

import json
from pathlib import Path
from typing import Any

import pytest

from evidence.domain import (
    checkpoints,
    configuration,
    entries,
    log_keys,
    merkle,
    notes,
    proofs,
    records,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.enums import Administration
from evidence.models import Attempt, Case, Checkpoint, LedgerHead, LedgerKey, MerkleNode, Record
from tests import tamper
from tests.builders import World
from tests.evidence.ledger_keys import Keys
from tests.rich import anchored
from tests.tamper import stolen_login, undone, verified

# --- what only a head from outside shows --------------------------------------------------------------------------

UNANCHORED = "No head from outside was held against this: a database that was rewritten as a whole"


@pytest.fixture
def signing(world: World, keys: Keys) -> World:
    """A world whose log has a key."""
    keys.add()
    world.delivered()
    return world


def kept(path: Path, *given: str) -> str:
    path.write_text("\n".join(given), encoding="utf-8")
    return str(path)


def test_yesterdays_copy_verifies_and_a_head_kept_elsewhere_tells(signing: World, tmp_path: Path) -> None:
    size = LedgerHead.objects.get().size
    with undone():
        signing.failed()
        anchor = anchored(signing, Administration.THIRD_PARTY)
    out, error, code = verified()
    assert (error, code) == ("", 0)
    assert "not compared, its records hold no values: " in out
    assert all(f"{what}, " in out for what in ("connectors", "maintenance windows", "pause switches"))
    assert UNANCHORED in out
    assert "or set back to an earlier state of itself, verifies just the same" in out
    out, error, code = verified("--against", kept(tmp_path / "heads", anchor.note))
    assert code == 1
    assert f"The log has {size:,} entries; {anchor.size:,} were signed. The end was cut off." in error
    # The head beside the database tells as well, without being asked.
    path = checkpoints.outside_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(anchor.note, encoding="utf-8")
    out, error, code = verified()
    assert (code, "(beside the database, signed by " in error) == (1, True)


def rewritten(signing: World) -> None:
    """What an administrator wrote reads otherwise, and everything that follows from it was made anew."""
    record = Record.objects.filter(kind="configuration-change").latest("index")
    document = records.load(record.body or b"")
    assert document["payload"]["reason"] == "maintenance"
    document["payload"]["reason"] = "nothing"
    tamper.rebuild_from(record.index, document)


@pytest.fixture
def paused(signing: World) -> World:
    configuration.pause("*", reason="maintenance", by=signing.administrator, clock=signing.clock)
    return signing


def test_a_rebuilt_log_verifies_and_a_head_kept_elsewhere_tells(paused: World, tmp_path: Path) -> None:
    with undone():
        note = anchored(paused, Administration.THIRD_PARTY).note
    with stolen_login():
        rewritten(paused)
    out, error, code = verified()
    assert (error, code) == ("", 0)
    assert UNANCHORED in out
    out, error, code = verified("--against", kept(tmp_path / "heads", note))
    assert code == 1
    assert "entries are not those that were signed. History was rewritten." in error


def test_heads_that_were_signed_here_tell_of_a_rebuilt_log_while_they_are_there(paused: World) -> None:
    checkpoint = checkpoints.make(clock=paused.clock)
    assert checkpoint
    checkpoints.outside_path().unlink()
    with stolen_login():
        rewritten(paused)
    _, error, code = verified()
    assert code == 1
    assert error.startswith(f"signed head {checkpoint.origin} at {checkpoint.size}, root: expected ")
    with stolen_login():
        Checkpoint.objects.all().delete()
    assert verified()[2] == 0


@pytest.mark.parametrize("true", (True, False))
def test_a_head_that_is_signed_while_the_log_is_verified_is_held_against_it(
    signing: World, monkeypatch: pytest.MonkeyPatch, true: bool
) -> None:
    """Over all that is looked at and, by a signer who began before, over less."""
    size = LedgerHead.objects.get().size
    read = entries._Stretch.read.__func__  # type: ignore[attr-defined]

    def read_and_sign(cls: Any, start: int, stop: int) -> Any:
        monkeypatch.setattr(entries._Stretch, "read", classmethod(read))
        anchored(signing, Administration.US)
        (made,) = Checkpoint.objects.all()
        earlier = size - 1
        root = proofs.root_of_nodes(earlier) if true else b"\1" * 32
        text = notes.checkpoint_text(made.origin, earlier, root)
        Checkpoint.objects.create(
            origin=made.origin,
            epoch=made.epoch,
            size=earlier,
            root=root,
            peaks=b"".join(proofs.peaks_of_nodes(earlier)),
            note=notes.signed(text, log_keys.signers()),
            created_at=made.created_at,
        )
        return read(cls, start, stop)

    monkeypatch.setattr(entries._Stretch, "read", classmethod(read_and_sign))
    found = [one.what for one in verification.verify()]
    assert Checkpoint.objects.latest("size").size == size
    if true:
        assert found == []
    else:
        assert [what for what in found if what.endswith(f"at {size - 1}, root")]


def test_a_key_of_the_thief_is_found_out(signing: World, tmp_path: Path) -> None:
    """The true key's row is replaced: what it signed is held by what it says, and the row has no record."""
    note = anchored(signing, Administration.THIRD_PARTY).note
    with stolen_login():
        LedgerKey.objects.update(public_key=b"\7" * 32)
    out, _, code = verified("--against", kept(tmp_path / "heads", note))
    assert code == 1
    whats = [one.what for one in verification.verify()]
    assert [what for what in whats if what.endswith(", public_key")]
    assert "signed by no key that this database knows" in out


def test_anchors_are_named_and_rated_by_who_administers_them(signing: World, tmp_path: Path) -> None:
    signing.delivered()
    first = anchored(signing, Administration.US)
    signing.delivered()
    second = anchored(signing, Administration.THIRD_PARTY)
    size = LedgerHead.objects.get().size
    out, error, code = verified("--against", kept(tmp_path / "heads", first.note))
    assert (error, code) == ("", 0)
    assert (
        f"anchored by the safe of the bank (file) at size {first.size}: Administered by the same people"
        in out
    )
    assert "None of these heads is on record as kept by others" in out
    assert f"Entries {first.size} to {size - 1} came after the newest of these heads" in out
    out, error, code = verified("--against", kept(tmp_path / "heads", first.note, second.note))
    assert (error, code) == ("", 0)
    assert (
        f"anchored by the safe of the bank (file) at size {second.size}: Administered by a third party" in out
    )
    assert "None of these heads" not in out
    assert (second.size, f"Entry {second.size} came after the newest of these heads" in out) == (
        size - 1,
        True,
    )
    assert "Nothing can be said of what was never recorded." in out
    shown = json.loads(verified("--json", "--against", str(tmp_path / "heads"))[0])
    # The first one lies beside the database as well.
    assert {(one["size"], one["verdict"], one["anchors"][0]["worth"]) for one in shown["held"]} == {
        (first.size, "extends", 0),
        (second.size, "extends", 2),
    }


def test_a_bare_head_is_held_by_what_it_says(signing: World, tmp_path: Path) -> None:
    checkpoint = checkpoints.make(clock=signing.clock)
    assert checkpoint
    bare = checkpoint.note.partition("\n\n")[0] + "\n"
    out, error, code = verified("--against", kept(tmp_path / "heads", bare))
    assert (error, code) == ("", 0)
    assert "No anchor of it is on record here" in out


def revoked(key: LedgerKey) -> None:
    log_keys.revoke(key.key_id, reason="stolen", by=None, clock=system_clock)


def test_a_head_that_only_a_revoked_key_signed_counts_no_more(
    signing: World, keys: Keys, tmp_path: Path
) -> None:
    """It may be the thief's; a head that a second key signed as well stays good."""
    stolen = LedgerKey.objects.get()
    alone = anchored(signing, Administration.THIRD_PARTY).note
    keys.add("second")
    signing.delivered()
    together = anchored(signing, Administration.THIRD_PARTY).note
    revoked(stolen)
    out, error, code = verified("--against", kept(tmp_path / "heads", alone))
    assert code == 1
    assert f"signed by {stolen.name} {stolen.key_id} (revoked)): The log begins with" in error
    assert "It counts no more" in error
    assert "None of the heads that were held against this counts" in out
    shown = json.loads(verified("--json", "--against", str(tmp_path / "heads"))[0])
    # The one beside the database is the same: of two heads only the first is written before it is committed.
    assert [one["trusted"] for one in shown["held"]] == [False, False]
    out, error, code = verified("--against", kept(tmp_path / "heads", together))
    assert (error, code) == ("", 0)


def test_a_head_beside_the_database_that_only_a_revoked_key_signed_shows_nothing(signing: World) -> None:
    assert checkpoints.make(clock=signing.clock)
    checkpoints.keep_outside()
    revoked(LedgerKey.objects.get())
    out, error, code = verified()
    assert (error, code) == ("", 0)
    assert "(revoked)): The log begins with" in out
    assert "None of the heads that were held against this counts: a database that was rewritten" in out


@pytest.mark.parametrize(
    ("content", "said"),
    (
        ("", "holds no signed head"),
        ("hello\n", "A head cannot be read"),
        ("a\n\n— b c\n", "A head cannot be read"),
    ),
)
def test_what_is_no_head_is_exit_code_2(world: World, tmp_path: Path, content: str, said: str) -> None:
    _, error, code = verified("--against", kept(tmp_path / "heads", content))
    assert (code, said in error) == (2, True)
    _, error, code = verified("--against", str(tmp_path / "nowhere"))
    assert (code, "cannot be read" in error) == (2, True)


# --- incremental --------------------------------------------------------------------------------------------------


def test_an_incremental_pass_looks_at_what_is_new_and_says_so(signing: World) -> None:
    assert verified()[2] == 0
    size = LedgerHead.objects.get().size
    signing.failed()
    signing.ran()
    signing.requested()
    out, error, code = verified("--incremental")
    assert (error, code) == ("", 0)
    assert out.startswith(f"entries {size} to {LedgerHead.objects.get().size - 1} verified")
    assert f"The first {size:,} entries and their tree were taken from the verification of " in out
    assert "looked at by a full pass only" in out


def test_an_incremental_pass_begins_at_the_newest_signed_head(signing: World) -> None:
    checkpoint = checkpoints.make(clock=signing.clock)
    assert checkpoint
    signing.failed()
    out, _, code = verified("--incremental")
    assert (code, f"The first {checkpoint.size:,} entries" in out, "the signed head of" in out) == (
        0,
        True,
        True,
    )


def test_an_incremental_pass_with_nothing_new_says_so(signing: World) -> None:
    assert verified()[2] == 0
    size = LedgerHead.objects.get().size
    out, error, code = verified("--incremental")
    assert (error, code) == ("", 0)
    assert out.startswith(f"nothing new since entry {size - 1}, root ")
    assert "of which nothing new speaks were not compared" in out


def test_one_new_entry_is_called_one(paused: World, tmp_path: Path) -> None:
    note = anchored(paused, Administration.US).note
    assert verified()[2] == 0
    size = LedgerHead.objects.get().size
    configuration.resume("*", by=paused.administrator, clock=paused.clock)
    out, _, code = verified("--incremental", "--against", kept(tmp_path / "heads", note))
    assert (code, out.startswith(f"entry {size} verified")) == (0, True)
    assert f"Entries {size - 1} to {size} came after" in out
    with undone():
        note = anchored(paused, Administration.US).note
        out, _, _ = verified("--against", kept(tmp_path / "heads", note))
        assert f"Entry {LedgerHead.objects.get().size - 1} came after the newest of these heads" in out


def forged_head(note: str) -> None:
    """A row that says what the tree is by now, with a note that does not."""
    head = LedgerHead.objects.get()
    peaks = bytes(head.peaks)
    Checkpoint.objects.create(
        origin=head.origin,
        epoch=head.epoch,
        size=head.size,
        root=merkle.root(merkle.split(peaks)),
        peaks=peaks,
        note=note,
        created_at=system_clock(),
    )


@pytest.mark.parametrize("which", ("nothing", "an older note"))
def test_an_incremental_pass_does_not_begin_at_a_forged_head(signing: World, which: str) -> None:
    """Behind it a row was changed as well, of which the entries that it would hide speak."""
    true = checkpoints.make(clock=signing.clock)
    assert true
    (case,) = signing.failed()
    with stolen_login():
        Attempt.objects.filter(case=case).update(tries=9)
        forged_head("nothing" if which == "nothing" else true.note)
    assert verification.since_last().size == true.size
    shown = json.loads(verified("--incremental", "--json")[0])
    # The row, and the head.
    assert (shown["since"], shown["differences"]) == (true.size, 2)
    assert shown["first"]["what"] == f"attempt {case.case_id}/1, tries"


def test_an_incremental_pass_does_not_begin_where_only_a_revoked_key_signed(
    signing: World, keys: Keys
) -> None:
    stolen = LedgerKey.objects.get()
    assert checkpoints.make(clock=signing.clock)
    revoked(stolen)
    assert verification.since_last().size == 0
    keys.configure()
    keys.add("second")
    made = checkpoints.make(clock=signing.clock)
    assert made
    assert verification.since_last().size == made.size


def test_an_incremental_pass_finds_what_it_looks_at(signing: World) -> None:
    assert verified()[2] == 0
    (case,) = signing.failed()
    with stolen_login():
        Case.objects.filter(pk=case.pk).update(attempt_count=7)
        Attempt.objects.filter(case=case).update(tries=9)
    shown = json.loads(verified("--incremental", "--json")[0])
    named = (f"attempt {case.case_id}/1, tries", f"case {case.case_id}, attempt_count")
    assert (shown["differences"], shown["first"]["what"] in named) == (2, True)


def test_an_incremental_pass_upon_a_changed_tree_is_a_full_one(signing: World) -> None:
    assert verified()[2] == 0
    with stolen_login():
        level, index = merkle.peak_positions(LedgerHead.objects.get().size)[0]
        MerkleNode.objects.filter(level=level, index=index).update(hash=b"\0" * 32)
    signing.failed()
    shown = json.loads(verified("--incremental", "--json")[0])
    assert shown["since"] == 0
    assert shown["first"]["what"].startswith("root at ")
