"""First deliveries that have to wait: parked, said, and sent once when nothing holds their connector back (P16)."""

import json
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.test import Client
from django.urls import reverse

from evidence.connectors import sender
from evidence.domain import (
    attempts,
    configuration,
    deliveries,
    drills,
    events,
    packages,
    parking,
    people,
    records,
    sending,
    verification,
)
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import Delivered, DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Answer, CaseState, FailureClass, Outcome, Role
from evidence.errors import Conflict
from evidence.models import Attempt, Breaker, Case, Connector, Parking, Record
from tests.builders import Clock, World, connector
from tests.evidence.breaking import closed, heard, opened, window
from tests.processes import together
from tests.receiver import Receiver


@pytest.fixture
def two(db: None, receiver: Receiver, clock: Clock) -> World:
    return World(receiver, providers=("webhook", "backup"), clock=clock)


@pytest.fixture
def committed(transactional_db: None, receiver: Receiver, clock: Clock) -> World:
    return World(receiver, clock=clock)


def deliver(world: World, *providers: str, **request: Any) -> Delivered:
    """Announce, acknowledge and deliver content of its own."""
    world.acknowledged()
    asked = DeliveryRequest(
        filters=PackageFilters(), providers=providers, **{"retries": 0, "timeout_s": 5.0, **request}
    )
    return deliveries.deliver_audit(asked, by=world.analyst, clock=world.clock)


def parked(world: World, clock: Clock, *providers: str) -> Case:
    """A case that waits for its connector, whose breaker is open."""
    world.announced()
    opened((providers or ("webhook",))[0], clock)
    (case,) = deliver(world, *(providers or ("webhook",))).cases
    assert case.state == CaseState.PARKED
    return case


def states() -> dict[str, str]:
    return dict(Case.objects.values_list("connector__key", "state"))


# --- parked -------------------------------------------------------------------------------------------------------


def test_p16_a_delivery_to_a_connector_that_is_held_back_is_parked_and_said(two: World, clock: Clock) -> None:
    two.announced()
    opened("webhook", clock)
    before = len(two.receiver.log)
    done = deliver(two)
    # P17: the other connector's goes out.
    assert states() == {"webhook": CaseState.PARKED, "backup": CaseState.DELIVERED}
    assert len(two.receiver.log) == before + 1
    assert not done.success
    (said,) = done.parked
    case = Case.objects.get(state=CaseState.PARKED)
    assert (said["case"], said["provider"], said["code"]) == (case.case_id, "webhook", "breaker_open")
    assert "held back after 5 failures in a row" in said["reason"]
    assert said["until"] == records.timestamp(Breaker.objects.get().probe_at or clock())
    assert (case.attempt_count, case.lease_until, case.created_by) == (0, None, two.analyst)
    assert not Attempt.objects.filter(case=case).exists()
    assert list(verification.verify()) == []


def test_p16_when_everything_waits_nothing_is_sent_and_the_plan_is_there(two: World, clock: Clock) -> None:
    two.announced()
    window("webhook", clock(), clock() + timedelta(hours=2), clock)
    opened("backup", clock)
    done = deliver(two)
    assert done.delivery is None
    assert [(one["provider"], one["code"]) for one in done.parked] == [
        ("backup", "breaker_open"),
        ("webhook", "maintenance_window"),
    ]
    assert list(verification.verify()) == []


def test_p1_content_that_waits_is_not_delivered_a_second_time(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    asked = DeliveryRequest(filters=PackageFilters(), providers=("webhook",))
    with pytest.raises(Conflict) as refused:
        deliveries.deliver_audit(asked, by=two.analyst, clock=clock)
    assert (refused.value.code, refused.value.extra["case"]) == ("delivery_parked", case.case_id)
    assert "sent by itself" in refused.value.detail


def test_pausing_and_disabling_refuse_as_before_and_parked_ones_wait_on(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    configuration.pause("webhook", reason="freeze", by=two.administrator, clock=clock)
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 0
    with pytest.raises(Conflict) as refused:
        deliver(two, "webhook")
    assert refused.value.code == "sending_paused"
    assert parking.why(case, clock(), clock=clock)["reasons"] == ["Live sending to webhook is paused."]  # type: ignore[index]
    configuration.resume("webhook", by=two.administrator, clock=clock)
    row = Connector.objects.get(key="webhook")
    row.enabled = False
    configuration.save(row, by=None, clock=clock)
    assert deliveries.send_parked(clock=clock) == 0
    row.enabled = True
    configuration.save(row, by=None, clock=clock)
    assert deliveries.send_parked(clock=clock) == 1


# --- sent ---------------------------------------------------------------------------------------------------------


def test_it_is_sent_once_when_the_window_is_over(two: World, clock: Clock) -> None:
    two.announced()
    window("webhook", clock(), clock() + timedelta(hours=1), clock)
    deliver(two, "webhook")
    before = len(two.receiver.log)
    clock.forward(minutes=59)
    assert deliveries.send_parked(clock=clock) == 0
    clock.forward(minutes=1)
    assert deliveries.send_parked(clock=clock) == 1
    assert deliveries.send_parked(clock=clock) == 0
    assert len(two.receiver.log) == before + 1
    case = Case.objects.get()
    assert (case.state, case.attempt_count, case.counted_attempts) == (CaseState.DELIVERED, 1, 1)
    released = records.payload_of(Record.objects.get(kind__endswith="delivery-release"))
    assert released is not None
    assert (released["waited_s"], released["parking_id"]) == (3_600, Parking.objects.get().record_id)
    assert list(verification.verify()) == []


def test_it_is_what_would_have_been_sent_at_once(two: World, clock: Clock) -> None:
    """Waiting changes no byte: the receiver knows it by the same key (P20) and its place in the stream."""
    case = parked(two, clock)
    then = sending.prepare_event(case.connector, events.event_for(case), about=case.case_id)
    clock.forward(hours=5)
    closed("webhook", clock)
    deliveries.send_parked(clock=clock)
    sent = two.receiver.log[-1]
    assert sent.body == then.body
    assert sent.headers["idempotency-key"] == dict(then.public_headers)["idempotency-key"]


def test_the_oldest_goes_first_and_a_few_at_a_time(two: World, clock: Clock) -> None:
    two.announced()
    opened("webhook", clock)
    cases = [deliver(two, "webhook").cases[0] for _ in range(6)]
    closed("webhook", clock)
    ((_, pks),) = parking.due(clock())
    assert pks == [case.pk for case in cases[: parking.AT_ONCE]]
    assert deliveries.send_parked(clock=clock) == 6
    assert set(states().values()) == {CaseState.DELIVERED}


def test_a_receiver_that_is_down_again_is_not_run_over(two: World, clock: Clock) -> None:
    """Five fail, the breaker opens, and the rest waits on: nothing is lost and nothing else fails."""
    two.announced()
    opened("webhook", clock)
    for _ in range(9):
        deliver(two, "webhook")
    closed("webhook", clock)
    two.receiver.behave("/webhook", status=503)
    row = Connector.objects.get(key="webhook")
    row.max_concurrency = 1
    configuration.save(row, by=None, clock=clock)
    assert deliveries.send_parked(clock=clock) == 5
    assert Case.objects.filter(state=CaseState.FAILED).count() == 5
    assert Case.objects.filter(state=CaseState.PARKED).count() == 4


def test_p17_a_slow_receiver_holds_up_nobody_elses_parked_deliveries(two: World, clock: Clock) -> None:
    two.announced()
    for key in ("webhook", "backup"):
        opened(key, clock)
    for _ in range(6):
        deliver(two)
    for key in ("webhook", "backup"):
        closed(key, clock)
    two.receiver.behave("/webhook", delay_s=1.5)
    seen: list[tuple[float, str]] = []
    start = time.monotonic()

    def watch() -> None:
        done = Case.objects.filter(state=CaseState.DELIVERED).values_list("connector__key", flat=True)
        seen.extend((time.monotonic() - start, key) for key in done)

    assert deliveries.send_parked(clock=clock, beat=watch) == 12
    quick = [at for at, key in seen if key == "backup"]
    # All six of the quick one were there before the first of the slow one.
    first_slow = min((at for at, key in seen if key == "webhook"), default=99.0)
    assert min(quick) < first_slow
    assert sum(1 for at, key in seen if key == "backup" and at < first_slow) >= 6


def test_a_connector_that_was_broken_meanwhile_fails_alone_and_says_so(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    row = Connector.objects.get(key="webhook")
    row.url, row.url_ref = "", "env:CAVRA_TEST_NOT_SET"
    configuration.save(row, by=None, clock=clock)
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 1
    attempt = Attempt.objects.get(case=case)
    assert (attempt.answer, attempt.failure_class) == (Answer.NOT_SENT, FailureClass.AUTH_SETUP)
    case.refresh_from_db()
    assert case.state == CaseState.FAILED


def test_what_its_owner_may_not_do_any_more_is_not_done_for_them(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    people.revoke_role(two.analyst, Role.ANALYST, by=two.administrator, clock=clock)
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 0
    assert parking.release(case.pk, clock=clock) is None
    said = parking.why(Case.objects.get(pk=case.pk), clock(), clock=clock)
    assert said is not None
    assert said["reasons"] == [f"{two.analyst.username} asked for it and may not deliver any more."]


def test_p15_what_cannot_go_keeps_nothing_behind_it(two: World, clock: Clock) -> None:
    two.announced()
    opened("webhook", clock)
    for _ in range(parking.AT_ONCE + 1):
        deliver(two, "webhook")
    two.analyst, gone = two.second_analyst, two.analyst
    (last,) = deliver(two, "webhook").cases
    people.revoke_role(gone, Role.ANALYST, by=two.administrator, clock=clock)
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 1
    last.refresh_from_db()
    assert last.state == CaseState.DELIVERED


@pytest.mark.parametrize("why", ("owner", "clock"))
def test_what_waits_for_longer_is_not_locked_in_every_round(
    two: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """The worker looks every second: each claim that is tried in vain holds the database's only writer."""
    parked(two, clock)
    closed("webhook", clock)
    if why == "owner":
        people.revoke_role(two.analyst, Role.ANALYST, by=two.administrator, clock=clock)
    else:
        clock.forward(minutes=-5)

    def tried(*_: Any, **__: Any) -> None:
        raise AssertionError("tried to claim what cannot go")

    monkeypatch.setattr(parking, "release", tried)
    assert deliveries.send_parked(clock=clock) == 0


# --- crashes and races --------------------------------------------------------------------------------------------


def test_p3_a_crash_between_claim_and_answer_ends_unknown_and_is_not_sent_again(
    two: World, clock: Clock
) -> None:
    case = parked(two, clock)
    closed("webhook", clock)
    before = len(two.receiver.log)
    claimed = parking.release(case.pk, clock=clock)
    assert claimed is not None
    # Nobody else takes it over while the lease runs, or afterwards.
    assert parking.release(case.pk, clock=clock) is None
    clock.forward(minutes=5)
    assert deliveries.send_parked(clock=clock) == 0
    assert deliveries.expire_leases(clock=clock) == 1
    assert deliveries.send_parked(clock=clock) == 0
    case.refresh_from_db()
    assert case.state == CaseState.UNKNOWN
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.outcome, attempt.may_have_arrived) == (1, Outcome.UNKNOWN, True)
    assert len(two.receiver.log) == before
    assert list(verification.verify()) == []


def test_one_whose_order_cannot_be_made_is_not_waited_for(
    two: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away right after the claim: the worker goes on, and the lease ends what it had."""
    case = parked(two, clock)
    closed("webhook", clock)
    before = len(two.receiver.log)

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the server closed the connection unexpectedly")

    def waits() -> None:
        raise AssertionError("waits for an answer that nobody will give")

    with monkeypatch.context() as patch:
        patch.setattr(sending, "order_for", away)
        patch.setattr(attempts, "WRITE_PAUSES_S", ())
        assert deliveries.send_parked(clock=clock, beat=waits) == 0
    case.refresh_from_db()
    assert case.state == CaseState.SENDING
    clock.forward(minutes=5)
    assert deliveries.expire_leases(clock=clock) == 1
    assert deliveries.send_parked(clock=clock) == 0
    assert len(two.receiver.log) == before


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p2_two_workers_send_each_parked_delivery_once(committed: World, clock: Clock) -> None:
    world = committed
    world.announced()
    opened("webhook", clock)
    for _ in range(6):
        deliver(world, "webhook")
    closed("webhook", clock)
    before = len(world.receiver.log)
    results = together(*[partial(deliveries.send_parked, clock=clock)] * 3)
    assert [one for one in results if isinstance(one, Exception)] == []
    assert sum(results) == 6  # type: ignore[arg-type]
    keys = [one.headers["idempotency-key"] for one in world.receiver.log[before:]]
    assert (len(keys), len(set(keys))) == (6, 6)
    assert list(Attempt.objects.values_list("number", flat=True)) == [1] * 6
    assert list(verification.verify()) == []


def test_the_database_refuses_attempt_1_twice(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    closed("webhook", clock)
    deliveries.send_parked(clock=clock)
    attempt = Attempt.objects.get(case=case)
    attempt.pk, attempt.attempt_id = None, "rcd-0000000000000000.webhook"
    with pytest.raises(IntegrityError), transaction.atomic():
        attempt.save(force_insert=True)


def test_the_database_knows_what_parked_means(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    for wrong in ({"attempt_count": 1}, {"lease_until": clock()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Case.objects.filter(pk=case.pk).update(**wrong)
    for act in (lambda: Parking.objects.update(retries=5), lambda: Parking.objects.all().delete()):
        with pytest.raises(IntegrityError), transaction.atomic():
            act()


def test_p3_a_late_answer_of_a_parked_one_is_kept(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    closed("webhook", clock)
    claimed = parking.release(case.pk, clock=clock)
    assert claimed is not None
    order = sending.order_for(claimed, retries=0, timeout_s=5.0)
    assert not isinstance(order, sender.Receipt)
    (receipt,) = sender.shared().send_all([order], deadline_s=5)
    clock.forward(minutes=5)
    deliveries.expire_leases(clock=clock)
    deliveries.record_first_attempts([claimed], [receipt], by=claimed.created_by, clock=clock)
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    assert list(verification.verify()) == []


# --- doors --------------------------------------------------------------------------------------------------------


def test_w26_asking_for_what_cannot_take_it_now_is_an_answer(
    two: World, clock: Clock, client: Client
) -> None:
    """Neither silence nor a success: who waits, why and until when; and whose it is."""
    two.announced()
    two.acknowledged()
    opened("webhook", clock)
    token = people.issue_token(two.analyst, by=None, clock=system_clock)
    answer = client.post(
        reverse("go_rollback_drill_notification_acknowledgement_audit_delivery"),
        json.dumps({"delivery_provider": "webhook", "retries": 0}),
        content_type="application/json",
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert (said["success"], said["delivery"], said["metadata"]) == (False, None, None)
    (one,) = said["parked"]
    assert (one["provider"], one["code"], one["case"]) == ("webhook", "breaker_open", said["case"])
    assert said["cases"] == [{"case": said["case"], "state": "parked"}]


def test_p16_what_waits_has_an_age_and_an_owner_on_its_page_and_in_the_list(
    two: World, clock: Clock, client: Client
) -> None:
    case = parked(two, clock)
    client.force_login(two.auditor)
    shown = client.get(f"/console/cases/{case.case_id}/").content.decode()
    assert "The first attempt waits" in shown
    assert "webhook is held back after 5 failures in a row" in shown
    assert f"{two.analyst} asked for it" in shown
    listed = client.get("/console/cases/?state=parked").content.decode()
    assert f"{two.analyst} asked for it" in listed
    assert "Parked now" in client.get("/console/").content.decode()
    found = parking.standing(Connector.objects.all())
    (standing,) = found.values()
    assert (standing.count, standing.owner) == (1, two.analyst.username)


def test_the_console_says_what_was_parked(two: World, clock: Clock, client: Client) -> None:
    two.announced()
    two.acknowledged()
    opened("webhook", clock)
    client.force_login(two.analyst)
    answer = client.post("/console/deliver/audit/", {"delivery_providers": ["webhook"]}, follow=True)
    said = answer.content.decode()
    assert "Parked: webhook is held back" in said
    assert Case.objects.get().state == CaseState.PARKED


def test_announcements_are_not_parked(two: World, clock: Clock) -> None:
    """A notice that comes late speaks of the past: it is suppressed, and the plan says so."""
    window("webhook", clock(), clock() + timedelta(hours=1), clock)
    done = drills.announce(two.schedule, by=two.analyst, clock=clock, force=True)
    assert [one["code"] for one in done.held] == ["maintenance_window"]
    assert not Case.objects.exists()


def test_what_real_failures_come_to(two: World, clock: Clock) -> None:
    """Through the verbs alone: five refused connections, and the sixth delivery waits."""
    two.announced()
    two.receiver.behave("/backup", hang_up=True)
    for _ in range(5):
        deliver(two, "backup")
    assert set(states().values()) == {CaseState.FAILED}
    assert Record.objects.filter(kind="connector-breaker").count() == 1
    (case,) = deliver(two, "backup").cases
    assert case.state == CaseState.PARKED
    heard("webhook", None, clock=clock)
    assert connector("third", two.receiver.url("/third")).key not in {
        row.connector.key for row in Breaker.objects.all()
    }
    packages.freeze(PackageFilters(), by=two.analyst, clock=clock)
    assert list(verification.verify()) == []
