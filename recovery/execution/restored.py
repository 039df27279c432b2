"""What has to end when the log of a restored database goes on in a new epoch (P25).

Open approvals are void, whatever was under way counts as unknown, runs end, and every unsettled case is
named: an attempt of it may have been made that this database does not know of.
"""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q

from evidence.domain import attempts, deliveries, records
from evidence.domain.epochs import Beginning
from evidence.domain.transitions import move
from evidence.enums import CaseState
from evidence.models import Case
from recovery.documents import EPOCH_EFFECTS
from recovery.domain import approvals, transitions
from recovery.enums import OPEN_ENTRY_STATES, RunState
from recovery.execution import outcomes
from recovery.models import ApprovalEntry, PossibleAttempt, WorkerRun

UNSETTLED = (CaseState.PARKED, CaseState.SENDING, CaseState.FAILED, CaseState.UNKNOWN)
PART = records.MAX_CASES_PER_RECORD
# What differs in a manifest of the old epoch, whatever else does.
CHANGED = ("epoch",)


def end_old_epoch(begun: Beginning) -> list[records.Draft]:
    """Void approvals, end leases and runs, and name the cases; returns the records, which the caller appends."""
    waiting = ApprovalEntry.objects.filter(state__in=OPEN_ENTRY_STATES).values("case")
    concerned = Case.objects.filter(Q(state__in=UNSETTLED) | Q(pk__in=waiting)).order_by("pk")
    ended: list[records.Draft] = []
    unsettled: list[Case] = []
    voided = given_up = 0
    for part in _locked_parts(list(concerned.values_list("pk", flat=True))):
        pks = [case.pk for case in part]
        entries = approvals.entries().filter(case__in=pks, state__in=OPEN_ENTRY_STATES).order_by("pk")
        voids = [approvals.void_entry(entry, CHANGED, by=begun.by, at=begun.at) for entry in entries]
        claims = [draft for one in outcomes.under_way(pks) for draft in outcomes.give_up(one, at=begun.at)]
        firsts = [
            deliveries.give_up(case, at=begun.at)
            for case in part
            if case.state in (CaseState.PARKED, CaseState.SENDING) and not case.attempt_count
        ]
        voided += len(voids)
        given_up += len(claims) // 2 + len(firsts)
        ended += [*voids, *claims, *firsts]
        unsettled += [case for case in part if case.state in UNSETTLED]
    runs = _ended_runs(begun.at)
    effects = _effects(begun, unsettled, runs=runs, voided=voided, given_up=given_up)
    return [*ended, *effects]


def _locked_parts(pks: list[int]) -> Iterator[list[Case]]:
    """The cases, held in one order for everybody, as many at a time as one record names."""
    for first in range(0, len(pks), PART):
        rows = Case.objects.select_for_update(no_key=True, of=("self",)).select_related(
            "plan", "package", "connector"
        )
        yield list(rows.filter(pk__in=pks[first : first + PART]).order_by("pk"))


def _ended_runs(at: datetime) -> list[str]:
    """Finish every run that waits or goes on; their ids. What they had claimed is ended with its case."""
    runs = WorkerRun.objects.exclude(state=RunState.FINISHED).order_by("pk")
    ended = list(runs.values_list("pk", "run_id"))
    for pk, _ in ended:
        move(transitions.RUNS, pk, RunState.FINISHED, finished_at=at, lease_until=None)
    return [run_id for _, run_id in ended]


def _effects(
    begun: Beginning, cases: list[Case], *, runs: list[str], voided: int, given_up: int
) -> list[records.Draft]:
    """The records that name the cases, at least one, and a row for each case."""
    parts = [cases[first : first + PART] for first in range(0, len(cases), PART)] or [[]]
    drafts = []
    for number, part in enumerate(parts, start=1):
        draft = records.draft(
            EPOCH_EFFECTS,
            records.mint_id(EPOCH_EFFECTS),
            {
                "epoch": begun.epoch,
                "origin": begun.origin,
                "proposal_id": begun.proposal.id,
                "since": records.timestamp(begun.since),
                "until": records.timestamp(begun.at),
                "case_count": len(cases),
                "part": number,
                "part_count": len(parts),
                "voided_count": voided,
                "given_up_count": given_up,
                "ended_run_ids": runs if number == 1 else [],
            },
            at=begun.at,
            by=begun.by,
            cases=[case.case_id for case in part],
            references=[begun.proposal, *attempts.case_references(part)],
        )
        PossibleAttempt.objects.bulk_create(
            PossibleAttempt(
                case=case,
                epoch=begun.epoch,
                since=begun.since,
                until=begun.at,
                record_id=draft.record_id,
                record_hash=draft.digest,
            )
            for case in part
        )
        drafts.append(draft)
    return drafts
