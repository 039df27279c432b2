"""Streams: every case has a place in its connector's stream of events, so that a receiver can prove a gap.

Places are 1, 2, 3… for each connector, without a gap and never given twice: they are given in the transaction
that makes the case, under a lock on the connector's stream. Each event quotes the digest of the one before
it and the log's head right after its delivery plan was sealed. Notices and notifications are not part of
the stream: they repeat what evidence says, and nothing is proven by their absence.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evidence.documents import DELIVERY_PLAN, DELIVERY_STREAM
from evidence.domain import events, proofs, records
from evidence.models import Case, Connector, LedgerHead, Person, Record, StreamHead


def lock(connectors: Sequence[Connector]) -> dict[int, StreamHead]:
    """The streams of ``connectors`` by their key, locked in one order so that no two plans wait for each other.

    Whoever makes cases holds these first: two of one connector are never made at the same time.
    """
    wanted = sorted(connector.pk for connector in connectors)
    known = set(StreamHead.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    if missing := [pk for pk in wanted if pk not in known]:
        StreamHead.objects.bulk_create([StreamHead(connector_id=pk) for pk in missing], ignore_conflicts=True)
    locked = StreamHead.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=wanted)
    return {head.pk: head for head in locked.order_by("pk")}


def place(
    cases: Sequence[Case],
    heads: Mapping[int, StreamHead],
    plan: Record,
    content: Mapping[str, Any],
    *,
    audit_hash: str,
) -> None:
    """Give unsaved ``cases`` of one plan their places behind their streams' ends, and move those ends.

    ``plan`` was appended just now, alone, so that the log's head ends with it. ``content`` is the payload of the
    audit package. Nothing is locked here, the ledger is held already.
    """
    planned = records.payload_of(plan)
    if planned is None:
        raise ValueError(f"{plan} was sealed just now and has no body")
    origin = LedgerHead.objects.values_list("origin", flat=True).get()
    root = proofs.root_of_nodes(plan.index + 1)
    for case in cases:
        head = heads[case.connector_id]
        case.stream_seq, case.stream_prev = head.seq + 1, head.digest
        case.head_origin, case.head_size = origin, plan.index + 1
        event = events.build(planned, content, audit_hash=audit_hash, stream=events.stream_block(case, root))
        case.stream_digest = events.digest(event)
        head.seq, head.digest = case.stream_seq, case.stream_digest
    StreamHead.objects.bulk_update([heads[case.connector_id] for case in cases], ["seq", "digest"])


def record(cases: Sequence[Case], plan: records.Draft, *, at: datetime, by: Person) -> records.Draft:
    """The document that says which places ``cases`` of one plan got.

    It is a record of its own, appended right after the plan's: the digests cover the head that ends with the plan,
    so the plan cannot name them.
    """
    first = cases[0]
    return records.draft(
        DELIVERY_STREAM,
        records.mint_id(DELIVERY_STREAM),
        {
            "delivery_id": plan.record_id,
            "placed_at": records.timestamp(at),
            "head_origin": first.head_origin,
            "head_size": first.head_size,
            "places": [
                {
                    "case": case.case_id,
                    "provider": case.connector.key,
                    "seq": case.stream_seq,
                    "previous": case.stream_prev,
                    "digest": case.stream_digest,
                }
                for case in sorted(cases, key=lambda case: case.case_id)
            ],
        },
        at=at,
        by=by,
        cases=sorted(case.case_id for case in cases),
        references=[records.Reference(DELIVERY_PLAN.name, plan.record_id, plan.digest)],
    )
