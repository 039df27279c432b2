"""What waits, and for whom: every unsettled case with its one due act, gathered by connector (CONSOLE.md §3)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from evidence.enums import CaseState, Role
from evidence.models import Case, Connector, Person
from recovery.domain import turns
from recovery.domain.turns import Standing
from recovery.enums import Act

# More than this many unsettled cases are counted and not looked at one by one.
MOST = 1_000
# What ends within this time comes before what has waited long.
SOON = timedelta(minutes=45)


@dataclass(frozen=True)
class Waiting:
    """Cases of one connector that wait for the same act."""

    act: Act
    role: Role
    connector: Connector
    cases: tuple[Standing, ...]
    since: datetime
    until: datetime | None

    @property
    def only(self) -> Case | None:
        """The case, when there is one."""
        return self.cases[0].case if len(self.cases) == 1 else None

    @property
    def soonest(self) -> Standing:
        """The case that ends first, else the one that has waited longest."""
        return min(
            self.cases,
            key=lambda one: (one.until or datetime.max.replace(tzinfo=one.since.tzinfo), one.since),
        )


def unsettled(limit: int = MOST) -> list[Case]:
    """Cases that are not settled, the oldest outcome first."""
    rows = Case.objects.filter(state__in=(CaseState.FAILED, CaseState.UNKNOWN))
    return list(rows.select_related("connector", "plan", "package").order_by("last_outcome_at", "pk")[:limit])


def waiting(standings: Iterable[Standing], at: datetime, person: Person) -> list[Waiting]:
    """What is due, gathered by connector and act: unknown outcomes first, then what runs out, the person's own
    turn before others'. What waits for its retry window is not due yet.
    """
    gathered: dict[tuple[int, Act], list[Standing]] = defaultdict(list)
    for one in standings:
        early = one.act in (Act.PLAN, Act.EXECUTE) and one.opens is not None and one.opens > at
        if one.act and not early:
            gathered[one.case.connector_id, one.act].append(one)
    found = []
    for (_, act), those in gathered.items():
        ends = [one.until for one in those if one.until]
        found.append(
            Waiting(
                act=act,
                role=turns.ROLES[act],
                connector=those[0].case.connector,
                cases=tuple(those),
                since=min(one.since for one in those),
                until=min(ends) if ends else None,
            )
        )
    return sorted(found, key=lambda one: _urgency(one, at, person))


def _urgency(one: Waiting, at: datetime, person: Person) -> tuple[bool, bool, bool, datetime]:
    runs_out = one.until is not None and one.until - at < SOON
    return (one.act is not Act.ATTEST, not runs_out, one.role not in person.role_names, one.since)
