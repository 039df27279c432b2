"""No configured secret is anywhere but where it belongs (P18, W27, W28).

Markers stand in every secret there is. Receivers repeat all they get, deliveries fail, are retried, attested, closed,
taken away and erased, connectors are tested and broken, views fail in the middle. Then everything that this service
stored, showed, logged or said is searched for every marker, in spellings that this test makes up by itself.
"""

import base64
import html
import io
import json
import logging
import os
import secrets
import socket
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client, RequestFactory
from django.urls import reverse

from evidence.connectors import sender
from evidence.connectors.products import PRODUCTS, sentinel
from evidence.domain import (
    capsules,
    connector_health,
    connector_tests,
    deliveries,
    erasures,
    exports,
    live,
    people,
)
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Product
from evidence.models import Attempt, AttemptAnswer, Case, Connector, Record, SendDiagnostic
from recovery.domain import approvals, closures
from recovery.domain.closures import ClosureRequest
from recovery.enums import ClosureState, EntryState, Seen
from recovery.models import ApprovalEntry, Recovery
from tests.builders import World, connector
from tests.endpoints import served
from tests.evidence.connectors.authority import Authority
from tests.evidence.connectors.listener import Listener
from tests.evidence.connectors.proxy import Proxy
from tests.evidence.ledger_keys import Keys
from tests.journeys import echo
from tests.receiver import Receiver

pytestmark = pytest.mark.django_db

REFERENCES = (
    "url_ref",
    "authorization_ref",
    "token_ref",
    "api_key_ref",
    "signing_ref",
    "previous_signing_ref",
)
OPTIONS: dict[Product, dict[str, str]] = {
    Product.SENTINEL: {
        "client_id": "11111111-2222-3333-4444-555555555555",
        "dcr": f"dcr-{'a' * 32}",
        "stream": "Custom-Cavra_CL",
        "token_url": "https://localhost:{port}/tenant/oauth2/token",
    },
    Product.JIRA: {"project": "OPS", "username": "robot@example.com"},
    Product.SERVICENOW: {"username": "robot"},
    Product.EMAIL: {"sender": "cavra@example.com", "recipients": "soc@example.com", "username": "robot"},
}


def marker(product: Product | str, what: str) -> str:
    """A secret that nothing else looks like. Letters and digits alone, for some products take nothing else."""
    return f"MK{product[:4]}{what[:6]}".replace("_", "") + secrets.token_hex(10)


@dataclass
class Walked:
    """What happened, and everything that was written or shown meanwhile, by where."""

    world: World
    # Marker by the product and the reference that it stands in.
    markers: dict[str, str] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)
    heard: int = 0

    def show(self, where: str, *texts: Any) -> None:
        """Keep what was seen somewhere."""
        kept = self.shown.setdefault(where, [])
        kept += [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in texts]

    def found(self, where: str) -> list[tuple[str, str]]:
        """Markers that are to be seen there, with what surrounds them."""
        return search(self.markers, self.shown[where])


def search(markers: dict[str, str], texts: list[str]) -> list[tuple[str, str]]:
    """Each marker that is in one of ``texts``, in any spelling, and what stands around it."""
    hits = []
    whole = "\n\x01\n".join(texts)
    for name, value in markers.items():
        for form in forms(value):
            if (at := whole.find(form)) >= 0:
                hits.append((name, whole[max(0, at - 60) : at + len(form) + 20]))
                break
    return hits


def forms(value: str) -> set[str]:
    """A value as programs write it, in spellings of this test's own."""
    found = {
        value,
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote_plus(value),
        json.dumps(value)[1:-1],
        html.escape(value),
        repr(value)[1:-1],
        value.encode().hex(),
        value[::-1],
        "\0".join(value),
        "\ufffd".join(value),
    }
    for before in range(3):
        # Whatever stands around it: the letters that it decides alone.
        encoded = base64.b64encode(b"x" * before + value.encode() + b"yy").decode()
        inner = encoded[(0, 2, 3)[before] : 8 * (before + len(value)) // 6]
        found |= {inner, inner.replace("+", "-").replace("/", "_")}
    return found


# --- what is walked -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walked(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walked]:
    """Everything once, for all tests of this module."""
    folder = tmp_path_factory.mktemp("secrets")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        stack.enter_context(django_db_blocker.unblock())
        stack.enter_context(transaction.atomic())
        patch.setattr(settings, "CAVRA_DATA", folder)
        (folder / "files").mkdir()
        patch.setattr(settings, "CAVRA_SECRETS_DIR", str(folder / "files"))
        patch.setattr(settings, "EMAIL_HOST_PASSWORD", marker("mail", "password"))
        # Not patched: that would delete it afterwards, for the name leads to another object than it looks in.
        connection.force_debug_cursor = True
        stack.callback(setattr, connection, "force_debug_cursor", False)
        sentinel._tokens.clear()
        keys = Keys(folder / "keys", patch)
        keys.add()
        receiver = Receiver()
        stack.callback(receiver.stop)
        made = Walked(World(receiver))
        made.markers["the service: SECRET_KEY"] = settings.SECRET_KEY
        made.markers["the service: mail"] = settings.EMAIL_HOST_PASSWORD
        made.markers["the service: ledger key"] = keys.path("key").read_text().split()[-1]
        log = stack.enter_context(logged())
        Walk(made, folder, patch, stack).everything()
        made.show("log", log.getvalue())
        yield made
        transaction.set_rollback(True)


class logged:
    """Everything that is logged, at every level, as a handler of its own would write it."""

    def __enter__(self) -> io.StringIO:
        self.text = io.StringIO()
        self.handler = logging.StreamHandler(self.text)
        self.handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s"))
        self.loggers = [
            logging.getLogger(name) for name in ("", "django", "django.db.backends", "asyncio", "aiohttp")
        ]
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.DEBUG)
        self.loggers[0].addHandler(self.handler)
        return self.text

    def __exit__(self, *_: object) -> None:
        self.loggers[0].removeHandler(self.handler)
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)


class Walk:
    """The walk, step by step."""

    def __init__(self, made: Walked, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.made, self.world, self.folder, self.patch = made, made.world, folder, patch
        self.hosts = {product: f"{marker(product, 'host').lower()}.example" for product in PRODUCTS}
        authority = Authority()
        tls = authority.context("localhost", "127.0.0.1", *self.hosts.values())
        self.ca = authority.pem
        token = made.markers["sentinel: the token that was fetched"] = marker("sentinel", "access")
        self.echo = echo.Echo(tls, token)
        stack.callback(self.echo.close)
        self.mail, self.syslog = Listener(echo.mail, tls), Listener(echo.syslog, tls)
        stack.callback(self.mail.close)
        stack.callback(self.syslog.close)
        self.proxy = Proxy(names=dict.fromkeys(self.hosts.values(), "127.0.0.1"))
        stack.callback(self.proxy.close)
        resolve = socket.getaddrinfo

        def resolved(host: Any, *args: Any, **kwargs: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            return resolve("127.0.0.1" if name in self.hosts.values() else host, *args, **kwargs)

        patch.setattr(socket, "getaddrinfo", resolved)

    def everything(self) -> None:
        self.configured = [self.configure(product) for product in PRODUCTS]
        self.failed_and_retried()
        self.settled_by_people()
        self.closed_and_taken_away()
        self.tested()
        self.pages()
        self.broken()
        self.faults()
        self.commands()
        self.database()
        self.made.heard = self.echo.count + len(self.mail.heard) + len(self.syslog.heard)

    def configure(self, product: Product) -> Connector:
        """A connector whose every reference holds a marker, every other one in a file."""
        adapter = PRODUCTS[product]
        host, port = (
            self.hosts[product],
            {"email": self.mail.port, "syslog": self.syslog.port}.get(product, self.echo.port),
        )
        scheme = adapter.schemes[0] if product not in ("jira", "servicenow", "splunk", "webhook") else "https"
        values = {"url_ref": f"{scheme}://{host}:{port}"}
        self.made.markers[f"{product}: host"] = host.partition(".")[0]
        if scheme == "https":
            place, asked = marker(product, "path"), marker(product, "query")
            values["url_ref"] += f"/services/{place}" + (
                "" if product in ("jira", "servicenow") else f"?sig={asked}"
            )
            planted = {f"{product}: path": place, f"{product}: query": asked}
            self.made.markers |= {name: one for name, one in planted.items() if one in values["url_ref"]}
        credential = next(
            (name for name in ("token_ref", *adapter.credentials) if name in adapter.credentials), ""
        )
        wanted = [credential] if credential else []
        if "api_key_ref" in adapter.credentials and "api_key_ref" not in wanted:
            wanted.append("api_key_ref")
        if adapter.signs:
            wanted += ["signing_ref", "previous_signing_ref"]
        for name in wanted:
            values[name] = self.made.markers[f"{product}: {name}"] = marker(product, name)
            if product is Product.PAGERDUTY:
                values[name] = self.made.markers[f"{product}: {name}"] = secrets.token_hex(16).upper()
            if "signing" in name:
                key = self.made.markers[f"{product}: {name}"]
                values[name] = "whsec_" + base64.b64encode(key.encode()).decode()
        more: dict[str, Any] = {}
        if product is Product.WEBHOOK:
            user, password = "robot", marker(product, "proxy")
            self.made.markers[f"{product}: proxy"] = password
            values["proxy_authorization_ref"] = (
                "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
            )
            more = {"proxy_url": self.proxy.url, "api_key_header": "x-nobody-knows-this-name"}
        references = {}
        for number, (name, value) in enumerate(values.items()):
            place = f"{product}_{name}".upper()
            if number % 2:
                (self.folder / "files" / place).write_text(f"{value}\n")
                references[name] = f"file:{place}"
            else:
                self.patch.setenv(place, value)
                references[name] = f"env:{place}"
        options = {name: text.format(port=self.echo.port) for name, text in OPTIONS.get(product, {}).items()}
        return connector(
            f"to_{product}",
            "",
            product=product,
            ca_pem=self.ca,
            options=options,
            timeout_ms=5_000,
            **references,
            **more,
        )

    def failed_and_retried(self) -> None:
        world = self.world
        keys = tuple(row.key for row in self.configured)
        self.cases = world.failed(*keys)
        assert {case.state for case in self.cases} == {CaseState.FAILED}
        for _ in range(2):
            self.approved()
            world.ran()
        assert Case.objects.filter(attempt_count__gte=2).count() >= len(self.cases) - 2

    def approved(self) -> list[ApprovalEntry]:
        """Requests for everything that failed, approved."""
        entries = self.world.requested()
        for entry in entries:
            if entry.state == EntryState.PENDING:
                self.world.vote(entry)
        return list(approvals.entries().filter(pk__in=[entry.pk for entry in entries]))

    def settled_by_people(self) -> None:
        """A retry that nobody heard of, attested by two; a case that two people gave up."""
        (case,) = self.world.failed("webhook")
        entry = next(entry for entry in self.approved() if entry.case_id == case.pk)
        self.world.unheard(self.world.taken(entry))
        case.refresh_from_db()
        self.world.attested(case, Seen.NOT_DELIVERED, self.world.second_analyst, self.world.approver)
        (case,) = self.world.failed("webhook")
        self.world.disposed(case)

    def closed_and_taken_away(self) -> None:
        world = self.world
        playbook = world.playbook()
        for recovery in Recovery.objects.all():
            request = ClosureRequest(
                provider=recovery.connector.key, state=ClosureState.ESCALATED, external_ref="INC-7"
            )
            closures.close(playbook, request, by=world.second_analyst, clock=world.clock)
        for case in self.cases:
            capsule = capsules.freeze(case, by=world.auditor, clock=world.clock)
            self.made.show("capsules", *unpacked(capsules.content_of(capsule, by=world.auditor)))
        plan = world.announced()
        erasure = erasures.propose([plan], "GDPR 17", "asked for", by=world.administrator, clock=world.clock)
        erasures.confirm(erasure, by=world.auditor, clock=world.clock)
        found = list(Record.objects.order_by("index"))
        self.made.show(
            "exports", *exports.json_lines(found, profile="full"), *exports.csv_rows(found, profile="full")
        )
        self.made.show("exports", *exports.seal_entries())

    def tested(self) -> None:
        for row in self.configured:
            steps = connector_tests.run(row, by=self.world.administrator, clock=self.world.clock)
            self.made.show("tests", *steps)

    def pages(self) -> None:
        case = self.cases[-1]
        ids = {
            "case_id": case.case_id,
            "case": case.case_id,
            "schedule_id": self.world.schedule.schedule_id,
            "provider": case.connector.key,
            "key": case.connector.key,
            "delivery_id": case.plan.delivery_id,
            "audit_id": case.package.audit_id,
            "recovery_id": Recovery.objects.latest("pk").pk,
            "record_id": case.plan.delivery_id,
        }
        browsers = {}
        for part in ("administrator", "auditor", "analyst"):
            browsers[part] = Client(raise_request_exception=False)
            browsers[part].force_login(getattr(self.world, part))
        well = 0
        for one in served():
            if "logout" in one.path or "{" in (path := _filled(one.path, ids)):
                continue
            # Forms of acts are the analyst's; an API answers everybody alike.
            for part in (
                ("administrator", "auditor", "analyst") if path.startswith("/console") else ("auditor",)
            ):
                answer = browsers[part].get(path)
                well += answer.status_code == 200
                self.made.show("diagnostics" if path.endswith("/connections/") else "pages", *_said(answer))
        for model, page in admin.site._registry.items():
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
            where = "diagnostics" if model is SendDiagnostic else "admin"
            answer = browsers["administrator"].get(reverse(f"{name}_changelist"))
            well += answer.status_code == 200
            self.made.show(where, *_said(answer))
            for row in page.get_queryset(_request(self.world)).order_by("-pk")[:5]:
                answer = browsers["administrator"].get(reverse(f"{name}_change", args=[row.pk]))
                well += answer.status_code == 200
                self.made.show(where, *_said(answer))
        for row in self.configured:
            answer = browsers["administrator"].post(reverse("admin:evidence_connector_test", args=[row.pk]))
            self.made.show("admin", *_said(answer))
        assert well > 100, well
        token = people.issue_token(self.world.auditor, by=None, clock=system_clock)
        api = Client(raise_request_exception=False, headers={"authorization": f"Bearer {token}"})
        for path in (
            "/api/schema",
            "/api/v1/connectors",
            "/readyz",
            "/healthz",
            "/metrics",
            "/api/v1/access-log",
        ):
            self.made.show("api", *_said(api.get(path)))

    def broken(self) -> None:
        """Each connector with a secret that cannot be used, and with none."""
        for row in self.configured:
            for name in REFERENCES:
                reference = getattr(row, name)
                if reference.startswith("file:"):
                    path = self.folder / "files" / reference.removeprefix("file:")
                    path.write_text(f"{path.read_text()}\r\nX-Injected: 1\n")
                elif reference:
                    place = reference.removeprefix("env:")
                    value = os.environ[place]
                    self.patch.setenv(place, value.replace("https://", "gopher://user:pass@") + "\tand more")
        # A signed head is laid beside the database once it is committed, which this walk never is.
        self.patch.setattr(live, "reasons_against_live", lambda clock: [])
        self.made.show("broken", *connector_health.survey(system_clock()))
        request = DeliveryRequest(filters=PackageFilters(), providers=(), retries=0, timeout_s=5.0)
        self.world.acknowledged()
        try:
            done = deliveries.deliver_audit(request, by=self.world.analyst, clock=self.world.clock)
            self.made.show("broken", done)
        except Exception as error:
            self.made.show("broken", repr(error))

    def faults(self) -> None:
        """A view that fails with every secret in its hands."""
        # Of a host the whole name is secret, not a part of it.
        held = {**self.made.markers, **{f"{product}: host": host for product, host in self.hosts.items()}}

        def fail(*args: Any, **kwargs: Any) -> None:
            header = [f"Bearer {value}" for value in held.values()]
            packed = "".join(held.values()).encode()
            raise RuntimeError(f"{header} {len(packed)}")

        browser = Client(raise_request_exception=False)
        browser.force_login(self.world.auditor)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connector_health, "survey", fail)
            for debug in (False, True):
                patch.setattr(settings, "DEBUG", debug)
                for accept in ("text/html", "application/json"):
                    answer = browser.get("/console/connectors/", headers={"accept": accept})
                    assert answer.status_code == 500
                    self.made.show("faults", *_said(answer))
        try:
            fail()
        except RuntimeError:
            logging.getLogger("somebody").exception("failed with %s", list(held.values()))

    def commands(self) -> None:
        file = self.folder / "connectors.json"
        known = self.made.markers["jira: token_ref"]
        file.write_text(
            json.dumps({"siem": {"url": f"https://x.example.com/{known}", "product": known, "token": known}})
        )
        for command in (
            ("load_connectors", str(file)),
            ("verify_ledger",),
            ("check",),
            ("ledger_key", "show"),
            ("load_schedule", str(file)),
        ):
            out, err = io.StringIO(), io.StringIO()
            try:
                call_command(*command, stdout=out, stderr=err)
            except CommandError as error:
                err.write(str(error))
            self.made.show("commands", out.getvalue(), err.getvalue())

    def database(self) -> None:
        for table in connection.introspection.table_names():
            # Where sends really went is kept for a month, for administrators and auditors.
            where = "diagnostics" if table == SendDiagnostic._meta.db_table else "database"
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                for row in cursor.fetchall():
                    for value in row:
                        self.made.show(where, *unpacked(value))


def _filled(path: str, ids: dict[str, Any]) -> str:
    for name, value in ids.items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


def _said(answer: Any) -> list[str]:
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return [*unpacked(body), repr(answer.headers)]


def _request(world: World) -> Any:
    request = RequestFactory().get("/")
    request.user = world.administrator
    return request


def unpacked(value: Any) -> list[str]:
    """A value as texts: bytes decoded, archives opened."""
    if isinstance(value, memoryview):
        value = bytes(value)
    if isinstance(value, bytes) and value.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(value)) as archive:
            return [text for name in archive.namelist() for text in (name, *unpacked(archive.read(name)))]
    if isinstance(value, bytes):
        return [value.decode("utf-8", "replace")]
    return [str(value)]


# --- what is held against it ----------------------------------------------------------------------------------------

PLACES = (
    "database",
    "log",
    "pages",
    "admin",
    "api",
    "capsules",
    "exports",
    "tests",
    "broken",
    "faults",
    "commands",
)


@pytest.mark.parametrize("place", PLACES)
def test_p18_w28_no_secret_is_to_be_seen(walked: Walked, place: str) -> None:
    assert sum(map(len, walked.shown[place])) > 100
    assert walked.found(place) == []


def test_p18_diagnostics_hold_hosts_and_nothing_else(walked: Walked) -> None:
    assert {name.partition(": ")[2] for name, _ in walked.found("diagnostics")} == {"host"}


@pytest.mark.parametrize("product", list(PRODUCTS))
def test_every_product_was_sent_to_and_repeated_what_it_got(walked: Walked, product: Product) -> None:
    """Or nothing above would be proved: the receivers really had the secrets, and something of answers was kept."""
    answers = AttemptAnswer.objects.filter(attempt__case__connector__key=f"to_{product}")
    tries = Attempt.objects.filter(case__connector__key=f"to_{product}", bytes_sent__gt=0).count()
    said = "".join(answers.values_list("excerpt", flat=True))
    assert product in ("email", "syslog") or tries >= 2
    # Of a sign-in to a mail server nothing is kept, and a syslog receiver says nothing.
    assert product in ("email", "syslog") or "[redacted]" in said


def test_the_walk_reaches_every_product_and_reference(walked: Walked) -> None:
    assert {name.partition(":")[0] for name in walked.markers} >= set(PRODUCTS)
    assert {name.partition(": ")[2] for name in walked.markers} >= {
        *REFERENCES[2:],
        *("host", "path", "query", "proxy"),
    }
    assert walked.heard >= 20
    assert len(set(walked.markers.values())) == len(walked.markers)


# --- the search can find --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelled",
    (*echo.SPELLINGS, lambda said: urllib.parse.quote(said).lower(), lambda said: repr(said.encode())),
)
def test_the_search_finds_every_spelling(walked: Walked, spelled: Callable[[str], str]) -> None:
    value = "MKtest-with/odd+signs=0123456789"
    assert search({"one": value}, ["before", f"…{spelled(f'a b {value} c')}…"]) or spelled(value).islower()


def test_without_the_redactor_the_same_walk_is_found_out(
    walked: Walked, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    """The negative control: one delivery to a receiver that echoes, kept as it comes; no rule knows what it echoes."""
    monkeypatch.setattr(live, "reasons_against_live", lambda clock: [])
    monkeypatch.setattr(sender, "redact", lambda text, *args, **kwargs: text)
    token = marker("control", "token")
    monkeypatch.setenv("CONTROL", token)
    row = connector("control", receiver.url("/control"), token_ref="env:CONTROL")
    receiver.behave("/control", status=503, body=f"cannot take {token}".encode())
    walked.world.acknowledged()
    request = DeliveryRequest(filters=PackageFilters(), providers=(row.key,), retries=0, timeout_s=5.0)
    deliveries.deliver_audit(request, by=walked.world.analyst, clock=walked.world.clock)
    seen = Walked(walked.world, markers={"control": token})
    walk = Walk.__new__(Walk)
    walk.made = seen
    walk.database()
    assert [name for name, _ in seen.found("database")] == ["control"]
