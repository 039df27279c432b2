"""The statement of retries over HTTP: who may read it, which periods it takes, what its answer says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client
from jsonschema import Draft202012Validator

from evidence.enums import Role
from evidence.models import LedgerHead
from recovery.documents import EXECUTION_CLAIM
from recovery.domain import proofs
from recovery.models import Execution
from tests.builders import World, person
from tests.endpoints import client, written

PATH = "/api/v1/statements/retries"
READERS = (Role.ANALYST, Role.APPROVER, Role.OPERATOR, Role.AUDITOR, Role.ADMINISTRATOR)


def period(**ends: Any) -> dict[str, str]:
    """Yesterday to tomorrow, unless said otherwise."""
    today = datetime.now(UTC)
    chosen = {"from": today - timedelta(days=1), "to": today + timedelta(days=1), **ends}
    return {
        name: end.isoformat() if isinstance(end, datetime) else end for name, end in chosen.items() if end
    }


@pytest.mark.parametrize("role", Role)
def test_who_may_read_evidence_reads_it(db: None, role: Role) -> None:
    answer = client(person(role)).get(PATH, period())
    assert answer.status_code == (200 if role in READERS else 403)


def test_the_answer_proves_each_live_retry(world: World, settings: LazySettings) -> None:
    settings.CAVRA_PROFILE = "strict"
    world.failed()
    (entry,) = world.approved()
    world.ran()
    before = written()
    answer = client(world.auditor).get(PATH, period(nonsense="1")).json()
    assert written() == before
    execution = Execution.objects.get()
    (retry,) = answer["retries"]
    assert retry["approved_by_another_before_claim"] is True
    assert (retry["case"], retry["entry_id"], retry["outcome"]) == (
        entry.case.case_id,
        entry.entry_id,
        "delivered",
    )
    assert (retry["claim"]["id"], retry["claim"]["hash"]) == (execution.claim_id, execution.claim_hash)
    (vote,) = retry["votes"]
    assert (vote["by"], vote["person_id"]) == (world.approver.username, world.approver.person_id)
    assert vote["at"] < retry["claimed_at"]
    assert vote["record"]["hash"] == entry.votes.get().record_hash
    assert answer["lists"]["delivered"] == [execution.claim_id]
    assert answer["numbers"]["live_retries"] == len(answer["lists"]["live_retries"]) == 1
    assert answer["numbers"].keys() == answer["lists"].keys() == answer["meaning"].keys()
    assert (answer["profile"], answer["ignored_keys"]) == ("strict", ["nonsense"])
    head = LedgerHead.objects.get()
    assert (answer["ledger"]["size"], answer["ledger"]["origin"]) == (head.size, head.origin)
    assert answer["generated_at"] < answer["period"]["to"]


def test_the_answer_fits_the_document(world: World) -> None:
    world.failed()
    world.approved()
    world.ran()
    api = client(world.auditor)
    document = api.get("/api/schema", HTTP_ACCEPT="application/vnd.oai.openapi+json").json()
    described = document["paths"][PATH]["get"]
    assert [(one["name"], one["required"]) for one in described["parameters"]] == [
        ("from", True),
        ("to", True),
    ]
    for sent, status in ((period(), "200"), ({}, "400")):
        schema = described["responses"][status]["content"]["application/json"]["schema"]
        checked = Draft202012Validator({**schema, "components": document["components"]})
        assert [error.message for error in checked.iter_errors(api.get(PATH, sent).json())] == []


@pytest.mark.parametrize(
    ("ends", "fields"),
    (
        ({"from": ""}, ["from"]),
        ({"to": ""}, ["to"]),
        ({"from": "", "to": ""}, ["from", "to"]),
        ({"from": "yesterday"}, ["from"]),
        ({"to": "2026-13-01"}, ["to"]),
        ({"to": "0001-01-01T00:00:00+14:00"}, ["to"]),
        ({"from": "2026-06-02", "to": "2026-06-01"}, ["to"]),
        ({"from": "2026-06-01", "to": "2026-06-01"}, ["to"]),
        ({"from": "2026-06-01T12:00:00+02:00", "to": "2026-06-01T10:00:00Z"}, ["to"]),
    ),
)
def test_a_period_that_is_none_is_refused_by_its_field(
    world: World, ends: dict[str, str], fields: list[str]
) -> None:
    answer = client(world.auditor).get(PATH, period(**ends))
    assert (answer.status_code, sorted(answer.json()["errors"])) == (400, fields)


def test_an_end_that_is_given_twice_is_refused(world: World) -> None:
    answer = client(world.auditor).get(f"{PATH}?from=2026-06-01&from=2026-05-01&to=2026-06-02")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["from"])


def test_a_date_is_its_midnight(world: World) -> None:
    answer = client(world.auditor).get(PATH, {"from": "2026-06-01", "to": "9999-12-31"}).json()
    assert answer["period"] == {
        "from": "2026-06-01T00:00:00.000000+00:00",
        "to": "9999-12-31T00:00:00.000000+00:00",
    }
    assert set(answer["numbers"].values()) == {0}


def test_a_longer_period_is_refused_not_cut_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.failed()
    world.approved()
    world.ran()
    monkeypatch.setitem(proofs.MOST, EXECUTION_CLAIM.name, (0, "live retries"))
    answer = client(world.auditor).get(PATH, period())
    assert (answer.status_code, answer.json()["code"]) == (400, "period_too_long")
    assert list(answer.json()["errors"]) == ["to"]
    browser = Client()
    browser.force_login(world.auditor)
    for query in (period(), {"period": "month"}):
        page = browser.get("/console/statements/retries/", query)
        assert page.status_code == 400
        assert b"More than 0 live retries since from" in page.content
        # What the platform owner looks for is there all the same.
        assert b"All connectors" in page.content


def test_the_page_shows_what_the_answer_says(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    world.ran()
    browser = Client()
    browser.force_login(world.auditor)
    page = browser.get("/console/statements/retries/", period()).content.decode()
    execution = Execution.objects.get()
    (vote,) = entry.votes.all()
    for record_id, digest in (
        (execution.claim_id, execution.claim_hash),
        (execution.execution_id, execution.execution_hash),
        (vote.decision_id, vote.record_hash),
    ):
        assert f'href="/console/records/{record_id}/"' in page
        # Printed in full.
        assert f'data-full="{record_id} SHA-256 {digest}"' in page
    assert f'href="/console/cases/{entry.case.case_id}/"' in page
    assert "Every approval of this period was used" in page
    assert "None. Before each claim as many people had approved" in page
    (address,) = {part.split('"')[0] for part in page.split(f'href="{PATH}')[1:]}
    assert browser.get(PATH + address.replace("&amp;", "&")).json()["numbers"]["delivered"] == 1
    anchors = {part.split('"')[0] for part in page.split('dd><a href="#')[1:]}
    assert len(anchors) == 8
    assert all(f'id="{anchor}"' in page for anchor in anchors)


def test_an_empty_period_has_a_page_too(world: World) -> None:
    world.failed()
    world.approved()
    browser = Client()
    browser.force_login(world.auditor)
    page = browser.get("/console/statements/retries/").content.decode()
    assert "No retry was claimed in this period" in page
    assert "Still stands" in page
    anchors = {part.split('"')[0] for part in page.split('dd><a href="#')[1:]}
    assert all(f'id="{anchor}"' in page for anchor in anchors)


@pytest.mark.parametrize(
    ("query", "words"),
    (
        ({"from": "2026-06-01"}, "To, not included: This field is required."),
        ({"from": "x", "to": "2026-06-01"}, "From: Must be a time like"),
        ({"from": "2026-06-02", "to": "2026-06-01"}, "To, not included: "),
        ({"from": "2026-06-01", "to": "2026-06-01"}, "To, not included: Must be later than from."),
    ),
)
def test_the_page_says_what_is_wrong_with_a_period(world: World, query: dict[str, str], words: str) -> None:
    browser = Client()
    browser.force_login(world.auditor)
    page = browser.get("/console/statements/retries/", query)
    assert page.status_code == 400
    assert words in page.content.decode()
    assert "<title>Error: Statement of retries" in page.content.decode()
