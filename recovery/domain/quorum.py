"""Whose votes count towards an approval, and who could give one (P4)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from evidence.domain import records
from evidence.enums import Role
from evidence.models import Person, RoleGrant
from recovery.enums import ApprovalState
from recovery.models import ApprovalEntry, Vote


def vote_dict(vote: Vote) -> dict[str, Any]:
    """A vote as lists show it."""
    return {
        "decision_id": vote.decision_id,
        "decision_hash": vote.record_hash,
        "approval_state": vote.state,
        "decided_by": vote.person.username,
        "decided_at": records.timestamp(vote.decided_at),
        "digest_presented": vote.digest_presented,
    }


def counted_votes(entry: ApprovalEntry) -> list[Vote]:
    """Approvals that count: those of people whose newest vote is an approval, oldest first.

    What somebody approved before their account was deactivated counts no more, not even once they are back.
    """
    return [vote for vote in approving_votes(entry) if not is_void(vote)]


def approving_votes(entry: ApprovalEntry) -> list[Vote]:
    """Approvals that are their person's newest word, whether they still count or not, oldest first."""
    newest: dict[int, Vote] = {}
    for vote in Vote.objects.filter(entry=entry).select_related("person", "account").order_by("pk"):
        newest[vote.person_id] = vote
    return sorted(
        (vote for vote in newest.values() if vote.state == ApprovalState.APPROVED), key=lambda vote: vote.pk
    )


def deadline(entry: ApprovalEntry, votes: Sequence[Vote]) -> datetime | None:
    """Until when the votes that count allow a claim: the last of them met the quorum (P6). None without votes."""
    if not votes:
        return None
    return max(votes[-1].decided_at, entry.not_before) + timedelta(minutes=entry.execute_within_minutes)


def is_void(vote: Vote) -> bool:
    """Whether a vote's person or account was deactivated after it."""
    return any(
        not who.is_active or (who.last_deactivated_at and who.last_deactivated_at >= vote.decided_at)
        for who in (vote.person, vote.account)
    )


@dataclass(frozen=True)
class Approver:
    """A human who may approve, in their own name or through a service account of theirs, since when."""

    person: Person
    since: datetime


def approvers() -> list[Approver]:
    """Everybody who holds the approver role now, with accounts that are active."""
    grants = RoleGrant.objects.filter(role=Role.APPROVER, revoked_at=None, person__is_active=True)
    return [
        Approver(grant.person.principal, grant.granted_at)
        for grant in grants.select_related("person__owner")
        if grant.person.principal.is_active
    ]


def eligible(approvers: Iterable[Approver], before: datetime, parties: Collection[int]) -> list[Person]:
    """Who of ``approvers`` may approve what is asked for at ``before``: they held the role then and had no part.

    ``parties`` are keys of people. Each person once, ordered by their id.
    """
    found = {one.person for one in approvers if one.since < before and one.person.pk not in parties}
    return sorted(found, key=lambda person: person.person_id)


def eligible_digest(people: Iterable[Person]) -> str:
    """SHA-256 over the sorted ids of people, as an entry keeps who could have approved it."""
    return records.digest(records.canonical(sorted(person.person_id for person in people)))
