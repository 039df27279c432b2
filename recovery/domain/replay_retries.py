"""What records say of retry plans, decisions and sets (``evidence.domain.replay`` compares)."""

from collections.abc import Mapping
from typing import Any

from evidence.domain.replay import UNKNOWN, Document, Fold, Table
from evidence.domain.replay_facts import CASES, DOCUMENT, of_document, principal
from evidence.enums import CaseState
from recovery.domain import retry_policies
from recovery.enums import OPEN_ENTRY_STATES, DecisionState, Part, RetryAction

DECISIONS = "recovery.RetryDecision"
PLANS = "recovery.RetryPlan"
PLAN_ITEMS = "recovery.RetryPlanItem"
SETS = "recovery.RetrySet"
SET_ITEMS = "recovery.RetrySetItem"
# Declared with the approvals; the acts here make people parties of what is open.
ENTRIES = "recovery.ApprovalEntry"
PARTIES = "recovery.EntryParty"


def _policy_digest(policy: Mapping[str, Any]) -> str:
    """The digest that a decision is identified by, from the policy as its row holds it."""
    try:
        return retry_policies.from_dict(policy).digest
    except (LookupError, TypeError, ArithmeticError, ValueError):
        return "of something that is no policy"


TABLES = (
    Table(
        DECISIONS,
        key=("case__case_id",),
        numbered=True,
        whole=True,
        case="case__case_id",
        columns={
            "attempt_no": "attempt_no",
            "policy_digest": "policy_digest",
            "policy": (_policy_digest, "policy"),
            "state": "state",
            "suppressed": "suppressed",
            "not_before": "not_before",
            "created_at": "created_at",
            "planned_by": "planned_by__person_id",
            "ack_state": "ack_state",
            "ack_id": "ack_id",
            "ack_hash": "ack_hash",
            "acknowledged_by": "acknowledged_by__person_id",
            "acknowledged_at": "acknowledged_at",
        },
    ),
    Table(PLANS, key=("retry_plan_id",), columns=DOCUMENT),
    Table(
        PLAN_ITEMS,
        key=("plan__retry_plan_id", "decision__case__case_id"),
        whole=True,
        case="decision__case__case_id",
        columns={"action": "action", "decision": "decision__policy_digest"},
    ),
    Table(
        SETS,
        key=("set_id",),
        columns={
            "created_at": "created_at",
            "created_by": "created_by__person_id",
            "selection": "selection",
            "record_hash": "record_hash",
            "digest": "digest",
            "requested_at": "requested_at",
        },
    ),
    Table(
        SET_ITEMS,
        key=("retry_set__set_id", "case__case_id"),
        case="case__case_id",
        columns={"entry": "entry__entry_id"},
    ),
)


# --- decisions --------------------------------------------------------------------------------------------------


def newest_decision(fold: Fold, case: str) -> tuple[str, Any]:
    """The key of a case's newest decision; it cannot be told before the first one."""
    return (case, fold.counted(DECISIONS, case))


def close_open(fold: Fold, case: str) -> None:
    """What still asks for a retry of a settled case ends with it."""
    decision = newest_decision(fold, case)
    if fold.value(DECISIONS, decision, "state") == DecisionState.OPEN:
        fold.says(DECISIONS, decision, state=DecisionState.CLOSED.value)


def open_entry(fold: Fold, case: str) -> str:
    """The request for approval that is open for a case; empty when none is."""
    entry: str = fold.notes.get(("entry", case), "")
    return entry if fold.value(ENTRIES, entry, "state") in OPEN_ENTRY_STATES else ""


def add_party(fold: Fold, entry: str, person_id: str, part: Part) -> None:
    """Somebody had a part in what was asked for, unless they had approved it before."""
    who = principal(fold, person_id)
    if not entry or who in fold.notes.get(("approved", entry), ()):
        return
    if not fold.knows(PARTIES, (entry, who, part.value)):
        fold.opens(PARTIES, (entry, who, part.value))


def planned(fold: Fold, document: Document) -> None:
    """A plan decides about cases that are failed; a worker's own plan observes and decides nothing."""
    said, plan = document.payload, document.record_id
    if said["observation"]:
        return
    fold.opens(PLANS, plan, **of_document(document))
    for item in said["retry_decisions"]:
        case = item["case"]
        add_party(fold, open_entry(fold, case), document.by, Part.PLANNER)
        if fold.value(CASES, case, "state") != CaseState.FAILED:
            continue
        decision = newest_decision(fold, case)
        is_open = fold.value(DECISIONS, decision, "state") == DecisionState.OPEN
        same = all(
            fold.value(DECISIONS, decision, name) == item[name] for name in ("attempt_no", "policy_digest")
        )
        if is_open and not same:
            fold.says(DECISIONS, decision, state=DecisionState.SUPERSEDED.value)
        if not is_open or not same:
            _decide(fold, document, item)
        fold.opens(PLAN_ITEMS, (plan, case), action=item["action"], decision=item["policy_digest"])


def _decide(fold: Fold, document: Document, item: Mapping[str, Any]) -> None:
    fold.opens(
        DECISIONS,
        (item["case"], fold.count(DECISIONS, item["case"])),
        attempt_no=item["attempt_no"],
        policy_digest=item["policy_digest"],
        policy=item["policy_digest"],
        state=DecisionState.OPEN.value,
        suppressed=item["action"] == RetryAction.SUPPRESS,
        not_before=item["next_retry_at"],
        created_at=document.at,
        planned_by=document.by,
        ack_state="",
        ack_id="",
        ack_hash="",
        acknowledged_by="",
        acknowledged_at="",
    )


def acknowledged(fold: Fold, document: Document) -> None:
    """Somebody reviewed the open decision of a case; the newest answer counts."""
    (case,) = document.cases
    add_party(fold, open_entry(fold, case), document.by, Part.ACKNOWLEDGER)
    fold.says(
        DECISIONS,
        newest_decision(fold, case),
        ack_state=document.payload["acknowledgement_state"],
        ack_id=document.record_id,
        ack_hash=document.digest,
        acknowledged_by=document.by,
        acknowledged_at=document.at,
    )


# --- sets -------------------------------------------------------------------------------------------------------


def chosen(fold: Fold, document: Document) -> None:
    """Cases were chosen together; a large set is told in several records, the first of which its row quotes."""
    said = document.payload
    if said["part"] == 1:
        fold.opens(
            SETS,
            said["set_id"],
            created_at=document.at,
            created_by=document.by,
            selection=said["selection"],
            record_hash=document.digest,
            digest="",
            requested_at="",
        )
    for case in document.cases:
        fold.opens(SET_ITEMS, (said["set_id"], case), entry="")


def asked_for(fold: Fold, document: Document) -> None:
    """Approval was asked for with a set, which freezes it; a renewal puts the new requests in the place of the old."""
    said = document.payload
    listed = [item for item in said["approval_decisions"] if item["entry_id"]]
    renewed = {item["renews"]: item["entry_id"] for item in listed if item["renews"]}
    for old, new in renewed.items():
        for item in fold.notes.get(("items", old), ()):
            _stands_for(fold, item, new)
    if not said["set_id"] or renewed:
        return
    if fold.value(SETS, said["set_id"], "digest") in ("", UNKNOWN):
        fold.says(SETS, said["set_id"], digest=said["set_digest"], requested_at=document.at)
    for item in listed:
        _stands_for(fold, (said["set_id"], item["case"]), item["entry_id"])


def _stands_for(fold: Fold, item: tuple[str, str], entry: str) -> None:
    fold.says(SET_ITEMS, item, entry=entry)
    fold.notes.setdefault(("items", entry), []).append(item)


def approved(fold: Fold, entry: str, who: Any) -> None:
    """Remember that somebody approved an entry: no later act makes them a party of it."""
    fold.notes.setdefault(("approved", entry), set()).add(who)
