"""Whatever somebody has in hand leads to what it names."""

import secrets

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from evidence.domain import acknowledgements, finding
from evidence.domain.acknowledgements import Answer
from evidence.domain.finding import Hit
from evidence.enums import RouteState
from evidence.errors import InvalidInput
from evidence.models import Case, Record, RecordKey
from tests.builders import World
from tests.evidence import documents
from tests.evidence.test_query_plans import Statements, full_scans, plan_of
from tests.receiver import Receiver


@pytest.fixture
def two(db: None, receiver: Receiver) -> World:
    return World(receiver, providers=("webhook", "backup"))


@pytest.fixture
def case(world: World) -> Case:
    (made,) = world.failed()
    return made


def found(text: str) -> list[tuple[str, str]]:
    return [(hit.what, hit.id) for hit in finding.find(text)]


def short(full_id: str) -> str:
    return full_id.rpartition("-")[2][:8]


def test_a_case_by_its_id_its_short_form_and_its_attempt(case: Case) -> None:
    only = [Hit("case", case.case_id, case.created_at, "failed")]
    assert finding.find(case.case_id) == only
    assert finding.find(f"  {case.case_id.upper()} ") == only
    assert finding.find(f"{short(case.plan.delivery_id)}.webhook") == only
    attempt = case.attempts.get()
    assert finding.find(attempt.attempt_id) == only
    assert finding.find(f"{short(attempt.record_id)}.webhook") == only
    assert finding.find(f"{short(case.plan.delivery_id)}.other") == []


def test_a_record_that_names_one_case_leads_there(case: Case) -> None:
    record = Record.objects.get(record_id=case.attempts.get().record_id)
    hit = Hit("case", case.case_id, record.created_at, "failed", record.kind, record.record_id)
    assert finding.find(record.record_id) == [hit]
    assert finding.find(short(record.record_id)) == [hit]
    assert finding.find(record.digest) == [hit]
    assert finding.find(record.digest[:8]) == [hit]
    assert finding.find(record.digest[:7]) == []


def test_a_record_that_names_no_case_or_several_is_the_hit(two: World) -> None:
    cases = two.failed()
    planned = two.planned()
    named = RecordKey.objects.filter(name="case", value__in=[case.case_id for case in cases])
    assert (
        len(cases)
        == named.filter(record=Record.objects.get(record_id=planned.retry_plan_id).index).count()
        == 2
    )
    assert found(planned.retry_plan_id) == [("record", planned.retry_plan_id)]
    genesis = Record.objects.get(index=0)
    assert found(genesis.record_id) == [("record", genesis.record_id)]


def test_deliveries_and_packages_lead_to_their_cases(two: World) -> None:
    cases = two.failed()
    wanted = {("case", case.case_id) for case in cases}
    delivery, package = cases[0].plan.delivery_id, cases[0].package.audit_id
    assert set(found(delivery)) == wanted | {("record", delivery)}
    assert set(found(short(delivery))) >= wanted
    assert set(found(package)) == wanted | {("record", package)}


def test_a_connector_by_its_key(case: Case) -> None:
    assert found("webhook") == found("WEBHOOK") == [("connector", "webhook")]


def referring(world: World, ref: str) -> None:
    """The owners answer under a ticket."""
    acknowledgements.acknowledge(
        [
            Answer(
                schedule_id=world.schedule.schedule_id,
                provider="webhook",
                state=RouteState.ACKNOWLEDGED,
                external_ref=ref,
            )
        ],
        by=world.analyst,
        clock=world.clock,
    )


def test_an_external_reference_finds_what_names_it(world: World) -> None:
    world.announced()
    referring(world, "INC:4711")
    referring(world, "INC:4712")
    named = RecordKey.objects.get(name="external_ref", value="INC:4711").record
    assert found("inc:4711") == [("record", Record.objects.get(index=named).record_id)]


def test_the_newest_come_first_and_there_is_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LIMIT", 3)
    world.announced()
    for _ in range(4):
        referring(world, "CHG:1")
    newest = RecordKey.objects.filter(name="external_ref", value="CHG:1").order_by("-record")
    ids = [Record.objects.get(index=key.record).record_id for key in newest]
    assert len(ids) == 4
    assert found("CHG:1") == [("record", record_id) for record_id in ids[:3]]


@pytest.mark.parametrize("nothing", ("", "   ", "zzz", "deadbeefdeadbeef", "%", "_", "a.b.c", "🦉"))
def test_what_names_nothing_finds_nothing(case: Case, nothing: str) -> None:
    assert finding.find(nothing) == []


@pytest.mark.parametrize("text", ("a\0b", "a\u202eb", "x" * 201, "\ud800"))
def test_what_no_name_can_hold_is_refused(db: None, text: str) -> None:
    with pytest.raises(InvalidInput):
        finding.find(text)


def test_every_look_is_a_range_of_an_index(db: None) -> None:
    """At 5,000 records with fresh statistics no table of records is read from end to end."""
    with transaction.atomic():
        documents.fill(5_000)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        record = Record.objects.get(index=2_000)
        seen = Statements()
        with connection.execute_wrapper(seen):
            for text in (record.record_id, short(record.record_id), record.digest[:12], "nothing-0123"):
                finding.find(text)
        scans = {
            step
            for statement in seen.run
            for step in full_scans(plan_of(*statement))
            if "SCAN" in step or "Scan" in step
        }
        transaction.set_rollback(True)
    if connection.vendor == "sqlite":
        connection.close()
    assert [step for step in scans if "evidence_record" in step] == []


def test_it_costs_a_bounded_number_of_queries(case: Case) -> None:
    for text in (case.case_id, case.attempts.get().record_id, secrets.token_hex(6)):
        with CaptureQueriesContext(connection) as captured:
            finding.find(text)
        assert len(captured) <= 12
