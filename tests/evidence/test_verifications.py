"""The log is verified on demand and once a day, by the worker, and the result is kept."""

from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.db.models import F

from evidence.domain import verification, verifications
from evidence.enums import Role
from evidence.errors import NotAllowed
from evidence.models import LedgerHead, Person, RecordCounter, Verification
from tests.builders import Clock, person

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auditor() -> Person:
    return person(Role.AUDITOR)


@pytest.fixture
def short_stretches(auditor: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of several stretches, and progress written after each."""
    person(Role.ANALYST)
    monkeypatch.setattr(verification.entries, "STRETCH", 2)
    monkeypatch.setattr(verifications, "PROGRESS_S", -1)


def tamper() -> None:
    RecordCounter.objects.update(count=F("count") + 1)


def size() -> int:
    return LedgerHead.objects.get().size


def newest() -> Verification:
    found = verifications.latest()
    assert found
    return found


@pytest.mark.django_db(transaction=True)
def test_what_somebody_asked_for_is_done_by_the_worker(auditor: Person, clock: Clock) -> None:
    asked = verifications.ask(by=auditor, clock=clock)
    assert verifications.current() == asked
    assert verifications.latest() is None
    call_command("worker", once=True)
    done = newest()
    assert done == asked
    assert verifications.current() is None
    assert (done.size, done.checked, done.differences) == (size(), size(), 0)
    assert (done.requested_by, done.root) == (auditor, verification.report().root)


def test_asking_twice_is_asking_once(auditor: Person, clock: Clock) -> None:
    first = verifications.ask(by=auditor, clock=clock)
    assert verifications.ask(by=person(Role.ANALYST), clock=clock) == first
    assert Verification.objects.count() == 1


@pytest.mark.parametrize("by_now", ("waits", "runs", "is done"))
def test_who_asks_at_the_same_moment_gets_the_pass_of_the_other(
    auditor: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch, by_now: str
) -> None:
    """It was not there when it was looked for, was when this one was to be written, and may be taken since."""
    first = verifications.ask(by=auditor, clock=clock)

    def refused(**values: Any) -> None:
        if by_now == "runs":
            Verification.objects.update(state="running", lease_until=clock() + verifications.LEASE)
        elif by_now == "is done":
            verifications.run_due(clock=clock)
        raise IntegrityError("UNIQUE constraint failed")

    looked = iter([None])
    look = verifications.current
    monkeypatch.setattr(verifications, "current", lambda: next(looked, look()))
    monkeypatch.setattr(Verification.objects, "create", refused)
    # What the other one did is not taken back with what is refused here.
    monkeypatch.setattr(verifications, "transaction", SimpleNamespace(atomic=nullcontext))
    assert verifications.ask(by=person(Role.ANALYST), clock=clock) == first


def test_who_may_not_read_evidence_cannot_ask(clock: Clock) -> None:
    with pytest.raises(NotAllowed):
        verifications.ask(by=person(Role.VIEWER), clock=clock)
    assert not Verification.objects.exists()


def test_the_worker_asks_by_itself_once_a_day(clock: Clock) -> None:
    assert verifications.run_due(clock=clock) == 1
    assert newest().requested_by is None
    clock.forward(hours=23)
    assert verifications.run_due(clock=clock) == 0
    clock.forward(hours=2)
    assert verifications.run_due(clock=clock) == 1
    assert Verification.objects.count() == 2


def test_what_differs_is_kept_with_its_place(clock: Clock) -> None:
    tamper()
    verifications.run_due(clock=clock)
    found = verification.report()
    assert found.first
    assert (newest().differences, newest().first_difference) == (found.differences, str(found.first))
    assert newest().first_index == found.first.index


def test_it_says_how_far_it_is(short_stretches: None, clock: Clock) -> None:
    seen: list[int] = []

    def look() -> None:
        there = verifications.current()
        assert there
        assert there.state == "running"
        seen.append(there.checked)

    assert verifications.run_due(clock=clock, beat=look) == 1
    # Once more for the rows.
    assert seen == [*range(0, size(), 2), size()]


def test_a_stopping_worker_leaves_it_to_the_next(short_stretches: None, clock: Clock) -> None:
    asks = iter((False, False, True))
    assert verifications.run_due(clock=clock, stopping=lambda: next(asks)) == 0
    there = verifications.current()
    assert there
    assert (there.state, there.lease_until) == ("queued", None)
    assert verifications.run_due(clock=clock) == 1
    assert newest() == there


def test_what_a_dead_worker_began_is_taken_back(clock: Clock) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verifications.run_due(clock=clock, beat=die)
    assert verifications.run_due(clock=clock) == 0
    clock.forward(seconds=verifications.LEASE.total_seconds() + 1)
    assert verifications.run_due(clock=clock) == 1
    assert Verification.objects.count() == 1


def test_of_a_dead_pass_and_a_waiting_one_only_one_goes_on(clock: Clock) -> None:
    gone = clock() - timedelta(minutes=1)
    Verification.objects.create(state="running", requested_at=gone, lease_until=gone)
    Verification.objects.create(requested_at=clock())
    assert verifications.run_due(clock=clock) == 1
    assert Verification.objects.count() == 1


def test_who_was_taken_for_dead_writes_no_result(short_stretches: None, clock: Clock) -> None:
    other = clock() + timedelta(minutes=10)

    def somebody_else_takes_it() -> None:
        Verification.objects.update(lease_until=other)

    assert verifications.run_due(clock=clock, beat=somebody_else_takes_it) == 0
    assert verifications.latest() is None
    assert Verification.objects.get().lease_until == other


def test_only_the_newest_results_stay(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifications, "KEPT", 2)
    for _ in range(4):
        clock.forward(hours=25)
        verifications.run_due(clock=clock)
    asked = verifications.ask(by=None, clock=clock)
    finished = Verification.objects.filter(state="finished")
    assert [row.finished_at for row in finished.order_by("-pk")] == [clock(), clock() - timedelta(hours=25)]
    assert verifications.current() == asked


def test_the_command_keeps_its_result_too(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("verify_ledger")
    assert (newest().size, newest().differences) == (size(), 0)
    tamper()
    with pytest.raises(CommandError):
        call_command("verify_ledger")
    assert newest().differences > 0
