"""What this app's records are still needed for: why one of them has to stay, beside what the facts say (P24)."""

from collections import defaultdict
from collections.abc import Sequence

from evidence.domain.erasures import Reason
from evidence.models import Record
from recovery.enums import RecoveryState
from recovery.models import PlaybookItem

FINISHED = (RecoveryState.RESOLVED, RecoveryState.REOPENED)


def reasons_against_erasing(found: Sequence[Record]) -> dict[int, list[Reason]]:
    """A playbook that an unfinished recovery works by stays: closing it reads the playbook's steps."""
    places = {record.record_id: record.index for record in found}
    listed = PlaybookItem.objects.filter(playbook__playbook_id__in=places).exclude(
        recovery__state__in=FINISHED
    )
    against: dict[int, list[Reason]] = defaultdict(list)
    for playbook_id, connector in listed.values_list("playbook__playbook_id", "recovery__connector__key"):
        sentence = f"{playbook_id} belongs to the recovery of {connector}, which is not finished yet."
        against[places[playbook_id]].append(("recovery_open", sentence))
    return against
