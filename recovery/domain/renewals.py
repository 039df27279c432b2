"""Renewing an approval that ran out: the same content with new clocks, and the vote of who renews it (P6)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.db import transaction

from evidence.domain import attempts, ledger, people, policies, records
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.errors import Conflict, NotAllowed
from evidence.models import Attempt, Case, Person
from recovery.domain import approval_plans, approvals, manifests, retry_policies
from recovery.domain.approval_plans import Asked, Listed
from recovery.domain.approvals import Ballot
from recovery.domain.parties import parties_of
from recovery.domain.policies import (
    ACKNOWLEDGED,
    PART_SENTENCES,
    barred_from_voting,
    reasons_against_retry,
)
from recovery.enums import ApprovalState, DecisionState, EntryState, Part, PlanAction
from recovery.errors import ManifestChanged
from recovery.models import ApprovalEntry, EntryParty, RetryPlanItem, RetrySetItem
from recovery.permissions import Permission


def renew(
    entries: Sequence[ApprovalEntry], ballot: Ballot, *, by: Person, clock: Clock
) -> list[records.Draft]:
    """Ask for each lapsed request again with the same content, and approve it in the name of ``by``.

    The new request keeps requester and parties of the old one; only its clocks are new. ``ballot`` carries
    what the approver says about all of them. Returns the records: plans first, then votes. Raises
    ``NotAllowed`` by the person rule (P4), ``Conflict`` ``not_renewable`` naming what stands against it, and
    ``ManifestChanged`` when what was asked for is not what would be sent now: that is recorded and final (P5).
    Then nothing is renewed.
    """
    policies.require_role(by, Permission.DECIDE)
    with transaction.atomic():
        list(
            Case.objects.select_for_update(no_key=True)
            .filter(pk__in=[entry.case_id for entry in entries])
            .order_by("pk")
            .values_list("pk", flat=True)
        )
        lapsed = list(approvals.entries().filter(pk__in=[entry.pk for entry in entries]).order_by("pk"))
        at = clocks.read(clock)
        refuse(lapsed, by)
        refuse_other_digest(lapsed, ballot)
        void = [
            approvals.void_entry(entry, changed, by=by, at=at)
            for entry in lapsed
            if (changed := _changed(entry))
        ]
        drafts = void or _write(lapsed, ballot, by=by, at=at)
        ledger.append(drafts)
    if void:
        fields = sorted(
            {name for draft in void for name in draft.view[draft.kind.payload_key]["changed_fields"]}
        )
        raise ManifestChanged(
            f"Not renewed: what would be sent has changed since ({', '.join(fields)}). Ask again.",
            changed_fields=fields,
        )
    return drafts


def _write(
    lapsed: Sequence[ApprovalEntry], ballot: Ballot, *, by: Person, at: datetime
) -> list[records.Draft]:
    """Store the new requests, the plans over them and the vote on each; returns plans and votes."""
    listed = _listed(lapsed, at=at)
    items = RetryPlanItem.objects.filter(decision__in=[entry.decision_id for entry in lapsed])
    last = {entry.case_id: _last(entry) for entry in lapsed}
    known = attempts.what_is_known(last.values())
    asked = Asked(
        listed,
        {},
        {item.decision_id: item for item in items.select_related("plan").order_by("plan__pk")},
        {case: known[attempt.pk] for case, attempt in last.items()},
    )
    new = [item.entry for item in listed if item.entry]
    # What was presented is the digest of what ran out; what the vote is about has one of its own.
    presented = bool(ballot.manifest_digest or ballot.set_digest)
    set_digest = manifests.digest_of(new) if ballot.set_id else ""
    plans = [
        approval_plans.write(
            asked,
            listed[start : start + approval_plans.MAX_ENTRIES],
            require_retry_ack=all(entry.require_retry_ack for entry in lapsed),
            reason="Renewed: the approval ran out before it was used.",
            at=at,
            by=by,
            set_id=ballot.set_id,
            set_digest=set_digest,
        )
        for start in range(0, len(listed), approval_plans.MAX_ENTRIES)
    ]
    stored = {entry.pk: entry for entry in approvals.entries().filter(pk__in=[entry.pk for entry in new])}
    votes = []
    for entry in new:
        old = entry.renews
        vote = replace(
            ballot,
            state=ApprovalState.APPROVED,
            manifest_digest=entry.manifest_digest if presented else "",
            set_digest=set_digest,
            renewed_digest=old.manifest_digest if presented and old else "",
        )
        votes.append(approvals.cast(stored[entry.pk], vote, by=by, at=at))
        # Sets go on with the renewed request.
        RetrySetItem.objects.filter(entry=old).update(entry=entry)
    return [*plans, *votes]


def refuse(entries: Sequence[ApprovalEntry], by: Person) -> None:
    """Raise what stands against ``by`` renewing all of ``entries``, but for what has changed since."""
    barred = barred_from_renewing(by, entries)
    for entry in entries:
        if reasons := barred[entry.pk]:
            raise NotAllowed(reasons[0], code="second_person_required", reasons=reasons, entry=entry.entry_id)
    for entry in entries:
        if reasons := _reasons_against(entry):
            raise Conflict(
                f"Not renewed: {reasons[0]}",
                code="not_renewable",
                reasons=reasons,
                entry=entry.entry_id,
                case=entry.case.case_id,
            )


def barred_from_renewing(person: Person, entries: Sequence[ApprovalEntry]) -> dict[int, list[str]]:
    """Why this person may not renew, for each entry by its key: a part in the old request or since (P4)."""
    humans = people.answering(person)
    barred = barred_from_voting(person, entries)
    parties = parties_of(entries)
    for entry in entries:
        since = {part for human, part in parties[entry.case_id] if human in humans}
        for part in sorted(since):
            sentence = f"Not decided: {PART_SENTENCES[part]}."
            if sentence not in barred[entry.pk]:
                barred[entry.pk].append(sentence)
    return barred


def refuse_other_digest(entries: Sequence[ApprovalEntry], ballot: Ballot) -> None:
    """Raise ``ManifestChanged`` when ``ballot`` presents another digest than that of what lapsed."""
    for entry in entries:
        if ballot.manifest_digest not in ("", entry.manifest_digest):
            raise ManifestChanged(
                "The manifest you present is not that of the request that ran out.",
                errors={"manifest_digest": [f"the entry's is {entry.manifest_digest}"]},
                manifest_digest=entry.manifest_digest,
                entry=entry.entry_id,
            )


def reasons_against_renewing(entry: ApprovalEntry) -> list[str]:
    """Why a request cannot be renewed: it did not lapse, or what it asked for is not what would be sent now."""
    if reasons := _reasons_against(entry):
        return reasons
    if changed := _changed(entry):
        return [f"what would be sent has changed since ({', '.join(changed)}); ask again."]
    return []


def _changed(entry: ApprovalEntry) -> tuple[str, ...]:
    return manifests.changed_fields(entry, retry_policies.from_dict(entry.decision.policy))


def _reasons_against(entry: ApprovalEntry) -> list[str]:
    if entry.state != EntryState.EXPIRED:
        return [f"this request is {entry.state}; only one that ran out is renewed."]
    if entry.votes.filter(state=ApprovalState.EXPIRED).exists():
        return ["an approver ended this request; ask for approval again."]
    newest = (
        ApprovalEntry.objects.filter(case=entry.case_id).order_by("-pk").values_list("pk", flat=True).first()
    )
    if newest != entry.pk:
        return ["approval was asked for again since."]
    if against := reasons_against_retry(entry.case):
        return [against[0][1]]
    if entry.decision.state != DecisionState.OPEN or entry.attempt_no != entry.case.attempt_count + 1:
        return ["the retry was planned again since; ask for approval of that."]
    if entry.require_retry_ack and entry.decision.ack_state not in ACKNOWLEDGED:
        return ["the newest acknowledgement of the retry does not accept it."]
    return []


def _listed(lapsed: Sequence[ApprovalEntry], *, at: datetime) -> list[Listed]:
    """The same requests with new clocks, not saved yet."""
    row = retry_policies.configured()
    listed = []
    for old in lapsed:
        approve_by = at + timedelta(minutes=row.approve_within_minutes)
        manifest, digest = manifests.freeze(
            records.load(old.manifest)
            | {
                "approve_by": records.timestamp(approve_by),
                "execute_within_minutes": row.execute_within_minutes,
            }
        )
        new = ApprovalEntry(
            entry_id=approval_plans.mint_entry_id(),
            retry_plan=old.retry_plan,
            decision=old.decision,
            case=old.case,
            connector=old.connector,
            attempt_no=old.attempt_no,
            manifest=manifest,
            manifest_digest=digest,
            body=old.body,
            required_approvals=old.required_approvals,
            require_retry_ack=old.require_retry_ack,
            requested_by=old.requested_by,
            requested_at=at,
            not_before=old.not_before,
            approve_by=approve_by,
            execute_within_minutes=row.execute_within_minutes,
            renews=old,
        )
        listed.append(Listed(old.decision, PlanAction.REQUEST_APPROVAL, "The same content, renewed.", new))
    parties = parties_of(lapsed)
    for party in EntryParty.objects.filter(entry__in=lapsed).select_related("person", "entry"):
        parties[party.entry.case_id].add((party.person, Part(party.part)))
    approval_plans.freeze_parties([item.entry for item in listed if item.entry], parties)
    return listed


def _last(entry: ApprovalEntry) -> Attempt:
    last = entry.case.attempts.order_by("-number").first()
    if last is None:
        raise ValueError(f"{entry.case} has an approval entry and no attempt")
    return last
