"""What a configuration row may say, beyond what its columns can hold. The admin's forms and every save ask here."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from django.db import models

from evidence.connectors import addresses, wire
from evidence.connectors.credentials import REFERENCES
from evidence.connectors.prepare import HTTP_ONLY, OUR_HEADERS
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import CREDENTIALS
from evidence.connectors.references import is_own_secret
from evidence.documents import KINDS
from evidence.domain import configured_secrets, public_safety, safety, text
from evidence.domain.reading import Errors, Reader
from evidence.domain.sending import settings_of
from evidence.enums import Product, Transport
from evidence.errors import InvalidInput
from evidence.models import (
    Connector,
    ConnectorWindow,
    MaintenanceWindow,
    RetentionRule,
    Schedule,
    ScheduleOwner,
)

# As in a schedule's file; a time minus much more than this leaves the calendar.
MAX_DUE_SOON_DAYS = 3_650
# What is down for longer is not down by plan.
MAX_WINDOW = timedelta(days=30)

# A header or query parameter with one of these words in its name carries a credential: x-api-key,
# private-token, dd-application-key, x-amz-security-token, sig …
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "jwt",
        "key",
        "passwd",
        "password",
        "pwd",
        "secret",
        "session",
        "sig",
        "signature",
        "token",
    }
)
# RFC 9110 §11.1: a scheme is a token.
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")


def problems(row: models.Model) -> Errors:
    """What is wrong with ``row``, by column; empty when nothing is.

    Brings values into their one form on the way, like a model's own ``clean``: texts in NFC without outer
    white space, an empty list or object for a JSON column that was left blank.
    """
    errors: Errors = {}
    for column in row._meta.concrete_fields:
        value = getattr(row, column.attname)
        if isinstance(column, models.JSONField) and value is None:
            setattr(row, column.attname, column.get_default())
        elif isinstance(column, models.CharField) and isinstance(value, str):
            try:
                cleaned = text.clean(value, field=column.name, limit=column.max_length or text.MAX_REFERENCE)
            except InvalidInput as error:
                errors[column.name] = error.errors[column.name]
            else:
                setattr(row, column.attname, cleaned)
        if (found := _credentials_in(getattr(row, column.attname))) and column.name not in errors:
            errors[column.name] = [f"Holds a credential (rule {', '.join(found)}): name a secret instead."]
    if (rules := RULES.get(type(row))) is not None:
        for name, sentence in rules(row):
            errors.setdefault(name, []).append(sentence)
    return errors


def _credentials_in(value: Any) -> list[str]:
    """The rules of public safety that find a credential in a text, or in any text of a list or an object.

    Configuration may name private hosts, and it is read by administrators alone; a credential is a reference (P18).
    """
    hits = [
        hit
        for _, said in public_safety.strings(value)
        for hit in (*public_safety.find(said), *configured_secrets.known().find(said))
    ]
    return sorted({hit.rule for hit in hits} - {"private-url"})


def carries_secret(name: str) -> bool:
    """Whether a header or query parameter of this name is made to hold a credential."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    return any(word in _SECRET_WORDS for word in words) or name.lower().endswith(
        ("token", "secret", "password")
    )


Rules = Callable[[Any], list[tuple[str, str]]]


def _connector(row: Connector) -> list[tuple[str, str]]:
    if row.product not in list(Product):
        return []  # the column's choices say it
    found = [
        *_destination(row),
        *_options(row),
        *_credentials(row),
        *_signing(row),
        *_headers(row),
        *_networks(row.allow_networks),
        *_trust(row),
        *_announcement(row),
        *_http_only(row),
    ]
    # How settings go together is asked once each of them is in order.
    return found or [*PRODUCTS[Product(row.product)].against(settings_of(row))]


def _http_only(row: Connector) -> list[tuple[str, str]]:
    if PRODUCTS[Product(row.product)].transport is Transport.HTTP:
        return []
    return [
        (name, f"{row.product} does not speak HTTP: leave it empty.")
        for name in HTTP_ONLY
        if getattr(row, name)
    ]


def _destination(row: Connector) -> list[tuple[str, str]]:
    if bool(row.url) == bool(row.url_ref):
        return [("url", "Give either a URL or a reference to the secret that holds it.")]
    if not row.url:
        return []
    adapter = PRODUCTS[Product(row.product)]
    if adapter.secret_url:
        return [("url", f"Who knows the URL of {row.product} may post there: name a secret that holds it.")]
    if problem := wire.url_problem(row.url, adapter.schemes):
        return [("url", f"The URL {problem}.")]
    if reason := _refused(row):
        return [
            ("url", f"No connection is made to its address: {reason}. Allowed networks open private ones.")
        ]
    if any(carries_secret(name) for name, _ in parse_qsl(urlsplit(row.url).query, keep_blank_values=True)):
        return [
            ("url", "The query holds a credential; keep the whole URL as a secret and name that instead.")
        ]
    return []


def _refused(row: Connector) -> str | None:
    """Why the address in the URL, where it is one and no name, would be refused when something is sent (P19)."""
    parts = urlsplit(row.url)
    # A list that is wrong in itself is said beside its own field.
    allowed = tuple(row.allow_networks) if not _networks(row.allow_networks) else ()
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return None  # a name; which address it has shows when it is asked for
    return addresses.refusal(address, allowed, encrypted=parts.scheme not in wire.PLAIN)


def _credentials(row: Connector) -> list[tuple[str, str]]:
    found = [
        (name, "Names a secret of this service itself.")
        for name in REFERENCES
        if is_own_secret(getattr(row, name))
    ]
    if row.authorization_ref and row.token_ref:
        found.append(("token_ref", "Must be empty beside a whole authorization value."))
    adapter = PRODUCTS[Product(row.product)]
    found += [
        (name, f"{row.product} has no use for it.")
        for name in CREDENTIALS
        if getattr(row, name) and name not in adapter.credentials
    ]
    if adapter.needs_credential and not any(getattr(row, name) for name in adapter.credentials):
        found.append((adapter.credential_field, f"{row.product} takes nothing without a credential."))
    if not _SCHEME.fullmatch(row.authorization_scheme):
        found.append(("authorization_scheme", "Must be one word, like Bearer."))
    if problem := wire.header_problem(row.api_key_header, "value"):
        found.append(("api_key_header", f"It {problem}."))
    elif row.api_key_header.lower() in OUR_HEADERS:
        found.append(("api_key_header", "Is set by the product or by another reference."))
    return found


def _options(row: Connector) -> list[tuple[str, str]]:
    """The product's own settings: known ones, in their form, and those that it cannot do without."""
    if not isinstance(row.options, Mapping) or not all(isinstance(v, str) for v in row.options.values()):
        return [("options", "Must be an object of names and texts.")]
    problems = wire.options_problems(Product(row.product), row.options)
    return [("options", f"{problem}.") for problem in problems]


def _signing(row: Connector) -> list[tuple[str, str]]:
    if row.signing_ref and not PRODUCTS[Product(row.product)].signs:
        return [("signing_ref", f"{row.product} has no signature of ours.")]
    if row.previous_signing_ref and not row.signing_ref:
        return [("previous_signing_ref", "Must be empty without a signing secret.")]
    return []


def _trust(row: Connector) -> list[tuple[str, str]]:
    """Authorities of its own, and the proxy: no name and password in its address."""
    found = []
    if row.ca_pem:
        try:
            x509.load_pem_x509_certificates(row.ca_pem.encode())
        except ValueError:
            found.append(("ca_pem", "Must be one or more certificates in PEM."))
    if row.proxy_url and (problem := wire.proxy_problem(row.proxy_url)):
        found.append(("proxy_url", f"The proxy {problem}."))
    if row.proxy_authorization_ref and not row.proxy_url:
        found.append(("proxy_authorization_ref", "Must be empty without a proxy."))
    return found


def _announcement(row: Connector) -> list[tuple[str, str]]:
    """Another connector says that this one keeps failing. That it is there, ``configuration`` looks after."""
    if row.announce_through and row.announce_through == row.key:
        return [("announce_through", "Name another connector: one that fails cannot say so itself.")]
    return []


def _headers(row: Connector) -> list[tuple[str, str]]:
    if not isinstance(row.headers, Mapping) or not all(
        isinstance(value, str) for value in row.headers.values()
    ):
        return [("headers", "Must be an object of header names and texts.")]
    pairs = tuple(row.headers.items())
    found = []
    if problem := wire.headers_problem(pairs):
        found.append(("headers", f"It {problem}."))
    for name, _ in pairs:
        shown = ascii(name)[1:-1][:80]
        if name.lower() in OUR_HEADERS - {"authorization"}:
            found.append(("headers", f"{shown} is set by the product."))
        elif carries_secret(name):
            found.append(("headers", f"{shown} carries a credential; name it by a reference instead."))
        elif row.api_key_ref and name.lower() == row.api_key_header.lower():
            found.append(("headers", f"{shown} is the header of the API key."))
    return found


def _networks(networks: Any) -> list[tuple[str, str]]:
    if not isinstance(networks, list) or not all(isinstance(item, str) for item in networks):
        return [("allow_networks", "Must be a list of networks, like 10.0.0.0/8.")]
    found = []
    for item in networks:
        shown = ascii(item)[1:-1][:80]
        try:
            (network,) = addresses.parse_networks((item,))
        except ValueError:
            found.append(("allow_networks", f"{shown} is no network; write it like 10.0.0.0/8."))
            continue
        if not any(_within(network, outer) for outer in _PRIVATE):
            found.append(
                ("allow_networks", f"{shown} is not inside a private network, which is all this list opens.")
            )
    return found


_PRIVATE = addresses.parse_networks(tuple(cidr for cidr, _ in addresses.BY_ALLOW_LIST))


def _within(inner: addresses.Network, outer: addresses.Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def _schedule(row: Schedule) -> list[tuple[str, str]]:
    found = _keys("notification_providers", row.notification_providers)
    if not found and not row.notification_providers:
        found.append(("notification_providers", "Name at least one connector."))
    if row.interval_days is not None and row.interval_days < 1:
        found.append(("interval_days", "Must be at least 1."))
    if row.due_soon_days is not None and row.due_soon_days > MAX_DUE_SOON_DAYS:
        found.append(("due_soon_days", f"Must be at most {MAX_DUE_SOON_DAYS}."))
    return found


def _owner(row: ScheduleOwner) -> list[tuple[str, str]]:
    found = _keys("providers", row.providers)
    reader = Reader({"unavailable_windows": row.unavailable_windows})
    for window in reader.objects("unavailable_windows"):
        window.span()
        window.text("reason", limit=200)
    found += _in_column("unavailable_windows", reader)
    if row.acknowledgement_minutes is not None and row.acknowledgement_minutes < 1:
        found.append(("acknowledgement_minutes", "Must be at least 1."))
    return found


def _window(row: MaintenanceWindow) -> list[tuple[str, str]]:
    found = _keys("providers", row.providers)
    reader = Reader({"owners": row.owners})
    reader.texts("owners")
    found += _in_column("owners", reader)
    if isinstance(row.start_at, datetime) and isinstance(row.end_at, datetime) and row.end_at <= row.start_at:
        found.append(("end_at", "Must be later than the start."))
    return found


def _connector_window(row: ConnectorWindow) -> list[tuple[str, str]]:
    found = []
    try:
        # Every plan that waits for it says what it is called: text that no record may hold would stop them all.
        safety.require({"window_id": row.window_id})
    except InvalidInput as error:
        found += [("window_id", f"It {sentence} of public safety.") for sentence in error.errors["window_id"]]
    if isinstance(row.start_at, datetime) and isinstance(row.end_at, datetime):
        if row.end_at <= row.start_at:
            found.append(("end_at", "Must be later than the start."))
        elif row.end_at - row.start_at > MAX_WINDOW:
            sentence = f"A window is at most {MAX_WINDOW.days} days long; disable the connector instead."
            found.append(("end_at", sentence))
    return found


def _keys(column: str, value: Any) -> list[tuple[str, str]]:
    """A column that holds a list of connector keys, each once and in its one form."""
    reader = Reader({column: value})
    keys = reader.texts(column, key=True)
    if not reader.errors and keys != list(value or []):
        return [(column, f"Write the connector keys as {', '.join(keys)}.")]
    return _in_column(column, reader)


def _in_column(column: str, reader: Reader) -> list[tuple[str, str]]:
    """What a reader found inside a JSON column, as sentences about the column."""
    return [
        (column, f"{path}: {sentence}") for path, sentences in reader.errors.items() for sentence in sentences
    ]


def _retention(row: RetentionRule) -> list[tuple[str, str]]:
    kind = KINDS.get(row.kind)
    if kind is None:
        return [("kind", "There is no such kind of record.")]
    if not kind.erasable:
        return [("kind", "Records of this kind stay for good: without them the others could not be judged.")]
    return []


RULES: Mapping[type[models.Model], Rules] = {
    Connector: _connector,
    Schedule: _schedule,
    ScheduleOwner: _owner,
    MaintenanceWindow: _window,
    ConnectorWindow: _connector_window,
    RetentionRule: _retention,
}
