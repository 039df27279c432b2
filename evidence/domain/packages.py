"""Audit packages: the latest answers of routes, frozen. The same content again is the same package."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max

from evidence.documents import AUDIT_PACKAGE
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records
from evidence.domain.clock import Clock
from evidence.enums import AlertLevel, RouteAction, RouteState
from evidence.errors import Conflict
from evidence.models import AuditPackage, Person, Record, Route
from evidence.permissions import Permission

# A package is one document and one request body; what would be larger is narrowed by a filter.
MAX_ROUTES = 2_000


@dataclass(frozen=True)
class PackageFilters:
    """Which routes a package covers; empty means any.

    ``owner`` is part of a name in any case, and kept in one: two spellings are the same content (P1).
    """

    schedule_id: str = ""
    provider: str = ""
    owner: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "owner", self.owner.casefold())

    def as_dict(self) -> dict[str, str]:
        """The filters as the package's record holds them."""
        return {"schedule_id": self.schedule_id, "provider": self.provider, "owner": self.owner}


@dataclass(frozen=True)
class Frozen:
    """A package, its record, and whether the same content had been frozen before."""

    package: AuditPackage
    record: Record
    existing: bool


def freeze(
    filters: PackageFilters,
    *,
    by: Person,
    clock: Clock,
    claimed_actor: str = "",
    permission: Permission = Permission.DELIVER,
) -> Frozen:
    """Freeze the latest answers of all announced routes that fit ``filters``.

    The id comes from content alone (routes and filters, no time, no person). Raises ``Conflict``
    (``too_many_routes``) beyond ``MAX_ROUTES``: nothing is left out silently (P15).
    """
    policies.require_role(by, permission)
    with transaction.atomic():
        routes = _routes(filters)
        entries = [_entry(route) for route in routes]
        audit_id = records.content_id(AUDIT_PACKAGE, {"filters": filters.as_dict(), "routes": entries})
        if existing := _existing(audit_id):
            return existing
        at = clocks.read(clock)
        states = Counter(entry["acknowledgement_state"] for entry in entries)
        outstanding = sum(not entry["acknowledged"] for entry in entries)
        draft = records.draft(
            AUDIT_PACKAGE,
            audit_id,
            {
                "generated_at": records.timestamp(at),
                "generated_by": by.username,
                "filters": filters.as_dict(),
                "route_count": len(entries),
                # One answer may speak for several routes.
                "acknowledgement_count": len({entry["acknowledgement_id"] for entry in entries} - {""}),
                "acknowledged_count": states[RouteState.ACKNOWLEDGED],
                "resolved_count": states[RouteState.RESOLVED],
                "escalated_count": states[RouteState.ESCALATED],
                "dismissed_count": states[RouteState.DISMISSED],
                "outstanding_count": outstanding,
                "alert_level": (AlertLevel.CRITICAL if outstanding else AlertLevel.HEALTHY).value,
                "routes": entries,
            },
            at=at,
            by=by,
            claimed_actor=claimed_actor,
        )
        try:
            with transaction.atomic():
                package = AuditPackage.objects.create(
                    audit_id=audit_id,
                    content_hash=records.digest(records.canonical(entries)),
                    created_at=at,
                    created_by=by,
                    record_hash=draft.digest,
                )
        except IntegrityError:
            # Somebody froze the same content between our look and our insert.
            if existing := _existing(audit_id):
                return existing
            raise
        (record,) = ledger.append([draft])
    return Frozen(package, record, existing=False)


def _existing(audit_id: str) -> Frozen | None:
    package = AuditPackage.objects.filter(audit_id=audit_id).first()
    if package is None:
        return None
    return Frozen(package, Record.objects.get(record_id=audit_id), existing=True)


def _routes(filters: PackageFilters) -> Sequence[Route]:
    """The newest announced route of each schedule, connector and owner that fits the filters, oldest first.

    An older announcement of the same drill to the same owner was answered by its own packages.
    """
    told = Route.objects.filter(action=RouteAction.DELIVER)
    if filters.schedule_id:
        told = told.filter(plan__schedule__schedule_id=filters.schedule_id)
    if filters.provider:
        told = told.filter(provider=filters.provider)
    if filters.owner:
        told = told.filter(owner__icontains=filters.owner) | told.filter(
            escalation_owner__icontains=filters.owner
        )
    newest = told.order_by().values("plan__schedule", "provider", "owner").annotate(newest=Max("pk"))
    chosen = Route.objects.filter(pk__in=newest.values("newest"))
    routes = list(
        chosen.select_related("plan__schedule", "acknowledged_by").order_by("created_at", "route_id")[
            : MAX_ROUTES + 1
        ]
    )
    if len(routes) > MAX_ROUTES:
        raise Conflict(
            f"More than {MAX_ROUTES} routes fit; narrow the package by schedule, provider or owner.",
            code="too_many_routes",
        )
    return routes


def _entry(route: Route) -> dict[str, Any]:
    return {
        "route_id": route.route_id,
        "schedule_id": route.plan.schedule.schedule_id,
        "plan_id": route.plan.plan_id,
        "plan_hash": route.plan.record_hash,
        "provider": route.provider,
        "owner": route.owner,
        "escalation_owner": route.escalation_owner,
        "route_action": route.action,
        "route_created_at": records.timestamp(route.created_at),
        "acknowledgement_state": route.acknowledgement_state,
        "acknowledged": route.acknowledgement_state in (RouteState.ACKNOWLEDGED, RouteState.RESOLVED),
        "acknowledged_by": route.acknowledged_by.username if route.acknowledged_by else "",
        "acknowledged_at": records.timestamp(route.acknowledged_at) if route.acknowledged_at else "",
        "external_ref": route.external_ref,
        "notes": route.notes,
        "acknowledgement_id": route.acknowledgement_id,
        "acknowledgement_hash": route.acknowledgement_hash,
    }
