"""P14: who read which evidence is noted beside the ledger, for auditors, for a time; reading changes nothing else."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver
from django.urls.resolvers import URLPattern, URLResolver

from evidence.domain import access, anchors, checkpoints, people
from evidence.domain.anchors import Kept
from evidence.domain.clock import system_clock
from evidence.enums import Administration, AnchorMeans, Role
from evidence.models import AccessLogEntry, LedgerHead, Person, Record
from recovery.domain import sets
from recovery.management.commands.worker import Command
from tests.builders import World, person
from tests.evidence.ledger_keys import Keys


def signed_in(who: Person) -> Client:
    client = Client()
    client.force_login(who)
    return client


def with_token(who: Person) -> Client:
    token = people.issue_token(who, by=None, clock=system_clock)
    return Client(headers={"authorization": f"Bearer {token}"})


def noted() -> list[tuple[str, str, str, str, str]]:
    rows = AccessLogEntry.objects.order_by("pk")
    return list(rows.values_list("name", "act", "subject", "subject_id", "via"))


def test_what_was_read_is_noted_once(world: World) -> None:
    (case,) = world.delivered()
    record = Record.objects.latest("index").record_id
    who = world.auditor
    reads = {
        f"/evidence/{record}": ("view", "record", record),
        f"/api/v1/records/{record}/bytes": ("download", "record", record),
        f"/api/v1/records/{record}/seal": ("download", "seal", record),
        f"/api/v1/cases/{case.case_id}": ("view", "case", case.case_id),
        "/api/v1/exports/history.csv": ("export", "history", ""),
        "/api/v1/exports/history.jsonl?q=x": ("export", "history", ""),
        "/evidence?limit=1": ("view", "history", ""),
        "/api/v1/statements/retries?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z": (
            "export",
            "statement",
            "",
        ),
        f"/console/records/{record}/": ("view", "record", record),
        f"/console/cases/{case.case_id}/": ("view", "case", case.case_id),
    }
    client = signed_in(who)
    for address in reads:
        assert client.get(address).status_code == 200, address
    assert noted() == [(who.username, *read, "session") for read in reads.values()]


def test_the_log_itself_and_proofs_are_reads_too(world: World, keys: Keys) -> None:
    keys.add()
    world.delivered()
    kept = Kept(AnchorMeans.FILE, "/mnt/heads", b"proof")
    head = checkpoints.to_hand_out(clock=system_clock)
    given = {"administered_by": Administration.US, "by": None, "clock": system_clock}
    anchor = anchors.hold(head, kept, **given)
    client = with_token(world.auditor)
    tile = f"000.p/{head.size}"
    for address in (f"/tlog/tile/entries/{tile}", f"/api/v1/ledger/anchors/{anchor.anchor_id}/proof"):
        assert client.get(address).status_code == 200, address
    assert [row[1:4] for row in noted()] == [
        ("download", "entries", tile),
        ("download", "anchor proof", anchor.anchor_id),
    ]


def test_a_set_and_a_recovery_show_evidence(world: World) -> None:
    (case,) = world.failed()
    chosen = sets.choose([case.case_id], {"state": "failed"}, by=world.analyst, clock=system_clock)
    world.playbook()
    client = signed_in(world.auditor)
    for address in (f"/console/sets/{chosen.set_id}/", "/console/recoveries/webhook/"):
        assert client.get(address).status_code == 200, address
    assert [row[1:4] for row in noted()] == [("view", "set", chosen.set_id), ("view", "recovery", "webhook")]


def test_a_token_is_told_from_a_session(world: World) -> None:
    world.announced()
    record = Record.objects.latest("index").record_id
    with_token(world.auditor).get(f"/api/v1/records/{record}/bytes")
    (row,) = AccessLogEntry.objects.all()
    assert (row.via, row.person_id, row.page) == ("token", world.auditor.person_id, "record-bytes")


def test_what_serves_no_evidence_is_not_noted(world: World) -> None:
    (case,) = world.delivered()
    client = signed_in(world.auditor)
    for address in (
        "/console/",
        "/console/cases/",
        f"/console/cases/{case.case_id}/stamp/?since=0",
        "/console/ledger/",
        "/console/connectors/",
        "/api/v1/cases",
        "/healthz",
    ):
        assert client.get(address).status_code == 200, address
    assert client.head("/evidence").status_code == 200
    assert client.get("/evidence/nothing-here").status_code == 404
    assert client.get("/evidence?limit=nine").status_code == 400
    assert signed_in(person()).get("/evidence").status_code == 403
    assert Client().get("/evidence").status_code == 401
    assert noted() == []


def test_a_page_that_asks_for_itself_is_one_read(world: World) -> None:
    """A case is asked for every second while its retry is under way."""
    (case,) = world.delivered()
    client, address = signed_in(world.auditor), f"/console/cases/{case.case_id}/"
    here = f"http://testserver{address}"
    client.get(address)
    client.get(address, headers={"HX-Request": "true", "HX-Current-URL": here})
    assert len(noted()) == 1


def test_an_unchanged_answer_is_no_second_read(world: World) -> None:
    world.announced()
    record = Record.objects.latest("index")
    client, address = signed_in(world.auditor), f"/api/v1/records/{record.record_id}/bytes"
    tag = client.get(address)["ETag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert len(noted()) == 1


def test_nothing_but_the_access_log_is_written_and_that_costs_one_statement(world: World) -> None:
    (case,) = world.delivered()
    client = signed_in(world.auditor)
    record = Record.objects.latest("index").record_id
    size = LedgerHead.objects.get().size
    for address in (
        f"/evidence/{record}",
        f"/api/v1/records/{record}/bytes",
        f"/api/v1/cases/{case.case_id}",
        "/api/v1/exports/history.csv",
        f"/console/records/{record}/",
        f"/console/cases/{case.case_id}/",
    ):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get(address)
        writes = [
            query["sql"]
            for query in queries.captured_queries
            if not query["sql"].lstrip().upper().startswith(("SELECT", "SAVEPOINT", "RELEASE"))
        ]
        assert len(writes) == 1, (address, writes)
        assert 'INSERT INTO "evidence_accesslogentry"' in writes[0]
    assert LedgerHead.objects.get().size == size


def test_a_read_is_served_although_it_cannot_be_noted(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world.announced()
    record = Record.objects.latest("index").record_id

    def locked(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("database is locked")

    monkeypatch.setattr(access, "note", locked)
    with caplog.at_level(logging.WARNING, "evidence.access_log"):
        assert signed_in(world.auditor).get(f"/evidence/{record}").status_code == 200
    (said,) = [line for line in caplog.messages if record in line]
    assert world.auditor.username in said
    assert noted() == []


def test_every_listed_address_exists() -> None:
    assert set(access.READS) - set(names(get_resolver())) == set()


def names(resolver: URLResolver, space: str = "") -> Iterator[str]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLPattern):
            yield f"{space}{pattern.name}"
        else:
            yield from names(pattern, f"{space}{pattern.namespace}:" if pattern.namespace else space)


# --- pruning ------------------------------------------------------------------------------------------------------


def read_at(days_ago: int, who: Person) -> AccessLogEntry:
    at = system_clock() - timedelta(days=days_ago)
    return access.note(
        who,
        access.READS["evidence"],
        "",
        page="evidence",
        via="session",
        clock=lambda: at,  # type: ignore[arg-type]
    )


@pytest.mark.django_db
def test_what_is_old_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "PRUNED_AT_ONCE", 2)
    who = person(Role.AUDITOR)
    kept = [read_at(days, who) for days in (500, 401, 400, 399, 1)][3:]
    assert access.prune(timedelta(days=settings.CAVRA_ACCESS_LOG_DAYS), clock=system_clock) == 3
    assert list(AccessLogEntry.objects.order_by("pk")) == kept


@pytest.mark.django_db
def test_the_command_keeps_as_many_days_as_it_is_told() -> None:
    who = person(Role.AUDITOR)
    for days in (30, 10, 1):
        read_at(days, who)
    out = StringIO()
    call_command("prune_access_log", "--days", "20", stdout=out)
    assert out.getvalue() == "1 entries removed\n"
    with pytest.raises(CommandError, match="at least a day"):
        call_command("prune_access_log", "--days", "0")


# --- reading it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def read(world: World) -> World:
    """The auditor, the analyst and the approver read records."""
    world.announced()
    first, last = Record.objects.earliest("index").record_id, Record.objects.latest("index").record_id
    for who, record in ((world.analyst, first), (world.approver, last), (world.analyst, last)):
        signed_in(who).get(f"/evidence/{record}")
    signed_in(world.analyst).get("/api/v1/exports/history.csv")
    return world


def listed(world: World, **sent: str) -> list[tuple[str, str, str]]:
    answer = signed_in(world.auditor).get("/api/v1/access-log", sent)
    assert answer.status_code == 200, answer.content
    return [(one["name"], one["act"], one["subject_id"]) for one in answer.json()["items"]]


def test_auditors_find_who_read_what(read: World) -> None:
    ann, amy = read.analyst.username, read.approver.username
    first, last = Record.objects.earliest("index").record_id, Record.objects.latest("index").record_id
    assert listed(read) == [
        (ann, "export", ""),
        (ann, "view", last),
        (amy, "view", last),
        (ann, "view", first),
    ]
    assert listed(read, person=amy) == listed(read, person=read.approver.person_id) == [(amy, "view", last)]
    assert listed(read, subject=last) == [(ann, "view", last), (amy, "view", last)]
    assert listed(read, act="export") == listed(read, subject="history") == [(ann, "export", "")]
    assert listed(read, before="2026-01-01T00:00:00Z") == []
    assert len(listed(read, after="2026-01-01T00:00:00Z")) == 4


def test_it_is_paged(read: World) -> None:
    client = signed_in(read.auditor)
    first = client.get("/api/v1/access-log", {"limit": "3"}).json()
    rest = client.get("/api/v1/access-log", {"limit": "3", "cursor": first["cursor"]}).json()
    assert [len(first["items"]), len(rest["items"]), rest["cursor"]] == [3, 1, None]
    assert first["total"] == 4
    assert client.get("/api/v1/access-log", {"cursor": "x"}).status_code == 400
    assert client.get("/api/v1/access-log", {"act": "steal"}).status_code == 400


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.AUDITOR])
def test_nobody_else_reads_it(world: World, role: Role) -> None:
    client = signed_in(person(role))
    assert client.get("/api/v1/access-log").status_code == 403
    assert client.get("/console/access-log/").status_code == 403


def test_the_page_shows_it(read: World) -> None:
    client = signed_in(read.auditor)
    page = client.get("/console/access-log/").content.decode()
    assert page.count("<tr role") == 1 + 4
    assert "4 reads" in page
    assert page.count('type="datetime-local"') == 2
    since = {"after": f"{system_clock() - timedelta(hours=1):%Y-%m-%dT%H:%M}"}
    found = client.get("/console/access-log/", since).content.decode()
    assert "4 fit the filters" in found
    assert f'value="{since["after"]}"' in found
    page = client.get("/console/access-log/", {"person": read.approver.username}).content.decode()
    assert page.count("<tr role") == 1 + 1
    assert "Nobody" in client.get("/console/access-log/", {"subject": "gordn-0"}).content.decode()
    assert client.get("/console/access-log/", {"act": "steal"}).status_code == 400


def test_the_worker_forgets_what_is_old(world: World) -> None:
    read_at(settings.CAVRA_ACCESS_LOG_DAYS + 1, world.auditor)
    kept = read_at(1, world.auditor)
    worker = Command()
    worker.idle_since = {}
    steps = worker.steps()
    assert [steps["access log"](), steps["access log"](), steps["retention"]()] == [1, 0, 0]
    assert list(AccessLogEntry.objects.all()) == [kept]
    # With nothing to do it looks again after an hour only.
    read_at(settings.CAVRA_ACCESS_LOG_DAYS + 1, world.auditor)
    assert steps["access log"]() == 0
