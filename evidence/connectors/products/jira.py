"""Jira (Cloud and Data Center): one issue for a message, found again by its label.

Sources: Atlassian, "The Jira Cloud platform REST API" v2 and v3, groups *Issues* and *Issue search*; "Jira Data
Center REST API", resources *issue* and *search*; "Basic auth for REST APIs"; "Using Personal Access Tokens".
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
from evidence.enums import Assurance, FailureClass

# A summary is one line of less than 255 characters, a text field holds 32,767 (Jira's own refusals say so).
MAX_SUMMARY = 254
MAX_DESCRIPTION = 32_767
_FENCE = "{noformat}"
_KEY = re.compile(r"[A-Z][A-Z0-9_]{0,79}-[0-9]{1,18}")
CLOUD, DATA_CENTER = "cloud", "data_center"
_SEARCH = {CLOUD: "/rest/api/3/search/jql", DATA_CENTER: "/rest/api/2/search"}


def target(_settings: ConnectorSettings, url: str) -> str:
    """Version 2 everywhere: its description is a text, which Data Center knows too."""
    return f"{url.rstrip('/')}/rest/api/2/issue"


def render(event: dict[str, Any], settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """An issue of the configured project and type. The label is the same for every try of a case."""
    fields: dict[str, Any] = {
        "project": {"key": settings.option("project")},
        "issuetype": {"name": settings.option("issue_type") or "Task"},
        "summary": tickets.summary(event, MAX_SUMMARY),
        "description": _fenced(event),
        "labels": [tickets.stable_id(message_id)],
    }
    return rfc8785.dumps({"fields": fields}), "application/json"


def _fenced(event: Mapping[str, Any]) -> str:
    """Names and references are shown as they are: as wiki markup they could mention people or load images."""
    text = tickets.description(event, MAX_DESCRIPTION - 2 * len(_FENCE) - 2)
    return f"{_FENCE}\n{text.replace('{', '(').replace('}', ')')}\n{_FENCE}"


def headers(_settings: ConnectorSettings, _message_id: str) -> Headers:
    """JSON is asked for; a browser's check against forged requests is not for us."""
    return (("accept", "application/json"), ("x-atlassian-token", "no-check"))


def recognise(status: int, body: bytes) -> Assurance | FailureClass:
    """201 with the new issue's key. Jira answers 404 for a project that one may not see: ``gone`` fits."""
    if failure := classify_status(status):
        return failure
    said = json_object(body)
    if status != 201 or not _is_key(said.get("key")):
        return FailureClass.BAD_RESPONSE
    return Assurance.CONFIRMED


def question(settings: ConnectorSettings, message_id: str, url: str) -> Question:
    """The search for the label, wherever the issue was moved meanwhile."""
    label = tickets.stable_id(message_id)
    path = _SEARCH[settings.option("deployment") or CLOUD]
    # Cloud refuses an unbounded query ("Search for issues using JQL enhanced search"); a label bounds it.
    query = urlencode({"jql": f'labels = "{label}"', "fields": "labels", "maxResults": "5"})
    return Question(
        method="GET",
        url=f"{url.rstrip('/')}{path}?{query}",
        headers=(("accept", "application/json"),),
        answered=lambda status, body: _answered(status, body, label),
        reference=lambda body: _reference(body, label),
    )


def _answered(status: int, body: bytes, label: str) -> bool | FailureClass:
    if failure := classify_status(status):
        return failure
    said = json_object(body)
    if not isinstance(said.get("issues"), list):
        return FailureClass.BAD_RESPONSE
    return bool(_found(said, label))


def _found(said: Mapping[str, Any], label: str) -> list[str]:
    """Keys of the issues that really carry the label, whatever else was answered."""
    keys = []
    for issue in said["issues"]:
        fields = issue.get("fields") if isinstance(issue, dict) else None
        labels = fields.get("labels") if isinstance(fields, dict) else None
        if isinstance(labels, list) and label in labels and _is_key(issue.get("key")):
            keys.append(issue["key"])
    return keys


def _reference(body: bytes, label: str) -> str:
    said = json_object(body)
    keys = _found(said, label) if isinstance(said.get("issues"), list) else []
    return f"JIRA:{keys[0]}" if keys else ""


def _is_key(value: object) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.CONFIRMED,
    earned="Jira answered 201 with the key of the issue that it made.",
    target=target,
    options={
        "project": Option(
            label="Project key",
            help="Issues are made in this project.",
            pattern=r"[A-Z][A-Z0-9_]{1,79}",
            required=True,
        ),
        "issue_type": Option(
            label="Issue type",
            pattern=r"[^\x00-\x1f\x7f]{1,60}",
            default="Task",
            help="Its name, as Jira shows it.",
        ),
        "username": Option(
            label="User name",
            help="On Cloud the account's e-mail address, with an API token; empty for a personal access token.",
            pattern=r"[!-9;-~]{1,200}",
        ),
        "deployment": Option(
            label="Deployment (cloud or data_center)", pattern=f"{CLOUD}|{DATA_CENTER}", default=CLOUD
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
