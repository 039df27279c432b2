"""Telling owners about a drill, and their answers (CONTRACT §2)."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework import serializers

from evidence.api import fields, schemas
from evidence.api.bodies import SHOWN_KEYS, UNKNOWN_KEY, Body
from evidence.api.views import ACTOR, ActView, stored
from evidence.documents import CONNECTOR_DELIVERY, NOTIFICATION_ACK, NOTIFICATION_PLAN
from evidence.domain import acknowledgements, drills, loading, sending, text
from evidence.domain.acknowledgements import Answer
from evidence.domain.clock import system_clock
from evidence.enums import RouteState
from evidence.errors import InvalidInput
from evidence.models import Person, Schedule
from evidence.permissions import Permission

BULK_SCHEMA = "cavra.go-backend-pilot.rollback-drill-bulk-acknowledgement.v1"
ANSWERS = [state for state in RouteState if state is not RouteState.OUTSTANDING]


class AnnounceBody(Body):
    """POST {B}/deliver."""

    schedule_id = fields.CleanText(help_text="Needed only when several schedules are active.")
    provider = fields.ProviderList()
    generated_by = fields.CleanText(limit=text.MAX_NAME)
    force = fields.StrictBoolean(default=False)
    routing_policy = fields.ObjectField(required=False)
    retries = fields.WholeNumber(low=0, high=5, default=2)
    timeout_seconds = fields.Number(low="0.1", high="30", default=10)


class Announce(ActView):
    """Plan who is told about a drill, and tell them."""

    permission = Permission.DELIVER
    operation = "announce"
    tag = "drills"
    body_class = AnnounceBody
    answer = schemas.answer(
        "AnnounceAnswer",
        schedule=serializers.DictField(),
        plan=schemas.payload(NOTIFICATION_PLAN),
        delivery=schemas.nullable(schemas.payload(CONNECTOR_DELIVERY)),
        plan_metadata=schemas.envelope(NOTIFICATION_PLAN),
        metadata=schemas.nullable(schemas.envelope(CONNECTOR_DELIVERY)),
        success=serializers.BooleanField(),
        held=schemas.objects(),
        event_id=serializers.CharField(),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        sending.require_any_connector()
        schedule = drills.schedule_to_announce(sent["schedule_id"])
        policy, ignored = loading.routing_policy(sent.get("routing_policy"), schedule_id=schedule.schedule_id)
        if ignored and settings.CAVRA_PROFILE == "strict":
            raise InvalidInput(
                f"{ignored[0]}: {UNKNOWN_KEY}",
                code="unknown_keys",
                errors={path: [UNKNOWN_KEY] for path in ignored[:SHOWN_KEYS]},
            )
        done = drills.announce(
            schedule,
            by=by,
            clock=system_clock,
            providers=sent["provider"],
            policy=policy,
            force=sent["force"],
            claimed_actor=claimed_actor,
            retries=sent["retries"],
            timeout_s=float(sent["timeout_seconds"]),
        )
        plan, *deliveries = stored(*filter(None, (done.plan, done.delivery)))
        delivery = deliveries[0] if deliveries else None
        return {
            "schedule": done.report,
            "plan": plan[NOTIFICATION_PLAN.payload_key],
            "delivery": delivery and delivery[CONNECTOR_DELIVERY.payload_key],
            "plan_metadata": plan,
            "metadata": delivery,
            "success": not done.held and (delivery is None or delivery["delivery_success"]),
            "held": done.held,
            "event_id": done.plan.record_id,
            "ignored_keys": ignored,
        }


class AcknowledgementBody(Body):
    """POST {B}/{schedule_id}/acknowledgements."""

    provider = fields.ConnectorKey(required=True)
    acknowledged_by = fields.CleanText(limit=text.MAX_NAME)
    acknowledgement_state = fields.StateField(RouteState, words=ANSWERS, default=RouteState.ACKNOWLEDGED)
    plan_id = fields.CleanText()
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class Acknowledge(ActView):
    """Answer the routes of a schedule's newest plan, or of the plan that is named."""

    permission = Permission.ACKNOWLEDGE
    operation = "acknowledge"
    tag = "drills"
    body_class = AcknowledgementBody
    name_key = "acknowledged_by"
    answer = schemas.answer(
        "AcknowledgementAnswer",
        acknowledgement=schemas.payload(NOTIFICATION_ACK),
        metadata=schemas.envelope(NOTIFICATION_ACK),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def subject(self, **ids: str) -> Schedule:
        return drills.schedule_by_id(ids["schedule_id"])

    def act(
        self, by: Person, subject: Schedule, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        answer = Answer(
            schedule_id=subject.schedule_id,
            provider=sent["provider"],
            state=sent["acknowledgement_state"],
            plan_id=sent["plan_id"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(*acknowledgements.acknowledge([answer], by=by, clock=system_clock))
        return {"acknowledgement": metadata[NOTIFICATION_ACK.payload_key], "metadata": metadata}


class BulkRouteBody(Body):
    """One route of a bulk answer; what it leaves out is taken from the body around it."""

    schedule_id = fields.CleanText(required=True)
    provider = fields.ConnectorKey(required=True)
    plan_id = fields.CleanText()
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class BulkAcknowledgementBody(Body):
    """POST {B}/acknowledgements/bulk."""

    routes = fields.BodyList(child=BulkRouteBody(), limit=acknowledgements.MAX_BULK)
    acknowledged_by = fields.CleanText(limit=text.MAX_NAME)
    acknowledgement_state = fields.StateField(RouteState, words=ANSWERS, default=RouteState.ACKNOWLEDGED)
    plan_id = fields.CleanText()
    external_ref = fields.ExternalRef()
    notes = fields.Notes()


class BulkAcknowledge(ActView):
    """Answer several routes at once: all of them or none."""

    permission = Permission.ACKNOWLEDGE
    operation = "acknowledge_bulk"
    tag = "drills"
    body_class = BulkAcknowledgementBody
    name_key = "acknowledged_by"
    answer = schemas.answer(
        "BulkAcknowledgementAnswer",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        bulk_id=serializers.CharField(),
        acknowledgement_state=serializers.CharField(),
        acknowledgement_count=serializers.IntegerField(),
        acknowledgements=serializers.ListField(child=schemas.payload(NOTIFICATION_ACK)),
        metadata=serializers.ListField(child=schemas.envelope(NOTIFICATION_ACK)),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        answers = [
            Answer(
                schedule_id=route["schedule_id"],
                provider=route["provider"],
                state=sent["acknowledgement_state"],
                claimed_actor=claimed_actor,
                field=f"routes.{place}",
                **{key: route[key] or sent[key] for key in ("plan_id", "external_ref", "notes")},
            )
            for place, route in enumerate(sent["routes"])
        ]
        metadata = stored(*acknowledgements.acknowledge(answers, by=by, clock=system_clock))
        return {
            "schema_version": BULK_SCHEMA,
            "product": metadata[0]["product"],
            "bulk_id": f"gordbulkack-{len(metadata)}-{metadata[0]['session_id']}",
            "acknowledgement_state": sent["acknowledgement_state"].value,
            "acknowledgement_count": len(metadata),
            "acknowledgements": [record[NOTIFICATION_ACK.payload_key] for record in metadata],
            "metadata": metadata,
        }
