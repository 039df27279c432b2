"""Jira as its REST API is published: makes issues, searches them, refuses what Jira refuses."""

import re
from typing import Any

from tests.evidence.connectors.fakes.service import Asked, Reply, Service, json_object, units

# "The Jira Cloud platform REST API": POST /rest/api/2/issue, GET /rest/api/3/search/jql; "Jira Data Center REST
# API": GET /rest/api/2/search. The search without a bound went from Cloud in 2025 (changelog CHANGE-2046).
CREATE = "/rest/api/2/issue"
SEARCHES = {"cloud": "/rest/api/3/search/jql", "data_center": "/rest/api/2/search"}
FIELDS = {"project", "issuetype", "summary", "description", "labels"}
JQL = re.compile(r'labels = "([^"\\]+)"')


class Jira(Service):
    """One project, ``PAY``, with the types Task and Bug. ``screen`` are the fields that may be set."""

    def __init__(self, deployment: str = "cloud") -> None:
        super().__init__()
        self.deployment = deployment
        self.projects = {"PAY"}
        self.screen = set(FIELDS)

    def reply(self, asked: Asked) -> Reply:
        if not self.is_signed_in(asked):
            # "Basic auth for REST APIs": a wrong credential is 401.
            return Reply(401, b"Client must be authenticated to access this resource.")
        if (asked.method, asked.path) == ("POST", CREATE):
            return self.create(asked)
        if (asked.method, asked.path) == ("GET", SEARCHES[self.deployment]):
            return self.search(asked)
        if asked.path in SEARCHES.values():
            # Cloud: "The requested API has been removed" (410); Data Center has no version 3.
            return Reply(
                410 if self.deployment == "cloud" else 404, refusal("The requested API is not here.")
            )
        return Reply(404, refusal("null for uri"))

    def create(self, asked: Asked) -> Reply:
        body = json_object(asked)
        if body is None or not isinstance(body.get("fields"), dict):
            return Reply(400, refusal("Could not parse the request body."))
        if errors := self.problems(body["fields"]):
            return Reply(400, {"errorMessages": [], "errors": errors})
        number = len(self.tickets) + 1
        issue = {"id": str(10_000 + number), "key": f"PAY-{number}", "fields": body["fields"]}
        self.tickets.append(issue)
        # "Create issue", 201: id, key and self, not the fields.
        link = f"{self.url}/rest/api/2/issue/{issue['id']}"
        return Reply(201, {"id": issue["id"], "key": issue["key"], "self": link})

    def problems(self, fields: dict[str, Any]) -> dict[str, str]:
        """Jira's refusals, by field, in the order of its fields."""
        found = {
            name: f"Field '{name}' cannot be set. It is not on the appropriate screen, or unknown."
            for name in fields
            if name not in self.screen
        }
        project, kind = fields.get("project"), fields.get("issuetype")
        if not isinstance(project, dict) or project.get("key") not in self.projects:
            found["project"] = "valid project is required"
        if not isinstance(kind, dict) or kind.get("name") not in ("Task", "Bug"):
            found["issuetype"] = "The issue type selected is invalid."
        summary = fields.get("summary")
        if not isinstance(summary, str) or not summary.strip():
            found["summary"] = "You must specify a summary of the issue."
        elif "\n" in summary or "\r" in summary:
            found["summary"] = "The summary is invalid because it contains newline characters."
        elif units(summary) >= 255:
            found["summary"] = "Summary must be less than 255 characters."
        # Version 2 takes wiki markup; version 3 the document format.
        description = fields.get("description", "")
        if not isinstance(description, str):
            found["description"] = "Operation value must be a string"
        elif units(description) > 32_767:
            # "jira.text.field.character.limit", 32,767 by default.
            found["description"] = (
                "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
            )
        labels = fields.get("labels", [])
        if not isinstance(labels, list) or any(not isinstance(one, str) for one in labels):
            found["labels"] = "data was not an array"
        elif any(re.search(r"\s", one) for one in labels):
            # "Labels" field: a space ends a label.
            found["labels"] = "The label contains spaces which is invalid."
        return found

    def search(self, asked: Asked) -> Reply:
        jql = JQL.fullmatch(asked.query.get("jql", ""))
        if jql is None:
            # "Enhanced search": unbounded queries are refused; whatever else is not read here is, too.
            return Reply(400, refusal("Unbounded JQL queries are not allowed here."))
        found = [
            issue
            for issue in self.tickets
            if self.lies or (not self.hidden and jql[1] in issue["fields"].get("labels", []))
        ]
        # Only what ``fields`` asks for comes back.
        wanted = asked.query.get("fields", "").split(",")
        issues = [
            {
                "id": issue["id"],
                "key": issue["key"],
                "fields": {name: issue["fields"].get(name) for name in wanted if name in issue["fields"]},
            }
            for issue in found[: int(asked.query.get("maxResults", "50"))]
        ]
        if self.deployment == "cloud":
            return Reply(200, {"issues": issues, "isLast": True})
        return Reply(200, {"startAt": 0, "maxResults": 50, "total": len(found), "issues": issues})


def refusal(sentence: str) -> dict[str, Any]:
    """Jira's error collection."""
    return {"errorMessages": [sentence], "errors": {}}
