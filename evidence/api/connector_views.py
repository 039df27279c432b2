"""How connectors do, and testing them: never an address, a header or a reference (P18)."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.bodies import Body
from evidence.api.history_views import ReadView, Timestamp
from evidence.api.views import ACTOR, ID, ActView, stored_record
from evidence.documents import CONNECTOR_CANARY
from evidence.domain import canaries, connector_health, history, records, troubles
from evidence.domain.clock import system_clock
from evidence.domain.connector_health import Health
from evidence.enums import Assurance, BreakerState, CanaryMeans, Outcome, Product
from evidence.errors import NotFound
from evidence.filtersets import ConnectorFilter
from evidence.models import Canary, Connector, Person
from evidence.permissions import Permission

REFUSED = dict.fromkeys((401, 403), schemas.Problem)


# --- what is shown ------------------------------------------------------------------------------------------------


class BreakerShown(serializers.Serializer):
    """What a connector's breaker lets through."""

    state = serializers.ChoiceField(choices=list(BreakerState))
    failures = serializers.IntegerField(help_text="Failures in a row that count.")
    failure_class = serializers.CharField(allow_blank=True)
    since = Timestamp(allow_null=True, help_text="When it opened.")
    next_probe_at = Timestamp(source="probe_at", allow_null=True)
    held_until = Timestamp(allow_null=True, help_text="How long the receiver asked to be left alone.")


class WindowShown(serializers.Serializer):
    """A maintenance window."""

    window_id = serializers.CharField()
    start_at = Timestamp()
    end_at = Timestamp()
    reason = serializers.CharField(allow_blank=True)


class MaintenanceShown(serializers.Serializer):
    """The window that is on and the next one, two weeks ahead."""

    now = WindowShown(source="window", allow_null=True)
    next = WindowShown(source="next_window", allow_null=True)


class LastFailureShown(serializers.Serializer):
    """The last try that was not delivered."""

    at = Timestamp()
    failure_class = serializers.CharField(allow_blank=True, help_text="Empty when the outcome is unknown.")
    words = serializers.CharField(source="label")
    status_code = serializers.IntegerField(allow_null=True)


class ParkedShown(serializers.Serializer):
    """First deliveries that wait for the connector."""

    count = serializers.IntegerField()
    oldest_at = Timestamp(source="oldest")
    owner = serializers.CharField(help_text="Whose the oldest is.")


class LimitsShown(serializers.Serializer):
    """What a send to the connector keeps to."""

    max_body_bytes = serializers.IntegerField(source="max_body")
    timeout_ms = serializers.IntegerField(source="connector.timeout_ms")
    min_timeout_ms = serializers.IntegerField(source="connector.min_timeout_ms")
    max_concurrency = serializers.IntegerField(source="connector.max_concurrency")
    required_approvals = serializers.IntegerField(source="connector.required_approvals")


class TroubleShown(serializers.Serializer):
    """Trouble that was announced and is not over."""

    trouble_id = serializers.CharField()
    since = Timestamp()
    failure_class = serializers.CharField(allow_blank=True)
    announced_at = Timestamp()
    through = serializers.CharField()
    told = serializers.CharField(allow_blank=True, help_text="What came of telling it; empty: not known.")


class ConnectorShown(serializers.Serializer):
    """One connector."""

    key = serializers.CharField()
    product = serializers.ChoiceField(choices=list(Product))
    title = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(source="word", choices=list(connector_health.WORST_FIRST))
    reasons = serializers.ListField(child=serializers.CharField())
    paused = serializers.BooleanField()
    breaker = BreakerShown(source="standing")
    maintenance = MaintenanceShown(source="*")
    sends_24h = serializers.IntegerField(source="sends")
    delivered_24h = serializers.IntegerField(source="delivered")
    success_rate_24h = serializers.FloatField(
        source="success_rate", allow_null=True, help_text="0 to 1; null without a send."
    )
    last_success_at = Timestamp(source="last_success", allow_null=True)
    last_failure = LastFailureShown(allow_null=True)
    p50_ms = serializers.IntegerField(allow_null=True)
    p95_ms = serializers.IntegerField(allow_null=True)
    unsettled_count = serializers.IntegerField(source="unsettled")
    unknown_count = serializers.IntegerField(source="unknown")
    oldest_unsettled_at = Timestamp(source="oldest_unsettled", allow_null=True)
    parked = ParkedShown(allow_null=True)
    assurance = serializers.ChoiceField(source="adapter.assurance", choices=list(Assurance))
    assurance_earned = serializers.CharField(source="adapter.earned")
    limits = LimitsShown(source="*")
    announce_through = serializers.CharField(
        source="connector.announce_through", allow_blank=True, help_text="Empty: nobody is told."
    )
    trouble = TroubleShown(allow_null=True)


class CanaryShown(serializers.Serializer):
    """What came of a test of a connector."""

    canary_id = serializers.CharField()
    connector = serializers.CharField(source="connector.key")
    means = serializers.ChoiceField(
        choices=list(CanaryMeans), help_text="message was sent, question was asked, connection was opened."
    )
    outcome = serializers.ChoiceField(choices=list(Outcome))
    failure_class = serializers.CharField(allow_blank=True)
    words = serializers.SerializerMethodField()
    status_code = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField(allow_null=True)
    tested_by = serializers.CharField(source="by.username", default="", help_text="Empty for the worker.")
    started_at = Timestamp()
    ended_at = Timestamp()

    @extend_schema_field({"type": "string"})
    def get_words(self, canary: Canary) -> str:
        """The failure in words; empty without one."""
        return "" if canary.outcome == Outcome.DELIVERED else troubles.label_of(canary.failure_class)


# --- the views ----------------------------------------------------------------------------------------------------


class Connectors(ReadView):
    """Every connector with its health, the worst first. All are given; there are never many."""

    permission = Permission.READ_DASHBOARD
    tag = "connectors"
    filters = ConnectorFilter

    @extend_schema(
        operation_id="connectors",
        responses={
            200: schemas.answer(
                "ConnectorList",
                schema_version=serializers.CharField(),
                product=serializers.CharField(),
                items=ConnectorShown(many=True),
                total=serializers.IntegerField(),
                ignored_keys=schemas.texts(),
            ),
            400: schemas.Problem,
            **REFUSED,
        },
    )
    def get(self, request: Request) -> Response:
        """Health of connectors."""
        asked = self.asked(request, Connector.objects.all())
        wanted = set(asked.filters.qs.values_list("key", flat=True))
        state = asked.filters.form.cleaned_data["state"]
        found = [
            health
            for health in connector_health.survey(system_clock())
            if health.key in wanted and state in ("", health.word)
        ]
        return Response(
            {
                "schema_version": "cavra.connector.list.v1",
                "product": records.PRODUCT,
                "items": ConnectorShown(found, many=True).data,
                "total": len(found),
                "ignored_keys": asked.ignored_keys,
            }
        )


def connector_by_key(key: str) -> Connector:
    """The connector; ``NotFound`` ``connector_not_found`` when none has this key."""
    row = Connector.objects.filter(key=key).first() if ID.fullmatch(key) else None
    if row is None:
        raise NotFound("There is no connector with this key.", code="connector_not_found")
    return row


class OneConnector(ReadView):
    """One connector with its health and its newest tests."""

    permission = Permission.READ_DASHBOARD
    tag = "connectors"
    # Newest canaries of the answer.
    canaries = 10

    @extend_schema(
        operation_id="connector",
        responses={
            200: schemas.answer(
                "ConnectorAnswer",
                schema_version=serializers.CharField(),
                product=serializers.CharField(),
                connector=ConnectorShown(),
                canaries=CanaryShown(many=True),
                ignored_keys=schemas.texts(),
            ),
            404: schemas.Problem,
            **REFUSED,
        },
    )
    def get(self, request: Request, connector: str) -> Response:
        """Health of a connector."""
        row = connector_by_key(connector)
        asked = self.asked(request, Connector.objects.none())
        (health,) = connector_health.survey(system_clock(), row)
        return Response(
            {
                "schema_version": "cavra.connector.health.v1",
                "product": records.PRODUCT,
                "connector": ConnectorShown(health).data,
                "canaries": CanaryShown(canaries.latest(row, self.canaries), many=True).data,
                "ignored_keys": asked.ignored_keys,
            }
        )


class CanaryBody(Body):
    """POST /api/v1/connectors/{connector}/canary. Nothing can be chosen: the message is fixed."""

    refuses_unknown = True


class SendCanary(ActView):
    """Test a connector with a fixed message that holds no evidence, and say what came of it.

    A connector that fails is an answer (200) with its failure class. 409 with the reason while another test is
    under way, within ten seconds of the last one, for a disabled connector, and while the receiver asked to be
    left alone. A paused connector may be tested.
    """

    permission = Permission.SEND_CANARY
    operation = "send_canary"
    tag = "connectors"
    body_class = CanaryBody
    answer = schemas.answer(
        "CanaryAnswer",
        canary=CanaryShown(),
        connector=ConnectorShown(),
        metadata=schemas.envelope(CONNECTOR_CANARY),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Connector:
        return connector_by_key(ids["connector"])

    def act(
        self, by: Person, subject: Connector, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        canary = canaries.send(subject, by=by, clock=system_clock)
        health: Health
        (health,) = connector_health.survey(system_clock(), subject)
        return {
            "canary": CanaryShown(canary).data,
            "connector": ConnectorShown(health).data,
            "metadata": stored_record(history.by_id(canary.canary_id)),
        }
