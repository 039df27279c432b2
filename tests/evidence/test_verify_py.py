"""The verifier's own parts, each against what its specification or another implementation says."""

import ast
import base64
import hashlib
import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from evidence.domain import merkle, notes
from tests.evidence.verifier import FILE, run, verify

# RFC 8032, section 7.1: public key, message, signature.
RFC_8032 = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
)

# The eight points of order 1, 2, 4 and 8 in their one encoding, then other spellings of some of them.
SMALL_ORDER = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
)
NOT_CANONICAL = (
    "0100000000000000000000000000000000000000000000000000000000000080",  # x = 0 with a sign
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p + 1
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p + 3, a point of large order
)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_its_digest_is_the_published_one() -> None:
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert FILE.with_name("verify.py.sha256").read_text() == f"{digest}  verify.py\n"
    page = (FILE.parents[2] / "docs" / "capsule.md").read_text()
    assert digest in page


def test_it_is_one_file_for_python_3_9() -> None:
    tree = ast.parse(FILE.read_bytes(), feature_version=(3, 9))
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    }
    imported |= {
        (node.module or "").partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert imported <= _STANDARD


# Modules of Python 3.9's standard library that it uses; nothing of ours, nothing to install.
_STANDARD = {
    *("__future__", "argparse", "base64", "collections", "functools", "hashlib", "http", "io", "json", "os"),
    *("re", "stat", "struct", "sys", "typing", "urllib", "zlib"),
}


# --- Ed25519 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_signatures_of_rfc_8032_hold(key: str, message: str, signature: str) -> None:
    public, signed, signature_bytes = (bytes.fromhex(text) for text in (key, message, signature))
    assert verify.verified(public, signed, signature_bytes)
    assert not verify.verified(public, signed + b"\0", signature_bytes)
    for bit in range(512):
        flipped = bytearray(signature_bytes)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not verify.verified(public, signed, bytes(flipped)), bit


def test_it_agrees_with_another_implementation() -> None:
    chosen = random.Random(8032)
    for _ in range(20):
        key = Ed25519PrivateKey.from_private_bytes(chosen.randbytes(32))
        message = chosen.randbytes(chosen.randrange(200))
        signature = key.sign(message)
        assert verify.verified(key.public_key().public_bytes_raw(), message, signature)
        assert not verify.verified(key.public_key().public_bytes_raw(), message + b"x", signature)


@pytest.mark.parametrize(("key", "message", "signature"), RFC_8032)
def test_a_signature_has_one_spelling(key: str, message: str, signature: str) -> None:
    """S + L signs the same to whoever does not look (RFC 8032, section 5.1.7, step 1)."""
    raw = bytes.fromhex(signature)
    for times in range(1, 8):
        larger = int.from_bytes(raw[32:], "little") + times * verify.ORDER
        again = raw[:32] + larger.to_bytes(32, "little")
        assert not verify.verified(bytes.fromhex(key), bytes.fromhex(message), again)


def forged_by(key: bytes) -> tuple[bytes, bytes]:
    """A message, and a signature with S = 1 and R = B - k*A that fits a key of small order."""
    for number in range(64):
        message = b"paid %d" % number
        for times in range(8):
            # R = B + times * A, right when k = -times modulo the key's order.
            point = verify._BASE
            for _ in range(times):
                point = verify._add(point, verify._decoded(key))
            commitment = verify._encoded(point)
            k = int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % verify.ORDER
            if (k + times) % 8 == 0:
                return message, commitment + (1).to_bytes(32, "little")
    raise AssertionError("no signature was found")


@pytest.mark.parametrize("text", SMALL_ORDER)
def test_keys_of_small_order_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They verify whatever somebody likes: the equation holds without anybody's secret."""
    key = bytes.fromhex(text)
    message, signature = forged_by(key)
    assert not verify.verified(key, message, signature)
    with pytest.raises(ValueError, match="no point that could sign"):
        verify.key_of(notes.vkey("log", key))
    with monkeypatch.context() as patch:
        patch.setattr(verify, "_has_small_order", lambda point: False)
        assert verify.verified.__wrapped__(key, message, signature), "the forgery is none"


@pytest.mark.parametrize("text", NOT_CANONICAL)
def test_points_have_one_encoding(text: str) -> None:
    key = bytes.fromhex(text)
    assert verify._decoded(key) is None
    with pytest.raises(ValueError, match="no point"):
        verify.key_of(notes.vkey("log", key))


@pytest.mark.parametrize("text", SMALL_ORDER[:1] + NOT_CANONICAL[4:5])
def test_r_of_small_order_is_refused(text: str) -> None:
    """With R the neutral element, S = k*a signs; in another spelling a lax verifier takes it too."""
    seed = hashlib.sha256(b"seed").digest()
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 63 | 64
    commitment = bytes.fromhex(text)
    k = int.from_bytes(hashlib.sha512(commitment + key + b"paid").digest(), "little")
    s = k * int.from_bytes(scalar, "little") % verify.ORDER
    assert not verify.verified(key, b"paid", commitment + s.to_bytes(32, "little"))


def test_lengths_are_exact() -> None:
    key, message, signature = (bytes.fromhex(text) for text in RFC_8032[0])
    assert not verify.verified(key + b"\0", message, signature)
    assert not verify.verified(key, message, signature[:-1])
    assert not verify.verified(b"", message, b"")


# --- tree -------------------------------------------------------------------------------------------------------------


def test_proofs_of_small_trees() -> None:
    leaves = [verify.leaf_hash(b"%d" % place) for place in range(40)]
    nodes: dict[tuple[int, int], bytes] = {}

    def node(level: int, place: int) -> bytes:
        return nodes[level, place]

    tree, peaks = verify.Tree(), []
    assert tree.root() == merkle.EMPTY_ROOT
    for size, leaf in enumerate(leaves, start=1):
        tree.add(leaf)
        peaks, completed = merkle.append(peaks, size - 1, leaf)
        nodes |= {(level, index): digest for level, index, digest in completed}
        assert tree.root() == merkle.root(peaks)
        for index in range(size):
            path = merkle.inclusion_proof(index, size, node)
            assert verify.included(leaves[index], index, size, path, tree.root())
            wrong = [
                (leaves[index - 1], index, size, path, tree.root()),
                (leaves[index], index, size, [*path, leaf], tree.root()),
                (leaves[index], index, size, path[:-1], tree.root()),
                (leaves[index], index, size, path, leaves[0] + b""),
                (leaves[index], size, size, path, tree.root()),
                (leaves[index], -1, size, path, tree.root()),
            ]
            for one in wrong if size > 1 else wrong[1:2]:
                assert not verify.included(*one)


# --- texts ------------------------------------------------------------------------------------------------------------

# C2SP signed-note, "Example".
PUBLISHED_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
PUBLISHED_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


def test_a_published_note_verifies() -> None:
    key = verify.key_of(PUBLISHED_KEY)
    assert key.vkey == PUBLISHED_KEY
    note = verify.note_of(PUBLISHED_NOTE.encode())
    assert note.text == "This is an example message.\n"
    assert verify.signers_of(note, [key]) == [key]
    other = note._replace(text="This is another message.\n")
    with pytest.raises(ValueError, match="is wrong"):
        verify.signers_of(other, [key])


@pytest.mark.parametrize(
    "change",
    (
        lambda note: note[:-1],
        lambda note: note + b"\n",
        lambda note: note.replace(b"\n\n", b"\n"),
        lambda note: note.replace(b"message", b"mess\tage"),
        lambda note: note.replace("— ".encode(), b"- "),
        lambda note: note.replace(b"example.com/foo ", b"example.com/foo  "),
        lambda note: note.replace(b"aQM=", b"aQN="),
        lambda note: note.replace(b"aQM=", b"aQM"),
        lambda note: note.replace(b"message", b"\xff"),
        lambda note: b"",
        lambda note: note + note.partition(b"\n\n")[2] * 16,
    ),
)
def test_what_is_no_note(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError):
        verify.note_of(change(PUBLISHED_NOTE.encode()))


@pytest.mark.parametrize(
    "text",
    (
        "",
        "example.com/foo",
        PUBLISHED_KEY.replace("530d", "530e"),
        PUBLISHED_KEY.replace("foo", "bar"),
        PUBLISHED_KEY.replace("example", "exam ple"),
        PUBLISHED_KEY[:-1] + "l",
        PUBLISHED_KEY + "=",
        PUBLISHED_KEY + "\n" + PUBLISHED_KEY,
    ),
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError):
        verify.keys_of(text)


HEAD = "log\n3\n" + base64.b64encode(bytes(32)).decode() + "\n"


def test_heads_as_c2sp_has_them() -> None:
    assert verify.head_of(HEAD) == ("log", 3, bytes(32))
    for wrong in (
        HEAD[:-1],
        HEAD + "extension\n",
        HEAD.replace("\n3\n", "\n03\n"),
        HEAD.replace("\n3\n", "\n-3\n"),
        HEAD.replace("\n3\n", "\n\u0663\n"),
        HEAD.replace("\n3\n", f"\n{2**53}\n"),
        HEAD.replace("log", ""),
        HEAD.replace("AA=", "AB="),
        HEAD.replace("AAAA", "", 1),
    ):
        with pytest.raises(ValueError):
            verify.head_of(wrong)


def test_proofs_as_c2sp_has_them() -> None:
    path = [bytes([place]) * 32 for place in range(3)]
    proof = notes.tlog_proof(7, path, "note").encode()
    assert verify.proof_of(proof) == (7, path, b"note")
    with_extra = proof.replace(b"index", b"extra AAAA\nindex", 1)
    assert verify.proof_of(with_extra) == (7, path, b"note")
    for wrong in (
        proof.replace(b"@v1", b"@v2"),
        proof.replace(b"index 7", b"index 07"),
        proof.replace(b"index 7\n", b""),
        proof.replace(b"\n\n", b"\n"),
        proof.replace(b"AAA=", b"AAB="),
        proof.replace(b"AAAA", b"", 1),
        with_extra.replace(b"AAAA", b"A", 1),
        b"\xff" + proof,
        b"",
    ):
        with pytest.raises(ValueError):
            verify.proof_of(wrong)


def test_the_example_of_dsse() -> None:
    """DSSE v1, protocol.md, "PAE" and the test vector beside it."""
    assert verify.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@pytest.mark.parametrize(
    "text",
    (
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":' + b"9" * 100_000 + b"}",
        b'{"a":9007199254740993}',
        b"[" * 200_000,
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"",
        b"{} x",
    ),
    ids=range(11),
)
def test_json_that_readers_could_differ_on_is_refused(text: bytes) -> None:
    with pytest.raises(verify.Differs, match="not JSON as agreed"):
        verify.parsed(text, "file")


@pytest.mark.parametrize(
    ("place", "path"),
    ((0, "000"), (7, "007"), (999, "999"), (1_000, "x001/000"), (1_234_067, "x001/x234/067")),
)
def test_addresses_of_bundles(place: int, path: str) -> None:
    """C2SP tlog-tiles has the last one as its example."""
    assert verify.tile_path(place) == path


def test_entries_behind_their_lengths() -> None:
    file = io.BytesIO(b"\0\3one\0\0\0\3two")
    assert [verify._prefixed(file) for _ in range(4)] == [b"one", b"", b"two", None]
    for cut in (b"\0", b"\0\3on"):
        with pytest.raises(verify.Unchecked):
            verify._prefixed(io.BytesIO(cut))


# --- the command ------------------------------------------------------------------------------------------------------


def test_nothing_to_check_is_said(tmp_path: Any) -> None:
    for arguments, words in (
        (["nothing"], "cannot be read"),
        ([str(tmp_path)], "no capsule"),
        ([str(FILE)], "neither a folder nor a zip"),
        (["--key", "nothing"], "neither a verifier key nor a file"),
        (["--unknown"], "unrecognized arguments"),
    ):
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert words in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_what_lies_beside_it_is_not_run(tmp_path: Any) -> None:
    """An unpacked capsule may bring any file; the one that is trusted imports none of them."""
    copy = tmp_path / "verify.py"
    copy.write_bytes(FILE.read_bytes())
    for name in ("argparse", "json", "hashlib", "io", "zlib"):
        (tmp_path / f"{name}.py").write_text("print('PROVEN')\nraise SystemExit(0)\n")
    done = subprocess.run(
        [sys.executable, str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "PROVEN" in done.stdout, "no capsule" in done.stdout) == (2, False, True)


def test_what_is_no_plain_file_is_not_read(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "statement.dsse.json")
    done = run(".", cwd=tmp_path)
    assert (done.returncode, "no plain file" in done.stdout) == (2, True)
    os.remove(tmp_path / "statement.dsse.json")
    os.symlink("/dev/zero", tmp_path / "statement.dsse.json")
    done = run(".", cwd=tmp_path)
    assert (done.returncode, "no plain file" in done.stdout) == (2, True)


def test_what_a_capsule_says_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    verify.say("red \x1b[31m, back \r, over \u202e, half \ud800, next\nline")
    shown = capsys.readouterr().out
    assert shown == "red \\x1b[31m, back \\r, over \\u202e, half \\ud800, next\\nline\n"
