"""A stolen login of the database changes what it likes: it is reported, and what cannot be is said (P11, P12, P13)."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F

from evidence import guards
from evidence.domain import records, replay, retention_terms, verification
from evidence.enums import CaseState
from evidence.models import (
    Attempt,
    Case,
    CaseLink,
    Checkpoint,
    LedgerHead,
    LedgerKey,
    MerkleNode,
    Person,
    Record,
    RecordCounter,
    RecordKey,
    RetentionRule,
    RoleGrant,
    SealEntry,
)
from recovery.models import ApprovalEntry, Disposition, Vote
from tests import tamper
from tests.tamper import Told, delete, undone, verified

pytestmark = pytest.mark.django_db


# --- each column, each row ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "column"), tamper.columns("evidence"))
def test_no_column_changes_unnoticed(told: Told, label: str, column: str) -> None:
    assert tamper.unnoticed_flips(told, label, column) == []


@pytest.mark.parametrize("label", tamper.tables("evidence"))
def test_no_row_goes_unnoticed(told: Told, label: str) -> None:
    assert tamper.unnoticed_deletions(told, label) == []


@pytest.mark.parametrize("label", tamper.tables("evidence"))
def test_no_row_is_forged_unnoticed(told: Told, label: str) -> None:
    assert tamper.forged_unnoticed(told, label) is False


@pytest.mark.parametrize("column", ("origin", "epoch", "size", "root", "peaks", "note"))
def test_no_signed_head_changes_unnoticed(told: Told, column: str) -> None:
    field: Any = Checkpoint._meta.get_field(column)
    row = Checkpoint.objects.order_by("pk")[0]
    for value in tamper.others(field, getattr(row, column)):
        with undone():
            changed = tamper.done(
                lambda value=value: Checkpoint.objects.filter(pk=row.pk).update(**{column: value})
            )
            found = any(one.what.startswith("signed head") for one in verification.verify())
            assert found is changed


def test_no_group_is_joined_unnoticed(told: Told) -> None:
    """What permission checks read are groups: they have to be the roles that were granted."""
    with undone():
        viewer = Person.objects.get(role_grants__role="auditor")
        viewer.groups.add(*Person.objects.get(role_grants__role="administrator").groups.all())
        (difference,) = told.differences("evidence.Person")
        assert (difference.what, difference.found) == (
            f"person {viewer.person_id}, groups",
            "['administrator', 'auditor']",
        )


# --- whole rows ---------------------------------------------------------------------------------------------------


def swap_records() -> None:
    """Two records change places, with everything that names a place by its number."""
    for model, column in ((Record, "index"), (RecordKey, "record")):
        for old, new in ((5, 100_005), (6, 5), (100_005, 6)):
            model._default_manager.filter(**{column: old}).update(**{column: new})


def swap_cases() -> None:
    one = Case.objects.filter(state=CaseState.FAILED)[0]
    other = Case.objects.filter(state=CaseState.ABANDONED)[0]
    for row, source in ((one, other), (other, one)):
        Case.objects.filter(pk=row.pk).update(state=source.state, settled_at=source.settled_at)


def swap_attempts() -> None:
    """Two failures take each other's case."""
    one, other = Attempt.objects.filter(number=1).order_by("pk")[:2]
    cases = one.case_id, other.case_id
    Attempt.objects.filter(pk=one.pk).update(number=9)
    Attempt.objects.filter(pk=other.pk).update(case=cases[0])
    Attempt.objects.filter(pk=one.pk).update(case=cases[1], number=1)


def cut_the_tail() -> None:
    """The last ten entries go with everything the log has of them, head and counters too; rows stay."""
    head = LedgerHead.objects.get()
    size = head.size - 10
    for record in Record.objects.filter(index__gte=size):
        document = records.load(record.body or b"")
        state = records.state_of(tamper.KINDS[record.kind], document)
        counter = RecordCounter.objects.filter(kind=record.kind, state=state)
        counter.update(count=F("count") - 1)
        counter.filter(count=0).delete()
    RecordKey.objects.filter(record__gte=size).delete()
    CaseLink.objects.filter(index__gte=size).delete()
    SealEntry.objects.filter(index__gte=size).delete()
    Record.objects.filter(index__gte=size).delete()
    Checkpoint.objects.filter(size__gt=size).delete()
    for level in range(head.size.bit_length()):
        MerkleNode.objects.filter(level=level, index__gte=size >> level).delete()
    tamper.head_again(size)


def delete_case() -> None:
    """A case goes from every table of the product; the log still speaks of it."""
    case = Case.objects.filter(state=CaseState.ABANDONED)[0]
    for label, table in replay.TABLES.items():
        if table.case:
            model = tamper.model_of(label)
            delete(
                model, *model._base_manager.filter(**{table.case: case.case_id}).values_list("pk", flat=True)
            )


def forge_vote() -> None:
    """One more approval of what was approved already."""
    entry = ApprovalEntry.objects.filter(votes__state="approved")[0]
    vote = entry.votes.all()[0]
    other = Person.objects.filter(role_grants__role="approver").exclude(pk=vote.person_id)[0]
    vote.pk, vote.decision_id = None, "gordackretryapprovaldecision-0000000000000000"
    vote.person = vote.account = other
    Vote.objects.filter(entry=entry, person=other).delete()
    Vote.objects.bulk_create([vote])


def forge_role() -> None:
    person = Person.objects.filter(role_grants__role="auditor")[0]
    RoleGrant.objects.bulk_create([RoleGrant(person=person, role="approver", granted_at=person.created_at)])


def other_disposition() -> None:
    row = Disposition.objects.filter(superseded_by=None)[0]
    delivered = Case.objects.filter(state=CaseState.DELIVERED)[0]
    Disposition.objects.filter(pk=row.pk).update(kind="superseded_by", superseded_by=delivered)


def deactivated() -> None:
    person = Person.objects.filter(role_grants__role="approver")[0]
    Person.objects.filter(pk=person.pk).update(is_active=False, deactivated_at=person.created_at)


def handed_over() -> None:
    """A human becomes a service account of somebody else: that one answers for the approvals now."""
    one, other = Person.objects.filter(role_grants__role="approver")[:2]
    Person.objects.filter(pk=one.pk).update(kind="service", owner=other)


def forge_retention_rule() -> None:
    """A rule that nobody edited or confirmed, with a confirmation of its terms."""
    administrator = Person.objects.filter(role_grants__role="administrator")[0]
    auditor = Person.objects.filter(role_grants__role="auditor")[0]
    at = administrator.created_at
    rule = RetentionRule(kind="release-connector-delivery", keep_days=1, legal_basis="law")
    rule.edited_by, rule.edited_at, rule.confirmed_by, rule.confirmed_at = administrator, at, auditor, at
    rule.confirmed_terms = retention_terms.terms(rule)
    RetentionRule.objects.bulk_create([rule])


def confirmed_behind() -> None:
    """A rule that waits is in force with its terms as they stand."""
    for rule in RetentionRule.objects.filter(confirmed_terms=""):
        by = Person.objects.filter(role_grants__role="auditor")[0]
        terms = retention_terms.terms(rule)
        RetentionRule.objects.filter(pk=rule.pk).update(
            confirmed_by=by, confirmed_at=rule.edited_at, confirmed_terms=terms
        )


def shortened() -> None:
    """A rule in force keeps for a day, and what was confirmed says so too."""
    rule = RetentionRule.objects.exclude(confirmed_terms="")[0]
    rule.keep_days = 1
    rule.confirmed_terms = retention_terms.terms(rule)
    RetentionRule.objects.filter(pk=rule.pk).update(keep_days=1, confirmed_terms=rule.confirmed_terms)


# What was done → what is named of it, wherever it stands.
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "two records swapped": (swap_records, "seal entry, record"),
    "two cases swapped": (swap_cases, "case gordackdelivery-"),
    "two attempts swapped": (swap_attempts, "attempt gordackdelivery-"),
    "the tail cut off": (cut_the_tail, "record: expected one that speaks of it, found none"),
    "a case deleted": (delete_case, "row: expected one, found none"),
    "a vote forged": (forge_vote, "vote gordackretryapprovaldecision-0000000000000000, record"),
    # Columns that a check of the table lets change together only.
    "a key revoked": (
        lambda: LedgerKey.objects.update(state="revoked", ended_at=F("introduced_at")),
        ", state: expected active, found revoked",
    ),
    "a person deactivated": (deactivated, ", is_active: expected True, found False"),
    "a person brought back": (
        lambda: Person.objects.filter(is_active=False).update(is_active=True, deactivated_at=None),
        ", is_active: expected False, found True",
    ),
    "a person handed over": (handed_over, ", kind: expected human, found service"),
    "a disposition of another kind": (other_disposition, ", kind: expected abandoned, found superseded_by"),
    "a retention rule forged": (
        forge_retention_rule,
        "retention rule release-connector-delivery, record: expected one that speaks of it, found none",
    ),
    "a retention rule shortened": (
        shortened,
        ", terms: expected Kept for 800 days: policy 8, found Kept for 1",
    ),
    "an unconfirmed retention rule confirmed": (
        confirmed_behind,
        ", confirmed_terms: expected , found ",
    ),
    "a role forged": (forge_role, "/approver/1, record: expected one that speaks of it, found none"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_named(told: Told, name: str) -> None:
    change, named = CHANGES[name]
    with undone():
        change()
        found = [str(difference) for difference in verification.verify() if difference.what != "guards"]
        assert [one for one in found if named in one]


def test_the_command_names_row_column_both_values_and_the_record(told: Told) -> None:
    case = Case.objects.filter(state=CaseState.FAILED)[0]
    said = Record.objects.filter(index__in=CaseLink.objects.filter(case_id=case.case_id).values("index"))
    newest = said.filter(kind="release-connector-delivery").latest("index")
    with undone():
        guards.install()
        other = newest.created_at + timedelta(days=1)
        Case.objects.filter(pk=case.pk).update(last_outcome_at=other)
        _, error, code = verified()
        assert code == 1
        assert error == (
            f"entry {newest.index} ({newest.record_id}): case {case.case_id}, last_outcome_at: "
            f"expected {records.timestamp(newest.created_at)}, found {records.timestamp(other)}"
        )
        shown = json.loads(verified("--json")[0])
        assert (shown["differences"], shown["first"]["record_id"]) == (1, newest.record_id)
