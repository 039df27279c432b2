"""Signed notes and tree heads as C2SP writes them, read from others and written by us."""

import base64
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from evidence.domain import notes
from evidence.domain.notes import Head, Signer, Verifier
from evidence.errors import InvalidInput

# The example of c2sp.org/signed-note.
PUBLISHED_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
PUBLISHED_NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The key of the Go checksum database, as everybody's go command has it.
SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"

LOG = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NEXT = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
OTHER = Signer("example.com/other", LOG.key)
HEAD = Head("example.com/log", 20852163, bytes(range(32)))
NOTE = notes.signed(HEAD.text, [LOG])


def verifier(signer: Signer) -> Verifier:
    return Verifier.from_vkey(signer.vkey)


def refused(note: str, *signers: Signer) -> str:
    with pytest.raises(InvalidInput) as caught:
        notes.opened(note, [verifier(signer) for signer in signers or (LOG,)])
    return caught.value.code


# --- notes of others ------------------------------------------------------------------------------------------------


def test_a_published_note_verifies() -> None:
    key = Verifier.from_vkey(PUBLISHED_KEY)
    opened = notes.opened(PUBLISHED_NOTE, [key])
    assert opened == notes.Opened("This is an example message.\n", (key,))
    assert key.vkey == PUBLISHED_KEY


def test_a_published_note_with_one_letter_changed_does_not() -> None:
    key = Verifier.from_vkey(PUBLISHED_KEY)
    with pytest.raises(InvalidInput) as caught:
        notes.opened(PUBLISHED_NOTE.replace("example message", "Example message"), [key])
    assert caught.value.code == "signature"


@pytest.mark.parametrize("vkey", (PUBLISHED_KEY, SUMDB_KEY, LOG.vkey))
def test_a_verifier_key_reads_back_as_it_was_written(vkey: str) -> None:
    assert Verifier.from_vkey(vkey).vkey == vkey


@pytest.mark.parametrize(
    "vkey",
    (
        "",
        "example.com/foo",
        PUBLISHED_KEY.replace("530d903a", "530d903b"),
        PUBLISHED_KEY.replace("530d903a", "530D903A"),
        PUBLISHED_KEY.replace("example.com/foo", "example.com/fop"),
        PUBLISHED_KEY.replace("example.com/foo", "example.com foo"),
        PUBLISHED_KEY.removeprefix("example.com/foo"),
        PUBLISHED_KEY + "=",
        PUBLISHED_KEY[:-4],
        # ECDSA and ML-DSA-44 have types that are not read here.
        notes.vkey("example.com/foo", bytes(32), 0x02),
        notes.vkey("example.com/foo", bytes(1312), 0x06),
    ),
)
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Verifier.from_vkey(vkey)
    assert caught.value.code == "vkey"


# --- notes of ours --------------------------------------------------------------------------------------------------


def test_a_head_is_three_lines_and_a_signature() -> None:
    origin, size, root, blank, signature, end = NOTE.split("\n")
    assert (origin, size, blank, end) == ("example.com/log", "20852163", "", "")
    assert base64.b64decode(root) == HEAD.root
    dash, name, encoded = signature.split(" ")
    assert (dash, name) == ("—", "example.com/log")
    data = base64.b64decode(encoded)
    assert len(data) == 4 + 64
    assert data[:4] == notes.key_id(LOG.name, LOG.public_key) == verifier(LOG).key_id


def test_a_signed_head_opens() -> None:
    opened = notes.opened(NOTE, [verifier(LOG)])
    assert notes.parse_checkpoint(opened.text) == HEAD
    assert opened.signed_by == (verifier(LOG),)


def test_several_keys_sign_one_note_and_each_is_named() -> None:
    note = notes.signed(HEAD.text, [LOG, NEXT])
    assert notes.opened(note, map(verifier, (LOG, NEXT))).signed_by == (verifier(LOG), verifier(NEXT))
    # Who knows one of them reads it as well; the other signature is ignored.
    assert notes.opened(note, [verifier(NEXT)]).signed_by == (verifier(NEXT),)


def test_the_same_key_under_another_name_is_another_key() -> None:
    assert refused(NOTE, OTHER) == "unknown_key"
    assert refused(NOTE, NEXT) == "unknown_key"


def test_one_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    head, _, other = notes.signed("x\n", [NEXT]).rpartition("\n\n")
    assert head
    assert refused(NOTE + other, LOG, NEXT) == "signature"
    # Nobody who does not know that key can tell.
    assert notes.opened(NOTE + other, [verifier(LOG)]).signed_by == (verifier(LOG),)


def flips(note: str) -> Iterator[str]:
    """The note with each bit of its bytes turned over, where that is still text."""
    data = note.encode()
    for place in range(len(data)):
        for bit in range(8):
            changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            try:
                yield changed.decode()
            except UnicodeDecodeError:
                continue


def test_no_bit_of_a_note_may_change() -> None:
    for changed in flips(NOTE):
        assert refused(changed) in ("note", "signature", "unknown_key")


@pytest.mark.parametrize(
    "note",
    (
        "",
        "\n",
        HEAD.text,
        HEAD.text + "\n",
        NOTE.removesuffix("\n"),
        NOTE + "\n",
        NOTE + "a line of something else\n",
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—  "),
        NOTE.replace("example.com/log ", "example.com/+log "),
        NOTE.replace("\n", "\r\n"),
        NOTE + "\x00",
        "\ud800" + NOTE,
        NOTE + "— example.com/log AAAA\n",
        NOTE + NOTE.splitlines()[-1].rstrip("=") + "\n",
        "x" * notes.MAX_NOTE + "\n\n" + NOTE,
        NOTE + f"— other.example {'A' * 92}\n" * notes.MAX_SIGNATURES,
    ),
)
def test_what_is_no_note_is_refused(note: str) -> None:
    assert refused(note) == "note"


def test_sixteen_signatures_are_read() -> None:
    """More than the format asks of who reads; a known one may be the last."""
    note = notes.signed(HEAD.text, [Signer(f"w{n}.example", LOG.key) for n in range(15)] + [LOG])
    assert notes.opened(note, [verifier(LOG)]).text == HEAD.text


@given(st.text(max_size=40))
def test_no_text_makes_more_than_a_refusal(text: str) -> None:
    for attempt in (text, text + "\n\n" + text, NOTE + text):
        try:
            notes.opened(attempt, [verifier(LOG)])
        except InvalidInput:
            continue
        assert attempt == NOTE


@pytest.mark.parametrize("text", ("no newline at the end", "a\ttab\n", "a\rreturn\n", ""))
def test_what_cannot_be_a_note_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="note text"):
        notes.signed(text, [LOG])


@pytest.mark.parametrize("name", ("", "a b", "a+b", "a\u2003b"))
def test_a_name_that_breaks_the_line_does_not_sign(name: str) -> None:
    with pytest.raises(ValueError, match="key names"):
        notes.signed(HEAD.text, [Signer(name, LOG.key)])


def test_a_private_key_is_not_shown() -> None:
    assert LOG.key.private_bytes_raw().hex() not in repr(LOG)
    assert "key=" not in repr(LOG).replace("public_key=", "")


# --- tree heads -----------------------------------------------------------------------------------------------------


def test_extension_lines_are_left_alone() -> None:
    assert notes.parse_checkpoint(HEAD.text + "something of another log\n") == HEAD


def test_an_empty_log_has_a_head() -> None:
    empty = Head("log", 0, bytes(32))
    assert notes.parse_checkpoint(empty.text) == empty


@pytest.mark.parametrize(
    "text",
    (
        "",
        "log\n5\n",
        "log\n5\nAAAA\n",
        HEAD.text.removesuffix("\n"),
        HEAD.text + "\n",
        "\n" + HEAD.text,
        HEAD.text.replace("20852163", "020852163"),
        HEAD.text.replace("20852163", "-1"),
        HEAD.text.replace("20852163", "+1"),
        HEAD.text.replace("20852163", "1_000"),
        HEAD.text.replace("20852163", "٣"),
        HEAD.text.replace("20852163", "1" * 20),
        HEAD.text.replace("20852163", ""),
    ),
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        notes.parse_checkpoint(text)
    assert caught.value.code == "checkpoint"


# --- cosignatures of witnesses --------------------------------------------------------------------------------------


def cosigned(time: int, *, text: str = HEAD.text) -> tuple[str, Verifier]:
    """A witness's line over a head (tlog-cosignature), and the key that checks it."""
    key = Verifier("witness.example/w1", LOG.public_key, notes.COSIGNATURE)
    signature = LOG.key.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
    data = key.key_id + time.to_bytes(8, "big") + signature
    return f"— {key.name} {base64.b64encode(data).decode()}\n", key


def test_a_witness_signs_the_time_as_well() -> None:
    line, key = cosigned(1679315147)
    assert notes.opened(NOTE + line, [key]).signed_by == (key,)
    assert Verifier.from_vkey(key.vkey) == key
    assert key.key_id != verifier(Signer(key.name, LOG.key)).key_id
    _, signatures = notes.parse(NOTE + line)
    assert notes.cosigned_at(signatures[-1].signature) == 1679315147


def test_a_cosignature_over_another_head_or_time_is_refused() -> None:
    line, key = cosigned(1679315147, text=HEAD.text.replace("20852163", "20852164"))
    with pytest.raises(InvalidInput):
        notes.opened(NOTE + line, [key])
    line, key = cosigned(1679315147)
    _, (*_, signature) = notes.parse(NOTE + line)
    later = (1679315148).to_bytes(8, "big") + signature.signature[8:]
    assert not key.verifies(HEAD.text, later)
    assert not key.verifies(HEAD.text, b"")
