"""The whole chain through its verbs, with a receiver that keeps its own log."""

from evidence.enums import CaseState
from evidence.models import Attempt, Case
from recovery.models import Execution, Recovery
from tests.builders import World


def test_failed_delivery_is_retried_once_and_its_recovery_closed(world: World) -> None:
    (case,) = world.failed()
    assert case.state == CaseState.FAILED
    world.approved()
    started = world.ran()
    (done,) = started.outcome.recorded
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    assert [a.number for a in Attempt.objects.filter(case=case)] == [1, 2]
    playbook = world.playbook()
    closure = world.closed(playbook, "webhook", (done.execution.execution_id,))
    assert Recovery.objects.get().state == "resolved"
    assert (
        closure.view["connector_recovery_closure"]["verified"][0]["execution_id"]
        == done.execution.execution_id
    )
    # notification, failed first attempt, retry
    assert len(world.receiver.arrived("/webhook")) == 3
    assert world.ran().entries == []
    assert Execution.objects.count() == 1
    assert Case.objects.count() == 1
