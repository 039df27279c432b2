"""A client that knows nothing of the product but its published contract: urllib, JSON and a bearer token."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

B = "/runtime/go-pilot/rollback-drill-notifications"
A = f"{B}/acknowledgements/audit-delivery"


@dataclass(frozen=True)
class Answer:
    """Status and JSON of one answer."""

    status: int
    json: Any


@dataclass(frozen=True)
class Api:
    """Calls as one person; ``token`` empty for nobody."""

    base: str
    token: str = ""

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """One call; any status is an answer."""
        request = urllib.request.Request(
            self.base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "content-type": "application/json",
                **({"authorization": f"Bearer {self.token}"} if self.token else {}),
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return Answer(answer.status, json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read()))

    def get(self, path: str) -> Any:
        """JSON of a GET that has to succeed."""
        answer = self.call("GET", path)
        assert answer.status == 200, answer
        return answer.json

    def post(self, path: str, body: Any, *, expect: int = 200) -> Any:
        """JSON of a POST that has to be answered with ``expect``."""
        answer = self.call("POST", path, body)
        assert answer.status == expect, answer
        return answer.json
