"""Assertions about the whole: what the receiver saw, what the log says, what a verb appended."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from django.db import connection

from evidence import guards
from evidence.connectors.specs import Receipt
from evidence.documents import CONNECTOR_DELIVERY
from evidence.domain import canaries, configuration, records, troubles, verification
from evidence.domain.clock import Clock, system_clock
from evidence.domain.configuration import Entry
from evidence.enums import DeliverySource, Outcome
from evidence.models import Attempt, Connector, LedgerHead, Record
from recovery.execution import outcomes
from tests.builders import World

CHAIN = "go-backend-rollback-drill-acknowledgement-audit-delivery-"


def assert_receiver_agrees(world: World) -> None:
    """The receiver's own log is the attempts and notices whose receipt says that bytes left.

    An attempt whose outcome is unknown may have arrived once; nothing else arrived beside these, canaries and
    announcements of trouble left out: they are neither.
    """
    arrived = Counter(
        hashlib.sha256(one.body).hexdigest()
        for one in world.receiver.log
        if canaries.EVENT["event_type"].encode() not in one.body
        and troubles.EVENT_TYPE.encode() not in one.body
    )
    known = Counter(Attempt.objects.filter(bytes_sent__gt=0).values_list("body_sha256", flat=True))
    for record in Record.objects.filter(kind=CONNECTOR_DELIVERY.name):
        payload = records.payload_of(record)
        assert payload is not None
        if payload["connector_delivery_source"] == DeliverySource.NOTIFICATION:
            known.update(one["body_sha256"] for one in payload["deliveries"] if one["bytes_sent"])
    assert not known - arrived, "an attempt says that bytes left, and nothing came"
    unheard = list(Attempt.objects.filter(outcome=Outcome.UNKNOWN).values_list("body_sha256", flat=True))
    surplus = arrived - known
    assert surplus.total() <= len(unheard), f"the receiver saw more than we know of: {surplus}"
    if all(unheard):
        assert not surplus - Counter(unheard), "something else than the unknown attempts arrived"


def assert_ledger_verifies() -> None:
    """Digests, chains, keys, counters, guards and root: no difference."""
    found = [str(difference) for difference in verification.verify()]
    assert found == [], found


def checked(world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """A fixture's world, checked as a whole when its test ends."""
    yield world
    if request.node.get_closest_marker("tampers") is None:
        assert_receiver_agrees(world)
        assert_ledger_verifies()


@contextmanager
def appended() -> Iterator[list[str]]:
    """Kinds of the records that were appended inside, in order, without the common prefix."""
    kinds: list[str] = []
    before = LedgerHead.objects.get().size
    yield kinds
    kinds += [
        kind.removeprefix(CHAIN)
        for kind in Record.objects.filter(index__gte=before).order_by("index").values_list("kind", flat=True)
    ]


def behind_the_back(change: Callable[[], object]) -> None:
    """Somebody who may drop guards changes rows and puts the guards back."""
    connection.check_constraints()  # PostgreSQL alters no table that a deferred check still waits for
    guards.drop()
    change()
    connection.check_constraints()
    guards.install()


def once_recorded(monkeypatch: pytest.MonkeyPatch, key: str, count: int) -> threading.Event:
    """Set once ``count`` outcomes of retries through a connector were written down."""
    record, done, left = outcomes.record, threading.Event(), [count]

    def recording(results: Sequence[tuple[int, Receipt]], *, clock: Clock) -> list[outcomes.Recorded]:
        recorded = record(results, clock=clock)
        left[0] -= sum(one.receipt.connector == key for one in recorded)
        if left[0] <= 0:
            done.set()
        return recorded

    monkeypatch.setattr(outcomes, "record", recording)
    return done


def nobody_listens(key: str = "webhook") -> None:
    """From now on a connector goes to a port at which nobody is: nothing leaves."""
    row = Connector.objects.get(key=key)
    row.url = "http://127.0.0.1:1/nobody"
    configuration.save(row, by=None, clock=system_clock)


def unreachable_connectors(count: int) -> tuple[str, ...]:
    """Keys of so many connectors that nothing ever leaves to: their address is in a variable nobody set."""
    rows = [
        Connector(key=f"unset_{number}", product="webhook", url_ref="env:CAVRA_TEST_UNSET")
        for number in range(count)
    ]
    configuration.save_all([Entry(row) for row in rows], by=None, clock=system_clock)
    return tuple(row.key for row in rows)


def payload(record_id: str) -> dict:
    """The payload of a stored record."""
    found = records.payload_of(Record.objects.get(record_id=record_id))
    assert found is not None
    return found
