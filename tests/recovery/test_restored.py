"""What ends with the epoch of a restored database, and what is said of attempts that may have been made (P25)."""

from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from evidence.documents import DELIVERY_PLAN
from evidence.domain import deliveries, epochs, packages, records
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, Role
from evidence.errors import Conflict, StaleState
from evidence.models import Case, Connector, LedgerHead, Record
from recovery.documents import APPROVAL_VOID, EPOCH_EFFECTS, EXECUTION_RECORD
from recovery.domain import approvals, renewals, sets
from recovery.domain.approvals import Ballot
from recovery.enums import ApprovalState, EntryState, ExecutionState, RunState, SkipCode
from recovery.execution import claims, outcomes, restored, runs
from recovery.execution.claims import Skipped
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, PossibleAttempt, WorkerRun
from tests.builders import World, person
from tests.heads import data_of_its_own, lay_outside
from tests.processes import together


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data_of_its_own(monkeypatch, tmp_path)


def new_epoch(world: World) -> Record:
    """An administrator proposes, an auditor confirms."""
    lay_outside(ahead=20)
    proposal = epochs.propose(reason="backup of 10:00", by=world.administrator, clock=world.clock)
    return epochs.confirm(proposal, by=world.auditor, clock=world.clock)


def payloads(kind: str) -> list[dict[str, Any]]:
    rows = Record.objects.filter(kind=kind).order_by("index")
    return [records.load(row.body)["payload"] for row in rows if row.body is not None]


def test_p25_open_approvals_are_void_and_asked_for_again_in_the_new_epoch(world: World) -> None:
    (case,) = world.failed(status=401)  # What is refused so has not arrived.
    (old,) = world.approved()
    sent = len(world.receiver.log)
    genesis = new_epoch(world)
    old.refresh_from_db()
    assert old.state == EntryState.VOID
    (void,) = payloads(APPROVAL_VOID.name)
    assert (void["entry_id"], void["changed_fields"]) == (old.entry_id, ["epoch"])
    # The entry of the log says that it is the new log's.
    assert Record.objects.get(kind=APPROVAL_VOID.name).index > genesis.index
    assert world.ran().outcome.recorded == []
    (new,) = world.approved()
    # Also to who decides about many at once.
    assert [group.may_have_arrived for group in sets.groups([new])] == [True]
    assert [group.may_have_arrived for group in sets.groups([old])] == [False]
    manifest = records.load(new.manifest)
    possible = PossibleAttempt.objects.get(case=case)
    assert (manifest["epoch"], records.load(old.manifest)["epoch"]) == (2, 1)
    assert manifest["possible"] == [
        {
            "epoch": 2,
            "since": records.timestamp(possible.since),
            "until": records.timestamp(possible.until),
            "record_id": possible.record_id,
            "record_hash": possible.record_hash,
        }
    ]
    assert world.ran().outcome.recorded[0].receipt.delivered
    assert len(world.receiver.log) == sent + 1


def test_p25_a_manifest_of_the_old_epoch_is_void_whatever_its_row_says(world: World) -> None:
    """An expired request cannot be renewed into the new epoch."""
    world.failed()
    (entry,) = world.requested()
    ApprovalEntry.objects.filter(pk=entry.pk).update(state=EntryState.EXPIRED)
    new_epoch(world)
    entry = approvals.entries().get(pk=entry.pk)
    with pytest.raises(Conflict):
        renewals.renew(
            [entry], Ballot(state=ApprovalState.APPROVED), by=world.second_approver, clock=world.clock
        )
    entry.refresh_from_db()
    assert entry.state == EntryState.VOID


@pytest.mark.tampers  # what is under way here ends as unknown; the receiver never heard of it
def test_p25_what_was_under_way_is_unknown_and_runs_end(two: World) -> None:
    world = two
    world.failed("webhook")
    claimed = world.taken(world.approved()[-1])
    world.acknowledged()
    package = packages.freeze(PackageFilters(), by=world.analyst, clock=world.clock).package
    backup = Connector.objects.get(key="backup")
    opened = deliveries.open_plan(
        package, [backup], DeliveryRequest(filters=PackageFilters()), by=world.analyst, clock=world.clock
    )
    queued = runs.start(RunRequest(dry_run=False, background=True), by=world.operator, clock=world.clock).run
    new_epoch(world)
    claimed.execution.refresh_from_db()
    assert claimed.execution.state == ExecutionState.UNKNOWN
    assert set(Case.objects.values_list("state", flat=True)) == {CaseState.UNKNOWN}
    assert {attempt.outcome for case in opened.cases for attempt in case.attempts.all()} == {
        "outcome_unknown"
    }
    assert set(WorkerRun.objects.values_list("state", flat=True)) == {RunState.FINISHED}
    (effects,) = payloads(EPOCH_EFFECTS.name)
    assert (effects["case_count"], effects["given_up_count"], effects["voided_count"]) == (2, 2, 0)
    assert queued.run_id in effects["ended_run_ids"]
    (said,) = [one for one in payloads(EXECUTION_RECORD.name) if one["execution_status"] == "outcome_unknown"]
    assert said["may_have_arrived"]
    # Nothing is left for the worker, and a late answer is still taken.
    assert outcomes.expire_leases(clock=world.clock) == deliveries.expire_leases(clock=world.clock) == 0
    assert not runs.execute_due(clock=world.clock)


def test_p25_cases_are_named_in_parts_and_settled_ones_are_not(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restored, "PART", 2)
    world = two
    (settled,) = world.delivered("webhook")
    cases = [case for _ in range(2) for case in world.failed("webhook", "backup")]
    world.requested()
    new_epoch(world)
    effects = payloads(EPOCH_EFFECTS.name)
    assert [(one["part"], one["part_count"], one["case_count"]) for one in effects] == [(1, 2, 4), (2, 2, 4)]
    assert effects[0]["voided_count"] == 4
    marked = set(PossibleAttempt.objects.values_list("case__case_id", flat=True))
    assert marked == {case.case_id for case in cases}
    assert settled.case_id not in marked


def test_p25_everybody_reads_that_an_attempt_may_have_been_made(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    new_epoch(world)
    browser = Client()
    browser.force_login(world.approver)
    address = f"/console/cases/{case.case_id}/"
    assert "The database was restored. An attempt may have been made" in browser.get(address).content.decode()
    world.requested()
    page = browser.get(address).content.decode()
    assert "Perhaps sent" in page
    assert "Approving sends again, knowingly." in page


@pytest.mark.parametrize("live", (True, False))
def test_p25_no_live_run_starts_with_a_database_that_was_set_back(world: World, live: bool) -> None:
    world.failed()
    world.approved()
    lay_outside()
    if not live:
        assert world.ran(dry_run=True).run.state == RunState.FINISHED
        return
    with pytest.raises(Conflict) as refused:
        world.ran()
    assert refused.value.code == "ledger_behind"
    assert not WorkerRun.objects.exists()


def test_p25_the_page_refuses_a_live_run_with_the_same_words(world: World) -> None:
    (case,) = world.failed()
    world.approved()
    lay_outside()
    browser = Client()
    browser.force_login(world.operator)
    for address in ("/console/runs/", f"/console/cases/{case.case_id}/"):
        page = browser.get(address).content.decode()
        # Above the page, and beside the button that it stands against.
        assert page.count("This database is not the one that was worked with last.") >= 2


def test_p25_a_run_that_was_started_before_claims_nothing(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    run = runs.start(RunRequest(dry_run=False), by=world.operator, clock=world.clock).run
    lay_outside()
    skip = claims.claim(entry.pk, run, clock=world.clock)
    assert isinstance(skip, Skipped)
    assert (skip.code, skip.record is not None) == (SkipCode.LEDGER_BEHIND, True)
    assert not Execution.objects.exists()


def test_p25_no_first_delivery_either(world: World) -> None:
    world.announced()
    lay_outside()
    before = len(world.receiver.log)
    with pytest.raises(Conflict) as refused:
        world.delivered()
    assert refused.value.code == "ledger_behind"
    assert (Case.objects.count(), len(world.receiver.log)) == (0, before)


def test_p25_content_of_the_old_epoch_is_not_silently_sent_as_if_for_the_first_time(world: World) -> None:
    """It may have left after the backup: the case went with the lost entries."""
    world.announced()
    world.acknowledged()
    new_epoch(world)
    before = len(world.receiver.log)
    browser = Client()
    browser.force_login(world.analyst)
    form = {"schedule_id": "", "provider": "", "owner": "", "delivery_providers": ["webhook"]}
    assert "despite_lost_entries" not in browser.get("/console/deliver/").content.decode()
    page = browser.post("/console/deliver/audit/", form)
    assert page.status_code == 409
    assert "may have been lost with what followed the backup" in page.content.decode()
    assert "despite_lost_entries" in page.content.decode()
    assert (Case.objects.count(), len(world.receiver.log)) == (0, before)
    request = DeliveryRequest(filters=PackageFilters())
    with pytest.raises(Conflict) as refused:
        deliveries.deliver_audit(request, by=world.analyst, clock=world.clock)
    assert refused.value.code == "possibly_sent"
    browser.post("/console/deliver/audit/", {**form, "despite_lost_entries": "on"})
    (plan,) = payloads(DELIVERY_PLAN.name)
    assert plan["possibly_sent_providers"] == ["webhook"]
    assert len(world.receiver.log) == before + 1
    # What is answered in the new epoch is new.
    world.acknowledged()
    done = deliveries.deliver_audit(request, by=world.analyst, clock=world.clock)
    assert payloads(DELIVERY_PLAN.name)[-1]["possibly_sent_providers"] == []
    assert done.success


def test_p25_planning_and_deciding_go_on(world: World) -> None:
    """Nothing leaves; what people do about the failures is theirs to go on with."""
    world.failed()
    lay_outside()
    (entry,) = world.approved()
    assert entry.state == EntryState.APPROVED
    browser = Client()
    browser.force_login(person(Role.AUDITOR))
    assert browser.get("/console/cases/").status_code == 200


def test_p10_a_claim_s_lease_and_its_new_epoch_exclude_each_other(world: World) -> None:
    """A late answer of what was given up is taken as one."""
    claimed = world.claimed()
    new_epoch(world)
    with pytest.raises(StaleState):
        outcomes.record([(claimed.execution.pk, _other_receipt())], clock=world.clock)


def _other_receipt() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(token="another claim's", answer="answered")


@pytest.mark.race
def test_p25_of_two_who_confirm_at_once_one_does(committed: World) -> None:
    world = committed
    world.failed()
    world.approved()
    other = person(Role.AUDITOR)
    proposal = epochs.propose(
        reason="backup of 10:00", by=world.administrator, clock=world.clock, although_not_behind=True
    )
    ended = together(
        lambda: epochs.confirm(proposal, by=world.auditor, clock=world.clock),
        lambda: epochs.confirm(proposal, by=other, clock=world.clock),
        lambda: world.ran(),
    )
    refused = [one for one in ended if isinstance(one, Conflict)]
    assert [one.code for one in refused] == ["proposal_ended"]
    assert [one for one in ended if isinstance(one, Exception) and one not in refused] == []
    assert LedgerHead.objects.get().epoch == 2
    # The run either had sent before, or found nothing to send: never both void and sent.
    sent = Execution.objects.exclude(state=ExecutionState.NOT_SENT).count()
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == 1 - sent
