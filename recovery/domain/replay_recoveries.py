"""What records say of recoveries, playbooks, closures and steps (``evidence.domain.replay`` compares)."""

from collections.abc import Iterable
from typing import Any

from evidence.domain.replay import Document, Fold, Table
from evidence.domain.replay_facts import DOCUMENT, of_document
from recovery.enums import ClosureState, RecoveryState

RECOVERIES = "recovery.Recovery"
LISTED = "recovery.RecoveryCase"
PLAYBOOKS = "recovery.Playbook"
PLAYBOOK_ITEMS = "recovery.PlaybookItem"
CLOSURES = "recovery.Closure"
TICKS = "recovery.StepTick"

Recovery = tuple[str, int]


def _recovery(key: str, epoch: int) -> Recovery:
    return (key, epoch)


OF_RECOVERY = (_recovery, "recovery__connector__key", "recovery__epoch")

TABLES = (
    Table(
        RECOVERIES,
        key=("connector__key", "epoch"),
        columns={"state": "state", "opened_at": "opened_at", "owner": "owner", "review_at": "review_at"},
    ),
    Table(
        LISTED,
        key=("recovery__connector__key", "recovery__epoch", "case__case_id"),
        whole=True,
        case="case__case_id",
        columns={"listed_at": "listed_at"},
    ),
    Table(PLAYBOOKS, key=("playbook_id",), columns=DOCUMENT),
    Table(
        PLAYBOOK_ITEMS,
        key=("playbook__playbook_id", "recovery__connector__key", "recovery__epoch"),
        columns={},
    ),
    Table(
        CLOSURES,
        key=("closure_id",),
        columns={
            "recovery": OF_RECOVERY,
            "playbook": "playbook__playbook_id",
            "state": "state",
            "closed_by": "closed_by__person_id",
            "closed_at": "closed_at",
            "record_hash": "record_hash",
        },
    ),
    Table(
        TICKS,
        key=("tick_id",),
        columns={
            "recovery": OF_RECOVERY,
            "step_key": "step_key",
            "done": "done",
            "note": "note",
            "ticked_by": "ticked_by__person_id",
            "ticked_at": "ticked_at",
            "record_hash": "record_hash",
        },
    ),
)


def described(fold: Fold, document: Document) -> None:
    """A playbook opens recoveries, brings back what was put off, and lists cases."""
    playbook = document.record_id
    fold.opens(PLAYBOOKS, playbook, **of_document(document))
    for said in document.payload["provider_playbooks"]:
        recovery = (said["provider"], said["recovery_epoch"])
        if fold.whole and not fold.knows(RECOVERIES, recovery):
            _open(fold, document, recovery)
        elif fold.value(RECOVERIES, recovery, "state") != said["recovery_state"]:
            _back(fold, recovery)
        _list(fold, document, recovery, said["cases"])
        fold.opens(PLAYBOOK_ITEMS, (playbook, *recovery))


def _open(fold: Fold, document: Document, recovery: Recovery) -> None:
    fold.notes["epoch", recovery[0]] = recovery[1]
    fold.opens(
        RECOVERIES, recovery, state=RecoveryState.OPEN.value, opened_at=document.at, owner="", review_at=""
    )


def _back(fold: Fold, recovery: Recovery) -> None:
    fold.says(RECOVERIES, recovery, state=RecoveryState.OPEN.value, owner="", review_at="")


def _list(fold: Fold, document: Document, recovery: Recovery, cases: Iterable[str]) -> None:
    listed: dict[str, Any] = fold.notes.setdefault(("listed", recovery), {})
    for case in cases:
        if case not in listed:
            listed[case] = None
            fold.opens(LISTED, (*recovery, case), listed_at=document.at)


def closed(fold: Fold, document: Document) -> None:
    """An outcome of a recovery; reopening starts the next one over the same cases."""
    said = document.payload
    recovery = (said["provider"], said["recovery_epoch"])
    fold.opens(
        CLOSURES,
        document.record_id,
        recovery=recovery,
        playbook=said["playbook_id"],
        state=said["closure_state"],
        closed_by=document.by,
        closed_at=document.at,
        record_hash=document.digest,
    )
    fold.says(
        RECOVERIES,
        recovery,
        state=said["closure_state"],
        owner=said["owner"],
        review_at=said["review_at"],
    )
    if said["closure_state"] == ClosureState.REOPENED and fold.whole:
        following = (recovery[0], fold.notes["epoch", recovery[0]] + 1)
        _open(fold, document, following)
        _list(fold, document, following, fold.notes.get(("listed", recovery), ()))


def returned(fold: Fold, document: Document) -> None:
    """What was put off came back on its date."""
    _back(fold, (document.payload["provider"], document.payload["recovery_epoch"]))


def ticked(fold: Fold, document: Document) -> None:
    """Somebody did a step, or took that back."""
    said = document.payload
    fold.opens(
        TICKS,
        document.record_id,
        recovery=(said["provider"], said["recovery_epoch"]),
        step_key=said["step_key"],
        done=said["done"],
        note=said["note"],
        ticked_by=document.by,
        ticked_at=document.at,
        record_hash=document.digest,
    )
