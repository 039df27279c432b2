"""The reference's configuration files (CONTRACT §1.5) as rows: schedules, connectors and routing policies.

Only shapes are read here; what a row may say is ``configuration_rules``, and ``configuration`` saves it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evidence.domain import configuration, text
from evidence.domain.clock import Clock
from evidence.domain.configuration import Change, Entry
from evidence.domain.drills import Availability, OwnerRule, RoutingPolicy, Window
from evidence.domain.reading import Errors, Reader
from evidence.enums import Product
from evidence.errors import InvalidInput
from evidence.models import Connector, MaintenanceWindow, Person, Schedule, ScheduleOwner

SCHEDULE_SCHEMA = "cavra.go-backend-rollback-drill-schedule.v1"
MAX_RULES = 1_000
A_YEAR_IN_MINUTES = 366 * 24 * 60
ACTIVE = {"active": True, "inactive": False, "paused": False, "disabled": False}

# Destinations that the reference knows. One without a product here is sent to as a plain webhook.
KNOWN_PROVIDERS = frozenset(
    {
        "azure_repos",
        "datadog",
        "github",
        "github_actions",
        "gitlab",
        "intune",
        "jamf",
        "jenkins",
        "jira",
        "linux",
        "sentinel",
        "servicenow",
        "slack",
        "splunk",
        "teams",
        "webhook",
    }
)
# A secret never stands in a file: the key that names its environment variable instead.
SECRET_KEYS = {"authorization": "authorization_env", "token": "token_env", "api_key": "api_key_env"}
# Columns of a connector whose key in the file has another name.
FILE_KEYS = {
    "url_ref": "url_env",
    "authorization_ref": "authorization_env",
    "token_ref": "token_env",
    "api_key_ref": "api_key_env",
    "timeout_ms": "timeout_seconds",
    "min_timeout_ms": "min_timeout_seconds",
    "key": "",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Loaded:
    """What loading a file came to: each row's name and change, and what the reader should know besides."""

    rows: tuple[tuple[str, Change], ...]
    notices: tuple[str, ...]


# --- routing --------------------------------------------------------------------------------------------------


def routing_policy(data: object, *, schedule_id: str = "") -> RoutingPolicy:
    """The routing policy in a body of POST {B}/deliver (CONTRACT §2); None is an empty one.

    Windows that name other schedules than ``schedule_id`` are left out. Raises ``InvalidInput`` whose
    ``errors`` name every wrong field by its path below ``routing_policy``.
    """
    if data is None:
        return RoutingPolicy()
    reader = Reader(data, "routing_policy")
    policy = _policy(reader, schedule_id)
    reader.finish("The routing policy is not valid.")
    return policy


def _policy(reader: Reader, schedule_id: str) -> RoutingPolicy:
    minutes = _minutes(reader)
    _, slo = reader.take("default_slo")
    if slo is not None:
        default = _minutes(reader.inside("default_slo", slo))
        minutes = minutes or default
    rules = tuple(islice(_rules(reader), MAX_RULES + 1))
    if len(rules) > MAX_RULES:
        reader.fault("owner_routes", f"Has more than {MAX_RULES} rules.")
    return RoutingPolicy(
        rules=rules,
        windows=tuple(_windows(reader, schedule_id)),
        calendars={
            owner: _availability(reader.inside(place, calendar))
            for place, owner, calendar in reader.named("owner_calendars")
        },
        acknowledgement_minutes=minutes,
    )


def _minutes(reader: Reader) -> int | None:
    return reader.integer("acknowledgement_minutes", "ack_minutes", low=1, high=A_YEAR_IN_MINUTES)


def _rules(reader: Reader) -> Iterator[OwnerRule]:
    """Rules as a map (owner to rule, or to a list of rules) or as a list of rules that name their owners."""
    names = ("owner_routes", "routing_rules")
    given = next((name for name in names if isinstance(reader.data.get(name), list)), "")
    if given:
        for rule in reader.objects(*names):
            if not rule.has("owners"):
                rule.fault("owners", "Is required for a rule in a list.")
            yield from _rule(rule, "")
        return
    for place, owner, value in reader.named(*names):
        if isinstance(value, list):
            for rule in reader.each(place, value):
                yield from _rule(rule, owner)
        else:
            yield from _rule(reader.inside(place, value), owner)


def _rule(reader: Reader, owner: str) -> Iterator[OwnerRule]:
    owners = reader.texts("owners") or ([owner] if owner else [])
    providers = tuple(reader.texts("providers", "notification_providers", key=True))
    minutes = _minutes(reader)
    escalation_owner = reader.text("escalation_owner", "manager", limit=text.MAX_NAME)
    for name in owners:
        yield OwnerRule(name, providers, minutes, escalation_owner)


def _windows(reader: Reader, schedule_id: str) -> Iterator[Window]:
    for number, window in enumerate(reader.objects("maintenance_windows"), start=1):
        span = window.span()
        window_id = window.text("window_id", "id", limit=80) or f"window-{number}"
        reason = window.text("reason", limit=200)
        providers, owners = window.texts("providers", key=True), window.texts("owners")
        schedules = window.texts("schedule_ids")
        if span and (not schedules or schedule_id in schedules):
            yield Window(window_id, *span, reason, tuple(providers), tuple(owners))


def _availability(reader: Reader) -> Availability:
    windows = []
    for window in reader.objects("unavailable_windows"):
        span, reason = window.span(), window.text("reason", limit=200)
        if span:
            windows.append(Window("calendar", *span, reason))
    return Availability(
        available=reader.flag("available", default=True),
        reason=reader.text("reason", limit=200),
        windows=tuple(windows),
    )


# --- schedules ------------------------------------------------------------------------------------------------


def load_schedules(data: object, *, by: Person | None, clock: Clock) -> Loaded:
    """Create or update the schedules of a file: one object, a list, or ``{"schedules": [...]}``.

    All or none. Raises ``InvalidInput`` naming every wrong field of every schedule by its path.
    """
    errors: Errors = {}
    readers = list(_schedule_readers(data, errors))
    entries = [_schedule(reader) for reader in readers]
    names = [str(entry.row) for entry in entries]
    for reader, entry in zip(readers, entries, strict=True):
        if names.count(str(entry.row)) > 1:
            reader.fault("schedule_id", "Stands in this file more than once.")
        _check(reader, entry)
    notices = [f"ignored: {path}" for reader in readers for path in reader.ignored()]
    return _save(entries, errors, notices, "The schedule file is not valid.", by=by, clock=clock)


def _schedule_readers(data: object, errors: Errors) -> Iterator[Reader]:
    listed = data.get("schedules") if isinstance(data, Mapping) and "schedules" in data else data
    if not isinstance(listed, list):
        yield Reader(listed, "", errors)
        return
    outer = Reader({"schedules": listed}, "", errors)
    yield from outer.objects("schedules")
    if not listed:
        outer.fault("schedules", "Holds no schedule.")


def _schedule(reader: Reader) -> Entry:
    if reader.text("schema_version", limit=80) != SCHEDULE_SCHEMA:
        reader.fault("schema_version", f"Must be {SCHEDULE_SCHEMA}.")
    schedule_id = reader.text("schedule_id", limit=80, required=True)
    row = Schedule.objects.filter(schedule_id=schedule_id).first() or Schedule(schedule_id=schedule_id)
    status = text.word(reader.text("status", limit=40, required=True))
    if status in ACTIVE:
        row.active = ACTIVE[status]
    elif status:
        reader.fault("status", f"Must be one of {', '.join(ACTIVE)}.")
    row.interval_days = _required(reader, "interval_days", reader.integer("interval_days", low=1, high=36_500)) or 1
    row.next_due_at = reader.moment("next_due_at")  # type: ignore[assignment]
    row.environment = reader.text("environment", limit=80)
    row.runbook_ref = reader.text("runbook_ref", limit=200, required=True)
    row.notification_providers = reader.texts("notification_providers", key=True)
    policy = _policy(reader, schedule_id)
    row.acknowledgement_minutes = policy.acknowledgement_minutes or _default("acknowledgement_minutes")
    # Beyond the reference's format: a file that does not speak of them leaves them as they are.
    if reader.has("title"):
        row.title = reader.text("title", limit=120)
    row.due_soon_days = reader.integer("due_soon_days", low=0, high=3_650) or row.due_soon_days
    windows = [
        MaintenanceWindow(
            window_id=window.window_id,
            start_at=window.start_at,
            end_at=window.end_at,
            reason=window.reason,
            providers=list(window.providers),
            owners=list(window.owners),
        )
        for window in policy.windows
    ]
    return Entry(row, {"owners": _owners(reader, policy), "maintenance_windows": windows})
