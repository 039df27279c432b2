"""What holds after any race and any kill."""

from collections import Counter
from collections.abc import Iterable

from evidence.domain import records
from evidence.enums import CaseState
from evidence.models import Case
from recovery.domain import turns
from recovery.enums import EntryState, ExecutionState, RunState
from recovery.models import ApprovalEntry, Execution, WorkerRun
from tests.receiver import Receiver


def key_of(entry: ApprovalEntry) -> str:
    """The idempotency key that the approved request carries."""
    return str(records.load(bytes(entry.manifest))["headers"]["idempotency-key"])


class Counted:
    """What the receiver counts from now on, by the approval that a request belongs to."""

    def __init__(self, receiver: Receiver, entries: Iterable[ApprovalEntry]) -> None:
        self.receiver = receiver
        self.since = len(receiver.log)
        self.entries = {key_of(entry): entry.pk for entry in entries}

    def requests(self) -> Counter[int]:
        """How many requests came for each entry, by the entry's key; 0 for those without. Nothing else came."""
        with self.receiver.lock:
            came = Counter(one.headers["idempotency-key"] for one in self.receiver.log[self.since :])
        assert not came.keys() - self.entries.keys(), "requests that belong to no approval"
        return Counter({pk: came[key] for key, pk in self.entries.items()})


def assert_nothing_is_stuck() -> None:
    """Nothing is under way any more, and for every unsettled case a page says what is to be done next.

    A case whose approval is named by a run that waits for the worker is not stuck: the worker is due.
    """
    assert not Execution.objects.filter(state=ExecutionState.CLAIMED).exists()
    assert not Case.objects.filter(state=CaseState.SENDING).exists()
    assert not WorkerRun.objects.exclude(state__in=[RunState.FINISHED, RunState.QUEUED]).exists()
    cases = list(Case.objects.select_related("plan", "package", "connector"))
    for standing in turns.standings(cases):
        queued = standing.run is not None and standing.run.state == RunState.QUEUED
        assert standing.case.settled_at or standing.act or queued, f"{standing.case} waits for nobody"


def assert_used_once() -> None:
    """An approval that was used has one execution that may have left, and no other approval has any."""
    for entry in ApprovalEntry.objects.all():
        left = Execution.objects.filter(entry=entry).exclude(state="not_sent").count()
        assert left == (entry.state == EntryState.CLAIMED), f"{entry} is {entry.state} with {left} executions"
