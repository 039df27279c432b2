"""Heads held outside: by a file, a repository, a time-stamp authority and a witness that take nothing on trust."""

import contextlib
import io
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction

from evidence.connectors import exchange, timestamps
from evidence.documents import LEDGER_ANCHOR
from evidence.domain import anchors, checkpoints, heads, keepers, log_keys, notes, verification
from evidence.domain.anchors import Kept
from evidence.domain.clock import system_clock
from evidence.domain.keepers import Keeper
from evidence.domain.notes import Verifier
from evidence.domain.safety_rules import RULESET
from evidence.enums import Administration, AnchorMeans, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed, Unavailable
from evidence.models import Anchor, Checkpoint
from tests.builders import person
from tests.endpoints import client
from tests.evidence.keepers import Authority, Reply, Served, Witness
from tests.evidence.ledger_keys import Keys
from tests.evidence.rows import append, draft
from tests.evidence.watch import appended

pytestmark = pytest.mark.django_db
LOOPBACK = ("127.0.0.0/8",)
Serve = Callable[[Any], Served]


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("anchor", *arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    started: list[Served] = []

    def start(answering: Any) -> Served:
        started.append(Served(answering))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def log(keys: Keys) -> Verifier:
    """The key that a witness of this log knows."""
    return Verifier.from_vkey(log_keys.vkey_of(keys.add()))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tsa"))


def signed(number: int = 1) -> Checkpoint:
    append(*(draft() for _ in range(number)))
    return checkpoints.to_hand_out(clock=system_clock)


def witnessed(url: str, witness: Witness) -> Keeper:
    return Keeper.of(f"tlog-witness:{url}", witness_key=witness.vkey, allow_networks=LOOPBACK)


def stamped(url: str) -> Keeper:
    return Keeper.of(f"rfc3161:{url}", allow_networks=LOOPBACK)


def fails(keeper: Keeper, head: Checkpoint) -> str:
    """Why a keeper's answer is not accepted."""
    with pytest.raises(Unavailable) as refused:
        keeper.keep(head)
    assert refused.value.code == "anchor_failed"
    return refused.value.detail


# --- file and git -----------------------------------------------------------------------------------------------


def test_a_file_keeps_every_head_in_order(log: Verifier, tmp_path: Path) -> None:
    path = tmp_path / "heads"
    made = []
    for _ in range(3):
        append(draft())
        printed = run("--to", f"file:{path}", "--administered-by", "organisation")
        made.append(checkpoints.newest())
    assert str(path) in printed
    found = heads.split(path.read_text())
    assert found == [each.note for each in made if each]
    assert [heads.hold_against(note).verdict for note in found] == ["extends"] * 3


def test_a_head_in_a_file_is_a_record_and_says_who_keeps_it(log: Verifier, tmp_path: Path) -> None:
    with appended() as new:
        run("--to", f"file:{tmp_path / 'heads'}", "--administered-by", "us")
    assert new.kinds == [LEDGER_ANCHOR.name]
    anchor = Anchor.objects.get()
    head = checkpoints.newest()
    assert head
    assert new.payloads[0] | {"at": "", "schema_version": ""} == {
        "schema_version": "",
        "product": "CAVRA",
        "anchor_id": anchor.anchor_id,
        "origin": head.origin,
        "size": head.size,
        "root_hash": bytes(head.root).hex(),
        "note_sha256": new.payloads[0]["note_sha256"],
        "means": "file",
        "place": str(tmp_path / "heads"),
        "administered_by": "us",
        "attested_at": "",
        "proof_sha256": new.payloads[0]["proof_sha256"],
        "at": "",
        "controls": [f"{RULESET}:clean"],
    }
    assert verification.report().first is None


def test_a_repository_keeps_a_head_as_a_commit(log: Verifier, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], capture_output=True, check=True, text=True
        ).stdout

    git("init", "--quiet")
    (tmp_path / "other").write_text("not ours")
    for number in (1, 2):
        append(draft())
        run("--to", f"git:{tmp_path}", "--administered-by", "third-party")
        commit = bytes(Anchor.objects.order_by("-pk")[0].proof).decode()
        assert git("rev-parse", "HEAD").strip() == commit
        assert len(heads.split(git("show", f"{commit}:heads"))) == number
    # Only what is ours was committed.
    assert git("ls-files").split() == ["heads"]


def test_what_is_no_repository_keeps_nothing(log: Verifier, tmp_path: Path) -> None:
    head = signed()
    assert "git" in fails(Keeper.of(f"git:{tmp_path}"), head)
    assert "git" in fails(Keeper.of(f"git:{tmp_path / 'missing'}"), head)
    assert list(tmp_path.glob("heads")) == []


def test_a_file_that_cannot_be_written_is_no_anchor(log: Verifier, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        run("--to", f"file:{tmp_path / 'missing' / 'heads'}", "--administered-by", "us")
    assert not Anchor.objects.exists()


# --- time-stamp authority ---------------------------------------------------------------------------------------


def test_an_authority_stamps_the_head(log: Verifier, serve: Serve, authority: Authority) -> None:
    place = serve(authority).url
    run(
        *("--to", f"rfc3161:{place}/tsa", "--administered-by", "third-party"),
        *("--allow-network", LOOPBACK[0]),
    )
    anchor = Anchor.objects.get()
    assert anchor.attested_at
    assert abs(anchor.attested_at - system_clock()) < timedelta(minutes=1)
    # What is kept satisfies openssl, and for this note alone.
    assert authority.accepts(bytes(anchor.proof), anchor.note.encode())
    assert not authority.accepts(bytes(anchor.proof), anchor.note.encode() + b"x")


def test_a_stamp_of_other_bytes_or_another_request_is_refused(
    log: Verifier, serve: Serve, authority: Authority
) -> None:
    head = signed()
    other = authority("/", timestamps.REQUEST_TYPE, timestamps.request(b"1" * 32, 7))
    assert "about other bytes" in fails(stamped(serve(lambda *_: other).url), head)

    def replayed(path: str, kind: str, body: bytes) -> Reply:
        digest = body[body.index(b"\x04\x20") + 2 :][:32]
        return authority(path, kind, timestamps.request(digest, 7))

    assert "another request" in fails(stamped(serve(replayed).url), head)


def test_a_stamp_that_was_not_granted_is_refused(log: Verifier, serve: Serve) -> None:
    refused = timestamps.encoded(
        timestamps.SEQUENCE, timestamps.encoded(timestamps.SEQUENCE, timestamps.integer(2))
    )
    reply = Reply(200, refused, timestamps.RESPONSE_TYPE)
    assert "did not grant" in fails(stamped(serve(lambda *_: reply).url), signed())


def test_no_byte_of_a_stamp_makes_more_than_a_refusal(authority: Authority) -> None:
    """Cut short anywhere, or with any byte of its start changed: refused, or still about our request."""
    digest = bytes(range(32))
    good = authority("/", timestamps.REQUEST_TYPE, timestamps.request(digest, 2**62)).body
    moment = timestamps.stamped_at(good, digest, 2**62)
    assert moment.tzinfo == UTC
    for length in range(len(good)):
        with pytest.raises(timestamps.BadTimestamp):
            timestamps.stamped_at(good[:length], digest, 2**62)
    with pytest.raises(timestamps.BadTimestamp, match="follows"):
        timestamps.stamped_at(good + b"\0", digest, 2**62)
    start = good.index(digest) + len(digest)
    for place in range(start + 40):
        for bit in (0x01, 0x20, 0x80):
            changed = bytes([*good[:place], good[place] ^ bit, *good[place + 1 :]])
            try:
                found = timestamps.stamped_at(changed, digest, 2**62)
            except timestamps.BadTimestamp:
                continue
            assert isinstance(found, datetime)


@pytest.mark.parametrize(
    ("time", "expected"),
    (
        ("20260601103000Z", datetime(2026, 6, 1, 10, 30, tzinfo=UTC)),
        ("20260601103000.5Z", datetime(2026, 6, 1, 10, 30, 0, 500_000, tzinfo=UTC)),
        ("20260601103000.1234567Z", datetime(2026, 6, 1, 10, 30, 0, 123_456, tzinfo=UTC)),
        ("20260601103000", None),
        ("20260601103000+0100", None),
        ("20261301103000Z", None),
        ("20260601103000.xZ", None),
        ("", None),
    ),
)
def test_times_of_a_stamp(time: str, expected: datetime | None) -> None:
    element = timestamps.encoded(timestamps.GENERALIZED_TIME, time.encode())
    integer, sequence, oid = timestamps.integer, timestamps.SEQUENCE, timestamps.OID
    encoded = timestamps.encoded
    imprint = timestamps.Element(0, timestamps.request(b"1" * 32, 5)).parts()[0].parts()[1]
    info = encoded(
        *(sequence, integer(1), encoded(oid, b"\x2a"), encoded(sequence, imprint.content), integer(9)),
        *(element, integer(5)),
    )
    octets = encoded(timestamps.EXPLICIT_0, encoded(timestamps.OCTET_STRING, info))
    content = encoded(sequence, encoded(oid, bytes.fromhex("2a864886f70d0109100104")), octets)
    data = encoded(sequence, integer(3), encoded(0x31), content)
    token = encoded(
        sequence,
        encoded(oid, bytes.fromhex("2a864886f70d010702")),
        encoded(timestamps.EXPLICIT_0, data),
    )
    response = encoded(sequence, encoded(sequence, integer(0)), token)
    if expected:
        assert timestamps.stamped_at(response, b"1" * 32, 5) == expected
    else:
        with pytest.raises(timestamps.BadTimestamp):
            timestamps.stamped_at(response, b"1" * 32, 5)


@pytest.mark.parametrize("value", (0, 1, 127, 128, 255, 256, 2**63 - 1))
def test_numbers_are_written_without_a_sign(value: int) -> None:
    data = timestamps.integer(value)
    assert int.from_bytes(data[2:], "big", signed=True) == value


# --- witness ----------------------------------------------------------------------------------------------------


def test_a_witness_cosigns_head_after_head(log: Verifier, serve: Serve) -> None:
    witness = Witness(log)
    place = serve(witness).url
    for number in (1, 3, 8):
        append(*(draft() for _ in range(number)))
        run(
            *("--to", f"tlog-witness:{place}", "--administered-by", "third-party"),
            *("--witness-key", witness.vkey, "--allow-network", LOOPBACK[0]),
        )
        anchor = Anchor.objects.order_by("-pk")[0]
        assert (witness.size, witness.root) == (anchor.size, bytes(anchor.root))
        note = anchor.note + bytes(anchor.proof).decode()
        assert notes.opened(note, [Verifier.from_vkey(witness.vkey), log]).signed_by
        assert anchor.attested_at == datetime.fromtimestamp(witness.now, UTC)


def test_a_witness_that_knows_more_than_is_known_here_is_asked_from_there(
    log: Verifier, serve: Serve
) -> None:
    """Our note of what it has may be lost, or another machine was there before."""
    witness = Witness(log)
    served = serve(witness)
    witnessed(served.url, witness).keep(signed(3))
    head = signed(4)
    witnessed(served.url, witness).keep(head)
    assert witness.size == head.size
    # Once from nothing, then refused from nothing and taken from the size it named.
    assert [body.split(b"\n", 1)[0] for body in served.asked] == [
        b"old 0",
        b"old 0",
        b"old %d" % Checkpoint.objects.earliest("pk").size,
    ]


def test_a_witness_that_has_a_larger_head_gives_the_restored_database_away(
    log: Verifier, serve: Serve
) -> None:
    witness = Witness(log)
    witness.size = 1000
    assert "not the one that was worked with last" in fails(witnessed(serve(witness).url, witness), signed())


def test_a_witness_takes_no_other_history(log: Verifier, serve: Serve) -> None:
    witness = Witness(log)
    witness.size, witness.root = 2, b"0" * 32
    assert "answered 422" in fails(witnessed(serve(witness).url, witness), signed(3))


def test_a_witness_that_does_not_know_the_log_takes_nothing(log: Verifier, serve: Serve) -> None:
    witness = Witness(Verifier("other.example/log", log.public_key))
    assert "answered 404" in fails(witnessed(serve(witness).url, witness), signed())
    stranger = Witness(Verifier(log.name, b"1" * 32))
    assert "answered 403" in fails(witnessed(serve(stranger).url, stranger), signed())


@pytest.mark.parametrize(
    "wrong",
    (
        lambda witness, head: Witness(witness.log).line(head),
        lambda witness, head: witness.line(head.replace("\n", "x\n", 1)),
        lambda witness, head: "",
        lambda witness, head: "thank you\n",
        lambda witness, head: witness.line(head).replace("— ", "- "),
        lambda witness, head: "\n" + witness.line(head),
        lambda witness, head: witness.line(head).rstrip("\n"),
    ),
)
def test_what_is_no_cosignature_of_this_witness_is_no_anchor(
    log: Verifier, serve: Serve, wrong: Callable[[Witness, str], str]
) -> None:
    witness, head = Witness(log), signed()
    text = notes.parse(head.note)[0]
    reply = Reply(200, wrong(witness, text).encode())
    assert "no cosignature of this witness" in fails(witnessed(serve(lambda *_: reply).url, witness), head)
    assert not Anchor.objects.exists()


def test_a_cosignature_without_a_time_is_refused(log: Verifier, serve: Serve) -> None:
    witness = Witness(log)
    witness.now = 0
    assert "no usable time" in fails(witnessed(serve(witness).url, witness), signed())


@pytest.mark.parametrize("answer", (Reply(409, b"5\n"), Reply(409, b"x\n", "text/x.tlog.size"), Reply(500)))
def test_a_witness_that_answers_otherwise_is_not_asked_for_ever(
    log: Verifier, serve: Serve, answer: Reply
) -> None:
    served = serve(lambda *_: answer)
    fails(witnessed(served.url, Witness(log)), signed())
    assert len(served.asked) == 1
    changing = serve(lambda *_: Reply(409, b"1\n", "text/x.tlog.size"))
    fails(witnessed(changing.url, Witness(log)), signed())
    assert len(changing.asked) == 3


# --- how it gets there ------------------------------------------------------------------------------------------


def test_private_addresses_are_reached_by_permission_only(log: Verifier, serve: Serve) -> None:
    served = serve(Witness(log))
    keeper = Keeper.of(f"tlog-witness:{served.url}", witness_key=Witness(log).vkey)
    assert "address is not allowed: loopback" in fails(keeper, signed())
    assert served.asked == []


def test_no_redirect_is_followed_and_no_proxy_asked(
    log: Verifier, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = serve(lambda *_: Reply(200))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.url)
    served = serve(lambda *_: Reply(307, headers={"Location": elsewhere.url}))
    assert "answered 307" in fails(witnessed(served.url, Witness(log)), signed())
    assert (len(served.asked), elsewhere.asked) == (1, [])


def test_a_long_answer_is_not_read_to_its_end(log: Verifier, serve: Serve) -> None:
    served = serve(lambda *_: Reply(200, b"x" * (exchange.MAX_ANSWER + 1)))
    assert "longer than" in fails(witnessed(served.url, Witness(log)), signed())


@contextlib.contextmanager
def trickling(first: bytes, then: bytes) -> Iterator[int]:
    """The port of somebody who goes on saying a byte at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(first)
                    while not stop.wait(0.05):
                        connection.sendall(then)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("scheme", "first"),
    # Of TLS the head of a record of 16 KiB, in which the handshake begins.
    (("http", b"H"), ("https", b"\x16\x03\x03\x40\x00")),
    ids=("answer", "handshake"),
)
def test_what_trickles_is_broken_off(scheme: str, first: bytes) -> None:
    """Each byte comes well within the time, the whole does not."""
    with trickling(first, b"H") as port:
        url = f"{scheme}://127.0.0.1:{port}"
        with pytest.raises(exchange.ExchangeFailed, match="in time"):
            exchange.exchange(url, b"", "text/plain", allow_networks=LOOPBACK, timeout_s=0.3)


def test_a_name_that_takes_the_whole_time_leaves_none_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm that ends a connection went off before there was one."""
    real = socket.getaddrinfo

    def late(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return real(*args, **kwargs)

    with trickling(b"H", b"H") as port, monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", late)
        with pytest.raises(exchange.ExchangeFailed, match="in time"):
            exchange.exchange(
                f"http://127.0.0.1:{port}", b"", "text/plain", allow_networks=LOOPBACK, timeout_s=0.1
            )


@pytest.mark.parametrize(
    "url", ("http://127.0.0.1:1", "http://nothing.invalid", "https://127.0.0.1:1", "http://[::1]:1/x")
)
def test_nobody_there_is_said_without_the_address(url: str) -> None:
    with pytest.raises(exchange.ExchangeFailed) as failed:
        exchange.exchange(url, b"", "text/plain", allow_networks=("127.0.0.0/8", "::1/128"), timeout_s=2)
    assert "127.0.0.1" not in str(failed.value)
    assert "invalid" not in str(failed.value)


def test_what_speaks_no_tls_is_refused(serve: Serve) -> None:
    url = serve(lambda *_: Reply(200)).url.replace("http:", "https:")
    with pytest.raises(exchange.ExchangeFailed, match="TLS"):
        exchange.exchange(url, b"", "text/plain", allow_networks=LOOPBACK, timeout_s=5)


@pytest.mark.parametrize(
    "target",
    (
        "",
        "file",
        "file:",
        "floppy:/a",
        "rfc3161:ftp://tsa.example",
        "rfc3161:tsa.example",
        "rfc3161:http://user:secret@tsa.example/",
        "rfc3161:http://tsa.example/?token=secret",
        "rfc3161:http://tsa.example/#x",
        "rfc3161:http://[::1",
        "rfc3161:http://tsa.example:99999/",
        "tlog-witness:http://w.example/",
        "file:/" + "x" * 500,
    ),
)
def test_what_is_no_keeper_is_refused_and_not_repeated(target: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Keeper.of(target)
    assert "secret" not in refused.value.detail


def test_a_witness_is_trusted_by_a_key_for_cosignatures(log: Verifier) -> None:
    with pytest.raises(InvalidInput) as refused:
        Keeper.of("tlog-witness:http://w.example", witness_key=log.vkey)
    assert refused.value.code == "vkey"
    with pytest.raises(InvalidInput):
        Keeper.of("file:/a", allow_networks=("127.0.0.1/8",))


# --- what it is worth -------------------------------------------------------------------------------------------


def hold(head: Checkpoint, administered_by: Administration, **more: Any) -> Anchor:
    kept = Kept(AnchorMeans.FILE, f"{administered_by}", b"")
    return anchors.hold(
        head, kept, **{"administered_by": administered_by, "by": None, "clock": system_clock, **more}
    )


def test_an_anchor_is_worth_what_its_keeper_is_out_of_our_reach(log: Verifier) -> None:
    head = signed()
    for each in (Administration.US, Administration.THIRD_PARTY, Administration.ORGANISATION):
        hold(head, each)
    rated = anchors.rated()
    assert [(each.worth, each.anchor.administered_by) for each in rated] == [
        (1, "organisation"),
        (2, "third-party"),
        (0, "us"),
    ]
    held = heads.hold_against(head.note)
    assert [each.worth for each in held.anchored] == [2, 1, 0]
    assert heads.hold_against(signed().note).anchored == ()


def test_anchors_are_listed_over_http(log: Verifier) -> None:
    hold(signed(), Administration.THIRD_PARTY)
    (item,) = client(person(Role.AUDITOR)).get("/api/v1/ledger/anchors").json()["items"]
    anchor = Anchor.objects.get()
    assert (item["anchor_id"], item["size"], item["worth"]) == (anchor.anchor_id, anchor.size, 2)
    assert (item["attested_at"], item["root_hash"]) == (None, bytes(anchor.root).hex())


def test_a_proof_is_taken_away_as_it_was_received(log: Verifier) -> None:
    kept = Kept(AnchorMeans.RFC3161, "https://tsa.example/", b"\x30\x03\x02\x01\x00", system_clock())
    anchor = anchors.hold(
        signed(), kept, administered_by=Administration.THIRD_PARTY, by=None, clock=system_clock
    )
    reads = client(person(Role.AUDITOR))
    answer = reads.get(f"/api/v1/ledger/anchors/{anchor.anchor_id}/proof")
    assert (answer.content, answer["Content-Type"]) == (kept.proof, "application/octet-stream")
    (item,) = reads.get("/api/v1/ledger/anchors").json()["items"]
    assert item["note"] == anchor.note
    for unknown in ("ledgeranchor-0", "x y", "%00"):
        assert reads.get(f"/api/v1/ledger/anchors/{unknown}/proof").status_code == 404


def test_who_may_remember_an_anchor(log: Verifier) -> None:
    head = signed()
    for role in Role:
        somebody = person(role)
        if role in (Role.AUDITOR, Role.ADMINISTRATOR):
            assert hold(head, Administration.US, by=somebody)
        else:
            with pytest.raises(NotAllowed):
                hold(head, Administration.US, by=somebody)


def test_the_database_keeps_anchors(log: Verifier) -> None:
    anchor = hold(signed(), Administration.US)
    for change in (lambda: Anchor.objects.update(size=1), anchor.delete):
        with pytest.raises(IntegrityError), transaction.atomic():
            change()


def test_without_a_key_there_is_nothing_to_hand_out(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no key is configured"):
        run("--to", f"file:{tmp_path / 'heads'}", "--administered-by", "us")
    assert not (tmp_path / "heads").exists()


def test_a_database_that_was_set_back_hands_out_nothing(log: Verifier, tmp_path: Path) -> None:
    head = signed()
    path = checkpoints.outside_path()
    path.parent.mkdir(exist_ok=True)
    larger = notes.Head(head.origin, head.size + 100, b"0" * 32)
    path.write_text(notes.signed(larger.text, log_keys.signers()))
    with pytest.raises(Conflict) as refused:
        checkpoints.to_hand_out(clock=system_clock)
    assert refused.value.code == "ledger_behind"
    with pytest.raises(CommandError, match="not the one that was worked with last"):
        run("--to", f"file:{tmp_path / 'heads'}", "--administered-by", "us")
    assert not (tmp_path / "heads").exists()


def test_every_means_has_a_keeper() -> None:
    assert set(keepers._KEEPERS) == set(AnchorMeans)
