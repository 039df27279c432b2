"""Every endpoint that is served, read from the URL table, and bodies that are right for each POST."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver
from knox.models import get_token_model
from knox.settings import CONSTANTS
from rest_framework.test import APIClient

from evidence.api import (
    capsule_views,
    connector_views,
    delivery_views,
    drill_views,
    erasure_views,
    override_views,
)
from evidence.api.service_views import PARAMETER
from evidence.api.views import ActView
from evidence.documents import NOTIFICATION_PLAN, PERSON, PUBLIC_SAFETY_OVERRIDE, ROLE
from evidence.domain import configuration, erasures, holds, people, safety
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Case, Person, Record, RetentionRule
from recovery.api import (
    disposition_views,
    reconciliation_views,
    recovery_views,
    retry_views,
    run_views,
    step_views,
)
from recovery.domain import approvals
from recovery.execution import outcomes
from recovery.models import Execution
from tests.builders import Clock, World, connector
from tests.evidence.breaking import opened
from tests.evidence.ledger_keys import Keys
from tests.receiver import Receiver
from tests.replay import walked_once


@dataclass(frozen=True)
class Served:
    """One address: its template with ``{name}`` parameters, and the view behind it."""

    path: str
    view: Any

    def __str__(self) -> str:
        return f"{self.view.__name__} {self.path}"


def _walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[Served]:
    for one in patterns:
        route = prefix + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from _walk(one.url_patterns, route)
        else:
            view = (
                getattr(one.callback, "cls", None)
                or getattr(one.callback, "view_class", None)
                or one.callback
            )
            yield Served(PARAMETER.sub(r"{\1}", route), view)


def served() -> list[Served]:
    """Every address of the product."""
    return list(_walk(get_resolver().url_patterns, "/"))


def acts() -> list[Served]:
    """Every documented POST."""
    found = [one for one in served() if isinstance(one.view, type) and issubclass(one.view, ActView)]
    assert len(found) >= 12, "the URL table lost its POSTs"
    return found


# Who may at all; the worker's live run asks for more (``test_runs``).
ALLOWED: dict[type[ActView], set[Role]] = {
    drill_views.Announce: {Role.ANALYST},
    drill_views.Acknowledge: {Role.ANALYST},
    drill_views.BulkAcknowledge: {Role.ANALYST},
    delivery_views.FreezePackage: {Role.ANALYST},
    delivery_views.Deliver: {Role.ANALYST},
    delivery_views.TakeOver: {Role.ANALYST},
    capsule_views.CaseCapsules: {Role.ANALYST, Role.AUDITOR},
    connector_views.SendCanary: {Role.OPERATOR, Role.ADMINISTRATOR},
    retry_views.PlanRetries: {Role.ANALYST},
    retry_views.AcknowledgeRetry: {Role.ANALYST},
    retry_views.RequestApproval: {Role.ANALYST},
    # An analyst gets past the door to withdraw what they asked for.
    retry_views.Decide: {Role.APPROVER, Role.ANALYST},
    retry_views.Renew: {Role.APPROVER},
    run_views.StartRun: {Role.ANALYST, Role.OPERATOR},
    reconciliation_views.Attest: {Role.ANALYST, Role.APPROVER},
    reconciliation_views.Reconcile: {Role.ANALYST, Role.APPROVER},
    reconciliation_views.Ask: {Role.ANALYST, Role.APPROVER},
    disposition_views.ProposeDisposition: {Role.ANALYST, Role.APPROVER},
    # An analyst gets past the door to withdraw what they proposed.
    disposition_views.DecideDisposition: {Role.ANALYST, Role.APPROVER},
    recovery_views.GeneratePlaybook: {Role.ANALYST},
    recovery_views.CloseRecovery: {Role.ANALYST},
    step_views.TickStep: {Role.ANALYST},
    erasure_views.Erasures: {Role.AUDITOR, Role.ADMINISTRATOR},
    # Who proposed it gets past the door to withdraw it.
    erasure_views.DecideErasure: {Role.AUDITOR, Role.ADMINISTRATOR},
    erasure_views.Holds: {Role.AUDITOR, Role.ADMINISTRATOR},
    erasure_views.LiftHold: {Role.AUDITOR, Role.ADMINISTRATOR},
    erasure_views.ConfirmRule: {Role.AUDITOR},
    override_views.ReviewOverride: {Role.AUDITOR, Role.ADMINISTRATOR},
}


ERASING = (
    erasure_views.Erasures,
    erasure_views.DecideErasure,
    erasure_views.Holds,
    erasure_views.LiftHold,
    erasure_views.ConfirmRule,
    override_views.ReviewOverride,
)


def written() -> int:
    """How many records there are, tokens and roles given out by a test itself left out."""
    return Record.objects.exclude(kind__in=[PERSON.name, ROLE.name]).count()


def client(person: Person | None = None) -> APIClient:
    """A client with a token of ``person``'s, or of nobody's."""
    made = APIClient(raise_request_exception=False)
    if person is not None:
        made.credentials(HTTP_AUTHORIZATION=f"Bearer {_token(person)}")
    return made


# By person id, which comes again in other tests (``tests.replay``): the database says whether a token is there.
_TOKENS: dict[str, str] = {}


def _token(person: Person) -> str:
    """The token of ``person``'s in this test, given out at the first call."""
    token = _TOKENS.get(person.person_id, "")
    if (
        not get_token_model()
        .objects.filter(user=person, token_key=token[: CONSTANTS.TOKEN_KEY_LENGTH])
        .exists()
    ):
        token = _TOKENS[person.person_id] = people.issue_token(person, by=None, clock=system_clock)
    return token


@dataclass
class Prepared:
    """A world in which every POST has something to be about."""

    world: World
    ids: dict[str, str]
    bodies: dict[type[ActView], dict[str, Any]]
    # Where an address with the same parameter is about something else than the others are.
    own_ids: dict[type[ActView], dict[str, str]]

    def path(self, one: Served) -> str:
        """The address with ids of this world."""
        return one.path.format(**{**self.ids, **self.own_ids.get(one.view, {})})

    def person(self, one: Served) -> Person:
        """Somebody who may perform the act."""
        world = self.world
        return {
            retry_views.Decide: world.approver,
            retry_views.Renew: world.approver,
            disposition_views.DecideDisposition: world.approver,
            run_views.StartRun: world.operator,
            connector_views.SendCanary: world.operator,
            drill_views.Announce: world.second_analyst,
            **dict.fromkeys(ERASING, world.auditor),
        }.get(one.view, world.second_analyst)


def ready(receiver: Receiver, keys: Keys) -> Prepared:
    """What ``prepared`` makes of a world of its own, written again where it was walked already."""
    made = walked_once("ready", lambda: furnished(World(receiver)), receiver)
    keys.add()
    return made


def steady_receiver() -> Receiver:
    """The receiver of the test before, as new: what was walked there fits this one as well."""
    if not (_RECEIVERS and _RECEIVERS[-1].thread.is_alive()):
        _RECEIVERS.append(Receiver())
    made = _RECEIVERS[-1]
    made.forget()
    return made


_RECEIVERS: list[Receiver] = []


def prepared(world: World, keys: Keys) -> Prepared:
    """A failed case with a retry plan, an open entry and a playbook, in a log that is signed."""
    made = furnished(world)
    keys.add()
    return made


def waiting(world: World) -> Case:
    """A parked case of a connector that nothing else is for."""
    later = connector("later", world.receiver.url("/later"))
    opened(later.key, Clock())
    (case,) = world.delivered(later.key)
    later.enabled = False
    configuration.save(later, by=None, clock=system_clock)
    return case


def furnished(world: World) -> Prepared:
    """A failed case with a retry plan, an open entry and a playbook.

    Beside it are one whose outcome is unknown, one whose request ran out and that is proposed to be abandoned, and
    one that is parked.
    """
    unknown = world.claimed().execution
    # Its lease ran out a moment ago, so that the log's time goes no further ahead than below.
    Execution.objects.update(lease_until=world.clock() - timedelta(seconds=1))
    assert outcomes.expire_leases(clock=world.clock) == 1
    # The claim's record says when it really would have.
    Execution.objects.update(lease_until=unknown.lease_until)
    (case,) = world.failed()
    (entry,) = world.requested()
    (other,) = world.failed()
    world.policy(approve_within_minutes=1)
    (lapsed,) = (one for one in world.requested() if one.case == other)
    world.policy(approve_within_minutes=24 * 60)
    # A minute ahead is what a clock may be behind: the log's time goes on from here.
    ran_out = lapsed.approve_by + timedelta(milliseconds=1)
    assert approvals.expire(clock=lambda: ran_out) == 1
    disposition = world.proposed(other)
    announced, told = Record.objects.filter(kind=NOTIFICATION_PLAN.name)[:2]
    erasure = erasures.propose(
        [announced.record_id], "law", "asked", by=world.administrator, clock=lambda: ran_out
    )
    hold = holds.place(announced.record_id, reason="court", by=world.auditor, clock=lambda: ran_out)
    with safety.overriding("A placeholder of the manual."):
        holds.place(
            Record.objects.filter(kind=PERSON.name)[0].record_id,
            reason="as at http://splunk/manual",
            by=world.administrator,
            clock=lambda: ran_out,
        )
    override = Record.objects.get(kind=PUBLIC_SAFETY_OVERRIDE.name)
    rule = RetentionRule(kind=NOTIFICATION_PLAN.name, keep_days=365, legal_basis="law")
    configuration.save(rule, by=world.administrator, clock=lambda: ran_out)
    playbook = world.playbook()
    about = {
        "provider": case.connector.key,
        "delivery_id": case.plan.delivery_id,
        "audit_id": case.package.audit_id,
    }
    route = {"schedule_id": world.schedule.schedule_id, "provider": world.providers[0]}
    return Prepared(
        world,
        ids={
            "schedule_id": world.schedule.schedule_id,
            "retry_plan_id": entry.retry_plan.retry_plan_id,
            "entry_id": lapsed.entry_id,
            "approval_plan_id": entry.plan.approval_plan_id,
            "playbook_id": playbook.playbook_id,
            "case_id": unknown.case.case_id,
            "case": case.case_id,
            "execution_id": unknown.execution_id,
            "provider": case.connector.key,
            "connector": case.connector.key,
            "step_key": "check_owner",
            "disposition_id": disposition.disposition_id,
            "erasure_id": erasure.erasure_id,
            "hold_id": hold.hold_id,
            "override_id": override.record_id,
            "kind": rule.kind,
        },
        own_ids={
            disposition_views.ProposeDisposition: {"case_id": case.case_id},
            delivery_views.TakeOver: {"case_id": waiting(world).case_id},
        },
        bodies={
            drill_views.Announce: {"retries": 0},
            drill_views.Acknowledge: {"provider": route["provider"]},
            drill_views.BulkAcknowledge: {"routes": [route]},
            delivery_views.FreezePackage: {},
            delivery_views.Deliver: {"retries": 0},
            delivery_views.TakeOver: {"reason": "They left the team."},
            capsule_views.CaseCapsules: {},
            connector_views.SendCanary: {},
            retry_views.PlanRetries: {"retry_policy": {"allow_immediate_retry": True}},
            retry_views.AcknowledgeRetry: about,
            retry_views.RequestApproval: {"approval_policy": {"require_retry_ack": True}},
            retry_views.Decide: {**about, "approval_state": "deferred"},
            retry_views.Renew: {"reason_code": "receiver_ready"},
            run_views.StartRun: {"retry_policy": {}, "schedule": {}},
            reconciliation_views.Attest: {"seen": "not_delivered", "external_ref": "INC-1"},
            reconciliation_views.Reconcile: {"seen": "undetermined", "external_ref": "INC-1"},
            reconciliation_views.Ask: {},
            disposition_views.ProposeDisposition: {
                "kind": "abandoned",
                "reason": "The receiver is gone.",
                "external_ref": "CHG-1",
            },
            disposition_views.DecideDisposition: {"state": "refused", "notes": "Try it again first."},
            step_views.TickStep: {"done": True},
            erasure_views.Erasures: {"records": [told.record_id], "legal_basis": "law", "reason": "asked"},
            erasure_views.DecideErasure: {"state": "refused", "notes": "Still needed."},
            erasure_views.Holds: {"scope": announced.record_id, "reason": "court"},
            erasure_views.LiftHold: {"reason": "over"},
            erasure_views.ConfirmRule: {},
            override_views.ReviewOverride: {"verdict": "false_hit"},
            recovery_views.GeneratePlaybook: {"min_failure_count": 1},
            recovery_views.CloseRecovery: {
                "provider": about["provider"],
                "closure_state": "escalated",
                "external_ref": "INC:1",
            },
        },
    )
