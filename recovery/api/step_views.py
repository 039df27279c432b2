"""Steps of a recovery's playbook, ticked by those who did them."""

from collections.abc import Mapping
from typing import Any

from evidence.api import fields, schemas
from evidence.api.bodies import Body
from evidence.api.views import ACTOR, ActView, stored
from evidence.domain.clock import system_clock
from evidence.models import Person
from recovery.documents import PLAYBOOK_STEP
from recovery.domain import recoveries, steps
from recovery.models import Recovery
from recovery.permissions import Permission


class StepBody(Body):
    """POST /api/v1/recoveries/{provider}/steps/{step_key}."""

    refuses_unknown = True

    done = fields.StrictBoolean(refuse_null=True, help_text="false takes a tick back.")
    note = fields.CleanText(limit=steps.MAX_NOTE)


class TickStep(ActView):
    """Tick a step of the newest playbook of a connector's newest recovery, or take a tick back."""

    permission = Permission.PLAN_RECOVERY
    operation = "tick_step"
    tag = "recovery"
    body_class = StepBody
    answer = schemas.answer(
        "StepAnswer",
        step=schemas.payload(PLAYBOOK_STEP),
        metadata=schemas.envelope(PLAYBOOK_STEP),
        actor=ACTOR,
    )

    def subject(self, **ids: str) -> tuple[Recovery, str]:
        recovery = recoveries.newest(ids["provider"])
        steps.listed_step(recovery, ids["step_key"])
        return recovery, ids["step_key"]

    def act(
        self, by: Person, subject: tuple[Recovery, str], sent: Mapping[str, Any], *, claimed_actor: str
    ) -> dict[str, Any]:
        recovery, step_key = subject
        draft = steps.tick(
            recovery, step_key, done=sent["done"], note=sent["note"], by=by, clock=system_clock
        )
        (metadata,) = stored(draft)
        return {"step": metadata[PLAYBOOK_STEP.payload_key], "metadata": metadata}
