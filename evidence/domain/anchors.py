"""Heads held outside this database: what was handed over, to whom, and what that is worth (P13).

A rewrite of everything shows only against a head that whoever rewrote could not reach. So each anchor says
who administers the place that holds it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from evidence.documents import LEDGER_ANCHOR
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records
from evidence.domain.clock import Clock
from evidence.enums import Administration, AnchorMeans
from evidence.models import Anchor, Checkpoint, Person
from evidence.permissions import Permission


@dataclass(frozen=True)
class Kept:
    """What the keeper of a head gave back: where it lies, the proof as received, the keeper's own time if any."""

    means: AnchorMeans
    place: str
    proof: bytes
    attested_at: datetime | None = None


@dataclass(frozen=True)
class Rated:
    """An anchor and what it is worth: 0 against ourselves nothing, 1 within the organisation, 2 outside of it."""

    anchor: Anchor
    worth: int
    sentence: str


_WORTH: Mapping[Administration, tuple[int, str]] = {
    Administration.US: (
        0,
        "Administered by the same people as the database: it shows accidents, not what they do themselves.",
    ),
    Administration.ORGANISATION: (
        1,
        "Administered by others in the same organisation: it shows what one team does alone.",
    ),
    Administration.THIRD_PARTY: (
        2,
        "Administered by a third party: it shows what anybody here does to the log.",
    ),
}


def hold(
    checkpoint: Checkpoint, kept: Kept, *, administered_by: Administration, by: Person | None, clock: Clock
) -> Anchor:
    """Remember and record that a signed head is held outside; ``by`` is None on the command line."""
    if by is not None:
        policies.require_role(by, Permission.SIGN_HEADS)
    with transaction.atomic():
        at = clocks.read(clock)
        draft = records.draft(
            LEDGER_ANCHOR,
            records.mint_id(LEDGER_ANCHOR),
            {
                "origin": checkpoint.origin,
                "size": checkpoint.size,
                "root_hash": bytes(checkpoint.root).hex(),
                "note_sha256": hashlib.sha256(checkpoint.note.encode()).hexdigest(),
                "means": kept.means.value,
                "place": kept.place,
                "administered_by": administered_by.value,
                "attested_at": records.timestamp(kept.attested_at) if kept.attested_at else "",
                "proof_sha256": hashlib.sha256(kept.proof).hexdigest(),
                "at": records.timestamp(at),
            },
            at=at,
            by=by,
        )
        anchor = Anchor.objects.create(
            anchor_id=draft.record_id,
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=bytes(checkpoint.root),
            note=checkpoint.note,
            means=kept.means,
            place=kept.place,
            administered_by=administered_by,
            attested_at=kept.attested_at,
            proof=kept.proof,
            created_at=at,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return anchor


def rated(rows: Iterable[Anchor] | None = None) -> list[Rated]:
    """Anchors, all unless told which, with what each is worth, in their order; newest first when all."""
    found = Anchor.objects.order_by("-pk") if rows is None else rows
    return [Rated(anchor, *_WORTH[Administration(anchor.administered_by)]) for anchor in found]


def ends() -> list[Anchor]:
    """The oldest and the newest head that are held outside; one when they are the same, none when there is none."""
    found = [Anchor.objects.order_by("size", "pk").first(), Anchor.objects.order_by("-size", "pk").first()]
    return list({anchor.pk: anchor for anchor in found if anchor}.values())


def of_heads(heads: Iterable[Checkpoint]) -> dict[tuple[str, int], list[Anchor]]:
    """Anchors of each head, by its name and size, oldest first."""
    found: dict[tuple[str, int], list[Anchor]] = {}
    for anchor in Anchor.objects.filter(size__in=[head.size for head in heads]).order_by("pk"):
        found.setdefault((anchor.origin, anchor.size), []).append(anchor)
    return found


def held_before(means: AnchorMeans, place: str, checkpoint: Checkpoint) -> int:
    """Size of the newest head of the same log that a keeper has, as far as is known here; 0 for none."""
    known = Anchor.objects.filter(
        means=means, place=place, origin=checkpoint.origin, size__lte=checkpoint.size
    )
    return known.order_by("-pk").values_list("size", flat=True).first() or 0


def holding(origin: str, size: int, root: bytes) -> list[Rated]:
    """Anchors of exactly this head, the worthiest first."""
    found = rated(Anchor.objects.filter(size=size, origin=origin, root=root).order_by("-pk"))
    return sorted(found, key=lambda each: -each.worth)
