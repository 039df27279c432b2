"""The whole chain to products that a plain webhook says nothing about: retries, secrets, and what is kept of them."""

import base64
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps import apps
from django.test import Client
from standardwebhooks import Webhook

from evidence.connectors.products import pagerduty, sentinel
from evidence.domain import events
from evidence.enums import Assurance, CaseState
from evidence.models import Attempt, Case
from recovery.models import ApprovalEntry
from tests.builders import World, connector
from tests.evidence.connectors.fakes import ingestion
from tests.evidence.connectors.fakes import slack as slack_rules
from tests.evidence.connectors.fakes import teams as teams_rules
from tests.evidence.connectors.fakes.datadog import Datadog
from tests.evidence.connectors.fakes.hec import Hec
from tests.evidence.connectors.fakes.ingestion import Entra, Ingestion
from tests.evidence.connectors.fakes.pagerduty import PagerDuty
from tests.evidence.connectors.fakes.slack import Slack
from tests.evidence.connectors.fakes.teams import Teams
from tests.evidence.connectors.fakes.web import Web, line
from tests.evidence.connectors.ordering import tls, trusted
from tests.evidence.connectors.receiver import Receiver, Request, answer
from tests.receiver import Arrived

SECRET = "s3cr3t-of-these-connectors"
ROUTING_KEY = "R0UT1NGKEY0123456789abcdef012345"
SIGNING = "whsec_" + base64.b64encode(b"signing-secret-of-32-bytes-long!").decode()
CHANNEL = "FE0ECFAD-13D5-401B-847D-77833BD77131"
SLACK_SECRET = slack_rules.PATH.rsplit("/", 1)[1]
MARKERS = (SECRET, ROUTING_KEY, SIGNING, SIGNING.removeprefix("whsec_"), SLACK_SECRET, teams_rules.SIGNATURE)


class Hook(Web):
    """A receiver of webhooks that verifies their signatures."""

    def reply(self, request: Request) -> bytes:
        self.taken.append(Webhook(SIGNING).verify(request.body, request.headers))
        return answer(200)


Script = Callable[[Request, socket.socket], bytes]


def noted(fake: Web, world: World) -> Script:
    """What a stand-in gets, noted where the world's own receiver notes: as it was approved, questions left out."""

    def script(request: Request, sock: socket.socket) -> bytes:
        _, path, _ = line(request)
        if not path.endswith("/ack"):
            body = request.body.replace(ROUTING_KEY.encode(), pagerduty.PLACEHOLDER.encode())
            world.receiver.log.append(Arrived(path, request.headers, body))
        return fake(request, sock)

    return script


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Receiver]]:
    receivers: list[Receiver] = []

    def start(script: Script) -> Receiver:
        receivers.append(Receiver(script, tls()))
        return receivers[-1]

    yield start
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def products(
    world: World, serve: Callable[[Script], Receiver], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Web]:
    """A connector to each product in a world, by key, and the stand-in behind it."""
    sentinel._tokens.clear()
    entra = Entra(SECRET)
    fakes: dict[str, Web] = {
        "azure": Ingestion(entra),
        "dog": Datadog(SECRET),
        "slack": Slack(),
        "teams": Teams(),
        "pager": PagerDuty(ROUTING_KEY),
        "hook": Hook(),
        "hec": Hec(SECRET, acknowledges=True),
    }
    at = {key: serve(noted(fake, world)).url(path="", scheme="https") for key, fake in fakes.items()}
    token_url = serve(entra).url(path=ingestion.TENANT_PATH, scheme="https")
    secrets = {
        "SECRET": SECRET,
        "ROUTING_KEY": ROUTING_KEY,
        "SIGNING": SIGNING,
        "SLACK_URL": at["slack"] + slack_rules.PATH,
        "TEAMS_URL": f"{at['teams']}{teams_rules.PATH}?{teams_rules.QUERY}",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    options = {
        "token_url": token_url,
        "client_id": ingestion.CLIENT,
        "dcr": ingestion.RULE,
        "stream": ingestion.STREAM,
    }
    rows: dict[str, dict[str, Any]] = {
        "azure": {"product": "sentinel", "url": at["azure"], "token_ref": "env:SECRET", "options": options},
        "dog": {"product": "datadog", "url": at["dog"], "api_key_ref": "env:SECRET"},
        "slack": {"product": "slack", "url": "", "url_ref": "env:SLACK_URL"},
        "teams": {"product": "teams", "url": "", "url_ref": "env:TEAMS_URL"},
        "pager": {"product": "pagerduty", "url": at["pager"], "token_ref": "env:ROUTING_KEY"},
        "hook": {"product": "webhook", "url": f"{at['hook']}/in", "signing_ref": "env:SIGNING"},
        "hec": {
            "product": "splunk",
            "url": f"{at['hec']}/services/collector/event",
            "token_ref": "env:SECRET",
            "options": {"channel": CHANNEL},
        },
    }
    for key, fields in rows.items():
        connector(key, fields.pop("url"), ca_pem=trusted().pem, **fields)
    return fakes


def repeats(request: Request) -> bytes:
    """A receiver that fails, and says back whatever it was told."""
    return answer(503, request.raw.split(b"\r\n\r\n")[0][:700] + b" " + request.body[:200])


def everything_stored() -> str:
    """All rows of all tables, bytes too."""
    values = (
        value for model in apps.get_models() for row in model._default_manager.values_list() for value in row
    )
    return "\n".join(
        bytes(value).decode("utf-8", "replace") if isinstance(value, bytes | memoryview) else str(value)
        for value in values
    )


def test_w28_w29_what_failed_is_retried_with_the_same_content_and_no_secret_is_kept(
    world: World, products: dict[str, Web], client: Client
) -> None:
    for fake in products.values():
        fake.override = repeats
    cases = world.delivered(*products)
    assert {case.connector.key: case.state for case in cases} == dict.fromkeys(products, CaseState.FAILED)
    for fake in products.values():
        fake.override = lambda _request: None
    world.approved()
    world.ran()
    assert {case.connector.key: case.state for case in Case.objects.all()} == dict.fromkeys(
        products, CaseState.DELIVERED
    )
    worth = dict(Attempt.objects.filter(number=2).values_list("case__connector__key", "assurance"))
    assert worth == {key: Assurance.CONFIRMED if key == "hec" else Assurance.ACCEPTED for key in products}
    # One message each, and what was approved is what was sent.
    assert {key: len(fake.taken) for key, fake in products.items()} == dict.fromkeys(products, 1)
    (pager,) = Case.objects.filter(connector__key="pager")
    assert set(products["pager"].alerts) == {pager.case_id}  # type: ignore[attr-defined]
    frozen = bytes(ApprovalEntry.objects.get(case=pager).body)
    assert pagerduty.PLACEHOLDER.encode() in frozen
    assert products["hook"].taken == [events.event_for(Case.objects.get(connector__key="hook"))]
    # What the receivers said back is kept, what they were told is not in it.
    stored = everything_stored()
    assert stored.count("HTTP/1.1") >= len(products)
    for marker in (*MARKERS, "eyJ0eXAi"):  # as access tokens begin
        assert marker not in stored
    client.force_login(world.auditor)
    for case in cases:
        page = client.get(f"/console/cases/{case.case_id}/", follow=True)
        assert page.status_code == 200
        assert not [marker for marker in MARKERS if marker in page.content.decode()]
