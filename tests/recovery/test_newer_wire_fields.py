"""P5: what connectors of before could not say is part of what is approved as soon as they say it."""

from typing import Any

import pytest

from evidence.domain import records
from evidence.models import Connector, Record
from recovery.documents import APPROVAL_VOID
from recovery.domain.manifests import NEWER_WIRE_FIELDS
from recovery.enums import EntryState
from tests.builders import World
from tests.receiver import Receiver

pytestmark = pytest.mark.django_db

CONFIGURED, CREDENTIAL = "connector_commitment", "credential_commitment"
FIRST, SECOND = "env:CAVRA_TEST_FIRST", "env:CAVRA_TEST_SECOND"
PROXIED = {"proxy_url": "http://127.0.0.1:9", "proxy_authorization_ref": FIRST}
SIGNED = {"signing_ref": FIRST, "previous_signing_ref": FIRST}
# By connector: what it is when it is approved, what it becomes, and what differs in the manifest then.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "other_options": ({}, {"options": {"channel": "release"}}, {CONFIGURED}),
    "signing": (SIGNED, {"signing_ref": SECOND}, {CONFIGURED, CREDENTIAL}),
    "previous": (SIGNED, {"previous_signing_ref": SECOND}, {CONFIGURED, CREDENTIAL}),
    "no_previous": (SIGNED, {"previous_signing_ref": ""}, {CONFIGURED, CREDENTIAL}),
    "authority": ({}, {"ca_pem": "-----BEGIN CERTIFICATE-----"}, {CONFIGURED}),
    "proxy": ({}, {"proxy_url": "http://127.0.0.1:9"}, {CONFIGURED}),
    "other_proxy": (PROXIED, {"proxy_url": "http://127.0.0.1:8"}, {CONFIGURED}),
    "proxy_credential": (PROXIED, {"proxy_authorization_ref": SECOND}, {CONFIGURED, CREDENTIAL}),
}


def test_p5_every_newer_field_voids_the_approval(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, ref in enumerate((FIRST, SECOND)):
        monkeypatch.setenv(ref.removeprefix("env:"), f"whsec_{'QUJD' * 8}{'REVG'[number]}AAA")
    world = World(receiver, providers=("webhook", *CHANGES))
    world.failed()
    for key, (before, _, _) in CHANGES.items():
        Connector.objects.filter(key=key).update(**before)
    entries = {entry.connector.key: entry for entry in world.approved()}
    for key, (_, after, _) in CHANGES.items():
        Connector.objects.filter(key=key).update(**after)
    sent = len(receiver.log)
    world.ran()
    # The one that nobody touched, and nothing beside it.
    assert [arrived.path for arrived in receiver.log[sent:]] == ["/webhook"]
    voids = {
        said["entry_id"]: set(said["changed_fields"])
        for record in Record.objects.filter(kind=APPROVAL_VOID.name)
        if (said := records.payload_of(record))
    }
    assert voids == {entries[key].entry_id: differs for key, (_, _, differs) in CHANGES.items()}
    for key in CHANGES:
        entries[key].refresh_from_db()
        assert entries[key].state == EntryState.VOID


def test_every_newer_field_is_changed_here() -> None:
    assert {name for _, after, _ in CHANGES.values() for name in after} == set(NEWER_WIRE_FIELDS)
