"""Asking a connector whether it has a message: an order to the sender that carries an id and no content (P1, P3).

It goes the way content goes: the same lanes, limits, address guard, authorities and proxy (P17, P19).
"""

import secrets
import time

from evidence.connectors import wire
from evidence.connectors.credentials import Misconfigured, auth_headers, late_secrets, resolve
from evidence.connectors.prepare import USER_AGENT, require_options
from evidence.connectors.products import PRODUCTS
from evidence.connectors.specs import ConnectorSettings, SendSpec

# Nobody's message: what a canary asks for that may not leave a ticket behind.
NOBODYS = "canary."


def can_be_asked(settings: ConnectorSettings) -> bool:
    """Whether the connector's product answers such questions."""
    return PRODUCTS[settings.product].question is not None


def order(
    settings: ConnectorSettings, message_id: str, *, token: str, timeout_s: float, wait_s: float
) -> SendSpec:
    """The order that asks for ``message_id``; its receipt has the answer in ``found``.

    ``timeout_s`` bounds question and answer, ``wait_s`` the wait for a free slot. Raises ``Misconfigured`` when
    the connector cannot be used as it is configured, ``ValueError`` when its product cannot be asked.
    """
    make = PRODUCTS[settings.product].question
    if make is None:
        raise ValueError(f"{settings.product} cannot be asked")
    require_options(settings)
    if bool(settings.url) == bool(settings.url_ref):
        raise Misconfigured("url", "or url_ref must be set, and only one of them")
    question = make(settings, message_id, settings.url or resolve(settings.url_ref, field="url_ref"))
    if problem := wire.url_problem(question.url, PRODUCTS[settings.product].schemes):
        raise Misconfigured("url" if settings.url else "url_ref", problem)
    fixed = ((name.lower(), value) for name, value in settings.headers)
    headers = {
        **dict(fixed),
        "user-agent": USER_AGENT,
        **dict(question.headers),
        **dict(auth_headers(settings)),
    }
    if problem := wire.headers_problem(tuple(headers.items())):
        raise Misconfigured("headers", problem)
    return SendSpec(
        token=token,
        connector=settings.key,
        product=settings.product,
        url=question.url,
        headers=tuple(sorted(headers.items())),
        body=question.body,
        timeout_s=timeout_s,
        allow_networks=settings.allow_networks,
        max_concurrency=settings.max_concurrency,
        not_after=time.monotonic() + wait_s,
        options=settings.options,
        secrets=late_secrets(settings),
        ca_pem=settings.ca_pem,
        proxy_url=settings.proxy_url,
        question=question,
    )


def nobodys_id() -> str:
    """A message id that was never used: the right answer to it is no."""
    return f"{NOBODYS}{secrets.token_hex(16)}"
