"""Recovery playbooks and closures (CONTRACT §7)."""

from collections.abc import Mapping
from typing import Any

from evidence.api import schemas
from evidence.api.views import ACTOR, ActView, stored
from evidence.domain.clock import system_clock
from evidence.models import Person
from recovery.api import bodies
from recovery.documents import CLOSURE, PLAYBOOK
from recovery.domain import closures, playbooks
from recovery.domain.closures import ClosureRequest
from recovery.models import Playbook
from recovery.permissions import Permission


class GeneratePlaybook(ActView):
    """Write a playbook for every connector that keeps failing."""

    permission = Permission.PLAN_RECOVERY
    operation = "generate_playbook"
    tag = "recovery"
    body_class = bodies.PlaybookBody
    answer = schemas.answer(
        "PlaybookAnswer",
        playbook=schemas.payload(PLAYBOOK),
        metadata=schemas.envelope(PLAYBOOK),
        actor=ACTOR,
        ignored_keys=schemas.texts(),
    )

    def act(
        self, by: Person, subject: None, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        draft = playbooks.generate(
            by=by,
            clock=system_clock,
            min_failure_count=sent["min_failure_count"],
            lookback_hours=sent["lookback_hours"],
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(draft)
        return {"playbook": metadata[PLAYBOOK.payload_key], "metadata": metadata}


class CloseRecovery(ActView):
    """Record the outcome of a connector's recovery; resolved has to be earned."""

    permission = Permission.CLOSE_RECOVERY
    operation = "close_recovery"
    tag = "recovery"
    body_class = bodies.ClosureBody
    name_key = "closed_by"
    answer = schemas.answer(
        "ClosureAnswer", closure=schemas.payload(CLOSURE), metadata=schemas.envelope(CLOSURE), actor=ACTOR
    )

    def subject(self, **ids: str) -> Playbook:
        return playbooks.playbook_by_id(ids["playbook_id"])

    def act(
        self, by: Person, subject: Playbook, sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        request = ClosureRequest(
            provider=sent["provider"],
            state=sent["closure_state"],
            verification_refs=tuple(sent.get("verification_refs", ())),
            owner=sent["owner"],
            review_at=sent.get("review_at"),
            reason=sent["reason"],
            external_ref=sent["external_ref"],
            notes=sent["notes"],
            claimed_actor=claimed_actor,
        )
        (metadata,) = stored(closures.close(subject, request, by=by, clock=system_clock))
        return {"closure": metadata[CLOSURE.payload_key], "metadata": metadata}
