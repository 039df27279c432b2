"""Splunk's HTTP Event Collector as it is published.

Sources: Splunk, "HTTP Event Collector REST API endpoints", "Troubleshoot HTTP Event Collector" (codes) and "About
HTTP Event Collector Indexer Acknowledgment".
"""

import re

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, reply_json
from tests.evidence.connectors.receiver import Request

GUID = re.compile(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", re.IGNORECASE)
# "Format events for HTTP Event Collector": the keys of an envelope.
ENVELOPE = {"time", "host", "source", "sourcetype", "index", "fields", "event"}


class Hec(Web):
    """``acknowledges``: the token demands a channel. ``polls`` is how often it says no before an event is indexed."""

    def __init__(self, token: str, *, acknowledges: bool = False, polls: int = 1) -> None:
        super().__init__()
        self.token, self.acknowledges, self.polls = token, acknowledges, polls
        self.asked: list[int] = []
        self.waiting: dict[tuple[str, int], int] = {}

    def reply(self, request: Request) -> bytes:
        method, path, query = line(request)
        authorization = request.headers.get("authorization")
        if authorization is None:
            return reply_json(401, {"text": "Token is required", "code": 2})
        if not authorization.startswith("Splunk "):
            return reply_json(401, {"text": "Invalid authorization", "code": 3})
        if authorization != f"Splunk {self.token}":
            return reply_json(403, {"text": "Invalid token", "code": 4})
        if method != "POST":
            return reply_json(405, {"text": "Method Not Allowed", "code": 404})
        # The channel is a header or a parameter of the address.
        channel = request.headers.get("x-splunk-request-channel") or query.get("channel", "")
        if self.acknowledges or path.endswith("/ack"):
            if not channel:
                return reply_json(400, {"text": "Data channel is missing", "code": 10})
            if not GUID.fullmatch(channel):
                return reply_json(400, {"text": "Invalid data channel", "code": 11})
        if path == "/services/collector/ack":
            return self.acks(request, channel)
        if path not in ("/services/collector", "/services/collector/event"):
            return reply_json(404, {"text": "The requested URL was not found on this server.", "code": 404})
        envelope = parsed(request.body)
        if not is_json(request) or not isinstance(envelope, dict) or set(envelope) - ENVELOPE:
            return reply_json(400, {"text": "Invalid data format", "code": 6, "invalid-event-number": 0})
        if "event" not in envelope:
            return reply_json(400, {"text": "Event field is required", "code": 12})
        if envelope["event"] in ("", {}):
            return reply_json(400, {"text": "Event field cannot be blank", "code": 13})
        self.taken.append(envelope)
        if not self.acknowledges:
            return reply_json(200, {"text": "Success", "code": 0})
        ack = len(self.taken)
        self.waiting[channel, ack] = self.polls
        return reply_json(200, {"text": "Success", "code": 0, "ackId": ack})

    def acks(self, request: Request, channel: str) -> bytes:
        if not self.acknowledges:
            return reply_json(400, {"text": "ACK is disabled", "code": 14})
        asked = parsed(request.body)
        if not isinstance(asked, dict) or set(asked) != {"acks"} or not isinstance(asked["acks"], list):
            return reply_json(400, {"text": "Invalid data format", "code": 6})
        said = {}
        for ack in asked["acks"]:
            self.asked.append(ack)
            # "After the status is returned as true, it is removed": a second look says false again.
            left = self.waiting.get((channel, ack), -1)
            said[str(ack)] = left == 0
            self.waiting[channel, ack] = left - 1
        return reply_json(200, {"acks": said})
