"""The access log: who read which evidence. Beside the ledger, changed by reads and pruned by age (P14).

It is no evidence: nothing is sealed, nothing refers to it, and whoever administers the database could change it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from evidence.domain.clock import Clock
from evidence.enums import Access, Via
from evidence.errors import InvalidInput
from evidence.models import AccessLogEntry, Person

# Rows that one statement removes: a long one would keep writers of SQLite waiting.
PRUNED_AT_ONCE = 5_000


@dataclass(frozen=True)
class Read:
    """What reading one address means: the act, what was read, and the part of the path that names it."""

    act: Access
    subject: str
    named_by: str = ""


# By the name of the address. Lists of what there is, pages about the service, stamps and fragments that a page asks
# for again and again are no reads of evidence.
READS: dict[str, Read] = {
    "evidence": Read(Access.VIEW, "history"),
    "go_rollback_drill_notification_history": Read(Access.VIEW, "history"),
    "evidence-record": Read(Access.VIEW, "record", "session_id"),
    "record-bytes": Read(Access.DOWNLOAD, "record", "record_id"),
    "record-seal": Read(Access.DOWNLOAD, "seal", "record_id"),
    "record-proof": Read(Access.DOWNLOAD, "proof", "record_id"),
    "case": Read(Access.VIEW, "case", "case"),
    "export-history-jsonl": Read(Access.EXPORT, "history"),
    "export-history-csv": Read(Access.EXPORT, "history"),
    "capsule": Read(Access.DOWNLOAD, "capsule", "capsule_id"),
    "connector-stream": Read(Access.EXPORT, "stream", "connector"),
    "tlog-entries": Read(Access.DOWNLOAD, "entries", "tile"),
    "ledger-anchor-proof": Read(Access.DOWNLOAD, "anchor proof", "anchor_id"),
    "public-safety-overrides": Read(Access.VIEW, "overrides"),
    "console:public-safety": Read(Access.VIEW, "overrides"),
    "console:record": Read(Access.VIEW, "record", "record_id"),
    "console:case": Read(Access.VIEW, "case", "case_id"),
    "console:connections": Read(Access.VIEW, "connections", "case_id"),
    "admin:evidence_record_change": Read(Access.VIEW, "entry", "object_id"),
    "admin:evidence_case_change": Read(Access.VIEW, "case row", "object_id"),
    "admin:evidence_attempt_change": Read(Access.VIEW, "attempt row", "object_id"),
    "admin:evidence_senddiagnostic_change": Read(Access.VIEW, "connection row", "object_id"),
}


def register(reads: Mapping[str, Read]) -> None:
    """Add what another app's addresses mean."""
    READS.update(reads)


def note(person: Person, read: Read, subject_id: str, *, page: str, via: Via, clock: Clock) -> AccessLogEntry:
    """Keep that ``person`` read something; one statement, no transaction of its own and no lock."""
    return AccessLogEntry.objects.create(
        at=clock(),
        person_id=person.person_id,
        name=person.username,
        act=read.act,
        subject=read.subject,
        subject_id=subject_id[:200],
        page=page[:100],
        via=via,
    )


def prune(older_than: timedelta, *, clock: Clock) -> int:
    """Forget reads that are longer ago than this; returns how many. Some thousand at a time."""
    if older_than < timedelta(days=1):
        raise InvalidInput(
            "Nothing was removed: the access log is kept for at least a day.",
            errors={"days": ["Must be 1 or more."]},
        )
    removed = 0
    old = AccessLogEntry.objects.filter(at__lt=clock() - older_than)
    while places := list(old.order_by("pk").values_list("pk", flat=True)[:PRUNED_AT_ONCE]):
        removed += AccessLogEntry.objects.filter(pk__in=places).delete()[0]
    return removed
