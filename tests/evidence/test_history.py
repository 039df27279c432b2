"""Finding records: order, pages, totals, the search over everything that names something (P15, W22, W23)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from evidence.documents import (
    CONFIGURATION,
    CONNECTOR_DELIVERY,
    DELIVERY_PLAN,
    KINDS,
    NOTIFICATION_ACK,
    NOTIFICATION_PLAN,
    PERSON,
    ROLE,
)
from evidence.domain import history, records
from evidence.domain.history import Place, Query
from evidence.errors import InvalidInput, NotFound
from evidence.models import CaseLink, Record, RecordCounter
from recovery.documents import APPROVAL_DECISION, EXECUTION_CLAIM, EXECUTION_RECORD
from tests.evidence.documents import append, draft, fill, when

pytestmark = pytest.mark.django_db

EVERYTHING = Query(everything=True)


def walk(query: Query, limit: int) -> list[Record]:
    """Every record a cursor meets, page by page."""
    met: list[Record] = []
    cursor = ""
    while True:
        page = history.page(query, limit=limit, cursor=cursor)
        assert len(page.records) <= limit
        met += page.records
        if not (cursor := page.cursor):
            return met


def test_every_kind_fits_its_columns() -> None:
    """PostgreSQL refuses what SQLite lets pass."""
    for kind in KINDS.values():
        for model in (Record, RecordCounter):
            assert len(kind.name) <= (model._meta.get_field("kind").max_length or 0), kind.name


# --- order and pages ----------------------------------------------------------------------------------------------


def test_newest_first_and_the_log_decides_between_equal_times() -> None:
    fill(60)
    found = history.page(Query(), limit=500).records
    places = [(record.created_at, record.index) for record in found]
    assert places == sorted(places, reverse=True)
    assert len({created_at for created_at, _ in places}) < len(places)


@pytest.mark.parametrize("query", (EVERYTHING, Query(), Query(keys=(("provider", "splunk"),))))
def test_a_cursor_meets_each_record_once_while_others_are_appended(query: Query) -> None:
    fill(90)
    before = [record.index for record in history.stream(query)]
    met: list[int] = []
    cursor, appended = "", 90
    while True:
        page = history.page(query, limit=7, cursor=cursor)
        met += [record.index for record in page.records]
        if not (cursor := page.cursor):
            break
        fill(11, appended)
        appended += 11
    assert met == before
    assert len(before) > 7


def test_an_offset_skips_and_a_cursor_ends() -> None:
    fill(40)
    everything = walk(EVERYTHING, 500)
    assert history.page(EVERYTHING, offset=5, limit=10).records == everything[5:15]
    assert history.page(EVERYTHING, limit=len(everything)).cursor == ""
    assert history.page(EVERYTHING, limit=len(everything) - 1).cursor != ""
    beyond = history.page(EVERYTHING, offset=history.MAX_OFFSET)
    assert (beyond.records, beyond.total, beyond.cursor) == ([], len(everything), "")


@pytest.mark.parametrize(
    ("page", "field"),
    (
        ({"limit": 0}, "limit"),
        ({"limit": 501}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 10_001}, "offset"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": Place(when(0), 3).cursor + "A"}, "cursor"),
        ({"cursor": Place(when(0), 3).cursor, "offset": 1}, "cursor"),
    ),
)
def test_pages_out_of_bounds_are_refused(page: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        history.page(Query(), **page)  # type: ignore[arg-type]
    assert list(refusal.value.errors) == [field]


def test_a_cursor_reads_back() -> None:
    for place in (Place(when(3), 0), Place(when(8), 10**17)):
        assert Place.of(place.cursor) == place


def test_times_are_half_open() -> None:
    fill(10)
    found = history.page(Query(everything=True, created_after=when(2), created_before=when(6))).records
    assert {record.created_at for record in found} == {when(2), when(4)}
    assert history.page(Query(created_after=when(10))).total == 0


def test_a_page_of_one_kind_is_newest_first_whatever_the_times() -> None:
    """A record that was appended later but is older stands where its time puts it."""
    late = draft(PERSON, 50)
    early = draft(PERSON, 1)
    append(late)
    append(early)
    found = history.page(Query(keys=(("metadata_kind", PERSON.name),)))
    assert [record.record_id for record in found.records][:2] == [late.record_id, early.record_id]


# --- which records ------------------------------------------------------------------------------------------------


def test_the_default_history_has_the_contracts_kinds() -> None:
    fill(60)
    shown = {record.kind for record in walk(Query(), 500)}
    assert shown == {name for name, kind in KINDS.items() if kind.contract}
    assert {record.kind for record in walk(EVERYTHING, 500)} == set(KINDS)


def test_a_kind_that_is_named_is_shown() -> None:
    fill(60)
    found = history.page(Query(keys=(("metadata_kind", EXECUTION_CLAIM.name),)))
    assert found.total == Record.objects.filter(kind=EXECUTION_CLAIM.name).count() > 0


def test_delivery_id_finds_the_record_with_that_id_too() -> None:
    """CONTRACT §9: delivery_id, event_id or session_id."""
    fill(60)
    plan, plain = draft(NOTIFICATION_PLAN, 100), draft(NOTIFICATION_ACK, 101, provider="splunk")
    notice = draft(CONNECTOR_DELIVERY, 102, delivery_id="", event_id=plan.record_id, quoting=plan)
    quoting = draft(NOTIFICATION_ACK, 103, quoting=plan)
    claim = draft(EXECUTION_CLAIM, 104)
    append(plan, plain, notice, quoting, claim)

    def found(value: str, *more: tuple[str, str], **query: object) -> set[str]:
        asked = Query(keys=(("delivery_id", value), *more), **query)  # type: ignore[arg-type]
        page = history.page(asked, limit=500)
        assert page.total == len(page.records)
        assert [row.pk for row in history.stream(asked)] == [row.pk for row in page.records]
        return {record.record_id for record in page.records}

    assert found(plan.record_id) == {plan.record_id, notice.record_id}
    assert found(plan.record_id, ("metadata_kind", NOTIFICATION_PLAN.name)) == {plan.record_id}
    assert found(plan.record_id, everything=True, q=plan.digest[:12]) == {plan.record_id}
    assert found(notice.record_id) == {notice.record_id}
    assert found(plain.record_id) == {plain.record_id}
    assert found(plain.record_id, ("provider", "jira_eu")) == set()
    assert found(claim.record_id) == set()
    assert found(claim.record_id, everything=True) == {claim.record_id}


def test_a_filter_of_both_worlds_keeps_to_the_default_history() -> None:
    """``provider`` is a key of contract kinds and of ours; only ``everything`` brings ours."""
    fill(60)
    claims = Query(keys=(("provider", "splunk"),))
    default = {record.kind for record in walk(claims, 500)}
    assert all(KINDS[name].contract for name in default)
    more = {record.kind for record in walk(Query(keys=claims.keys, everything=True), 500)}
    assert EXECUTION_CLAIM.name in more


def test_contradicting_values_of_one_filter_find_what_has_both() -> None:
    (record,) = append(draft(DELIVERY_PLAN, 1, selected_providers=["jira_eu", "splunk"]))
    append(draft(DELIVERY_PLAN, 2, selected_providers=["splunk"]))
    both = Query(keys=(("provider", "splunk"), ("provider", "jira_eu")))
    assert [found.index for found in history.page(both).records] == [record.index]


def test_nothing_found_says_so_exactly() -> None:
    fill(20)
    page = history.page(Query(keys=(("case", "nowhere"), ("provider", "splunk"))))
    assert (page.records, page.total, page.total_is_exact, page.cursor) == ([], 0, True, "")


# --- q ------------------------------------------------------------------------------------------------------------


def ids_of(q: str, **more: object) -> set[str]:
    return {record.record_id for record in history.page(Query(q=q, everything=True, **more)).records}  # type: ignore[arg-type]


def test_q_finds_by_id_reference_and_hash() -> None:
    fill(60)
    decision = draft(APPROVAL_DECISION, 5, external_ref="SNOW:CHG0031", entry_id="entry-77")
    execution = draft(
        EXECUTION_RECORD, 6, entry_id="entry-77", quoting=decision, case="gordackdelivery-00.splunk"
    )
    append(decision, execution)
    assert ids_of("SNOW:CHG0031") == {decision.record_id}
    assert ids_of("snow:chg0031") == {decision.record_id}
    assert ids_of("entry-77") == {decision.record_id, execution.record_id}
    # What is quoted is found with what quotes it.
    assert ids_of(decision.record_id) == {decision.record_id, execution.record_id}
    assert ids_of(execution.record_id) == {execution.record_id}
    assert ids_of("gordackdelivery-00.splunk") == {execution.record_id}
    for length in (8, 20, 64):
        assert ids_of(decision.digest[:length]) == {decision.record_id}
    assert ids_of(decision.digest[:20].upper()) == {decision.record_id}
    manifest = records.load(execution.body)["payload"]["manifest_digest"]
    assert execution.record_id in ids_of(manifest)
    for nothing in (decision.digest[:7], decision.record_id[:-1], "CHG0031", "0" * 64):
        assert ids_of(nothing) == set()


def test_q_and_filters_have_to_hold_together() -> None:
    ack = draft(NOTIFICATION_ACK, 1, external_ref="CHG-A", provider="splunk")
    role = draft(ROLE, 2)
    append(ack, role)
    assert ids_of("chg-a", keys=(("provider", "splunk"),)) == {ack.record_id}
    assert ids_of("chg-a", keys=(("provider", "jira_eu"),)) == set()
    assert ids_of(ack.digest[:12], keys=(("provider", "splunk"),)) == {ack.record_id}
    assert ids_of(ack.digest[:12], keys=(("provider", "jira_eu"),)) == set()
    assert ids_of(role.digest[:12]) == {role.record_id}
    assert history.page(Query(q=role.digest[:12])).total == 0
    assert ids_of(ack.digest[:12], created_before=when(0)) == set()


def test_a_name_that_looks_like_a_hash_is_a_name_first() -> None:
    (named,) = append(draft(NOTIFICATION_ACK, 1, external_ref="20261123"))
    assert ids_of("20261123") == {named.record_id}


# --- costs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    (
        EVERYTHING,
        Query(),
        Query(keys=(("provider", "splunk"), ("acknowledgement_state", "escalated"))),
        Query(q="CHG-Q"),
        Query(q="CHG-Q", keys=(("provider", "splunk"),)),
        Query(created_after=when(0), everything=True),
    ),
)
def test_the_number_of_queries_is_the_same_at_any_size(query: Query) -> None:
    counts = []
    for first, last in ((0, 1), (1, 10), (10, 300)):
        append(
            *(
                draft(
                    NOTIFICATION_ACK,
                    n,
                    provider="splunk",
                    acknowledgement_state="escalated",
                    external_ref="CHG-Q",
                )
                for n in range(first, last)
            )
        )
        with CaptureQueriesContext(connection) as seen:
            page = history.page(query, limit=500)
        assert len(page.items) == page.total
        assert page.total - last in (0, 1)  # with the genesis
        counts.append(len(seen))
    assert counts[0] == counts[1] == counts[2] <= 4


# --- single records, erased records, chains -----------------------------------------------------------------------


def test_by_id() -> None:
    (record,) = append(draft(CONFIGURATION, 1))
    assert history.by_id(record.record_id) == record
    for nothing in ("", "configrec-0", "a\0b"):
        with pytest.raises(NotFound) as refusal:
            history.by_id(nothing)
        assert refusal.value.code == "record_not_found"


def test_an_erased_record_keeps_its_place() -> None:
    built = draft(PERSON, 1)
    erased = Record(
        index=9_999,
        record_id=built.record_id,
        kind=PERSON.name,
        created_at=when(1),
        body=None,
        digest=built.digest,
        size=len(built.body),
    )
    erased.save(force_insert=True)
    shown = history.envelope(erased)
    assert shown["erased"] is True
    assert (shown["session_id"], shown["record_hash"]) == (built.record_id, built.digest)
    assert shown["created_at"] == records.timestamp(when(1))
    assert PERSON.payload_key not in shown


def test_a_chain_is_read_in_its_order() -> None:
    fill(400)
    case_id, count = max(
        ((link.case_id, link.n) for link in CaseLink.objects.all()), key=lambda found: found[1]
    )
    assert count > 5
    chain = history.chain_of(case_id)
    assert [link.n for link in chain] == list(range(1, count + 1))
    assert [link.record.index for link in chain] == sorted(link.record.index for link in chain)
    assert all(
        case_id in records.load(Record.objects.get(pk=link.record.pk).body or b"")["cases"] for link in chain
    )
    assert [link.n for link in history.chain_of(case_id, after=2, limit=2)] == [3, 4]


def test_stream_is_what_there_was_when_it_began() -> None:
    fill(50)
    before = walk(EVERYTHING, 500)
    stream = history.stream(EVERYTHING, chunk=10)
    first = next(stream)
    append(draft(PERSON, 0))  # its time lies behind everything that is still to come
    assert [first, *stream] == before


# --- when nothing fits ----------------------------------------------------------------------------------------------

# Behind every document, and behind the log's first entry, which is as new as this test.
LATER = datetime(2100, 1, 1, tzinfo=UTC)
NOTHING_FITS = Query(
    keys=(("provider", "splunk"), ("alert_level", "nowhere"), ("actor", "ann")),
    q="CHG-0",
    created_before=when(10_000),
)


def test_each_dropped_filter_says_what_there_would_be() -> None:
    fill(240)
    # Who wrote it depends on how many kinds there are.
    fitting = history.page(Query(keys=(("provider", "splunk"),), q="CHG-0")).items[0]["signer"]
    nothing_fits = replace(
        NOTHING_FITS, keys=(("provider", "splunk"), ("alert_level", "nowhere"), ("actor", fitting))
    )
    assert history.page(nothing_fits).total == 0
    relaxed = dict(history.relaxed(nothing_fits))
    assert list(relaxed) == ["provider", "alert_level", "actor", "q", "created_before"]
    assert relaxed["alert_level"] > 0
    assert {count for name, count in relaxed.items() if name != "alert_level"} == {0}
    without = nothing_fits.without("alert_level")
    assert relaxed["alert_level"] == history.page(without).total


@pytest.mark.parametrize(
    ("query", "name", "without"),
    (
        (Query(keys=(("provider", "splunk"),), q="0123456789ab"), "q", Query(keys=(("provider", "splunk"),))),
        (Query(keys=(("alert_level", "nowhere"),)), "alert_level", Query()),
        (Query(created_after=LATER), "created_after", Query()),
        (Query(created_after=LATER, everything=True), "created_after", EVERYTHING),
        # Naming the kind showed kinds of ours; without it the history is the default one again.
        (Query(keys=(("metadata_kind", ROLE.name), ("provider", "x"))), "metadata_kind", None),
        # Two values of one filter are one filter.
        (Query(keys=(("provider", "splunk"), ("provider", "x"))), "provider", Query()),
    ),
)
def test_what_is_dropped_is_dropped_alone(query: Query, name: str, without: Query | None) -> None:
    fill(120)
    assert history.page(query).total == 0
    relaxed = dict(history.relaxed(query))
    assert relaxed[name] == (history.page(without).total if without else 0)
    assert (relaxed[name] > 0) == (without is not None)


def test_asking_what_to_drop_takes_two_queries_whatever_is_given() -> None:
    fill(60)
    for query in (NOTHING_FITS, Query(keys=(("alert_level", "nowhere"), ("provider", "splunk")))):
        with CaptureQueriesContext(connection) as captured:
            history.relaxed(query)
        assert len(captured) <= 2


def test_a_dropped_filters_count_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EXACT_UP_TO", 10)
    fill(60)
    assert history.relaxed(Query(keys=(("alert_level", "nowhere"),))) == [("alert_level", 11)]
