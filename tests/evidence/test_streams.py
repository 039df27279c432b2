"""Every case has a place in its connector's stream, and what arrives says so (P13, P20)."""

import json
import random
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import rfc8785
from django.apps import apps
from django.db import IntegrityError, connection, transaction

from evidence import guards
from evidence.connectors.products import splunk
from evidence.documents import DELIVERY_PLAN, DELIVERY_STREAM
from evidence.domain import deliveries, drills, events, merkle, packages, records, sending, verification
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState
from evidence.errors import Conflict, DomainError
from evidence.models import AuditPackage, Case, Connector, LedgerHead, Record, SealEntry, StreamHead
from tests.builders import World, connector
from tests.processes import together


def arrived(world: World, key: str = "webhook") -> list[dict[str, Any]]:
    """Events about cases that came to a webhook, in the order of their arrival."""
    found = [json.loads(one.body) for one in world.receiver.arrived(f"/{key}")]
    return [event for event in found if event["event_type"] == events.EVENT_TYPE]


def head(key: str = "webhook") -> tuple[int, str]:
    """The newest place of a stream."""
    end = StreamHead.objects.get(connector__key=key)
    return end.seq, end.digest


def chain_is_whole(key: str) -> int:
    """Places of a stream are 1, 2, 3… and each quotes the one before it; how many there are."""
    previous, count = "", 0
    for count, case in enumerate(
        Case.objects.filter(connector__key=key).order_by("stream_seq").select_related("connector"), start=1
    ):
        assert (case.stream_seq, case.stream_prev) == (count, previous)
        assert events.digest(events.event_for(case)) == case.stream_digest
        previous = case.stream_digest
    assert head(key) == (count, previous)
    return count


def test_what_arrives_carries_its_place_and_the_head_of_the_log(world: World) -> None:
    (first,), (second,) = world.delivered(), world.delivered()
    one, two = (event["stream"] for event in arrived(world))
    plan = Record.objects.get(record_id=first.plan.delivery_id)
    assert one == {
        "connector": "webhook",
        "seq": 1,
        "previous": "",
        "case": first.case_id,
        "leaf_index": plan.index,
        "head": {
            "origin": LedgerHead.objects.get().origin,
            "size": plan.index + 1,
            "root": one["head"]["root"],
        },
    }
    assert (two["seq"], two["previous"], two["case"]) == (2, first.stream_digest, second.case_id)


def test_the_root_that_travels_is_that_of_the_entries_before(world: World) -> None:
    """Anybody with the seal entries computes it; the plan's own entry is the newest in it."""
    world.delivered()
    (event,) = arrived(world)
    quoted = event["stream"]["head"]
    entries = SealEntry.objects.filter(index__lt=quoted["size"]).order_by("index")
    peaks: list[bytes] = []
    for entry in entries:
        peaks, _ = merkle.append(peaks, entry.index, merkle.leaf_hash(bytes(entry.entry)))
    assert merkle.root(peaks).hex() == quoted["root"]
    newest = json.loads(bytes(entries.last().entry))  # type: ignore[union-attr]
    assert (newest["record"], newest["log"]) == (event["session_id"], quoted["origin"])


def test_the_digest_covers_what_was_sent_without_the_products_wrapping(world: World) -> None:
    connector("siem", world.receiver.url("/siem"), product="splunk", authorization_ref="env:SIEM_TOKEN")
    plain, wrapped = sorted(
        world.failed("webhook", "siem"), key=lambda case: case.connector.product != "webhook"
    )
    (sent,) = (one.body for one in world.receiver.arrived("/webhook") if b'"stream"' in one.body)
    assert records.digest(sent) == plain.stream_digest
    body, _ = splunk.render(
        events.event_for(wrapped), sending.settings_of(wrapped.connector), wrapped.case_id
    )
    inside = json.loads(body)["event"]
    assert records.digest(rfc8785.dumps(inside)) == wrapped.stream_digest
    assert (inside["stream"]["connector"], inside["stream"]["seq"]) == ("siem", 1)


def test_every_connector_counts_for_itself(world: World) -> None:
    connector("second", world.receiver.url("/second"))
    world.delivered("webhook")
    cases = {case.connector.key: case.stream_seq for case in world.delivered()}
    assert cases == {"webhook": 2, "second": 1}
    assert [event["stream"]["connector"] for event in arrived(world, "second")] == ["second"]


def test_the_record_of_the_places_says_what_the_rows_say(world: World) -> None:
    connector("second", world.receiver.url("/second"))
    cases = world.delivered()
    record = Record.objects.get(kind=DELIVERY_STREAM.name)
    plan = Record.objects.get(kind=DELIVERY_PLAN.name)
    said = records.payload_of(record)
    assert said is not None
    assert record.index == plan.index + 1
    assert (said["head_origin"], said["head_size"]) == (LedgerHead.objects.get().origin, plan.index + 1)
    assert said["places"] == [
        {
            "case": case.case_id,
            "provider": case.connector.key,
            "seq": case.stream_seq,
            "previous": case.stream_prev,
            "digest": case.stream_digest,
        }
        for case in sorted(cases, key=lambda case: case.case_id)
    ]
    document = records.load(record.body)  # type: ignore[arg-type]
    assert [reference["id"] for reference in document["references"]] == [plan.record_id]
    assert verification.report().first is None


def test_a_retry_carries_the_bytes_and_the_place_of_the_first_try(world: World) -> None:
    """A gap at the receiver is what never arrived; the same place twice is a repeat."""
    (case,) = world.failed()
    world.delivered()
    world.approved()
    world.ran()
    bodies = [one.body for one in world.receiver.arrived("/webhook") if b'"stream"' in one.body]
    keys = [
        one.headers["idempotency-key"]
        for one in world.receiver.arrived("/webhook")
        if b'"stream"' in one.body
    ]
    first, between, again = bodies
    assert first == again
    assert keys[0] == keys[2] != keys[1]
    assert [json.loads(body)["stream"]["seq"] for body in bodies] == [1, 2, 1]
    case.refresh_from_db()
    assert case.state == CaseState.DELIVERED
    assert records.digest(again) == case.stream_digest
    assert between != first


def test_the_same_content_delivered_again_takes_a_new_place(world: World) -> None:
    (first,) = world.delivered()
    request = DeliveryRequest(filters=PackageFilters(), retries=0)
    (second,) = deliveries.deliver_audit(request, by=world.analyst, clock=world.clock).cases
    assert first.package_id == second.package_id
    assert (second.stream_seq, second.stream_prev) == (2, first.stream_digest)
    assert second.stream_digest != first.stream_digest
    assert chain_is_whole("webhook") == 2


def test_a_refused_delivery_takes_no_place(world: World) -> None:
    world.failed()
    before = head()
    with pytest.raises(Conflict, match="unsettled"):
        deliveries.deliver_audit(
            DeliveryRequest(filters=PackageFilters(), retries=0), by=world.analyst, clock=world.clock
        )
    assert head() == before


def test_a_place_is_lost_with_its_transaction_and_given_again(world: World) -> None:
    """Gap-free: what was rolled back was never sent."""
    world.delivered()
    before = head()
    with transaction.atomic():
        world.announced()
        world.acknowledged()
        package = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package
        request = DeliveryRequest(filters=PackageFilters())
        opened = deliveries.open_plan(
            package, list(Connector.objects.all()), request, by=world.analyst, clock=world.clock
        )
        assert opened.cases[0].stream_seq == 2
        transaction.set_rollback(True)
    assert head() == before
    assert world.delivered()[0].stream_seq == 2


def test_notifications_are_not_part_of_the_stream(world: World) -> None:
    world.announced()
    (notification,) = world.receiver.arrived("/webhook")
    assert "stream" not in json.loads(notification.body)
    assert not StreamHead.objects.exists()


def test_the_database_gives_no_place_twice_and_none_is_left_out(world: World) -> None:
    world.delivered()
    case = Case.objects.get()
    case.pk, case.case_id, case.content_hash = None, "gordackdelivery-2.webhook", "2" * 64
    for seq, digest in ((1, "1" * 64), (0, "1" * 64), (2, "")):
        case.stream_seq, case.stream_digest = seq, digest
        with pytest.raises(IntegrityError), transaction.atomic():
            case.save(force_insert=True)
    with pytest.raises(IntegrityError, match="frozen"), transaction.atomic():
        Case.objects.update(stream_seq=9)


def test_cases_that_were_there_before_get_places_in_the_order_of_their_making(world: World) -> None:
    """What the migration does: their events quote no place, as they were sent, and so do their retries."""
    cases = [case for _ in range(3) for case in world.delivered()]
    with transaction.atomic():
        guards.drop()
        Case.objects.update(head_origin="", head_size=None, stream_prev="", stream_digest="-")
        StreamHead.objects.update(seq=0, digest="")
        import_module("evidence.migrations.0007_streams").place_existing(apps, None)
        # PostgreSQL puts no guard on a table whose references are still to be checked.
        connection.check_constraints()
        guards.install()
    assert [case.stream_seq for case in Case.objects.order_by("pk")] == [1, 2, 3]
    assert chain_is_whole("webhook") == 3
    old = Case.objects.get(pk=cases[0].pk)
    assert "stream" not in events.event_for(old)
    (new,) = world.delivered()
    assert (new.stream_seq, new.stream_prev) == (4, head_before(new))


def head_before(case: Case) -> str:
    return Case.objects.get(connector=case.connector, stream_seq=case.stream_seq - 1).stream_digest


@pytest.mark.django_db(transaction=True)
def test_many_plans_at_once_neither_deadlock_nor_leave_a_gap(receiver: Any) -> None:
    """Different packages to the same connectors, named in every order, and the same package by several people."""
    keys = ("webhook", "second", "third")
    world = World(receiver, providers=keys)
    drills.announce(world.schedule, by=world.analyst, clock=world.clock, retries=0)
    frozen = []
    for _ in range(4):
        world.acknowledged()
        frozen.append(packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package)
    connectors = {row.key: row for row in Connector.objects.all()}

    def opens(package: AuditPackage, *names: str) -> Callable[[], object]:
        return lambda: deliveries.open_plan(
            package,
            [connectors[name] for name in names],
            DeliveryRequest(filters=PackageFilters()),
            by=world.analyst,
            clock=world.clock,
        )

    acts = [opens(package, *random.sample(keys, len(keys))) for package in frozen for _ in range(2)]
    results = together(*acts)
    refused = [result for result in results if isinstance(result, Exception)]
    assert all(isinstance(error, DomainError) for error in refused), refused
    assert len(results) - len(refused) == len(frozen)
    assert [chain_is_whole(key) for key in keys] == [len(frozen)] * len(keys)
    assert verification.report().first is None
