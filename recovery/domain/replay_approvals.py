"""What records say of approval plans, requests, parties and votes (``evidence.domain.replay`` compares)."""

from collections.abc import Iterator, Mapping
from typing import Any

from evidence.domain import records
from evidence.domain.replay import ERASED, UNKNOWN, Document, Fold, Table, plain
from evidence.domain.replay_facts import DOCUMENT, of_document, principal
from recovery.domain import replay_retries
from recovery.domain.replay_retries import DECISIONS, ENTRIES, PARTIES
from recovery.enums import OPEN_ENTRY_STATES, ApprovalState, EntryState, Part

PLANS = "recovery.ApprovalPlan"
PLAN_ITEMS = "recovery.ApprovalPlanItem"
VOTES = "recovery.Vote"


def _digest(data: Any) -> str:
    return records.digest(bytes(data))


# Columns of a request that its manifest says too: the manifest's digest is in the record.
IN_MANIFEST = {
    "attempt_no": "attempt_no",
    "case": "case__case_id",
    "connector": "connector__key",
    "execute_within_minutes": "execute_within_minutes",
    "not_before": "not_before",
    "approve_by": "approve_by",
    "require_retry_ack": "require_retry_ack",
    "required_approvals": "required_approvals",
    "requested_by": "requested_by__person_id",
}


def _as_in_manifest(row: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """A request's columns and the frozen body are what its frozen manifest says."""
    try:
        manifest = records.load(row["manifest"])
        body = manifest["payload"]["sha256"]
    except (LookupError, TypeError, ValueError):
        yield "manifest", "a manifest", "something else"
        return
    # Emptied with the audit package or the delivery plan whose bytes these were.
    yield "body", body, _digest(row["body"]) if row["body"] else ERASED
    for name, path in IN_MANIFEST.items():
        if name in manifest:
            yield name, manifest[name], plain(row[path])


TABLES = (
    Table(PLANS, key=("approval_plan_id",), columns={**DOCUMENT, "require_retry_ack": "require_retry_ack"}),
    Table(
        PLAN_ITEMS,
        key=("plan__approval_plan_id", "entry__entry_id"),
        case="entry__case__case_id",
        columns={"action": "action"},
    ),
    Table(
        ENTRIES,
        key=("entry_id",),
        case="case__case_id",
        erasable=("body",),
        within=_as_in_manifest,
        within_paths=("manifest", "body", *IN_MANIFEST.values()),
        columns={
            "plan": "plan__approval_plan_id",
            "retry_plan": "retry_plan__retry_plan_id",
            "decision": (
                lambda case, number, digest, at: (case, number, digest, plain(at)),
                "decision__case__case_id",
                "decision__attempt_no",
                "decision__policy_digest",
                "decision__created_at",
            ),
            "case": "case__case_id",
            "connector": "connector__key",
            "attempt_no": "attempt_no",
            "manifest": (_digest, "manifest"),
            "manifest_digest": "manifest_digest",
            "required_approvals": "required_approvals",
            "requested_at": "requested_at",
            "approve_by": "approve_by",
            "eligible_digest": "eligible_digest",
            "renews": "renews__entry_id",
            "state": "state",
            "execute_by": "execute_by",
            "approved_at": "approved_at",
            "ended_at": "ended_at",
            "last_skip": "last_skip",
        },
    ),
    Table(
        PARTIES,
        key=("entry__entry_id", "person__person_id", "part"),
        whole=True,
        case="entry__case__case_id",
        columns={},
    ),
    Table(
        VOTES,
        key=("decision_id",),
        case="entry__case__case_id",
        columns={
            "entry": "entry__entry_id",
            "person": "person__person_id",
            "account": "account__person_id",
            "state": "state",
            "manifest_digest": "manifest_digest",
            "digest_presented": "digest_presented",
            "reason_code": "reason_code",
            "authenticated_by": "authenticated_by",
            "authenticated_at": "authenticated_at",
            "decided_at": "decided_at",
            "record_hash": "record_hash",
        },
    ),
)


# --- asking -----------------------------------------------------------------------------------------------------


def asked(fold: Fold, document: Document) -> None:
    """Approval was asked for: new requests with their parties, and open ones that were listed again."""
    said, plan = document.payload, document.record_id
    fold.opens(PLANS, plan, require_retry_ack=said["require_retry_ack"], **of_document(document))
    for item in said["approval_decisions"]:
        if not item["entry_id"]:
            continue
        if item.get("parties") or (fold.whole and not fold.knows(ENTRIES, item["entry_id"])):
            _open(fold, document, item)
        else:
            replay_retries.add_party(fold, item["entry_id"], document.by, Part.REQUESTER)
        fold.opens(PLAN_ITEMS, (plan, item["entry_id"]), action=item["action"])
    replay_retries.asked_for(fold, document)


def _open(fold: Fold, document: Document, item: Mapping[str, Any]) -> None:
    case, entry, old = item["case"], item["entry_id"], item["renews"]
    decision = replay_retries.newest_decision(fold, case)
    fold.notes["entry", case] = entry
    fold.notes["decision", entry] = decision
    fold.opens(
        ENTRIES,
        entry,
        plan=document.record_id,
        # A renewal keeps the plan that the old request was asked for by.
        retry_plan=fold.value(ENTRIES, old, "retry_plan") if old else item["retry_plan_id"],
        decision=_decision(fold, decision),
        case=case,
        connector=item["provider"],
        attempt_no=item["attempt_no"],
        manifest=item["manifest_digest"],
        manifest_digest=item["manifest_digest"],
        required_approvals=item["required_approvals"],
        requested_at=document.at,
        approve_by=item["approve_by"],
        eligible_digest=item.get("eligible_digest", UNKNOWN),
        renews=old,
        state=EntryState.PENDING.value,
        execute_by="",
        approved_at="",
        ended_at="",
        last_skip="",
    )
    for party in item.get("parties", ()):
        fold.opens(PARTIES, (entry, party["person_id"], party["part"]))


def _decision(fold: Fold, key: tuple[str, Any]) -> Any:
    """What tells the decision that a request hangs on."""
    said = [fold.value(DECISIONS, key, name) for name in ("attempt_no", "policy_digest", "created_at")]
    return UNKNOWN if UNKNOWN in said else (key[0], *said)


# --- deciding ---------------------------------------------------------------------------------------------------


def voted(fold: Fold, document: Document) -> None:
    """One person's word, and where it took the request."""
    said, entry = document.payload, document.payload["entry_id"]
    who = principal(fold, document.by)
    fold.opens(
        VOTES,
        document.record_id,
        entry=entry,
        person=who,
        account=document.by,
        state=said["approval_state"],
        manifest_digest=said["manifest_digest"],
        digest_presented=said["digest_presented"],
        reason_code=said["reason_code"],
        authenticated_by=said["authenticated_by"],
        authenticated_at=said["authenticated_at"],
        decided_at=document.at,
        record_hash=document.digest,
    )
    if said["approval_state"] == ApprovalState.APPROVED:
        replay_retries.approved(fold, entry, who)
    before, state = fold.value(ENTRIES, entry, "state"), said["entry_state"]
    if state == EntryState.APPROVED and before != EntryState.APPROVED:
        # From the middle of the log: it may have been approved before this vote.
        known = before is not UNKNOWN
        fold.says(
            ENTRIES, entry, approved_at=document.at if known else UNKNOWN, last_skip="" if known else UNKNOWN
        )
    elif state == EntryState.PENDING:
        fold.says(ENTRIES, entry, approved_at="")
    elif state not in OPEN_ENTRY_STATES:
        fold.says(ENTRIES, entry, ended_at=document.at)
    fold.says(ENTRIES, entry, state=state, execute_by=said["execute_by"])


def ended(state: EntryState) -> Any:
    """What ends a request in ``state``, whoever does it."""

    def apply(fold: Fold, document: Document) -> None:
        fold.says(ENTRIES, document.payload["entry_id"], state=state.value, ended_at=document.at)
        if state is EntryState.CANCELLED:
            replay_retries.close_open(fold, document.cases[0])

    return apply


def recounted(fold: Fold, document: Document) -> None:
    """Votes were void by then and the quorum gone."""
    said = document.payload
    fold.says(ENTRIES, said["entry_id"], state=said["entry_state"], approved_at="", execute_by="")
