"""Everybody at once: verbs of many people over the same cases neither deadlock nor lose or double anything."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from django.db import connection

from evidence.domain import configuration, deliveries, verification
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState
from evidence.errors import DomainError
from evidence.models import Attempt, Case, Connector, Person
from recovery.domain import approval_plans, approvals, playbooks, retry_plans
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, EntryState, RetryAckState
from recovery.execution import outcomes
from recovery.models import ApprovalEntry, Execution, RetryPlan, Vote
from tests.builders import IMMEDIATE, World

SECONDS = 4.0
# On a busy machine nothing may have been sent by then; as much longer as this is waited for it.
PATIENCE = 60.0


def answered(verb: Callable[..., object], *args: object, **kwargs: object) -> None:
    """A refusal is an answer."""
    with suppress(DomainError):
        verb(*args, **kwargs)


def plan(world: World) -> None:
    retry_plans.plan(IMMEDIATE, by=world.analyst, clock=world.clock)


def acknowledge(world: World) -> None:
    newest = RetryPlan.objects.order_by("-pk").first()
    for item in (
        newest.items.select_related("decision__case__plan", "decision__case__connector") if newest else ()
    ):
        case = item.decision.case
        answered(
            retry_plans.acknowledge,
            newest,
            Review(
                provider=case.connector.key,
                state=random.choice([RetryAckState.ACCEPTED] * 3 + [RetryAckState.DEFERRED]),
                delivery_id=case.plan.delivery_id,
            ),
            by=world.second_analyst,
            clock=world.clock,
        )


def ask(world: World) -> None:
    approval_plans.request(by=world.analyst, clock=world.clock)


def vote(world: World, by: Person) -> None:
    for entry in approvals.entries().filter(state__in=[EntryState.PENDING, EntryState.APPROVED]):
        word = random.choice([ApprovalState.APPROVED] * 6 + [ApprovalState.DEFERRED, ApprovalState.DENIED])
        answered(approvals.decide, entry, Ballot(state=word), by=by, clock=world.clock)


def execute(world: World) -> None:
    world.ran()


def deliver(world: World) -> None:
    world.acknowledged()
    deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
    )


def send_parked(world: World) -> None:
    deliveries.send_parked(clock=world.clock)


def write_playbook(world: World) -> None:
    playbooks.generate(by=world.analyst, clock=world.clock, min_failure_count=1)


def configure(world: World) -> None:
    row = Connector.objects.get(key=random.choice(world.providers))
    row.timeout_ms = random.randint(5_000, 9_000)
    configuration.save(row, by=world.administrator, clock=world.clock)


def sweep(world: World) -> None:
    approvals.expire(clock=world.clock)
    outcomes.expire_leases(clock=world.clock)
    deliveries.expire_leases(clock=world.clock)


def verify(world: World) -> None:
    """Rows that move meanwhile are no difference."""
    assert [str(difference) for difference in verification.verify()] == []


@pytest.mark.race
@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_verbs_of_many_people_at_once(committed_two: World) -> None:
    world = committed_two
    for _ in range(4):
        world.failed()
    for entry in world.requested()[::2]:
        world.vote(entry)
    # Half of what is sent fails again.
    world.receiver.behave("/backup", status=503)
    acts: list[Callable[[World], None]] = [
        plan,
        acknowledge,
        ask,
        lambda world: vote(world, world.approver),
        lambda world: vote(world, world.second_approver),
        execute,
        execute,
        deliver,
        send_parked,
        write_playbook,
        configure,
        sweep,
        verify,
    ]
    broken: list[BaseException] = []
    start = threading.Barrier(len(acts))
    end = time.monotonic() + SECONDS

    def going_on() -> bool:
        now = time.monotonic()
        return now < end or (now < end + PATIENCE and not Execution.objects.exists())

    def repeat(act: Callable[[World], None]) -> None:
        start.wait()
        while going_on():
            try:
                answered(act, world)
            except Exception as error:
                broken.append(error)
            time.sleep(0.02)
        connection.close()

    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    # One request, one attempt, one execution for each claimed approval, and a quorum for each.
    claimed = ApprovalEntry.objects.filter(state=EntryState.CLAIMED)
    assert Execution.objects.count() == claimed.count() == Attempt.objects.filter(number__gt=1).count() > 0
    for entry in claimed:
        assert Vote.objects.filter(entry=entry, state=ApprovalState.APPROVED).exists()
        assert not Vote.objects.filter(entry=entry, state=ApprovalState.DENIED).exists()
    assert not Case.objects.filter(state__in=[CaseState.SENDING, CaseState.UNKNOWN]).exists()
    # The connector that fails was held back in time; what was delivered to it afterwards was never tried.
    for case in Case.objects.exclude(state=CaseState.PARKED):
        assert case.attempts.count() == case.attempt_count
        assert (case.attempts.latest("number").outcome == "delivered") == (case.state == CaseState.DELIVERED)
