"""Keys that sign heads of the log: made, introduced, retired and revoked only here.

The private half is one line of text, ``CAVRA-LEDGER-KEY-1 <base64>``, where base64 holds the 32-byte seed of
an Ed25519 key (RFC 8032 section 5.1.5). It stays in a file or an environment variable that
``CAVRA_LEDGER_KEYS`` names. The database knows public halves, each under the name it signs as: the origin
of the log. All active keys sign every head, so that a head signed by old and new key together hands over.
"""

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from evidence.documents import LEDGER_KEY
from evidence.domain import clock as clocks
from evidence.domain import ledger, notes, policies, records, text
from evidence.domain.clock import Clock
from evidence.domain.notes import Signer, Verifier
from evidence.domain.transitions import LEDGER_KEYS, move
from evidence.enums import KeyState
from evidence.errors import Conflict, InvalidInput, NotFound, Unavailable
from evidence.models import Checkpoint, LedgerHead, LedgerKey, Person
from evidence.permissions import Permission

_FORMAT = "CAVRA-LEDGER-KEY-1"
_MAX_FILE = 4096


@dataclass(frozen=True)
class KnownKey(Verifier):
    """A key of this log, with what became of it."""

    state: KeyState = KeyState.ACTIVE


# --- what signs and what verifies -----------------------------------------------------------------------------------


def signers() -> list[Signer]:
    """Keys that sign the next head: configured here, and active under the log's present name.

    Raises ``Unavailable`` (``ledger_key_unusable``) when a configured one cannot be read.
    """
    configured = configured_keys()
    if not configured:
        return []
    origin = LedgerHead.objects.values_list("origin", flat=True).get()
    active = {bytes(key) for key in _active(origin).values_list("public_key", flat=True)}
    return [
        signer
        for signer in (Signer(origin, key) for key in configured.values())
        if signer.public_key in active
    ]


def verifiers() -> list[KnownKey]:
    """Every key that ever signed for this database's log, oldest first, with its state."""
    return [
        KnownKey(row.name, bytes(row.public_key), state=KeyState(row.state))
        for row in LedgerKey.objects.order_by("pk")
    ]


def any_trusted(signed_by: Iterable[KnownKey]) -> bool:
    """Whether one of these keys was not revoked; a stolen one signs any past, what it alone signed counts no more."""
    return any(key.state != KeyState.REVOKED for key in signed_by)


def problems() -> list[str]:
    """What keeps a configured key from signing, one sentence each."""
    said = ((reference, configured(reference)) for reference in settings.CAVRA_LEDGER_KEYS)
    return [
        f"The ledger key {reference} does not sign: {what}." for reference, (signs, what) in said if not signs
    ]


def configured(reference: str) -> tuple[bool, str]:
    """Whether the key behind a reference signs, and what it is or why it does not."""
    try:
        public = private_key(reference).public_key().public_bytes_raw()
    except Unavailable as error:
        return False, error.extra["why"]
    row = LedgerKey.objects.filter(public_key=public).order_by("-pk").first()
    if row is None:
        return False, "it was not introduced"
    return row.state == KeyState.ACTIVE, f"{row.key_id} is {row.state}"


def configured_keys() -> dict[str, Ed25519PrivateKey]:
    """Private keys by the reference that ``CAVRA_LEDGER_KEYS`` has; see ``signers`` for what is raised."""
    return {reference: private_key(reference) for reference in settings.CAVRA_LEDGER_KEYS}


def _active(origin: str) -> QuerySet[LedgerKey]:
    return LedgerKey.objects.filter(name=origin, state=KeyState.ACTIVE)


def private_key(reference: str) -> Ed25519PrivateKey:
    """The private key that ``file:PATH`` or ``env:NAME`` stands for; see ``signers`` for what is raised."""
    kind, _, place = reference.partition(":")
    try:
        line = os.environ[place] if kind == "env" else _file(place)
        form, _, encoded = line.strip().partition(" ")
        seed = base64.b64decode(encoded, validate=True)
        if form != _FORMAT:
            raise ValueError
        return Ed25519PrivateKey.from_private_bytes(seed)
    except KeyError:
        why = "the environment variable is not set"
    except OSError as error:
        why = f"the file cannot be read ({error.strerror})"
    except (ValueError, binascii.Error):  # Never what was found: it may be some other secret.
        why = f"a key is one line, {_FORMAT} and 32 bytes in base64"
    raise Unavailable(
        f"The ledger key {reference} cannot be used: {why}.", code="ledger_key_unusable", why=why
    )


def _file(place: str) -> str:
    with Path(place).open(encoding="ascii") as file:
        return file.read(_MAX_FILE)


def vkey_of(row: LedgerKey) -> str:
    """The text by which others configure this key."""
    return notes.vkey(row.name, bytes(row.public_key))


# --- verbs ----------------------------------------------------------------------------------------------------------


def make(path: Path) -> bytes:
    """Make a new private key in a file of its own, readable by its owner alone; returns the public half.

    Raises ``Conflict`` (``ledger_key_exists``) when something is there: a key that is gone cannot be had back.
    """
    key = Ed25519PrivateKey.generate()
    line = f"{_FORMAT} {base64.b64encode(key.private_bytes_raw()).decode()}\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise Conflict(
            f"{path} is there already and stays as it is. Name another file.", code="ledger_key_exists"
        ) from error
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written: {error.strerror}.", code="ledger_key_unusable"
        ) from error
    return key.public_key().public_bytes_raw()


def introduce(*, by: Person | None, clock: Clock) -> list[LedgerKey]:
    """Let every configured key that is new sign from now on; returns the new ones.

    ``by`` is None on the command line. Raises ``Conflict`` (``ledger_key_ended``) for a key that was retired or
    revoked before, and what ``signers`` raises.
    """
    _require_administrator(by)
    configured = [key.public_key().public_bytes_raw() for key in configured_keys().values()]
    with transaction.atomic():
        # Signing a head takes the same lock: it never happens between two states of the keys.
        head = LedgerHead.objects.select_for_update(no_key=True).get()
        at = clocks.read(clock)
        ended = LedgerKey.objects.filter(public_key__in=configured).exclude(state=KeyState.ACTIVE).first()
        if ended:
            raise Conflict(
                f"The key {ended.key_id} was {ended.state} and does not come back. Make a new one.",
                code="ledger_key_ended",
            )
        known = {bytes(key) for key in _active(head.origin).values_list("public_key", flat=True)}
        new = [key for key in dict.fromkeys(configured) if key not in known]
        rows = [_create(head.origin, key, at=at) for key in new]
        ledger.append([_draft(row, "introduced", at=at, by=by) for row in rows])
    return rows


def carry_over(origin: str, *, at: datetime, by: Person | None) -> list[records.Draft]:
    """Let the active keys sign under the log's new name; inside the verb that renames it, which appends the drafts."""
    old = LedgerHead.objects.values_list("origin", flat=True).get()
    rows = [_create(origin, bytes(row.public_key), at=at) for row in _active(old).order_by("pk")]
    return [_draft(row, "introduced", at=at, by=by) for row in rows]


def retire(key_id: str, *, reason: str, by: Person | None, clock: Clock) -> LedgerKey:
    """End a key in order: what it signed stays good. See ``reasons_against_retiring`` for when it may go."""
    return _end(key_id, KeyState.RETIRED, reason=reason, by=by, clock=clock)


def revoke(key_id: str, *, reason: str, by: Person | None, clock: Clock) -> LedgerKey:
    """End a key that is not to be trusted: heads that it alone signed count no more. Always possible."""
    return _end(key_id, KeyState.REVOKED, reason=reason, by=by, clock=clock)


def reasons_against_retiring(row: LedgerKey) -> list[tuple[str, str]]:
    """Why this key may not go yet, as ``(code, sentence)``: its successor has not signed a head beside it."""
    newest = Checkpoint.objects.filter(origin=row.name).order_by("-pk").first()
    together = _active_signers(newest) if newest else set()
    if bytes(row.public_key) in together and len(together) > 1:
        return []
    return [
        (
            "no_overlap",
            "The newest head is not signed by this key and another active one together. "
            "Introduce the successor, have a head signed, then retire this key.",
        )
    ]


def _active_signers(checkpoint: Checkpoint) -> set[bytes]:
    """Public halves of the active keys whose signatures a stored head carries."""
    opened = notes.opened(checkpoint.note, verifiers())
    return {key.public_key for key in opened.signed_by if key.state == KeyState.ACTIVE}


def _end(key_id: str, state: KeyState, *, reason: str, by: Person | None, clock: Clock) -> LedgerKey:
    _require_administrator(by)
    reason = text.clean(reason, field="reason", limit=300)
    if not reason:
        raise InvalidInput("A key ends for a reason.", errors={"reason": ["required"]})
    with transaction.atomic():
        LedgerHead.objects.select_for_update(no_key=True).get()
        at = clocks.read(clock)
        row = LedgerKey.objects.filter(key_id=key_id.lower()).order_by("-pk").first()
        if row is None:
            raise NotFound(f"There is no ledger key {key_id}.", code="no_ledger_key")
        if state == KeyState.RETIRED and (reasons := reasons_against_retiring(row)):
            raise Conflict(reasons[0][1], code=reasons[0][0])
        # The same key under earlier names of the log ends with it.
        ended = list(_of_key(row).order_by("pk"))
        for each in ended:
            move(LEDGER_KEYS, each.pk, state, ended_at=at, reason=reason)
            each.refresh_from_db()
        ledger.append([_draft(each, state.value, at=at, by=by) for each in ended])
    row.refresh_from_db()
    return row


def _of_key(row: LedgerKey) -> QuerySet[LedgerKey]:
    return LedgerKey.objects.filter(public_key=row.public_key)


def _require_administrator(by: Person | None) -> None:
    if by is not None:
        policies.require_role(by, Permission.CONFIGURE)


def _create(name: str, public_key: bytes, *, at: datetime) -> LedgerKey:
    return LedgerKey.objects.create(
        name=name, public_key=public_key, key_id=notes.key_id(name, public_key).hex(), introduced_at=at
    )


def _draft(row: LedgerKey, change: str, *, at: datetime, by: Person | None) -> records.Draft:
    return records.draft(
        LEDGER_KEY,
        records.mint_id(LEDGER_KEY),
        {
            "name": row.name,
            "vkey": vkey_of(row),
            "key_id": row.key_id,
            "change": change,
            "reason": row.reason,
            "at": records.timestamp(at),
        },
        at=at,
        by=by,
    )
