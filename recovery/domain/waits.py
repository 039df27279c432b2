"""What people who decide should know: that a connector is held back, and whether an approval outlasts that."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from evidence.domain import breakers, text
from recovery.enums import EntryState
from recovery.models import ApprovalEntry


def cautions(entries: Sequence[ApprovalEntry], at: datetime) -> list[list[str]]:
    """For each open request, in the same order, why its retry would wait at ``at``, and whether it runs out first.

    None of it stands against a vote: a planned downtime passes. Two queries, however many requests.
    """
    waits = breakers.waits({entry.connector for entry in entries}, at)
    found = []
    for entry in entries:
        said = []
        ends = runs_out(entry, at)
        for wait in waits.get(entry.connector_id, ()):
            said.append(wait.sentence)
            if wait.until and ends < wait.until:
                given = "This approval" if entry.state == EntryState.APPROVED else "An approval given now"
                said.append(f"{given} runs out at {text.moment(ends)}, before that.")
        found.append(said)
    return found


def runs_out(entry: ApprovalEntry, at: datetime) -> datetime:
    """When the approval of an open request ends; of one that waits for votes, were it approved at ``at`` (P6)."""
    if entry.execute_by is not None:
        return entry.execute_by
    return max(at, entry.not_before) + timedelta(minutes=entry.execute_within_minutes)
