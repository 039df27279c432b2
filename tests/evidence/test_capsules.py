"""A capsule holds what it says, is kept as it was made, and no byte of it changes unnoticed (P13)."""

import base64
import hashlib
import json
import random
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from evidence import guards
from evidence.documents import CASE_CAPSULE
from evidence.domain import (
    capsule_files,
    capsules,
    checkpoints,
    epochs,
    erasures,
    log_keys,
    records,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.domain.notes import Signer
from evidence.errors import Conflict, NotAllowed, StaleState, Unavailable
from evidence.models import Capsule, Case, CaseLink, Checkpoint, LedgerHead, Person, Record
from recovery.documents import RETRY_ACK
from tests.builders import World
from tests.endpoints import client as api_client
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.verifier import run, verify
from tests.processes import together
from tests.receiver import Receiver

Files = dict[str, bytes]


@pytest.fixture
def case(world: World, keys: Keys) -> Case:
    return retried(world, keys)


def retried(world: World, keys: Keys) -> Case:
    """A failed case that was delivered by an approved retry, in a log that is signed."""
    keys.add()
    (made,) = world.failed()
    world.approved()
    world.ran()
    made.refresh_from_db()
    return made


def frozen(case: Case, world: World) -> Capsule:
    return capsules.freeze(case, by=world.auditor, clock=system_clock)


def content(capsule: Capsule) -> bytes:
    assert capsule.content is not None
    return bytes(capsule.content)


def unzipped(data: bytes) -> Files:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def vkey() -> str:
    return log_keys.signers()[0].vkey


# --- once made, for all tests that only read ----------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A capsule and who signed it."""

    zip: bytes
    records: int
    signer: Signer

    @property
    def vkey(self) -> str:
        return self.signer.vkey


@pytest.fixture(scope="module")
def kept(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """One capsule for all tests of this module that read files alone."""
    receiver = Receiver()
    with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch, transaction.atomic():
        # Beside this database lies no head of another test's.
        patch.setattr(settings, "CAVRA_DATA", tmp_path_factory.mktemp("data"))
        world = World(receiver)
        case = retried(world, Keys(tmp_path_factory.mktemp("keys"), patch))
        capsule = frozen(case, world)
        made = Kept(content(capsule), capsule.records, log_keys.signers()[0])
        transaction.set_rollback(True)
    receiver.stop()
    return made


@pytest.fixture
def files(kept: Kept) -> Files:
    """The files of that capsule."""
    return unzipped(kept.zip)


@pytest.fixture
def folder(files: Files, tmp_path: Path) -> Path:
    """The capsule unpacked into an empty directory."""
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


# --- an auditor checks it -----------------------------------------------------------------------------------------


def test_it_holds_in_an_empty_directory(files: Files, folder: Path, kept: Kept) -> None:
    done = run(cwd=folder, file=folder / "verify.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("key not pinned")
    for words in (
        f"has exactly {kept.records} records",
        "all that happened was recorded",
        "never rewritten",
        kept.vkey,
    ):
        assert words in done.stdout
    assert "NOT PROVEN" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        {name.partition("/")[0] for name in files}
    )


def test_it_holds_as_a_zip_with_the_key_pinned(files: Files, kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "case.zip").write_bytes(kept.zip)
    (tmp_path / "keys").write_text(kept.vkey + "\n")
    for key in (kept.vkey, "keys"):
        done = run("case.zip", "--key", key, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "not pinned" not in done.stdout
        assert "That this is the log's key" not in done.stdout
        assert hashlib.sha256(kept.zip).hexdigest() in done.stdout
    other = verify.Key("other", b"", b"")
    assert "NOT PROVEN" in done.stdout
    with pytest.raises(verify.Differs, match="Not signed by the pinned key"):
        verify.check(files, [other])


def test_the_pinned_key_has_to_be_the_logs(files: Files, folder: Path, keys: Keys, db: None) -> None:
    """The same name and another key: what a forger makes."""
    name = log_keys.make(keys.path("forged"))
    forged = verify.Key(verify.keys_of(files["key.vkey"].decode())[0].name, b"", name)
    forged = forged._replace(
        id=hashlib.sha256(forged.name.encode() + b"\n\x01" + forged.public).digest()[:4]
    ).vkey
    done = run("--key", forged, cwd=folder, file=folder / "verify.py")
    assert done.returncode == 1
    assert "Not signed by the pinned key" in done.stdout


# --- no byte changes unnoticed ------------------------------------------------------------------------------------


def holds(files: Files) -> bool:
    try:
        verify.check(files)
    except verify.Differs:
        return False
    return True


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


def test_any_changed_byte_of_any_file_is_found(files: Files) -> None:
    chosen = random.Random(17)
    assert holds(files)
    for name, data in files.items():
        places = {0, 1, len(data) // 2, len(data) - 2, len(data) - 1, *chosen.sample(range(len(data)), 4)}
        for place in places:
            changed = {**files, name: flipped(data, place, chosen.randrange(8))}
            assert holds(changed) is (name == "verify.py"), (name, place)
        for changed_data in (data + b"\n", data + b"\0", b" " + data, data[:-1], b""):
            assert holds({**files, name: changed_data}) is (name == "verify.py"), name


@pytest.mark.parametrize(("name", "step"), (("checkpoint", 1), ("key.vkey", 1), ("statement.dsse.json", 23)))
def test_what_is_signed_is_spelled_in_one_way(files: Files, name: str, step: int) -> None:
    """Every byte, or a dense sample: base64, JSON and notes could hide some."""
    for place in range(0, len(files[name]), step):
        for bit in (0, 5):
            assert not holds({**files, name: flipped(files[name], place, bit)}), (place, bit)
    for place in range(max(0, len(files[name]) - 200), len(files[name])):
        assert not holds({**files, name: flipped(files[name], place)}), place


def test_a_statement_in_other_words_is_refused(files: Files) -> None:
    """The same JSON, spelled otherwise."""
    envelope = json.loads(files["statement.dsse.json"])
    unsigned = {"keyid": "x", "sig": ""}
    for again in (
        json.dumps(envelope),
        json.dumps(envelope, separators=(",", ":")) + "\n",
        json.dumps({**envelope, "more": 1}, separators=(",", ":"), sort_keys=True),
        json.dumps({**envelope, "signatures": []}, separators=(",", ":"), sort_keys=True),
        json.dumps(
            {**envelope, "signatures": [*envelope["signatures"], unsigned]},
            separators=(",", ":"),
            sort_keys=True,
        ),
        json.dumps({**envelope, "payloadType": "text/plain"}, separators=(",", ":"), sort_keys=True),
        files["statement.dsse.json"].decode().replace("payloadType", "payload\\u0054ype"),
    ):
        assert not holds({**files, "statement.dsse.json": again.encode()})


def test_files_cannot_go_come_or_change_places(files: Files) -> None:
    for name in files:
        rest = {other: data for other, data in files.items() if other != name}
        assert holds(rest) is (name == "verify.py"), name
    for added in ("records/000000000000.json", "entries/999999999999.json", "proofs/000000000000.tlog-proof"):
        assert added not in files
        assert not holds({**files, added: b"{}"}), added
    for folder_name in ("records/", "entries/", "proofs/"):
        one, two, *_ = (name for name in files if name.startswith(folder_name))
        assert not holds({**files, one: files[two], two: files[one]})


def test_a_folder_is_read_as_it_lies(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    done = run(cwd=folder, file=folder / "verify.py")
    assert (done.returncode, "notes.txt, which is no file" in done.stdout) == (0, True)
    (folder / "records" / "notes.txt").write_text("mine")
    done = run(cwd=folder, file=folder / "verify.py")
    assert (done.returncode, "no file of a capsule" in done.stdout) == (1, True)


def test_another_verifier_in_the_capsule_is_named(folder: Path) -> None:
    (folder / "verify.py").write_text("print('all is well')")
    done = run(str(folder), cwd=folder)
    assert (done.returncode, "verify.py in the capsule" in done.stdout) == (0, True)


def test_a_zip_is_its_files_and_nothing_else(
    files: Files, kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, path = kept.zip, tmp_path / "case.zip"
    assert verify.zipped(files) == data

    def code(changed: bytes) -> int:
        path.write_bytes(changed)
        found: int = verify.main([str(path)])
        return found

    assert code(data) == 0
    for place in range(0, len(data), 499):
        changed = flipped(data, place)
        assert code(changed) in (1, 2), place
    for changed in (
        data + b"\0",
        b"\0" + data,
        data[:-1],
        data[:30],
        data + data,
        b"PK\x05\x06" + b"\0" * 18,
    ):
        assert code(changed) in (1, 2)
    assert "Traceback" not in capsys.readouterr().out
    again = BytesIO()
    with zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    assert code(again.getvalue()) == 2
    assert "packed by another program" in capsys.readouterr().out
    # A changed file is named, whatever its checksum in the zip says.
    place = data.index(b'"records/') if b'"records/' in data else data.index(files["checkpoint"])
    assert code(flipped(data, place)) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out


def hostile(*members: tuple[str, bytes]) -> bytes:
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "members",
    (
        [("../../escaped", b"x"), ("statement.dsse.json", b"{}")],
        [("/etc/escaped", b"x")],
        [("records/../../escaped.json", b"x")],
        [("records\\escaped.json", b"x")],
        [("checkpoint", b"x"), ("checkpoint", b"y")],
        [("records/", b"")],
        [("statement.dsse.json", b"[" * 100_000)],
        [(name, b"{}") for name in ("statement.dsse.json", "key.vkey", "checkpoint", "index.html")],
        b"PK\x03\x04" + b"\xff" * 200,
        b"PK\x03\x04" + b"\0" * 200,
        b"PK\x03\x04",
        b"",
    ),
    ids=range(12),
)
def test_hostile_zips_are_refused_in_words(members: Any, tmp_path: Path) -> None:
    data = members if isinstance(members, bytes) else hostile(*members)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "case.zip").write_bytes(data)
    done = run("case.zip", cwd=tmp_path / "inner")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "case.zip"]


# --- whoever holds the key can lie, not break the verifier --------------------------------------------------------


def statement_of(files: Files) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(files["statement.dsse.json"])["payload"]))
    return found


def resigned(files: Files, statement: Any, signer: Any) -> Files:
    """The statement signed by the log's key."""
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    return {**files, "statement.dsse.json": capsule_files.envelope(payload, [signer])}


def restated(files: Files, changes: Files, signer: Any) -> Files:
    """Other files, under a statement that names their digests, signed by the log's key."""
    changed = {**files, **changes}
    statement = statement_of(files)
    statement["subject"] = [
        {"name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
        for name, data in sorted(changed.items())
        if name not in ("statement.dsse.json", "verify.py")
    ]
    return resigned(changed, statement, signer)


ODD: tuple[Any, ...] = (None, True, -1, 0, 2**53 - 1, 1.5, "", "x", [], [None], [{}], {}, {"a": 1})
# Words that the log says about itself; nothing else depends on them.
FREE = {("predicate", "capsule"), ("predicate", "as_of"), ("predicate", "verifier", "sha256")}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))
        yield from places(value[-1], (*path, -1))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return copy


def test_signed_nonsense_is_refused_in_words(files: Files, kept: Kept) -> None:
    statement = statement_of(files)
    assert verify.check(resigned(files, statement, kept.signer)).case == statement["predicate"]["case"]
    for path in places(statement):
        if path in FREE:
            continue
        for value in ODD:
            changed = with_value(statement, path, value)
            if changed == statement:
                continue
            with pytest.raises((verify.Differs, verify.Unchecked)):
                assert not verify.check(resigned(files, changed, kept.signer)), (path, value)


def test_keys_are_named_as_they_sign() -> None:
    """Base64 of a key may hold a plus sign, which separates the parts of its name."""
    seeds = (bytes([number]) * 32 for number in range(200))
    signers = [Signer("log", Ed25519PrivateKey.from_private_bytes(seed)) for seed in seeds]
    (one, *_) = (signer for signer in signers if "+" in signer.vkey.split("+", 2)[2])
    envelope = capsule_files.envelope(b"{}", [one])
    assert verify._payload(envelope, [verify.key_of(one.vkey)]) == b"{}"


@pytest.mark.parametrize("kind", ("entries", "records"))
def test_signed_entries_and_records_that_do_not_fit_are_refused(files: Files, kept: Kept, kind: str) -> None:
    name = next(name for name in sorted(files) if name.startswith(kind))
    document = json.loads(files[name])
    for path in places(document):
        for value in (None, -1, "x", [], [{}], {}):
            changed = json.dumps(with_value(document, path, value)).encode()
            with pytest.raises((verify.Differs, verify.Unchecked)):
                verify.check(restated(files, {name: changed}, kept.signer))
    for raw in (b"", b"\xff", b"[" * 100_000, b'{"a":1,"a":1}', b"null"):
        with pytest.raises((verify.Differs, verify.Unchecked)):
            verify.check(restated(files, {name: raw}, kept.signer))


def test_a_signed_proof_or_head_that_does_not_fit_is_refused(files: Files, kept: Kept) -> None:
    proofs = [name for name in sorted(files) if name.startswith("proofs/")]
    other_head = files["checkpoint"].replace(b"\n", b"\n\n", 1)
    for changes in (
        {proofs[0]: files[proofs[1]]},
        {proofs[0]: files[proofs[0]].replace(b"\n\n", b"\n" + b"A" * 43 + b"=\n\n", 1)},
        {proofs[0]: files[proofs[0]] + b"\n"},
        {proofs[0]: b""},
        {"checkpoint": other_head},
        {"checkpoint": b""},
    ):
        with pytest.raises(verify.Differs):
            verify.check(restated(files, changes, kept.signer))


# --- what nobody's word is needed for -----------------------------------------------------------------------------


@pytest.fixture
def entries(tmp_path: Path) -> Callable[[], str]:
    """Writes all seal entries of the log into a file."""

    def write() -> str:
        path = tmp_path / "entries.bin"
        call_command("export_entries", str(path), stdout=StringIO())
        return str(path)

    return write


def test_all_entries_show_that_none_is_left_out(
    case: Case, world: World, entries: Callable[[], str], tmp_path: Path
) -> None:
    append(draft())
    made = frozen(case, world)
    (tmp_path / "case.zip").write_bytes(content(made))
    source = entries()
    done = run("case.zip", "--entries", source, "--key", vkey(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No other of the" in done.stdout
    assert "--entries shows it" not in done.stdout
    whole = Path(source).read_bytes()
    # Within an entry: of another length it could as well end too early.
    inside = whole.index(b'"sha256"', len(whole) // 3)
    for changed, code in (
        (flipped(whole, inside, 1), 1),
        (whole[:40], 2),
        (b"", 2),
        (whole[:-900], 2),
    ):
        Path(source).write_bytes(changed)
        done = run("case.zip", "--entries", source, cwd=tmp_path)
        assert (done.returncode in (code, 1), "Traceback" in done.stderr) == (True, False)
        assert done.returncode
    done = run("case.zip", "--entries", "nothing", cwd=tmp_path)
    assert done.returncode == 2


def test_a_log_that_leaves_a_record_out_is_found_by_all_entries(
    case: Case, world: World, entries: Callable[[], str], tmp_path: Path
) -> None:
    """Its key signs whatever it likes about itself: only the entries say that there is one more."""
    checkpoints.make(clock=system_clock)
    head = checkpoints.latest()
    assert head
    chain = capsule_files.links(case.case_id, head.size)
    lie = capsule_files.content("gordackcapsule-1", case.case_id, head, chain[:-1], log_keys.signers())
    (tmp_path / "case.zip").write_bytes(lie)
    assert run("case.zip", cwd=tmp_path).returncode == 0
    done = run("case.zip", "--entries", entries(), cwd=tmp_path)
    assert done.returncode == 1
    assert f"Entry {chain[-1].record.index} names the case too" in done.stdout


def test_a_record_in_the_middle_cannot_be_left_out(case: Case, world: World) -> None:
    checkpoints.make(clock=system_clock)
    head = checkpoints.latest()
    assert head
    chain = capsule_files.links(case.case_id, head.size)
    renumbered = [
        capsule_files.Link(n, link.record, link.entry, link.path)
        for n, link in enumerate((*chain[:3], *chain[4:]), start=1)
    ]
    for left in (chain[1:], [*chain[:3], *chain[4:]], renumbered):
        lie = capsule_files.content("gordackcapsule-1", case.case_id, head, left, log_keys.signers())
        assert not holds(unzipped(lie))


def test_entries_are_exported_beside_and_then_put_in_place(tmp_path: Path, db: None) -> None:
    path = tmp_path / "entries.bin"
    path.write_bytes(b"old")
    out = StringIO()
    call_command("export_entries", str(path), stdout=out)
    size = LedgerHead.objects.get().size
    assert f"{size} " in out.getvalue()
    with path.open("rb") as file:
        assert [verify._prefixed(file) for _ in range(size + 1)][-1] is None
    with pytest.raises(CommandError, match="cannot be written"):
        call_command("export_entries", str(tmp_path / "no" / "folder"))
    assert sorted(found.name for found in tmp_path.iterdir()) == ["entries.bin"]


# --- freezing -----------------------------------------------------------------------------------------------------


def test_freezing_is_recorded_and_says_what_it_holds(case: Case, world: World) -> None:
    before = CaseLink.objects.filter(case_id=case.case_id).count()
    made = frozen(case, world)
    data = content(made)
    record = Record.objects.get(record_id=made.capsule_id)
    payload = records.payload_of(record)
    assert payload is not None
    assert record.kind == CASE_CAPSULE.name
    assert (record.digest, made.record_hash) == (made.record_hash, record.digest)
    assert (payload["sha256"], payload["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (made.sha256, made.size) == (payload["sha256"], payload["size"])
    assert (payload["record_count"], made.records) == (before, before)
    assert payload["case"] == made.case_id == case.case_id
    # The record about it is newer than its head: it says how many there were at that size.
    assert payload["log_size"] == made.log_size <= record.index
    assert CaseLink.objects.get(case_id=case.case_id, n=before + 1).index == record.index
    assert frozen(case, world).records == before + 1
    assert list(verification.verify()) == []


def test_the_statement_is_in_toto_over_every_file_but_the_verifier(files: Files) -> None:
    statement = statement_of(files)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if name not in ("statement.dsse.json", "verify.py")
    }
    predicate = statement["predicate"]
    head = verify.head_of(verify.note_of(files["checkpoint"]).text)
    assert predicate["log"]["root"] == head.root.hex()
    assert (predicate["log"]["size"], predicate["log"]["origin"]) == (head.size, head.origin)
    assert [one["n"] for one in predicate["entries"]] == list(range(1, predicate["records"] + 1))


def test_a_head_is_signed_only_when_the_newest_does_not_cover_all(case: Case, world: World) -> None:
    first = frozen(case, world)
    count = Checkpoint.objects.count()
    second = frozen(case, world)
    assert Checkpoint.objects.count() == count + 1
    assert second.log_size > first.log_size
    head = checkpoints.make(clock=system_clock)
    assert head
    assert frozen(case, world).log_size == head.size


def test_its_bytes_follow_from_the_case_and_the_head(case: Case, world: World) -> None:
    made = frozen(case, world)
    head = Checkpoint.objects.get(size=made.log_size)
    chain = capsule_files.links(case.case_id, head.size)
    again = capsule_files.content(made.capsule_id, case.case_id, head, chain, log_keys.signers())
    assert again == content(made)


def test_both_keys_sign_while_one_follows_the_other(case: Case, world: World, keys: Keys) -> None:
    old = verify.key_of(vkey())
    keys.add("successor")
    signers = log_keys.signers()
    found = unzipped(content(frozen(case, world)))
    assert found["key.vkey"].decode().split() == [signer.vkey for signer in signers]
    assert len(signers) == 2
    for pinned in (None, [old], [verify.key_of(signers[1].vkey)]):
        assert verify.check(found, pinned).signers == (pinned or [verify.key_of(one.vkey) for one in signers])
    log_keys.retire(old.id.hex(), reason="Rotated as planned.", by=None, clock=system_clock)
    keys.configure("successor")
    later = unzipped(content(frozen(case, world)))
    assert not holds({**later, "checkpoint": found["checkpoint"]})
    with pytest.raises(verify.Differs, match="Not signed by the pinned key"):
        verify.check(later, [old])


def test_a_case_that_went_on_in_a_new_epoch(case: Case, world: World) -> None:
    old = vkey()
    proposal = epochs.propose(
        reason="A rehearsal.", by=world.administrator, clock=system_clock, although_not_behind=True
    )
    epochs.confirm(proposal, by=world.auditor, clock=system_clock)
    append(draft(case.case_id))
    found = unzipped(content(frozen(case, world)))
    assert statement_of(found)["predicate"]["log"]["epoch"] == 2
    names = {json.loads(data)["log"] for name, data in found.items() if name.startswith("entries/")}
    assert len(names) == 2
    assert verify.check(found, [verify.key_of(vkey())]).case == case.case_id
    with pytest.raises(verify.Differs, match="Not signed by the pinned key"):
        verify.check(found, [verify.key_of(old)])


@pytest.mark.race
def test_capsules_made_at_once_all_hold(transactional_db: None, receiver: Receiver, keys: Keys) -> None:
    """The head, the case's chain and the log go on meanwhile."""
    world = World(receiver)
    keys.add()
    (case,) = world.failed()
    done = together(
        lambda: frozen(case, world),
        lambda: frozen(case, world),
        world.planned,
        lambda: checkpoints.make(clock=system_clock),
    )
    refused = [one for one in done if isinstance(one, Exception)]
    assert refused == []
    made = Capsule.objects.all()
    assert len(made) == 2
    for one in made:
        assert verify.check(unzipped(content(one))).indexes[0] >= 0
    assert list(verification.verify()) == []


def test_without_a_key_there_is_no_capsule(world: World, keys: Keys) -> None:
    (case,) = world.failed()
    before = Record.objects.count()
    with pytest.raises(Unavailable, match="No key signs this log") as refused:
        frozen(case, world)
    assert refused.value.code == "no_signing_key"
    keys.configure("missing")
    with pytest.raises(Unavailable, match="cannot be used") as refused:
        frozen(case, world)
    assert refused.value.code == "no_signing_key"
    assert (Record.objects.count(), Capsule.objects.count()) == (before, 0)


def test_a_database_that_was_set_back_makes_none(case: Case, world: World) -> None:
    checkpoints.make(clock=system_clock)
    head = checkpoints.latest()
    assert head
    path = checkpoints.outside_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head.note.replace(f"\n{head.size}\n", f"\n{head.size + 7}\n"))
    with pytest.raises(Conflict) as refused:
        frozen(case, world)
    assert refused.value.code == "ledger_behind"
    assert Capsule.objects.count() == 0


@pytest.mark.parametrize("who", ("approver", "operator", "administrator"))
def test_taking_evidence_away_needs_the_role(case: Case, world: World, who: str) -> None:
    person: Person = getattr(world, who)
    made = frozen(case, world)
    with pytest.raises(NotAllowed):
        capsules.freeze(case, by=person, clock=system_clock)
    with pytest.raises(NotAllowed):
        capsules.content_of(made, by=person)


@pytest.mark.parametrize("limit", ("MAX_RECORDS", "MAX_BYTES"))
def test_a_case_that_is_too_large_is_refused(
    case: Case, world: World, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule_files, limit, 10)
    with pytest.raises(Conflict) as refused:
        frozen(case, world)
    assert refused.value.code == "capsule_too_large"


def test_limits_are_those_of_the_verifier() -> None:
    assert capsule_files.MAX_RECORDS == verify.MAX_RECORDS
    # Seal entries, proofs, page and statement come on top of the bodies.
    assert capsule_files.MAX_BYTES * 3 < verify.MAX_TOTAL


# --- the page -----------------------------------------------------------------------------------------------------


def test_the_page_tells_the_story_and_runs_nothing(files: Files, kept: Kept) -> None:
    page = files["index.html"].decode()
    for word in ("<script", "javascript:", "http://", "https://", " src=", "onload"):
        assert word not in page.lower(), word
    assert page.count("<li ") == kept.records
    assert kept.vkey in page.replace("&#x2B;", "+")
    for name in files:
        if name.startswith("records/"):
            assert f'href="{name}"' in page


def test_what_people_typed_is_escaped(case: Case, world: World, keys: Keys) -> None:
    capsules.freeze(
        case,
        by=world.auditor,
        clock=system_clock,
        notes="<script>alert(1)</script>",
        claimed_actor="<b>me</b>",
    )
    page = unzipped(content(frozen(case, world)))["index.html"].decode()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;me&lt;/b&gt; (not verified)" in page


# --- over HTTP ----------------------------------------------------------------------------------------------------


def test_the_same_bytes_for_whoever_asks_again(case: Case, world: World) -> None:
    api = api_client(world.auditor)
    made = api.post(f"/api/v1/cases/{case.case_id}/capsules", {"notes": "yearly audit"}, format="json").json()
    assert made["metadata"]["session_id"] == made["capsule_id"]
    assert made["metadata"]["capsule"]["notes"] == "yearly audit"
    first = api.get(f"/api/v1/capsules/{made['capsule_id']}")
    assert first["content-type"] == "application/zip"
    assert first["content-disposition"] == f'attachment; filename="{made["capsule_id"]}.zip"'
    assert first["etag"] == f'"{made["sha256"]}"'
    assert hashlib.sha256(first.content).hexdigest() == made["sha256"]
    append(draft(case.case_id))
    again = api_client(world.analyst).get(f"/api/v1/capsules/{made['capsule_id']}")
    assert again.content == first.content
    assert (
        api.get(f"/api/v1/capsules/{made['capsule_id']}", HTTP_IF_NONE_MATCH=first["etag"]).status_code == 304
    )
    listed = api_client(world.approver).get(f"/api/v1/cases/{case.case_id}/capsules").json()
    assert (listed["total"], listed["items"][0]["capsule_id"]) == (1, made["capsule_id"])
    assert listed["items"][0].items() <= made.items()


@pytest.mark.parametrize(
    ("path", "code"),
    (
        ("/api/v1/capsules/gordackcapsule-0000000000000000", "capsule_not_found"),
        ("/api/v1/capsules/%ff", "capsule_not_found"),
        ("/api/v1/cases/none/capsules", "case_not_found"),
    ),
)
def test_what_is_not_there(world: World, path: str, code: str) -> None:
    answer = api_client(world.auditor).get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


def test_without_a_key_the_answer_says_so(world: World, keys: Keys) -> None:
    (case,) = world.failed()
    answer = api_client(world.auditor).post(f"/api/v1/cases/{case.case_id}/capsules", {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_signing_key")


def test_lists_cost_the_same_however_many_there_are(case: Case, world: World) -> None:
    api = api_client(world.auditor)
    path = f"/api/v1/cases/{case.case_id}/capsules"
    frozen(case, world)
    api.get(path)
    with connection.execute_wrapper(counter := Counter()):
        api.get(path)
    for _ in range(2):
        frozen(case, world)
    with connection.execute_wrapper(again := Counter()):
        api.get(path)
    assert (again.count, again.bytes_read) == (counter.count, False)


class Counter:
    """Counts statements, and notices when one reads the bytes of a capsule."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes_read = False

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        self.bytes_read |= '"evidence_capsule"."content",' in sql
        return execute(sql, params, many, context)


# --- what is erased goes from capsules too ------------------------------------------------------------------------


def erased(record: Record, world: World) -> None:
    """The body of a record goes by two people."""
    proposal = erasures.propose(
        [record.record_id], "GDPR art. 17", "Asked for.", by=world.administrator, clock=system_clock
    )
    erasures.confirm(proposal, by=world.auditor, clock=system_clock)


def review_of(case: Case) -> Record:
    """An analyst's word on the retry of a case, given between its failure and its delivery."""
    links = CaseLink.objects.filter(case_id=case.case_id).values("index")
    return Record.objects.filter(index__in=links, kind=RETRY_ACK.name).get()


def test_a_capsule_loses_its_bytes_with_a_record_in_it(world: World, keys: Keys) -> None:
    keys.add()
    (case,) = world.failed()
    made = frozen(case, world)
    world.approved()
    world.ran()
    later, review = frozen(case, world), review_of(case)
    erased(review, world)
    api = api_client(world.auditor)
    assert api.get(f"/api/v1/capsules/{made.capsule_id}").status_code == 200
    gone = api.get(f"/api/v1/capsules/{later.capsule_id}")
    assert (gone.status_code, gone.json()["code"]) == (410, "erased")
    listed = api.get(f"/api/v1/cases/{case.case_id}/capsules").json()["items"]
    assert [one["erased"] for one in listed] == [True, False]
    third = frozen(case, world)
    proven = verify.check(unzipped(content(third)))
    assert proven.erased == [review.index]
    assert len(proven.indexes) == third.records > later.records
    page = unzipped(content(third))["index.html"].decode()
    assert page.count("<p>Body erased") == 1
    assert list(verification.verify()) == []


def test_an_erasure_at_this_very_moment_is_noticed(
    case: Case, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = capsule_files.content

    def erase_meanwhile(*arguments: Any) -> bytes:
        made = build(*arguments)
        erased(review_of(case), world)
        return made

    monkeypatch.setattr(capsule_files, "content", erase_meanwhile)
    with pytest.raises(StaleState, match="erased just now"):
        frozen(case, world)
    assert Capsule.objects.count() == 0


@pytest.mark.race
def test_a_capsule_comes_before_an_erasure_or_holds_nothing_of_it(
    transactional_db: None, receiver: Receiver, keys: Keys
) -> None:
    world = World(receiver)
    case = retried(world, keys)
    review = review_of(case)
    proposal = erasures.propose(
        [review.record_id], "law", "Asked for.", by=world.administrator, clock=system_clock
    )
    results = together(
        lambda: erasures.confirm(proposal, by=world.auditor, clock=system_clock),
        *[lambda: frozen(case, world) for _ in range(3)],
    )
    failed = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(error, StaleState | Unavailable) for error in failed), failed
    assert Record.objects.get(pk=review.pk).body is None
    for capsule in Capsule.objects.filter(content__isnull=False):
        assert verify.check(unzipped(content(capsule))).erased == [review.index]
    assert list(verification.verify()) == []


@pytest.mark.only("postgresql")
def test_a_capsule_that_is_made_while_an_erasure_begins_waits_for_it(
    transactional_db: None, receiver: Receiver, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure has its time and does not hold the log yet: a capsule in between would be newer than it."""
    world = World(receiver)
    case = retried(world, keys)
    review, clear, build, outcome = review_of(case), erasures._clear_copies, capsule_files.content, []
    built = threading.Event()
    freezer = threading.Thread(target=lambda: outcome.extend(together(lambda: frozen(case, world))))

    def build_and_say(*arguments: Any) -> bytes:
        content = build(*arguments)
        built.set()
        return content

    def clear_later(ids: Any) -> Any:
        freezer.start()
        assert built.wait(60)
        freezer.join(1.0)  # It would be done by then if it did not wait.
        return clear(ids)

    monkeypatch.setattr(capsule_files, "content", build_and_say)
    monkeypatch.setattr(erasures, "_clear_copies", clear_later)
    erased(review, world)
    freezer.join()
    (refusal,) = outcome
    assert isinstance(refusal, StaleState)
    assert Record.objects.get(pk=review.pk).body is None
    assert not Capsule.objects.exists()


def test_a_capsule_that_outlived_an_erasure_is_a_difference(case: Case, world: World) -> None:
    made, review = frozen(case, world), review_of(case)
    kept = content(made)
    erased(review, world)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    guards.drop()
    Capsule.objects.filter(pk=made.pk).update(content=kept)
    guards.install()
    (difference,) = verification.verify()
    assert (difference.what, difference.index) == (f"capsule {made.capsule_id}, content", review.index)


def test_a_later_capsule_keeps_its_bytes(case: Case, world: World) -> None:
    """An erasure lets go what was made before it; what is made afterwards holds nothing of what went."""
    earlier = frozen(case, world)
    erased(review_of(case), world)
    later = frozen(case, world)
    assert Capsule.objects.get(pk=earlier.pk).content is None
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        Capsule.objects.filter(pk=later.pk).update(content=None)


# --- in the browser -----------------------------------------------------------------------------------------------


def test_the_button_freezes_and_leads_to_the_bytes(case: Case, world: World, client: Any) -> None:
    client.force_login(world.auditor)
    address = f"/console/cases/{case.case_id}/"
    assert "Download capsule" in client.get(address).content.decode()
    answer = client.post(f"{address}capsule/")
    made = Capsule.objects.get()
    assert (answer.status_code, answer["location"]) == (302, f"/api/v1/capsules/{made.capsule_id}")
    assert client.get(answer["location"]).content == content(made)
    page = client.get(address).content.decode()
    assert f'href="/api/v1/capsules/{made.capsule_id}"' in page
    assert 'aria-describedby="why-capsule"' not in page


def test_who_may_not_take_it_reads_why(case: Case, world: World, client: Any) -> None:
    made = frozen(case, world)
    client.force_login(world.approver)
    page = client.get(f"/console/cases/{case.case_id}/").content.decode()
    assert 'aria-describedby="why-capsule"' in page
    assert "may export" in page
    assert made.capsule_id in page
    assert f'href="/api/v1/capsules/{made.capsule_id}"' not in page
    answer = client.post(f"/console/cases/{case.case_id}/capsule/", follow=True)
    assert "may export" in answer.content.decode()
    assert Capsule.objects.count() == 1


def test_without_a_key_the_page_says_what_to_do(world: World, keys: Keys, client: Any) -> None:
    (case,) = world.failed()
    client.force_login(world.auditor)
    assert "CAVRA_LEDGER_KEYS" in client.get(f"/console/cases/{case.case_id}/").content.decode()
    answer = client.post(f"/console/cases/{case.case_id}/capsule/", follow=True)
    assert "No capsule was made" in answer.content.decode()
