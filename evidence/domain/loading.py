"""The reference's configuration files (CONTRACT §1.5) as rows: schedules, connectors and routing policies.

Only shapes are read here; what a row may say is ``configuration_rules``, and ``configuration`` saves it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from evidence.connectors.credentials import REFERENCES
from evidence.connectors.products import PRODUCTS
from evidence.domain import configuration, records, text
from evidence.domain.clock import Clock
from evidence.domain.configuration import Change, Entry
from evidence.domain.drills import Availability, OwnerRule, RoutingPolicy, Window
from evidence.domain.reading import Errors, Reader
from evidence.enums import Product
from evidence.errors import InvalidInput
from evidence.models import Connector, ConnectorWindow, MaintenanceWindow, Person, Schedule, ScheduleOwner

SCHEDULE_SCHEMA = "cavra.go-backend-rollback-drill-schedule.v1"
MAX_RULES = 1_000
A_YEAR_IN_MINUTES = 366 * 24 * 60
ACTIVE = {"active": True, "inactive": False, "paused": False, "disabled": False}

# Destinations that the reference knows and nothing here is made for: sent to as plain webhooks.
WITHOUT_PRODUCT = frozenset(
    {"azure_repos", "github", "github_actions", "gitlab", "intune", "jamf", "jenkins", "linux"}
)
KNOWN_PROVIDERS = WITHOUT_PRODUCT | set(Product)
# A secret never stands in a file: the keys that name its environment variable, or its file in CAVRA_SECRETS_DIR,
# instead.
SECRET_KEYS = {
    name: f"{name}_env or {name}_file"
    for name in (
        *("authorization", "token", "api_key", "signing", "previous_signing", "proxy_authorization"),
        # As other tools call them.
        *("password", "secret"),
    )
}
# Columns of a connector whose key in the file has another name.
FILE_KEYS = {
    **{column: f"{column.removesuffix('_ref')}_env" for column in REFERENCES},
    "timeout_ms": "timeout_seconds",
    "min_timeout_ms": "min_timeout_seconds",
    "windows": "maintenance_windows",
    "key": "",
}
# Columns that the reference's format speaks of: without them in a file they are empty.
REFERENCE_FORMAT = frozenset({"url_ref", "authorization_ref", "token_ref", "api_key_ref"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Loaded:
    """What loading a file came to: each row's name and change, and what the reader should know besides."""

    rows: tuple[tuple[str, Change], ...]
    notices: tuple[str, ...]


# --- routing --------------------------------------------------------------------------------------------------


def routing_policy(data: object, *, schedule_id: str = "") -> tuple[RoutingPolicy, list[str]]:
    """The routing policy in a body of POST {B}/deliver (CONTRACT §2), and paths of its keys that mean nothing.

    None is an empty policy. Windows that name other schedules than ``schedule_id`` are left out. Raises
    ``InvalidInput`` whose ``errors`` name every wrong field by its path below ``routing_policy``.
    """
    if data is None:
        return RoutingPolicy(), []
    reader = Reader(data, "routing_policy")
    policy = _policy(reader, schedule_id)
    reader.finish("The routing policy is not valid.")
    return policy, reader.ignored()


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
    row.interval_days = reader.integer("interval_days", low=1, high=36_500, required=True)  # type: ignore[assignment]
    row.next_due_at = reader.moment("next_due_at")  # type: ignore[assignment]
    row.environment = reader.text("environment", limit=80)
    row.runbook_ref = reader.text("runbook_ref", limit=200, required=True)
    row.notification_providers = reader.texts("notification_providers", key=True)
    policy = _policy(reader, schedule_id)
    row.acknowledgement_minutes = policy.acknowledgement_minutes or _default(row, "acknowledgement_minutes")
    # Beyond the reference's format: a file that does not speak of them leaves them as they are.
    row.title = reader.text("title", limit=120) or row.title
    due_soon_days = reader.integer("due_soon_days", low=0, high=3_650)
    row.due_soon_days = row.due_soon_days if due_soon_days is None else due_soon_days
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


def _owners(reader: Reader, policy: RoutingPolicy) -> list[ScheduleOwner]:
    """One row for each owner, in the file's order, with the rules and the calendar that name them."""
    listed = reader.texts("owners")
    if not listed and not any(path.startswith(reader.at("owners")) for path in reader.errors):
        reader.fault("owners", "Name at least one owner.")
    names = list(dict.fromkeys([*listed, *(rule.owner for rule in policy.rules)]))
    for owner in policy.calendars.keys() - set(names):
        reader.fault("owner_calendars", f"{ascii(owner)[1:-1]} is no owner of this schedule.")
    return [
        _owner(reader, position, name, [rule for rule in policy.rules if rule.owner == name], policy)
        for position, name in enumerate(names)
    ]


def _owner(
    reader: Reader, position: int, name: str, rules: Sequence[OwnerRule], policy: RoutingPolicy
) -> ScheduleOwner:
    rules = rules or [OwnerRule(name)]
    if len({(rule.acknowledgement_minutes, rule.escalation_owner) for rule in rules}) > 1:
        reader.fault(
            "owner_routes",
            f"{ascii(name)[1:-1]} has rules with different minutes or escalation owners; a schedule keeps one.",
        )
    calendar = policy.calendars.get(name, Availability())
    # A rule without connectors means all of them, whatever the others say.
    named = (
        [] if any(not rule.providers for rule in rules) else [key for rule in rules for key in rule.providers]
    )
    return ScheduleOwner(
        position=position,
        name=name,
        providers=list(dict.fromkeys(named)),
        escalation_owner=rules[0].escalation_owner,
        acknowledgement_minutes=rules[0].acknowledgement_minutes,
        available=calendar.available,
        unavailable_reason=calendar.reason,
        unavailable_windows=[
            {
                "start_at": records.timestamp(window.start_at),
                "end_at": records.timestamp(window.end_at),
                "reason": window.reason,
            }
            for window in calendar.windows
        ],
    )


# --- connectors -----------------------------------------------------------------------------------------------


def load_connectors(
    data: object, *, by: Person | None, clock: Clock, allow_networks: Sequence[str] = ()
) -> Loaded:
    """Create or update the connectors of a file: ``{"connectors": {...}}``, ``{"providers": {...}}`` or a bare map.

    ``allow_networks`` (CIDR) are the private networks that each of them may reach, beside those in the file.
    All or none. Raises ``InvalidInput`` naming every wrong field of every connector by its path, never a value.
    """
    errors: Errors = {}
    top = _connector_map(data, errors)
    entries: dict[str, Entry] = {}
    notices = []
    for place, name, value in top.named("connectors", "providers"):
        if not (key := top.key(place, name)):
            continue
        if key in entries:
            top.fault(place, f"Is {key} again: keys are compared in lower case, with - as _.")
            continue
        reader = top.inside(place, value)
        entries[key] = _connector(reader, key, allow_networks)
        _check(reader, entries[key])
        _, product = reader.take("product")
        named = text.word(product) if product and isinstance(product, str) else key
        if named in WITHOUT_PRODUCT:
            notices.append(f"{key} is sent to as a plain webhook: there is no product of the name {named}.")
    if not entries and not errors:
        top.fault("connectors", "Holds no connector.")
    notices += [f"ignored: {path}" for path in top.ignored()]
    return _save(
        [entries[key] for key in sorted(entries)],
        errors,
        notices,
        "The connector file is not valid.",
        by=by,
        clock=clock,
    )


def _connector_map(data: object, errors: Errors) -> Reader:
    """A reader in which the connectors stand under ``connectors`` or ``providers``."""
    if isinstance(data, Mapping) and not {"connectors", "providers"} & data.keys():
        return Reader(
            {"connectors": {name: data[name] for name in data if name != "schema_version"}}, "", errors
        )
    return Reader(data, "", errors)


def _connector(reader: Reader, key: str, allow_networks: Sequence[str]) -> Entry:
    row = Connector.objects.filter(key=key).first() or Connector(key=key)
    for name, instead in SECRET_KEYS.items():
        if reader.take(name)[1] is not None:
            reader.fault(
                name,
                f"A secret does not stand in this file: give the name of what holds it as {instead}.",
            )
    if text.word(reader.text("method", limit=20) or "post") != "post":
        reader.fault("method", "Must be POST.")
    row.product = _product(reader, key)
    row.enabled = reader.flag("enabled", default=True)
    row.url = reader.text("url", limit=500)
    if row.url and PRODUCTS[Product(row.product)].secret_url:
        reader.fault(
            "url", "Is a secret of this product: give the name of what holds it as url_env or url_file."
        )
    row.headers = {name: value for _, name, value in reader.named("headers", limit=80)}
    for column in REFERENCES:
        reference = _reference(reader, column.removesuffix("_ref"))
        if reference or column in REFERENCE_FORMAT:
            setattr(row, column, reference)
    for column, limit in (("authorization_scheme", 40), ("api_key_header", 80)):
        setattr(row, column, reader.text(column, limit=limit) or _default(row, column))
    for column, limit in (("title", 120), ("index", 80), ("service", 80)):
        setattr(row, column, reader.text(column, limit=limit))
    # Beyond the reference's format: a file that does not speak of them leaves them as they are.
    _, through = reader.take("announce_through")
    kept = {
        "timeout_ms": reader.seconds("timeout_seconds", low=0.1, high=30),
        "min_timeout_ms": reader.seconds("min_timeout_seconds", low=0.1, high=30),
        "max_concurrency": reader.integer("max_concurrency", low=1, high=64),
        "required_approvals": reader.integer("required_approvals", low=1, high=5),
        "allow_networks": list(dict.fromkeys([*reader.texts("allow_networks"), *allow_networks])) or None,
        "options": {name: value for _, name, value in reader.named("options", limit=80)}
        if reader.has("options")
        else None,
        "ca_pem": _lines(reader, "ca_pem"),
        "proxy_url": reader.text("proxy_url", limit=500) if reader.has("proxy_url") else None,
        "announce_through": reader.key("announce_through", through) if through else through,
    }
    for column, value in kept.items():
        if value is not None:
            setattr(row, column, value)
    if not reader.has("maintenance_windows"):
        return Entry(row)
    return Entry(row, {"windows": list(_connector_windows(reader))})


def _connector_windows(reader: Reader) -> Iterator[ConnectorWindow]:
    for number, window in enumerate(reader.objects("maintenance_windows"), start=1):
        span, window_id = window.span(), window.text("window_id", "id", limit=80) or f"window-{number}"
        reason = window.text("reason", limit=200)
        if span:
            yield ConnectorWindow(window_id=window_id, start_at=span[0], end_at=span[1], reason=reason)


def _product(reader: Reader, key: str) -> str:
    named = text.word(reader.text("product", limit=40))
    if named and named not in KNOWN_PROVIDERS:
        reader.fault("product", f"Must be one of {', '.join(sorted(KNOWN_PROVIDERS))}.")
    wanted = named or key
    return wanted if wanted in set(Product) else Product.WEBHOOK.value


def _lines(reader: Reader, name: str) -> str | None:
    """A text of several lines as it is; None when it is absent."""
    _, value = reader.take(name)
    if value is not None and not isinstance(value, str):
        reader.fault(name, "Must be a text.")
        return None
    return value


def _reference(reader: Reader, secret: str) -> str:
    """The reference to a secret, from ``<secret>_env`` or ``<secret>_file``."""
    variable, file = reader.text(f"{secret}_env", limit=110), reader.text(f"{secret}_file", limit=110)
    if variable and not _VARIABLE.fullmatch(variable):
        reader.fault(f"{secret}_env", "Must be the name of an environment variable.")
        return ""
    if file and not _FILE.fullmatch(file):
        reader.fault(f"{secret}_file", "Must be the name of a file in CAVRA_SECRETS_DIR, without a path.")
        return ""
    if variable and file:
        reader.fault(f"{secret}_file", f"Must be empty beside {secret}_env.")
        return ""
    return f"env:{variable}" if variable else f"file:{file}" if file else ""


# --- both -----------------------------------------------------------------------------------------------------


def _default(row: Schedule | Connector, column: str) -> Any:
    return row._meta.get_field(column).get_default()  # type: ignore[union-attr]


def _check(reader: Reader, entry: Entry) -> None:
    """Note what the row itself may not say, unless the same field was found wrong while reading."""
    for column, sentences in configuration.problems(entry).items():
        # Of a part: its list, its place, its column.
        of, dot, rest = column.partition(".")
        name = FILE_KEYS.get(of, "" if of == "__all__" else of) + dot + rest
        if column in REFERENCES and reader.has(in_file := f"{column.removesuffix('_ref')}_file"):
            name = in_file
        if reader.at(name) not in reader.errors:
            for sentence in sentences:
                reader.fault(name, sentence)


def _save(
    entries: Sequence[Entry],
    errors: Errors,
    notices: Sequence[str],
    detail: str,
    *,
    by: Person | None,
    clock: Clock,
) -> Loaded:
    if errors:
        raise InvalidInput(detail, errors=errors)
    changes = configuration.save_all(entries, by=by, clock=clock)
    rows = ((str(entry.row), change) for entry, change in zip(entries, changes, strict=True))
    return Loaded(tuple(rows), tuple(notices))
