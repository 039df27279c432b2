"""C2SP signed notes and tree heads: text that carries its signatures, readable and checkable by hand.

Formats: c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature. Pure functions.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from evidence.errors import InvalidInput

# Signature type bytes (signed-note, "Signature types").
ED25519 = 0x01
COSIGNATURE = 0x04
# A note of ours has a few lines. The format asks for at least 16 signatures to be read.
MAX_NOTE = 64 * 1024
MAX_SIGNATURES = 64

_SIGNATURE_LINE = re.compile(r"— (\S+) (\S+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Signer:
    """A key that signs under a name; for a log the name is its origin."""

    name: str
    key: Ed25519PrivateKey = field(repr=False)

    @property
    def public_key(self) -> bytes:
        """The 32 bytes of RFC 8032."""
        return self.key.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        """How others configure the key that verifies."""
        return vkey(self.name, self.public_key)

    def line(self, text: str) -> str:
        """The signature line over ``text``."""
        signature = key_id(self.name, self.public_key) + self.key.sign(text.encode())
        return f"— {self.name} {base64.b64encode(signature).decode()}\n"


@dataclass(frozen=True)
class Verifier:
    """A key that verifies what one name signed. ``kind`` is the signature type byte."""

    name: str
    public_key: bytes
    kind: int = ED25519

    @classmethod
    def from_vkey(cls, text: str) -> "Verifier":
        """Read ``<name>+<8 hex>+<base64>``; ``InvalidInput`` (``vkey``) when it is none of a type known here."""
        name, _, rest = text.partition("+")
        identifier, _, encoded = rest.partition("+")
        material = _decoded(encoded)
        if (
            not _is_name(name)
            or len(material) != 33
            or material[0] not in _MESSAGES
            or identifier != key_id(name, material[1:], material[0]).hex()
        ):
            raise InvalidInput(
                "This is no verifier key for Ed25519: <name>+<key id in hex>+<base64 of type and key>.",
                code="vkey",
            )
        return cls(name, material[1:], material[0])

    @property
    def vkey(self) -> str:
        """The text that ``from_vkey`` reads."""
        return vkey(self.name, self.public_key, self.kind)

    @property
    def key_id(self) -> bytes:
        """The four bytes by which a signature names this key."""
        return key_id(self.name, self.public_key, self.kind)

    def verifies(self, text: str, signature: bytes) -> bool:
        """Whether ``signature`` (without the key id) is this key's over the note text."""
        message, raw = _MESSAGES[self.kind](text, signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(raw, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def _plain(text: str, signature: bytes) -> tuple[bytes, bytes]:
    return text.encode(), signature


def _timestamped(text: str, signature: bytes) -> tuple[bytes, bytes]:
    """tlog-cosignature: eight bytes of POSIX time, then the signature over a header, that time and the text."""
    return f"cosignature/v1\ntime {cosigned_at(signature)}\n{text}".encode(), signature[8:]


_MESSAGES: Mapping[int, Callable[[str, bytes], tuple[bytes, bytes]]] = {
    ED25519: _plain,
    COSIGNATURE: _timestamped,
}


def cosigned_at(signature: bytes) -> int:
    """POSIX time inside a cosignature."""
    return int.from_bytes(signature[:8], "big")


AnyVerifier = TypeVar("AnyVerifier", bound=Verifier)


@dataclass(frozen=True)
class Opened(Generic[AnyVerifier]):
    """A note whose signatures were checked: its text, and which of the given keys signed it."""

    text: str
    signed_by: tuple[AnyVerifier, ...]


@dataclass(frozen=True)
class Signature:
    """One signature line: who, by which key, and the bytes."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Head:
    """What a tree head says: the first ``size`` entries of the log ``origin`` have this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note text of this head."""
        return checkpoint_text(self.origin, self.size, self.root)


def key_id(name: str, public_key: bytes, kind: int = ED25519) -> bytes:
    """First four bytes of SHA-256(name || LF || type || public key) (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


def vkey(name: str, public_key: bytes, kind: int = ED25519) -> str:
    """Text form of a verifier key (signed-note, "Verifier keys")."""
    material = base64.b64encode(bytes([kind]) + public_key).decode()
    return f"{name}+{key_id(name, public_key, kind).hex()}+{material}"


def signed(text: str, signers: Sequence[Signer]) -> str:
    """``text``, which ends in a newline, with a signature line of each signer."""
    if not text.endswith("\n") or _CONTROL.search(text):
        raise ValueError("note text is lines without control characters, each ended")
    if not signers or not all(_is_name(signer.name) for signer in signers):
        raise ValueError("a note has signatures; key names hold neither spaces nor plus signs")
    return text + "\n" + "".join(signer.line(text) for signer in signers)


def opened(note: str, verifiers: Iterable[AnyVerifier]) -> Opened[AnyVerifier]:
    """Check a note with the keys one knows; signatures of others are ignored, as the format asks.

    ``InvalidInput``: ``note`` when this is no signed note, ``signature`` when a known key's signature does
    not fit the text, ``unknown_key`` when no known key signed.
    """
    text, signatures = parse(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signed_by: dict[AnyVerifier, None] = {}
    for line in signatures:
        verifier = known.get((line.name, line.key_id))
        if verifier is None:
            continue
        if not verifier.verifies(text, line.signature):
            raise InvalidInput(
                f"The signature of {line.name} ({line.key_id.hex()}) does not belong to this text.",
                code="signature",
            )
        signed_by[verifier] = None
    if not signed_by:
        raise InvalidInput("None of the known keys signed this note.", code="unknown_key")
    return Opened(text, tuple(signed_by))


def parse(note: str) -> tuple[str, list[Signature]]:
    """Text and signature lines of a note, nothing verified; ``InvalidInput`` (``note``) when it is none."""
    if len(note) > MAX_NOTE or _CONTROL.search(note) or not _is_unicode(note):
        _no_note("it is too long or holds control characters")
    text, blank, block = note.rpartition("\n\n")
    if not blank or not block.endswith("\n"):
        _no_note("a text, an empty line and signature lines are expected")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        _no_note(f"more than {MAX_SIGNATURES} signatures")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    data = _decoded(match[2]) if match and _is_name(match[1]) else b""
    if not match or len(data) < 5:
        _no_note("a signature line reads: em dash, space, key name, space, base64")
    return Signature(match[1], data[:4], data[4:])


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Note text of a tree head without extension lines (tlog-checkpoint, "Note text")."""
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def parse_checkpoint(text: str) -> Head:
    """Read the note text of a tree head; extension lines are opaque and left alone.

    ``InvalidInput`` (``checkpoint``) when it is none.
    """
    lines = text.split("\n")
    root = _decoded(lines[2]) if len(lines) > 3 else b""
    if lines[-1] or not all(lines[:-1]) or len(root) != 32 or not _SIZE.fullmatch(lines[1]):
        raise InvalidInput(
            "This is no tree head: origin, size and base64 root hash, a line each.", code="checkpoint"
        )
    return Head(lines[0], int(lines[1]), root)


def tlog_proof(index: int, path: Sequence[bytes], note: str) -> str:
    """An inclusion proof of entry ``index`` with the signed head it leads to (c2sp.org/tlog-proof)."""
    lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(base64.b64encode(step).decode() for step in path)]
    return "\n".join(lines) + "\n\n" + note


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def _is_unicode(text: str) -> bool:
    """Not so with half characters, which have no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(text: str) -> bytes:
    """Base64 of RFC 4648 section 4 in its one form; empty when it is not."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if base64.b64encode(data).decode() == text else b""


def _no_note(why: str) -> NoReturn:
    raise InvalidInput(f"This is no signed note: {why}.", code="note")
