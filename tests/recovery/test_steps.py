"""Steps of a playbook: ticked by those who did them, or by the rows that show them (CONSOLE, Recovery)."""

import threading
from datetime import datetime
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from evidence.connectors.failures import STEPS
from evidence.domain import records, text
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.errors import DomainError, StaleState
from evidence.models import Person, Record
from recovery.domain import closures, fulfilment, playbooks, recoveries, steps
from recovery.domain.closures import ClosureRequest
from recovery.domain.playbooks import CLOSING_STEPS
from recovery.domain.steps import Step
from recovery.enums import ApprovalState, ClosureState
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import Playbook, Recovery, StepTick
from tests.builders import Clock, World, person
from tests.endpoints import client, written
from tests.recovery.checks import payload


def post(who: Person, step: str, provider: str = "webhook", **body: Any) -> Any:
    return client(who).post(f"/api/v1/recoveries/{provider}/steps/{step}", body, format="json")


def ticked(world: World, step: str, *, done: bool = True, note: str = "", by: Person | None = None) -> Any:
    answer = post(by or world.analyst, step, done=done, note=note)
    assert answer.status_code == 200, answer.json()
    return answer.json()["step"]


def refused(world: World, step: str, status: int, code: str, **body: Any) -> str:
    before = written()
    answer = post(world.analyst, step, **{"done": True, **body})
    assert (answer.status_code, answer.json()["code"], written()) == (status, code, before)
    return answer.json()["detail"]


def step_of(key: str, provider: str = "webhook") -> Step:
    found = steps.steps_of(recoveries.newest(provider), system_clock())
    return {step.key: step for step in found}[key]


def written_down(playbook: Playbook, key: str) -> tuple[bool, str, str]:
    """What a playbook's own document says about a step of its one connector."""
    (about,) = payload(playbook.playbook_id)["provider_playbooks"]
    (step,) = [step for step in about["steps"] if step["step_key"] == key]
    return step["done"], step["done_by"], step["done_at"]


def dry_run(world: World, **request: Any) -> str:
    return runs.start(RunRequest(**request), by=world.operator, clock=world.clock).run.run_id


def resolved(world: World) -> Playbook:
    """Failed, unless a recovery is open already; recovered and closed as resolved."""
    if not Recovery.objects.exists():
        world.failed()
    world.approved()
    (done,) = world.ran().outcome.recorded
    playbook = world.playbook()
    world.closed(playbook, "webhook", (done.execution.execution_id,))
    return playbook


def reopened(world: World) -> None:
    """The next epoch over the same cases, with a playbook of its own."""
    request = ClosureRequest(provider="webhook", state=ClosureState.REOPENED, reason="the receiver lost it")
    closures.close(resolved(world), request, by=world.second_analyst, clock=world.clock)
    world.playbook()


# --- by hand ------------------------------------------------------------------------------------------------------


def test_a_tick_says_who_did_what_when_in_a_record(world: World) -> None:
    (case,) = world.failed()
    playbook = world.playbook()
    assert not step_of("check_owner").done
    before = written()
    said = ticked(world, "check_owner", note="  Asked the owner. CHG-812  ")
    assert written() == before + 1
    tick = StepTick.objects.get()
    assert said == {
        **said,
        "tick_id": tick.tick_id,
        "tick_hash": tick.record_hash,
        "playbook_id": playbook.playbook_id,
        "playbook_hash": playbook.record_hash,
        "provider": "webhook",
        "recovery_epoch": 1,
        "step_key": "check_owner",
        "text": STEPS["check_owner"],
        "done": True,
        "done_by": world.analyst.username,
        "done_at": records.timestamp(tick.ticked_at),
        "note": "Asked the owner. CHG-812",
    }
    document = records.load(Record.objects.get(record_id=tick.tick_id).body)
    assert document["cases"] == [case.case_id]
    assert [one["id"] for one in document["references"]] == [playbook.playbook_id]
    step = step_of("check_owner")
    assert step == Step(
        "check_owner",
        STEPS["check_owner"],
        steps.EXPECTED["check_owner"],
        automatic=False,
        done=True,
        done_by=world.analyst.username,
        done_at=tick.ticked_at,
        note="Asked the owner. CHG-812",
        tick_record_id=tick.tick_id,
    )


def test_a_tick_is_taken_back_by_another_record(world: World) -> None:
    world.failed()
    world.playbook()
    first = ticked(world, "check_owner")
    second = ticked(world, "check_owner", done=False, note="It was another owner.", by=world.second_analyst)
    assert (second["done"], second["done_by"]) == (False, world.second_analyst.username)
    step = step_of("check_owner")
    assert (step.done, step.done_by, step.done_at, step.note, step.tick_record_id) == (
        False,
        "",
        None,
        "",
        "",
    )
    assert [tick.tick_id for tick in StepTick.objects.order_by("pk")] == [first["tick_id"], second["tick_id"]]
    ticked(world, "check_owner")
    assert step_of("check_owner").done


def test_who_was_first_is_named(world: World) -> None:
    world.failed()
    world.playbook()
    assert "nobody has ticked" in refused(world, "check_owner", 409, "stale_state", done=False)
    for done, words in ((True, "ticked this step"), (False, "took this step back")):
        said = ticked(world, "check_owner", done=done, by=world.second_analyst)
        when = text.moment(datetime.fromisoformat(said["done_at"]))
        assert (
            refused(world, "check_owner", 409, "stale_state", done=done)
            == f"Not recorded: {world.second_analyst.username} {words} at {when}, before you."
        )
    assert StepTick.objects.count() == 2


def test_what_is_not_there_is_not_ticked(two: World) -> None:
    refused(two, "check_owner", 404, "recovery_not_found")
    two.failed("webhook", status=503)
    two.failed("backup", status=401)
    two.playbook()
    refused(two, "no_such_step", 404, "step_not_found")
    # The other connector's step: its credential was refused, not this one's.
    refused(two, "rotate_credential", 404, "step_not_found")
    answer = post(two.analyst, "rotate_credential", provider="Backup", done=True)
    assert (answer.status_code, answer.json()["step"]["provider"]) == (200, "backup")
    assert post(two.analyst, "check_owner", provider="nowhere", done=True).status_code == 404


def test_a_reopened_recovery_has_steps_once_it_has_a_playbook(world: World) -> None:
    request = ClosureRequest(provider="webhook", state=ClosureState.REOPENED, reason="it was lost")
    closures.close(resolved(world), request, by=world.second_analyst, clock=world.clock)
    assert steps.steps_of(recoveries.newest("webhook"), system_clock()) == []
    refused(world, "check_owner", 404, "playbook_not_found")
    world.playbook()
    assert ticked(world, "check_owner")["recovery_epoch"] == 2


def test_a_finished_recovery_keeps_its_steps(world: World) -> None:
    resolved(world)
    assert "recovery 1 of webhook is resolved" in refused(world, "check_owner", 409, "recovery_finished")


@pytest.mark.parametrize(
    ("body", "field"),
    (
        ({}, "done"),
        ({"done": None}, "done"),
        ({"done": "true"}, "done"),
        ({"done": 1}, "done"),
        ({"done": True, "note": "x" * (steps.MAX_NOTE + 1)}, "note"),
        ({"done": True, "note": "two\nlines"}, "note"),
        ({"done": True, "note": "hidden\u202e"}, "note"),
        ({"done": True, "note": 7}, "note"),
        ({"done": True, "by": "somebody"}, "by"),
    ),
)
def test_a_body_of_another_shape_is_refused(world: World, body: dict[str, Any], field: str) -> None:
    world.failed()
    world.playbook()
    answer = post(world.analyst, "check_owner", **body)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert not StepTick.objects.exists()


@pytest.mark.parametrize(
    "role", (Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.ADMINISTRATOR)
)
def test_only_analysts_tick(world: World, role: Role) -> None:
    world.failed()
    world.playbook()
    answer = post(person(role), "check_owner", done=True)
    assert answer.status_code == 403
    with pytest.raises(DomainError) as caught:
        steps.tick(
            recoveries.newest("webhook"),
            "check_owner",
            done=True,
            note="",
            by=person(role),
            clock=system_clock,
        )
    assert caught.value.code == "role_required"
    assert not StepTick.objects.exists()


def test_a_note_of_the_domain_is_clean_text_too(world: World) -> None:
    world.failed()
    world.playbook()
    recovery = recoveries.newest("webhook")
    with pytest.raises(DomainError) as caught:
        steps.tick(recovery, "check_owner", done=True, note="a\u200bb", by=world.analyst, clock=system_clock)
    assert (caught.value.code, list(caught.value.errors)) == ("invalid_text", ["note"])


def test_ticks_are_never_changed(world: World) -> None:
    world.failed()
    world.playbook()
    ticked(world, "check_owner")
    with pytest.raises(IntegrityError), transaction.atomic():
        StepTick.objects.update(done=False)
    with pytest.raises(IntegrityError), transaction.atomic():
        StepTick.objects.all().delete()


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_of_several_who_tick_at_once_one_is_recorded(committed: World) -> None:
    world = committed
    world.failed()
    world.playbook()
    recovery = Recovery.objects.get()
    start = threading.Barrier(4)
    refusals: list[Exception] = []

    def tick() -> None:
        try:
            start.wait()
            steps.tick(recovery, "check_owner", done=True, note="", by=world.analyst, clock=system_clock)
        except Exception as error:
            refusals.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error) for error in refusals] == [StaleState] * 3
    assert StepTick.objects.count() == 1


# --- from one playbook to the next ----------------------------------------------------------------------------------


def test_a_newer_playbook_carries_ticks_over(world: World) -> None:
    world.failed(status=503)
    first = world.playbook()
    said = ticked(world, "check_owner", note="CHG-812")
    ticked(world, "check_receiver")
    ticked(world, "check_receiver", done=False)
    # Other failures, other steps; what both list is still done.
    world.failed(status=401)
    second = world.playbook()
    assert written_down(first, "check_owner") == (False, "", "")
    assert written_down(second, "check_owner") == (True, world.analyst.username, said["done_at"])
    assert written_down(second, "check_receiver") == (False, "", "")
    assert written_down(second, "rotate_credential") == (False, "", "")
    step = step_of("check_owner")
    assert (step.done, step.note, step.tick_record_id) == (True, "CHG-812", said["tick_id"])
    # The next tick speaks of the playbook that counts now.
    assert ticked(world, "rotate_credential")["playbook_id"] == second.playbook_id


def test_an_older_playbook_s_step_is_none_any_more(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.playbook()
    clock.forward(hours=25)
    timed.playbook()
    # The failures are too old to point at anything.
    assert [step.key for step in steps.steps_of(Recovery.objects.get(), clock())] == list(CLOSING_STEPS)
    refused(timed, "check_receiver", 404, "step_not_found")


def test_the_next_epoch_begins_with_nothing_done(world: World) -> None:
    world.failed()
    world.playbook()
    ticked(world, "check_owner")
    dry_run(world)
    reopened(world)
    assert [
        step.key for step in steps.steps_of(recoveries.newest("webhook"), system_clock()) if step.done
    ] == []
    (about,) = payload(Playbook.objects.latest("pk").playbook_id)["provider_playbooks"]
    assert (about["recovery_epoch"], any(step["done"] for step in about["steps"])) == (2, False)


# --- by the rows ----------------------------------------------------------------------------------------------------


def test_a_dry_run_that_looked_at_the_connector_ticks_its_step(world: World) -> None:
    world.failed()
    dry_run(world)  # before there was a recovery
    first = world.playbook()
    assert not step_of("dry_run").done
    assert written_down(first, "dry_run") == (False, "", "")
    run_id = dry_run(world)
    step = step_of("dry_run")
    assert (step.done, step.automatic, step.done_by) == (True, True, world.operator.username)
    assert step.tick_record_id == run_id
    assert written_down(world.playbook(), "dry_run") == (
        True,
        world.operator.username,
        records.timestamp(step.done_at),
    )


def test_a_run_about_something_else_does_not(two: World) -> None:
    two.failed("backup")
    two.failed("webhook")
    two.playbook()
    other = recoveries.affected_cases(recoveries.newest("backup"))[0].case
    dry_run(two, cases=(other.case_id,))
    assert (step_of("dry_run", "backup").done, step_of("dry_run", "webhook").done) == (True, False)
    two.approved()
    two.ran(cases=(other.case_id,))
    assert not step_of("dry_run", "webhook").done


def test_a_live_run_is_no_dry_run(world: World) -> None:
    world.failed()
    world.playbook()
    world.approved()
    world.ran()
    assert not step_of("dry_run").done


def test_an_approval_ticks_its_step(world: World) -> None:
    world.failed()
    world.playbook()
    (entry,) = world.requested()
    world.vote(entry, ApprovalState.DEFERRED, by=world.second_approver)
    assert not step_of("approval").done
    world.vote(entry)
    vote = entry.votes.latest("pk")
    step = step_of("approval")
    assert (step.done, step.done_by, step.done_at) == (True, world.approver.username, vote.decided_at)
    assert (step.automatic, step.tick_record_id) == (True, vote.decision_id)
    assert written_down(world.playbook(), "approval")[:2] == (True, world.approver.username)


def test_an_approval_of_another_connector_s_retry_does_not(two: World) -> None:
    two.failed("backup")
    two.failed("webhook")
    two.playbook()
    for entry in two.requested():
        if entry.connector.key == "backup":
            two.vote(entry)
    assert (step_of("approval", "backup").done, step_of("approval", "webhook").done) == (True, False)


@pytest.mark.parametrize("key", tuple(fulfilment.AUTOMATIC))
@pytest.mark.parametrize("done", (True, False))
def test_nobody_ticks_by_hand_what_the_rows_show(world: World, key: str, done: bool) -> None:
    world.failed()
    world.playbook()
    said = refused(world, key, 409, "step_ticks_itself", done=done)
    assert said == f"Not recorded: this step ticks itself. {step_of(key).evidence}"
    assert not StepTick.objects.exists()


def test_steps_are_shown_as_known_at_a_moment(timed: World, clock: Clock) -> None:
    timed.failed()
    timed.playbook()
    recovery = recoveries.newest("webhook")
    before = clock()
    clock.forward(minutes=5)
    steps.tick(recovery, "check_owner", done=True, note="", by=timed.analyst, clock=clock)
    dry_run(timed)
    timed.approved()
    assert [step.key for step in steps.steps_of(recovery, before) if step.done] == []
    assert {step.key for step in steps.steps_of(recovery, clock()) if step.done} == {
        "check_owner",
        "dry_run",
        "approval",
    }


# --- the tables -----------------------------------------------------------------------------------------------------


def test_every_step_says_what_shows_it() -> None:
    known = {*STEPS, *CLOSING_STEPS}
    assert fulfilment.AUTOMATIC.keys() <= CLOSING_STEPS.keys()
    assert {*steps.EXPECTED, *fulfilment.AUTOMATIC} == known
    assert not steps.EXPECTED.keys() & fulfilment.AUTOMATIC.keys()
    room = StepTick._meta.get_field("step_key").max_length
    assert max(map(len, known)) <= room
    assert StepTick._meta.get_field("note").max_length == steps.MAX_NOTE


def test_a_page_of_steps_costs_the_same_however_much_was_ticked(
    world: World, django_assert_num_queries: Any
) -> None:
    world.failed()
    world.playbook()
    recovery = recoveries.newest("webhook")
    at = system_clock()
    with django_assert_num_queries(6):
        steps.steps_of(recovery, at)
    for key in ("check_owner", "check_receiver", "check_arrival", "reference"):
        ticked(world, key)
        dry_run(world)
    world.approved()
    with django_assert_num_queries(6):
        found = steps.steps_of(recovery, system_clock())
    assert all(step.done for step in found)
    assert len(found) == len(playbooks.listed_steps(Playbook.objects.get(), recovery)) == 6
