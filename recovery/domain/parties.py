"""Who had a part in an attempt since the one before it failed: they do not vote on it (P4)."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import Q, QuerySet

from evidence.domain import people
from evidence.models import ConnectorEdit, Person, RecordKey
from recovery.documents import RETRY_ACK
from recovery.enums import Part
from recovery.models import ApprovalEntry, RetryPlanItem, RetryPolicy

Parties = set[tuple[Person, Part]]


def parties_of(entries: Sequence[ApprovalEntry]) -> dict[int, Parties]:
    """Humans with their parts for each request, by the key of its case; as many queries for one as for many.

    The requests are of different cases and need not be saved.
    """
    since = {entry.case_id: entry.case.last_outcome_at or entry.case.created_at for entry in entries}
    if not since:
        return {}
    # (key of the case, part) to keys or public ids of people.
    accounts: list[tuple[int, Part, int | str]] = [
        *((entry.case_id, Part.REQUESTER, entry.requested_by_id) for entry in entries),
        *_planners(entries),
        *_acknowledgers(entries, since),
        *_connector_editors(entries, since),
        *_policy_editors(since),
    ]
    known = _people(who for _, _, who in accounts)
    found: dict[int, Parties] = {case: set() for case in since}
    for case, part, who in accounts:
        found[case] |= {(human, part) for human in known.get(who, ())}
    return found


def _planners(entries: Sequence[ApprovalEntry]) -> list[tuple[int, Part, int]]:
    about = {entry.case_id: entry.attempt_no for entry in entries}
    items = RetryPlanItem.objects.filter(decision__case__in=about)
    planned = items.values_list("decision__case_id", "decision__attempt_no", "plan__created_by_id").distinct()
    return [(case, Part.PLANNER, who) for case, number, who in planned if about[case] == number]


def _acknowledgers(
    entries: Sequence[ApprovalEntry], since: Mapping[int, datetime]
) -> list[tuple[int, Part, str]]:
    cases = {entry.case.case_id: entry.case_id for entry in entries}
    acknowledgements = _written(min(since.values()), "metadata_kind", RETRY_ACK.name)
    about = _written(min(since.values()), "case", *cases)
    written = {
        record: (cases[value], at)
        for record, value, at in about.filter(record__in=acknowledgements.values("record")).values_list(
            "record", "value", "created_at"
        )
    }
    return [
        (written[record][0], Part.ACKNOWLEDGER, who)
        for record, who in _authors(written)
        if written[record][1] >= since[written[record][0]]
    ]


def _connector_editors(
    entries: Sequence[ApprovalEntry], since: Mapping[int, datetime]
) -> list[tuple[int, Part, int]]:
    edits = ConnectorEdit.objects.filter(
        connector__in={entry.connector_id for entry in entries}, at__gte=min(since.values())
    )
    edited = list(edits.values_list("connector_id", "person_id", "at"))
    return [
        (entry.case_id, Part.CONNECTOR_EDITOR, who)
        for entry in entries
        for connector, who, at in edited
        if connector == entry.connector_id and at >= since[entry.case_id]
    ]


def _policy_editors(since: Mapping[int, datetime]) -> list[tuple[int, Part, str]]:
    edits = _written(min(since.values()), "subject", str(RetryPolicy._meta.model_name))
    written = dict(edits.values_list("record", "created_at"))
    authors = _authors(written)
    return [
        (case, Part.POLICY_EDITOR, who)
        for case, failed_at in since.items()
        for record, who in authors
        if written[record] >= failed_at
    ]


def _written(since: datetime, name: str, *values: str) -> QuerySet[RecordKey]:
    """Search keys of records written from ``since`` on that answer to one of ``values``."""
    return RecordKey.objects.filter(created_at__gte=since, name=name, value__in=values)


def _authors(written: Iterable[int]) -> list[tuple[int, str]]:
    """Who wrote some records: the record's place in the log, and an id or a name."""
    keys = RecordKey.objects.filter(name="actor", record__in=list(written))
    return list(keys.values_list("record", "value"))


def _people(who: Iterable[int | str]) -> dict[int | str, set[Person]]:
    """The humans who answer, or ever answered, for accounts named by key or public id."""
    named = set(who)
    accounts = Person.objects.select_related("owner").filter(
        Q(pk__in=[one for one in named if isinstance(one, int)])
        | Q(person_id__in=[one for one in named if isinstance(one, str)])
    )
    found: dict[int | str, set[Person]] = {}
    for account in accounts:
        found[account.pk] = found[account.person_id] = people.answering(account)
    return found
