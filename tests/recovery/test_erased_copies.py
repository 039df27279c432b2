"""P24: a whole chain can be erased: no page, proof or export breaks, and no table keeps what the records said."""

import csv
from datetime import timedelta

import pytest
from django.test import Client

from evidence.domain import erasures, exports, history, records, verification
from evidence.domain.history import Query
from evidence.errors import Conflict
from evidence.models import Case, Person, Record
from recovery.documents import APPROVAL_DECISION, EXECUTION_RECORD
from recovery.domain import proofs
from recovery.enums import DispositionKind, Seen
from recovery.models import ApprovalEntry, Attestation, Disposition
from tests.builders import World

# What the receiver got is compared with records of which some are erased here; the ledger is verified below.
pytestmark = pytest.mark.tampers


def erase(world: World, *found: Record) -> None:
    """Everything of ``found`` that may go, in as many erasures as it takes."""
    free = [record for record in found if record.index not in erasures.reasons_against_erasing(found)]
    assert free
    for start in range(0, len(free), erasures.MOST):
        ids = [record.record_id for record in free[start : start + erasures.MOST]]
        erasure = erasures.propose(ids, "law", "asked for", by=world.administrator, clock=world.clock)
        erasures.confirm(erasure, by=world.auditor, clock=world.clock)
    assert list(verification.verify()) == []


def everything() -> list[Record]:
    return list(Record.objects.order_by("index"))


@pytest.fixture
def retried(world: World) -> Case:
    """A case that an approved retry delivered, with a playbook and a closed recovery."""
    (case,) = world.failed()
    world.approved()
    playbook = world.playbook()
    world.ran()
    execution = Record.objects.filter(kind=EXECUTION_RECORD.name).latest("index")
    world.closed(playbook, case.connector.key, (execution.record_id,))
    case.refresh_from_db()
    assert case.settled_at
    return case


def test_pages_and_files_show_an_erased_chain(world: World, retried: Case) -> None:
    erase(world, *everything())
    client = signed_in(world.auditor)
    for address in (
        "/console/",
        "/console/?include=all",
        f"/console/cases/{retried.case_id}/",
        "/console/recoveries/",
        f"/console/recoveries/{retried.connector.key}/",
        "/console/runs/",
        "/console/approvals/",
        "/console/statements/retries/",
        "/console/routes/",
        f"/console/find/?q={retried.plan.delivery_id[:20]}",
        "/evidence?limit=500",
        f"/api/v1/cases/{retried.case_id}",
        "/runtime/go-pilot/rollback-drill-notifications?include=all",
        "/runtime/go-pilot/rollback-drill-notifications/dashboard",
        "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery/worker-runs",
        "/runtime/go-pilot/rollback-drill-notifications/acknowledgements/audit-delivery/worker-dashboard",
    ):
        assert client.get(address).status_code == 200, address
    for record in Record.objects.filter(body__isnull=True):
        assert client.get(f"/console/records/{record.record_id}/").status_code == 200
        assert client.get(f"/api/v1/records/{record.record_id}/bytes").status_code == 410
        assert client.get(f"/api/v1/records/{record.record_id}/seal").status_code == 200
        assert client.get(f"/evidence/{record.record_id}").json()["erased"] is True
    found = history.page(Query(everything=True), limit=500).records
    rows = csv.DictReader(b"".join(exports.csv_rows(found, profile="strict")).decode().splitlines())
    gone = {row["session_id"] for row in rows if row["erased_at"] and row["erasure_id"]}
    assert gone == {record.record_id for record in found if record.body is None}
    assert b"".join(exports.json_lines(found, profile="strict"))


def signed_in(who: Person) -> Client:
    client = Client()
    client.force_login(who)
    return client


def test_a_statement_says_what_it_cannot_read_any_more(world: World, retried: Case) -> None:
    since, until = world.clock() - timedelta(days=1), world.clock() + timedelta(days=1)
    before = proofs.retries(since, until, at=until).numbers
    assert (before["live_retries"], before["approved_by_another_before_claim"]) == (1, 1)
    erase(world, *everything())
    after = proofs.retries(since, until, at=until)
    assert after.numbers["live_retries"] == 1
    assert after.numbers["approval_not_readable"] == 1
    assert after.numbers["not_so_approved"] == 0
    assert after.numbers["outcome_not_readable"] == 1
    (retry,) = after.as_dict(profile="strict")["retries"]
    assert (retry["case"], retry["provider"]) == (retried.case_id, retried.connector.key)


def test_an_erased_vote_leaves_the_question_open(world: World, retried: Case) -> None:
    """Neither yes nor no: what the claim quotes is still found by its id."""
    vote = Record.objects.get(kind=APPROVAL_DECISION.name)
    erase(world, vote)
    since, until = world.clock() - timedelta(days=1), world.clock() + timedelta(days=1)
    numbers = proofs.retries(since, until, at=until).numbers
    assert (numbers["approval_not_readable"], numbers["not_so_approved"]) == (1, 0)


def test_the_approved_bytes_go_with_the_package(world: World, retried: Case) -> None:
    entry = ApprovalEntry.objects.get(case=retried)
    assert bytes(entry.body)
    erase(world, Record.objects.get(record_id=retried.package.audit_id))
    entry.refresh_from_db()
    assert bytes(entry.body) == b""
    assert records.load(entry.manifest)["payload"]["sha256"]
    assert signed_in(world.auditor).get(f"/console/cases/{retried.case_id}/").status_code == 200


def test_what_people_wrote_beside_a_case_goes(world: World) -> None:
    claimed = world.unknown()
    case = claimed.execution.case
    world.attested(case, Seen.NOT_DELIVERED, world.approver, world.second_analyst)
    case.refresh_from_db()
    world.disposed(case, DispositionKind.ABANDONED)
    erase(world, *everything())
    assert {(row.external_ref, row.notes) for row in Attestation.objects.all()} == {("", "")}
    assert {(row.reason, row.external_ref) for row in Disposition.objects.all()} == {("", "")}


def test_an_unfinished_recovery_keeps_its_playbook(world: World) -> None:
    (case,) = world.failed()
    playbook = world.playbook()
    world.disposed(case)
    with pytest.raises(Conflict) as refusal:
        erasures.propose(
            [playbook.playbook_id], "law", "asked for", by=world.administrator, clock=world.clock
        )
    assert refusal.value.code == "recovery_open"
