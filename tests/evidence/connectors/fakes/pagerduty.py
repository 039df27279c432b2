"""PagerDuty's Events API v2 as it is published ("Events API v2 Overview", "Send an Alert Event")."""

from typing import Any

from jsonschema import Draft202012Validator

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, reply_json, units
from tests.evidence.connectors.receiver import Request

EVENT = {
    "type": "object",
    "required": ["routing_key", "event_action", "payload"],
    "properties": {
        "routing_key": {"type": "string"},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string"},
        "links": {"type": "array"},
        "images": {"type": "array"},
        "payload": {
            "type": "object",
            "required": ["summary", "source", "severity"],
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "source": {"type": "string", "minLength": 1},
                "severity": {"enum": ["critical", "error", "warning", "info"]},
                "timestamp": {"type": "string"},
                "component": {"type": "string"},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}
RULES = Draft202012Validator(EVENT)


class PagerDuty(Web):
    """One integration. ``alerts`` are those that are open, by deduplication key: a second trigger joins the first."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self.alerts: dict[str, dict[str, Any]] = {}

    def reply(self, request: Request) -> bytes:
        method, path, _ = line(request)
        if method != "POST" or path != "/v2/enqueue":
            return reply_json(404, {"error": "Not Found"})
        # "Events API payloads are limited to 512 KB".
        if len(request.body) > 512 * 1024:
            return self.invalid("Event payload is too large", status=413)
        event = parsed(request.body)
        if not is_json(request) or not isinstance(event, dict):
            return self.invalid("Event object is not valid JSON")
        if len(str(event.get("routing_key", ""))) != 32:
            return self.invalid("Length of 'routing_key' is incorrect (should be 32 characters)")
        if errors := [error.message[:200] for error in RULES.iter_errors(event)]:
            return self.invalid(*errors)
        if units(event["payload"]["summary"]) > 1024:
            return self.invalid("Length of 'payload.summary' is incorrect")
        self.taken.append(event)
        # The interface is asynchronous: a key that nobody has is answered in the same way, and nothing comes of it.
        if event["routing_key"] == self.key:
            self.alerts.setdefault(event["dedup_key"], event)
        return reply_json(
            202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}
        )

    @staticmethod
    def invalid(*errors: str, status: int = 400) -> bytes:
        said = {"status": "invalid event", "message": "Event object is invalid", "errors": list(errors)}
        return reply_json(status, said)
