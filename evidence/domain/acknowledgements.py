"""Owners' answers to routes: one, or several at once or none (CONTRACT §2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from evidence.documents import NOTIFICATION_ACK
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records, transitions
from evidence.domain.clock import Clock
from evidence.enums import RouteAction, RouteState
from evidence.errors import NotFound
from evidence.models import NotificationPlan, Person, Route
from evidence.permissions import Permission

MAX_BULK = 100


@dataclass(frozen=True)
class Answer:
    """One answer to the routes of (schedule, connector); without ``plan_id`` to those of the newest plan.

    ``field`` is where the caller's input names it, for refusals.
    """

    schedule_id: str
    provider: str
    state: RouteState
    plan_id: str = ""
    external_ref: str = ""
    notes: str = ""
    claimed_actor: str = ""
    field: str = "provider"


def acknowledge(answers: Sequence[Answer], *, by: Person, clock: Clock) -> list[records.Draft]:
    """Record every answer, or none when one of them names nothing.

    Raises ``NotFound`` whose ``errors`` name each answer that has no route, by its ``field``.
    """
    policies.require_role(by, Permission.ACKNOWLEDGE)
    with transaction.atomic():
        routes = _routes_for(answers)
        # One order for everybody, so that two bulk answers never wait for each other.
        locked = sorted({route.pk for found in routes for route in found})
        list(
            Route.objects.select_for_update(no_key=True)
            .filter(pk__in=locked)
            .order_by("pk")
            .values_list("pk")
        )
        at = clocks.read(clock)
        drafts = []
        for answer, found in zip(answers, routes, strict=True):
            plan = found[0].plan
            draft = records.draft(
                NOTIFICATION_ACK,
                records.mint_id(NOTIFICATION_ACK),
                {
                    "schedule_id": answer.schedule_id,
                    "plan_id": plan.plan_id,
                    "provider": answer.provider,
                    "acknowledged_by": by.username,
                    "acknowledgement_state": answer.state.value,
                    "acknowledged_at": records.timestamp(at),
                    "external_ref": answer.external_ref,
                    "notes": answer.notes,
                    "route_ids": [route.route_id for route in found],
                },
                at=at,
                by=by,
                references=[
                    records.Reference(
                        "go-backend-rollback-drill-notification-plan", plan.plan_id, plan.record_hash
                    )
                ],
                claimed_actor=answer.claimed_actor,
            )
            for route in found:
                transitions.move(
                    transitions.ROUTES,
                    route.pk,
                    answer.state,
                    acknowledgement_id=draft.record_id,
                    acknowledgement_hash=draft.digest,
                    acknowledged_by=by,
                    acknowledged_at=at,
                    external_ref=answer.external_ref,
                    notes=answer.notes,
                )
            drafts.append(draft)
        ledger.append(drafts)
    return drafts


def _routes_for(answers: Sequence[Answer]) -> list[list[Route]]:
    """The routes each answer is about: told ones of the named plan, or of the schedule's newest plan with any."""
    found: list[list[Route]] = []
    errors: dict[str, list[str]] = {}
    for answer in answers:
        told = Route.objects.filter(
            plan__schedule__schedule_id=answer.schedule_id,
            provider=answer.provider,
            action=RouteAction.DELIVER,
        )
        if answer.plan_id:
            routes = list(told.filter(plan__plan_id=answer.plan_id).select_related("plan"))
        else:
            newest = NotificationPlan.objects.filter(routes__in=told).order_by("-created_at", "-pk").first()
            routes = list(told.filter(plan=newest).select_related("plan")) if newest else []
        if not routes:
            errors[answer.field] = [
                f"No route of {answer.schedule_id} through {answer.provider} was announced"
                + (f" by {answer.plan_id}." if answer.plan_id else ".")
            ]
        found.append(routes)
    if errors:
        raise NotFound("There is no such route to answer.", code="route_not_found", errors=errors)
    return found
