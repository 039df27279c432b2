"""P10, P12: a committed record is a sealed record, in one order, in its cases' chains, or nothing is."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import Tags, run_checks
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Model

from evidence.documents import GENESIS
from evidence.domain import ledger, merkle, records, verification
from evidence.models import (
    CaseLink,
    LedgerHead,
    MerkleNode,
    Record,
    RecordCounter,
    RecordKey,
    SealEntry,
)
from tests.evidence.rows import NOON, append, draft

pytestmark = pytest.mark.usefixtures("log_alone")

TABLES: tuple[type[Model], ...] = (
    Record,
    RecordKey,
    SealEntry,
    CaseLink,
    MerkleNode,
    LedgerHead,
    RecordCounter,
)


def everything() -> list[list[object]]:
    """Contents of every ledger table."""
    return [sorted(model._default_manager.values_list(), key=str) for model in TABLES]


def entry(index: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(bytes(SealEntry.objects.get(index=index).entry))
    return found


def chain(case: str) -> list[tuple[int, int]]:
    return list(CaseLink.objects.filter(case_id=case).order_by("n").values_list("n", "index"))


# --- where it runs -------------------------------------------------------------------------------------------------


def test_outside_a_transaction_it_refuses(transactional_db: None) -> None:
    with pytest.raises(transaction.TransactionManagementError, match="inside the verb's own transaction"):
        ledger.append([draft()])
    assert Record.objects.count() == 1


def test_what_is_rolled_back_leaves_nothing(transactional_db: None) -> None:
    append(draft("case-1"))
    before = everything()
    with transaction.atomic():
        ledger.append([draft("case-1", "case-2"), draft("case-2", change="deactivated")])
        assert everything() != before
        transaction.set_rollback(True)
    assert everything() == before
    append(draft("case-1"))
    assert chain("case-1") == [(1, 1), (2, 2)]
    assert list(verification.verify()) == []


def test_a_rolled_back_savepoint_leaves_nothing_either(transactional_db: None) -> None:
    with transaction.atomic():
        ledger.append([draft("case-1")])
        with transaction.atomic():
            ledger.append([draft("case-1")])
            transaction.set_rollback(True)
        ledger.append([draft("case-1")])
    assert chain("case-1") == [(1, 1), (2, 2)]
    assert list(verification.verify()) == []


@pytest.mark.django_db
def test_nothing_to_append_is_nothing() -> None:
    before = everything()
    assert append() == []
    assert everything() == before


# --- what is written -----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_log_starts_with_its_genesis_once() -> None:
    (genesis,) = Record.objects.all()
    head = LedgerHead.objects.get()
    payload = records.payload_of(genesis)
    assert payload
    assert (genesis.index, genesis.kind, head.size, head.epoch) == (0, GENESIS.name, 1, 1)
    assert (payload["origin"], payload["epoch"]) == (head.origin, 1)
    before = everything()
    ledger.start("another-origin", at=NOON)
    assert everything() == before


@pytest.mark.django_db
def test_another_configured_origin_is_warned_of(settings: Any) -> None:
    """A name that differs from the log's own: perhaps this is not the database one believes."""
    origin = LedgerHead.objects.get().origin
    for configured, warnings in (("", []), (origin, []), ("elsewhere", ["evidence.W002"])):
        settings.CAVRA_LEDGER_ORIGIN = configured
        found = run_checks(tags=[Tags.database], databases=["default"])
        assert [problem.id for problem in found] == warnings


@pytest.mark.django_db
def test_a_record_is_stored_sealed_linked_and_found() -> None:
    made = draft("case-1", "case-2")
    (stored,) = append(made)
    head = LedgerHead.objects.get()
    assert (stored.index, stored.record_id, stored.kind) == (1, made.record_id, "person")
    assert (bytes(stored.body or b""), stored.digest, stored.size) == (made.body, made.digest, len(made.body))
    assert entry(1) == {
        "v": 1,
        "log": head.origin,
        "epoch": 1,
        "index": 1,
        "kind": "person",
        "record": made.record_id,
        "at": records.timestamp(NOON),
        "cases": [{"case": "case-1", "n": 1, "prev": None}, {"case": "case-2", "n": 1, "prev": None}],
        "body": {"sha256": made.digest, "size": len(made.body)},
    }
    sealed = SealEntry.objects.get(index=1)
    assert bytes(sealed.leaf_hash) == merkle.leaf_hash(bytes(sealed.entry))
    found = RecordKey.objects.filter(record=1, created_at=NOON).values_list("name", "value")
    assert set(found) == set(made.keys)
    assert RecordCounter.objects.get(kind="person", state="created").count == 1
    assert (head.size, head.newest_at) == (2, max(NOON, Record.objects.get(index=0).created_at))


@pytest.mark.django_db
def test_a_seal_entry_tells_no_text_and_no_name() -> None:
    """P24: the entry stays when the record's bytes are erased."""
    append(draft("case-1", name="a name in the body"))
    sealed = bytes(SealEntry.objects.get(index=1).entry)
    assert b"a name in the body" in bytes(Record.objects.get(index=1).body or b"")
    assert b"a name" not in sealed
    assert b"system" not in sealed


@pytest.mark.django_db
def test_the_largest_seal_entry_stays_under_40_kb() -> None:
    longest = CaseLink._meta.get_field("case_id").max_length
    assert longest
    cases = [f"{number:03}".ljust(longest, "x") for number in range(records.MAX_CASES_PER_RECORD)]
    append(draft(*cases))
    append(draft(*cases))  # now each quotes a previous leaf
    assert len(bytes(SealEntry.objects.get(index=2).entry)) < 40_000
    append(draft("gordackdelivery-0123456789abcdef.splunk"))
    assert len(bytes(SealEntry.objects.get(index=3).entry)) < 1_000


@pytest.mark.django_db
def test_drafts_of_one_batch_continue_each_others_chains() -> None:
    append(draft("a"))
    append(draft("a", "b"), draft("b"), draft(), draft("b", "a"))
    assert chain("a") == [(1, 1), (2, 2), (3, 5)]
    assert chain("b") == [(1, 2), (2, 3), (3, 5)]
    leaf = {index: bytes(SealEntry.objects.get(index=index).leaf_hash).hex() for index in range(6)}
    assert entry(2)["cases"] == [{"case": "a", "n": 2, "prev": leaf[1]}, {"case": "b", "n": 1, "prev": None}]
    assert entry(3)["cases"] == [{"case": "b", "n": 2, "prev": leaf[2]}]
    assert entry(4)["cases"] == []
    assert entry(5)["cases"] == [
        {"case": "b", "n": 3, "prev": leaf[3]},
        {"case": "a", "n": 3, "prev": leaf[2]},
    ]
    assert list(verification.verify()) == []


@pytest.mark.django_db
def test_a_batch_may_name_thousands_of_cases() -> None:
    sets = [[f"case-{number}-{part}" for number in range(200)] for part in range(7)]
    for _ in range(2):
        append(*(draft(*cases) for cases in sets))
    assert CaseLink.objects.filter(n=2).count() == 1400
    assert list(verification.verify()) == []


@pytest.mark.django_db
def test_an_append_costs_the_same_number_of_queries_for_one_record_and_for_twenty(
    django_assert_max_num_queries: Callable[..., object],
) -> None:
    with django_assert_max_num_queries(15):
        append(draft("a"))
    with django_assert_max_num_queries(15):
        append(*(draft("a", f"b{number}") for number in range(20)))


@pytest.mark.django_db
def test_a_record_id_is_used_once() -> None:
    made = draft()
    append(made)
    with pytest.raises(IntegrityError):
        append(made)
    assert LedgerHead.objects.get().size == 2


@pytest.mark.django_db
def test_the_newest_time_never_goes_back() -> None:
    late = NOON + timedelta(days=3650)
    append(draft(at=late))
    append(draft(at=NOON))
    assert ledger.newest_time() == late
    append(draft(at=NOON), draft(at=late + timedelta(seconds=1)), draft(at=NOON))
    assert ledger.newest_time() == late + timedelta(seconds=1)


@pytest.mark.django_db
def test_counters_count_by_kind_and_state() -> None:
    append(draft(change="created"), draft(change="created"), draft(change="deactivated"))
    append(draft(change="created"))
    counted = dict(RecordCounter.objects.filter(kind="person").values_list("state", "count"))
    assert counted == {"created": 3, "deactivated": 1}


# --- several at once -----------------------------------------------------------------------------------------------

WRITERS, ROUNDS = 4, 8


@pytest.mark.race
@pytest.mark.parametrize("broken", (0, 2), ids=("all commit", "half roll back"))
def test_concurrent_appends_leave_no_gap(transactional_db: None, broken: int) -> None:
    """Each writer names a case of its own and one that all share; some roll back every other time."""
    start = threading.Barrier(WRITERS)
    failures: list[BaseException] = []

    def write(writer: int) -> None:
        try:
            start.wait(timeout=60)
            for number in range(ROUNDS):
                with transaction.atomic():
                    ledger.append([draft("shared", f"own-{writer}"), draft(f"own-{writer}")])
                    if writer < broken and number % 2:
                        transaction.set_rollback(True)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failures == []
    committed = [ROUNDS // 2 if writer < broken else ROUNDS for writer in range(WRITERS)]
    assert LedgerHead.objects.get().size == 1 + 2 * sum(committed)
    assert list(Record.objects.order_by("index").values_list("index", flat=True)) == list(
        range(1 + 2 * sum(committed))
    )
    assert [n for n, _ in chain("shared")] == list(range(1, sum(committed) + 1))
    for writer, rounds in enumerate(committed):
        assert len(chain(f"own-{writer}")) == 2 * rounds
    assert list(verification.verify()) == []
    assert connection.in_atomic_block is False
