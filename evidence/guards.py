"""What the database itself refuses, as data in one place (P11).

SQLite's table rebuilds lose triggers silently, so guards are no migration: ``installation`` drops them
before every migrate and puts them back after it (and after every flush). A system check, ``/readyz`` and
``verify_ledger`` compare the database with this list.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db import connection, models, transaction

from evidence import erasable

PREFIX = "guard_"
NO_TEXT = "''"


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
        return [
            self.function(),
            self.postgresql(),
            f'ALTER TABLE "{self.table}" ENABLE ALWAYS TRIGGER "{self.name}"',
        ]

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
        # Temporary tables come first in the search unless named last: one called like a table that a
        # condition looks into would otherwise answer in its place.
        return (
            f'CREATE OR REPLACE FUNCTION "{self.name}"() RETURNS trigger LANGUAGE plpgsql '
            f'SET search_path TO "{_schema()}", pg_temp AS $guard${self.body()}$guard$'
        )

    def postgresql(self) -> str:
        """The trigger itself on PostgreSQL."""
        each = "STATEMENT" if self.event == "TRUNCATE" else "ROW"
        return (
            f'CREATE TRIGGER "{self.name}" BEFORE {self.event} ON "{self.table}" '
            f'FOR EACH {each} EXECUTE FUNCTION "{self.name}"()'
        )


def _schema() -> str:
    """The PostgreSQL schema that our tables are in."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schema()")
        return str(cursor.fetchone()[0])


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

    def replace_trigger(self, message: str) -> Trigger:
        """SQLite: refuse a row whose place is taken.

        INSERT OR REPLACE removes the old row without firing a delete trigger unless the connection asked
        for recursive triggers; refusing the insert needs no such favour.
        """
        meta = self.meta()
        unique = [
            _same(meta.pk_fields),
            *(_same([f]) for f in meta.local_fields if f.unique and not f.primary_key),
            *(
                self._same_under(c)
                for c in meta.constraints
                if isinstance(c, models.UniqueConstraint) and c.fields
            ),
        ]
        taken = f'EXISTS (SELECT 1 FROM "{meta.db_table}" WHERE {" OR ".join(unique)})'
        return Trigger(f"{PREFIX}{meta.db_table}_replace", meta.db_table, "INSERT", taken, message)

    def _same_under(self, constraint: models.UniqueConstraint) -> str:
        """SQL over an old row and NEW: both fall under the constraint and collide in it."""
        meta = self.meta()
        same = _same([field for field in meta.local_fields if field.name in constraint.fields])
        if not constraint.condition:
            return same
        # Django has no public way to ask for the SQL that it puts into the index itself.
        condition = constraint._get_condition_sql(meta.model, connection.schema_editor())  # type: ignore[attr-defined]
        # The condition names bare columns: of the old row where it stands, of NEW inside a row made of it.
        row = ", ".join(f'NEW."{f.column}" AS "{f.column}"' for f in meta.local_concrete_fields)
        return f"({same} AND {condition} AND EXISTS (SELECT 1 FROM (SELECT {row}) WHERE {condition}))"


def _differs(column: str, vendor: str) -> str:
    """SQL: the column changes; null differs from every value."""
    return f'NEW."{column}" {"IS NOT" if vendor == "sqlite" else "IS DISTINCT FROM"} OLD."{column}"'


def _is_same(column: str, vendor: str) -> str:
    """SQL: the column stays as it is."""
    return f"(NOT {_differs(column, vendor)})"


def _emptied(model: str, vendor: str) -> dict[str, str]:
    """SQL over OLD and NEW, by column: an erasure empties it."""
    names = dict.fromkeys(name for place in erasable.of(model) for name in place.columns)
    return {name: _erased(model, name, vendor) for name in names}


def _erased(model: str, column: str, vendor: str) -> str:
    places = [place for place in erasable.of(model) if column in place.columns]
    no_bytes = "X''" if vendor == "sqlite" else "''::bytea"
    empty = places[0].empty(column)
    value = "IS NULL" if empty is None else f"= {no_bytes if isinstance(empty, bytes) else NO_TEXT}"
    return f'NEW."{column}" {value} AND ({" OR ".join(place.sql() for place in places)})'


def _same(fields: "Sequence[models.Field[Any, Any]]") -> str:
    """SQL: an old row and NEW agree in these columns."""
    return "(" + " AND ".join(f'"{field.column}" = NEW."{field.column}"' for field in fields) + ")"


@dataclass(frozen=True)
class AppendOnly(Guard):
    """Rows are inserted and never changed, replaced or removed.

    What ``evidence.erasable`` lists of the model is let go by a confirmed erasure, and nothing else of it (P24).
    """

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        message = f"append-only: {table}"
        allowed = {"UPDATE": self._emptied(vendor), "DELETE": self._removed()}
        for event, by_erasure in allowed.items():
            refused = f"NOT ({by_erasure})" if by_erasure else ""
            yield Trigger(f"{PREFIX}{table}_{event.lower()}", table, event, refused, message)
        if vendor == "postgresql":
            yield Trigger(f"{PREFIX}{table}_truncate", table, "TRUNCATE", "", message)
        else:
            yield self.replace_trigger(message)

    def _emptied(self, vendor: str) -> str:
        """SQL over OLD and NEW: an erasure empties columns of this row, and every other one stays as it is."""
        emptied = _emptied(self.model, vendor)
        if not emptied:
            return ""
        columns = [field.column or "" for field in self.meta().local_concrete_fields]
        same = {column: _is_same(column, vendor) for column in columns}
        kept = [sql for column, sql in same.items() if column not in emptied]
        each = [f"({same[column]} OR {sql})" for column, sql in emptied.items()]
        some = " OR ".join(f"NOT {same[column]}" for column in emptied)
        return " AND ".join([*kept, *each, f"({some})"])

    def _removed(self) -> str:
        """SQL over OLD: an erasure takes this row away."""
        return " OR ".join(place.sql() for place in erasable.of(self.model) if place.rows)


@dataclass(frozen=True)
class NeverDeleted(Guard):
    """Rows change state but never go."""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        message = f"never deleted: {table}"
        yield Trigger(f"{PREFIX}{table}_delete", table, "DELETE", "", message)
        if vendor == "postgresql":
            yield Trigger(f"{PREFIX}{table}_truncate", table, "TRUNCATE", "", message)
        else:
            yield self.replace_trigger(message)


@dataclass(frozen=True)
class Frozen(Guard):
    """These columns never change once the row is there; the rest may. An erasure may empty what it lists."""

    columns: tuple[str, ...] = ()

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        emptied = _emptied(self.model, vendor)
        condition = " OR ".join(
            f"(NOT {_is_same(column, vendor)} AND NOT ({emptied[column]}))"
            if column in emptied
            else _differs(column, vendor)
            for column in self.columns
        )
        yield Trigger(f"{PREFIX}{table}_frozen", table, "UPDATE", condition, f"frozen: {table}")


@dataclass(frozen=True)
class UpdateRefused(Guard):
    """A change is refused when the SQL ``condition`` over ``OLD`` and ``NEW`` holds; ``rule`` names it."""

    rule: str = ""
    condition: str = ""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        yield Trigger(
            f"{PREFIX}{table}_{self.rule}", table, "UPDATE", self.condition, f"{self.rule}: {table}"
        )


@dataclass(frozen=True)
class InsertRefused(Guard):
    """A new row is refused when the SQL ``condition`` over ``NEW`` holds; ``rule`` names it."""

    rule: str = ""
    condition: str = ""

    def triggers(self, vendor: str) -> Iterator[Trigger]:
        table = self.meta().db_table
        yield Trigger(
            f"{PREFIX}{table}_{self.rule}", table, "INSERT", self.condition, f"{self.rule}: {table}"
        )


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
    AppendOnly("evidence.Checkpoint"),
    AppendOnly("evidence.Anchor"),
    AppendOnly("evidence.ErasureItem"),
    AppendOnly("evidence.Parking"),
    AppendOnly("evidence.Canary"),
    NeverDeleted("evidence.LedgerHead"),
    NeverDeleted("evidence.LedgerKey"),
    NeverDeleted("evidence.Person"),
    NeverDeleted("evidence.RoleGrant"),
    NeverDeleted("evidence.Route"),
    NeverDeleted("evidence.Case"),
    NeverDeleted("evidence.Capsule"),
    NeverDeleted("evidence.EpochProposal"),
    NeverDeleted("evidence.StreamHead"),
    NeverDeleted("evidence.Breaker"),
    NeverDeleted("evidence.Trouble"),
    NeverDeleted("evidence.Erasure"),
    NeverDeleted("evidence.LegalHold"),
    Frozen("evidence.Person", columns=("person_id", "kind", "created_at")),
    Frozen("evidence.LedgerKey", columns=("name", "public_key", "key_id", "introduced_at")),
    Frozen("evidence.LedgerHead", columns=("id",)),
    # P25: a log gets another name only with the next epoch, and an epoch only with another name.
    UpdateRefused(
        "evidence.LedgerHead",
        rule="epoch_begins",
        condition=(
            '(NEW."origin" <> OLD."origin" OR NEW."epoch" <> OLD."epoch") '
            'AND NOT (NEW."origin" <> OLD."origin" AND NEW."epoch" = OLD."epoch" + 1)'
        ),
    ),
    # A log that went on elsewhere stays as it is.
    UpdateRefused("evidence.LedgerHead", rule="closed", condition="OLD.\"closed_to\" <> ''"),
    # "Held the role before the request" (P4) is answered from these.
    Frozen("evidence.RoleGrant", columns=("person_id", "role", "granted_at", "granted_by_id")),
    Frozen("evidence.Route", columns=("plan_id", "route_id", "provider", "owner", "created_at")),
    Frozen(
        "evidence.Case",
        columns=(
            "case_id",
            "plan_id",
            "package_id",
            "connector_id",
            "content_hash",
            "stream_seq",
            "stream_prev",
            "stream_digest",
            "head_origin",
            "head_size",
        ),
    ),
    # P16: whose a case is stands once its first attempt was claimed; before, somebody else may take it over.
    UpdateRefused(
        "evidence.Case",
        rule="owner_while_parked",
        condition=(
            'NEW."created_by_id" <> OLD."created_by_id" '
            "AND NOT (OLD.\"state\" = 'parked' AND NEW.\"state\" = 'parked')"
        ),
    ),
    Frozen(
        "evidence.Capsule",
        columns=(
            "id",
            "capsule_id",
            "case_id",
            "records",
            "log_size",
            "size",
            "sha256",
            "content",
            "created_at",
            "created_by_id",
            "record_hash",
        ),
    ),
    Frozen(
        "evidence.EpochProposal",
        columns=(
            "proposal_id",
            "old_origin",
            "origin",
            "epoch",
            "reason",
            "known_origin",
            "known_size",
            "known_root",
            "first_lost_index",
            "proposed_by_id",
            "proposed_through_id",
            "proposed_at",
            "record_hash",
        ),
    ),
    Frozen(
        "evidence.Erasure",
        columns=(
            "erasure_id",
            "legal_basis",
            "reason",
            "rule_id",
            "proposed_by_id",
            "proposed_through_id",
            "proposed_at",
            "proposal_id",
            "proposal_hash",
        ),
    ),
    Frozen(
        "evidence.LegalHold",
        columns=("hold_id", "scope", "reason", "placed_by_id", "placed_at", "record_hash"),
    ),
    # P24: what an erasure names is settled before anybody decides on it.
    InsertRefused(
        "evidence.Erasure", rule="erasure_is_proposed_first", condition="NEW.\"state\" <> 'proposed'"
    ),
    InsertRefused(
        "evidence.ErasureItem",
        rule="erasure_is_open",
        condition=(
            'NOT EXISTS (SELECT 1 FROM "evidence_erasure" e WHERE e."id" = NEW."erasure_id" '
            "AND e.\"state\" = 'proposed')"
        ),
    ),
    # Both ways to name a record lead to the same one: a hold is looked up by its place, bytes by its id.
    InsertRefused(
        "evidence.ErasureItem",
        rule="erasure_names_a_record",
        condition=(
            'NOT EXISTS (SELECT 1 FROM "evidence_record" r WHERE r."index" = NEW."index" '
            'AND r."record_id" = NEW."record_id" AND r."kind" = NEW."kind" AND r."digest" = NEW."digest")'
        ),
    ),
    Frozen("evidence.StreamHead", columns=("connector_id",)),
    Frozen("evidence.Breaker", columns=("connector_id",)),
    Frozen(
        "evidence.Trouble",
        columns=(
            "trouble_id",
            "connector_id",
            "since",
            "failure_class",
            "waiting",
            "through",
            "announced_at",
            "record_hash",
        ),
    ),
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
            cursor.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB 'guard_*'"
            )
            return dict(cursor.fetchall())
        # A trigger may be kept from firing by its state, a WHEN, a list of columns or its function.
        cursor.execute(
            "SELECT t.tgname, concat_ws(' ', c.relname, t.tgenabled, t.tgtype, "
            "CASE WHEN t.tgqual IS NULL AND t.tgattr = ''::int2vector AND l.lanname = 'plpgsql' "
            "AND p.proname = t.tgname AND p.proconfig = ARRAY['search_path=' || quote_ident(n.nspname) || ', pg_temp'] "
            "THEN 'plain' ELSE 'bent' END, p.prosrc) "
            "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang "
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
    return f"{trigger.table} A {_TGTYPE[trigger.event]} plain {trigger.body()}"


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
    """Remove every guard, for a migration or a test's flush; all or none."""
    with transaction.atomic():
        for name, shown in installed(connection.vendor).items():
            _remove(name, shown)


def install() -> None:
    """Make the guards in the database those of the list: put back, renew, take away; all or nothing."""
    vendor = connection.vendor
    with transaction.atomic(), connection.cursor() as cursor:
        wanted, found = expected(vendor), installed(vendor)
        for name, shown in found.items():
            if name not in wanted or shown != definition(wanted[name], vendor):
                _remove(name, shown)
        for name, trigger in wanted.items():
            if found.get(name) != definition(trigger, vendor):
                for statement in trigger.create_statements(vendor):
                    cursor.execute(statement)


def _remove(name: str, shown: str) -> None:
    """Drop one guard that ``installed`` has shown."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(f'DROP TRIGGER "{name}"')
        else:
            cursor.execute(f'DROP TRIGGER "{name}" ON "{shown.split(" ", 1)[0]}"')
            cursor.execute(f'DROP FUNCTION IF EXISTS "{name}"()')
