"""Every documented filter of the history is one range of an index, at 10,000 analysed records (P15, W21)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, transaction

from evidence.documents import GENESIS, KINDS
from evidence.domain import history
from evidence.domain.history import Query
from evidence.filtersets import EvidenceFilter, HistoryFilter, KeyFilter
from evidence.models import Record
from tests.evidence import documents

pytestmark = pytest.mark.django_db

RECORDS = 10_000
KIND = "go-backend-rollback-drill-acknowledgement-audit-delivery-retry-execution-record"

N = 4_000
# A document of the default history that has all of these, whatever kinds there are and in whatever order.
FOUND = next(
    dict(draft.keys)
    for draft in documents.drafts(len(documents.KIND_TABLE), N)
    if draft.kind.contract and {"case", "provider", "external_ref"} <= {name for name, _ in draft.keys}
)
# One value for each filter, taken from document 4,000 or what fits it; several documents have it.
VALUES: dict[str, str] = {
    "schedule_id": "drill-3",
    "provider": "Jira-EU",
    "metadata_kind": KIND,
    "acknowledgement_state": "accepted",
    "connector_delivery_source": "go_backend_rollback_drill_acknowledgement_audit",
    "delivery_success": "false",
    "alert_level": "critical",
    "audit_id": documents.subject("gordackaudit", N, 200),
    "delivery_id": documents.subject("gordackdelivery", N, 100),
    "cadence": "hourly",
    "case": FOUND["case"],
    "run_id": documents.subject("gordackworker", N, 150),
    "retry_plan_id": documents.subject("gordackretry", N, 150),
    "approval_plan_id": documents.subject("gordackretryapproval", N, 150),
    "approval_state": "denied",
    "execution_status": "failed",
    "playbook_id": documents.subject("gordackrecovery", N, 300),
    "closure_state": "resolved",
    "actor": "cleo",
    "external_ref": FOUND["external_ref"],
    "created_after": documents.when(9_000).isoformat(),
    "created_before": documents.when(1_000).isoformat(),
    "q": documents.subject("gordackdelivery", N, 100),
    "include": "all",
}


@pytest.fixture(scope="module")
def ledger(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """10,000 records of all kinds with fresh statistics, gone after this module."""
    with django_db_blocker.unblock():
        with transaction.atomic():
            documents.fill(RECORDS)
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE")
            yield
            transaction.set_rollback(True)
        if connection.vendor == "sqlite":
            # The statistics were rolled back with the rows; this connection forgets them too.
            connection.close()


def asked(**sent: str) -> Query:
    filters = HistoryFilter(sent, queryset=Record.objects.none())
    assert filters.is_valid(), filters.errors
    return filters.query


class Statements:
    """Collects the SELECTs that a piece of code runs, with their parameters."""

    def __init__(self) -> None:
        self.run: list[tuple[str, Any]] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.run.append((sql, params))
        return execute(sql, params, many, context)


def statements_of(query: Query, **page: Any) -> list[tuple[str, Any]]:
    seen = Statements()
    with connection.execute_wrapper(seen):
        history.page(query, **page)
    assert seen.run
    return seen.run


def plan_of(sql: str, params: Any) -> list[str]:
    """The database's plan, one step a line."""
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {sql}", params)
        return [row[-1] for row in cursor.fetchall()]


def full_scans(plan: list[str]) -> list[str]:
    """Steps that read all of a table of records, or sort what an index could have given in order.

    The newest records of all are read off the end of their index, which SQLite calls a scan of it, and the
    log has one head.
    """
    if connection.vendor == "sqlite":
        allowed = r"CONSTANT ROW|c$|d USING COVERING INDEX record_newest$|evidence_ledgerhead "
        return [step for step in plan if re.match(rf"SCAN (?!{allowed})", step) or "TEMP B-TREE" in step]
    return [step for step in plan if "Seq Scan on evidence_record" in step]


def test_a_full_scan_would_be_seen(ledger: None) -> None:
    """The check itself can fail: a column without an index is read from end to end."""
    assert full_scans(plan_of("SELECT size FROM evidence_record WHERE size = %s", [1]))


def test_values_cover_every_filter() -> None:
    assert VALUES.keys() == HistoryFilter.base_filters.keys()


@pytest.mark.parametrize("name", sorted(VALUES))
def test_one_filter_reads_an_index(ledger: None, name: str) -> None:
    for sql, params in statements_of(asked(**{name: VALUES[name]})):
        plan = plan_of(sql, params)
        assert full_scans(plan) == [], (sql, plan)


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"metadata_kind"}))
def test_a_filter_with_a_kind_reads_an_index(ledger: None, name: str) -> None:
    for sql, params in statements_of(asked(**{name: VALUES[name], "metadata_kind": KIND})):
        plan = plan_of(sql, params)
        assert full_scans(plan) == [], (sql, plan)


@pytest.mark.parametrize(
    "page", ({"offset": 2_000}, {"cursor": history.Place(documents.when(5_000), 5_001).cursor})
)
@pytest.mark.parametrize("sent", ({}, {"provider": "splunk"}, {"include": "all"}, {"q": "0123abcd"}))
def test_later_pages_read_an_index(ledger: None, sent: dict[str, str], page: dict[str, Any]) -> None:
    for sql, params in statements_of(asked(**sent), **page):
        plan = plan_of(sql, params)
        assert full_scans(plan) == [], (sql, plan)


def test_a_hash_prefix_reads_an_index(ledger: None) -> None:
    digest = Record.objects.get(index=5_000).digest
    found = history.page(asked(q=digest[:12], include="all"))
    assert [record.index for record in found.records] == [5_000]
    for sql, params in statements_of(asked(q=digest[:12], metadata_kind=KIND)):
        assert full_scans(plan_of(sql, params)) == []


def test_a_records_own_id_reads_an_index(ledger: None) -> None:
    record = Record.objects.get(
        kind=KIND, created_at=Record.objects.filter(kind=KIND).latest("index").created_at
    )
    found = history.page(asked(delivery_id=record.record_id))
    assert [one.index for one in found.records] == [record.index]
    for sent in ({}, {"metadata_kind": KIND}, {"provider": "splunk"}):
        for sql, params in statements_of(asked(delivery_id=record.record_id, **sent)):
            assert full_scans(plan_of(sql, params)) == [], sql


def test_the_rarest_filter_is_walked(ledger: None) -> None:
    """A page of several filters probes the others for the few rows of the rarest, whatever order they come in."""
    rare, common = ("external_ref", VALUES["external_ref"]), ("provider", FOUND["provider"])
    for keys in ((rare, common), (common, rare)):
        (walked,) = (
            params for sql, params in statements_of(Query(keys=keys)) if "ORDER BY d.created_at" in sql
        )
        assert tuple(walked[:2]) == rare


# --- each filter says something -----------------------------------------------------------------------------------


def test_every_filter_is_a_search_key_of_some_kind() -> None:
    given = {"metadata_kind", "case", "actor"}
    for kind in KINDS.values():
        given |= kind.keys.keys() | {name for name, _ in kind.fixed_keys}
    for filters in (HistoryFilter, EvidenceFilter):
        keys = {one.key or name for name, one in filters.base_filters.items() if isinstance(one, KeyFilter)}
        assert keys <= given


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_filter_changes_the_result(ledger: None, name: str) -> None:
    """Some records are found and others are not (``include`` finds more instead)."""
    everything = history.page(Query(everything=True), limit=1).total
    default = history.page(Query(), limit=1).total
    found = history.page(asked(**{name: VALUES[name]}), limit=1).total
    assert everything == RECORDS
    if name == "include":
        assert found == everything > default
    else:
        assert 0 < found < default


def test_a_filter_finds_what_reading_every_record_finds(ledger: None) -> None:
    """Against the slow way: derive each record's search keys from its bytes and look through all of them."""
    held = list(Record.objects.order_by("-created_at", "-index"))
    keys = {record.index: set(record_keys(record)) for record in held}
    for sent in (
        {"provider": "jira_eu", "execution_status": "failed"},
        {"actor": "ann", "alert_level": "critical", "schedule_id": "drill-3"},
        {"q": VALUES["delivery_id"], "metadata_kind": KIND},
        {"case": VALUES["case"], "include": "all"},
    ):
        wanted = {
            ("any" if name == "q" else name, value) for name, value in sent.items() if name != "include"
        }
        if "include" not in sent and "metadata_kind" not in sent:
            wanted.add(history.DEFAULT_HISTORY)
        slow = [record.index for record in held if wanted <= keys[record.index]]
        assert slow, sent
        found = history.page(asked(**sent), limit=history.MAX_LIMIT)
        assert [record.index for record in found.records] == slow[: history.MAX_LIMIT]
        assert (found.total, found.total_is_exact) == (len(slow), True)


def record_keys(record: Record) -> list[tuple[str, str]]:
    from evidence.domain import records

    return records.search_keys(KINDS[record.kind], records.load(record.body or b""))


def test_totals_are_capped_and_say_so(ledger: None) -> None:
    """One record more than can be counted: the page says that there is more than it tells."""
    assert Record.objects.count() == RECORDS + 1
    assert GENESIS.name in set(Record.objects.values_list("kind", flat=True))
    found = history.page(Query(everything=True), limit=1)
    assert (found.total, found.total_is_exact) == (history.EXACT_UP_TO, False)
    without_genesis = history.page(Query(everything=True, created_before=documents.when(RECORDS)), limit=1)
    assert (without_genesis.total, without_genesis.total_is_exact) == (RECORDS, True)
