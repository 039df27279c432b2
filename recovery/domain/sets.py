"""Sets: the failures of one outage, chosen by a filter and taken through the chain together.

A set is frozen when approval is asked for: one digest covers what would be sent of all its items. Every act
is one transaction over the items it is about, and writes for each item what the same act on one case writes.
"""

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from django.db import transaction

from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records
from evidence.domain.clock import Clock
from evidence.enums import CaseState
from evidence.errors import Conflict, InvalidInput, NotAllowed, NotFound
from evidence.models import Case, Person
from recovery.documents import RETRY_SET
from recovery.domain import approval_plans, approvals, manifests, renewals, retry_plans, retry_policies
from recovery.domain.approvals import Ballot
from recovery.domain.policies import barred_from_voting, reasons_against_decision
from recovery.domain.retry_plans import Review
from recovery.enums import OPEN_ENTRY_STATES, ApprovalState, DecisionState, EntryState
from recovery.errors import ManifestChanged
from recovery.models import ApprovalEntry, RetryDecision, RetrySet, RetrySetItem
from recovery.permissions import Permission

Part = TypeVar("Part")

MAX_ITEMS = 500
PREFIX = "gordackretryset"

# Upper ends of the size classes an approver sees, in bytes.
SIZE_CLASSES = ((1_024, "up to 1 KB"), (10_240, "up to 10 KB"), (102_400, "up to 100 KB"))
LARGEST = "over 100 KB"


def choose(cases: Sequence[str], selection: Mapping[str, Any], *, by: Person, clock: Clock) -> RetrySet:
    """Make a set of failed cases; ``selection`` is the filter they were found by, as it is shown.

    Raises ``InvalidInput`` for none or more than ``MAX_ITEMS``, ``Conflict`` ``not_failed`` naming those that
    are not failed any more.
    """
    policies.require_role(by, Permission.PLAN_RETRY)
    chosen = list(dict.fromkeys(cases))
    if not 1 <= len(chosen) <= MAX_ITEMS:
        raise InvalidInput(
            f"A set holds 1 to {MAX_ITEMS} cases, not {len(chosen):,}; narrow the filter.",
            errors={"cases": [f"1 to {MAX_ITEMS} cases"]},
        )
    with transaction.atomic():
        rows = list(
            Case.objects.select_for_update(no_key=True)
            .filter(case_id__in=chosen, state=CaseState.FAILED)
            .order_by("pk")
        )
        at = clocks.read(clock)
        if gone := sorted(set(chosen) - {case.case_id for case in rows}):
            raise Conflict(
                f"Not chosen: {len(gone)} of these cases {'is' if len(gone) == 1 else 'are'} not failed any more.",
                code="not_failed",
                cases=gone,
            )
        set_id = f"{PREFIX}-{secrets.token_hex(8)}"
        drafts = _selection_records(set_id, [case.case_id for case in rows], selection, at=at, by=by)
        row = RetrySet.objects.create(
            set_id=set_id,
            created_at=at,
            created_by=by,
            selection=dict(selection),
            record_hash=drafts[0].digest,
        )
        RetrySetItem.objects.bulk_create(RetrySetItem(retry_set=row, case=case) for case in rows)
        ledger.append(drafts)
    return row


def _selection_records(
    set_id: str, cases: Sequence[str], selection: Mapping[str, Any], *, at: datetime, by: Person
) -> list[records.Draft]:
    """The documents of a selection: a record names at most so many cases."""
    parts = list(_chunks(cases, records.MAX_CASES_PER_RECORD))
    return [
        records.draft(
            RETRY_SET,
            records.mint_id(RETRY_SET),
            {
                "set_id": set_id,
                "created_at": records.timestamp(at),
                "created_by": by.username,
                "selection": dict(selection),
                "case_count": len(part),
                "part": number,
                "parts": len(parts),
            },
            at=at,
            by=by,
            cases=part,
        )
        for number, part in enumerate(parts, start=1)
    ]


def plan(row: RetrySet, sent_policy: Mapping[str, Any], *, by: Person, clock: Clock) -> list[records.Draft]:
    """Plan the retry of every item that is still failed; one plan document for each 200 of them."""
    failed = [item.case.case_id for item in items(row) if item.case.state == CaseState.FAILED]
    if not failed:
        raise Conflict("Not planned: no case of this set is failed any more.", code="not_failed")
    return [
        retry_plans.plan(sent_policy, by=by, clock=clock, cases=part)
        for part in _chunks(failed, retry_plans.MAX_DECISIONS)
    ]


def acknowledge(row: RetrySet, review: Review, *, by: Person, clock: Clock) -> list[records.Draft]:
    """Answer every open decision of the set with the same ``review``; one record for each.

    The review's ids are filled in. Raises ``Conflict`` ``decision_closed`` when nothing is planned,
    ``NotAllowed`` for somebody who approved one of them.
    """
    policies.require_role(by, Permission.ACKNOWLEDGE_RETRY)
    with transaction.atomic():
        cases = _locked(row)
        decisions = list(
            RetryDecision.objects.filter(case__in=cases, state=DecisionState.OPEN)
            .select_related("case__plan", "case__package", "case__connector")
            .order_by("case__pk")
        )
        if not decisions:
            raise Conflict("Not acknowledged: no retry of this set is planned.", code="decision_closed")
        at = clocks.read(clock)
        drafts = retry_plans.review_all(decisions, review, by=by, at=at)
        ledger.append(drafts)
    return drafts


def request(row: RetrySet, *, by: Person, clock: Clock, reason: str = "") -> RetrySet:
    """Ask for approval of every acknowledged item and freeze the set with one digest.

    Raises ``Conflict`` ``set_frozen`` when that was done before, ``not_requested`` with the reasons when
    nothing may be asked for.
    """
    policies.require_role(by, Permission.REQUEST_APPROVAL)
    with transaction.atomic():
        RetrySet.objects.select_for_update(no_key=True).get(pk=row.pk)
        row = RetrySet.objects.get(pk=row.pk)
        if row.digest:
            raise Conflict("Approval of this set was asked for already; it is frozen.", code="set_frozen")
        decisions = approval_plans.lock_open_decisions(
            [item.case.case_id for item in items(row)], limit=MAX_ITEMS
        )
        at = clocks.read(clock)
        asked = approval_plans.ask(decisions, require_retry_ack=True, by=by, at=at)
        entries = [item.entry for item in asked.listed if item.entry]
        if not entries:
            why = Counter(item.reason for item in asked.listed).most_common(1)
            said = why[0][0] if why else "no retry of this set is planned."
            raise Conflict(f"Not asked for approval: {said}", code="not_requested")
        digest = manifests.digest_of(entries)
        drafts = [
            approval_plans.write(
                asked,
                part,
                require_retry_ack=True,
                reason=reason,
                at=at,
                by=by,
                set_id=row.set_id,
                set_digest=digest,
            )
            for part in _chunks(asked.listed, approval_plans.MAX_ENTRIES)
        ]
        by_case = {entry.case_id: entry for entry in entries}
        asked_for = list(RetrySetItem.objects.filter(retry_set=row, case__in=by_case))
        for item in asked_for:
            item.entry = by_case[item.case_id]
        RetrySetItem.objects.bulk_update(asked_for, ["entry"])
        RetrySet.objects.filter(pk=row.pk).update(digest=digest, requested_at=at)
        ledger.append([*asked.ended.values(), *drafts])
    row.refresh_from_db()
    return row


@dataclass(frozen=True)
class Decided:
    """What one act over a set came to: votes that count, and requests that were void by then."""

    votes: list[records.Draft]
    void: list[records.Draft]


def decide(
    row: RetrySet, ballot: Ballot, *, by: Person, clock: Clock, entry_ids: Sequence[str] | None = None
) -> Decided:
    """One person's vote on the items of a set, or on those of ``entry_ids``; one row and record for each.

    ``ballot.set_digest`` is the digest of exactly these items, as they were shown. An item whose manifest does
    not hold any more is void and its vote not counted; the others are. Raises ``ManifestChanged`` for another
    digest, ``NotAllowed`` when the person may not vote on one of them, ``Conflict`` naming an item that takes
    no such vote; then nobody's vote is recorded.
    """
    policies.require_role(by, Permission.DECIDE)
    approvals.require_words(ballot)
    with transaction.atomic():
        _locked(row)
        chosen = _chosen(row, entry_ids)
        at = clocks.read(clock)
        barred = barred_from_voting(by, chosen)
        for entry in chosen:
            if reasons := barred[entry.pk]:
                raise NotAllowed(
                    reasons[0], code="second_person_required", reasons=reasons, case=entry.case.case_id
                )
            if refusals := reasons_against_decision(entry, ballot.state, at):
                code, sentence = refusals[0]
                raise Conflict(f"{sentence} ({entry.case.case_id})", code=code, case=entry.case.case_id)
        if ballot.set_digest != manifests.digest_of(chosen):
            raise _others_than_shown(chosen)
        votes, void = [], []
        for entry in chosen:
            # Somebody who was shown the set was shown every manifest under its digest.
            one = replace(ballot, manifest_digest=entry.manifest_digest, set_id=row.set_id)
            changed = (
                manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy))
                if ballot.state is ApprovalState.APPROVED
                else ()
            )
            if changed:
                void.append(approvals.void_entry(entry, changed, by=by, at=at))
            else:
                votes.append(approvals.cast(entry, one, by=by, at=at))
        ledger.append([*votes, *void])
    return Decided(votes, void)


def renew(
    row: RetrySet, ballot: Ballot, *, by: Person, clock: Clock, entry_ids: Sequence[str] | None = None
) -> list[records.Draft]:
    """Renew and approve every item that lapsed, or those of ``entry_ids``; the items stand for the new requests.

    ``ballot.set_digest``, when given, is the digest of exactly these items. Raises ``ManifestChanged`` for
    another one, and whatever ``renewals.renew`` has against one of them.
    """
    lapsed = [item.entry for item in items(row) if item.entry and item.entry.state == EntryState.EXPIRED]
    if entry_ids is not None:
        lapsed = [entry for entry in lapsed if entry.entry_id in entry_ids]
    if ballot.set_digest and lapsed and ballot.set_digest != manifests.digest_of(lapsed):
        raise _others_than_shown(lapsed)
    if not lapsed:
        raise Conflict("Not renewed: no request of this set ran out.", code="not_renewable")
    return renewals.renew(lapsed, replace(ballot, set_id=row.set_id), by=by, clock=clock)


def _others_than_shown(found: Sequence[ApprovalEntry]) -> ManifestChanged:
    """The refusal of a vote on items that are not those that were shown."""
    return ManifestChanged(
        "Not recorded: the items you were shown are not these; look again.",
        errors={"set_digest": [f"the digest of these items is {manifests.digest_of(found)}"]},
    )


def set_by_id(set_id: str) -> RetrySet:
    """The set with this id; ``NotFound`` otherwise."""
    row = RetrySet.objects.select_related("created_by").filter(set_id=set_id).first()
    if row is None:
        raise NotFound("There is no set with this id.", code="set_not_found")
    return row


def items(row: RetrySet) -> list[RetrySetItem]:
    """The set's items with case, connector and entry (without bodies), in the order of the cases."""
    found = RetrySetItem.objects.filter(retry_set=row).select_related(
        "case__connector", "case__plan", "entry__decision", "entry__connector", "entry__requested_by"
    )
    return list(found.defer("entry__body", "entry__manifest").order_by("case__pk"))


@dataclass(frozen=True)
class Group:
    """Items that are alike to an approver: same connector, policy and size class."""

    connector: str
    policy_digest: str
    size_class: str
    may_have_arrived: bool
    entries: tuple[ApprovalEntry, ...]


def groups(entries: Sequence[ApprovalEntry]) -> list[Group]:
    """Like items together, outliers first: what may have arrived already, then the smallest groups."""
    alike: dict[tuple[str, str, str, bool], list[ApprovalEntry]] = {}
    for entry in entries:
        manifest = records.load(entry.manifest)
        tries = [manifest["previous"], *manifest.get("earlier", [])]
        key = (
            entry.connector.key,
            entry.decision.policy_digest,
            size_class(manifest["payload"]["size"]),
            # Also what may have left while the database's memory of it was lost (P25).
            any(tried["may_have_arrived"] for tried in tries) or "possible" in manifest,
        )
        alike.setdefault(key, []).append(entry)
    found = [Group(*key, tuple(members)) for key, members in alike.items()]
    return sorted(found, key=lambda group: (not group.may_have_arrived, len(group.entries), group.connector))


def size_class(size: int) -> str:
    """The class of a body of ``size`` bytes."""
    return next((name for limit, name in SIZE_CLASSES if size <= limit), LARGEST)


def _locked(row: RetrySet) -> list[int]:
    """Keys of the set's cases, locked in one order for everybody."""
    return list(
        Case.objects.select_for_update(no_key=True)
        .filter(pk__in=RetrySetItem.objects.filter(retry_set=row).values("case"))
        .order_by("pk")
        .values_list("pk", flat=True)
    )


def _chosen(row: RetrySet, entry_ids: Sequence[str] | None) -> list[ApprovalEntry]:
    """Entries of the set a vote is about: those named, else every pending one. ``NotFound`` for a strange one."""
    of_set = approvals.entries().filter(set_items__retry_set=row)
    if entry_ids is None:
        chosen = list(of_set.filter(state__in=OPEN_ENTRY_STATES).order_by("pk"))
    else:
        chosen = list(of_set.filter(entry_id__in=entry_ids).order_by("pk"))
        if strange := sorted(set(entry_ids) - {entry.entry_id for entry in chosen}):
            raise NotFound("This set has no such item.", code="entry_not_found", errors={"items": strange})
    if not chosen:
        raise Conflict("Nothing of this set waits for a decision.", code="entry_ended")
    return chosen


def _chunks(found: Sequence[Part], size: int) -> Iterable[Sequence[Part]]:
    return (found[start : start + size] for start in range(0, len(found), size))
