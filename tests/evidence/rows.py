"""One minimal row in every guarded table, written past the verbs: what the database refuses by itself
must not depend on who asks. Tests of behaviour use ``tests.builders``, which walks the real verbs.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps import apps
from django.db import models, transaction

from evidence.documents import PERSON
from evidence.domain import ledger, records
from evidence.models import CaseLink, LedgerHead, MerkleNode, Record, RecordKey, SealEntry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON = NOON + timedelta(hours=1)
HASH = "0" * 64


def draft(*cases: str, change: str = "created", name: str = "ann", at: datetime = NOON) -> records.Draft:
    """A document of the plainest kind, naming ``cases``."""
    payload = {
        "person_id": "person-1",
        "person_name": name,
        "person_kind": "human",
        "owner_id": "",
        "change": change,
        "at": records.timestamp(at),
    }
    return records.draft(PERSON, records.mint_id(PERSON), payload, at=at, by=None, cases=cases)


def append(*drafts: records.Draft) -> list[Record]:
    """Append in a transaction of its own."""
    with transaction.atomic():
        return ledger.append(drafts)


class Rows(dict[str, models.Model]):
    """Rows by model label, the newest of each."""

    def make(self, model: str, **values: Any) -> Any:
        """Insert a row; columns that name another row take the newest of that model unless given."""
        cls = apps.get_model(model)
        for field in cls._meta.local_fields:
            label = field.related_model._meta.label if field.is_relation else ""
            if label in self and field.name not in values and field.attname not in values and not field.null:
                values[field.name] = self[label]
        self[model] = row = cls._base_manager.create(**values)
        return row


def person(rows: Rows, name: str) -> Any:
    return rows.make("evidence.Person", username=name, created_at=NOON)


def one_of_each() -> Rows:
    """A row of every guarded model, consistent along the chain from package to closure."""
    rows = Rows()
    (record,) = append(draft("case-1"))
    rows["evidence.Record"] = record
    rows["evidence.RecordKey"] = RecordKey.objects.filter(record=record.index, name="person_id").get()
    rows["evidence.SealEntry"] = SealEntry.objects.get(index=record.index)
    rows["evidence.CaseLink"] = CaseLink.objects.get(index=record.index)
    rows["evidence.MerkleNode"] = MerkleNode.objects.get(level=0, index=record.index)
    rows["evidence.LedgerHead"] = LedgerHead.objects.get()
    head = {"origin": "log", "size": 1, "root": b"0" * 32, "note": "note"}
    rows.make("evidence.LedgerKey", name="log", public_key=b"0" * 32, key_id="00000000", introduced_at=NOON)
    rows.make("evidence.Checkpoint", **head, epoch=1, peaks=b"0" * 32, created_at=NOON)
    rows.make(
        "evidence.Anchor",
        **head,
        anchor_id="ledgeranchor-1",
        means="file",
        place="heads",
        administered_by="us",
        proof=b"",
        created_at=NOON,
        record_hash=HASH,
    )
    approver = person(rows, "amy")
    analyst = person(rows, "ann")
    rows.make(
        "evidence.EpochProposal",
        proposal_id="epochproposal-1",
        old_origin="log",
        origin="log/epoch-2",
        epoch=2,
        reason="restored",
        known_size=0,
        first_lost_index=1,
        proposed_by=analyst,
        proposed_through=analyst,
        proposed_at=NOON,
        record_hash=HASH,
    )
    make = rows.make
    make(
        "evidence.Capsule",
        capsule_id="gordackcapsule-1",
        case_id="gordackdelivery-1.splunk",
        records=1,
        log_size=1,
        size=3,
        sha256=HASH,
        content=b"zip",
        created_at=NOON,
        record_hash=HASH,
    )
    make("evidence.RoleGrant", role="analyst", granted_at=NOON)
    make("evidence.Connector", key="splunk", product="splunk", edited_at=NOON)
    make("evidence.ConnectorEdit", at=NOON)
    make("evidence.Schedule", schedule_id="drill", interval_days=30, next_due_at=NOON)
    plan = {"created_at": NOON, "record_hash": HASH}
    make("evidence.NotificationPlan", plan_id="gordn-1", status="ready", alert_level="healthy", **plan)
    make(
        "evidence.Route",
        route_id="gordroute-1",
        provider="splunk",
        owner="ops",
        acknowledgement_minutes=60,
        action="deliver",
        reason="due",
        created_at=NOON,
    )
    make("evidence.AuditPackage", audit_id="gordackaudit-1", **plan)
    make("evidence.DeliveryPlan", delivery_id="gordackdelivery-1", **plan)
    make("evidence.StreamHead", seq=1, digest=HASH)
    make("evidence.Breaker")
    make(
        "evidence.Canary",
        canary_id="connectorcanary-1",
        means="message",
        outcome="delivered",
        started_at=NOON,
        ended_at=NOON,
        record_hash=HASH,
    )
    make(
        "evidence.Trouble",
        trouble_id="connectortrouble-1",
        since=NOON,
        waiting=1,
        through="chat",
        announced_at=NOON,
        record_hash=HASH,
    )
    case = make(
        "evidence.Case",
        case_id="gordackdelivery-1.splunk",
        state="failed",
        created_at=NOON,
        stream_seq=1,
        stream_digest=HASH,
    )
    attempt(rows, case, number=1)
    make(
        "evidence.Parking",
        code="breaker_open",
        retries=0,
        timeout_ms=1_000,
        parked_at=NOON,
        record_id="gordackdeliverypark-1",
        record_hash=HASH,
    )
    make(
        "evidence.Erasure",
        erasure_id="erasure-1",
        legal_basis="law",
        proposed_by=analyst,
        proposed_through=analyst,
        proposed_at=NOON,
        proposal_id="erasureproposal-1",
    )
    make(
        "evidence.ErasureItem",
        index=record.index,
        record_id=record.record_id,
        kind=record.kind,
        digest=record.digest,
    )
    make(
        "evidence.LegalHold",
        hold_id="legalhold-1",
        scope="case-1",
        reason="court",
        placed_by=analyst,
        placed_at=NOON,
        record_hash=HASH,
    )
    make(
        "recovery.RetryDecision",
        attempt_no=2,
        policy_digest=HASH,
        policy={},
        not_before=NOON,
        created_at=NOON,
    )
    make("recovery.RetryPlan", retry_plan_id="gordackretry-1", **plan)
    make("recovery.RetryPlanItem", action="retry")
    make("recovery.ApprovalPlan", approval_plan_id="gordackretryapproval-1", require_retry_ack=False, **plan)
    entry(rows, "claimed")
    make("recovery.ApprovalPlanItem", action="request_approval")
    make("recovery.EntryParty", part="requester")
    vote(rows, approver, "denied")
    rows["evidence.Person"] = analyst
    make(
        "recovery.WorkerRun",
        run_id="gordackworker-1",
        dry_run=False,
        state="queued",
        requested_at=NOON,
        request={},
    )
    execution(rows)
    make(
        "recovery.Disposition",
        disposition_id="gordackdisposition-1",
        kind="abandoned",
        reason="gone",
        proposed_by=analyst,
        proposed_through=analyst,
        proposed_at=NOON,
        record_hash=HASH,
    )
    made = {"record_id": "epocheffects-1", "record_hash": HASH}
    make("recovery.PossibleAttempt", epoch=2, since=NOON, until=SOON, **made)
    make("recovery.RetrySet", set_id="gordackretryset-1", created_at=NOON, selection={}, record_hash=HASH)
    make("recovery.RetrySetItem")
    make("recovery.Recovery", epoch=1, opened_at=NOON)
    make("recovery.RecoveryCase", listed_at=NOON)
    make("recovery.Playbook", playbook_id="gordackrecovery-1", **plan)
    make("recovery.PlaybookItem")
    make(
        "recovery.Closure",
        closure_id="gordackrecoveryclosure-1",
        state="resolved",
        closed_at=NOON,
        record_hash=HASH,
    )
    make(
        "recovery.StepTick",
        tick_id="gordackrecoverystep-1",
        step_key="check_owner",
        done=True,
        ticked_at=NOON,
        record_hash=HASH,
    )
    make(
        "recovery.Attestation",
        attestation_id="gordackattest-1",
        attempt_no=2,
        person=approver,
        account=approver,
        as_approver=True,
        seen="delivered",
        external_ref="INC-1",
        attested_at=NOON,
        record_hash=HASH,
    )
    return rows


def attempt(rows: Rows, case: Any, *, number: int) -> Any:
    return rows.make(
        "evidence.Attempt",
        attempt_id=f"{case.case_id}.{number}",
        case=case,
        number=number,
        outcome="failed",
        answer="answered",
        may_have_arrived=False,
        failure_class="unavailable",
        tries=1,
        bytes_sent=1,
        body_sha256=HASH,
        started_at=NOON,
        completed_at=NOON,
        record_id=f"rcd-{number}",
        record_hash=HASH,
    )


def entry(rows: Rows, state: str, **values: Any) -> Any:
    decided = {"approved_at": NOON, "execute_by": SOON} if state in ("approved", "claimed") else {}
    return rows.make(
        "recovery.ApprovalEntry",
        **{
            "entry_id": f"entry-{state}",
            "plan": rows["recovery.ApprovalPlan"],
            "attempt_no": 2,
            "manifest": b"{}",
            "manifest_digest": HASH,
            "body": b"{}",
            "required_approvals": 1,
            "require_retry_ack": False,
            "requested_at": NOON,
            "not_before": NOON,
            "approve_by": SOON,
            "execute_within_minutes": 60,
            "state": state,
            **decided,
            **values,
        },
    )


def vote(rows: Rows, voter: Any, state: str) -> Any:
    return rows.make(
        "recovery.Vote",
        decision_id=f"vote-{voter.username}-{state}",
        person=voter,
        account=voter,
        state=state,
        manifest_digest=HASH,
        digest_presented=True,
        decided_at=NOON,
        record_hash=HASH,
    )


def execution(rows: Rows, **values: Any) -> Any:
    return rows.make(
        "recovery.Execution",
        **{
            "claim_id": "gordackretryclaim-1",
            "claim_hash": HASH,
            "execution_id": "gordackretryexec-1",
            "attempt_no": 2,
            "claimed_at": NOON,
            "lease_token": "t",
            "lease_until": SOON,
            **values,
        },
    )
