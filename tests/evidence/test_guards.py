"""P11: the database itself refuses, on both databases, whoever asks and however."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction

from evidence import guards
from evidence.models import Record
from tests.evidence import rows as build
from tests.evidence.rows import Rows

APPEND_ONLY = sorted(guards.append_only_models())
NEVER_DELETED = sorted(guard.model for guard in guards.GUARDS if isinstance(guard, guards.NeverDeleted))
FROZEN = [
    (guard.model, column)
    for guard in guards.GUARDS
    if isinstance(guard, guards.Frozen)
    for column in guard.columns
]
INSERT_REFUSED = {guard.rule for guard in guards.GUARDS if isinstance(guard, guards.InsertRefused)}


@pytest.fixture
def rows(db: None) -> Rows:
    return build.one_of_each()


# --- ways to change a row ---------------------------------------------------------------------------------------


def execute(sql: str, params: Any = ()) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def where(row: models.Model) -> tuple[str, list[Any]]:
    """SQL that finds exactly this row."""
    fields = row._meta.pk_fields
    condition = " AND ".join(f'"{field.column}" = %s' for field in fields)
    return condition, [field.get_db_prep_value(getattr(row, field.attname), connection) for field in fields]


def last_column(row: models.Model) -> str:
    return row._meta.local_concrete_fields[-1].column


def sql_update(row: models.Model) -> None:
    condition, params = where(row)
    column = last_column(row)
    execute(f'UPDATE "{row._meta.db_table}" SET "{column}" = "{column}" WHERE {condition}', params)


def sql_delete(row: models.Model) -> None:
    condition, params = where(row)
    execute(f'DELETE FROM "{row._meta.db_table}" WHERE {condition}', params)


def row_saved(row: models.Model) -> None:
    row.save(force_update=True)


def row_deleted(row: models.Model) -> None:
    row.delete()


def query_updated(row: models.Model) -> None:
    field = row._meta.local_concrete_fields[-1]
    type(row)._default_manager.filter(pk=row.pk).update(**{field.attname: getattr(row, field.attname)})


def query_deleted(row: models.Model) -> None:
    type(row)._default_manager.filter(pk=row.pk).delete()


def base_manager_deleted(row: models.Model) -> None:
    queryset = type(row)._base_manager.filter(pk=row.pk)
    queryset._raw_delete(queryset.db)


def bulk_updated(row: models.Model) -> None:
    # A composite key's parts cannot be updated in bulk by Django itself; a plain column of each can.
    column = next(f for f in reversed(row._meta.local_concrete_fields) if f not in row._meta.pk_fields)
    type(row)._default_manager.bulk_update([row], [column.name])


def copied(row: models.Model, verb: str, **new_values: str) -> None:
    """INSERT a copy of the row, with SQL in place of some columns."""
    columns = [field.column for field in row._meta.local_concrete_fields]
    condition, params = where(row)
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(new_values.get(column, f'"{column}"') for column in columns)
    table = row._meta.db_table
    execute(f'{verb} INTO "{table}" ({names}) SELECT {values} FROM "{table}" WHERE {condition}', params)


def upserted(row: models.Model) -> None:
    column = last_column(row)
    keys = ", ".join(f'"{field.column}"' for field in row._meta.pk_fields)
    columns = [field.column for field in row._meta.local_concrete_fields]
    names = ", ".join(f'"{name}"' for name in columns)
    condition, params = where(row)
    table = row._meta.db_table
    # "WHERE": SQLite tells an upsert's ON from a join's by it.
    execute(
        f'INSERT INTO "{table}" ({names}) SELECT {names} FROM "{table}" WHERE {condition} '
        f'ON CONFLICT ({keys}) DO UPDATE SET "{column}" = excluded."{column}"',
        params,
    )


CHANGES = [sql_update, row_saved, query_updated, bulk_updated, upserted]
REMOVALS = [sql_delete, row_deleted, query_deleted, base_manager_deleted]
# Where every column is part of the key Django has nothing to save, and says so itself.
ALL_KEY = {"evidence.RecordKey"}


def refused(message: str, attack: Callable[[models.Model], None], row: models.Model) -> None:
    """The attack is refused with ``message`` and the row is as it was."""
    condition, params = where(row)
    table = row._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT * FROM "{table}" WHERE {condition}', params)
        before = cursor.fetchall()
    assert len(before) == 1
    with pytest.raises(IntegrityError, match=message), transaction.atomic():
        attack(row)
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT * FROM "{table}" WHERE {condition}', params)
        assert cursor.fetchall() == before


# --- append-only --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", (*CHANGES, *REMOVALS), ids=lambda attack: attack.__name__)
def test_append_only_rows_are_never_changed_or_removed(
    rows: Rows, attack: Callable[[models.Model], None]
) -> None:
    tried = [label for label in APPEND_ONLY if not (attack in (row_saved, bulk_updated) and label in ALL_KEY)]
    for label in tried:
        # Other rows and Django's own rules about them may not answer in the guard's place.
        refused(f"append-only: {rows[label]._meta.db_table}", _past_protect(attack), rows[label])
    assert len(tried) >= 19


def _past_protect(attack: Callable[[models.Model], None]) -> Callable[[models.Model], None]:
    """``on_delete=PROTECT`` refuses in Python; here the database is asked."""

    def run(row: models.Model) -> None:
        try:
            attack(row)
        except models.ProtectedError:
            base_manager_deleted(row)

    return run


@pytest.mark.only("sqlite")
@pytest.mark.parametrize("recursive", ("ON", "OFF"))
@pytest.mark.parametrize("label", (*APPEND_ONLY, *NEVER_DELETED))
def test_replace_is_refused_for_every_unique_key(rows: Rows, label: str, recursive: str) -> None:
    """Without recursive triggers SQLite removes the replaced row silently."""
    row = rows[label]
    keys = [field.column for field in row._meta.pk_fields]
    other = "".join(f"{', ' if i else ''}{k}" for i, k in enumerate(keys))
    execute(f"PRAGMA recursive_triggers = {recursive}")
    try:
        refused("append-only|never deleted", lambda row: copied(row, "INSERT OR REPLACE"), row)
        refused("append-only|never deleted", lambda row: copied(row, "REPLACE"), row)
        if len(keys) == 1 and _has_other_unique_keys(row):
            fresh = {keys[0]: '"id" + 1000' if keys == ["id"] else f'"{other}" + 1000'}
            refused("append-only|never deleted", lambda row: copied(row, "INSERT OR REPLACE", **fresh), row)
    finally:
        execute("PRAGMA recursive_triggers = ON")


def _has_other_unique_keys(row: models.Model) -> bool:
    return any(field.unique and not field.primary_key for field in row._meta.local_fields) or any(
        isinstance(c, models.UniqueConstraint) and not c.condition for c in row._meta.constraints
    )


@pytest.mark.only("sqlite")
def test_replace_is_refused_under_a_conditional_constraint_and_only_there(rows: Rows) -> None:
    """The same content once per connector while it is undelivered: replacing the case would drop it."""
    case = rows["evidence.Case"]
    plan = rows.make(
        "evidence.DeliveryPlan",
        delivery_id="gordackdelivery-2",
        created_at=build.NOON,
        record_hash=build.HASH,
    )
    new = {
        "id": '"id" + 1000',
        "case_id": "'gordackdelivery-2.splunk'",
        "plan_id": str(plan.pk),
        "stream_seq": '"stream_seq" + 1000',
    }
    execute("PRAGMA recursive_triggers = OFF")
    try:
        refused("never deleted", lambda row: copied(row, "INSERT OR REPLACE", **new), case)
        # A delivered one collides with nothing.
        copied(case, "INSERT", **new, state="'delivered'", settled_at='"created_at"')
    finally:
        execute("PRAGMA recursive_triggers = ON")


@pytest.mark.only("postgresql")
@pytest.mark.parametrize("cascade", ("", "CASCADE"))
@pytest.mark.parametrize("label", (*APPEND_ONLY, *NEVER_DELETED))
def test_truncate_is_refused(rows: Rows, label: str, cascade: str) -> None:
    table = rows[label]._meta.db_table
    execute("SET CONSTRAINTS ALL IMMEDIATE")
    # Without CASCADE PostgreSQL itself refuses a table that others refer to, before any trigger.
    referred = not cascade and any(r.field.db_constraint for r in rows[label]._meta.related_objects)
    expected = "cannot truncate a table" if referred else "append-only|never deleted"
    error = Exception if referred else IntegrityError
    with pytest.raises(error, match=expected), transaction.atomic():
        execute(f'TRUNCATE "{table}" {cascade}')


@pytest.mark.only("postgresql")
def test_a_replica_session_is_refused_too(rows: Rows) -> None:
    """``session_replication_role = replica`` switches ordinary triggers off; these fire always."""
    execute("SET LOCAL session_replication_role = replica")
    for label in APPEND_ONLY:
        refused("append-only", sql_update, rows[label])
        refused("append-only", sql_delete, rows[label])
    for label in NEVER_DELETED:
        refused("never deleted", sql_delete, rows[label])


# --- never deleted, frozen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", tuple(REMOVALS), ids=lambda attack: attack.__name__)
def test_rows_with_a_state_never_go(rows: Rows, attack: Callable[[models.Model], None]) -> None:
    for label in NEVER_DELETED:
        refused(f"never deleted: {rows[label]._meta.db_table}", _past_protect(attack), rows[label])


@pytest.mark.parametrize("label", NEVER_DELETED)
def test_rows_with_a_state_may_change(rows: Rows, label: str) -> None:
    """The refusal of everything would prove nothing."""
    sql_update(rows[label])


# A value that differs from every row's, by column type.
OTHER = {
    "CharField": "'other'",
    "PositiveIntegerField": "77",
    "PositiveSmallIntegerField": "1 + 1",
    "PositiveBigIntegerField": "77",
    "BigAutoField": "77",
    "BigIntegerField": "77",
    "ForeignKey": "77",
    "OneToOneField": "77",
    "DateTimeField": "'2027-01-01 00:00:00'",
    "BooleanField": None,
    "BinaryField": None,
    "JSONField": "'{\"a\": 1}'",
}


@pytest.mark.parametrize(("label", "column"), FROZEN)
def test_frozen_columns_never_change(rows: Rows, label: str, column: str) -> None:
    row = rows[label]
    field = next(f for f in row._meta.local_fields if f.column == column)
    other = OTHER[field.get_internal_type()]
    if other is None:
        other = f'NOT "{column}"' if isinstance(field, models.BooleanField) else _bytes_literal()

    def change(row: models.Model) -> None:
        condition, params = where(row)
        execute(f'UPDATE "{row._meta.db_table}" SET "{column}" = {other} WHERE {condition}', params)

    refused(f"frozen: {row._meta.db_table}", change, row)


def _bytes_literal() -> str:
    return "X'00'" if connection.vendor == "sqlite" else "'\\x00'::bytea"


# --- refused inserts --------------------------------------------------------------------------------------------------


def second_attempt_without_execution(rows: Rows) -> None:
    case = rows.make("evidence.Case", **_another_case(rows))
    build.attempt(rows, case, number=2)


def execution_of_an_entry_that_is_not_claimed(rows: Rows) -> None:
    entry = build.entry(rows, "approved", case=rows.make("evidence.Case", **_another_case(rows)))
    build.execution(rows, **_another_execution(), entry=entry, case=entry.case)


def execution_of_another_attempt(rows: Rows) -> None:
    entry = build.entry(rows, "claimed", entry_id="entry-3", attempt_no=3)
    build.execution(rows, **_another_execution(), entry=entry, attempt_no=4)


def execution_of_another_case(rows: Rows) -> None:
    case = rows.make("evidence.Case", **_another_case(rows))
    rows["evidence.Case"] = rows["evidence.Attempt"].case  # type: ignore[attr-defined]
    entry = build.entry(rows, "claimed", entry_id="entry-3", attempt_no=3)
    build.execution(rows, **_another_execution(), entry=entry, case=case, attempt_no=3)


def party_approves(rows: Rows) -> None:
    build.vote(rows, rows["evidence.Person"], "approved")


def approval_after_a_denial(rows: Rows) -> None:
    voter = build.person(rows, "bob")
    build.vote(rows, voter, "denied")
    build.vote(rows, voter, "approved")


def erasure_that_nobody_proposed(rows: Rows) -> None:
    rows.make(
        "evidence.Erasure",
        erasure_id="erasure-2",
        legal_basis="law",
        proposed_by=build.person(rows, "bob"),
        proposed_through=rows["evidence.Person"],
        proposed_at=build.NOON,
        proposal_id="erasureproposal-2",
        state="confirmed",
        decided_by=rows["evidence.Person"],
        decided_at=build.NOON,
    )


def record_that_is_named_after_the_decision(rows: Rows) -> None:
    erasure = rows["evidence.Erasure"]
    decided = {"state": "refused", "decided_by": build.person(rows, "bob"), "decided_at": build.NOON}
    type(erasure)._default_manager.filter(pk=erasure.pk).update(**decided)
    rows.make("evidence.ErasureItem", **_genesis())


def record_that_is_named_by_another_place(rows: Rows) -> None:
    """A hold on the record's case is looked up by the place in the log, the bytes by the id."""
    rows.make("evidence.ErasureItem", **{**_genesis(), "index": 7})


def _genesis() -> dict[str, Any]:
    return Record.objects.filter(index=0).values("index", "record_id", "kind", "digest").get()


def _another_case(rows: Rows) -> dict[str, Any]:
    created = {"created_at": build.NOON, "record_hash": build.HASH}
    rows.make("evidence.AuditPackage", audit_id="gordackaudit-2", **created)
    rows.make("evidence.DeliveryPlan", delivery_id="gordackdelivery-2", **created)
    case = {"case_id": "gordackdelivery-2.splunk", "content_hash": "2" * 64}
    place = {"stream_seq": 2, "stream_prev": build.HASH, "stream_digest": build.HASH}
    return {**case, **place, "state": "failed", "created_at": build.NOON}


def _another_execution() -> dict[str, str]:
    return {"claim_id": "gordackretryclaim-2", "execution_id": "gordackretryexec-2"}


TRIPS = {
    second_attempt_without_execution: "attempt_needs_execution",
    execution_of_an_entry_that_is_not_claimed: "execution_needs_claim",
    execution_of_another_attempt: "execution_needs_claim",
    execution_of_another_case: "execution_needs_claim",
    party_approves: "party_does_not_vote",
    approval_after_a_denial: "approval_comes_first",
    erasure_that_nobody_proposed: "erasure_is_proposed_first",
    record_that_is_named_after_the_decision: "erasure_is_open",
    record_that_is_named_by_another_place: "erasure_names_a_record",
}


@pytest.mark.parametrize(("trip", "rule"), TRIPS.items(), ids=[trip.__name__ for trip in TRIPS])
def test_rows_that_break_a_rule_are_not_inserted(rows: Rows, trip: Callable[[Rows], None], rule: str) -> None:
    with pytest.raises(IntegrityError, match=rule), transaction.atomic():
        trip(rows)


def test_every_rule_has_a_test_that_trips_it() -> None:
    assert set(TRIPS.values()) == INSERT_REFUSED


def test_what_the_rules_allow_is_inserted(rows: Rows) -> None:
    """Attempt 2 of the executed approval; a denial after an approval; a party's denial."""
    case = rows["evidence.Attempt"].case  # type: ignore[attr-defined]
    build.attempt(rows, case, number=2)
    voter = build.person(rows, "bob")
    build.vote(rows, voter, "approved")
    build.vote(rows, voter, "denied")
    # The requester, a party, may always say no.
    build.vote(rows, rows["recovery.EntryParty"].person, "denied")  # type: ignore[attr-defined]


@pytest.mark.only("postgresql")
def test_a_temporary_table_cannot_answer_for_a_real_one(rows: Rows) -> None:
    """Temporary tables are searched first: one with a forged execution would let attempt 9 in."""
    execute('CREATE TEMPORARY TABLE "recovery_execution" (case_id bigint, attempt_no int) ON COMMIT DROP')
    case = rows["evidence.Attempt"].case  # type: ignore[attr-defined]
    execute(f'INSERT INTO "pg_temp"."recovery_execution" VALUES ({case.pk}, 9)')
    with pytest.raises(IntegrityError, match="attempt_needs_execution"), transaction.atomic():
        build.attempt(rows, case, number=9)


# --- guards are noticed when they do not stand ----------------------------------------------------------------------

NAME, TABLE = "guard_evidence_record_delete", "evidence_record"


def dropped() -> None:
    execute(f'DROP TRIGGER "{NAME}"' + ("" if connection.vendor == "sqlite" else f' ON "{TABLE}"'))


def _again(sql: str) -> None:
    dropped()
    execute(sql)


def condition_added() -> None:
    each = f'CREATE TRIGGER "{NAME}" BEFORE DELETE ON "{TABLE}" FOR EACH ROW WHEN'
    if connection.vendor == "sqlite":
        _again(f"{each} OLD.size < 0 BEGIN SELECT RAISE(ABORT, 'append-only: {TABLE}'); END")
    else:
        _again(f'{each} (OLD.size < 0) EXECUTE FUNCTION "{NAME}"()')
        execute(f'ALTER TABLE "{TABLE}" ENABLE ALWAYS TRIGGER "{NAME}"')


def body_replaced() -> None:
    if connection.vendor == "sqlite":
        _again(f'CREATE TRIGGER "{NAME}" BEFORE DELETE ON "{TABLE}" FOR EACH ROW BEGIN SELECT 1; END')
    else:
        execute(
            f'CREATE OR REPLACE FUNCTION "{NAME}"() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN OLD; END$$'
        )


def moved_after_the_event() -> None:
    if connection.vendor == "sqlite":
        _again(f'CREATE TRIGGER "{NAME}" AFTER DELETE ON "{TABLE}" BEGIN SELECT RAISE(IGNORE); END')
    else:
        _again(f'CREATE TRIGGER "{NAME}" AFTER DELETE ON "{TABLE}" FOR EACH ROW EXECUTE FUNCTION "{NAME}"()')


BENT = {
    dropped: "missing",
    condition_added: "changed",
    body_replaced: "changed",
    moved_after_the_event: "changed",
}


@pytest.mark.parametrize(("bend", "word"), BENT.items(), ids=[bend.__name__ for bend in BENT])
@pytest.mark.django_db
def test_a_guard_that_was_bent_is_found_and_put_back(bend: Callable[[], None], word: str) -> None:
    assert guards.differences() == []
    bend()
    (problem,) = guards.differences()
    assert NAME in problem
    assert word in problem
    guards.install()
    assert guards.differences() == []


@pytest.mark.only("postgresql")
@pytest.mark.parametrize("state", ("DISABLE TRIGGER", "ENABLE TRIGGER", "ENABLE REPLICA TRIGGER"))
@pytest.mark.django_db
def test_a_guard_that_does_not_always_fire_is_found(state: str) -> None:
    execute(f'ALTER TABLE "{TABLE}" {state} "{NAME}"')
    assert guards.differences() == [f"guard {NAME} was changed"]
    guards.install()
    assert guards.differences() == []


@pytest.mark.only("postgresql")
@pytest.mark.django_db
def test_a_guard_whose_function_looks_elsewhere_is_found() -> None:
    execute(f'ALTER FUNCTION "{NAME}"() RESET search_path')
    assert guards.differences() == [f"guard {NAME} was changed"]


@pytest.mark.django_db
def test_an_unknown_guard_is_found_and_taken_away() -> None:
    if connection.vendor == "sqlite":
        execute('CREATE TRIGGER "guard_unknown" BEFORE INSERT ON "evidence_case" BEGIN SELECT 1; END')
    else:
        execute(
            'CREATE TRIGGER "guard_unknown" BEFORE INSERT ON "evidence_case" '
            f'FOR EACH ROW EXECUTE FUNCTION "{NAME}"()'
        )
    assert guards.differences() == ["guard guard_unknown is not on the list"]
    guards.install()
    assert guards.differences() == []


@pytest.mark.django_db
def test_the_system_check_names_what_is_missing() -> None:
    from django.core.checks import Tags, run_checks

    assert run_checks(tags=[Tags.database], databases=["default"]) == []
    dropped()
    (problem,) = run_checks(tags=[Tags.database], databases=["default"])
    assert (problem.id, problem.msg) == ("evidence.W001", f"guard {NAME} is missing")
    assert run_checks(tags=[Tags.database]) == []


# --- flush, live server, migrate ------------------------------------------------------------------------------------


@pytest.fixture
def standing() -> Iterator[None]:
    assert guards.differences() == []
    yield
    assert guards.differences() == []


def test_flush_is_refused_while_the_guards_stand(transactional_db: None, standing: None) -> None:
    """Nobody empties the log by habit; the tests' own teardown takes the guards away first."""
    from django.core.management.base import CommandError

    build.append(build.draft())
    with pytest.raises(CommandError) as refusal:
        call_command("flush", interactive=False, verbosity=0)
    assert isinstance(refusal.value.__cause__, IntegrityError)
    assert apps.get_model("evidence.Record").objects.count() == 2


def test_flush_without_guards_starts_a_new_log_with_guards(transactional_db: None, standing: None) -> None:
    build.append(build.draft())
    before = apps.get_model("evidence.LedgerHead").objects.get().origin
    guards.drop()
    assert len(guards.differences()) == len(guards.expected(connection.vendor))
    call_command("flush", interactive=False, verbosity=0)
    head = apps.get_model("evidence.LedgerHead").objects.get()
    assert (head.size, head.origin == before) == (1, False)


def test_a_live_server_leaves_them_in_place(live_server: Any, standing: None) -> None:
    refused("append-only", sql_delete, build.append(build.draft())[0])


def test_migrate_with_nothing_to_do_never_takes_them_down(
    transactional_db: None, standing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop() -> None:
        raise AssertionError("the guards were dropped")

    monkeypatch.setattr(guards, "drop", drop)
    call_command("migrate", verbosity=0)
    monkeypatch.undo()
