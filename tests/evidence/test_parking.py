"""First deliveries that have to wait: parked, said, and sent once when nothing holds their connector back (P16)."""

import json
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.test import Client
from django.urls import reverse

from evidence.connectors import sender
from evidence.documents import DELIVERY_TAKEOVER
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
from evidence.errors import Conflict, InvalidInput, NotAllowed
from evidence.models import Attempt, Breaker, Case, Connector, Parking, Person, Record
from recovery.domain.policies import reasons_against_attesting
from recovery.enums import Act, Seen
from tests import tamper
from tests.builders import Clock, World, connector, person
from tests.endpoints import client as api
from tests.evidence.breaking import closed, heard, opened, window
from tests.processes import together
from tests.receiver import Receiver
from tests.recovery.desk import Desk


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
        deliver(two, timeout_s=30.0)
    for key in ("webhook", "backup"):
        closed(key, clock)
    all_quick = threading.Event()
    two.receiver.behave("/webhook", until=all_quick)

    def watch() -> None:
        if Case.objects.filter(state=CaseState.DELIVERED, connector__key="backup").count() == 6:
            all_quick.set()

    # The slow one answers none before all six of the quick one are there.
    assert deliveries.send_parked(clock=clock, beat=watch) == 12
    assert states() == dict.fromkeys(("webhook", "backup"), CaseState.DELIVERED)
    assert Case.objects.filter(state=CaseState.DELIVERED).count() == 12


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
    name = two.analyst.username
    assert said["reasons"] == [
        f"It belongs to {name}, who may not deliver any more: somebody who may takes it over."
    ]


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


# --- taken over ---------------------------------------------------------------------------------------------------


def taken_over(case: Case, by: Person, clock: Clock, reason: str = "They left the team.") -> records.Draft:
    draft = parking.take_over(case, reason=reason, by=by, clock=clock)
    case.refresh_from_db()
    return draft


@pytest.mark.parametrize("gone", ("role", "account"))
def test_p16_what_nobody_may_send_any_more_is_taken_over_and_sent(
    two: World, clock: Clock, gone: str
) -> None:
    case = parked(two, clock)
    if gone == "role":
        people.revoke_role(two.analyst, Role.ANALYST, by=two.administrator, clock=clock)
    else:
        people.set_active(two.analyst, False, by=two.administrator, clock=clock)
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 0
    before = len(two.receiver.log)
    said = taken_over(case, two.second_analyst, clock).view["delivery_takeover"]
    assert len(two.receiver.log) == before
    assert (case.created_by, case.state) == (two.second_analyst, CaseState.PARKED)
    assert (said["case"], said["provider"], said["reason"]) == (
        case.case_id,
        "webhook",
        "They left the team.",
    )
    assert (said["taken_from"], said["taken_by"]) == (two.analyst.username, two.second_analyst.username)
    assert said["parking_id"] == Parking.objects.get().record_id
    assert deliveries.send_parked(clock=clock) == 1
    case.refresh_from_db()
    assert (case.state, case.created_by) == (CaseState.DELIVERED, two.second_analyst)
    released = Record.objects.get(kind__endswith="delivery-release")
    assert records.load(released.body or b"")["actor"]["person_id"] == two.second_analyst.person_id
    assert list(verification.verify()) == []


def test_it_may_be_taken_over_again_and_back(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    for by in (two.second_analyst, two.analyst):
        taken_over(case, by, clock)
        assert case.created_by == by
    assert Record.objects.filter(kind__endswith="delivery-takeover").count() == 2
    assert list(verification.verify()) == []


def test_a_persons_service_account_is_somebody_else(two: World, clock: Clock) -> None:
    """Whoever answers for an account that lost its role takes over what it asked for."""
    two.announced()
    opened("webhook", clock)
    human = two.analyst
    two.analyst = person(Role.ANALYST, owner=human)
    (case,) = deliver(two, "webhook").cases
    taken_over(case, human, clock)
    assert case.created_by == human


def test_only_who_may_deliver_takes_over(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    for by in (two.approver, two.operator, two.auditor, two.administrator):
        with pytest.raises(NotAllowed) as refused:
            taken_over(case, by, clock)
        assert refused.value.code == "role_required"
    with pytest.raises(Conflict) as owned:
        taken_over(case, two.analyst, clock)
    assert owned.value.code == "owned_already"
    assert not Record.objects.filter(kind__endswith="delivery-takeover").exists()


@pytest.mark.parametrize("reason", ("", "  ", "a\0b", "see http://10.0.0.7/x", "x" * 5_000))
def test_a_reason_is_needed_and_public_safe(two: World, clock: Clock, reason: str) -> None:
    case = parked(two, clock)
    with pytest.raises(InvalidInput) as refused:
        taken_over(case, two.second_analyst, clock, reason)
    assert [name.rpartition(".")[2] for name in refused.value.errors] == ["reason"]
    case.refresh_from_db()
    assert case.created_by == two.analyst
    assert not Record.objects.filter(kind__endswith="delivery-takeover").exists()


@pytest.mark.parametrize("became", ("sending", "delivered", "outcome_unknown"))
def test_what_was_claimed_is_not_taken_over(two: World, clock: Clock, became: str) -> None:
    case = parked(two, clock)
    closed("webhook", clock)
    if became == "delivered":
        deliveries.send_parked(clock=clock)
    else:
        assert parking.release(case.pk, clock=clock)
    if became == "outcome_unknown":
        clock.forward(minutes=5)
        deliveries.expire_leases(clock=clock)
    with pytest.raises(Conflict, match=f"This case is {became.replace('_', ' ')};") as refused:
        taken_over(case, two.second_analyst, clock)
    assert (refused.value.code, refused.value.extra["case_state"]) == ("not_parked", became)
    # Nor past the verb: who sent it stays who sent it.
    with pytest.raises(IntegrityError, match="owner_while_parked"), transaction.atomic():
        Case.objects.update(created_by=two.second_analyst)


def test_p3_who_took_it_over_sent_it_and_attests_nothing(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    taken_over(case, two.second_analyst, clock)
    closed("webhook", clock)
    parking.release(case.pk, clock=clock)
    clock.forward(minutes=5)
    deliveries.expire_leases(clock=clock)
    case.refresh_from_db()
    assert reasons_against_attesting(two.second_analyst, case) == [
        "Not attested: you sent attempt 1. Two others have to look at the receiver."
    ]
    assert reasons_against_attesting(two.analyst, case) == []


@pytest.mark.parametrize("forged", ("second_analyst", "analyst"))
def test_p12_another_owner_than_the_records_tell_is_found(two: World, clock: Clock, forged: str) -> None:
    """Also the first one again, who did ask for it."""
    case = parked(two, clock)
    taken_over(case, person(Role.ANALYST), clock)
    with tamper.stolen_login():
        Case.objects.update(created_by=getattr(two, forged))
    found = [one for one in verification.verify() if one.what.endswith("created_by")]
    assert [(one.expected, one.found) for one in found] == [
        (case.created_by.person_id, getattr(two, forged).person_id)
    ]


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_two_who_take_it_over_at_once_come_one_after_the_other(committed: World, clock: Clock) -> None:
    world = committed
    case = parked(world, clock)
    takers = [world.second_analyst, person(Role.ANALYST)]
    results = together(
        *[partial(parking.take_over, case, reason="gone", by=by, clock=clock) for by in takers]
    )
    assert [one for one in results if isinstance(one, Exception)] == []
    newest = Record.objects.filter(kind__endswith="delivery-takeover").latest("index")
    said = records.payload_of(newest)
    case.refresh_from_db()
    assert said is not None
    assert said["taken_by"] == case.created_by.username
    # The later one took it from the earlier one, not from who had it when they asked.
    assert {said["taken_from"], said["taken_by"]} == {one.username for one in takers}
    assert list(verification.verify()) == []


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_who_attests_while_it_is_taken_over_is_told_that_it_waits(
    committed: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = committed
    case = parked(world, clock)
    held = threading.Event()
    append = parking.ledger.append

    def slowly(drafts: list[records.Draft]) -> list[Record]:
        if drafts[0].kind is DELIVERY_TAKEOVER:
            held.set()
            time.sleep(0.3)
        return append(drafts)

    def attest() -> None:
        held.wait(5)
        world.attested(case, Seen.DELIVERED, world.approver)

    monkeypatch.setattr(parking.ledger, "append", slowly)
    taking = partial(parking.take_over, case, reason="gone", by=world.second_analyst, clock=clock)
    refused = [one for one in together(taking, attest) if isinstance(one, Exception)]
    assert [getattr(one, "code", one) for one in refused] == ["not_unknown"]


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_p2_taking_over_while_the_worker_claims_it(committed: World, clock: Clock) -> None:
    world = committed
    world.announced()
    opened("webhook", clock)
    cases = [deliver(world, "webhook").cases[0] for _ in range(4)]
    closed("webhook", clock)

    refused: list[str] = []
    claimed: list[str] = []

    def take_all() -> None:
        for case in cases:
            try:
                parking.take_over(case, reason="gone", by=world.second_analyst, clock=clock)
            except Conflict as error:
                refused.append(error.code)

    def claim_all() -> None:
        found = [parking.release(case.pk, clock=clock) for case in reversed(cases)]
        claimed.extend(one.created_by.username for one in found if one)

    assert [one for one in together(take_all, claim_all) if one is not None] == []
    assert set(refused) <= {"not_parked"}
    taken = Record.objects.filter(kind__endswith="delivery-takeover").count()
    assert (taken + len(refused), Case.objects.filter(created_by=world.second_analyst).count()) == (4, taken)
    # What was claimed before it could be taken over was sent for who asked for it.
    actors = [
        records.load(one.body or b"")["actor"]["name"]
        for one in Record.objects.filter(kind__endswith="delivery-release")
    ]
    assert sorted(actors) == sorted(claimed)
    assert list(verification.verify()) == []


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
    assert f"belongs to {two.analyst}" in shown
    listed = client.get("/console/cases/?state=parked").content.decode()
    assert f"belongs to {two.analyst}" in listed
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


def test_p16_its_page_lets_whoever_may_deliver_take_it_over(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    address = f'action="/console/cases/{case.case_id}/{Act.TAKE_OVER}/"'
    desk = Desk(two.second_analyst, case)
    assert address in desk.page()
    # A refusal stands on the page, at its field.
    assert "This field is required." in desk.send(Act.TAKE_OVER, expect=400)
    refused = desk.send(Act.TAKE_OVER, expect=400, reason="see http://10.0.0.7/runbook")
    assert "see http://10.0.0.7/runbook" in refused
    desk.send(Act.TAKE_OVER, reason="They left the team.")
    page = desk.page()
    assert f"belongs to {two.second_analyst}" in page
    assert f"by {two.analyst}, taken over by {two.second_analyst}" in page
    assert "They left the team." in page
    # Nothing to do for whom it belongs to: the button says why.
    assert address not in page
    assert f"This case belongs to {two.second_analyst} already." in page
    typed = desk.send(Act.TAKE_OVER, expect=409, reason="Once more.")
    assert "Not taken over. This case belongs to" in typed
    assert "Once more." in typed
    for reader in (two.auditor, two.approver):
        page = Desk(reader, case).page()
        assert address not in page
        assert "This needs a role that may deliver." in page
    assert "may deliver" in Desk(two.approver, case).send(Act.TAKE_OVER, expect=403, reason="x")
    closed("webhook", clock)
    assert deliveries.send_parked(clock=clock) == 1
    assert "Take it over" not in Desk(two.analyst, case).page()
    assert "This case is delivered;" in Desk(two.analyst, case).send(Act.TAKE_OVER, expect=409, reason="x")


def test_p16_it_is_taken_over_over_http(two: World, clock: Clock) -> None:
    case = parked(two, clock)
    path = f"/api/v1/cases/{case.case_id}/takeovers"
    body = {"reason": "They left the team.", "taken_by": "The Director"}
    for wrong in ({}, {"reason": ""}, {"reason": 1}, {"reason": "see http://10.0.0.7/x"}):
        answer = api(two.second_analyst).post(path, wrong, format="json")
        assert (answer.status_code, answer.json()["errors"].keys()) == (400, {"reason"})
    assert api(two.second_analyst).post(path, {**body, "owner": "x"}, format="json").status_code == 400
    assert api(two.second_analyst).post(path.replace("web", "x"), body, format="json").status_code == 404
    refused = api(two.approver).post(path, body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_required")
    answer = api(two.second_analyst).post(path, body, format="json")
    said = answer.json()
    assert (answer.status_code, said["case"], said["case_state"]) == (200, case.case_id, "parked")
    # A name in the body identifies nobody (P21).
    assert said["delivery_takeover"]["taken_by"] == two.second_analyst.username
    assert said["metadata"]["claimed_actor"] == "The Director"
    again = api(two.second_analyst).post(path, body, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "owned_already")
    shown = api(two.auditor).get(f"/api/v1/cases/{case.case_id}").json()
    assert two.second_analyst.username in json.dumps(shown)


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
