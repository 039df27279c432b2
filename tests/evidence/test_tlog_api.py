"""The log over HTTP, checked by a small client that knows the C2SP formats and nothing of the product."""

import base64
import gzip
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from evidence import guards
from evidence.domain import checkpoints, log_keys, merkle, notes, tiles
from evidence.domain.clock import system_clock
from evidence.domain.notes import Head, Verifier
from evidence.enums import Role
from evidence.models import Checkpoint, LedgerHead, MerkleNode, Person, Record, SealEntry
from tests.builders import Clock, person
from tests.endpoints import client
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.rows_read import rows_read

pytestmark = pytest.mark.django_db


@pytest.fixture
def auditor() -> Person:
    return person(Role.AUDITOR)


@pytest.fixture
def reads(auditor: Person) -> APIClient:
    return client(auditor)


def signed(number: int) -> Checkpoint:
    append(*(draft("case-1") for _ in range(number)))
    made = checkpoints.make(clock=system_clock)
    assert made
    return made


def encoded(index: int) -> str:
    """A tile's index in the path, as the specification's words have it."""
    parts = [f"{index % 1000:03}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03}")
    return "/".join(parts)


class LogClient:
    """What an auditor's program does: trusts a key, fetches head and tiles, computes the rest."""

    def __init__(self, reads: APIClient, vkey: str) -> None:
        self.reads, self.key = reads, Verifier.from_vkey(vkey)

    def get(self, path: str, content_type: str) -> bytes:
        answer = self.reads.get(f"/tlog/{path}", HTTP_ACCEPT_ENCODING="identity")
        assert answer.status_code == 200, path
        assert answer["Content-Type"] == content_type
        return bytes(answer.content)

    def head(self) -> Head:
        note = self.get("checkpoint", "text/plain; charset=utf-8").decode()
        return notes.parse_checkpoint(notes.opened(note, [self.key]).text)

    def tiles(self, size: int, level: int) -> Iterator[str]:
        """Paths of all tiles of a level, for a tree of ``size``."""
        count = size >> 8 * level
        yield from (encoded(index) for index in range(count // 256))
        if count % 256:
            yield f"{encoded(count // 256)}.p/{count % 256}"

    def hashes(self, size: int, level: int) -> list[bytes]:
        data = b"".join(
            self.get(f"tile/{level}/{tile}", "application/octet-stream") for tile in self.tiles(size, level)
        )
        return [data[place : place + 32] for place in range(0, len(data), 32)]

    def entries(self, size: int) -> list[bytes]:
        found = []
        for tile in self.tiles(size, 0):
            data = self.get(f"tile/entries/{tile}", "application/octet-stream")
            while data:
                length = int.from_bytes(data[:2], "big")
                found.append(data[2 : 2 + length])
                data = data[2 + length :]
        return found


def root_of(hashes: list[bytes]) -> bytes:
    """MTH over leaf hashes (RFC 6962 section 2.1)."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(hashes[:split]) + root_of(hashes[split:])).digest()


# --- tiles ------------------------------------------------------------------------------------------------------


def test_a_client_checks_the_whole_log_from_tiles(keys: Keys, reads: APIClient) -> None:
    row = keys.add()
    size = signed(560).size
    assert 512 < size < 600
    log = LogClient(reads, log_keys.vkey_of(row))
    head = log.head()
    assert head.size == size
    entries, leaves = log.entries(size), log.hashes(size, 0)
    assert [hashlib.sha256(b"\x00" + entry).digest() for entry in entries] == leaves
    assert root_of(leaves) == head.root
    # Each hash of a tile above is the root of a full tile below.
    assert log.hashes(size, 1) == [root_of(leaves[:256]), root_of(leaves[256:512])]
    assert entries == [bytes(e) for e in SealEntry.objects.order_by("index").values_list("entry", flat=True)]


def test_an_earlier_size_that_was_signed_stays_readable(keys: Keys, reads: APIClient) -> None:
    row = keys.add()
    first = signed(5)
    signed(260)
    log = LogClient(reads, log_keys.vkey_of(row))
    assert root_of(log.hashes(first.size, 0)) == bytes(first.root)
    assert len(log.entries(first.size)) == first.size


@pytest.mark.parametrize(
    "path",
    (
        "tile/0/001",
        "tile/0/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/200",
        "tile/0/000.p/",
        "tile/0/000.p/1/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000.p/1",
        "tile/0/x001/x234/067",
        "tile/0/001/000",
        "tile/0/x1/000",
        "tile/0/-01",
        "tile/0/٠٠٠.p/1",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x999/" * 30 + "999",
        "tile/1/000.p/1",
        "tile/00/000.p/1",
        "tile/-1/000.p/1",
        "tile/64/000.p/1",
        "tile/63/000.p/1",
        "tile/100/000.p/1",
        "tile/entries/000",
        "tile/entries/000.p/200",
        "tile/leaves/000.p/1",
        "tile/0",
        "tile/",
        "tile",
        "",
        "checkpoint/",
        "nothing",
    ),
)
def test_what_is_not_there_is_404(keys: Keys, reads: APIClient, path: str) -> None:
    keys.add()
    signed(3)
    answer = reads.get(f"/tlog/{path}")
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/json"


def test_before_the_first_head_there_is_nothing(reads: APIClient) -> None:
    append(draft())
    for path in ("checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"):
        assert reads.get(f"/tlog/{path}").status_code == 404


def test_what_was_not_signed_yet_is_not_in_the_log_that_is_served(keys: Keys, reads: APIClient) -> None:
    keys.add()
    size = signed(3).size
    append(draft())
    assert reads.get(f"/tlog/tile/0/000.p/{size}").status_code == 200
    assert reads.get(f"/tlog/tile/0/000.p/{size + 1}").status_code == 404


@pytest.mark.parametrize("index", (0, 1, 67, 999, 1000, 70_000, 1_234_067, 999_999_999, 1_000_000_000))
def test_a_tile_is_written_one_way(index: int) -> None:
    full, partial = tiles.Tile(index, 256), tiles.Tile(index, 8)
    assert full.path == encoded(index)
    assert partial.path == encoded(index) + ".p/8"
    assert tiles.Tile.of(full.path) == full
    assert tiles.Tile.of(partial.path) == partial
    assert encoded(1_234_067) == "x001/x234/067"  # the specification's own example


def test_caches_may_keep_what_never_changes_and_only_that(keys: Keys, reads: APIClient) -> None:
    keys.add()
    signed(3)
    assert "no-cache" in reads.get("/tlog/checkpoint")["Cache-Control"]
    for path in ("tile/0/000.p/3", "tile/entries/000.p/3"):
        kept = reads.get(f"/tlog/{path}")["Cache-Control"]
        assert "immutable" in kept
        # It took a token to read; no cache between may hand it on.
        assert "private" in kept
    for path in ("checkpoint", "tile/0/000.p/3"):
        assert reads.head(f"/tlog/{path}").status_code == 200


def test_bundles_are_compressed_for_who_takes_it(keys: Keys, reads: APIClient) -> None:
    keys.add()
    signed(20)
    plain = reads.get("/tlog/tile/entries/000.p/20", HTTP_ACCEPT_ENCODING="identity")
    packed = reads.get("/tlog/tile/entries/000.p/20", HTTP_ACCEPT_ENCODING="gzip, br")
    assert "Content-Encoding" not in plain
    assert packed["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.content) == plain.content
    assert len(packed.content) < len(plain.content) / 2
    assert "Accept-Encoding" in packed["Vary"]


def test_a_log_with_gaps_is_not_served_as_if_whole(keys: Keys, reads: APIClient) -> None:
    keys.add()
    signed(3)
    guards.drop()
    MerkleNode.objects.filter(level=0, index=1).delete()
    SealEntry.objects.filter(index=1).delete()
    for path in ("tile/0/000.p/3", "tile/entries/000.p/3"):
        answer = reads.get(f"/tlog/{path}")
        assert (answer.status_code, answer.json()["code"]) == (503, "ledger_damaged")
    assert reads.get("/tlog/tile/0/000.p/1").status_code == 200


def test_a_tile_at_a_million_is_one_range(keys: Keys, reads: APIClient, auditor: Person) -> None:
    keys.add()
    signed(300)
    reads.get("/tlog/checkpoint")
    with rows_read() as read:
        assert tiles.hashes("0", "000")
        assert tiles.entries("000")
    assert read.rows == 2 * (256 + 1)
    assert read.queries == 4


# --- proofs -----------------------------------------------------------------------------------------------------


def read_proof(text: str) -> tuple[int, list[bytes], str]:
    """Index, path and note of a tlog-proof."""
    first, index, *lines = text.split("\n")
    assert first == "c2sp.org/tlog-proof@v1"
    blank = lines.index("")
    assert index.startswith("index ")
    path = [base64.b64decode(line, validate=True) for line in lines[:blank]]
    return int(index.removeprefix("index ")), path, "\n".join(lines[blank + 1 :])


def test_a_record_is_proven_by_one_text(keys: Keys, reads: APIClient) -> None:
    row = keys.add()
    made = signed(20)
    for record in Record.objects.filter(index__lt=made.size):
        answer = reads.get(f"/api/v1/records/{record.record_id}/proof")
        assert answer.status_code == 200
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert f"{record.record_id}.tlog-proof" in answer["Content-Disposition"]
        index, path, note = read_proof(answer.content.decode())
        seal = reads.get(f"/api/v1/records/{record.record_id}/seal")
        leaf = hashlib.sha256(b"\x00" + seal.content).digest()
        head = notes.parse_checkpoint(notes.opened(note, [Verifier.from_vkey(log_keys.vkey_of(row))]).text)
        assert index == record.index
        assert merkle.verify_inclusion(leaf, index, head.size, path, head.root)
        assert not merkle.verify_inclusion(leaf, index + 1, head.size, path, head.root)


def test_a_record_that_no_head_reaches_yet_has_no_proof(keys: Keys, reads: APIClient) -> None:
    (early,) = append(draft())
    address = f"/api/v1/records/{early.record_id}/proof"
    assert reads.get(address).json()["code"] == "not_signed_yet"
    keys.add()
    checkpoints.make(clock=system_clock)
    assert reads.get(address).status_code == 200
    (late,) = append(draft())
    answer = reads.get(f"/api/v1/records/{late.record_id}/proof")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_signed_yet")
    assert reads.get("/api/v1/records/nothing-1/proof").status_code == 404


def test_no_proof_is_handed_out_that_does_not_verify(keys: Keys, reads: APIClient) -> None:
    keys.add()
    signed(4)
    guards.drop()
    MerkleNode.objects.filter(level=0, index=2).update(hash=b"0" * 32)
    record = Record.objects.get(index=3)
    answer = reads.get(f"/api/v1/records/{record.record_id}/proof")
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_damaged")


def test_an_erased_record_keeps_its_proof(keys: Keys, reads: APIClient) -> None:
    keys.add()
    signed(3)
    guards.drop()
    Record.objects.filter(index=2).update(body=None)
    record = Record.objects.get(index=2)
    assert reads.get(f"/api/v1/records/{record.record_id}/proof").status_code == 200


def test_one_size_extends_another(keys: Keys, reads: APIClient) -> None:
    keys.add()
    heads = [signed(number) for number in (3, 1, 9)]
    for old in heads:
        for new in heads:
            answer = reads.get(f"/api/v1/ledger/consistency?from={old.size}&to={new.size}")
            if old.size > new.size:
                assert (answer.status_code, answer.json()["code"]) == (400, "tree_size")
                continue
            found = answer.json()
            hashes = [base64.b64decode(each) for each in found["hashes"]]
            assert base64.b64decode(found["first_root"]) == bytes(old.root)
            assert base64.b64decode(found["second_root"]) == bytes(new.root)
            assert merkle.verify_consistency(old.size, new.size, hashes, bytes(old.root), bytes(new.root))


def test_no_consistency_is_claimed_that_does_not_verify(keys: Keys, reads: APIClient) -> None:
    size = signed_without_a_key(12)
    guards.drop()
    MerkleNode.objects.filter(level=0, index=3).update(hash=b"0" * 32)
    answer = reads.get(f"/api/v1/ledger/consistency?from=3&to={size}")
    assert (answer.status_code, answer.json()["code"]) == (503, "ledger_damaged")


def signed_without_a_key(number: int) -> int:
    append(*(draft() for _ in range(number)))
    return LedgerHead.objects.get().size


@pytest.mark.parametrize(
    "query",
    (
        "",
        "from=1",
        "to=1",
        "from=0&to=1",
        "from=1&to=0",
        "from=-1&to=1",
        "from=a&to=1",
        "from=1.5&to=2",
        "from=1e3&to=2",
        "from=2&to=1",
        "from=1&to=1000000",
        "from=1&to=99999999999999999999999999",
        "from=%00&to=1",
    ),
)
def test_no_other_sizes_have_a_proof(keys: Keys, reads: APIClient, query: str) -> None:
    append(draft(), draft())
    answer = reads.get(f"/api/v1/ledger/consistency?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] in ("tree_size", "invalid_text")


# --- heads, keys, anchors ---------------------------------------------------------------------------------------


def post(by: Person, body: Any = None) -> Any:
    return client(by).post("/api/v1/ledger/checkpoints", {} if body is None else body, format="json")


def test_an_auditor_has_the_log_signed(keys: Keys, auditor: Person) -> None:
    keys.add()
    append(draft())
    answer = post(auditor)
    assert answer.status_code == 200
    found = answer.json()
    newest = Checkpoint.objects.get()
    # The token that the call came with is a record too, and is covered.
    assert found["checkpoint"]["size"] == newest.size == LedgerHead.objects.get().size
    assert found["checkpoint"]["note"] == newest.note
    assert found["checkpoint"]["root_hash"] == bytes(newest.root).hex()
    assert found["existing"] is False
    again = post(auditor).json()
    assert again["existing"] is True
    assert again["checkpoint"] == found["checkpoint"]


def test_without_a_key_the_answer_says_so(auditor: Person) -> None:
    answer = post(auditor)
    assert (answer.status_code, answer.json()["code"]) == (409, "ledger_key_missing")


def test_an_old_head_is_no_answer_to_who_asks_for_a_new_one(keys: Keys, auditor: Person) -> None:
    keys.add()
    signed(1)
    keys.configure()
    append(draft())
    assert post(auditor).json()["code"] == "ledger_key_missing"


def test_a_log_that_was_changed_is_not_signed_by_request(keys: Keys, auditor: Person) -> None:
    keys.add()
    client(auditor)
    append(draft())
    guards.drop()
    Record.objects.filter(index=1).update(body=b"{}")
    answer = post(auditor)
    assert (answer.status_code, answer.json()["code"]) == (409, "ledger_differs")
    assert "Entry 1" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "code"), (([], "not_json"), ({"actor_token": "x"}, "identity_in_body"), ("{", "not_json"))
)
def test_a_call_that_says_something_else_signs_nothing(
    keys: Keys, auditor: Person, body: Any, code: str
) -> None:
    keys.add()
    answer = post(auditor, body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not Checkpoint.objects.exists()
    assert post(auditor, {"note": "please"}).json()["ignored_keys"] == ["note"]


@pytest.mark.parametrize("role", Role)
def test_who_may_sign_and_who_may_read(keys: Keys, role: Role) -> None:
    keys.add()
    somebody = person(role)
    signed(1)
    assert post(somebody).status_code == (200 if role in (Role.AUDITOR, Role.ADMINISTRATOR) else 403)
    allowed = 403 if role == Role.VIEWER else 200
    for path in (
        "/tlog/checkpoint",
        "/tlog/tile/0/000.p/1",
        "/tlog/tile/entries/000.p/1",
        "/api/v1/ledger/checkpoints",
        "/api/v1/ledger/keys",
        "/api/v1/ledger/anchors",
        "/api/v1/ledger/consistency?from=1&to=1",
    ):
        assert client(somebody).get(path).status_code == allowed, path
        assert Client().get(path).status_code == 401, path


def test_heads_are_listed_newest_first_and_paged(keys: Keys, reads: APIClient) -> None:
    keys.add()
    made = [signed(1) for _ in range(5)]
    first = reads.get("/api/v1/ledger/checkpoints?limit=3").json()
    assert [item["size"] for item in first["items"]] == [each.size for each in made[:1:-1]]
    assert (first["total"], first["total_is_exact"]) == (5, True)
    rest = reads.get(f"/api/v1/ledger/checkpoints?limit=3&cursor={first['cursor']}").json()
    assert [item["note"] for item in rest["items"]] == [each.note for each in made[1::-1]]
    assert rest["cursor"] is None
    assert reads.get("/api/v1/ledger/checkpoints?limit=0").status_code == 400
    assert reads.get("/api/v1/ledger/checkpoints?cursor=x").status_code == 400


def test_keys_are_listed_with_what_became_of_them(keys: Keys, reads: APIClient) -> None:
    old, new = keys.add("old"), keys.add("new")
    signed(1)
    log_keys.retire(old.key_id, reason="yearly", by=None, clock=Clock(system_clock() + timedelta(seconds=1)))
    first, second = reads.get("/api/v1/ledger/keys").json()["items"]
    assert (first["key_id"], first["state"], first["reason"]) == (old.key_id, "retired", "yearly")
    assert (second["state"], second["ended_at"]) == ("active", None)
    assert Verifier.from_vkey(second["vkey"]).public_key == bytes(new.public_key)


def test_reading_the_log_writes_nothing(keys: Keys, reads: APIClient) -> None:
    keys.add()
    record = Record.objects.get(index=signed(3).size - 1)
    before = LedgerHead.objects.get().size
    for path in (
        "/tlog/checkpoint",
        "/tlog/tile/0/000.p/3",
        f"/api/v1/records/{record.record_id}/proof",
        "/api/v1/ledger/consistency?from=1&to=3",
        "/api/v1/ledger/checkpoints",
    ):
        reads.get(path)
    assert LedgerHead.objects.get().size == before
    assert Checkpoint.objects.count() == 1
