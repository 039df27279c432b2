"""Where a send really went: kept beside the attempt for thirty days, for administrators and auditors, in no record."""

import re
import zipfile
from datetime import timedelta
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from django.test import Client

from evidence.connectors.specs import Diagnostics
from evidence.domain import canaries, capsules, diagnostics, erasures, holds, people
from evidence.domain.clock import system_clock
from evidence.models import AccessLogEntry, AttemptAnswer, Case, Connector, Person, Record, SendDiagnostic
from recovery.management.commands.worker import Command
from tests.builders import Clock, World, connector
from tests.evidence.ledger_keys import Keys
from tests.evidence.test_access_log import signed_in

pytestmark = pytest.mark.django_db


def names_port(page: bytes, port: int) -> bool:
    """Whether it stands there as a number: ids, digests and tokens may have the same digits in them."""
    return re.search(rb"\b%d\b" % port, page) is not None


def says_port(text: bytes, port: int | None) -> bool:
    """Whether it stands behind a colon: digests may have the same digits in them."""
    return re.search(rb":\s*%d\b" % port, text) is not None


def port_of(world: World) -> int:
    port = urlsplit(world.receiver.url("/")).port
    assert port is not None
    return port


def test_it_is_written_with_the_attempt(world: World) -> None:
    (case,) = world.failed()
    (kept,) = diagnostics.of_case(case)
    attempt = case.attempts.get()
    assert (kept.attempt, kept.connector) == (attempt, case.connector)
    assert (kept.host, kept.address, kept.port) == ("127.0.0.1", "127.0.0.1", port_of(world))
    assert (kept.through_proxy, kept.tls_version, kept.certificate_sha256, kept.tls_ms) == (
        False,
        "",
        "",
        None,
    )
    assert 0 <= kept.first_byte_ms <= kept.total_ms
    assert kept.keep_until - kept.at == timedelta(days=30)


def test_a_retry_has_its_own(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    world.ran()
    assert [kept.attempt.number for kept in diagnostics.of_case(case)] == [1, 2]


def test_a_refused_address_is_kept_and_what_was_never_tried_is_not(world: World) -> None:
    elsewhere = connector("elsewhere", world.receiver.url("/elsewhere"))
    elsewhere.allow_networks = []
    elsewhere.save()
    connector("keyless", world.receiver.url("/keyless"), token_ref="env:NOBODY_SET_THIS")
    blocked, keyless = world.delivered("elsewhere", "keyless")
    (kept,) = diagnostics.of_case(blocked)
    assert (kept.address, kept.connect_ms, kept.first_byte_ms) == ("127.0.0.1", None, None)
    assert keyless.attempts.get().failure_class == "auth_setup"
    assert not diagnostics.of_case(keyless).exists()


def test_p18_no_record_says_where_it_went(world: World) -> None:
    world.failed()
    bodies = b"".join(bytes(record.body) for record in Record.objects.all())
    assert not says_port(bodies, SendDiagnostic.objects.get().port)
    assert b"127.0.0.1" not in bodies
    assert "127.0.0.1" not in repr(Diagnostics(host="127.0.0.1", address="127.0.0.1"))


@pytest.mark.parametrize(
    ("part", "sees"),
    (
        ("auditor", True),
        ("administrator", True),
        ("analyst", False),
        ("approver", False),
        ("operator", False),
    ),
)
def test_administrators_and_auditors_see_it_and_nobody_else(world: World, part: str, sees: bool) -> None:
    (case,) = world.failed()
    port = SendDiagnostic.objects.get().port
    client = signed_in(getattr(world, part))
    page = client.get(f"/console/cases/{case.case_id}/").content
    address = f"/console/cases/{case.case_id}/connections/"
    assert (address.encode() in page) is sees
    assert not names_port(page, port)
    for headers in ({}, {"HX-Request": "true"}):
        answer = client.get(address, headers=headers)
        assert answer.status_code == (200 if sees else 403)
        assert names_port(answer.content, port) is sees


def test_a_part_of_the_page_is_a_part(world: World) -> None:
    (case,) = world.failed()
    client = signed_in(world.auditor)
    address = f"/console/cases/{case.case_id}/connections/"
    assert b"<html" in client.get(address).content
    part = client.get(address, headers={"HX-Request": "true"}).content
    assert b"<html" not in part
    assert b'id="connections"' in part


def test_who_looked_is_noted(world: World) -> None:
    (case,) = world.failed()
    kept = SendDiagnostic.objects.get()
    signed_in(world.auditor).get(f"/console/cases/{case.case_id}/connections/")
    admin = signed_in(world.administrator)
    assert admin.get("/admin/evidence/senddiagnostic/").status_code == 200
    page = admin.get(f"/admin/evidence/senddiagnostic/{kept.pk}/change/")
    assert b"127.0.0.1" in page.content
    assert b"_save" not in page.content
    noted = list(AccessLogEntry.objects.order_by("pk").values_list("name", "subject", "subject_id"))
    assert noted == [
        (world.auditor.username, "connections", case.case_id),
        (world.administrator.username, "connection row", str(kept.pk)),
    ]


def test_the_list_in_the_admin_names_no_host(world: World) -> None:
    world.failed()
    SendDiagnostic.objects.update(host="hooks.example")
    page = signed_in(world.administrator).get("/admin/evidence/senddiagnostic/").content
    assert b"hooks.example" not in page
    assert b"127.0.0.1" not in page


def reader(who: Person) -> Client:
    token = people.issue_token(who, by=None, clock=system_clock)
    return Client(headers={"authorization": f"Bearer {token}"})


def test_the_api_and_capsules_do_not_have_it(world: World, keys: Keys) -> None:
    keys.add()
    (case,) = world.failed()
    SendDiagnostic.objects.update(host="hooks.example", certificate_sha256="ab" * 32)
    client = reader(world.auditor)
    texts = {}
    for address in (f"/api/v1/cases/{case.case_id}", "/api/v1/exports/history.jsonl", "/evidence?limit=50"):
        answer = client.get(address)
        assert answer.status_code == 200
        texts[address] = b"".join(answer) if answer.streaming else answer.content
    capsule = capsules.freeze(case, by=world.auditor, clock=system_clock)
    with zipfile.ZipFile(BytesIO(bytes(capsule.content or b""))) as archive:
        texts |= {name: archive.read(name) for name in archive.namelist()}
    assert len(texts) > 10
    for place, text in texts.items():
        assert not any(marker in text for marker in (b"hooks.example", b"abababab")), place
        assert not says_port(text, port_of(world)), place


def test_it_goes_after_thirty_days_and_what_the_receiver_said_with_it(world: World) -> None:
    (case,) = world.failed()
    assert SendDiagnostic.objects.count() == AttemptAnswer.objects.count() == 1
    clock = Clock(system_clock() + timedelta(days=29))
    assert diagnostics.prune(clock=clock) == 0
    clock.forward(days=1, minutes=1)
    assert diagnostics.prune(clock=clock) == 2
    assert not SendDiagnostic.objects.exists()
    assert not AttemptAnswer.objects.exists()
    assert Case.objects.get(pk=case.pk).attempts.count() == 1
    page = signed_in(world.auditor).get(f"/console/cases/{case.case_id}/connections/")
    assert b"Nothing is kept" in page.content


@pytest.mark.parametrize("scope", ("everything", "case", "record", "package", "plan"))
def test_p24_a_legal_hold_keeps_what_the_receiver_said(world: World, scope: str) -> None:
    (case,) = world.failed()
    held = {
        "everything": "*",
        "case": case.case_id,
        "record": case.attempts.get().record_id,
        "package": case.package.audit_id,
        "plan": case.plan.delivery_id,
    }[scope]
    hold = holds.place(held, reason="court", by=world.auditor, clock=system_clock)
    later = Clock(system_clock() + timedelta(days=31))
    assert diagnostics.prune(clock=later) == 1
    assert AttemptAnswer.objects.count() == 1
    holds.lift(hold, reason="over", by=world.auditor, clock=system_clock)
    assert diagnostics.prune(clock=later) == 1


def test_the_worker_prunes(world: World) -> None:
    world.failed()
    for model in (SendDiagnostic, AttemptAnswer):
        model._default_manager.update(keep_until=system_clock() - timedelta(seconds=1))
    worker = Command()
    worker.idle_since = {}
    steps = worker.steps()
    assert [steps["diagnostics"](), steps["diagnostics"]()] == [2, 0]
    assert not SendDiagnostic.objects.exists()
    assert not AttemptAnswer.objects.exists()


def test_a_canary_has_one_without_an_attempt(world: World) -> None:
    canaries.send(Connector.objects.get(), by=world.administrator, clock=system_clock)
    kept = SendDiagnostic.objects.get()
    assert (kept.attempt, kept.connector.key, kept.port) == (None, "webhook", port_of(world))
    assert str(kept).startswith("webhook at ")


def test_p24_it_is_emptied_with_the_record_of_its_attempt(world: World) -> None:
    world.delivered()
    kept = SendDiagnostic.objects.get()
    assert (kept.host, kept.address) == ("127.0.0.1", "127.0.0.1")
    record_id = kept.attempt.record_id
    proposal = erasures.propose([record_id], "law", "asked", by=world.administrator, clock=system_clock)
    erasures.confirm(proposal, by=world.auditor, clock=system_clock)
    kept.refresh_from_db()
    assert (kept.host, kept.address) == ("", "")
