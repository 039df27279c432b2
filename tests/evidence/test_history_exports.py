"""Exports hold what the pages hold, as files a spreadsheet and a script can read."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from evidence.documents import CONNECTOR_DELIVERY, NOTIFICATION_ACK, PERSON
from evidence.domain import exports, history
from evidence.domain.history import Query
from evidence.enums import Role
from evidence.filtersets import HistoryFilter, KeyFilter
from evidence.models import Record
from tests.evidence.documents import append, draft, fill, when
from tests.evidence.test_history_api import B, Reader

pytestmark = pytest.mark.django_db

JSON_LINES, CSV = "/api/v1/exports/history.jsonl", "/api/v1/exports/history.csv"


@pytest.fixture
def auditor(db: None) -> Reader:
    return Reader(Role.AUDITOR)


def body(reader: Reader, path: str, **sent: Any) -> bytes:
    answer = reader.client.get(path, sent)
    assert answer.status_code == 200
    assert answer.streaming
    return b"".join(answer.streaming_content)


def pages(reader: Reader, **sent: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = reader.get(B, limit=100, cursor=cursor, **sent)
        items += page["items"]
        cursor = page["cursor"]
    return items


FILTERS: tuple[dict[str, str], ...] = (
    {},
    {"include": "all"},
    {"provider": "splunk"},
    {"alert_level": "critical", "schedule_id": "drill-1"},
    {"q": "CHG-3"},
    {"created_after": when(200).isoformat(), "created_before": when(400).isoformat()},
    {"case": "nowhere"},
)


@pytest.mark.parametrize("sent", FILTERS)
def test_an_export_is_what_the_pages_show(sent: dict[str, str], auditor: Reader) -> None:
    fill(600)
    items = pages(auditor, **sent)
    assert bool(items) == ("case" not in sent)
    lines = body(auditor, JSON_LINES, **sent).decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {**item, "profile": settings.CAVRA_PROFILE} for item in items
    ]
    rows = list(csv.DictReader(io.StringIO(body(auditor, CSV, **sent).decode(), newline="")))
    assert [row["session_id"] for row in rows] == [item["session_id"] for item in items]
    for row, item in zip(rows, items, strict=True):
        for name in ("leaf_index", "created_at", "metadata_kind", "signer", "record_hash", "decision_count"):
            assert row[name] == str(item[name])
        assert row["profile"] == settings.CAVRA_PROFILE


def test_an_export_is_a_file(auditor: Reader) -> None:
    for path, content_type, extension in (
        (JSON_LINES, "application/x-ndjson", "jsonl"),
        (CSV, "text/csv; charset=utf-8", "csv"),
    ):
        answer = auditor.client.get(path)
        assert answer["content-type"] == content_type
        assert answer["content-disposition"].startswith('attachment; filename="cavra-history-')
        assert answer["content-disposition"].endswith(f'.{extension}"')
        assert answer["x-cavra-profile"] == settings.CAVRA_PROFILE
        assert answer["cache-control"] == "private, no-store"


def test_the_table_has_a_column_for_every_filter_that_names_a_value() -> None:
    named = {name for name, one in HistoryFilter.base_filters.items() if isinstance(one, KeyFilter)}
    assert named - {"actor", "metadata_kind"} <= set(exports.COLUMNS)
    assert {"signer", "metadata_kind"} <= set(exports.COLUMNS)


def test_several_values_share_a_cell() -> None:
    (record,) = append(draft(NOTIFICATION_ACK, 1, external_ref="CHG-1"))
    header, row = table([record])
    cells = dict(zip(header, row, strict=True))
    assert cells["external_ref"] == "CHG-1"
    from recovery.documents import RETRY_PLAN

    (record,) = append(draft(RETRY_PLAN, 1))
    header, row = table([record])
    assert dict(zip(header, row, strict=True))["provider"] == "splunk webhook"


def test_a_records_own_value_stands_alone_in_its_cell() -> None:
    """Its filter finds a delivery by its event and its own id too; neither is what the column names."""
    from recovery.documents import RETRY_PLAN

    (delivery, notice, plan) = append(
        draft(CONNECTOR_DELIVERY, 1, delivery_id="gordackdelivery-1", event_id="event-1", audit_id="a-1"),
        draft(CONNECTOR_DELIVERY, 2, delivery_id="", event_id="gordn-2", delivery_success=False),
        draft(RETRY_PLAN, 3),
    )
    header, *rows = table([delivery, notice, plan])
    first, second, third = (dict(zip(header, row, strict=True)) for row in rows)
    assert (first["delivery_id"], first["audit_id"]) == ("gordackdelivery-1", "a-1")
    assert (second["delivery_id"], second["delivery_success"]) == ("", "false")
    assert third["provider"] == "splunk webhook"


def table(found: list[Record]) -> list[list[str]]:
    data = b"".join(exports.csv_rows(found, profile="compatible"))
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


@pytest.mark.parametrize("text", ("=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "＝1", "＋1", "－1", "＠x"))
def test_no_cell_is_a_formula(text: str) -> None:
    assert exports.safe_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ("", "CHG-1", "1", "a=b", "'quoted", "2026-01-01"))
def test_other_cells_stay_as_they_are(text: str) -> None:
    assert exports.safe_cell(text) == text


def test_formulas_from_people_are_made_safe_in_the_file() -> None:
    (record,) = append(
        draft(NOTIFICATION_ACK, 1, external_ref='=HYPERLINK("http://x.example","y")', schedule_id='a,b"c')
    )
    header, row = table([record])
    cells = dict(zip(header, row, strict=True))
    assert cells["external_ref"] == '\'=HYPERLINK("http://x.example","y")'
    assert cells["schedule_id"] == 'a,b"c'
    line = json.loads(b"".join(exports.json_lines([record], profile="compatible")))
    assert line["acknowledgement"]["external_ref"] == '=HYPERLINK("http://x.example","y")'


def test_an_erased_record_is_a_row_without_content() -> None:
    built = draft(PERSON, 1)
    erased = Record(
        index=7, record_id=built.record_id, kind=PERSON.name, created_at=when(1), digest=built.digest, size=1
    )
    header, row = table([erased])
    cells = {name: cell for name, cell in zip(header, row, strict=True) if cell}
    assert cells == {
        "leaf_index": "7",
        "session_id": built.record_id,
        "created_at": history.envelope(erased)["created_at"],
        "metadata_kind": PERSON.name,
        "record_hash": built.digest,
        "profile": "compatible",
    }


def test_an_export_reads_piece_by_piece() -> None:
    """No more than one chunk is read ahead of what was taken."""
    fill(1_200)
    with CaptureQueriesContext(connection) as seen:
        stream: Iterator[Record] = history.stream(Query(everything=True), chunk=100)
        for _ in range(100):
            next(stream)
        first = len(seen)
        next(stream)
        assert len(seen) == first + 2
    written = exports.json_lines(stream, profile="compatible")
    assert next(written).count(b"\n") == exports.ROWS_AT_ONCE
    assert next(stream)
