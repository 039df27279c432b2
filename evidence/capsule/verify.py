#!/usr/bin/env python3
"""Checks a case capsule: one file, Python 3.9 or newer, nothing else needed.

    python3 verify.py [CAPSULE] [--key VKEY|FILE] [--entries URL|FILE]

CAPSULE is the zip or the folder it was unpacked into; without it, the folder this file lies in.
--key      the log's verifier key (C2SP signed-note), or a file with one a line, from a source you trust.
--entries  every seal entry of the log: the address of its /tlog, read with the token in CAVRA_TOKEN, or
           a file that `manage.py export_entries` wrote. Only this shows that the log has no other entry
           about the case.

Exit codes: 0 everything holds; 1 something does not hold; 2 it could not be checked.
"""

from __future__ import annotations

import sys

# Whatever lies beside this file may be anybody's: nothing is imported from there (as with python3 -I).
if __name__ == "__main__" and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]

import argparse
import base64
import hashlib
import http.client
import io
import json
import os
import re
import stat
import struct
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple

HOLDS, DIFFERS, UNCHECKED = 0, 1, 2

CHECKPOINT, KEY, STATEMENT, PAGE, VERIFIER = (
    "checkpoint",
    "key.vkey",
    "statement.dsse.json",
    "index.html",
    "verify.py",
)
FOLDERS = {"entries": ".json", "proofs": ".tlog-proof", "records": ".json"}
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:cavra:evidence:case-capsule:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

# A capsule is read into memory: what is larger than any real one is not read at all.
MAX_TOTAL = 256 * 1024 * 1024
MAX_RECORDS = 20_000
MAX_FILES = 3 * MAX_RECORDS + 5
MAX_ENTRY = 65_535
MAX_SIGNATURES = 16
MAX_SIZE = 2**53 - 1
# Seal entries in one bundle (C2SP tlog-tiles).
BUNDLE = 256


class Differs(Exception):
    """Something does not hold; each argument is a sentence."""


class Unchecked(Exception):
    """It cannot be said whether it holds."""


# --- Ed25519 (RFC 8032) -------------------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

# Extended homogeneous coordinates X, Y, Z, T with x = X/Z, y = Y/Z, x*y = T/Z (RFC 8032, section 5.1.4).
Point = tuple[int, int, int, int]
NEUTRAL: Point = (0, 1, 1, 0)


def _add(one: Point, two: Point) -> Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % P
    b = (one[1] + one[0]) * (two[1] + two[0]) % P
    c = 2 * one[3] * two[3] * D % P
    d = 2 * one[2] * two[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _double(one: Point) -> Point:
    a, b = one[0] * one[0] % P, one[1] * one[1] % P
    h = a + b
    e = h - (one[0] + one[1]) ** 2
    g = a - b
    f = 2 * one[2] * one[2] + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _decoded(text: bytes) -> Point | None:
    """The point that 32 bytes stand for; None when they are no point or not its only encoding."""
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _has_small_order(point: Point) -> bool:
    """Whether eight times the point is the neutral element: then it binds nobody to anything."""
    x, y, z, _ = _double(_double(_double(point)))
    return x == 0 and (y - z) % P == 0


_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE = _decoded(_BASE_Y.to_bytes(32, "little"))


@lru_cache(maxsize=64)
def verified(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` over ``message`` is that of ``public_key``.

    Stricter than RFC 8032 has to be: S below the group's order, one encoding for each point, and neither
    key nor R of small order. The equation is the one without a cofactor.
    """
    if len(public_key) != 32 or len(signature) != 64:
        return False
    key, commitment = _decoded(public_key), _decoded(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or s >= ORDER or _BASE is None:
        return False
    if _has_small_order(key) or _has_small_order(commitment):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    # S*B - k*A, bit by bit for both at once.
    minus = (P - key[0], key[1], 1, P - key[3])
    sums = (None, _BASE, minus, _add(_BASE, minus))
    found = NEUTRAL
    for bit in range(252, -1, -1):
        found = _double(found)
        addend = sums[(s >> bit & 1) | (k >> bit & 1) << 1]
        if addend:
            found = _add(found, addend)
    return _encoded(found) == signature[:32]


# --- Merkle tree (RFC 6962, section 2.1; RFC 9162, section 2.1.3.2) ------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether ``path`` leads from the leaf hash at ``index`` to the root of a tree of ``size`` leaves."""
    if not 0 <= index < size:
        return False
    first, last, found = index, size - 1, leaf
    for step in path:
        if last == 0:
            return False
        if first & 1 or first == last:
            found = node_hash(step, found)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, step)
        first, last = first >> 1, last >> 1
    return last == 0 and found == root


class Tree:
    """A tree that grows leaf by leaf and remembers only what its root needs."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        place = self.size
        while place & 1:
            leaf = node_hash(self.peaks.pop(), leaf)
            place >>= 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Root of the tree so far."""
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found


# --- texts with one meaning only -----------------------------------------------------------------------------------


def decoded(text: str) -> bytes:
    """Bytes of a base64 text (RFC 4648, section 4); ``ValueError`` unless it is their only spelling."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("base64 with stray bits")
    return data


def number(text: str) -> int:
    """A decimal without leading zeroes, up to 2^53 - 1; ``ValueError`` otherwise."""
    if not re.fullmatch("0|[1-9][0-9]{0,15}", text) or int(text) > MAX_SIZE:
        raise ValueError("not a number")
    return int(text)


def parsed(data: bytes, name: str) -> Any:
    """The value of a JSON text; no key twice in an object, no NaN. ``name`` is the file it comes from."""
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_int=_whole, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise Differs(f"{name} is not JSON as agreed: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _whole(digits: str) -> int:
    # Thousands of digits would take a long time to become a number.
    if len(digits) > 17 or abs(int(digits)) > MAX_SIZE:
        raise ValueError("an integer beyond 2^53 - 1")
    return int(digits)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def shaped(value: Any, shape: dict[str, Any], name: str) -> dict[str, Any]:
    """``value`` when it is an object with exactly these keys, each of its type; ``Differs`` otherwise."""
    if type(value) is not dict or value.keys() != shape.keys():
        raise Differs(f"{name}: not an object with the keys {', '.join(sorted(shape))}")
    for key, kind in shape.items():
        if type(value[key]) is not kind and not (type(kind) is tuple and type(value[key]) in kind):
            raise Differs(f"{name}: {key} is not of its type")
    return value


def listed(value: list[Any], shape: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The same for each item of a list."""
    return [shaped(item, shape, f"{name} {place}") for place, item in enumerate(value)]


# --- keys, notes, checkpoints, proofs (C2SP signed-note, tlog-checkpoint, tlog-proof) ---------------------------


class Key(NamedTuple):
    """A verifier key: its name is the log's origin."""

    name: str
    id: bytes
    public: bytes

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}"

    @property
    def vkey(self) -> str:
        """The key as C2SP spells it."""
        return f"{self}+{base64.b64encode(bytes([1]) + self.public).decode()}"


def key_of(text: str) -> Key:
    """The Ed25519 key of a vkey; ``ValueError`` when it is none."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = decoded(encoded)
    if not name or re.search(r"\s|[\x00-\x1f\x7f]", name) or len(data) != 33 or data[0] != 1:
        raise ValueError("not an Ed25519 verifier key")
    key = Key(name, hashlib.sha256(name.encode() + b"\n" + data).digest()[:4], data[1:])
    if key.id.hex() != key_id:
        raise ValueError("the key's id is not that of its name and bytes")
    point = _decoded(key.public)
    if point is None or _has_small_order(point):
        raise ValueError("the key is no point that could sign")
    return key


def keys_of(text: str) -> list[Key]:
    """The keys of a file with one vkey a line; ``ValueError`` when a line is none or there are none."""
    keys = [key_of(line) for line in text.split("\n") if line.strip()]
    if not keys or len(keys) > MAX_SIGNATURES or len(set(keys)) != len(keys):
        raise ValueError("no key, too many, or one twice")
    return keys


class Note(NamedTuple):
    """A signed note: its text, and name, key id and signature of each line below it."""

    text: str
    signatures: list[tuple[str, bytes, bytes]]


def note_of(data: bytes) -> Note:
    """The parts of a signed note; ``ValueError`` when it is none. Nothing is verified yet."""
    whole = data.decode("utf-8")
    if re.search("[\x00-\x09\x0b-\x1f]", whole) or not whole.endswith("\n"):
        raise ValueError("not a note: control characters, or no newline at its end")
    text, gap, lines = whole[:-1].rpartition("\n\n")
    signatures: list[tuple[str, bytes, bytes]] = []
    for line in lines.split("\n"):
        match = re.fullmatch("\u2014 (\\S+) ([A-Za-z0-9+/]+=*)", line)
        if not gap or not match or "+" in match[1] or len(signatures) == MAX_SIGNATURES:
            raise ValueError("not a note: no signature lines, or too many")
        signature = decoded(match[2])
        if len(signature) < 5:
            raise ValueError("not a note: a signature is too short")
        signatures.append((match[1], signature[:4], signature[4:]))
    return Note(text + "\n", signatures)


def signers_of(note: Note, keys: list[Key]) -> list[Key]:
    """Those ``keys`` that signed the note; signatures of others say nothing.

    ``ValueError`` when one of ``keys`` has a signature that is not its own.
    """
    found = []
    for name, key_id, signature in note.signatures:
        for key in keys:
            if (key.name, key.id) == (name, key_id):
                if not verified(key.public, note.text.encode(), signature):
                    raise ValueError(f"the signature of {key} is wrong")
                found.append(key)
    return found


class Head(NamedTuple):
    """What a checkpoint says: so many leaves have this root."""

    origin: str
    size: int
    root: bytes


def head_of(text: str) -> Head:
    """The head in a checkpoint's text; ``ValueError`` when it is none, or has extension lines."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise ValueError("not a checkpoint of three lines")
    root = decoded(lines[2])
    if len(root) != 32:
        raise ValueError("not a root hash")
    return Head(lines[0], number(lines[1]), root)


class Proof(NamedTuple):
    """An inclusion proof with the checkpoint it leads to."""

    place: int
    path: list[bytes]
    checkpoint: bytes


def proof_of(data: bytes) -> Proof:
    """The parts of a tlog-proof; ``ValueError`` when it is none. Nothing is verified yet."""
    top, gap, checkpoint = data.partition(b"\n\n")
    lines = top.decode("ascii").split("\n")
    if not gap or lines.pop(0) != "c2sp.org/tlog-proof@v1" or not lines:
        raise ValueError("not a tlog-proof")
    if lines[0].startswith("extra "):
        decoded(lines.pop(0)[len("extra ") :])
    if not lines or not lines[0].startswith("index ") or len(lines) > 64:
        raise ValueError("no index, or a path too long")
    index = number(lines.pop(0)[len("index ") :])
    path = [decoded(line) for line in lines]
    if any(len(step) != 32 for step in path):
        raise ValueError("a step of the path is no SHA-256 hash")
    return Proof(index, path, checkpoint)


def pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature signs (DSSE v1, "PAE").

    A note's text never looks so: its first line is the origin, which has no spaces.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


# --- reading a capsule -----------------------------------------------------------------------------------------------


class Capsule(NamedTuple):
    """The files of a capsule by name, and names of things beside them that are none of its files.

    A zip has a digest, and may be ``repacked``: other bytes than the one zip of these files.
    """

    files: dict[str, bytes]
    strangers: list[str]
    sha256: str = ""
    repacked: bool = False


def belongs(name: str) -> bool:
    """Whether a capsule may have a file of this name."""
    folder, slash, file = name.rpartition("/")
    if not slash:
        return file in (CHECKPOINT, KEY, STATEMENT, PAGE, VERIFIER)
    return folder in FOLDERS and bool(re.fullmatch(r"[0-9]{12}" + re.escape(FOLDERS[folder]), file))


def read(path: str) -> Capsule:
    """The capsule at ``path``, a folder or a zip; ``Unchecked`` when there is none that can be read."""
    try:
        capsule = _read_folder(path) if os.path.isdir(path) else _read_zip(path)
    except OSError as error:
        raise Unchecked(f"{path} cannot be read: {error.strerror or error}") from None
    if STATEMENT not in capsule.files:
        raise Unchecked(f"{path} is no capsule: there is no {STATEMENT} in it.")
    return capsule


def _read_folder(path: str) -> Capsule:
    files: dict[str, bytes] = {}
    strangers = []
    left = MAX_TOTAL
    for folder in ("", *FOLDERS):
        place = os.path.join(path, folder)
        if not os.path.lexists(place):
            continue
        if folder and not stat.S_ISDIR(os.lstat(place).st_mode):
            raise Unchecked(f"{folder} is no plain folder.")
        for found in sorted(os.listdir(place)):
            name = f"{folder}/{found}" if folder else found
            if belongs(name):
                if len(files) == MAX_FILES:
                    raise Unchecked(f"More than {MAX_FILES} files are no capsule.")
                files[name] = _read_file(os.path.join(place, found), name, left)
                left -= len(files[name])
            elif folder:
                raise Differs(f"{name} is no file of a capsule.")
            elif name not in FOLDERS:
                strangers.append(name)
    return Capsule(files, strangers)


def _read_file(path: str, name: str, limit: int) -> bytes:
    """The bytes of a plain file: no link, device or pipe, and not larger than ``limit``."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise Unchecked(f"{name} is no plain file.")
    flags = os.O_RDONLY
    for wanted in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"):  # not every system has all of them
        flags |= getattr(os, wanted, 0)
    with open(os.open(path, flags), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unchecked(f"{name} is larger than any capsule.")
    return data


_LOCAL = struct.Struct("<4sHHHHHIIIHH")


def _read_zip(path: str) -> Capsule:
    """The files of a zip as capsules are zipped: one behind the other, stored, nothing else.

    Programs differ in what they see in a zip that was tampered with. One that can be built again from its
    files, byte by byte, looks the same to all of them.
    """
    data = _read_file(os.path.realpath(path), path, MAX_TOTAL)
    if not data.startswith(b"PK\x03\x04"):
        raise Unchecked(f"{path} is neither a folder nor a zip.")
    files: dict[str, bytes] = {}
    at = 0
    while data.startswith(b"PK\x03\x04", at) and len(files) < MAX_FILES and len(data) - at > _LOCAL.size:
        _, _, flags, method, _, _, _, _, size, name_length, extra = _LOCAL.unpack_from(data, at)
        if flags or method:
            raise Unchecked(f"{path} was packed by another program: unpack it and check the folder.")
        at += _LOCAL.size
        name = data[at : at + name_length].decode("ascii", "replace")
        at += name_length + extra
        if not belongs(name) or name in files:
            raise Differs(f"{name} is no file of a capsule, or stands in the zip twice.")
        files[name] = data[at : at + size]
        at += size
    return Capsule(files, [], hashlib.sha256(data).hexdigest(), zipped(files) != data)


def zipped(files: dict[str, bytes]) -> bytes:
    """The one zip of these files: names sorted, stored, dated 1980-01-01, mode 0644 (APPNOTE.TXT 4.3)."""
    body, directory = [], []
    offset = 0
    for name, content in sorted(files.items()):
        # version 2.0, no flags, stored, midnight, 1980-01-01, CRC-32, both sizes, lengths of name and extra
        common = struct.pack(
            "<HHHHHIIIHH", 20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), 0
        )
        local = b"PK\x03\x04" + common + name.encode() + content
        # made on Unix by version 2.0; no comment, first disk, no internal attributes; mode; where it begins
        rest = struct.pack("<HHHII", 0, 0, 0, (stat.S_IFREG | 0o644) << 16, offset)
        directory.append(b"PK\x01\x02" + struct.pack("<BB", 20, 3) + common + rest + name.encode())
        body.append(local)
        offset += len(local)
    central = b"".join(directory)
    end = struct.pack("<HHHHIIH", 0, 0, len(directory), len(directory), len(central), offset, 0)
    return b"".join((*body, central, b"PK\x05\x06", end))


# --- what a capsule says, checked ----------------------------------------------------------------------------------

SUBJECT = {"name": str, "digest": dict}
PREDICATE = {
    "v": int,
    "capsule": str,
    "case": str,
    "as_of": str,
    "records": int,
    "log": dict,
    "entries": list,
    "verifier": dict,
}
LOG = {"origin": str, "epoch": int, "size": int, "root": str}
PLACE = {"n": int, "index": int, "erased": bool}
SEAL = {
    "v": int,
    "log": str,
    "epoch": int,
    "index": int,
    "kind": str,
    "record": str,
    "at": str,
    "cases": list,
    "body": dict,
}
LINK = {"case": str, "n": int, "prev": (str, type(None))}
BODY = {"sha256": str, "size": int}


class Proven(NamedTuple):
    """What holds: which keys signed, for which case, how many records, in which tree."""

    signers: list[Key]
    capsule: str
    case: str
    as_of: str
    head: Head
    indexes: list[int]
    erased: list[int]
    files: int
    verifier_differs: bool


def check(files: dict[str, bytes], pinned: list[Key] | None = None) -> Proven:
    """Everything that a capsule's files can show by themselves; ``Differs`` when something does not hold.

    Without ``pinned`` the capsule's own key is believed.
    """
    missing = [name for name in (CHECKPOINT, KEY, STATEMENT, PAGE) if name not in files]
    if missing:
        raise Differs(*(f"{name} is missing." for name in missing))
    try:
        keys = keys_of(files[KEY].decode("utf-8"))
    except ValueError as error:
        raise Differs(f"{KEY}: {error}") from None
    trusted = [key for key in keys if key in pinned] if pinned else keys
    if not trusted:
        raise Differs(f"Not signed by the pinned key: the capsule's is {', '.join(map(str, keys))}.")
    payload = _payload(files[STATEMENT], keys)
    head = _checkpoint(files[CHECKPOINT], keys, trusted)
    predicate = _statement(payload, files)
    log = predicate["log"]
    if (log["origin"], log["size"], log["root"]) != (head.origin, head.size, head.root.hex()):
        raise Differs("The statement speaks of another tree than the checkpoint.")
    places = listed(predicate["entries"], PLACE, f"{STATEMENT}: entry")
    _places(places, predicate["records"], head.size, files)
    _chain(predicate["case"], log, places, head, files)
    issued = predicate["verifier"]["sha256"]
    return Proven(
        signers=trusted,
        capsule=predicate["capsule"],
        case=predicate["case"],
        as_of=predicate["as_of"],
        head=head,
        indexes=[place["index"] for place in places],
        erased=[place["index"] for place in places if place["erased"]],
        files=len(files) - (VERIFIER in files),
        verifier_differs=VERIFIER in files and hashlib.sha256(files[VERIFIER]).hexdigest() != issued,
    )


def _payload(data: bytes, keys: list[Key]) -> bytes:
    """The payload of a DSSE envelope in its only spelling (RFC 8785), signed by all of ``keys``."""
    envelope = shaped(
        parsed(data, STATEMENT), {"payload": str, "payloadType": str, "signatures": list}, STATEMENT
    )
    signatures = listed(envelope["signatures"], {"keyid": str, "sig": str}, f"{STATEMENT}: signature")
    again = json.dumps(envelope, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    if again.encode("utf-8", "surrogatepass") != data or envelope["payloadType"] != PAYLOAD_TYPE:
        raise Differs(f"{STATEMENT} is not spelled as a capsule spells it.")
    try:
        payload = decoded(envelope["payload"])
        given = [(one["keyid"], decoded(one["sig"])) for one in signatures]
    except ValueError as error:
        raise Differs(f"{STATEMENT}: {error}") from None
    if [key_id for key_id, _ in given] != [str(key) for key in keys]:
        raise Differs(f"{STATEMENT} is not signed by the keys in {KEY}.")
    signed = pae(PAYLOAD_TYPE, payload)
    for key, (_, signature) in zip(keys, given):
        if not verified(key.public, signed, signature):
            raise Differs(f"{STATEMENT}: the signature of {key} is wrong.")
    return payload


def _checkpoint(data: bytes, keys: list[Key], trusted: list[Key]) -> Head:
    """The head in a checkpoint that one of ``trusted`` signed, and none of ``keys`` wrongly."""
    try:
        note = note_of(data)
        head = head_of(note.text)
        signers = signers_of(note, keys)
    except ValueError as error:
        raise Differs(f"{CHECKPOINT}: {error}") from None
    if not any(key in trusted for key in signers):
        raise Differs(f"{CHECKPOINT} is not signed by {', '.join(map(str, trusted))}.")
    if any(key.name != head.origin for key in keys):
        raise Differs(f"{CHECKPOINT} is of another log than the key.")
    return head


def _statement(payload: bytes, files: dict[str, bytes]) -> dict[str, Any]:
    """The predicate of an in-toto Statement v1 whose subjects are exactly these files."""
    statement = shaped(
        parsed(payload, STATEMENT),
        {"_type": str, "subject": list, "predicateType": str, "predicate": dict},
        STATEMENT,
    )
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise Differs(f"{STATEMENT} is of another type.")
    signed: dict[str, Any] = {}
    for subject in listed(statement["subject"], SUBJECT, f"{STATEMENT}: subject"):
        signed[subject["name"]] = shaped(subject["digest"], {"sha256": str}, f"{STATEMENT}: digest")["sha256"]
    if len(signed) != len(statement["subject"]):
        raise Differs(f"{STATEMENT} names a file twice.")
    there = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    for unsigned in (STATEMENT, VERIFIER):
        there.pop(unsigned, None)
    faults = [f"{name} is missing." for name in sorted(signed.keys() - there.keys())]
    faults += [
        f"{name} was added: the log signed no such file." for name in sorted(there.keys() - signed.keys())
    ]
    faults += [
        f"{name} has other bytes than the log signed."
        for name in sorted(there.keys() & signed.keys())
        if there[name] != signed[name]
    ]
    if faults:
        raise Differs(*faults)
    predicate = shaped(statement["predicate"], PREDICATE, STATEMENT)
    shaped(predicate["log"], LOG, f"{STATEMENT}: log")
    shaped(predicate["verifier"], {"sha256": str}, f"{STATEMENT}: verifier")
    if predicate["v"] != 1:
        raise Unchecked(f"{STATEMENT} is of a version that this verifier does not know.")
    return predicate


def _places(places: list[dict[str, Any]], records: int, size: int, files: dict[str, bytes]) -> None:
    """The listed entries are 1 to ``records`` of the case, in the tree, and the files are theirs and no others."""
    if len(places) != records or [place["n"] for place in places] != list(range(1, records + 1)):
        raise Differs(f"{STATEMENT} lists {len(places)} entries and says {records}.")
    indexes = [place["index"] for place in places]
    if not indexes or any(one >= two for one, two in zip(indexes, [*indexes[1:], size])) or indexes[0] < 0:
        raise Differs(f"{STATEMENT} lists entries out of order, or outside of the tree.")
    wanted = {CHECKPOINT, KEY, STATEMENT, PAGE}
    for place in places:
        for folder, ending in FOLDERS.items():
            if folder != "records" or not place["erased"]:
                wanted.add(f"{folder}/{place['index']:012d}{ending}")
    faults = [f"{name} is missing." for name in sorted(wanted - files.keys())]
    faults += [f"{name} belongs to no entry." for name in sorted(files.keys() - wanted - {VERIFIER})]
    if faults:
        raise Differs(*faults)


def _chain(
    case: str, log: dict[str, Any], places: list[dict[str, Any]], head: Head, files: dict[str, bytes]
) -> None:
    """Each entry is in the tree, commits to its record, and quotes the case's entry before it."""
    previous = None
    # A log that starts over after it was set back is another epoch and bears another name.
    epochs = {log["epoch"]: log["origin"]}
    latest = 0
    for place in places:
        index = place["index"]
        name = f"entries/{index:012d}.json"
        entry = files[name]
        seal = seal_of(entry, name)
        leaf = leaf_hash(entry)
        if seal["index"] != index:
            raise Differs(f"{name} is the entry of another place.")
        if epochs.setdefault(seal["epoch"], seal["log"]) != seal["log"] or seal["epoch"] > log["epoch"]:
            raise Differs(f"{name} is of another log.")
        if seal["epoch"] < latest:
            raise Differs(f"{name} is of an earlier epoch than the entry before it.")
        latest = seal["epoch"]
        links = [link for link in seal["cases"] if link["case"] == case]
        if len(links) != 1 or links[0]["n"] != place["n"] or links[0]["prev"] != previous:
            raise Differs(f"{name} is not link {place['n']} of the chain of the case.")
        previous = leaf.hex()
        _proof(leaf, index, head, files)
        if not place["erased"]:
            _record(seal, files[f"records/{index:012d}.json"], f"records/{index:012d}.json")
    if len(set(epochs.values())) != len(epochs):
        raise Differs("Two epochs of the log bear one name.")


def seal_of(entry: bytes, name: str) -> dict[str, Any]:
    """A seal entry's parts; ``Differs`` when it is none."""
    seal = shaped(parsed(entry, name), SEAL, name)
    shaped(seal["body"], BODY, f"{name}: body")
    listed(seal["cases"], LINK, f"{name}: case")
    if seal["v"] != 1:
        raise Unchecked(f"{name} is of a version that this verifier does not know.")
    return seal


def _proof(leaf: bytes, index: int, head: Head, files: dict[str, bytes]) -> None:
    name = f"proofs/{index:012d}.tlog-proof"
    try:
        proof = proof_of(files[name])
    except ValueError as error:
        raise Differs(f"{name}: {error}") from None
    if proof.checkpoint != files[CHECKPOINT]:
        raise Differs(f"{name} leads to another checkpoint.")
    if proof.place != index or not included(leaf, index, head.size, proof.path, head.root):
        raise Differs(f"{name} does not show that entry {index} is in the tree.")


def _record(seal: dict[str, Any], body: bytes, name: str) -> None:
    if (hashlib.sha256(body).hexdigest(), len(body)) != (seal["body"]["sha256"], seal["body"]["size"]):
        raise Differs(f"{name} has other bytes than its entry sealed.")
    document = parsed(body, name)
    said = {"kind": seal["kind"], "id": seal["record"], "at": seal["at"]}
    cases = [link["case"] for link in seal["cases"]]
    if type(document) is not dict or any(document.get(key) != value for key, value in said.items()):
        raise Differs(f"{name} says otherwise than its entry what it is.")
    if document.get("cases") != cases:
        raise Differs(f"{name} names other cases than its entry.")


# --- every entry of the log -----------------------------------------------------------------------------------------


def scan(entries: Iterator[bytes], proven: Proven) -> None:
    """Derive the root again from all entries and look for the case in each of them.

    ``Differs`` when they are other entries than the checkpoint's, or when one more of them names the case.
    """
    tree = Tree()
    naming = []
    for entry in entries:
        index = tree.size
        tree.add(leaf_hash(entry))
        seal = seal_of(entry, f"entry {index}")
        if seal["index"] != index:
            raise Differs(f"Entry {index} says that it is entry {seal['index']}.")
        if any(link["case"] == proven.case for link in seal["cases"]):
            naming.append(index)
        if tree.size % 50_000 == 0 and sys.stderr.isatty():
            print(f"{tree.size} of {proven.head.size} entries read", file=sys.stderr)
    if tree.size < proven.head.size:
        raise Unchecked(f"There are {tree.size} entries; the checkpoint has {proven.head.size}.")
    if tree.root() != proven.head.root:
        raise Differs("The entries are not those of the checkpoint: their root is another one.")
    if more := sorted(set(naming) - set(proven.indexes)):
        raise Differs(
            *(f"Entry {index} names the case too and is not in the capsule." for index in more[:20])
        )


def entries_of(source: str, size: int) -> Iterator[bytes]:
    """The first ``size`` seal entries from an address or a file; ``Unchecked`` when they cannot be read."""
    if re.match("https?://", source):
        return _entries_at(source.rstrip("/"), size)
    return _entries_in(source, size)


def _entries_in(path: str, size: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            for _ in range(size):
                entry = _prefixed(file)
                if entry is None:
                    return
                yield entry
    except OSError as error:
        raise Unchecked(f"{path} cannot be read: {error.strerror or error}") from None


def _prefixed(file: BinaryIO) -> bytes | None:
    """The next entry behind its length in two bytes, big-endian (C2SP tlog-tiles); None at the end."""
    prefix = file.read(2)
    if not prefix:
        return None
    entry = file.read(int.from_bytes(prefix, "big"))
    if len(prefix) < 2 or len(entry) < int.from_bytes(prefix, "big"):
        raise Unchecked("The entries end in the middle of one.")
    return entry


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to the address that was named and nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _entries_at(address: str, size: int) -> Iterator[bytes]:
    opener = urllib.request.build_opener(_NoRedirect)
    if os.environ.get("CAVRA_TOKEN"):
        opener.addheaders = [("Authorization", f"Bearer {os.environ['CAVRA_TOKEN']}")]
    else:
        opener.addheaders = []
    for start in range(0, size, BUNDLE):
        width = min(BUNDLE, size - start)
        file = io.BytesIO(_bundle(opener, f"{address}/tile/entries/{tile_path(start // BUNDLE)}", width))
        for _ in range(width):
            entry = _prefixed(file)
            if entry is None:
                raise Unchecked(f"{address} has fewer entries in bundle {start // BUNDLE} than it should.")
            yield entry


def tile_path(place: int) -> str:
    """Index of a tile as a path: digits in threes, all but the last three behind an x (C2SP tlog-tiles)."""
    digits = f"{place:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def _bundle(opener: urllib.request.OpenerDirector, address: str, width: int) -> bytes:
    """Entries of one bundle; a log may drop a partial one once the full one is there."""
    places = [address] if width == BUNDLE else [f"{address}.p/{width}", address]
    for place in places:
        if (data := _fetched(opener, place)) is not None:
            return data
    raise Unchecked(f"{places[0]} answered 404.")


def _fetched(opener: urllib.request.OpenerDirector, address: str) -> bytes | None:
    """What an address answers; None when there is nothing."""
    try:
        with opener.open(address, timeout=30) as answer:
            data: bytes = answer.read(BUNDLE * (MAX_ENTRY + 2))
            return data
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            return None
        hint = " Set CAVRA_TOKEN to a token of yours." if error.code in (401, 403) else ""
        raise Unchecked(f"{address} answered {error.code}.{hint}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unchecked(f"{address} cannot be read: {error or type(error).__name__}") from None


# --- telling it -------------------------------------------------------------------------------------------------------


def say(line: str = "") -> None:
    """Print a line. What comes from the capsule must not move the cursor or pass for something else."""
    print(
        "".join(
            one if " " <= one <= "~" else one.encode("unicode_escape", "replace").decode() for one in line
        )
    )


def report(proven: Proven, *, pinned: bool, scanned: bool, sha256: str, strangers: list[str]) -> None:
    """Say what holds, by which key, and what nobody should take for proven."""
    count, size = len(proven.indexes), f"{proven.head.size:,}"
    records = "record" if count == 1 else "records"
    say(f"Capsule {proven.capsule}, as of {proven.as_of}")
    if sha256:
        say(f"SHA-256 of the zip {sha256}")
    say()
    say("PROVEN by the key" + ("s" if len(proven.signers) > 1 else ""))
    for key in proven.signers:
        say(f"  {key.vkey}")
    say(f"- The log {proven.head.origin} says that case {proven.case} has exactly {count} {records}")
    say(f"  among its first {size} entries, whose root is {proven.head.root.hex()}.")
    say(f"- All {count} are in that tree, and form one chain in which each quotes the one before it.")
    left = count - len(proven.erased)
    say(f"- {left} of {count} {records} have exactly the bytes that were sealed.")
    if proven.erased:
        say(f"- Erased, entry and place remain: {', '.join(map(str, proven.erased))}.")
    say(f"- The {proven.files} files of the capsule are the ones that the log signed.")
    if scanned:
        say(
            f"- No other of the {size} entries names the case: all of them were read, and their root is the same."
        )
    say()
    say("NOT PROVEN")
    if not pinned:
        say("- That this is the log's key. Compare it with the one you got elsewhere, or use --key.")
    if not scanned:
        say("- That no other entry names the case: that is the log's word. --entries shows it.")
    say("- That what was recorded is true, and that all that happened was recorded.")
    say(
        "- That the log was never rewritten: only heads that somebody holds outside show that, and only back to"
    )
    say("  the oldest of them. Whoever holds one can ask the log for a consistency proof.")
    say(f"- Anything that was recorded about the case after the first {size} entries.")
    if proven.verifier_differs:
        say("- That verify.py in the capsule is the one it was issued with: it is not.")
    for name in strangers[:20]:
        if name != "__pycache__":
            say(f"- Anything about {name}, which is no file of the capsule.")


def pinned_keys(text: str) -> list[Key]:
    """The keys of ``--key``: a vkey, or a file with one a line; ``Unchecked`` when they cannot be read."""
    try:
        if os.path.isfile(text):
            with open(text, encoding="utf-8") as file:
                text = file.read(MAX_ENTRY)
        return keys_of(text)
    except (OSError, ValueError) as error:
        raise Unchecked(f"--key is neither a verifier key nor a file with one: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description="Checks a case capsule.",
        epilog="Exit codes: 0 holds, 1 does not, 2 could not be checked.",
    )
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument(
        "capsule", nargs="?", default=here, help="zip or folder; default: where this file lies"
    )
    parser.add_argument("--key", metavar="VKEY|FILE", help="the log's key, from a source you trust")
    parser.add_argument(
        "--entries", metavar="URL|FILE", help="all seal entries, to show that none is left out"
    )
    asked = parser.parse_args(arguments)
    if not asked.key:
        say("key not pinned: the capsule's own key is believed. Pin the log's key with --key.")
    try:
        pinned = pinned_keys(asked.key) if asked.key else None
        capsule = read(asked.capsule)
        proven = check(capsule.files, pinned)
        if capsule.repacked:
            raise Differs(
                "The zip is not the one that was issued, although its files are. If a program packed it again, "
                "unpack it and check the folder."
            )
        if asked.entries:
            scan(entries_of(asked.entries, proven.head.size), proven)
    except Differs as faults:
        say("DOES NOT HOLD")
        for fault in faults.args[:50]:
            say(f"- {fault}")
        say("Take nothing in this capsule for proven.")
        return DIFFERS
    except Unchecked as error:
        say(f"COULD NOT BE CHECKED: {error}")
        return UNCHECKED
    report(
        proven,
        pinned=pinned is not None,
        scanned=bool(asked.entries),
        sha256=capsule.sha256,
        strangers=capsule.strangers,
    )
    return HOLDS


if __name__ == "__main__":
    try:
        code = main()
    except (KeyboardInterrupt, BrokenPipeError, MemoryError):
        code = UNCHECKED
    sys.exit(code)
