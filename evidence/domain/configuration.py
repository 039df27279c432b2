"""What administrators configure. Saving here records who changed what; values stay out of the record."""

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction

from evidence.documents import CONFIGURATION
from evidence.domain import clock as clocks
from evidence.domain import commitments, ledger, policies, records, text
from evidence.domain.clock import Clock
from evidence.errors import InvalidInput, NotFound
from evidence.models import Connector, ConnectorEdit, PauseSwitch, Person
from evidence.permissions import Permission

# Columns of a connector that never reach the wire: who changed them may still approve.
CONNECTOR_NOT_ON_WIRE = frozenset({"title", "max_concurrency", "edited_by", "edited_at"})


def save(
    instance: models.Model,
    *,
    by: Person | None,
    clock: Clock,
    related: Callable[[], None] | None = None,
    also_changed: tuple[str, ...] = (),
) -> None:
    """Insert or update one configuration row and record the change.

    ``related`` writes rows that belong to it (owners of a schedule) in the same transaction and
    ``also_changed`` names them. ``by`` is None on the command line. Raises ``InvalidInput`` with the
    model's own messages. Nothing changed, nothing recorded.
    """
    if by is not None:
        policies.require_role(by, Permission.CONFIGURE)
    model = type(instance)
    with transaction.atomic():
        old = model._default_manager.select_for_update(no_key=True).filter(pk=instance.pk).first()
        at = clocks.read(clock)
        changed = sorted({*_changed(old, instance), *also_changed})
        if not changed:
            return
        if "edited_at" in {f.name for f in model._meta.get_fields()}:
            instance.edited_at, instance.edited_by = at, by  # type: ignore[attr-defined]
        try:
            instance.full_clean()
        except ValidationError as error:
            raise InvalidInput("The configuration is not valid.", errors=error.message_dict) from error
        instance.save()
        if related:
            related()
        if isinstance(instance, Connector) and by is not None and set(changed) - CONNECTOR_NOT_ON_WIRE:
            ConnectorEdit.objects.create(connector=instance, person=by.principal, at=at)
        ledger.append(
            [
                _change(
                    instance,
                    "changed" if old else "created",
                    changed,
                    at=at,
                    by=by,
                )
            ]
        )


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


def _values(instance: models.Model) -> dict[str, Any]:
    return {f.name: f.value_from_object(instance) for f in instance._meta.concrete_fields if not f.primary_key}


def _changed(old: models.Model | None, new: models.Model) -> list[str]:
    before = _values(old) if old else {}
    return [
        name
        for name, value in _values(new).items()
        if name not in ("edited_by", "edited_at") and (old is None or before[name] != value)
    ]


def _change(
    instance: models.Model, change: str, changed: list[str], *, at: Any, by: Person | None
) -> records.Draft:
    values = DjangoJSONEncoder(sort_keys=True).encode(_values(instance))
    return _draft(
        subject=instance._meta.model_name or "",
        subject_id=str(instance),
        change=change,
        changed=changed,
        # Keyed: a plain digest of a short URL could be guessed.
        configuration_digest=commitments.commit("configuration", values.encode()),
        reason="",
        at=at,
        by=by,
    )


def _switch(scope: str, change: str, reason: str, *, at: Any, by: Person) -> records.Draft:
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


def _draft(*, at: Any, by: Person | None, changed: list[str], **fields: str) -> records.Draft:
    return records.draft(
        CONFIGURATION,
        records.mint_id(CONFIGURATION),
        {**fields, "changed_fields": changed, "at": records.timestamp(at)},
        at=at,
        by=by,
    )
