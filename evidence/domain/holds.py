"""Legal holds: what somebody has to be able to read later is not erased, whoever else would confirm it (P24)."""

from collections.abc import Iterable

from django.db import transaction
from django.db.models import QuerySet

from evidence.documents import LEGAL_HOLD, LEGAL_HOLD_LIFT
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records, text
from evidence.domain.clock import Clock
from evidence.errors import Conflict, InvalidInput, NotFound
from evidence.models import Case, LegalHold, Person, Record
from evidence.permissions import Permission


def place(scope: str, *, reason: str, by: Person, clock: Clock) -> LegalHold:
    """Keep ``scope`` from being erased: ``*`` for everything, a case or a record by its id.

    A hold on a case covers every record of its chain, its audit package and its delivery plan, also later ones.
    Raises ``InvalidInput`` without a reason, ``NotFound`` for a scope that names nothing.
    """
    policies.require_role(by, Permission.HOLD)
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    scope = text.clean(scope, field="scope", limit=90)
    if not reason:
        raise InvalidInput("Not placed: say why.", errors={"reason": ["Say why."]})
    with transaction.atomic():
        # An erasure holds this row while it looks for holds: one of the two comes first.
        ledger.hold()
        at = clocks.read(clock)
        cases = _cases_of(scope)
        draft = records.draft(
            LEGAL_HOLD,
            records.mint_id(LEGAL_HOLD),
            {
                "scope": scope,
                "reason": reason,
                "placed_by": by.username,
                "placed_at": records.timestamp(at),
            },
            at=at,
            by=by,
            cases=cases,
        )
        hold = LegalHold.objects.create(
            hold_id=draft.record_id,
            scope=scope,
            reason=reason,
            placed_by=by.principal,
            placed_at=at,
            record_hash=draft.digest,
        )
        ledger.append([draft])
    return hold


def lift(hold: LegalHold, *, reason: str, by: Person, clock: Clock) -> LegalHold:
    """End a hold. Nothing is erased by that; what was due under a retention rule is due again.

    Raises ``InvalidInput`` without a reason, ``Conflict`` ``hold_lifted`` when it ended before.
    """
    policies.require_role(by, Permission.HOLD)
    reason = text.clean(reason, field="reason", limit=text.MAX_NOTES, lines=True)
    if not reason:
        raise InvalidInput("Not lifted: say why.", errors={"reason": ["Say why."]})
    with transaction.atomic():
        hold = holds().select_for_update(no_key=True, of=("self",)).get(pk=hold.pk)
        at = clocks.read(clock)
        if hold.lifted_by is not None:
            raise Conflict(f"Not lifted: {hold.lifted_by.username} lifted this hold.", code="hold_lifted")
        hold.lifted_by, hold.lifted_at = by.principal, at
        hold.save(update_fields=["lifted_by", "lifted_at"])
        ledger.append(
            [
                records.draft(
                    LEGAL_HOLD_LIFT,
                    records.mint_id(LEGAL_HOLD_LIFT),
                    {
                        "hold_id": hold.hold_id,
                        "scope": hold.scope,
                        "reason": reason,
                        "lifted_by": by.username,
                        "lifted_at": records.timestamp(at),
                    },
                    at=at,
                    by=by,
                    cases=_cases_of(hold.scope),
                    references=[records.Reference(LEGAL_HOLD.name, hold.hold_id, hold.record_hash)],
                )
            ]
        )
    return hold


def _cases_of(scope: str) -> list[str]:
    """The case a scope names, if it names one; ``NotFound`` for a scope that names nothing."""
    if scope == LegalHold.ALL:
        return []
    if Case.objects.filter(case_id=scope).exists():
        return [scope]
    if Record.objects.filter(record_id=scope).exists():
        return []
    raise NotFound(
        "Not placed: there is no case and no record with this id.",
        code="scope_not_found",
        errors={"scope": ["Name a case, a record, or * for everything."]},
    )


# --- queries ------------------------------------------------------------------------------------------------------


def holds() -> QuerySet[LegalHold]:
    """Holds with the people behind them, newest first."""
    return LegalHold.objects.select_related("placed_by", "lifted_by")


def hold_by_id(hold_id: str) -> LegalHold:
    """The hold with this id; ``NotFound`` otherwise."""
    hold = holds().filter(hold_id=hold_id).first()
    if hold is None:
        raise NotFound("There is no legal hold with this id.", code="hold_not_found")
    return hold


def standing() -> QuerySet[LegalHold]:
    """Holds that nobody lifted."""
    return holds().filter(lifted_at__isnull=True)


def standing_on(names: Iterable[str]) -> dict[str, LegalHold]:
    """The holds that stand on everything or on one of these cases and records, by their scope; one of each."""
    return {hold.scope: hold for hold in standing().filter(scope__in={LegalHold.ALL, *names})}
