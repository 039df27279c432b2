"""One world in which everything happened once: a row in every table that records tell."""

from datetime import UTC, datetime, timedelta

from django.conf import settings

from evidence.documents import NOTIFICATION_PLAN
from evidence.domain import (
    anchors,
    canaries,
    capsules,
    checkpoints,
    configuration,
    epochs,
    erasures,
    holds,
    parking,
    people,
    retention,
    troubles,
)
from evidence.domain.anchors import Kept
from evidence.enums import Administration, AnchorMeans, CaseState, Role
from evidence.models import Anchor, Case, Connector, RetentionRule
from recovery.documents import ATTESTATION
from recovery.domain import approvals, closures, manifests, renewals, sets, steps
from recovery.domain.approvals import Ballot
from recovery.domain.closures import ClosureRequest
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, ClosureState, RetryAckState, Seen
from recovery.models import Attestation, Recovery
from tests.builders import IMMEDIATE, Clock, World, connector, person, schedule
from tests.heads import lay_outside
from tests.receiver import Receiver

YES = Ballot(state=ApprovalState.APPROVED, notes="still right")


def rich_world(receiver: Receiver) -> World:
    """Walks every verb of the chain, from people to a new epoch; a key of the log is introduced already."""
    clock = Clock(datetime.now(UTC) + timedelta(minutes=1))
    world = World(receiver, providers=("webhook", "backup"), clock=clock)
    _people(world)
    _edited(world)
    schedule("rollback-weekly")
    _retried(world, clock)
    _together(world)
    _settled_by_people(world)
    _recovered(world, clock)
    _held_back(world, clock)
    anchored(world, Administration.THIRD_PARTY)
    capsules.freeze(Case.objects.filter(state=CaseState.DELIVERED)[0], by=world.auditor, clock=clock)
    _held_and_not_erased(world)
    _new_epoch(world)
    return world


def anchored(world: World, administered_by: Administration) -> Anchor:
    """A signed head that somebody keeps."""
    checkpoint = checkpoints.make(clock=world.clock) or checkpoints.latest()
    assert checkpoint
    kept = Kept(AnchorMeans.FILE, "the safe of the bank", b"received", world.clock())
    return anchors.hold(checkpoint, kept, administered_by=administered_by, by=None, clock=world.clock)


def _failed(world: World) -> Case:
    """A case of its own whose first attempt failed."""
    (case,) = world.failed("webhook")
    return case


def _people(world: World) -> None:
    service = person(Role.OPERATOR, owner=world.operator)
    people.revoke_role(service, Role.OPERATOR, by=world.administrator, clock=world.clock)
    people.set_active(person(Role.VIEWER), False, by=world.administrator, clock=world.clock)


def _edited(world: World) -> None:
    row = Connector.objects.get(key="webhook")
    row.timeout_ms += 1
    configuration.save(row, by=world.administrator, clock=world.clock)


def _retried(world: World, clock: Clock) -> None:
    """A request that ran out, was renewed and delivered; another that passed, and one that was withdrawn."""
    _failed(world)
    (entry,) = world.approved()
    clock.forward(hours=5)
    assert approvals.expire(clock=clock) == 1
    renewals.renew(list(approvals.entries().filter(pk=entry.pk)), YES, by=world.second_approver, clock=clock)
    configuration.pause("*", reason="a look first", by=world.administrator, clock=clock)
    world.ran(policy=IMMEDIATE)
    configuration.resume("*", by=world.administrator, clock=clock)
    assert world.ran(policy=IMMEDIATE).outcome.recorded[0].receipt.delivered
    _failed(world)
    (entry,) = world.requested()
    approvals.withdraw(entry, YES, by=world.analyst, clock=clock)


def _together(world: World) -> None:
    """A set of two, one of which was not approved."""
    failed = [_failed(world).case_id, _failed(world).case_id]
    sets.choose(failed, {"state": "failed"}, by=world.analyst, clock=world.clock)
    row = sets.choose(failed, {"state": "failed"}, by=world.analyst, clock=world.clock)
    sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
    review = Review(provider="", state=RetryAckState.ACCEPTED, external_ref="CHG-1")
    sets.acknowledge(row, review, by=world.second_analyst, clock=world.clock)
    row = sets.request(row, by=world.analyst, clock=world.clock, reason="the receiver is back")
    first, second = approvals.entries().filter(set_items__retry_set=row).order_by("pk")
    ballot = Ballot(state=ApprovalState.APPROVED, set_digest=manifests.digest_of([first]))
    sets.decide(row, ballot, by=world.approver, clock=world.clock, entry_ids=[first.entry_id])
    world.vote(second, ApprovalState.DENIED)
    world.ran(set_id=row.set_id, policy=IMMEDIATE)


def _settled_by_people(world: World) -> None:
    """One retry nobody heard of, and a case that two people abandoned."""
    unheard = world.unknown().execution.case
    world.attested(unheard, Seen.DELIVERED, world.second_analyst, world.approver)
    world.disposed(_failed(world))
    world.proposed(_failed(world))


def _recovered(world: World, clock: Clock) -> None:
    """A recovery that was put off, came back by itself, and was reopened once it was resolved."""
    world.failed("backup")
    world.playbook()
    playbook = world.playbook()
    recovery = Recovery.objects.get(connector__key="webhook")
    steps.tick(recovery, "reference", done=True, note="noted", by=world.analyst, clock=clock)
    for state in (ClosureState.MITIGATED, ClosureState.REOPENED):
        request = ClosureRequest(
            provider="webhook",
            state=state,
            owner="ops" if state is ClosureState.MITIGATED else "",
            review_at=clock() + timedelta(days=2) if state is ClosureState.MITIGATED else None,
            reason="as agreed",
        )
        closures.close(playbook, request, by=world.second_analyst, clock=clock)


def _held_back(world: World, clock: Clock) -> None:
    """A connector kept failing and another one was told; then tests opened its breaker: what came for it waits, for
    somebody else by now."""
    connector("chat", world.receiver.url("/chat"))
    pager = connector("pager", world.receiver.url("/pager"))
    pager.announce_through = "chat"
    configuration.save(pager, by=world.administrator, clock=clock)
    world.failed("pager")
    clock.forward(hours=1, minutes=1)
    troubles.announce(clock=clock)
    canaries.send(pager, by=world.operator, clock=clock)
    troubles.announce(clock=clock)
    world.receiver.behave("/pager", status=503)
    for _ in range(settings.CAVRA_BREAKER_FAILURES):
        clock.forward(seconds=11)
        canaries.send(pager, by=world.operator, clock=clock)
    (waits,) = world.delivered("pager")
    parking.take_over(waits, reason="They are away.", by=world.second_analyst, clock=clock)


def _held_and_not_erased(world: World) -> None:
    """Somebody asked for an erasure and was refused; a legal hold came and went."""
    rule = RetentionRule(kind=ATTESTATION.name, keep_days=900, legal_basis="policy 7", enabled=False)
    configuration.save(rule, by=world.administrator, clock=world.clock)
    rule = RetentionRule(kind=NOTIFICATION_PLAN.name, keep_days=800, legal_basis="policy 8")
    configuration.save(rule, by=world.administrator, clock=world.clock)
    retention.confirm(rule, by=world.auditor, clock=world.clock)
    said = Attestation.objects.order_by("pk")[0].attestation_id
    erasure = erasures.propose([said], "GDPR 17", "asked for", by=world.administrator, clock=world.clock)
    erasures.refuse(erasure, notes="it is needed", by=world.auditor, clock=world.clock)
    erasures.propose([said], "GDPR 17", "asked again", by=world.administrator, clock=world.clock)
    hold = holds.place("*", reason="a court asks", by=world.auditor, clock=world.clock)
    holds.lift(hold, reason="the court is done", by=world.auditor, clock=world.clock)


def _new_epoch(world: World) -> None:
    """The database was set back: what waits for approval is void, and one proposal was taken back before."""
    _failed(world)
    world.requested()
    path = lay_outside(ahead=20)
    first = epochs.propose(reason="backup of 10:00", by=world.administrator, clock=world.clock)
    epochs.withdraw(first, reason="another copy was found", by=world.administrator, clock=world.clock)
    again = epochs.propose(reason="backup of 10:00", by=world.administrator, clock=world.clock)
    epochs.confirm(again, by=world.auditor, clock=world.clock)
    path.unlink()
