"""The one place that writes records: sealed into the log inside the caller's transaction.

A committed record is a sealed record. Locking the head row serialises appends on PostgreSQL; SQLite has
its write lock from the transaction's first statement on.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import OuterRef, Subquery

from evidence.documents import GENESIS, PUBLIC_SAFETY_OVERRIDE
from evidence.domain import merkle, records
from evidence.domain.records import Draft
from evidence.domain.safety_rules import RULESET
from evidence.errors import Conflict, StaleState
from evidence.models import CaseLink, LedgerHead, MerkleNode, Record, RecordCounter, RecordKey, SealEntry

SEAL_VERSION = 1
CLOSED = "ledger_closed"


def append(drafts: Sequence[Draft]) -> list[Record]:
    """Give each draft its place: record, seal entry, case links, tree nodes, search keys, counters, head.

    Runs inside the verb's transaction and after its last lock: nothing may be locked after this, or two
    verbs could wait for each other. What was let through by somebody's reason is said by a record more, behind the
    others (P18). Returns the stored records of ``drafts`` in order. Raises ``Conflict`` ``ledger_closed`` when the log
    goes on in another database.
    """
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("records are appended inside the verb's own transaction")
    if not drafts:
        return []
    head = LedgerHead.objects.select_for_update(no_key=True).get()
    if head.closed_to:
        raise Conflict(closed_sentence(head.closed_to), code=CLOSED)
    asked = len(drafts)
    drafts = [*drafts, *_overrides(drafts)]
    peaks = merkle.split(head.peaks)
    chains = _chain_ends(case for draft in drafts for case in draft.cases)
    stored, seals, links, nodes, keys = [], [], [], [], []
    counts: Counter[tuple[str, str]] = Counter()
    for index, draft in enumerate(drafts, start=head.size):
        entry = seal_entry(
            origin=head.origin,
            epoch=head.epoch,
            index=index,
            draft=draft,
            cases=[(case, *chains[case]) for case in draft.cases],
        )
        leaf = merkle.leaf_hash(entry)
        peaks, completed = merkle.append(peaks, index, leaf)
        nodes += [MerkleNode(level=level, index=place, hash=digest) for level, place, digest in completed]
        seals.append(SealEntry(index=index, entry=entry, leaf_hash=leaf))
        stored.append(
            Record(
                index=index,
                record_id=draft.record_id,
                kind=draft.kind.name,
                created_at=draft.created_at,
                body=draft.body,
                digest=draft.digest,
                size=len(draft.body),
            )
        )
        keys += [
            RecordKey(name=name, value=value, created_at=draft.created_at, record=index)
            for name, value in draft.keys
        ]
        for case in draft.cases:
            n, _ = chains[case]
            links.append(CaseLink(case_id=case, n=n, index=index, leaf_hash=leaf))
            chains[case] = (n + 1, leaf.hex())
        counts[draft.kind.name, draft.state] += 1
    Record.objects.bulk_create(stored)
    SealEntry.objects.bulk_create(seals)
    MerkleNode.objects.bulk_create(nodes)
    RecordKey.objects.bulk_create(keys)
    CaseLink.objects.bulk_create(links)
    _count(counts)
    head.size += len(drafts)
    head.peaks = b"".join(peaks)
    newest = max(draft.created_at for draft in drafts)
    head.newest_at = max(head.newest_at, newest) if head.newest_at else newest
    head.save(update_fields=["size", "peaks", "newest_at"])
    return stored[:asked]


def _overrides(drafts: Sequence[Draft]) -> list[Draft]:
    """The records of what was let through in ``drafts``: the same text once, with the first document it is in."""
    seen: set[str] = set()
    found = []
    for draft in drafts:
        if draft.passed is None:
            continue
        new = [match for match in draft.passed.matches if match.commitment not in seen]
        seen.update(match.commitment for match in new)
        if not new:
            continue
        by = draft.passed.by
        found.append(
            records.draft(
                PUBLIC_SAFETY_OVERRIDE,
                records.mint_id(PUBLIC_SAFETY_OVERRIDE),
                {
                    "ruleset": RULESET,
                    "overridden_kind": draft.kind.name,
                    "overridden_record_id": draft.record_id,
                    "overridden_record_hash": draft.digest,
                    "hits": [match.as_dict() for match in new],
                    "reason": draft.passed.reason,
                    "overridden_by": by.username if by else "",
                    "overridden_at": records.timestamp(draft.created_at),
                },
                at=draft.created_at,
                by=by,
                cases=draft.cases,
                references=[draft.reference],
            )
        )
    return found


def hold() -> None:
    """Keep everybody else from appending until the transaction ends: the last lock that a verb takes.

    For what has to be decided about the log as it stands, with nothing committed between the look and the act.
    """
    LedgerHead.objects.select_for_update(no_key=True).get()


def seal_entry(
    *, origin: str, epoch: int, index: int, draft: Draft, cases: Sequence[tuple[str, int, str | None]]
) -> bytes:
    """RFC 8785 bytes of the leaf that commits to ``draft`` (DESIGN §5).

    ``cases`` is ``(case id, place in its chain, previous leaf hash in hex or None)``. The entry holds ids
    and hashes only: no free text, no names, no hosts (P24).
    """
    return records.canonical(
        {
            "v": SEAL_VERSION,
            "log": origin,
            "epoch": epoch,
            "index": index,
            "kind": draft.kind.name,
            "record": draft.record_id,
            "at": records.timestamp(draft.created_at),
            "cases": [{"case": case, "n": n, "prev": prev} for case, n, prev in cases],
            "body": {"sha256": draft.digest, "size": len(draft.body)},
        }
    )


def _chain_ends(cases: Iterable[str]) -> dict[str, tuple[int, str | None]]:
    """For each case the next place in its chain and the hash that place has to quote."""
    wanted = set(cases)
    ends: dict[str, tuple[int, str | None]] = dict.fromkeys(wanted, (1, None))
    if wanted:
        newest = CaseLink.objects.filter(case_id=OuterRef("case_id")).order_by("-n").values("n")[:1]
        # Not by a list of (case, n) pairs: SQLite refuses an expression of more than 1,000 of them.
        for link in CaseLink.objects.filter(case_id__in=wanted, n=Subquery(newest)):
            ends[link.case_id] = (link.n + 1, bytes(link.leaf_hash).hex())
    return ends


def _count(counts: Counter[tuple[str, str]]) -> None:
    """Advance the record counters; the head row is held, so nobody else does at the same time."""
    table = connection.ops.quote_name(RecordCounter._meta.db_table)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} (kind, state, count) VALUES (%s, %s, %s) "  # noqa: S608  (our own table name)
            f"ON CONFLICT (kind, state) DO UPDATE SET count = {table}.count + excluded.count",
            [(kind, state, count) for (kind, state), count in sorted(counts.items())],
        )


def start(origin: str, *, at: datetime) -> None:
    """Write the head row and the genesis entry, index 0: origin and algorithms. Does nothing when there is a log."""
    with transaction.atomic():
        _, created = LedgerHead.objects.get_or_create(id=1, defaults={"origin": origin})
        if not created:
            return
        genesis = records.draft(
            GENESIS,
            records.mint_id(GENESIS),
            {
                "origin": origin,
                "epoch": 1,
                "started_at": records.timestamp(at),
                "body_format": "RFC 8785",
                "body_digest": "SHA-256",
                "leaf_hash": "RFC 9162 SHA-256",
                "seal_version": SEAL_VERSION,
                "document_version": records.DOCUMENT_VERSION,
            },
            at=at,
            by=None,
        )
        append([genesis])


def begin_epoch(origin: str, *, epoch: int) -> None:
    """Let the log go on under another name from its next entry on, which the caller appends (P25).

    Raises ``StaleState`` when the log is not in the epoch before.
    """
    rows = LedgerHead.objects.filter(epoch=epoch - 1).exclude(origin=origin)
    if not rows.update(origin=origin, epoch=epoch):
        raise StaleState(f"The log is not in epoch {epoch - 1} any more.")


def closed_sentence(closed_to: str) -> str:
    """Why nothing is written here any more."""
    return f"This database is closed: its log goes on in {closed_to}. Nothing is written or sent here."


def newest_time() -> datetime | None:
    """Time of the newest entry; None for an empty log. Rules judge by the later of it and the clock (P6)."""
    return LedgerHead.objects.values_list("newest_at", flat=True).first()
