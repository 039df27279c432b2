"""ServiceNow's Table API: one record for a message, found again by its correlation id.

Sources: ServiceNow product documentation, "Table API" (POST and GET /now/table/{tableName}), "REST API HTTP
response codes", "Correlation ID" of the incident form, and the dictionary of the task table for lengths.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products import tickets
from evidence.connectors.products.adapter import Adapter, Headers, Option, Question, json_object
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import AlertLevel, Assurance, FailureClass

MAX_SHORT_DESCRIPTION = 160
MAX_DESCRIPTION = 4_000
DISPLAY = "CAVRA"
# Choices of incident: 1 high, 2 medium, 3 low. Priority is ServiceNow's own, from both.
_URGENCY: dict[str, str] = {AlertLevel.CRITICAL: "1", AlertLevel.WARNING: "2", AlertLevel.HEALTHY: "3"}
_FIELDS = "sys_id,number,correlation_id"
_SYS_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[A-Z]{1,20}[0-9]{1,20}")


def _table(settings: ConnectorSettings, url: str, query: Mapping[str, str]) -> str:
    table = settings.option("table") or "incident"
    return f"{url.rstrip('/')}/api/now/table/{table}?{urlencode(query)}"


def target(settings: ConnectorSettings, url: str) -> str:
    """Only what is needed comes back: a whole record would be longer than the answer that is read."""
    return _table(settings, url, {"sysparm_fields": _FIELDS})


def render(event: dict[str, Any], _settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """A record whose correlation id is the same for every try of a case."""
    urgency = _URGENCY.get(str(event.get("alert_level", "")), "3")
    record = {
        "short_description": tickets.summary(event, MAX_SHORT_DESCRIPTION),
        "description": tickets.description(event, MAX_DESCRIPTION),
        "urgency": urgency,
        "impact": urgency,
        "correlation_id": tickets.stable_id(message_id),
        "correlation_display": DISPLAY,
    }
    return rfc8785.dumps(record), "application/json"


def headers(_settings: ConnectorSettings, _message_id: str) -> Headers:
    """The answer's format."""
    return (("accept", "application/json"),)


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """201 with the new record's ``sys_id``.

    Without our correlation id in the answer (an access rule dropped it) the record is there, and nobody will
    find it again: that is accepted, no more.
    """
    if failure := classify_status(status):
        return failure
    result = json_object(body).get("result")
    if status != 201 or not isinstance(result, dict) or not _matches(_SYS_ID, result.get("sys_id")):
        return FailureClass.BAD_RESPONSE
    correlated = str(result.get("correlation_id") or "").startswith(tickets.PREFIX)
    return Assurance.CONFIRMED if correlated else Assurance.ACCEPTED


def question(settings: ConnectorSettings, message_id: str, url: str) -> Question:
    """The query for the correlation id."""
    wanted = tickets.stable_id(message_id)
    query = {
        "sysparm_query": f"correlation_id={wanted}",
        "sysparm_fields": _FIELDS,
        "sysparm_limit": "1",
    }
    return Question(
        method="GET",
        url=_table(settings, url, query),
        headers=(("accept", "application/json"),),
        answered=lambda status, body: _answered(status, body, wanted),
        reference=lambda body: _reference(body, wanted),
    )


def _answered(status: int, body: bytes, wanted: str) -> bool | FailureClass:
    """A query whose field is unknown or may not be read is ignored and everything comes back: look at the id."""
    if failure := classify_status(status):
        return failure
    rows = json_object(body).get("result")
    if not isinstance(rows, list):
        return FailureClass.BAD_RESPONSE
    if rows and not _found(rows, wanted):
        return FailureClass.BAD_RESPONSE  # Something else than what was asked for was answered.
    return bool(rows)


def _found(rows: list[Any], wanted: str) -> list[Mapping[str, Any]]:
    return [
        row
        for row in rows
        if isinstance(row, dict)
        and row.get("correlation_id") == wanted
        and _matches(_SYS_ID, row.get("sys_id"))
    ]


def _reference(body: bytes, wanted: str) -> str:
    rows = json_object(body).get("result")
    found = _found(rows, wanted) if isinstance(rows, list) else []
    number = found[0].get("number") if found else None
    return f"SERVICENOW:{number}" if _matches(_NUMBER, number) else ""


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.CONFIRMED,
    earned="ServiceNow answered 201 with the record that it made and its correlation id.",
    target=target,
    options={
        "table": Option(
            label="Table",
            help="Records are made in this table.",
            pattern=r"[a-z][a-z0-9_]{0,79}",
            default="incident",
        ),
        "username": Option(
            label="User name",
            help="With it the secret is the account's password; without it an OAuth access token.",
            pattern=r"[!-9;-~]{1,200}",
        ),
    },
    needs_credential=True,
    authorization=tickets.authorization,
    headers=headers,
    question=question,
    visible_after_s=60,
    canary_sends=False,
    opens_tickets=True,
)
