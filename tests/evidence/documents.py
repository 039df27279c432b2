"""Documents of every kind with plausible content, fast and in any number, for tests of finding them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, get_origin

from django.db import transaction

import recovery.documents  # noqa: F401  (registers its kinds)
from evidence.documents import GENESIS, KINDS, Kind
from evidence.domain import ledger, records
from evidence.models import Person, Record

START = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = [Person(username=name, person_id=f"person-{name}") for name in ("ann", "ben", "cleo", "dora")]
PROVIDERS = ("splunk", "webhook", "jira_eu", "datadog", "slack")
KIND_TABLE = tuple(kind for kind in KINDS.values() if kind is not GENESIS)

PLAIN: dict[Any, Any] = {str: "", int: 1, float: 2.0, bool: False}


def when(n: int) -> datetime:
    """Time of document ``n``; two neighbours share one, so that time alone orders nothing."""
    return START + timedelta(seconds=n // 2 * 2, microseconds=n // 2 % 3)


def subject(prefix: str, n: int, share: int) -> str:
    """An id that ``share`` documents have in common."""
    return f"{prefix}-{n // share:016x}"


def content(kind: Kind, n: int) -> dict[str, Any]:
    """The fields of document ``n``, whatever its kind. Words vary within a kind, so that all of them meet."""
    m = n // len(KIND_TABLE)
    provider = PROVIDERS[m % 5]
    about = {
        "provider": provider,
        "schedule_id": f"drill-{m % 7}",
        "audit_id": subject("gordackaudit", n, 200),
        "delivery_id": subject("gordackdelivery", n, 100),
        "retry_plan_id": subject("gordackretry", n, 150),
        "approval_plan_id": subject("gordackretryapproval", n, 150),
        "run_id": subject("gordackworker", n, 150),
        "worker_run_id": subject("gordackworker", n, 150),
        "playbook_id": subject("gordackrecovery", n, 300),
        "entry_id": subject("entry", n, 50),
        "manifest_digest": records.digest(str(n // 50).encode()),
    }
    several = [about, {**about, "provider": PROVIDERS[(m + 1) % 5]}]
    values = {
        **about,
        "external_ref": f"CHG-{n // 100}",
        "alert_level": ("healthy", "warning", "critical")[m % 3],
        "acknowledgement_state": ("acknowledged", "escalated", "accepted", "deferred")[m // 3 % 4],
        "approval_state": ("approved", "denied", "deferred")[m // 5 % 3],
        "execution_status": ("delivered", "failed", "skipped", "outcome_unknown")[m // 5 % 4],
        "closure_state": ("resolved", "mitigated", "escalated")[m // 5 % 3],
        "connector_delivery_source": (
            "go_backend_rollback_drill_acknowledgement_audit"
            if m % 2
            else "go_backend_rollback_drill_notification"
        ),
        "delivery_success": m // 5 % 3 == 0,
        "cadence": ("on_demand", "hourly", "retry")[m % 3],
        "schedule": {"cadence": ("manual_retry", "every_60_minutes")[m % 2]},
        "filters": about,
        "retry_plan": about,
        "providers": [provider],
        "selected_providers": [provider],
        "deliveries": [{"failure_class": "unavailable"}],
        **dict.fromkeys(
            ("routes", "retry_decisions", "approval_decisions", "selected_retries", "provider_playbooks"),
            several,
        ),
        "notes": "=1+1",
    }
    return {name: values[name] if name in values else plain(of) for name, of in kind.own_fields.items()}


def plain(of: Any) -> Any:
    """A value of the type that ``Kind.fields`` names."""
    if isinstance(of, UnionType):
        return None
    return PLAIN[of] if of in PLAIN else (get_origin(of) or of)()


def draft(
    kind: Kind, n: int, *, quoting: records.Draft | None = None, case: str = "", **values: Any
) -> records.Draft:
    """Document ``n``, of ``kind``, with ``values`` of its own; about the case its content names, or ``case``."""
    payload = content(kind, n)
    assert values.keys() <= payload.keys(), f"{kind.name} has no {values.keys() - payload.keys()}"
    if not case and {"delivery_id", "provider"} <= payload.keys():
        case = f"{payload['delivery_id']}.{payload['provider']}"
    return records.draft(
        kind,
        records.mint_id(kind),
        {**payload, **values},
        at=when(n),
        by=PEOPLE[n % len(PEOPLE)],
        cases=[case] if case else [],
        references=[quoting.reference] if quoting else [],
    )


def drafts(count: int, start: int = 0) -> Iterator[records.Draft]:
    """Documents ``start`` to ``start + count - 1``, of all kinds in turn."""
    for n in range(start, start + count):
        yield draft(KIND_TABLE[n % len(KIND_TABLE)], n)


def append(*built: records.Draft) -> list[Record]:
    """Append in a transaction of its own."""
    with transaction.atomic():
        return ledger.append(built)


def fill(count: int, start: int = 0) -> list[Record]:
    """Append documents of all kinds, some hundred at a time."""
    stored: list[Record] = []
    for first in range(start, start + count, 500):
        stored += append(*drafts(min(500, start + count - first), first))
    return stored
