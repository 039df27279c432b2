"""Saying what came of an attempt whose outcome is unknown, and asking the connector (DESIGN, P3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rest_framework import serializers

from evidence.api import schemas
from evidence.api.permissions import HasPermission
from evidence.api.views import ACTOR, ActView, stored, stored_record
from evidence.documents import KINDS
from evidence.domain import records
from evidence.domain.clock import system_clock
from evidence.models import Case, Person
from recovery.api import bodies
from recovery.api.permissions import InteractiveWhenStrict
from recovery.documents import ATTESTATION
from recovery.domain import cases, reconciliations
from recovery.domain.reconciliations import Statement
from recovery.enums import Told
from recovery.execution import asking
from recovery.permissions import Permission


@dataclass(frozen=True)
class Tried:
    """The try that a path names; ``attempt_no`` is None where it names a case alone."""

    case: Case
    attempt_no: int | None


class Attest(ActView):
    """Say what you saw at the receiver. Two people who agree, one of them an approver, settle the case."""

    permission = Permission.ATTEST
    permission_classes = (HasPermission, InteractiveWhenStrict)
    operation = "attest"
    tag = "reconciliation"
    body_class = bodies.AttestationBody
    name_key = "attested_by"
    answer = schemas.answer(
        "AttestationAnswer",
        attestation=schemas.payload(ATTESTATION),
        metadata=schemas.envelope(ATTESTATION),
        case=serializers.CharField(),
        case_state=serializers.CharField(),
        reconciliation=serializers.DictField(
            allow_null=True, help_text="What two people who agree made of it; null while they have not."
        ),
        reconciliation_metadata=serializers.DictField(allow_null=True),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Tried:
        return Tried(cases.case_by_id(ids["case_id"]), None)

    def act(
        self, by: Person, subject: Tried, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        statement = Statement(
            seen=sent["seen"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            claimed_actor=claimed_actor,
            attempt_no=subject.attempt_no,
        )
        draft = reconciliations.attest(subject.case, statement, by=by, clock=system_clock)
        (metadata,) = stored(draft)
        attested = metadata[ATTESTATION.payload_key]
        subject.case.refresh_from_db(fields=["state"])
        settled = reconciliations.settled_by(subject.case, attested["attempt_no"])
        found = stored_record(records.by_ids([settled.record.id])[settled.record.id]) if settled else None
        return {
            "attestation": attested,
            "metadata": metadata,
            "case": subject.case.case_id,
            "case_state": subject.case.state,
            "reconciliation": found and found[KINDS[found["metadata_kind"]].payload_key],
            "reconciliation_metadata": found,
        }


class Reconcile(Attest):
    """The same about the attempt of one execution."""

    operation = "reconcile"

    def subject(self, **ids: str) -> Tried:
        execution = reconciliations.execution_by_id(ids["execution_id"])
        return Tried(execution.case, execution.attempt_no)


class Ask(ActView):
    """Ask the connector whether a try of the case arrived, and wait for its answer: ten seconds at most.

    *There* settles the case as a late success does; anything else settles nothing.
    """

    permission = Permission.ATTEST
    permission_classes = (HasPermission, InteractiveWhenStrict)
    operation = "ask_connector"
    tag = "reconciliation"
    body_class = bodies.InquiryBody
    name_key = "asked_by"
    answer = schemas.answer(
        "InquiryAnswer",
        case=serializers.CharField(),
        case_state=serializers.CharField(),
        asked_at=serializers.CharField(),
        told=serializers.ChoiceField(
            choices=list(Told),
            help_text="nothing: the question failed, or a try was claimed or the case settled meanwhile.",
        ),
        failure_class=serializers.CharField(allow_blank=True),
        external_ref=serializers.CharField(
            allow_blank=True, help_text="Where the receiver keeps it, as SYSTEM:KEY."
        ),
        reconciliation=serializers.DictField(
            allow_null=True, help_text="What the answer made of the case; null when it settled nothing."
        ),
        reconciliation_metadata=serializers.DictField(allow_null=True),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Case:
        return cases.case_by_id(ids["case_id"])

    def act(
        self, by: Person, subject: Case, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        heard = asking.ask_now(subject, by=by, clock=system_clock, claimed_actor=claimed_actor)
        found = stored(heard.settled[0])[0] if heard.settled else None
        subject.refresh_from_db(fields=["state"])
        return {
            "case": subject.case_id,
            "case_state": subject.state,
            "asked_at": records.timestamp(heard.at),
            "told": Told.NOTHING if heard.moved_on else heard.told,
            "failure_class": heard.failure_class,
            "external_ref": "" if heard.moved_on else heard.reference,
            "reconciliation": found and found[KINDS[found["metadata_kind"]].payload_key],
            "reconciliation_metadata": found,
        }
