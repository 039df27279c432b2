"""Journeys use a running server, real tokens and a receiver of their own."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from evidence.domain import people, verification
from evidence.domain.clock import system_clock
from evidence.models import Attempt, Person
from tests.builders import World
from tests.http import A, Api, B


@dataclass
class Cast:
    """The people of a journey, each with a token of their own."""

    world: World
    base: str
    tokens: dict[int, str] = field(default_factory=dict)

    def api(self, person: Person) -> Api:
        """Calls as ``person``."""
        if person.pk not in self.tokens:
            self.tokens[person.pk] = people.issue_token(person, by=None, clock=system_clock)
        return Api(self.base, self.tokens[person.pk])

    @property
    def analyst(self) -> Api:
        return self.api(self.world.analyst)

    @property
    def second_analyst(self) -> Api:
        return self.api(self.world.second_analyst)

    @property
    def approver(self) -> Api:
        return self.api(self.world.approver)

    @property
    def operator(self) -> Api:
        return self.api(self.world.operator)

    @property
    def auditor(self) -> Api:
        return self.api(self.world.auditor)

    def failed_delivery(self, *providers: str, status: int = 503) -> dict[str, Any]:
        """Announce, acknowledge, deliver; the receiver refuses the delivery and is well again afterwards."""
        world, keys = self.world, providers or self.world.providers
        for key in keys:
            world.receiver.behave(f"/{key}", status=200)
        plan = self.analyst.post(f"{B}/deliver", {"retries": 0})["plan"]
        self.analyst.post(
            f"{B}/{plan['schedule_id']}/acknowledgements",
            {"provider": plan["selected_providers"][0], "plan_id": plan["plan_id"], "notes": "read"},
        )
        for key in keys:
            world.receiver.behave(f"/{key}", status=status)
        done = self.analyst.post(
            A,
            {"delivery_provider": ",".join(keys), "retries": 0, "timeout_seconds": 5, "cadence": "on_demand"},
        )
        for key in keys:
            world.receiver.behave(f"/{key}", status=200)
        assert done["success"] is False
        return done

    def acknowledged_plan(self) -> dict[str, Any]:
        """A retry plan whose decisions were reviewed by another analyst."""
        plan = self.analyst.post(f"{A}/retry-plan", {"retry_policy": {"allow_immediate_retry": True}})["plan"]
        for decision in plan["retry_decisions"]:
            self.second_analyst.post(
                f"{A}/retry-plans/{plan['retry_plan_id']}/acknowledgements",
                {key: decision[key] for key in ("provider", "delivery_id", "audit_id")},
            )
        return plan

    def requested(self) -> dict[str, Any]:
        """An approval plan over everything that was acknowledged."""
        self.acknowledged_plan()
        plan: dict[str, Any] = self.analyst.post(
            f"{A}/retry-execution-approval-plan", {"approval_policy": {"require_retry_ack": True}}
        )["plan"]
        return plan

    def decide(
        self, plan: dict[str, Any], state: str = "approved", expect: int = 200
    ) -> list[dict[str, Any]]:
        """The approver's word on every entry of a plan."""
        return [
            self.approver.post(
                f"{A}/retry-execution-approval-plans/{plan['approval_plan_id']}/decisions",
                {
                    **{key: entry[key] for key in ("provider", "delivery_id", "audit_id", "manifest_digest")},
                    "approval_state": state,
                    "notes": "read and decided",
                },
                expect=expect,
            )
            for entry in plan["approval_decisions"]
        ]

    def run(self, **body: Any) -> dict[str, Any]:
        """A live run by the operator."""
        answer: dict[str, Any] = self.operator.post(f"{A}/worker-run", {"dry_run": False, **body})
        return answer

    def in_order(self) -> None:
        """The log verifies, and the receiver's own log equals the attempts that say bytes were sent."""
        assert list(verification.verify()) == []
        for key in self.world.providers:
            sent = [
                attempt
                for attempt in Attempt.objects.filter(case__connector__key=key)
                if attempt.bytes_sent or attempt.outcome == "outcome_unknown"
            ]
            arrived = [
                one
                for one in self.world.receiver.arrived(f"/{key}")
                if b"acknowledgement_audit_delivery" in one.body
            ]
            assert len(arrived) == len(sent), key


@pytest.fixture
def cast(transactional_db: None, live_server: Any, world: World) -> Cast:
    """Four people and more before a running server."""
    return Cast(world, live_server.url)
