"""Signed heads of the log (C2SP tlog-checkpoint): made here, kept here, and held against those kept outside.

What is signed was derived again from stored bytes since the head before. A head is no record: signing must
not make something new to sign. The newest one also lies in a file beside the database, so that a database
that was set back is found out (P25).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Max, QuerySet

from evidence.documents import GENESIS
from evidence.domain import clock as clocks
from evidence.domain import derivation, log_keys, merkle, notes, policies, proofs, records, text
from evidence.domain.clock import Clock
from evidence.domain.log_keys import KnownKey
from evidence.domain.notes import Head, Signer
from evidence.enums import EpochState
from evidence.errors import Conflict, DomainError, InvalidInput, Unavailable
from evidence.models import (
    Checkpoint,
    EpochProposal,
    LedgerHead,
    LedgerKey,
    Person,
    Record,
    SealEntry,
    SigningRefusal,
)
from evidence.permissions import Permission

Beat = Callable[[], None]


# --- making ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Begun:
    """What a signing starts from; it ends in a head only when the last one is still the last one."""

    head: LedgerHead
    base: Checkpoint | None
    signers: list[Signer]

    @classmethod
    def read(cls) -> "_Begun | None":
        """None when nothing is new (no entry, no new name of the log) or nobody signs."""
        # In this order: a head that is signed in between would be larger than the log that was read before it.
        base, head = newest(), LedgerHead.objects.get()
        if base and (base.origin, base.size) == (head.origin, head.size):
            return None
        signers = log_keys.signers()
        return cls(head, base, signers) if signers else None


def make(*, by: Person | None = None, clock: Clock, beat: Beat = lambda: None) -> Checkpoint | None:
    """Sign the log as it is now; None when nothing is new, no key is there, or somebody else was first.

    ``by`` is None when the worker's calendar asks. Raises ``Conflict`` or ``Unavailable`` when what is stored
    cannot be signed (``ledger_differs``, ``ledger_behind``, ``ledger_key_unusable``); that is kept for the
    pages to show until a head is signed again.
    """
    if by is not None:
        policies.require_role(by, Permission.SIGN_HEADS)
    try:
        signed = _signed(beat)
    except DomainError as error:
        _remember(error, clock=clock)
        raise
    if signed:
        return _stored(*signed, clock=clock)
    keep_outside()
    return None


def make_due(*, clock: Clock, beat: Beat = lambda: None) -> int:
    """The worker's step: sign when something is new and the newest head is old enough. Returns how many (0 or 1)."""
    last, refused = newest(), refusal()
    tried = [last.created_at] if last else []
    tried += [refused.at] if refused else []
    if tried and clock() < max(tried) + timedelta(seconds=settings.CAVRA_CHECKPOINT_S):
        return 0
    return int(make(clock=clock, beat=beat) is not None)


def _signed(beat: Beat) -> tuple[_Begun, str] | None:
    """Derive and sign, holding no lock; None when there is nothing to sign or nobody to do it."""
    begun = _Begun.read()
    if begun is None:
        return None
    for code, sentence in ledger_behind():
        raise Conflict(f"No head is signed. {sentence}", code=code)
    head = begun.head
    start, peaks = _built_upon(begun.base)
    grown = derivation.peaks(start, head.size, peaks, beat=beat)
    if b"".join(grown) != bytes(head.peaks):
        raise Conflict("The head is not what the entries give.", code="ledger_differs")
    said = notes.checkpoint_text(head.origin, head.size, merkle.root(grown))
    return begun, notes.signed(said, begun.signers)


def _built_upon(base: Checkpoint | None) -> tuple[int, list[bytes]]:
    """From which size on to derive, and the peaks there: those of the head before, which has to be ours.

    One that revoked keys alone signed may be a thief's: everything is derived anew then.
    """
    if base is None or not trusted(base):
        return 0, []
    return base.size, merkle.split(base.peaks)


def trusted(row: Checkpoint) -> bool:
    """Whether a key that was not revoked signed a stored head.

    Raises ``Conflict`` (``ledger_differs``) for a row that no key of this log signed, or that says something else
    than what was signed.
    """
    try:
        opened = notes.opened(row.note, log_keys.verifiers())
        said = notes.parse_checkpoint(opened.text)
    except InvalidInput as error:
        raise Conflict(
            f"The newest signed head is not ours: {error.detail}", code="ledger_differs"
        ) from error
    root = merkle.root(merkle.split(row.peaks))
    if said != Head(row.origin, row.size, root) or root != bytes(row.root):
        raise Conflict("The newest signed head does not say what was signed.", code="ledger_differs")
    return log_keys.any_trusted(opened.signed_by)


def _stored(begun: _Begun, note: str, *, clock: Clock) -> Checkpoint | None:
    """Insert a signed head if it still follows the last one; its file is written once it is committed."""
    head = begun.head
    with transaction.atomic():
        now = LedgerHead.objects.select_for_update(no_key=True).get()
        at = clocks.read(clock)
        last = newest()
        keys = {signer.vkey for signer in log_keys.signers()}
        if (
            (last and last.pk) != (begun.base and begun.base.pk)
            or now.origin != head.origin
            or keys != {signer.vkey for signer in begun.signers}
        ):
            return None
        made = Checkpoint.objects.create(
            origin=head.origin,
            epoch=head.epoch,
            size=head.size,
            root=merkle.root(merkle.split(head.peaks)),
            peaks=bytes(head.peaks),
            note=note,
            created_at=at,
        )
        SigningRefusal.objects.all().delete()
        if _is_first(made):
            # There before its row is: a row whose file is not there says that the file was lost.
            keep_outside()
        else:
            transaction.on_commit(keep_outside, robust=True)
    return made


def _is_first(checkpoint: Checkpoint) -> bool:
    """Whether no head of the log by this name was signed before."""
    return not Checkpoint.objects.filter(origin=checkpoint.origin).exclude(pk=checkpoint.pk).exists()


def _remember(error: DomainError, *, clock: Clock) -> None:
    SigningRefusal.objects.update_or_create(
        id=1, defaults={"code": error.code, "detail": error.detail[:600], "at": clock()}
    )


# --- reading --------------------------------------------------------------------------------------------------------


def newest() -> Checkpoint | None:
    """The newest signed head, whatever the log was called then."""
    return Checkpoint.objects.order_by("-pk").first()


def latest() -> Checkpoint | None:
    """The newest signed head under the log's present name."""
    return _of_this_log().first()


def latest_trusted() -> Checkpoint | None:
    """The newest one that says what a key signed that was not revoked; see ``trusted``."""
    for row in _of_this_log().iterator(chunk_size=50):
        try:
            if trusted(row):
                return row
        except Conflict:  # Not a head of ours, whoever put it there; a verification names it.
            continue
    return None


def _of_this_log() -> QuerySet[Checkpoint]:
    return Checkpoint.objects.filter(origin=LedgerHead.objects.values("origin")[:1]).order_by("-pk")


def signed_by(checkpoint: Checkpoint) -> list[KnownKey]:
    """Keys of this log whose signature lines a stored head carries, with what became of each since."""
    _, signatures = notes.parse(checkpoint.note)
    there = {(line.name, line.key_id) for line in signatures}
    return [key for key in log_keys.verifiers() if (key.name, key.key_id) in there]


def covering(index: int) -> Checkpoint | None:
    """The newest signed head, if its tree holds entry ``index``."""
    last = newest()
    return last if last and last.size > index else None


def proof_of(index: int) -> str:
    """Proof that entry ``index`` is in the newest signed tree, as c2sp.org/tlog-proof writes it.

    Raises ``Conflict`` (``not_signed_yet``) while no signed head reaches the entry, ``Unavailable``
    (``ledger_damaged``) when the stored tree does not lead to the signed root.
    """
    last = covering(index)
    if last is None:
        raise Conflict(
            "No signed head of the log reaches this record yet. The worker signs one within a minute or so.",
            code="not_signed_yet",
        )
    path = proofs.inclusion(index, last.size)
    leaf = SealEntry.objects.values_list("leaf_hash", flat=True).get(index=index)
    if not merkle.verify_inclusion(bytes(leaf), index, last.size, path, bytes(last.root)):
        raise Unavailable(
            "The stored tree is not the one that was signed; verify the ledger.", code="ledger_damaged"
        )
    return notes.tlog_proof(index, path, last.note)


def signed_now(*, by: Person | None = None, clock: Clock) -> tuple[Checkpoint, bool]:
    """The newest head, signed now if something is new, and whether it was.

    Raises ``Conflict`` (``ledger_key_missing``) when nobody signs, and what ``make`` raises.
    """
    made = make(by=by, clock=clock)
    head = made or latest()
    if head is None or (made is None and not log_keys.signers()):
        raise Conflict(
            "No head was signed: no key is configured and introduced here (manage.py ledger_key).",
            code="ledger_key_missing",
        )
    return head, made is not None


def to_hand_out(*, clock: Clock) -> Checkpoint:
    """The newest head as others are asked to keep it; refused by a database that is behind, see ``signed_now``."""
    for code, sentence in ledger_behind():
        raise Conflict(sentence, code=code)
    return signed_now(clock=clock)[0]


def refusal() -> SigningRefusal | None:
    """Why the newest attempt to sign was refused, if it was."""
    return SigningRefusal.objects.first()


# --- the head outside -----------------------------------------------------------------------------------------------


def outside_path() -> Path:
    """The file that holds the newest signed head, beside the database."""
    return Path(settings.CAVRA_DATA) / "ledger" / "head"


def outside_head() -> Head | None:
    """The head in the file; None when there is no file. Raises ``InvalidInput`` when it holds something else."""
    try:
        note = outside_path().read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{outside_path()} cannot be read.", code="note") from error
    said, _ = notes.parse(note)
    return notes.parse_checkpoint(said)


def keep_outside() -> bool:
    """Write the newest signed head into its file, unless it is there; True when written.

    A larger head of the same log stays, and so does whatever shows this database to be behind or is no head at
    all: ``ledger_behind`` speaks of it, and nothing else would. Nor is a file written that is missing, except
    for the first head of a log: it may be missing because everything was set back, see ``keep_anew``.
    Raises ``Unavailable`` (``ledger_head_not_kept``) when the file cannot be written.
    """
    if latest() is None:
        return False
    try:
        with _outside_lock():
            # Read again: whoever wrote while this one waited may have had a newer head, under another name.
            last, there = latest(), outside_head()
            if last is None:
                return False
            if there is None:
                stays = not _is_first(last)
            else:
                stays = (there.origin == last.origin and there.size >= last.size) or bool(ledger_behind())
            if stays:
                return False
            _replace(outside_path(), last.note)
    except InvalidInput:
        return False
    return True


def keep_anew(*, reason: str, clock: Clock) -> Checkpoint:
    """Write the newest signed head into its file although none is there, by an operator's word; that head.

    For a machine that joins a deployment, or a file that was lost while the database was not set back. It
    leaves a line in ``head.log`` beside the file, no record: it says something about this machine alone.
    Raises ``InvalidInput`` without a reason, ``Conflict`` ``ledger_head_there`` or ``not_signed_yet``.
    """
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES)
    if not reason:
        raise InvalidInput("Not kept: say why the file is not there.", errors={"reason": ["is missing"]})
    last = latest()
    if last is None:
        raise Conflict(
            "Not kept: no head of this log was signed yet; the first one is kept by itself.",
            code="not_signed_yet",
        )
    path = outside_path()
    with _outside_lock():
        if path.exists():
            raise Conflict(
                f"Not kept: {path} is there, and stays. If this database was set back, start a new epoch "
                "(manage.py new_epoch).",
                code="ledger_head_there",
            )
        with open(path.with_name("head.log"), "a", encoding="utf-8") as log:
            log.write(f"{records.timestamp(clock())} kept anew: {last.origin} at {last.size}: {reason}\n")
        _replace(path, last.note)
    return last


@contextmanager
def _outside_lock() -> Iterator[None]:
    """One writer of the file at a time, in this process or another; ``Unavailable`` when it cannot be written."""
    path = outside_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name("head.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise Unavailable(
            f"The signed head cannot be kept in {path}: {error.strerror or error}.",
            code="ledger_head_not_kept",
        ) from error


def _replace(path: Path, content: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    beside = path.with_name(path.name + ".new")
    with open(beside, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def ledger_behind() -> list[tuple[str, str]]:
    """Why this database cannot be what the head outside was signed over, as ``(code, sentence)``; empty when it can.

    Two or three short queries; the code is ``ledger_behind``.
    """
    try:
        outside = outside_head()
    except InvalidInput as error:
        return [_behind(f"The head beside the database is damaged: {error.detail}")]
    if outside is None:
        if not latest():
            return []
        # Signed in between, perhaps: the first head's file is there before its row, so it is looked for once more.
        outside = outside_head()
        if outside is None:
            return [_lost_file()]
    head = LedgerHead.objects.only("origin", "size").get()
    if outside.origin != head.origin:
        if outside.origin in _earlier_origins() and (not _unheard_of(outside) or is_here(outside)):
            return []
        return [_behind(f"The head beside the database is of another log, {outside.origin}.")]
    if outside.size > head.size:
        return [
            _behind(f"It holds {head.size:,} entries; a head of {outside.size:,} entries was signed before.")
        ]
    if proofs.root_at(outside.size) != outside.root:
        return [_behind(f"Its first {outside.size:,} entries are not those that were signed.")]
    return []


def is_here(head: Head) -> bool:
    """Whether the stored log begins with what a head was signed over, under whichever name."""
    size = LedgerHead.objects.values_list("size", flat=True).get()
    return head.size <= size and proofs.root_of_nodes(head.size) == head.root


def _lost_file() -> tuple[str, str]:
    return (
        "ledger_behind",
        "Nobody can tell whether this database was set back: heads of its log were signed, and the newest one does "
        f"not lie beside it ({outside_path()}). If the database was restored, start a new epoch (manage.py "
        "new_epoch). If it is the one that was worked with last, on a machine that is new or lost the file, have "
        "the file written again (manage.py ledger_head keep --reason TEXT).",
    )


def _unheard_of(outside: Head) -> bool:
    """Whether a head of a log that ended is larger than the one its end was decided by: more was lost than known."""
    ended = EpochProposal.objects.filter(state=EpochState.CONFIRMED, known_origin=outside.origin)
    known = ended.aggregate(size=Max("known_size"))["size"]
    return known is not None and outside.size > known


def _behind(what: str) -> tuple[str, str]:
    return (
        "ledger_behind",
        f"This database is not the one that was worked with last. {what} "
        "Restore the newest copy, or start a new epoch (manage.py new_epoch).",
    )


def _earlier_origins() -> set[str]:
    """Names that this log had: of its signed heads, of its keys, and of the genesis entry."""
    names = set(Checkpoint.objects.values_list("origin", flat=True).distinct())
    names |= set(LedgerKey.objects.values_list("name", flat=True).distinct())
    started = Record.objects.filter(kind=GENESIS.name).values("index")
    for entry in SealEntry.objects.filter(index__in=started).values_list("entry", flat=True):
        names.add(records.load(entry)["log"])
    return names


def _lost(head: Head) -> str:
    """What two people decided about entries that a head of an ended log was signed over; empty when they are here."""
    ended = EpochProposal.objects.filter(
        state=EpochState.CONFIRMED, old_origin=head.origin, first_lost_index__lt=head.size
    ).first()
    if ended is None:
        return ""
    return (
        f"This database was restored: of the {head.size:,} entries that were signed, those from "
        f"{ended.first_lost_index:,} on are lost. The log goes on as {ended.origin}."
    )


# --- heads that others hold -----------------------------------------------------------------------------------------


def verdict(head: Head) -> tuple[str, str]:
    """What a head says about the stored tree, whoever signed it: a verdict as in ``heads.Held``, and a sentence."""
    now = LedgerHead.objects.only("origin", "size").get()
    if head.origin != now.origin and head.origin not in _earlier_origins():
        return "other_log", f"This is a head of another log, {head.origin}."
    if is_here(head):
        return "extends", f"The log begins with the {head.size:,} entries that were signed."
    if lost := _lost(head):
        return "lost", lost
    if head.size > now.size:
        return "shorter", f"The log has {now.size:,} entries; {head.size:,} were signed. The end was cut off."
    return (
        "differs",
        f"The first {head.size:,} entries are not those that were signed. History was rewritten.",
    )
