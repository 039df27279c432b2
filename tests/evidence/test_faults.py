"""Faults of the reference implementation, W16 to W24: shown to be absent through the doors that people use.

What a rule says in detail is tested beside the rule; here each fault has one story of its own.
"""

import hashlib
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from evidence.domain import ledger, records
from evidence.enums import RouteState
from evidence.models import Person, Record
from tests.builders import World
from tests.endpoints import client, written
from tests.evidence.rows import draft
from tests.http import A, B
from tests.processes import together
from tests.receiver import Receiver
from tests.tamper import rebuild_from, stolen_login, verified

NOW = {"allow_immediate_retry": True}
# More than the reference ever looks back.
BEYOND_ITS_WINDOW = 600


def post(who: Person, path: str, body: Any, expect: int = 200) -> Any:
    answer = client(who).post(path, body, format="json")
    assert answer.status_code == expect, answer.json()
    return answer.json()


def get(who: Person, path: str, expect: int = 200, **query: Any) -> Any:
    answer = client(who).get(path, query)
    assert answer.status_code == expect, answer.content
    return answer.json()


def crowd(number: int, world: World) -> None:
    """So many newer records about something else."""
    at = world.clock() + timedelta(seconds=1)
    with transaction.atomic():
        ledger.append([draft(at=at) for _ in range(number)])


# --- W16 to W20: records ------------------------------------------------------------------------------------------


def test_w16_the_same_content_again_is_the_same_record_untouched(world: World) -> None:
    """The reference overwrites a package that is posted again, its time with it."""
    world.announced()
    world.acknowledged()
    path = f"{B}/acknowledgements/audit-package"
    first = post(world.analyst, path, {})
    audit_id = first["metadata"]["session_id"]
    stored = bytes(Record.objects.get(record_id=audit_id).body or b"")
    before = written()
    again = post(world.second_analyst, path, {})
    assert again["existing"] is True
    assert again["metadata"] == first["metadata"]
    assert bytes(Record.objects.get(record_id=audit_id).body or b"") == stored
    assert written() == before
    # Plans have no content of their own: another plan is another record, the first one stays.
    world.failed()
    plans = [post(world.analyst, f"{A}/retry-plan", {"retry_policy": NOW})["plan"] for _ in range(2)]
    assert len({plan["retry_plan_id"] for plan in plans}) == 2
    for plan in plans:
        assert get(world.auditor, f"/evidence/{plan['retry_plan_id']}")


def test_w17_every_word_of_a_record_is_covered_and_a_changed_one_is_named(world: World) -> None:
    """Notes and references too: what the reference's hashes leave out."""
    world.announced()
    route = {
        "provider": "webhook",
        "acknowledgement_state": "acknowledged",
        "notes": "seen",
        "external_ref": "INC-1",
    }
    post(world.analyst, f"{B}/{world.schedule.schedule_id}/acknowledgements", route)
    record = Record.objects.filter(kind__endswith="notification-ack").latest("index")
    answer = client(world.auditor).get(f"/api/v1/records/{record.record_id}/bytes")
    body = b"".join(answer) if answer.streaming else answer.content
    shown = get(world.auditor, f"/evidence/{record.record_id}")
    assert hashlib.sha256(body).hexdigest() == record.digest
    assert record.digest in str(shown)
    assert verified()[2] == 0
    for changed in ({"notes": "never seen"}, {"external_ref": "INC-2"}):
        document = records.load(body)
        document["payload"] |= changed
        with transaction.atomic():
            with stolen_login():
                Record.objects.filter(pk=record.pk).update(body=records.canonical(document))
            _, error, code = verified()
            assert (code, error.startswith(f"entry {record.index} ({record.record_id}): body digest")) == (
                1,
                True,
            )
            transaction.set_rollback(True)
    # Whoever makes everything in the log anew has rows that say otherwise.
    document = records.load(body)
    document["payload"]["notes"] = "never seen"
    with stolen_login():
        rebuild_from(record.index, document)
    _, error, code = verified()
    assert (code, "acknowledgement_hash: expected" in error) == (1, True)


def test_w18_what_is_named_is_looked_up(world: World) -> None:
    world.announced()
    asks: list[tuple[Person, str, dict[str, Any]]] = [
        (
            world.analyst,
            f"{B}/nowhere/acknowledgements",
            {"provider": "webhook", "acknowledgement_state": "resolved"},
        ),
        (world.analyst, f"{A}/retry-plan", {"retry_policy": NOW, "cases": ["gordackdelivery-0.webhook"]}),
        (
            world.analyst,
            f"{A}/retry-plans/gordackretry-0/acknowledgements",
            {"provider": "webhook", "acknowledgement_state": "accepted"},
        ),
        (
            world.approver,
            f"{A}/retry-execution-approval-plans/gordackretryapproval-0/decisions",
            {
                "provider": "webhook",
                "delivery_id": "gordackdelivery-0",
                "audit_id": "gordackaudit-0",
                "approval_state": "approved",
            },
        ),
        (
            world.analyst,
            f"{A}/connector-recovery-playbooks/gordackrecovery-0/closures",
            {"provider": "webhook", "closure_state": "resolved"},
        ),
        (world.auditor, "/api/v1/cases/gordackdelivery-0.webhook/capsules", {}),
    ]
    before = written()
    for who, path, body in asks:
        assert post(who, path, body, expect=404)["detail"], path
    for path in ("/evidence/gordack-0", "/api/v1/cases/none", "/api/v1/records/gordack-0/bytes"):
        get(world.auditor, path, expect=404)
    assert written() == before


def test_w19_what_is_said_at_once_is_all_there(transactional_db: None, receiver: Receiver) -> None:
    """The reference reads everything, appends and writes: of two at once one is lost."""
    world = World(receiver)
    world.announced()
    path = f"{B}/{world.schedule.schedule_id}/acknowledgements"
    notes = [f"answer {number}" for number in range(8)]
    answers = together(
        *(
            lambda note=note: post(
                world.analyst,
                path,
                {"provider": "webhook", "acknowledgement_state": "acknowledged", "notes": note},
            )
            for note in notes
        )
    )
    assert all(isinstance(answer, dict) for answer in answers), answers
    said = [records.payload_of(record) for record in Record.objects.filter(kind__endswith="notification-ack")]
    assert sorted(one["notes"] for one in said if one) == notes
    assert verified()[2] == 0


def test_w20_a_request_that_is_refused_halfway_leaves_nothing(world: World) -> None:
    world.announced()
    before = written()
    right = {"schedule_id": world.schedule.schedule_id, "provider": "webhook"}
    body = {"routes": [right, {**right, "provider": "nowhere"}], "acknowledgement_state": "acknowledged"}
    post(world.analyst, f"{B}/acknowledgements/bulk", body, expect=404)
    post(world.analyst, A, {"provider": "nowhere"}, expect=409)
    assert written() == before


# --- W21 to W24: reads --------------------------------------------------------------------------------------------


def test_w21_a_read_costs_the_same_however_much_there_is(world: World) -> None:
    world.failed()
    paths = (f"{B}?provider=webhook&limit=5", f"{B}/dashboard", f"{A}/worker-runs", "/api/v1/cases?limit=5")
    caller = client(world.auditor)

    def queries() -> list[int]:
        counts = []
        for path in paths:
            with CaptureQueriesContext(connection) as asked:
                assert caller.get(path).status_code == 200
            counts.append(len(asked))
        return counts

    few = queries()
    crowd(BEYOND_ITS_WINDOW, world)
    assert queries() == few


def test_w22_nothing_falls_out_of_a_window_and_reading_writes_nothing(world: World) -> None:
    (case,) = world.failed()
    crowd(BEYOND_ITS_WINDOW, world)
    before = written()
    board = get(world.auditor, f"{B}/dashboard")
    assert board["failed_acknowledgement_audit_delivery_count"] == 1
    assert board["acknowledgement_audit_delivery_unsettled_count"] == 1
    found = get(world.auditor, B, provider="webhook")
    assert [item for item in found["items"] if item.get("case") == case.case_id]
    browser = client(world.auditor)
    for path in ("/console/", "/console/cases/", f"/console/cases/{case.case_id}/", "/console/ledger/"):
        browser.get(path)
    assert written() == before
    plan = post(world.analyst, f"{A}/retry-plan", {"retry_policy": NOW})["plan"]
    assert [decision["case"] for decision in plan["retry_decisions"]] == [case.case_id]
    assert plan["remaining_count"] == 0


def test_w23_pages_have_bounds_and_a_walk_meets_each_record_once(world: World) -> None:
    for name, value in (
        ("limit", -1),
        ("limit", 0),
        ("limit", 10**9),
        ("offset", -1),
        ("limit", "many"),
        ("cursor", "x"),
    ):
        refused = get(world.auditor, B, expect=400, **{name: value})
        assert name in refused["errors"]
    # All of one moment: a time alone would not tell them apart.
    world.failed()
    before = set(
        Record.objects.exclude(kind__in=("person", "role-grant")).values_list("record_id", flat=True)
    )
    walked: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query: dict[str, Any] = {"limit": 3, "cursor": cursor} if cursor else {"limit": 3}
        page = get(world.auditor, B, **query)
        assert len(page["items"]) <= 3
        walked += [item["session_id"] for item in page["items"]]
        cursor = page["cursor"]
        # The list moves meanwhile.
        post(
            world.analyst,
            f"{B}/{world.schedule.schedule_id}/acknowledgements",
            {"provider": "webhook", "acknowledgement_state": "escalated"},
        )
    assert len(walked) == len(set(walked))
    assert set(walked) <= before
    assert {item for item in before if item.startswith(("rcd-", "gordack-", "gordn-"))} <= set(walked)


def test_w24_numbers_say_what_is_so_now(world: World) -> None:
    name = "acknowledgement_audit_delivery_"

    def board() -> Any:
        return get(world.auditor, f"{B}/dashboard")

    world.failed()
    # Plans and dry runs do not add up: there is one case to retry.
    for _ in range(3):
        post(world.analyst, f"{A}/retry-plan", {"retry_policy": NOW})
        post(world.operator, f"{A}/worker-run", {"dry_run": True})
    later = board()
    assert later[f"{name}retry_plan_count"] == 3
    assert later[f"{name}worker_dry_run_count"] == 3
    assert later[f"{name}unsettled_count"] == 1
    assert later[f"{name}retryable_count"] <= 1
    # What waits for an approval is counted while it waits; a run that skips it counts it as skipped, not failed.
    world.requested()
    assert board()[f"{name}approval_pending_count"] == 1
    world.acknowledged(RouteState.ACKNOWLEDGED)
    assert board()["outstanding_acknowledgement_count"] == 0
    # An answer that is taken back is outstanding again.
    world.acknowledged(RouteState.ESCALATED)
    assert board()["outstanding_acknowledgement_count"] > 0
    assert board()["alert_level"] == "critical"
    entries = world.approved()
    assert board()[f"{name}approval_pending_count"] == 0
    world.ran(policy=NOW)
    done = board()
    assert done[f"{name}unsettled_count"] == len(entries) - 1
    assert (done[f"{name}retry_execution_success_count"], done[f"{name}retry_execution_failed_count"]) == (
        1,
        0,
    )
