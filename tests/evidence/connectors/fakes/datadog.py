"""Datadog's logs intake as it is published ("Send logs", API reference, v2)."""

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, reply_json
from tests.evidence.connectors.receiver import Request

# HTTPLogItem of the published OpenAPI document.
FIELDS = {"ddsource", "ddtags", "hostname", "message", "service"}


class Datadog(Web):
    """An account with one API key."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def reply(self, request: Request) -> bytes:
        method, path, _ = line(request)
        if method != "POST" or path != "/api/v2/logs":
            return self.error(404, "Not Found")
        # 401: "Unauthorized (likely a missing API Key)", 403: "Permission issue (likely using an invalid API Key)".
        if "dd-api-key" not in request.headers:
            return self.error(401, "Unauthorized")
        if request.headers["dd-api-key"] != self.key:
            return self.error(403, "Forbidden")
        # "Maximum content size per payload (uncompressed): 5MB".
        if len(request.body) > 5_000_000:
            return self.error(413, "Payload Too Large")
        if not is_json(request):
            return self.error(400, "Bad Request")
        logs = parsed(request.body)
        # "Maximum array size if sending multiple logs in an array: 1000 entries".
        if not isinstance(logs, list) or not 1 <= len(logs) <= 1_000:
            return self.error(400, "Bad Request")
        for log in logs:
            # Further attributes are texts in the published document, and the message is required.
            if not isinstance(log, dict) or not all(isinstance(value, str) for value in log.values()):
                return self.error(400, "Bad Request")
            if not log.get("message"):
                return self.error(400, "Bad Request")
            assert {"ddsource", "service"} <= set(log)
            assert all(name in FIELDS or name == "status" or name.startswith("cavra.") for name in log)
            # "Tags": begin with a letter, at most 200 characters, separated by commas.
            tags = log.get("ddtags", "")
            assert all(tag[0].isalpha() and len(tag) <= 200 for tag in tags.split(",") if tags)
        # "Maximum size for a single log: 1MB", and what is longer is cut: no test may come so far.
        assert len(request.body) <= 1_000_000
        self.taken += logs
        return reply_json(202, {})

    @staticmethod
    def error(status: int, detail: str) -> bytes:
        return reply_json(status, {"errors": [{"status": str(status), "title": detail}]})
