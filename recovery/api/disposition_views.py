"""Settling a failed case without a delivery: one person proposes, an approver who is another decides (P8)."""

from collections.abc import Callable, Mapping
from typing import Any

from rest_framework import serializers

from evidence.api import schemas
from evidence.api.permissions import HasPermission
from evidence.api.views import ACTOR, ActView, stored
from evidence.domain.clock import system_clock
from evidence.domain.records import Draft
from evidence.models import Case, Person
from recovery.api import bodies
from recovery.api.permissions import InteractiveWhenStrict, signature
from recovery.documents import DISPOSITION, DISPOSITION_PROPOSAL
from recovery.domain import cases, dispositions
from recovery.domain.dispositions import Proposal
from recovery.enums import DispositionState
from recovery.models import Disposition
from recovery.permissions import Permission

VERBS: dict[DispositionState, Callable[..., Draft]] = {
    DispositionState.CONFIRMED: dispositions.confirm,
    DispositionState.REFUSED: dispositions.refuse,
    DispositionState.WITHDRAWN: dispositions.withdraw,
}


class ProposeDisposition(ActView):
    """Propose that a failed case is superseded by a delivered one, or abandoned. Nothing is settled yet."""

    permission = Permission.PROPOSE_DISPOSITION
    operation = "propose_disposition"
    tag = "dispositions"
    body_class = bodies.DispositionBody
    name_key = "proposed_by"
    answer = schemas.answer(
        "DispositionProposalAnswer",
        disposition_proposal=schemas.payload(DISPOSITION_PROPOSAL),
        metadata=schemas.envelope(DISPOSITION_PROPOSAL),
        case=serializers.CharField(),
        case_state=serializers.CharField(),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Case:
        return cases.case_by_id(ids["case_id"])

    def act(
        self, by: Person, subject: Case, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        proposal = Proposal(
            kind=sent["kind"],
            reason=sent["reason"],
            superseded_by=sent["superseded_by"],
            external_ref=sent["external_ref"],
            claimed_actor=claimed_actor,
        )
        draft = dispositions.propose(subject, proposal, by=by, clock=system_clock)
        (metadata,) = stored(draft)
        return {
            "disposition_proposal": metadata[DISPOSITION_PROPOSAL.payload_key],
            "metadata": metadata,
            "case": subject.case_id,
            "case_state": subject.state,
        }


class DecideDisposition(ActView):
    """Confirm or refuse what somebody else proposed. Who proposed it may withdraw it."""

    permission = (Permission.CONFIRM_DISPOSITION, Permission.PROPOSE_DISPOSITION)
    permission_classes = (HasPermission, InteractiveWhenStrict)
    operation = "decide_disposition"
    tag = "dispositions"
    body_class = bodies.DispositionDecisionBody
    name_key = "decided_by"
    answer = schemas.answer(
        "DispositionAnswer",
        disposition=schemas.payload(DISPOSITION),
        metadata=schemas.envelope(DISPOSITION),
        case=serializers.CharField(),
        case_state=serializers.CharField(),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> Disposition:
        return dispositions.disposition_by_id(ids["disposition_id"])

    def act(
        self, by: Person, subject: Disposition, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        if sent["state"] is not DispositionState.WITHDRAWN:
            signature(self.request)
        decide = VERBS[sent["state"]]
        draft = decide(subject, by=by, clock=system_clock, notes=sent["notes"], claimed_actor=claimed_actor)
        (metadata,) = stored(draft)
        decided = metadata[DISPOSITION.payload_key]
        return {
            "disposition": decided,
            "metadata": metadata,
            "case": subject.case.case_id,
            "case_state": decided["case_state"],
        }
