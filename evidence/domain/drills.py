"""Drills: when one is due, who is told, and what came of telling them (CONTRACT §2, §8.1)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db import transaction

from evidence.connectors.specs import Receipt
from evidence.documents import NOTIFICATION_PLAN
from evidence.domain import attempts, breakers, ledger, policies, records, sending
from evidence.domain import clock as clocks
from evidence.domain.clock import Clock
from evidence.enums import AlertLevel, DeliverySource, RouteAction, ScheduleStatus
from evidence.errors import Conflict, NotFound
from evidence.models import Connector, NotificationPlan, Person, Route, Schedule
from evidence.permissions import Permission

# One document and one lock: what is larger is announced in parts.
MAX_ROUTES = 1_000

ALERT_LEVELS = {
    ScheduleStatus.NEEDS_ATTENTION: AlertLevel.CRITICAL,
    ScheduleStatus.DUE_SOON: AlertLevel.WARNING,
    ScheduleStatus.READY: AlertLevel.HEALTHY,
}


@dataclass(frozen=True)
class Window:
    """A time in which something is held back; empty ``providers`` or ``owners`` mean all of them."""

    window_id: str
    start_at: datetime
    end_at: datetime
    reason: str
    providers: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    def covers(self, provider: str, owner: str, at: datetime) -> bool:
        """Whether this window holds back ``owner``'s notice through ``provider`` at ``at``."""
        return (
            self.start_at <= at < self.end_at
            and (not self.providers or provider in self.providers)
            and (not self.owners or owner in self.owners)
        )

    def as_dict(self) -> dict[str, str]:
        """The window as a route decision shows it."""
        return {
            "window_id": self.window_id,
            "start_at": records.timestamp(self.start_at),
            "end_at": records.timestamp(self.end_at),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class OwnerRule:
    """How one owner is told: through which connectors (empty: all of the schedule's), how soon to answer."""

    owner: str
    providers: tuple[str, ...] = ()
    acknowledgement_minutes: int | None = None
    escalation_owner: str = ""


@dataclass(frozen=True)
class Availability:
    """An owner's calendar: away altogether, or in some windows."""

    available: bool = True
    reason: str = ""
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class RoutingPolicy:
    """Who is told how. A caller's policy is laid over what the schedule says."""

    rules: tuple[OwnerRule, ...] = ()
    windows: tuple[Window, ...] = ()
    calendars: Mapping[str, Availability] = field(default_factory=dict)
    acknowledgement_minutes: int | None = None


@dataclass(frozen=True)
class Announcement:
    """What ``announce`` did: the schedule's report, the plan's record and the delivery's, if anything was sent."""

    report: dict[str, Any]
    plan: records.Draft
    delivery: records.Draft | None

    @property
    def held(self) -> list[dict[str, str]]:
        """Connectors that nobody was told through because something holds them back: key, code and reason."""
        decisions = self.plan.view[NOTIFICATION_PLAN.payload_key]["route_decisions"]
        found = {one["provider"]: one for one in decisions if one["held_back"]}
        return [
            {"provider": key, "code": one["category"], "reason": one["reason"]} for key, one in found.items()
        ]


def report(schedule: Schedule, at: datetime) -> dict[str, Any]:
    """A schedule's state at ``at``, with the keys of CONTRACT §1.5."""
    return {
        "schedule_id": schedule.schedule_id,
        "status": status_at(schedule, at).value,
        "environment": schedule.environment,
        "interval_days": schedule.interval_days,
        "next_due_at": records.timestamp(schedule.next_due_at),
        "owners": [owner.name for owner in schedule.owners.all()],
        "notification_providers": list(schedule.notification_providers),
        "runbook_ref": schedule.runbook_ref,
    }


def status_at(schedule: Schedule, at: datetime) -> ScheduleStatus:
    """Overdue needs attention, near is due soon, else ready."""
    if at >= schedule.next_due_at:
        return ScheduleStatus.NEEDS_ATTENTION
    if at >= schedule.next_due_at - timedelta(days=schedule.due_soon_days):
        return ScheduleStatus.DUE_SOON
    return ScheduleStatus.READY


def schedule_to_announce(schedule_id: str = "") -> Schedule:
    """The schedule a notice is about. Without an id there has to be exactly one active schedule."""
    active = Schedule.objects.filter(active=True).prefetch_related("owners", "maintenance_windows")
    if schedule_id:
        schedule = active.filter(schedule_id=schedule_id).first()
        if schedule is None:
            raise NotFound("There is no active schedule with this id.", errors={"schedule_id": ["unknown"]})
        return schedule
    found = list(active[:50])
    if not found:
        raise Conflict("No schedule is configured.", code="schedule_not_configured")
    if len(found) > 1:
        raise Conflict(
            "Several schedules are active; name one with schedule_id.",
            code="ambiguous_schedule",
            schedules=[schedule.schedule_id for schedule in found],
        )
    return found[0]


def schedule_by_id(schedule_id: str) -> Schedule:
    """The schedule with this id, active or not; ``NotFound`` otherwise."""
    schedule = Schedule.objects.filter(schedule_id=schedule_id).first()
    if schedule is None:
        raise NotFound(
            "There is no schedule with this id.",
            code="schedule_not_found",
            errors={"schedule_id": ["unknown"]},
        )
    return schedule


def policy_of(schedule: Schedule) -> RoutingPolicy:
    """The routing policy that a schedule's own rows spell out."""
    owners = list(schedule.owners.all())
    return RoutingPolicy(
        rules=tuple(
            OwnerRule(
                owner=owner.name,
                providers=tuple(owner.providers),
                acknowledgement_minutes=owner.acknowledgement_minutes,
                escalation_owner=owner.escalation_owner,
            )
            for owner in owners
        ),
        windows=tuple(
            Window(w.window_id, w.start_at, w.end_at, w.reason, tuple(w.providers), tuple(w.owners))
            for w in schedule.maintenance_windows.all()
        ),
        calendars={
            owner.name: Availability(
                available=owner.available,
                reason=owner.unavailable_reason,
                windows=tuple(
                    Window(
                        "calendar",
                        datetime.fromisoformat(w["start_at"]),
                        datetime.fromisoformat(w["end_at"]),
                        w.get("reason", ""),
                    )
                    for w in owner.unavailable_windows
                ),
            )
            for owner in owners
        },
        acknowledgement_minutes=schedule.acknowledgement_minutes,
    )


def overlay(base: RoutingPolicy, sent: RoutingPolicy) -> RoutingPolicy:
    """``sent`` laid over ``base``: an owner's rules are replaced, windows and calendars added."""
    replaced = {rule.owner for rule in sent.rules}
    return RoutingPolicy(
        rules=(*(rule for rule in base.rules if rule.owner not in replaced), *sent.rules),
        windows=(*base.windows, *sent.windows),
        calendars={**base.calendars, **sent.calendars},
        acknowledgement_minutes=sent.acknowledgement_minutes or base.acknowledgement_minutes,
    )


def announce(
    schedule: Schedule,
    *,
    by: Person,
    clock: Clock,
    providers: Sequence[str] = (),
    policy: RoutingPolicy | None = None,
    force: bool = False,
    claimed_actor: str = "",
    retries: int = 2,
    timeout_s: float = 10.0,
) -> Announcement:
    """Plan who is told about a drill, tell them, and record both.

    ``providers`` narrows the schedule's connectors (empty: all); ``force`` tells them although nothing is
    due. Raises ``Conflict`` for a connector that is missing, disabled or paused, before anything is written.
    """
    policies.require_role(by, Permission.DELIVER)
    sending.require_any_connector()
    # Also one that the schedule does not tell: what is named is answered, never dropped silently (P16).
    sending.usable_connectors(providers)
    plan, draft, connectors = _plan(
        schedule,
        by=by,
        clock=clock,
        providers=providers,
        policy=policy,
        force=force,
        claimed_actor=claimed_actor,
    )
    payload = draft.view["plan"]
    delivery = None
    if connectors:
        event = _event(payload)
        receipts = sending.send_event(connectors, event, retries=retries, timeout_s=timeout_s)
        delivery = attempts.written(lambda: record_notification(plan, draft, receipts, by=by, clock=clock))
    return Announcement(report=report(schedule, draft.created_at), plan=draft, delivery=delivery)


def record_notification(
    plan: NotificationPlan, planned: records.Draft, receipts: Sequence[Receipt], *, by: Person, clock: Clock
) -> records.Draft:
    """Record what came of a plan's sends. They are no cases: nothing is retried."""
    with transaction.atomic():
        at = clocks.read(clock)
        draft = attempts.delivery_record(
            receipts,
            source=DeliverySource.NOTIFICATION,
            event_id=plan.plan_id,
            event_type="cavra.go_backend.rollback_drill.notification",
            at=at,
            by=by,
            references=[planned.reference],
            schedule_id=plan.schedule.schedule_id,
        )
        heard = dict.fromkeys((receipt.token for receipt in receipts), draft.reference)
        ledger.append([draft, *breakers.heard(receipts, at=at, because=heard)])
    return draft


def _plan(
    schedule: Schedule,
    *,
    by: Person,
    clock: Clock,
    providers: Sequence[str],
    policy: RoutingPolicy | None,
    force: bool,
    claimed_actor: str,
) -> tuple[NotificationPlan, records.Draft, list[Connector]]:
    with transaction.atomic():
        Schedule.objects.select_for_update(no_key=True).get(pk=schedule.pk)
        at = clocks.read(clock)
        status = status_at(schedule, at)
        effective = overlay(policy_of(schedule), policy or RoutingPolicy())
        eligible = [
            provider for provider in schedule.notification_providers if not providers or provider in providers
        ]
        due = force or status is not ScheduleStatus.READY
        against = _reasons_against(Connector.objects.filter(key__in=eligible), at)
        found = _routes(schedule, effective, eligible, against, due=due, at=at)
        routes = list(islice(found, MAX_ROUTES + 1))
        if len(routes) > MAX_ROUTES:
            raise Conflict(f"One announcement has at most {MAX_ROUTES} routes.", code="too_many_routes")
        selected = sorted({r.provider for r in routes if r.action == RouteAction.DELIVER})
        connectors = sending.usable_connectors(selected)
        sending.require_live(connectors, clock=clock)
        plan_id = records.mint_id(NOTIFICATION_PLAN)
        draft = records.draft(
            NOTIFICATION_PLAN,
            plan_id,
            {
                "schedule_id": schedule.schedule_id,
                "generated_at": records.timestamp(at),
                "generated_by": by.username,
                "status": status.value,
                "alert_level": ALERT_LEVELS[status].value,
                "eligible_providers": eligible,
                "selected_providers": selected,
                "acknowledgement_required_providers": selected,
                "suppressed_providers": sorted({r.provider for r in routes} - set(selected)),
                "owners": sorted({r.owner for r in routes}),
                "owner_routes": [
                    {
                        "owner": rule.owner,
                        "providers": list(rule.providers),
                        "escalation_owner": rule.escalation_owner,
                    }
                    for rule in effective.rules
                ],
                "route_decisions": [r.decision for r in routes],
                "deliverable_route_count": sum(r.action == RouteAction.DELIVER for r in routes),
                "suppressed_route_count": sum(r.action == RouteAction.SUPPRESS for r in routes),
                "maintenance_suppressed_count": sum(r.category == "maintenance_window" for r in routes),
                "calendar_suppressed_count": sum(r.category == "owner_calendar" for r in routes),
                "next_due_at": records.timestamp(schedule.next_due_at),
                "reason": _reason(status, force),
            },
            at=at,
            by=by,
            claimed_actor=claimed_actor,
        )
        plan = NotificationPlan.objects.create(
            plan_id=plan_id,
            schedule=schedule,
            status=status,
            alert_level=ALERT_LEVELS[status],
            created_at=at,
            created_by=by,
            record_hash=draft.digest,
        )
        Route.objects.bulk_create(
            Route(
                plan=plan,
                route_id=r.route_id(plan_id),
                provider=r.provider,
                owner=r.owner,
                escalation_owner=r.escalation_owner,
                acknowledgement_minutes=r.minutes,
                action=r.action,
                reason=r.reason,
                category=r.category,
                created_at=at,
            )
            for r in routes
        )
        ledger.append([draft])
    return plan, draft, connectors


def _reasons_against(connectors: Iterable[Connector], at: datetime) -> dict[str, tuple[str, str]]:
    """Why nobody is told through a connector (by its key) at ``at``, as ``(code, sentence)``; only where that is so."""
    known = list(connectors)
    waits = breakers.waits(known, at)
    return {
        one.key: found[0]
        for one in known
        if (
            found := [
                *policies.reasons_against_telling(one),
                *((wait.code.value, wait.sentence) for wait in waits.get(one.pk, ())),
            ]
        )
    }


def route_id(*parts: str) -> str:
    """Id of a route from the ids of its plan and schedule, its connector and its owner."""
    return f"gordroute-{records.digest(records.canonical(list(parts)))[:16]}"


@dataclass(frozen=True)
class _PlannedRoute:
    schedule_id: str
    provider: str
    owner: str
    escalation_owner: str
    minutes: int
    action: RouteAction
    reason: str
    category: str
    window: Window | None
    availability: dict[str, Any]
    held_back: bool

    def route_id(self, plan_id: str) -> str:
        """Id of this route within one plan."""
        return route_id(plan_id, self.schedule_id, self.provider, self.owner)

    @property
    def decision(self) -> dict[str, Any]:
        """The route as the plan's record lists it."""
        return {
            # The same for every plan of a schedule: what a reader compares plans by.
            "route_key": route_id(self.schedule_id, self.provider, self.owner),
            "schedule_id": self.schedule_id,
            "provider": self.provider,
            "owner": self.owner,
            "acknowledgement_minutes": self.minutes,
            "escalation_owner": self.escalation_owner,
            "maintenance_window": self.window.as_dict() if self.window else None,
            "owner_availability": self.availability,
            "action": self.action.value,
            "category": self.category,
            "reason": self.reason,
            # By what the connector is, its breaker or its window, not by one of the schedule's.
            "held_back": self.held_back,
        }


def _routes(
    schedule: Schedule,
    policy: RoutingPolicy,
    eligible: Sequence[str],
    against: Mapping[str, tuple[str, str]],
    *,
    due: bool,
    at: datetime,
) -> Iterable[_PlannedRoute]:
    """One planned route for each connector and owner, an owner's first matching rule deciding.

    ``against`` says why nobody is told through a connector, with a code. What only waits is not sent later
    either: a notice would speak of the past.
    """
    seen = set()
    for rule in policy.rules:
        for provider in eligible:
            if (rule.providers and provider not in rule.providers) or (provider, rule.owner) in seen:
                continue
            seen.add((provider, rule.owner))
            window = next((w for w in policy.windows if w.covers(provider, rule.owner, at)), None)
            availability = _availability(policy.calendars.get(rule.owner, Availability()), rule.owner, at)
            held = against.get(provider)
            if not due:
                action, category, reason = (
                    RouteAction.SUPPRESS,
                    "healthy_schedule",
                    "The drill is not due yet.",
                )
            elif window:
                action, category = RouteAction.SUPPRESS, "maintenance_window"
                reason = f"Held back by the maintenance window {window.window_id}."
            elif held:
                action, (category, reason) = RouteAction.SUPPRESS, held
            elif not availability["available"]:
                action, category, reason = RouteAction.SUPPRESS, "owner_calendar", "The owner is away."
            else:
                action, category, reason = RouteAction.DELIVER, "deliver", "The drill is due."
            yield _PlannedRoute(
                schedule_id=schedule.schedule_id,
                provider=provider,
                owner=rule.owner,
                escalation_owner=rule.escalation_owner,
                minutes=rule.acknowledgement_minutes or policy.acknowledgement_minutes or 60,
                action=action,
                reason=reason,
                category=category,
                window=window,
                availability=availability,
                held_back=due and window is None and held is not None,
            )


def _availability(calendar: Availability, owner: str, at: datetime) -> dict[str, Any]:
    if not calendar.available:
        return {"available": False, "reason": calendar.reason or "away"}
    for window in calendar.windows:
        if window.covers("", owner, at):
            return {
                "available": False,
                "reason": window.reason or "away",
                "start_at": records.timestamp(window.start_at),
                "end_at": records.timestamp(window.end_at),
            }
    return {"available": True, "reason": "available"}


def _reason(status: ScheduleStatus, force: bool) -> str:
    if status is ScheduleStatus.NEEDS_ATTENTION:
        return "The drill is overdue."
    if status is ScheduleStatus.DUE_SOON:
        return "The drill is due soon."
    return "Announced on request although the drill is not due." if force else "The drill is not due yet."


def _event(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What connectors are told: who owns the drill and when it is due, nothing else."""
    return {
        "schema_version": "cavra.go-backend-pilot.rollback-drill-notification.v1",
        "event_type": "cavra.go_backend.rollback_drill.notification",
        "session_id": plan["plan_id"],
        "title": f"Rollback drill {plan['schedule_id']}: {plan['status']}",
        "alert_level": plan["alert_level"],
        "max_severity": "high" if plan["alert_level"] == AlertLevel.CRITICAL else "low",
        "plan_id": plan["plan_id"],
        "plan_hash": plan["plan_hash"],
        "schedule_id": plan["schedule_id"],
        "next_due_at": plan["next_due_at"],
        "routes": [
            {
                "provider": route["provider"],
                "owner": route["owner"],
                "escalation_owner": route["escalation_owner"],
                "acknowledgement_minutes": route["acknowledgement_minutes"],
            }
            for route in plan["route_decisions"]
            if route["action"] == RouteAction.DELIVER
        ],
    }
