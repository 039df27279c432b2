"""What the database itself refuses, as data in one place (P11).

SQLite's table rebuilds lose triggers silently, so guards are no migration: ``installation`` drops them
before every migrate and puts them back after it (and after every flush). A system check, ``/readyz`` and
``verify_ledger`` compare the database with this list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.apps import apps
from django.db import connection, models

PREFIX = "guard_"


@dataclass(frozen=True)
class Trigger:
    """One trigger: its name and table, and how this database creates it."""

    name: str
    table: str
    event: str
    condition: str
    message: str

    def create_statements(self, vendor: str) -> list[str]:
        """SQL that creates it on ``sqlite`` or ``postgresql``."""
        if vendor == "sqlite":
            return [self.sqlite()]
        return [self.function(), self.postgresql(), f'ALTER TABLE "{self.table}" ENABLE ALWAYS TRIGGER "{self.name}"']

    def sqlite(self) -> str:
        """The trigger as ``sqlite_master`` keeps it."""
        when = f" WHEN {self.condition}" if self.condition else ""
        return (
            f'CREATE TRIGGER "{self.name}" BEFORE {self.event} ON "{self.table}" FOR EACH ROW{when} '
            f"BEGIN SELECT RAISE(ABORT, '{self.message}'); END"
        )

    def body(self) -> str:
        """Source of the PostgreSQL function, as ``pg_proc.prosrc`` keeps it."""
        # Class 23: Django raises it as IntegrityError, like SQLite's abort.
        refuse = f"RAISE EXCEPTION '{self.message}' USING ERRCODE = '23000';"
        if self.event == "TRUNCATE":
            return f"BEGIN {refuse} END"
        result = "OLD" if self.event == "DELETE" else "NEW"
        if self.condition:
            return f"BEGIN IF {self.condition} THEN {refuse} END IF; RETURN {result}; END"
        return f"BEGIN {refuse} END"

    def function(self) -> str:
        """The function behind the trigger on PostgreSQL."""
        return (
            f'CREATE OR REPLACE FUNCTION "{self.name}"() RETURNS trigger LANGUAGE plpgsql AS $guard${self.body()}$guard$'
        )

    def postgresql(self) -> str:
        """The trigger itself on PostgreSQL."""
        each = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        return (
            f'CREATE TRIGGER "{self.name}" BEFORE {self.event} ON "{self.table}" '
            f'FOR EACH {each} EXECUTE FUNCTION "{self.name}"()'
        )


@dataclass(frozen=True)
class Guard:
    """A refusal about one model, ``app.Model``; ``triggers`` says it in SQL."""

    model: str

    def meta(self) -> "models.options.Options[models.Model]":
        """Django's description of the guarded table."""
        return apps.get_model(self.model)._meta

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        """Every trigger of this guard on ``sqlite`` or ``postgresql``."""
        raise NotImplementedError


@dataclass(frozen=True)
class AppendOnly(Guard):
    """Rows are inserted and never changed, replaced or removed."""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        message = f"append-only: {table}"
        for event in ("UPDATE", "DELETE"):
            yield Trigger(f"{PREFIX}{table}_{event.lower()}", table, event, "", message)
        if vendor == "postgresql":
            yield Trigger(f"{PREFIX}{table}_truncate", table, "TRUNCATE", "", message)
        else:
            # INSERT OR REPLACE removes the old row without firing a delete trigger unless the
            # connection asked for recursive triggers; refusing the insert needs no such favour.
            yield Trigger(f"{PREFIX}{table}_replace", table, "INSERT", self._taken(table), message)

    def _taken(self, table: str) -> str:
        """SQL condition: a row with one of the new row's unique keys is already there."""
        meta = self.meta()
        primary = [column.column for column in meta.pk_fields]
        unique = [[f.column] for f in meta.local_fields if f.unique and not f.primary_key]
        unique += [
            [meta.get_field(name).column for name in constraint.fields]
            for constraint in meta.constraints
            if isinstance(constraint, models.UniqueConstraint) and constraint.fields and not constraint.condition
        ]
        same = [
            "(" + " AND ".join(f'"{column}" = NEW."{column}"' for column in columns) + ")"
            for columns in [primary, *unique]
        ]
        return f'EXISTS (SELECT 1 FROM "{table}" WHERE {" OR ".join(same)})'


@dataclass(frozen=True)
class NeverDeleted(Guard):
    """Rows change state but never go."""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        message = f"never deleted: {table}"
        yield Trigger(f"{PREFIX}{table}_delete", table, "DELETE", "", message)
        if vendor == "postgresql":
            yield Trigger(f"{PREFIX}{table}_truncate", table, "TRUNCATE", "", message)


@dataclass(frozen=True)
class Frozen(Guard):
    """These columns never change once the row is there; the rest may."""

    columns: tuple[str, ...] = ()

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        differs = "IS NOT" if vendor == "sqlite" else "IS DISTINCT FROM"
        condition = " OR ".join(f'NEW."{column}" {differs} OLD."{column}"' for column in self.columns)
        yield Trigger(f"{PREFIX}{table}_frozen", table, "UPDATE", condition, f"frozen: {table}")


@dataclass(frozen=True)
class InsertRefused(Guard):
    """A new row is refused when the SQL ``condition`` over ``NEW`` holds; ``rule`` names it."""

    rule: str = ""
    condition: str = ""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        yield Trigger(f"{PREFIX}{table}_{self.rule}", table, "INSERT", self.condition, f"{self.rule}: {table}")


GUARDS: list[Guard] = [
    AppendOnly("evidence.Record"),
    AppendOnly("evidence.RecordKey"),
    AppendOnly("evidence.SealEntry"),
    AppendOnly("evidence.CaseLink"),
    AppendOnly("evidence.MerkleNode"),
    AppendOnly("evidence.Attempt"),
    AppendOnly("evidence.AuditPackage"),
    AppendOnly("evidence.DeliveryPlan"),
    AppendOnly("evidence.NotificationPlan"),
    AppendOnly("evidence.ConnectorEdit"),
    NeverDeleted("evidence.LedgerHead"),
    NeverDeleted("evidence.Person"),
    NeverDeleted("evidence.RoleGrant"),
    NeverDeleted("evidence.Route"),
    NeverDeleted("evidence.Case"),
    Frozen("evidence.Person", columns=("person_id",)),
    Frozen("evidence.LedgerHead", columns=("id", "origin")),
    Frozen("evidence.Case", columns=("case_id", "plan_id", "package_id", "connector_id", "created_by_id")),
]


def register(guards: Sequence[Guard]) -> None:
    """Add another app's guards to the list."""
    GUARDS.extend(guard for guard in guards if guard not in GUARDS)


def append_only_models() -> set[str]:
    """Labels of the models whose rows never change."""
    return {guard.model for guard in GUARDS if isinstance(guard, AppendOnly)}


def expected(vendor: str) -> dict[str, Trigger]:
    """Every trigger there should be, by name, leaving out tables that were not migrated yet."""
    tables = set(connection.introspection.table_names())
    return {
        trigger.name: trigger
        for guard in GUARDS
        for trigger in guard.triggers(vendor)
        if trigger.table in tables
    }


def installed(vendor: str) -> dict[str, str]:
    """Guards in the database: name to definition, in a form that ``definition`` gives for a Trigger."""
    with connection.cursor() as cursor:
        if vendor == "sqlite":
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'guard\\_%' ESCAPE '\\'")
            return dict(cursor.fetchall())
        cursor.execute(
            "SELECT t.tgname, c.relname || ' ' || t.tgenabled::text || ' ' || t.tgtype::text || ' ' || p.prosrc "
            "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE NOT t.tgisinternal AND t.tgname LIKE 'guard\\_%' AND n.nspname = ANY (current_schemas(false))"
        )
        return dict(cursor.fetchall())


# pg_trigger.tgtype: 1 row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate (PostgreSQL, pg_trigger.h).
_TGTYPE = {"INSERT": 1 + 2 + 4, "DELETE": 1 + 2 + 8, "UPDATE": 1 + 2 + 16, "TRUNCATE": 2 + 32}


def definition(trigger: Trigger, vendor: str) -> str:
    """How ``installed`` would report this trigger when it is in place, enabled and unchanged."""
    if vendor == "sqlite":
        return trigger.sqlite()
    # "A": fires always, also in a session that set session_replication_role to replica.
    return f"{trigger.table} A {_TGTYPE[trigger.event]} {trigger.body()}"


def differences() -> list[str]:
    """What is missing, changed or unknown, one sentence each; empty when the guards stand."""
    vendor = connection.vendor
    wanted, found = expected(vendor), installed(vendor)
    problems = []
    for name, trigger in sorted(wanted.items()):
        if name not in found:
            problems.append(f"guard {name} is missing")
        elif found[name] != definition(trigger, vendor):
            problems.append(f"guard {name} was changed")
    problems += [f"guard {name} is not on the list" for name in sorted(found.keys() - wanted.keys())]
    return problems


def drop() -> None:
    """Remove every guard, for a migration or a test's flush."""
    vendor = connection.vendor
    with connection.cursor() as cursor:
        for name, shown in installed(vendor).items():
            if vendor == "sqlite":
                cursor.execute(f'DROP TRIGGER "{name}"')
            else:
                cursor.execute(f'DROP TRIGGER "{name}" ON "{shown.split(" ", 1)[0]}"')
                cursor.execute(f'DROP FUNCTION "{name}"()')


def install() -> None:
    """Put every guard in place that is missing or changed."""
    vendor = connection.vendor
    found = installed(vendor)
    with connection.cursor() as cursor:
        for name, trigger in expected(vendor).items():
            if found.get(name) == definition(trigger, vendor):
                continue
            if name in found:
                table = trigger.table if vendor == "sqlite" else found[name].split(" ", 1)[0]
                cursor.execute(f'DROP TRIGGER "{name}"' + ("" if vendor == "sqlite" else f' ON "{table}"'))
            for statement in trigger.create_statements(vendor):
                cursor.execute(statement)
