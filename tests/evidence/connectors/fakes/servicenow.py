"""ServiceNow's Table API as it is published: makes records, finds them, refuses what it refuses."""

import secrets
from typing import Any

from tests.evidence.connectors.fakes.service import Asked, Reply, Service, json_object

# "Table API": POST and GET /api/now/table/{tableName}; errors as {"error": {"message", "detail"}, "status"}.
PREFIX = "/api/now/table/"
# Dictionary of task and incident: what is longer is cut, without a word.
LENGTHS = {
    "short_description": 160,
    "description": 4_000,
    "correlation_id": 100,
    "correlation_display": 100,
    "urgency": 40,
    "impact": 40,
}


class ServiceNow(Service):
    """One table, ``incident``. ``unwritable`` fields are dropped silently, as access rules do."""

    def __init__(self) -> None:
        super().__init__()
        self.unwritable: set[str] = set()
        # Fields that the account may not read, or that the table does not have: a query with them is ignored.
        self.unreadable: set[str] = set()

    def reply(self, asked: Asked) -> Reply:
        if not self.is_signed_in(asked):
            return error(401, "User Not Authenticated", "Required to provide Auth information")
        if asked.headers.get("accept") not in ("application/json", "*/*", None):
            return error(406, "Not Acceptable", asked.headers["accept"])
        if asked.path != f"{PREFIX}incident":
            # "REST API HTTP response codes": an invalid table is 400.
            return error(400, f"Invalid table {asked.path.removeprefix(PREFIX)}", "")
        return self.create(asked) if asked.method == "POST" else self.find(asked)

    def create(self, asked: Asked) -> Reply:
        record = json_object(asked)
        if record is None:
            return error(400, "Exception while reading request", "The payload is not valid JSON")
        kept = {
            name: str(record.get(name, ""))[:length] if name not in self.unwritable else ""
            for name, length in LENGTHS.items()
        }
        # A choice that is not one is set all the same; the form shows it in blue.
        row = {"sys_id": secrets.token_hex(16), "number": f"INC{len(self.tickets) + 1:07}", **kept}
        self.tickets.append(row)
        return Reply(201, {"result": shown(row, asked)})

    def find(self, asked: Asked) -> Reply:
        query = asked.query.get("sysparm_query", "")
        name, _, value = query.partition("=")
        # "glide.invalid_query.returns_no_rows" is false by default: an invalid part of a query is ignored.
        ignored = name not in LENGTHS or name in self.unreadable or "^" in query
        found = [
            row for row in self.tickets if self.lies or ignored or (not self.hidden and row[name] == value)
        ]
        limit = int(asked.query.get("sysparm_limit", "10000"))
        rows = [{k: v for k, v in shown(row, asked).items() if k not in self.unreadable} for row in found]
        return Reply(200, {"result": rows[:limit]})


def shown(row: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """The fields that ``sysparm_fields`` names, or all."""
    wanted = [name for name in asked.query.get("sysparm_fields", "").split(",") if name]
    return {name: value for name, value in row.items() if not wanted or name in wanted}


def error(status: int, message: str, detail: str) -> Reply:
    """ServiceNow's form of a refusal."""
    return Reply(status, {"error": {"message": message, "detail": detail}, "status": "failure"})
