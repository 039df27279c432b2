"""Who keeps heads of the log outside: a file, a git repository, a time-stamp authority, a witness.

Each is handed a signed head and gives back what proves that it has it. What comes back is checked before it
counts; nothing is remembered here (see ``anchors``).
"""

import base64
import fcntl
import hashlib
import os
import re
import secrets
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from evidence.connectors import timestamps
from evidence.connectors.addresses import parse_networks
from evidence.connectors.exchange import Answer, ExchangeFailed, exchange
from evidence.domain import notes, proofs
from evidence.domain.anchors import Kept, held_before
from evidence.domain.notes import Verifier
from evidence.enums import AnchorMeans
from evidence.errors import InvalidInput, Unavailable
from evidence.models import Checkpoint

# The file that a git repository keeps heads in.
HEADS = "heads"
GIT_TIMEOUT_S = 60
MAX_PLACE = 500

_SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n?")
# A witness may have moved on between our question and its answer; more often than this it is not that.
_TRIES = 3


@dataclass(frozen=True)
class Keeper:
    """Who shall keep a head: by which means, where, and what it takes to reach and to check them."""

    means: AnchorMeans
    place: str
    witness_key: str = ""
    allow_networks: tuple[str, ...] = ()
    timeout_s: float = 30.0

    @classmethod
    def of(
        cls,
        target: str,
        *,
        witness_key: str = "",
        allow_networks: tuple[str, ...] = (),
        timeout_s: float = 30.0,
    ) -> "Keeper":
        """Read ``means:place``; ``InvalidInput`` naming what is wrong with it."""
        means, _, place = target.partition(":")
        if means not in list(AnchorMeans) or not place or len(place) > MAX_PLACE:
            known = ", ".join(f"{each}:…" for each in AnchorMeans)
            raise InvalidInput(f"A head goes to one of {known}.", errors={"to": ["means and place"]})
        chosen = AnchorMeans(means)
        if chosen in (AnchorMeans.RFC3161, AnchorMeans.TLOG_WITNESS):
            _require_url(place)
        if chosen == AnchorMeans.TLOG_WITNESS:
            if not witness_key:
                raise InvalidInput(
                    "A witness is trusted by its key: give it as --witness-key.",
                    errors={"witness_key": ["required"]},
                )
            if Verifier.from_vkey(witness_key).kind != notes.COSIGNATURE:
                raise InvalidInput("This key is not one for cosignatures (type 0x04).", code="vkey")
        try:
            parse_networks(allow_networks)
        except ValueError as error:
            raise InvalidInput("A network is written as CIDR.", errors={"allow_network": ["CIDR"]}) from error
        return cls(chosen, place, witness_key, allow_networks, timeout_s)

    def keep(self, checkpoint: Checkpoint) -> Kept:
        """Hand a signed head over and check what comes back.

        Raises ``Unavailable`` (``anchor_failed``) when it was not taken or the proof is none.
        """
        return _KEEPERS[self.means](self, checkpoint)


def _require_url(place: str) -> None:
    """An address without anything secret in it: it becomes part of a record."""
    try:
        parts = urlsplit(place)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = parts.scheme in ("http", "https") and parts.hostname and port != 0
    if not plain or "@" in parts.netloc or parts.query or parts.fragment or not place.isascii():
        raise InvalidInput(
            "This is no address for a head: http or https, without a password, a query or a fragment.",
            errors={"to": ["address"]},
        )


# --- file and git -----------------------------------------------------------------------------------------------


def _file(keeper: Keeper, checkpoint: Checkpoint) -> Kept:
    """Append the note and an empty line, and have the disk say that it is there."""
    _append(Path(keeper.place), checkpoint.note)
    return Kept(AnchorMeans.FILE, str(Path(keeper.place).resolve()), b"")


def _append(path: Path, note: str) -> None:
    try:
        with open(path, "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(note.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        _failed(f"{path} cannot be written: {error.strerror}")


def _git(keeper: Keeper, checkpoint: Checkpoint) -> Kept:
    """Append the note to a file of a repository and commit that file alone; the proof is the commit's id."""
    folder = Path(keeper.place).resolve()
    if _run_git(folder, "rev-parse", "--is-inside-work-tree").strip() != "true":
        _failed(f"{folder} is no work tree of git")
    _append(folder / HEADS, checkpoint.note)
    _run_git(folder, "add", "--", HEADS)
    _run_git(
        folder,
        *("-c", "user.name=CAVRA", "-c", "user.email=cavra@localhost"),
        *("commit", "--quiet", "-m", f"Head of {checkpoint.origin} at {checkpoint.size}", "--", HEADS),
    )
    commit = _run_git(folder, "rev-parse", "--verify", "HEAD").strip()
    if not _run_git(folder, "show", f"{commit}:./{HEADS}").endswith(f"{checkpoint.note}\n"):
        _failed("the commit does not hold the head")
    return Kept(AnchorMeans.GIT, str(folder), commit.encode())


def _run_git(folder: Path, *arguments: str) -> str:
    """Output of a git command in ``folder``; variables of the caller's own repository are left out."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  (arguments are ours, no shell)
            ["git", "-C", str(folder), *arguments],  # noqa: S607  (the git of this machine)
            env={**surroundings, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        _failed(f"git {arguments[0]}: {(error.stderr or error.stdout).strip()[:300]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        _failed(f"git did not run: {error}")
    return done.stdout


# --- time-stamp authority ---------------------------------------------------------------------------------------


def _rfc3161(keeper: Keeper, checkpoint: Checkpoint) -> Kept:
    """Have the note's SHA-256 stamped; the proof is the response as received."""
    digest, nonce = hashlib.sha256(checkpoint.note.encode()).digest(), secrets.randbits(63)
    answer = _sent(keeper, keeper.place, timestamps.request(digest, nonce), timestamps.REQUEST_TYPE)
    if answer.status != 200 or answer.content_type != timestamps.RESPONSE_TYPE:
        _failed(f"the authority answered {answer.status} {answer.content_type}")
    try:
        moment = timestamps.stamped_at(answer.body, digest, nonce)
    except timestamps.BadTimestamp as error:
        raise Unavailable(str(error), code="anchor_failed") from error
    return Kept(AnchorMeans.RFC3161, keeper.place, answer.body, moment)


# --- witness ----------------------------------------------------------------------------------------------------


def _witness(keeper: Keeper, checkpoint: Checkpoint) -> Kept:
    """Submit the head with a proof from what the witness has (c2sp.org/tlog-witness); the proof is its cosignature."""
    old = held_before(keeper.means, keeper.place, checkpoint)
    for _ in range(_TRIES):
        answer = _submitted(keeper, checkpoint, old)
        if answer.status != 409:
            break
        old = _size_of(answer, checkpoint)
    if answer.status != 200:
        _failed(f"the witness answered {answer.status}")
    return _cosigned(keeper, checkpoint, answer)


def _submitted(keeper: Keeper, checkpoint: Checkpoint, old: int) -> Answer:
    path = proofs.consistency(old, checkpoint.size) if old else []
    lines = [f"old {old}", *(base64.b64encode(each).decode() for each in path)]
    body = "\n".join(lines) + "\n\n" + checkpoint.note
    return _sent(keeper, f"{keeper.place.rstrip('/')}/add-checkpoint", body.encode(), "text/plain")


def _size_of(answer: Answer, checkpoint: Checkpoint) -> int:
    """The size that a witness says it has; more than ours is no answer to go on with."""
    match = _SIZE.fullmatch(answer.body) if answer.content_type == _SIZE_TYPE else None
    if match is None:
        _failed("the witness refused and did not say which size it has")
    size = int(match[1])
    if size > checkpoint.size:
        _failed(
            f"the witness has a head of {size} entries of this log, the newest here has {checkpoint.size}. "
            "This database is not the one that was worked with last"
        )
    return size


def _cosigned(keeper: Keeper, checkpoint: Checkpoint, answer: Answer) -> Kept:
    """The answer holds the witness's own cosignature over this head, with a time."""
    witness = Verifier.from_vkey(keeper.witness_key)
    try:
        lines = answer.body.decode()
        note = checkpoint.note + lines
        notes.opened(note, [witness])
        _, signatures = notes.parse(note)
    except (UnicodeDecodeError, InvalidInput) as error:
        raise Unavailable(
            "The head was not anchored: the answer is no cosignature of this witness over it.",
            code="anchor_failed",
        ) from error
    (own, *_) = (line for line in signatures if (line.name, line.key_id) == (witness.name, witness.key_id))
    seconds = notes.cosigned_at(own.signature)
    if not 0 < seconds < 2**33:
        _failed("the cosignature has no usable time")
    return Kept(keeper.means, keeper.place, lines.encode(), datetime.fromtimestamp(seconds, UTC))


def _sent(keeper: Keeper, url: str, body: bytes, content_type: str) -> Answer:
    try:
        return exchange(
            url, body, content_type, allow_networks=keeper.allow_networks, timeout_s=keeper.timeout_s
        )
    except ExchangeFailed as error:
        _failed(str(error))


def _failed(why: str) -> NoReturn:
    raise Unavailable(f"The head was not anchored: {why}.", code="anchor_failed")


_KEEPERS: Mapping[AnchorMeans, Callable[[Keeper, Checkpoint], Kept]] = {
    AnchorMeans.FILE: _file,
    AnchorMeans.GIT: _git,
    AnchorMeans.RFC3161: _rfc3161,
    AnchorMeans.TLOG_WITNESS: _witness,
}
