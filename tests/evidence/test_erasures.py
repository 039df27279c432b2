"""P24: the bytes of a record go by two people, its place and every proof stay, and an entry says why."""

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.db import IntegrityError, connection, transaction

from evidence import guards
from evidence.documents import (
    CONNECTOR_DELIVERY,
    ERASURE,
    ERASURE_PROPOSAL,
    ERASURE_REFUSAL,
    KINDS,
    LEGAL_HOLD,
)
from evidence.domain import (
    acknowledgements,
    deliveries,
    erasures,
    events,
    history,
    holds,
    merkle,
    packages,
    people,
    proofs,
    records,
    verification,
)
from evidence.domain.acknowledgements import Answer
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.history import Query
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, ErasureState, Role, RouteState
from evidence.errors import Conflict, DomainError, InvalidInput, NotAllowed, NotFound
from evidence.models import (
    AttemptAnswer,
    Case,
    Connector,
    Erasure,
    ErasureItem,
    LedgerHead,
    Record,
    RecordKey,
    Route,
    SealEntry,
)
from tests.builders import Clock, World, person
from tests.processes import together
from tests.receiver import Receiver

BASIS = "GDPR art. 17(1)(a)"
SECRET = "Anna Svensson, born 1971"


@pytest.fixture
def world(world: World) -> World:
    world.clock = Clock()
    return world


def answered(world: World, notes: str = SECRET) -> Record:
    """An acknowledgement with a name in its notes; no case needs it."""
    world.announced()
    answer = Answer(
        schedule_id=world.schedule.schedule_id,
        provider=world.providers[0],
        state=RouteState.ACKNOWLEDGED,
        notes=notes,
        external_ref="CHG-4711",
    )
    (draft, *_) = acknowledgements.acknowledge([answer], by=world.analyst, clock=world.clock)
    return Record.objects.get(record_id=draft.record_id)


def proposed(world: World, *found: Record, **terms: Any) -> Erasure:
    """An administrator's proposal."""
    return erasures.propose(
        [record.record_id for record in found],
        terms.get("legal_basis", BASIS),
        terms.get("reason", "The person asked for it."),
        by=terms.get("by", world.administrator),
        clock=world.clock,
    )


def erased(world: World, *found: Record) -> Record:
    """The same, confirmed by an auditor; the record about it."""
    draft = erasures.confirm(proposed(world, *found), by=world.auditor, clock=world.clock)
    return Record.objects.get(record_id=draft.record_id)


def kinds_of(name: str) -> int:
    return Record.objects.filter(kind=name).count()


# --- what goes and what stays -------------------------------------------------------------------------------------


def test_the_bytes_go_and_an_entry_says_why(world: World) -> None:
    record = answered(world)
    said = records.payload_of(erased(world, record)) or {}
    gone = Record.objects.get(pk=record.pk)
    assert gone.body is None
    assert (gone.digest, gone.size) == (record.digest, record.size)
    (item,) = said["items"]
    assert (item["index"], item["record_id"], item["digest"]) == (
        record.index,
        record.record_id,
        record.digest,
    )
    assert said["legal_basis"] == BASIS
    assert said["erased_under"] == "two_people"
    assert (said["proposed_by"], said["confirmed_by"]) == (
        world.administrator.username,
        world.auditor.username,
    )


def test_nothing_of_what_was_erased_is_left_anywhere(world: World) -> None:
    """Every text and every byte of every table, sqlite_master aside."""
    record = answered(world)
    assert holding(SECRET)
    erased(world, record)
    assert holding(SECRET) == []
    assert not RecordKey.objects.filter(record=record.index, name__in=("actor", "external_ref")).exists()


def holding(text: str) -> list[str]:
    """Tables in which a text stands somewhere."""
    found = []
    for model in apps.get_models():
        for row in model._default_manager.all():
            values = [getattr(row, field.attname) for field in model._meta.concrete_fields]
            if any(
                text in (bytes(v).decode(errors="replace") if isinstance(v, bytes | memoryview) else str(v))
                for v in values
            ):
                found.append(model._meta.label)
    return sorted(set(found))


def test_an_answer_is_cleared_where_lists_read_it(world: World) -> None:
    record = answered(world)
    assert Route.objects.exclude(notes="").exists()
    said = records.payload_of(erased(world, record)) or {}
    assert not Route.objects.exclude(notes="", external_ref="").exists()
    assert {"place": "evidence.Route: external_ref, notes", "rows": 2} in said["cleared"]


def test_what_the_receiver_said_goes_with_the_delivery(world: World) -> None:
    (case,) = world.delivered()
    attempt = case.attempts.get()
    AttemptAnswer.objects.update_or_create(
        attempt=attempt, defaults={"excerpt": SECRET, "keep_until": world.clock()}
    )
    erased(world, Record.objects.get(record_id=attempt.record_id))
    assert AttemptAnswer.objects.get(attempt=attempt).excerpt == ""


def test_it_is_found_by_its_ids_and_no_more_by_who_acted(world: World) -> None:
    (case,) = world.delivered()
    record = Record.objects.get(record_id=case.attempts.get().record_id)
    erased(world, record)

    def finds(**key: str) -> bool:
        ((name, value),) = key.items()
        query = Query(keys=((name, value),), everything=True)
        return record.index in [found.index for found in history.page(query, limit=500).records]

    assert finds(metadata_kind=record.kind)
    assert finds(case=case.case_id)
    assert finds(delivery_id=case.plan.delivery_id)
    assert not finds(actor=world.analyst.username)
    assert not finds(actor=world.analyst.person_id)
    found = history.page(Query(q=record.record_id, everything=True)).records
    assert record.index in [one.index for one in found]


def test_the_erasure_is_found_by_what_it_erased(world: World) -> None:
    record = answered(world)
    entry = erased(world, record)
    query = Query(keys=(("erased_record_id", record.record_id), ("metadata_kind", ERASURE.name)))
    assert [found.index for found in history.page(query).records] == [entry.index]


def test_proofs_of_everything_still_verify(world: World) -> None:
    """Root, inclusion and consistency over an erased record are what they were; the case chain goes on."""
    (case,) = world.delivered()
    record = Record.objects.get(record_id=case.attempts.get().record_id)
    before = LedgerHead.objects.get()
    root = merkle.root(merkle.split(before.peaks))
    leaf = merkle.leaf_hash(bytes(SealEntry.objects.get(index=record.index).entry))
    erased(world, record)
    assert proofs.root_at(before.size) == root
    size = LedgerHead.objects.get().size
    for upto in (before.size, size):
        path = proofs.inclusion(record.index, upto)
        assert merkle.verify_inclusion(leaf, record.index, upto, path, proofs.root_at(upto))
    assert merkle.verify_consistency(
        before.size, size, proofs.consistency(before.size, size), root, proofs.root_at(size)
    )
    chain = history.chain_of(case.case_id)
    assert [link.record.kind for link in chain][-2:] == [ERASURE_PROPOSAL.name, ERASURE.name]
    assert list(verification.verify()) == []


def test_it_shows_as_erased(world: World) -> None:
    record = answered(world)
    entry = erased(world, record)
    shown = history.envelope(Record.objects.get(pk=record.pk))
    assert shown["erased"] is True
    assert (shown["erasure_id"], shown["erased_under"]) == (entry.record_id, "two_people")
    assert "signer" not in shown


def test_several_go_in_one_act(world: World) -> None:
    """And the number of queries that erased records of a page cost does not depend on how many there are."""
    found = [answered(world, f"{SECRET} {n}") for n in range(3)]
    entry = erased(world, *found)
    assert (records.payload_of(entry) or {})["record_count"] == 3
    assert holding(SECRET) == []
    assert list(verification.verify()) == []


@pytest.mark.parametrize("count", (1, 3))
def test_erased_records_cost_the_same_however_many(
    world: World, count: int, django_assert_num_queries: Callable[[int], Any]
) -> None:
    erased(world, *[answered(world) for _ in range(count)])
    gone = list(Record.objects.filter(body__isnull=True))
    assert len(gone) == count
    with django_assert_num_queries(2):
        history.envelopes(gone)


def test_what_was_approved_goes_with_the_package_and_with_the_plan(world: World) -> None:
    """The event has the plan as a whole, so either leaves nothing of these bytes."""
    (case,) = world.failed()
    (entry,) = world.approved()
    world.clock.forward(hours=1)  # type: ignore[attr-defined]
    world.ran()
    said = records.payload_of(erased(world, Record.objects.get(record_id=case.plan.delivery_id))) or {}
    entry.refresh_from_db()
    assert bytes(entry.body) == b""
    assert {"place": "recovery.ApprovalEntry: body", "rows": 1} in said["cleared"]
    assert list(verification.verify()) == []


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", (Role.ANALYST, Role.APPROVER, Role.OPERATOR, Role.VIEWER))
def test_others_propose_nothing(world: World, role: Role) -> None:
    record = answered(world)
    with pytest.raises(NotAllowed):
        proposed(world, record, by=person(role))


@pytest.mark.parametrize("act", (erasures.confirm, lambda *a, **k: erasures.refuse(*a, notes="No.", **k)))
def test_nobody_decides_on_their_own(world: World, act: Callable[..., Any]) -> None:
    record = answered(world)
    service = person(Role.AUDITOR, owner=world.auditor)
    own = proposed(world, record, by=world.auditor)
    for account in (world.auditor, service):
        with pytest.raises(NotAllowed) as refusal:
            act(own, by=account, clock=world.clock)
        assert refusal.value.code == "second_person_required"
    with pytest.raises(NotAllowed):
        act(own, by=world.administrator, clock=world.clock)
    assert Record.objects.get(pk=record.pk).body is not None


def test_a_service_account_counts_as_its_owner(world: World) -> None:
    record = answered(world)
    own = proposed(world, record, by=person(Role.AUDITOR, owner=world.auditor))
    with pytest.raises(NotAllowed):
        erasures.confirm(own, by=world.auditor, clock=world.clock)


def test_a_role_that_came_later_confirms_nothing(world: World) -> None:
    """An administrator could otherwise make the second person they need."""
    erasure = proposed(world, answered(world))
    late = person()
    world.clock.forward(minutes=1)  # type: ignore[attr-defined]
    people.grant_role(late, Role.AUDITOR, by=world.administrator, clock=world.clock)
    late = type(late).objects.get(pk=late.pk)
    with pytest.raises(NotAllowed, match="did not hold the auditor role"):
        erasures.confirm(erasure, by=late, clock=world.clock)


def test_the_proposer_alone_takes_it_back(world: World) -> None:
    erasure = proposed(world, answered(world))
    with pytest.raises(NotAllowed) as refusal:
        erasures.withdraw(erasure, by=world.auditor, clock=world.clock)
    assert refusal.value.code == "proposer_required"
    erasures.withdraw(erasure, by=world.administrator, clock=world.clock)
    erasure.refresh_from_db()
    assert erasure.state == ErasureState.WITHDRAWN
    assert kinds_of(ERASURE_REFUSAL.name) == 1


def test_a_refusal_says_why_and_nothing_goes(world: World) -> None:
    record = answered(world)
    erasure = proposed(world, record)
    with pytest.raises(InvalidInput):
        erasures.refuse(erasure, by=world.auditor, clock=world.clock, notes=" ")
    erasures.refuse(erasure, by=world.auditor, clock=world.clock, notes="Still needed.")
    with pytest.raises(Conflict) as refusal:
        erasures.confirm(erasure, by=world.auditor, clock=world.clock)
    assert refusal.value.code == "erasure_ended"
    assert Record.objects.get(pk=record.pk).body is not None


@pytest.mark.parametrize(
    ("terms", "field"),
    (
        ({"legal_basis": " "}, "legal_basis"),
        ({"reason": ""}, "reason"),
        ({"legal_basis": "x" * 201}, "legal_basis"),
    ),
)
def test_a_proposal_says_under_which_basis_and_why(world: World, terms: dict[str, str], field: str) -> None:
    record = answered(world)
    with pytest.raises(InvalidInput) as refusal:
        proposed(world, record, **terms)
    assert list(refusal.value.errors) == [field]


def test_a_proposal_names_records(world: World) -> None:
    for ids, error in (
        ([], InvalidInput),
        ([f"gordack-{n:016x}" for n in range(101)], InvalidInput),
        (["x"], NotFound),
    ):
        with pytest.raises(error):
            erasures.propose(ids, BASIS, "Asked for.", by=world.auditor, clock=world.clock)


# --- what has to stay ---------------------------------------------------------------------------------------------


def code_of(act: Callable[[], Any]) -> str:
    with pytest.raises(DomainError) as refusal:
        act()
    return refusal.value.code


NEVER = {
    "ledger-genesis",
    "person",
    "role-grant",
    "configuration-change",
    "ledger-key",
    "ledger-anchor",
    "erasure-proposal",
    "erasure-refusal",
    "erasure",
    "legal-hold",
    "legal-hold-lift",
}


def test_kinds_that_judge_others_stay_for_good() -> None:
    assert {name for name, kind in KINDS.items() if not kind.erasable} >= NEVER


@pytest.mark.parametrize("kind", ("ledger-genesis", "person", "role-grant", "configuration-change"))
def test_no_record_of_such_a_kind_is_proposed(world: World, kind: str) -> None:
    record = Record.objects.filter(kind=kind).order_by("index")[0]
    assert code_of(lambda: proposed(world, record)) == "kind_kept"


def test_nor_is_the_record_of_an_erasure(world: World) -> None:
    entry = erased(world, answered(world))
    assert code_of(lambda: proposed(world, entry)) == "kind_kept"


def test_what_an_unsettled_case_needs_stays(world: World) -> None:
    """Its records, its audit package and its delivery plan: a retry sends what is in them."""
    (case,) = world.failed()
    ids = [case.attempts.get().record_id, case.package.audit_id, case.plan.delivery_id]
    for record in Record.objects.filter(record_id__in=ids):
        assert code_of(lambda record=record: proposed(world, record)) == "case_unsettled"
    world.disposed(case)
    erased(world, *Record.objects.filter(record_id__in=ids))
    assert list(verification.verify()) == []


def test_nothing_is_erased_twice_or_proposed_twice(world: World) -> None:
    record = answered(world)
    erasure = proposed(world, record)
    assert code_of(lambda: proposed(world, record)) == "erasure_open"
    erasures.confirm(erasure, by=world.auditor, clock=world.clock)
    assert code_of(lambda: proposed(world, Record.objects.get(pk=record.pk))) == "record_erased"


def test_one_record_that_has_to_stay_keeps_the_others_of_its_proposal(world: World) -> None:
    """All or none: what was confirmed is what was read."""
    first, second = answered(world), answered(world)
    erasure = proposed(world, first, second)
    holds.place(second.record_id, reason="Case 12 of the court.", by=world.auditor, clock=world.clock)
    assert code_of(lambda: erasures.confirm(erasure, by=world.auditor, clock=world.clock)) == "legal_hold"
    assert Record.objects.filter(body__isnull=True).count() == 0
    erasure.refresh_from_db()
    assert erasure.state == ErasureState.PROPOSED


# --- what the database itself refuses -----------------------------------------------------------------------------


def sql(statement: str, *params: Any) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, params)


def refused(statement: str, *params: Any) -> None:
    with pytest.raises(IntegrityError):
        sql(statement, *params)


EMPTY_BODY = 'UPDATE "evidence_record" SET "body" = NULL WHERE "index" = %s'
DROP_KEYS = 'DELETE FROM "evidence_recordkey" WHERE "record" = %s'


def test_bytes_stay_without_a_confirmed_erasure(world: World) -> None:
    record = answered(world)
    for statement in (EMPTY_BODY, DROP_KEYS):
        refused(statement, record.index)
    erasure = proposed(world, record)
    for statement in (EMPTY_BODY, DROP_KEYS):
        refused(statement, record.index)
    erasures.refuse(erasure, by=world.auditor, clock=world.clock, notes="No.")
    for statement in (EMPTY_BODY, DROP_KEYS):
        refused(statement, record.index)


def test_a_confirmed_erasure_lets_its_own_records_go_and_nothing_else(world: World) -> None:
    """Only the body, only to nothing, only once; no other column, no other record, no other table's row."""
    mine, other = answered(world), answered(world)
    erasure = proposed(world, mine)
    moment = world.clock()
    update = (
        'UPDATE "evidence_erasure" SET "state" = %s, "decided_by_id" = %s, "decided_at" = %s WHERE "id" = %s'
    )
    sql(update, "confirmed", world.auditor.pk, connection.ops.adapt_datetimefield_value(moment), erasure.pk)
    refused('UPDATE "evidence_record" SET "body" = "digest" WHERE "index" = %s', mine.index) if (
        connection.vendor == "sqlite"
    ) else refused('UPDATE "evidence_record" SET "body" = \'x\'::bytea WHERE "index" = %s', mine.index)
    refused('UPDATE "evidence_record" SET "body" = NULL, "size" = 1 WHERE "index" = %s', mine.index)
    refused('UPDATE "evidence_record" SET "size" = 1 WHERE "index" = %s', mine.index)
    refused('DELETE FROM "evidence_record" WHERE "index" = %s', mine.index)
    refused('UPDATE "evidence_recordkey" SET "value" = \'x\' WHERE "record" = %s', mine.index)
    refused('DELETE FROM "evidence_sealentry" WHERE "index" = %s', mine.index)
    for statement in (EMPTY_BODY, DROP_KEYS):
        refused(statement, other.index)
        sql(statement, mine.index)
    refused(EMPTY_BODY, mine.index)
    refused(
        'INSERT INTO "evidence_erasureitem" ("erasure_id", "index", "record_id", "kind", "digest") '
        "VALUES (%s, %s, %s, %s, %s)",
        erasure.pk,
        other.index,
        other.record_id,
        other.kind,
        other.digest,
    )


def test_a_hold_keeps_the_bytes_whatever_was_confirmed(world: World) -> None:
    record = answered(world)
    erasure = proposed(world, record)
    holds.place("*", reason="Audit.", by=world.auditor, clock=world.clock)
    update = (
        'UPDATE "evidence_erasure" SET "state" = %s, "decided_by_id" = %s, "decided_at" = %s WHERE "id" = %s'
    )
    at = connection.ops.adapt_datetimefield_value(world.clock())
    sql(update, "confirmed", world.auditor.pk, at, erasure.pk)
    for statement in (EMPTY_BODY, DROP_KEYS):
        refused(statement, record.index)


def test_an_erasure_is_proposed_before_it_is_confirmed(world: World) -> None:
    with pytest.raises(IntegrityError, match="erasure_is_proposed_first"), transaction.atomic():
        Erasure.objects.create(
            erasure_id="erasure-1",
            legal_basis=BASIS,
            proposed_by=world.administrator,
            proposed_through=world.administrator,
            proposal_id="x",
            proposed_at=world.clock(),
            state=ErasureState.CONFIRMED,
            decided_by=world.auditor,
            decided_at=world.clock(),
        )


@pytest.mark.parametrize("column", ("index", "record_id", "kind", "digest"))
def test_what_an_erasure_names_is_one_record(world: World, column: str) -> None:
    """The place of one and the id of another would let the other's bytes go from under a hold."""
    mine, other = answered(world), answered(world, "Somebody else.")
    erasure = proposed(world, mine)
    named = {name: getattr(other, name) for name in ("index", "record_id", "kind", "digest")}
    wrong = {
        "index": mine.index,
        "record_id": mine.record_id,
        "kind": CONNECTOR_DELIVERY.name,
        "digest": mine.digest,
    }
    with pytest.raises(IntegrityError, match="erasure_names_a_record"), transaction.atomic():
        ErasureItem.objects.create(erasure=erasure, **named | {column: wrong[column]})


def test_one_person_is_not_two(world: World) -> None:
    erasure = proposed(world, answered(world))
    with pytest.raises(IntegrityError, match="erasure_by_two"), transaction.atomic():
        Erasure.objects.filter(pk=erasure.pk).update(
            state=ErasureState.CONFIRMED, decided_by=erasure.proposed_by, decided_at=world.clock()
        )


# --- what verify_ledger says --------------------------------------------------------------------------------------


def unguarded(record: Record, body: bytes | memoryview | None) -> None:
    """The body is set by somebody with the database's login, and no record says so."""
    if connection.vendor == "postgresql":
        sql("SET CONSTRAINTS ALL IMMEDIATE")
    guards.drop()
    Record.objects.filter(pk=record.pk).update(body=body)
    guards.install()


def test_a_missing_body_without_an_erasure_is_a_difference(world: World) -> None:
    record = answered(world)
    unguarded(record, None)
    first = next(iter(verification.verify()))
    assert (first.what, first.index) == ("body", record.index)
    assert "no erasure says so" in first.found


def test_rows_alone_excuse_nothing(world: World) -> None:
    """Whoever has the database's login can confirm in the table; the ledger does not say it."""
    record = answered(world)
    erasure = proposed(world, record)
    at = connection.ops.adapt_datetimefield_value(world.clock())
    update = (
        'UPDATE "evidence_erasure" SET "state" = %s, "decided_by_id" = %s, "decided_at" = %s WHERE "id" = %s'
    )
    sql(update, "confirmed", world.auditor.pk, at, erasure.pk)
    sql(EMPTY_BODY, record.index)
    first = next(iter(verification.verify()))
    assert (first.what, first.index) == ("body", record.index)


def test_keys_of_an_erased_record_are_those_its_erasure_kept(world: World) -> None:
    record = answered(world)
    erased(world, record)
    RecordKey.objects.create(
        name="actor", value="somebody", created_at=record.created_at, record=record.index
    )
    (difference,) = verification.verify()
    assert (difference.what, difference.index) == ("search key", record.index)


def test_bytes_that_came_back_are_a_difference(world: World) -> None:
    record = answered(world)
    erased(world, record)
    unguarded(record, record.body)
    assert ("body", record.index) in [(one.what, one.index) for one in verification.verify()]


# --- several at once ----------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_hold_comes_before_an_erasure_or_after_it(receiver: Receiver) -> None:
    """Somebody confirms twice while somebody else places a hold."""
    world = World(receiver)
    for _ in range(3):
        record = answered(world)
        erasure = proposed(world, record)
        results = together(
            lambda erasure=erasure: erasures.confirm(erasure, by=world.auditor, clock=world.clock),
            lambda record=record: holds.place(
                record.record_id, reason="court", by=world.auditor, clock=world.clock
            ),
            lambda erasure=erasure: erasures.confirm(erasure, by=world.auditor, clock=world.clock),
        )
        failed = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(error, DomainError) for error in failed), failed
        hold = Record.objects.filter(kind=LEGAL_HOLD.name).latest("index")
        gone = Record.objects.filter(record_id=erasure.erasure_id).first()
        assert len(failed) == (1 if gone else 2)
        assert (gone is None) == (Record.objects.get(pk=record.pk).body is not None)
        assert gone is None or gone.index < hold.index
    assert list(verification.verify()) == []


@pytest.mark.race
@pytest.mark.django_db(transaction=True)
def test_a_package_is_delivered_or_erased(receiver: Receiver) -> None:
    """Either the erasure finds an unsettled case, or the delivery finds no content; no case is left sending."""
    world = World(receiver)
    for _ in range(3):
        world.announced()
        world.acknowledged()
        frozen = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock)
        erasure = proposed(world, frozen.record)
        request = DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0)
        results = together(
            lambda erasure=erasure: erasures.confirm(erasure, by=world.auditor, clock=world.clock),
            lambda request=request: deliveries.deliver_audit(request, by=world.analyst, clock=world.clock),
        )
        failed = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(error, DomainError) for error in failed), failed
        assert not Case.objects.filter(state=CaseState.SENDING).exists()
    assert list(verification.verify()) == []


@pytest.mark.only("postgresql")
@pytest.mark.django_db(transaction=True)
def test_a_package_that_goes_while_its_delivery_begins_is_not_delivered(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content was read and the log is not held yet: the erasure is done, and no case is made of what went."""
    world = World(receiver)
    world.announced()
    world.acknowledged()
    frozen = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock)
    erasure = proposed(world, frozen.record)
    read = deliveries._package_content

    def read_before(package: Any) -> Any:
        content = read(package)
        if Record.objects.get(pk=frozen.record.pk).body is not None:
            together(lambda: erasures.confirm(erasure, by=world.auditor, clock=world.clock))
        return content

    monkeypatch.setattr(deliveries, "_package_content", read_before)
    request = DeliveryRequest(filters=PackageFilters(), retries=0, timeout_s=5.0)
    with pytest.raises(Conflict) as refusal:
        deliveries.open_plan(
            frozen.package, list(Connector.objects.all()), request, by=world.analyst, clock=world.clock
        )
    assert refusal.value.code == "audit_package_not_found"
    assert Record.objects.get(pk=frozen.record.pk).body is None
    assert not Case.objects.exists()


def test_content_that_is_gone_is_not_sent_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing body ends the attempt; it leaves no case sending."""
    monkeypatch.setattr(events, "event_for", _gone)
    (case,) = world.delivered()
    assert case.state == CaseState.FAILED
    attempt = case.attempts.get()
    assert (attempt.answer, attempt.failure_class) == ("not_sent", "misconfigured")


def _gone(case: Case) -> dict[str, Any]:
    raise Conflict("The audit package is not there any more.", code="audit_package_not_found")
