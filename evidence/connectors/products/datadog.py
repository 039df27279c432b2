"""Datadog: one log by the logs intake, version 2.

Source: Datadog, "Send logs" (API reference, v2): address, fields, limits and statuses.
"""

from typing import Any

import rfc8785

from evidence.connectors.failures import classify_status
from evidence.connectors.products import brief
from evidence.connectors.products.adapter import Adapter, Option, below
from evidence.connectors.specs import ConnectorSettings
from evidence.enums import Assurance, FailureClass

DDSOURCE = "cavra"
SERVICE = "cavra-evidence-console"
# A request may have 5 MB and a log 1 MB; a longer log is taken, and cut without a word.
MAX_BODY = 1_000_000


def render(event: dict[str, Any], settings: ConnectorSettings, message_id: str) -> tuple[bytes, str]:
    """A list of one log. Its ``message`` is the event's canonical JSON (RFC 8785), which Datadog parses.

    Beside it only a few texts to search by: the interface takes further attributes as texts alone.
    """
    seen = brief.of(event, message_id)
    tags = [f"alert_level:{seen.level}"] if seen.level in ("healthy", "warning", "critical") else []
    if settings.option("tags"):
        tags.append(settings.option("tags"))
    item = {
        "ddsource": DDSOURCE,
        "service": settings.service or SERVICE,
        "status": brief.severity(seen),
        "message": rfc8785.dumps(event).decode(),
        "cavra.message_id": message_id,
        "cavra.event_sha256": seen.digest,
    }
    if tags:
        item["ddtags"] = ",".join(tags)
    if settings.option("hostname"):
        item["hostname"] = settings.option("hostname")
    return rfc8785.dumps([item]), "application/json"


def recognise(status: int, _body: bytes) -> Assurance | FailureClass:
    """202 is acceptance, the only success that is documented. 408 means: again later."""
    if status == 202:
        return Assurance.ACCEPTED
    if status == 408:
        return FailureClass.UNAVAILABLE
    return classify_status(status) or FailureClass.BAD_RESPONSE


def mark(_settings: ConnectorSettings, message_id: str) -> str:
    """What to search logs for."""
    return f'@cavra.message_id:"{message_id}"'


ADAPTER = Adapter(
    render=render,
    recognise=recognise,
    assurance=Assurance.ACCEPTED,
    earned="The logs intake answered with 202: the log is taken for processing.",
    schemes=("https",),
    max_body=MAX_BODY,
    target=below("/api/v2/logs"),
    options={
        "hostname": Option(label="the host that logs are shown under", pattern=r"[A-Za-z0-9._-]{1,200}"),
        "tags": Option(
            label="tags, separated by commas",
            help="For example env:prod,team:soc.",
            pattern=r"[a-z][a-z0-9_:./-]{0,199}(,[a-z][a-z0-9_:./-]{0,199}){0,19}",
        ),
    },
    needs_credential=True,
    credentials=("api_key_ref",),
    api_key_header="dd-api-key",
    mark=mark,
    # Searching logs is another interface, under an application key.
    against_asking=("its logs intake takes logs and gives none back",),
)
