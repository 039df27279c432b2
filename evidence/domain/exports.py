"""Records as files: JSON lines with all that a reader sees, CSV with one column for each filter."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from evidence.documents import KINDS
from evidence.domain import history, records, tiles
from evidence.models import LedgerHead, Record, SealEntry

# Rows that are joined before they leave: fewer, larger pieces on the wire.
ROWS_AT_ONCE = 200
# Seal entries that are read together; most are under a kilobyte.
ENTRIES_AT_ONCE = 2_000

_FIRST = ("leaf_index", "session_id", "created_at", "metadata_kind", "signer", "claimed_actor")
_COUNTS = ("decision_count", "blocked_count", "approval_required_count")
# Search keys in the order of CONTRACT §9; a record may have several values of one.
_KEYS = (
    "case",
    "schedule_id",
    "provider",
    "audit_id",
    "delivery_id",
    "retry_plan_id",
    "approval_plan_id",
    "run_id",
    "playbook_id",
    "acknowledgement_state",
    "approval_state",
    "execution_status",
    "closure_state",
    "delivery_success",
    "failure_class",
    "alert_level",
    "cadence",
    "connector_delivery_source",
    "external_ref",
)
COLUMNS = (*_FIRST, *_KEYS, *_COUNTS, "record_hash", "profile", "erased_at", "erasure_id")

# A spreadsheet takes what begins so for a formula, full-width forms included.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def json_lines(found: Iterable[Record], *, profile: str) -> Iterator[bytes]:
    """One JSON object a line, UTF-8, LF: the record as history shows it, and the profile it was written under."""
    for rows in _together(found):
        lines = ({**shown, "profile": profile} for shown in history.envelopes(rows))
        yield b"".join(
            json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for line in lines
        )


def csv_rows(found: Iterable[Record], *, profile: str) -> Iterator[bytes]:
    """RFC 4180 with a header, UTF-8. A cell is the record's own value; where a record has a list instead, all
    that its filter finds it by stand in the cell with spaces between them.

    A cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    yield _written([COLUMNS])
    for rows in _together(found):
        shown = history.envelopes(rows)
        yield _written(_cells(*one, profile) for one in zip(rows, shown, strict=True))


def safe_cell(text: str) -> str:
    """``text`` as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cells(record: Record, shown: dict[str, Any], profile: str) -> list[str]:
    if record.body is not None:
        kind = KINDS[record.kind]
        values: dict[str, list[str]] = {}
        for name, value in records.search_keys(kind, records.load(record.body)):
            values.setdefault(name, []).append(value)
        own = {**shown[kind.payload_key], **shown}
        shown |= {
            name: _scalar(own[name]) if _is_scalar(own.get(name)) else " ".join(values.get(name, ()))
            for name in _KEYS
        }
    shown = {**shown, "profile": profile}
    return [safe_cell(str(shown.get(column, ""))) for column in COLUMNS]


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _written(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _together(found: Iterable[Record]) -> Iterator[list[Record]]:
    rows: list[Record] = []
    for record in found:
        rows.append(record)
        if len(rows) == ROWS_AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows


def seal_entries() -> Iterator[bytes]:
    """Every seal entry at this moment in the order of the log: a bundle of c2sp.org/tlog-tiles without an end."""
    size = LedgerHead.objects.values_list("size", flat=True).get()
    for start in range(0, size, ENTRIES_AT_ONCE):
        wanted = {"index__gte": start, "index__lt": min(start + ENTRIES_AT_ONCE, size)}
        for entry in SealEntry.objects.filter(**wanted).order_by("index").values_list("entry", flat=True):
            yield tiles.prefixed(bytes(entry))
