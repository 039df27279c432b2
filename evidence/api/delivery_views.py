"""Audit packages and their delivery (CONTRACT §3)."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from evidence.api import fields, schemas
from evidence.api.bodies import Body
from evidence.api.views import ACTOR, ActView, case_by_id, stored, stored_record
from evidence.documents import AUDIT_PACKAGE, CONNECTOR_DELIVERY, DELIVERY_PLAN, DELIVERY_TAKEOVER
from evidence.domain import deliveries, drills, packages, parking, text
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.models import Case, Person
from evidence.permissions import Permission


class FilterBody(Body):
    """Which routes a package covers."""

    schedule_id = fields.CleanText()
    provider = fields.ConnectorKey()
    owner = fields.CleanText(limit=text.MAX_NAME, help_text="Part of an owner's name, in any case.")
    generated_by = fields.CleanText(limit=text.MAX_NAME)


def filters_of(sent: Mapping[str, Any]) -> PackageFilters:
    """The filters in a body; ``provider: all`` is no filter. ``NotFound`` for a schedule that is none."""
    if sent["schedule_id"]:
        drills.schedule_by_id(sent["schedule_id"])
    provider = "" if sent["provider"] == fields.ALL else sent["provider"]
    return PackageFilters(schedule_id=sent["schedule_id"], provider=provider, owner=sent["owner"])


class FreezePackage(ActView):
    """Freeze the latest answers of the routes that fit. The same content again is the same package."""

    permission = Permission.DELIVER
    operation = "freeze_package"
    tag = "deliveries"
    body_class = FilterBody
    answer = schemas.answer(
        "AuditPackageAnswer",
        audit_package=schemas.payload(AUDIT_PACKAGE),
        metadata=schemas.envelope(AUDIT_PACKAGE),
        existing=serializers.BooleanField(),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        frozen = packages.freeze(filters_of(sent), by=by, clock=system_clock, claimed_actor=claimed_actor)
        metadata = stored_record(frozen.record)
        return {
            "audit_package": metadata.get(AUDIT_PACKAGE.payload_key),
            "metadata": metadata,
            "existing": frozen.existing,
        }


class DeliveryBody(FilterBody):
    """POST {A}."""

    delivery_provider = fields.ProviderList(required=False)
    cadence = fields.CleanText(default="on_demand")
    schedule_ref = fields.CleanText()
    next_delivery_at = fields.CleanText()
    retries = fields.WholeNumber(low=0, high=5, default=2)
    timeout_seconds = fields.Number(low="0.1", high="30", default=10)
    despite_lost_entries = fields.StrictBoolean(
        default=False,
        help_text="After a restore: send what may have been sent before, by an entry that was lost.",
    )


class Deliver(ActView):
    """Freeze a package and deliver it: a case for each connector, and its first attempt."""

    permission = Permission.DELIVER
    operation = "deliver_package"
    tag = "deliveries"
    body_class = DeliveryBody
    answer = schemas.answer(
        "DeliveryAnswer",
        audit_package=schemas.payload(AUDIT_PACKAGE),
        audit_metadata=schemas.envelope(AUDIT_PACKAGE),
        existing=serializers.BooleanField(),
        delivery_plan=schemas.payload(DELIVERY_PLAN),
        plan_metadata=schemas.envelope(DELIVERY_PLAN),
        delivery=schemas.nullable(schemas.payload(CONNECTOR_DELIVERY)),
        metadata=schemas.nullable(schemas.envelope(CONNECTOR_DELIVERY)),
        success=serializers.BooleanField(),
        cases=schemas.objects(),
        case=serializers.CharField(required=False),
        held=schemas.objects(),
        parked=schemas.objects(),
        unsettled_cases=schemas.texts(),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        filters = filters_of(sent)
        named = (filters.provider,) if filters.provider else ()
        done = deliveries.deliver_audit(
            DeliveryRequest(
                filters=filters,
                providers=sent.get("delivery_provider", named),
                cadence=sent["cadence"] or "on_demand",
                schedule_ref=sent["schedule_ref"],
                next_delivery_at=sent["next_delivery_at"],
                retries=sent["retries"],
                timeout_s=float(sent["timeout_seconds"]),
                claimed_actor=claimed_actor,
                despite_lost_entries=sent["despite_lost_entries"],
            ),
            by=by,
            clock=system_clock,
        )
        package, plan = stored_record(done.package.record), stored_record(done.plan)
        (delivery,) = stored(done.delivery) if done.delivery else (None,)
        answer: dict[str, Any] = {
            "audit_package": package.get(AUDIT_PACKAGE.payload_key),
            "audit_metadata": package,
            "existing": done.package.existing,
            "delivery_plan": plan[DELIVERY_PLAN.payload_key],
            "plan_metadata": plan,
            "delivery": delivery and delivery[CONNECTOR_DELIVERY.payload_key],
            "metadata": delivery,
            "success": done.success,
            "cases": [{"case": case.case_id, "state": case.state} for case in done.cases],
            "held": done.held,
            "parked": done.parked,
            "unsettled_cases": done.unsettled_cases,
        }
        if len(done.cases) == 1:
            answer["case"] = done.cases[0].case_id
        return answer


class TakeOverBody(Body):
    """POST /api/v1/cases/{case_id}/takeovers."""

    refuses_unknown = True

    reason = fields.Notes(required=True)
    taken_by = fields.CleanText(limit=text.MAX_NAME)


class TakeOver(ActView):
    """Become the owner of a parked case: once nothing holds it back, its first attempt is sent for you."""

    permission = Permission.DELIVER
    operation = "take_over"
    tag = "deliveries"
    body_class = TakeOverBody
    name_key = "taken_by"
    answer = schemas.answer(
        "TakeOverAnswer",
        delivery_takeover=schemas.payload(DELIVERY_TAKEOVER),
        metadata=schemas.envelope(DELIVERY_TAKEOVER),
        case=serializers.CharField(),
        case_state=serializers.CharField(),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Case:
        return case_by_id(ids["case_id"])

    def act(
        self, by: Person, subject: Case, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        draft = parking.take_over(
            subject, reason=sent["reason"], by=by, clock=system_clock, claimed_actor=claimed_actor
        )
        (metadata,) = stored(draft)
        subject.refresh_from_db(fields=["state"])
        return {
            "delivery_takeover": metadata[DELIVERY_TAKEOVER.payload_key],
            "metadata": metadata,
            "case": subject.case_id,
            "case_state": subject.state,
        }
