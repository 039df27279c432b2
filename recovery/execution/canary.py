"""Canary first: one retry of each connector goes alone, then five, then the rest; a failure ends that part (P17)."""

from collections import Counter

from recovery.enums import ExecutionState
from recovery.models import Execution, WorkerRun

# How many have to be delivered before the next stage begins: one alone, then five.
STAGES = (1, 6)


class Ladder:
    """How far each connector of a run has come, and which of them failed.

    It is read from the run's rows, so that a run which goes on after its worker died starts where it was.
    """

    def __init__(self, run: WorkerRun) -> None:
        self.delivered: Counter[str] = Counter()
        self.failed: set[str] = set()
        done = Execution.objects.filter(run=run).values_list("case__connector__key", "state")
        for connector, state in done:
            self._count(connector, state)

    def is_halted(self, connector: str) -> bool:
        """Whether nothing more of this connector is claimed in this run."""
        return connector in self.failed

    def room(self, connector: str, in_flight: int) -> int | None:
        """How many more may be claimed now, with ``in_flight`` under way; None when nothing limits it."""
        done = self.delivered[connector]
        stage = next((stage for stage in STAGES if done < stage), None)
        return None if stage is None else stage - done - in_flight

    def heard(self, connector: str, *, delivered: bool) -> None:
        """Take in what came of one retry."""
        self._count(connector, ExecutionState.DELIVERED if delivered else ExecutionState.FAILED)

    def _count(self, connector: str, state: str) -> None:
        if state == ExecutionState.DELIVERED:
            self.delivered[connector] += 1
        else:
            self.failed.add(connector)
