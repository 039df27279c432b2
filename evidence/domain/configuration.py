"""What administrators configure. Saving here records who changed what; values stay out of the record."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import IntegrityError, models, transaction

from evidence.connectors import references
from evidence.connectors.credentials import REFERENCES
from evidence.documents import CONFIGURATION
from evidence.domain import clock as clocks
from evidence.domain import (
    commitments,
    configuration_rules,
    configured_secrets,
    ledger,
    policies,
    records,
    retention_terms,
    text,
)
from evidence.domain.clock import Clock
from evidence.domain.reading import Errors
from evidence.errors import InvalidInput, NotFound, StaleState
from evidence.models import (
    Connector,
    ConnectorEdit,
    ConnectorWindow,
    MaintenanceWindow,
    PauseSwitch,
    Person,
    RetentionRule,
    Schedule,
    ScheduleOwner,
)
from evidence.permissions import Permission

# Columns of a connector that never reach the wire: who changed them may still approve. When it is sent is no
# part of what is sent either.
CONNECTOR_NOT_ON_WIRE = frozenset(
    {"title", "max_concurrency", "announce_through", "windows", "edited_by", "edited_at"}
)
# Who saved is no part of what was saved.
BOOKKEEPING = frozenset({"edited_by", "edited_at"})
# Evidence and cases speak of these names; a row keeps its own for good.
FIXED = {Connector: "key", Schedule: "schedule_id", RetentionRule: "kind"}
# Rows that belong to another one are saved with it: related name, and the column that tells them apart.
PARTS: Mapping[type[models.Model], Mapping[str, str]] = {
    Schedule: {"owners": "name", "maintenance_windows": "window_id"},
    Connector: {"windows": "window_id"},
}
# The column of a part that names what it belongs to.
BELONGING: Mapping[type[models.Model], str] = {
    ScheduleOwner: "schedule",
    MaintenanceWindow: "schedule",
    ConnectorWindow: "connector",
}


class Change(StrEnum):
    """What saving a row came to."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Entry:
    """One row to save. ``parts`` maps a related name to all rows there shall be; names left out stay as they are."""

    row: models.Model
    parts: Mapping[str, Sequence[models.Model]] = field(default_factory=dict)


def save(row: models.Model, *, by: Person | None, clock: Clock, **parts: Sequence[models.Model]) -> Change:
    """Insert or update one configuration row with its parts and record the change.

    ``by`` is None on the command line. Raises ``InvalidInput`` naming every wrong column, ``StaleState``
    when somebody created the same row meanwhile. Nothing changed, nothing recorded.
    """
    return save_all([Entry(row, parts)], by=by, clock=clock)[0]


def save_all(entries: Sequence[Entry], *, by: Person | None, clock: Clock) -> list[Change]:
    """Save several rows, each with a record of its own, or none of them; see ``save``."""
    if by is not None:
        policies.require_role(by, Permission.CONFIGURE)
    try:
        with transaction.atomic():
            # In the order of their keys, like everybody who locks several of them.
            ordered = sorted(entries, key=lambda entry: (entry.row._meta.label, entry.row.pk or 0))
            locked = {id(entry): _locked(entry.row) for entry in ordered}
            old_rows = [locked[id(entry)] for entry in entries]
            at = clocks.read(clock)
            drafts = [_write(entry, old, by=by, at=at) for entry, old in zip(entries, old_rows, strict=True)]
            _require_announcers([entry.row for entry in entries])
            ledger.append([draft for draft in drafts if draft])
    except IntegrityError as error:
        raise StaleState(
            "Somebody else changed this configuration at the same time; look at it again."
        ) from error
    # A connector may refer to a secret that nothing was held against yet.
    configured_secrets.forget()
    return [
        Change.UNCHANGED if draft is None else Change.CHANGED if old else Change.CREATED
        for draft, old in zip(drafts, old_rows, strict=True)
    ]


def problems(entry: Entry) -> Errors:
    """Everything that keeps a row from being saved, by column; of a part by related name, its name and column."""
    errors = _row_problems(entry.row)
    for name, rows in entry.parts.items():
        column = PARTS[type(entry.row)][name]
        taken: set[str] = set()
        for place, row in enumerate(rows):
            path = f"{name}.{place}"
            own = _row_problems(row, exclude={getattr(type(entry.row), name).field.name})
            errors.update({f"{path}.{key}": sentences for key, sentences in own.items()})
            if (identity := getattr(row, column)) in taken:
                errors.setdefault(f"{path}.{column}", []).append("Stands here twice.")
            taken.add(identity)
    return errors


def pause(scope: str, *, reason: str, by: Person, clock: Clock) -> PauseSwitch:
    """Stop live sends: ``*`` for all, or one connector's key. Pausing twice keeps the first pause."""
    policies.require_role(by, Permission.CONFIGURE)
    reason = text.clean(reason, field="reason", limit=300)
    if not reason:
        raise InvalidInput("A pause needs a reason.", errors={"reason": ["required"]})
    if scope != PauseSwitch.ALL and not Connector.objects.filter(key=scope).exists():
        raise NotFound(f"There is no connector {scope}.", errors={"scope": ["unknown connector"]})
    with transaction.atomic():
        at = clocks.read(clock)
        switch, created = PauseSwitch.objects.get_or_create(
            scope=scope, defaults={"reason": reason, "paused_by": by, "paused_at": at}
        )
        if created:
            ledger.append([_switch(scope, "paused", reason, at=at, by=by)])
    return switch


def resume(scope: str, *, by: Person, clock: Clock) -> bool:
    """Let sends to ``scope`` go on; False when it was not paused."""
    policies.require_role(by, Permission.CONFIGURE)
    with transaction.atomic():
        removed, _ = PauseSwitch.objects.filter(scope=scope).delete()
        if removed:
            at = clocks.read(clock)
            ledger.append([_switch(scope, "resumed", "", at=at, by=by)])
    return bool(removed)


def _locked(row: models.Model) -> models.Model | None:
    """The row as it is stored, locked; None for a new one."""
    return type(row)._default_manager.select_for_update(no_key=True).filter(pk=row.pk).first()


def _require_announcers(rows: Iterable[models.Model]) -> None:
    """Who is told of a connector's trouble is there, be it by the same file, and is one to tell."""
    named = {row.announce_through for row in rows if isinstance(row, Connector) and row.announce_through}
    there = {row.key: row for row in Connector.objects.filter(key__in=named)}
    wrong = [
        *(f"There is no connector {key}." for key in sorted(named - there.keys())),
        *(said for key in sorted(there) for _, said in policies.reasons_against_telling(there[key])),
    ]
    if wrong:
        raise InvalidInput("The configuration is not valid.", errors={"announce_through": wrong})


def _row_problems(row: models.Model, exclude: Iterable[str] = ()) -> Errors:
    errors = configuration_rules.problems(row)
    try:
        row.full_clean(exclude={*exclude, *errors, *BOOKKEEPING})
    except ValidationError as error:
        for column, sentences in error.message_dict.items():
            errors.setdefault(column, []).extend(sentences)
    return errors


def _write(
    entry: Entry, old: models.Model | None, *, by: Person | None, at: datetime
) -> records.Draft | None:
    """Write one row and its parts; the record of it, or None when nothing changed."""
    row = entry.row
    if errors := problems(entry):
        raise InvalidInput("The configuration is not valid.", errors=errors)
    fixed = FIXED.get(type(row))
    if fixed and old and getattr(old, fixed) != getattr(row, fixed):
        raise InvalidInput("The name of a configured row stays.", errors={fixed: ["Cannot be changed."]})
    changed = _changed(old, row)
    parts = {name: _part_changes(old, name, rows) for name, rows in entry.parts.items()}
    changed += [name for name, (saved, gone) in parts.items() if saved or gone]
    if not changed:
        return None
    if {column.name for column in row._meta.concrete_fields} >= BOOKKEEPING:
        row.edited_at, row.edited_by = at, by  # type: ignore[attr-defined]
    row.save()
    for name, (saved, gone) in parts.items():
        for part in gone:
            part.delete()
        for part in saved:
            setattr(part, getattr(type(row), name).field.name, row)
            part.save()
    if isinstance(row, Connector):
        references.learn(getattr(row, name) for name in REFERENCES)
    if isinstance(row, Connector) and by is not None and set(changed) - CONNECTOR_NOT_ON_WIRE:
        ConnectorEdit.objects.create(connector=row, person=by.principal, at=at)
    return _draft(
        subject=row._meta.model_name or "",
        subject_id=str(row),
        change=(Change.CHANGED if old else Change.CREATED).value,
        changed=sorted(changed),
        configuration_digest=_commitment(row),
        # Values stay out of the record, but for those that are no secret and that erasing hangs on.
        reason=retention_terms.said(row) if isinstance(row, RetentionRule) else "",
        at=at,
        by=by,
    )


def _part_changes(
    old: models.Model | None, name: str, wanted: Sequence[models.Model]
) -> tuple[list[models.Model], list[models.Model]]:
    """Parts to save and parts to remove, so that the wanted ones are there; told apart by name, not by key."""
    column = PARTS[type(old)][name] if old else ""
    there = {getattr(part, column): part for part in getattr(old, name).all()} if old else {}
    saved = []
    for part in wanted:
        before = there.pop(getattr(part, column), None) if old else None
        part.pk, part._state.adding = (before.pk, False) if before else (None, True)
        if before is None or _values(before) != _values(part):
            saved.append(part)
    return saved, list(there.values())


def _values(row: models.Model) -> dict[str, Any]:
    """What a row says: its columns without keys of its own, its owner's and the bookkeeping."""
    belonging = {BELONGING.get(type(row), "")}
    return {
        column.name: column.value_from_object(row)
        for column in row._meta.concrete_fields
        if not column.primary_key and column.name not in BOOKKEEPING | belonging
    }


def _changed(old: models.Model | None, new: models.Model) -> list[str]:
    before = _values(old) if old else {}
    return [name for name, value in _values(new).items() if old is None or before[name] != value]


def _commitment(row: models.Model) -> str:
    """Commitment to what was saved, parts included. Keyed: a plain digest of a short URL could be guessed."""
    said = _values(row)
    for name, column in PARTS.get(type(row), {}).items():
        said[name] = [_values(part) for part in getattr(row, name).order_by(column)]
    return commitments.commit("configuration", DjangoJSONEncoder(sort_keys=True).encode(said).encode())


def _switch(scope: str, change: str, reason: str, *, at: datetime, by: Person) -> records.Draft:
    return _draft(
        subject="pause",
        subject_id=scope,
        change=change,
        changed=[],
        configuration_digest="",
        reason=reason,
        at=at,
        by=by,
    )


def _draft(*, at: datetime, by: Person | None, changed: list[str], **fields: str) -> records.Draft:
    return records.draft(
        CONFIGURATION,
        records.mint_id(CONFIGURATION),
        {**fields, "changed_fields": changed, "at": records.timestamp(at)},
        at=at,
        by=by,
    )
