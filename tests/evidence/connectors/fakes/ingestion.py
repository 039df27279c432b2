"""Azure Monitor's Logs Ingestion API and Microsoft Entra's token endpoint as they are published.

Sources: Microsoft Learn, "Logs Ingestion API in Azure Monitor", "Azure Monitor service limits" (section *Logs
Ingestion API*) and "Microsoft identity platform and the OAuth 2.0 client credentials flow".
"""

import re
import secrets
from urllib.parse import parse_qs

from tests.evidence.connectors.fakes.web import Web, is_json, line, parsed, reply_json
from tests.evidence.connectors.receiver import Request, answer

TENANT_PATH = "/72f988bf-0000-0000-0000-2d7cd011db47/oauth2/v2.0/token"
RULE = "dcr-" + "0a" * 16
STREAM = "Custom-CavraEvidence_CL"
CLIENT = "11111111-2222-3333-4444-555555555555"
# What the stream of the rule declares; docs/connectors.md tells people to declare just this.
COLUMNS = {
    **dict.fromkeys(
        ("MessageId", "SessionId", "EventType", "Title", "AlertLevel", "EventSha256", "EventText"), str
    ),
    "Part": int,
    "Parts": int,
}


class Entra(Web):
    """Gives tokens to one client, for one scope."""

    def __init__(self, secret: str, scope: str = "https://monitor.azure.com/.default") -> None:
        super().__init__()
        self.secret, self.scope, self.expires_in = secret, scope, 3599
        self.tokens: list[str] = []

    def reply(self, request: Request) -> bytes:
        method, path, _ = line(request)
        if method != "POST" or path != TENANT_PATH:
            return answer(404, b"")
        if request.headers.get("content-type") != "application/x-www-form-urlencoded":
            return self.error(400, "invalid_request", "AADSTS900144")
        form = {
            name: values[0] for name, values in parse_qs(request.body.decode(), strict_parsing=True).items()
        }
        if form.get("grant_type") != "client_credentials":
            return self.error(400, "unsupported_grant_type", "AADSTS70003")
        if form.get("client_id") != CLIENT:
            return self.error(400, "unauthorized_client", "AADSTS700016")
        if form.get("client_secret") != self.secret:
            return self.error(401, "invalid_client", "AADSTS7000215")
        # A client's scope ends in /.default, and names one resource.
        if form.get("scope") != self.scope:
            return self.error(400, "invalid_scope", "AADSTS70011")
        self.tokens.append(f"eyJ0eXAi.{secrets.token_hex(20)}.sig")
        body = {"token_type": "Bearer", "expires_in": self.expires_in, "access_token": self.tokens[-1]}
        return reply_json(200, body)

    @staticmethod
    def error(status: int, code: str, number: str) -> bytes:
        return reply_json(
            status, {"error": code, "error_description": f"{number}: refused.", "error_codes": []}
        )


class Ingestion(Web):
    """One rule with one stream. ``revoked`` tokens are answered 401, as expired ones are."""

    def __init__(self, entra: Entra) -> None:
        super().__init__()
        self.entra = entra
        self.revoked: set[str] = set()

    def reply(self, request: Request) -> bytes:
        method, path, query = line(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.entra.tokens or token in self.revoked:
            return self.error(401, "AuthenticationFailed")
        found = re.fullmatch("/dataCollectionRules/([^/]+)/streams/([^/]+)", path)
        if method != "POST" or not found:
            return self.error(404, "NotFound")
        if query.get("api-version") != "2023-01-01":
            return self.error(400, "MissingApiVersionParameter")
        if found[1] != RULE:
            return self.error(404, "NotFound")
        if found[2] != STREAM:
            return self.error(400, "InvalidStream")
        if not is_json(request):
            return self.error(400, "InvalidContentType")
        # "Maximum size of API call: 1 MB".
        if len(request.body) > 1_000_000:
            return self.error(413, "ContentLengthLimitExceeded")
        rows = parsed(request.body)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            return self.error(400, "InvalidPayload")
        for row in rows:
            # A column that is not declared is dropped silently, and one of another type is empty.
            assert {name: type(value) for name, value in row.items()} == COLUMNS
            # "Maximum size for field values: 64 KB. Fields longer than 64 KB are truncated."
            self.taken.append(
                {
                    name: value.encode()[: 64 * 1024].decode("utf-8", "ignore")
                    if isinstance(value, str)
                    else value
                    for name, value in row.items()
                }
            )
        return answer(204, b"")

    @staticmethod
    def error(status: int, code: str) -> bytes:
        return reply_json(status, {"error": {"code": code, "message": "refused"}}, f"x-ms-error-code: {code}")
