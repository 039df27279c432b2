"""From a case or a notice to what leaves: the event, the connector's settings, the frozen order, the receipts."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from evidence.connectors import prepare, references, sender
from evidence.connectors.credentials import REFERENCES, Misconfigured
from evidence.connectors.specs import ConnectorSettings, Prepared, Receipt, SendSpec
from evidence.domain import breakers, events, live, policies, records
from evidence.domain import clock as clocks
from evidence.domain.breakers import Wait
from evidence.domain.clock import Clock
from evidence.enums import Answer, Product
from evidence.errors import Conflict, InvalidInput
from evidence.models import Case, Connector

# How long a claimed send may wait for a free slot before it is not sent after all.
QUEUE_S = 30.0
# What a lease outlasts the last possible answer by, so that the answer is still recorded under it.
LEASE_SLACK_S = 10.0


def send_cases(cases: Sequence[Case], *, retries: int, timeout_s: float) -> list[Receipt]:
    """Send each case's content once and wait for every receipt. A broken connector fails alone (P17)."""
    orders = [order_for(case, retries=retries, timeout_s=timeout_s) for case in cases]
    receipts = [order for order in orders if isinstance(order, Receipt)]
    specs = [order for order in orders if isinstance(order, SendSpec)]
    receipts += sender.shared().send_all(specs, deadline_s=QUEUE_S + timeout_s + LEASE_SLACK_S)
    return receipts


def order_for(case: Case, *, retries: int, timeout_s: float) -> SendSpec | Receipt:
    """The order to send a claimed first attempt; the receipt of one that could not even be prepared."""
    try:
        prepared = prepare_event(case.connector, _event_for(case), about=case.case_id)
        return spec_for(
            prepared, case.connector, token=case.lease_token, timeout_s=timeout_s, retries=retries
        )
    except Misconfigured as error:
        return misconfigured(case.lease_token, case.connector, error)


def _event_for(case: Case) -> dict[str, Any]:
    """What the connector is told; a body that was erased meanwhile leaves nothing that could be sent."""
    try:
        return events.event_for(case)
    except Conflict as error:
        raise Misconfigured("the content", "was erased before it was sent") from error


def send_event(
    connectors: Sequence[Connector], event: dict[str, Any], *, retries: int, timeout_s: float
) -> list[Receipt]:
    """Send one event that belongs to no case (a notice) to each connector."""
    specs, receipts = [], []
    for connector in connectors:
        try:
            prepared = prepare_event(connector, event, about=f"{event['session_id']}.{connector.key}")
            specs.append(
                spec_for(prepared, connector, token=connector.key, timeout_s=timeout_s, retries=retries)
            )
        except Misconfigured as error:
            receipts.append(misconfigured(connector.key, connector, error))
    receipts += sender.shared().send_all(specs, deadline_s=QUEUE_S + timeout_s + LEASE_SLACK_S)
    return receipts


def settings_of(connector: Connector) -> ConnectorSettings:
    """A connector's row as the frozen settings that sending works with."""
    return ConnectorSettings(
        key=connector.key,
        product=Product(connector.product),
        url=connector.url,
        url_ref=connector.url_ref,
        headers=tuple(sorted(connector.headers.items())),
        authorization_ref=connector.authorization_ref,
        token_ref=connector.token_ref,
        authorization_scheme=connector.authorization_scheme,
        api_key_ref=connector.api_key_ref,
        api_key_header=connector.api_key_header,
        signing_ref=connector.signing_ref,
        previous_signing_ref=connector.previous_signing_ref,
        options=tuple(sorted(connector.options.items())),
        ca_pem=connector.ca_pem,
        proxy_url=connector.proxy_url,
        proxy_authorization_ref=connector.proxy_authorization_ref,
        title=connector.title,
        index=connector.index,
        service=connector.service,
        allow_networks=tuple(connector.allow_networks),
        timeout_s=connector.timeout_ms / 1000,
        max_concurrency=connector.max_concurrency,
    )


def learn_secrets() -> int:
    """Have the secrets of every connector kept out of what this process writes, those that it never used too.

    Returns 0: there is nothing to do more.
    """
    for refs in Connector.objects.values_list(*REFERENCES):
        references.learn(refs)
    return 0


def prepare_event(connector: Connector, event: dict[str, Any], *, about: str) -> Prepared:
    """What would go on the wire for ``event``. The idempotency key is the same for the same bytes (P20)."""
    settings = settings_of(connector)
    rendered = prepare.prepare(settings, event, idempotency_key="", message_id=about)
    return address_body(connector, rendered.body, rendered.content_type, about=about)


def address_body(connector: Connector, body: bytes, content_type: str, *, about: str) -> Prepared:
    """Today's address, headers and credentials around bytes that were rendered before.

    Raises ``Misconfigured`` when the connector cannot be used as it is configured.
    """
    key = records.digest(about.encode() + b"\n" + body)[:32]
    return prepare.address(settings_of(connector), body, content_type, idempotency_key=key, message_id=about)


def spec_for(
    prepared: Prepared, connector: Connector, *, token: str, timeout_s: float, retries: int = 0
) -> SendSpec:
    """The frozen order to the sender; it reads no row afterwards."""
    return SendSpec(
        token=token,
        connector=connector.key,
        product=Product(connector.product),
        url=prepared.url,
        headers=(*prepared.public_headers, *prepared.secret_headers),
        body=prepared.body,
        timeout_s=timeout_s,
        retries=retries,
        allow_networks=tuple(connector.allow_networks),
        max_concurrency=connector.max_concurrency,
        not_after=time.monotonic() + QUEUE_S,
        options=tuple(sorted(connector.options.items())),
        secrets=prepared.secrets,
        ca_pem=connector.ca_pem,
        proxy_url=connector.proxy_url,
    )


def misconfigured(token: str, connector: Connector, error: Misconfigured) -> Receipt:
    """The receipt of a send that could not even be prepared: nothing left."""
    now = datetime.now(UTC)
    return Receipt(
        token=token,
        connector=connector.key,
        answer=Answer.NOT_SENT,
        assurance=None,
        may_have_arrived=False,
        failure_class=error.failure_class,
        status_code=None,
        error=str(error)[:200],
        tries=0,
        started_at=now,
        completed_at=now,
    )


def lease_seconds(timeout_s: float) -> float:
    """How long a claim holds: waiting for a slot, the try itself, and writing its outcome.

    Leases run by the clock itself, not by the log's time: they are no permission, and a clock that was
    ahead for a moment must not keep a dead claim alive.
    """
    return QUEUE_S + timeout_s + LEASE_SLACK_S


def require_any_connector() -> None:
    """Raise ``InvalidInput`` when nothing at all is configured."""
    if not Connector.objects.exists():
        raise InvalidInput("No connector is configured.", code="connector_config_not_loaded")


def usable_connectors(keys: Sequence[str] | None) -> list[Connector]:
    """Connectors by key, or every enabled one for None; a missing or disabled one is an answer (P16)."""
    if keys is None:
        connectors = list(Connector.objects.filter(enabled=True))
        if not connectors:
            raise Conflict("Every connector is disabled.", code="connector_disabled")
        return connectors
    known = {connector.key: connector for connector in Connector.objects.filter(key__in=keys)}
    missing = [key for key in keys if key not in known]
    if missing:
        raise Conflict(
            f"Not configured: {', '.join(missing)}.", code="connector_not_configured", providers=missing
        )
    disabled = [key for key in keys if not known[key].enabled]
    if disabled:
        raise Conflict(f"Disabled: {', '.join(disabled)}.", code="connector_disabled", providers=disabled)
    return [known[key] for key in dict.fromkeys(keys)]


def require_live(
    connectors: Sequence[Connector], *, clock: Clock, at: datetime | None = None
) -> dict[int, tuple[Wait, ...]]:
    """Raise ``Conflict`` when live sending to one of them is paused or switched off, or nothing live is done at all.

    Returns which connectors (by key) have to be waited for at ``at`` (now), and why: that is no refusal.
    """
    for code, sentence in live.reasons_against_live(clock):
        raise Conflict(sentence, code=code)
    scopes, at = policies.paused_scopes(), at or clocks.read(clock)
    standing = breakers.standing(connectors, at)
    for connector in connectors:
        if reasons := policies.refusals(policies.reasons_against_sending(connector, scopes, at, standing)):
            code, sentence = reasons[0]
            raise Conflict(sentence, code=code, provider=connector.key)
    return {pk: found.waits for pk, found in standing.items() if found.waits}
