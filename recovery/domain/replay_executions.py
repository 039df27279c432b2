"""What records say of runs, executions, attestations and dispositions (``evidence.domain.replay`` compares)."""

from collections.abc import Mapping, Sequence
from typing import Any

from evidence.domain import replay_facts
from evidence.domain.attempts import Source
from evidence.domain.replay import UNKNOWN, Document, Fold, Table
from evidence.domain.replay_facts import CASES, principal
from evidence.enums import Answer, CaseState, Outcome
from recovery.domain import replay_retries
from recovery.domain.replay_retries import DECISIONS, ENTRIES
from recovery.enums import DecisionState, DispositionState, EntryState, ExecutionState, ExecutionStatus
from recovery.models import ApprovalEntry, WorkerRun

RUNS = "recovery.WorkerRun"
EXECUTIONS = "recovery.Execution"
ATTESTATIONS = "recovery.Attestation"
DISPOSITIONS = "recovery.Disposition"
POSSIBLE = "recovery.PossibleAttempt"


def _selected(runs: Sequence[Any]) -> Mapping[Any, Mapping[str, Any]]:
    """Which requests each run is about, by the ids that its record names them by."""
    chosen = dict(WorkerRun.objects.filter(pk__in=runs).values_list("pk", "request__entries"))
    keys = {key for entries in chosen.values() for key in entries or ()}
    ids = dict(ApprovalEntry.objects.filter(pk__in=keys).values_list("pk", "entry_id"))
    return {
        pk: {"entries": [ids.get(key, "no such request") for key in entries or ()]}
        for pk, entries in chosen.items()
    }


TABLES = (
    Table(
        RUNS,
        key=("run_id",),
        besides=_selected,
        columns={
            "dry_run": "dry_run",
            "requested_by": "requested_by__person_id",
            "requested_at": "requested_at",
            "request": (
                lambda request: {name: value for name, value in request.items() if name != "entries"},
                "request",
            ),
            "record_hash": "record_hash",
            "selected_count": "selected_count",
            "retry_set": "retry_set__set_id",
        },
    ),
    Table(
        EXECUTIONS,
        key=("execution_id",),
        case="case__case_id",
        columns={
            "claim_id": "claim_id",
            "claim_hash": "claim_hash",
            "execution_hash": "execution_hash",
            "entry": "entry__entry_id",
            "case": "case__case_id",
            "attempt_no": "attempt_no",
            "run": "run__run_id",
            "executed_by": "executed_by__person_id",
            "claimed_at": "claimed_at",
            "lease_until": "lease_until",
            "state": "state",
            "recorded_at": "recorded_at",
            "failure_class": "failure_class",
        },
    ),
    Table(
        ATTESTATIONS,
        key=("attestation_id",),
        case="case__case_id",
        columns={
            "case": "case__case_id",
            "attempt_no": "attempt_no",
            "person": "person__person_id",
            "account": "account__person_id",
            "as_approver": "as_approver",
            "seen": "seen",
            "external_ref": "external_ref",
            "notes": "notes",
            "attested_at": "attested_at",
            "record_hash": "record_hash",
        },
    ),
    Table(
        POSSIBLE,
        key=("case__case_id", "epoch"),
        case="case__case_id",
        columns={
            "since": "since",
            "until": "until",
            "record_id": "record_id",
            "record_hash": "record_hash",
        },
    ),
    Table(
        DISPOSITIONS,
        key=("disposition_id",),
        case="case__case_id",
        columns={
            "case": "case__case_id",
            "kind": "kind",
            "superseded_by": "superseded_by__case_id",
            "reason": "reason",
            "external_ref": "external_ref",
            "proposed_by": "proposed_by__person_id",
            "proposed_through": "proposed_through__person_id",
            "proposed_at": "proposed_at",
            "record_hash": "record_hash",
            "state": "state",
            "decided_by": "decided_by__person_id",
            "decided_at": "decided_at",
        },
    ),
)


# --- runs and executions ----------------------------------------------------------------------------------------


def started(fold: Fold, document: Document) -> None:
    """A run was asked for, and what it selected."""
    said = document.payload
    fold.opens(
        RUNS,
        document.record_id,
        dry_run=said["dry_run"],
        requested_by=document.by,
        requested_at=document.at,
        request=said.get("request", UNKNOWN),
        entries=[] if said["dry_run"] else [item["entry_id"] for item in said["selected_retries"]],
        record_hash=document.digest,
        selected_count=said["selected_retry_count"],
        retry_set=said["set_id"],
    )


def claimed(fold: Fold, document: Document) -> None:
    """An approval was used up, before a socket opened."""
    said, (case,) = document.payload, document.cases
    entry = said["entry_id"]
    fold.says(ENTRIES, entry, state=EntryState.CLAIMED.value, ended_at=document.at)
    fold.says(DECISIONS, _decision_of(fold, entry), state=DecisionState.USED.value)
    fold.says(CASES, case, state=CaseState.SENDING.value)
    fold.opens(
        EXECUTIONS,
        said["execution_id"],
        claim_id=document.record_id,
        claim_hash=document.digest,
        execution_hash="",
        entry=entry,
        case=case,
        attempt_no=said["attempt_no"],
        run=said["run_id"],
        executed_by=document.by,
        claimed_at=document.at,
        lease_until=said["lease_until"],
        state=ExecutionState.CLAIMED.value,
        recorded_at="",
        failure_class="",
    )


def executed(fold: Fold, document: Document) -> None:
    """What came of a claim, or why an approval was not used."""
    said, entry = document.payload, document.payload["entry_id"]
    if said["execution_status"] == ExecutionStatus.SKIPPED:
        fold.says(ENTRIES, entry, last_skip=said["skipped"])
        return
    left = said["answer"] != Answer.NOT_SENT
    fold.says(
        EXECUTIONS,
        document.record_id,
        state=said["execution_status"] if left else ExecutionState.NOT_SENT.value,
        recorded_at=document.at,
        execution_hash=document.digest,
        failure_class="" if left else said["failure_class"],
    )
    if not left:
        _released(fold, document, entry)


def _released(fold: Fold, document: Document, entry: str) -> None:
    """Nothing left the building: case, decision and approval stand as before, unless the case is settled by now."""
    (case,) = document.cases
    fold.says(DECISIONS, _decision_of(fold, entry), state=DecisionState.OPEN.value)
    fold.says(ENTRIES, entry, state=EntryState.APPROVED.value, ended_at="", last_skip="")
    if replay_facts.came_to(fold, document, case, Outcome.FAILED):
        replay_retries.close_open(fold, case)


def _decision_of(fold: Fold, entry: str) -> Any:
    return fold.notes.get(("decision", entry), ("", UNKNOWN))


def reconciled(fold: Fold, document: Document) -> None:
    """What turned out about an execution whose outcome was unknown."""
    said = document.payload
    execution = said["execution_id"]
    before = fold.value(EXECUTIONS, execution, "state")
    moved, arrived = replay_facts.reconciled(fold, document)
    if moved is UNKNOWN:
        fold.says(EXECUTIONS, execution, state=UNKNOWN)
    elif moved or (arrived and before == ExecutionState.FAILED):
        fold.says(EXECUTIONS, execution, state=said["outcome"])
    if said["source"] != Source.ATTESTATION and moved and arrived:
        replay_retries.close_open(fold, document.cases[0])


def epoch_began(fold: Fold, document: Document) -> None:
    """Cases of which the restored database may not know an attempt."""
    said = document.payload
    for case in document.cases:
        fold.opens(
            POSSIBLE,
            (case, said["epoch"]),
            since=said["since"],
            until=said["until"],
            record_id=document.record_id,
            record_hash=document.digest,
        )


# --- what people say --------------------------------------------------------------------------------------------


def attested(fold: Fold, document: Document) -> None:
    """What somebody saw at the receiver."""
    said, (case,) = document.payload, document.cases
    fold.opens(
        ATTESTATIONS,
        document.record_id,
        case=case,
        attempt_no=said["attempt_no"],
        person=principal(fold, document.by),
        account=document.by,
        as_approver=said["as_approver"],
        seen=said["seen"],
        external_ref=said["external_ref"],
        notes=said["notes"],
        attested_at=document.at,
        record_hash=document.digest,
    )


def proposed(fold: Fold, document: Document) -> None:
    """Somebody proposed to settle a case without a delivery."""
    said, (case,) = document.payload, document.cases
    fold.opens(
        DISPOSITIONS,
        document.record_id,
        case=case,
        kind=said["disposition_kind"],
        superseded_by=said["superseded_by"],
        reason=said["reason"],
        external_ref=said["external_ref"],
        proposed_by=principal(fold, document.by),
        proposed_through=document.by,
        proposed_at=document.at,
        record_hash=document.digest,
        state=DispositionState.PROPOSED.value,
        decided_by="",
        decided_at="",
    )


def disposed(fold: Fold, document: Document) -> None:
    """A proposal was confirmed, refused or taken back; a confirmed one settles its case."""
    said, (case,) = document.payload, document.cases
    fold.says(
        DISPOSITIONS,
        said["disposition_id"],
        state=said["disposition_state"],
        decided_by=principal(fold, document.by),
        decided_at=document.at,
    )
    if said["disposition_state"] == DispositionState.CONFIRMED:
        fold.says(CASES, case, state=said["case_state"], settled_at=document.at)
        replay_retries.close_open(fold, case)
