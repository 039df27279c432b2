"""Claims: when an approval is used, when it is passed over and why, and that what was approved is sent (P2, P5, P9)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.domain import configuration, records, text
from evidence.enums import CaseState
from evidence.models import AuditPackage, Case, Connector, LedgerHead, Record
from recovery.documents import APPROVAL_VOID
from recovery.domain import approvals, retry_plans
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, EntryState, ExecutionState, RetryAckState, SkipCode
from recovery.execution import claims, runs
from recovery.execution.claims import Passed, Skipped
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, RetryDecision, Vote
from tests.builders import IMMEDIATE, Clock, World
from tests.recovery.checks import CHAIN, appended, behind_the_back

TOKEN = "CAVRA_TEST_TOKEN"
URL = "CAVRA_TEST_URL"


def configured(world: World, **fields: Any) -> None:
    row = Connector.objects.get(key="webhook")
    for name, value in fields.items():
        setattr(row, name, value)
    configuration.save(row, by=None, clock=world.clock)


def acknowledged(world: World, state: RetryAckState) -> None:
    plan = retry_plans.plan_by_id(ApprovalEntry.objects.latest("pk").retry_plan.retry_plan_id)
    review = Review(provider="webhook", state=state)
    retry_plans.acknowledge(plan, review, by=world.second_analyst, clock=world.clock)


def passed_over(world: World, code: SkipCode, **run: Any) -> Skipped:
    """A run passes the one approved entry over for ``code``: nothing arrives, no approval is used."""
    before, votes = len(world.receiver.log), Vote.objects.count()
    started = world.ran(**run)
    (skip,) = started.outcome.skipped
    assert skip.code is code
    assert started.outcome.recorded == []
    assert len(world.receiver.log) == before
    assert not Execution.objects.exists()
    assert Case.objects.get().state == CaseState.FAILED
    assert Vote.objects.count() == votes
    return skip


# --- passed over --------------------------------------------------------------------------------------------------

Act = Callable[[World], object]

# What stands in the way, and how it is taken away again.
PASSING: dict[SkipCode, tuple[Act, Act]] = {
    SkipCode.CONNECTOR_DISABLED: (
        lambda world: configured(world, enabled=False),
        lambda world: configured(world, enabled=True),
    ),
    SkipCode.SENDING_PAUSED: (
        lambda world: configuration.pause("*", reason="freeze", by=world.administrator, clock=world.clock),
        lambda world: configuration.resume("*", by=world.administrator, clock=world.clock),
    ),
    SkipCode.ACKNOWLEDGEMENT_WITHDRAWN: (
        lambda world: acknowledged(world, RetryAckState.DISMISSED),
        lambda world: acknowledged(world, RetryAckState.RESOLVED),
    ),
    SkipCode.RETRY_LIMIT_REACHED: (
        lambda world: world.policy(max_retry_attempts=1),
        lambda world: world.policy(max_retry_attempts=3),
    ),
}


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_recorded_once_and_costs_nothing(world: World, code: SkipCode) -> None:
    block, unblock = PASSING[code]
    world.failed()
    (entry,) = world.approved()
    block(world)
    with appended() as kinds:
        skip = passed_over(world, code)
    assert kinds == ["retry-plan", "worker-run", "retry-execution-record"]
    assert skip.record is not None
    said = skip.record.view["retry_execution_record"]
    assert (said["execution_status"], said["skipped"], said["skip_reason"]) == ("skipped", code, skip.reason)
    assert (said["entry_id"], said["answer"], said["attempt_id"]) == (entry.entry_id, "not_sent", "")
    # The same again is not recorded again.
    with appended() as kinds:
        assert passed_over(world, code).record is None
    assert kinds == ["retry-plan", "worker-run"]
    entry.refresh_from_db()
    assert (entry.state, entry.last_skip) == (EntryState.APPROVED, code)
    unblock(world)
    (done,) = world.ran().outcome.recorded
    assert done.execution.entry == entry
    assert Case.objects.get().state == CaseState.DELIVERED


def test_one_connector_may_be_paused_alone(two: World) -> None:
    two.failed()
    two.approved()
    configuration.pause("backup", reason="maintenance", by=two.administrator, clock=two.clock)
    outcome = two.ran().outcome
    assert [(skip.entry.connector.key, skip.code) for skip in outcome.skipped] == [
        ("backup", SkipCode.SENDING_PAUSED)
    ]
    assert [one.execution.case.connector.key for one in outcome.recorded] == ["webhook"]


def test_another_code_is_recorded_and_so_is_the_first_when_it_comes_back(world: World) -> None:
    world.failed()
    world.approved()
    disabled, paused = PASSING[SkipCode.CONNECTOR_DISABLED], PASSING[SkipCode.SENDING_PAUSED]
    disabled[0](world)
    assert passed_over(world, SkipCode.CONNECTOR_DISABLED).record is not None
    disabled[1](world)
    paused[0](world)
    assert passed_over(world, SkipCode.SENDING_PAUSED).record is not None
    paused[1](world)
    disabled[0](world)
    assert passed_over(world, SkipCode.CONNECTOR_DISABLED).record is not None
    skipped = Record.objects.filter(kind=CHAIN + "retry-execution-record")
    assert [records.payload_of(one)["skipped"] for one in skipped.order_by("index")] == [
        "connector_disabled",
        "sending_paused",
        "connector_disabled",
    ]


def test_a_secret_that_is_missing_passes_and_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "first-value")
    configured(world, token_ref=f"env:{TOKEN}")
    world.failed()
    (entry,) = world.approved()
    monkeypatch.delenv(TOKEN)
    skip = passed_over(world, SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED)
    assert "token_ref" in skip.reason
    assert TOKEN not in skip.reason
    monkeypatch.setenv(TOKEN, "first-value")
    (done,) = world.ran().outcome.recorded
    assert done.execution.entry == entry
    assert world.receiver.log[-1].headers["authorization"] == "Bearer first-value"


def test_the_window_has_to_be_open(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved({})
    skip = passed_over(timed, SkipCode.RETRY_WINDOW_NOT_OPEN)
    assert text.moment(entry.not_before) in skip.reason
    clock.at = entry.not_before
    (done,) = timed.ran().outcome.recorded
    assert done.record.view["retry_execution_record"]["immediate_by_operator"] is False


def test_p9_an_immediate_run_lifts_the_delay_of_an_approved_retry(world: World) -> None:
    world.failed()
    world.approved({})
    (done,) = world.ran(policy=IMMEDIATE).outcome.recorded
    said = done.record.view["retry_execution_record"]
    assert said["immediate_by_operator"] is True
    assert said["applied_policy"]["retry_delay_minutes"] == 0
    assert Execution.objects.get().state == ExecutionState.DELIVERED


def test_p9_an_immediate_run_with_a_delay_keeps_that_delay(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved({})
    passed_over(
        timed,
        SkipCode.RETRY_WINDOW_NOT_OPEN,
        policy={"allow_immediate_retry": True, "retry_delay_minutes": 5},
    )
    clock.at = entry.not_before - timedelta(minutes=10)
    assert (
        len(timed.ran(policy={"allow_immediate_retry": True, "retry_delay_minutes": 5}).outcome.recorded) == 1
    )


@pytest.mark.parametrize(
    "sent", ({"retry_delay_minutes": 60}, {"retry_delay_minutes": 15, "backoff_multiplier": 3})
)
def test_w04_a_stricter_delay_of_the_run_applies(timed: World, clock: Clock, sent: dict[str, Any]) -> None:
    timed.failed()
    (entry,) = timed.approved()
    passed_over(timed, SkipCode.RETRY_WINDOW_NOT_OPEN, policy=sent)
    clock.forward(minutes=61)
    (done,) = timed.ran(policy=sent).outcome.recorded
    applied = done.record.view["retry_execution_record"]["applied_policy"]
    assert {key: applied[key] for key in sent} == sent
    assert applied["allow_immediate_retry"] is True  # as approved
    assert done.execution.entry == entry


def test_w04_a_stricter_limit_of_the_run_applies(world: World) -> None:
    world.failed()
    world.approved()
    skip = passed_over(world, SkipCode.RETRY_LIMIT_REACHED, policy={"max_retry_attempts": 1})
    assert skip.record is not None
    applied = skip.record.view["retry_execution_record"]["applied_policy"]
    assert applied["max_retry_attempts"] == 1


def test_w04_a_laxer_limit_of_the_run_does_not_lift_the_approved_one(world: World) -> None:
    world.policy(max_retry_attempts=1)
    world.failed()
    world.planned()
    assert RetryDecision.objects.get().suppressed
    world.policy(max_retry_attempts=2)
    world.approved()
    world.policy(max_retry_attempts=1)
    passed_over(world, SkipCode.RETRY_LIMIT_REACHED)


def test_w03_an_approval_that_ran_out_is_not_used(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved()
    clock.at = entry.execute_by + timedelta(microseconds=1)
    skip = passed_over(timed, SkipCode.APPROVAL_EXPIRED)
    assert text.moment(entry.execute_by) in skip.reason
    # Its evidence stays, and nothing revives it.
    assert approvals.expire(clock=clock) == 1
    clock.at = entry.execute_by - timedelta(hours=1)
    assert timed.ran().entries == []


def test_w03_the_last_moment_of_an_approval_counts(timed: World, clock: Clock) -> None:
    timed.failed()
    (entry,) = timed.approved()
    clock.at = entry.execute_by
    assert len(timed.ran().outcome.recorded) == 1


def queued(world: World) -> runs.WorkerRun:
    """A live run of what is approved now, left to the worker, which has just taken it."""
    request = RunRequest(dry_run=False, background=True, policy=IMMEDIATE)
    run = runs.start(request, by=world.operator, clock=world.clock).run
    runs.take(run, clock=world.clock)
    return run


@pytest.mark.parametrize(
    ("end", "code"),
    (
        ("deny", SkipCode.APPROVAL_REVOKED),
        ("defer", SkipCode.APPROVAL_REVOKED),
        ("withdraw", SkipCode.APPROVAL_REVOKED),
        ("expire", SkipCode.APPROVAL_EXPIRED),
    ),
)
def test_w02_what_ends_between_the_run_and_the_claim_is_not_used(
    timed: World, clock: Clock, end: str, code: SkipCode
) -> None:
    timed.failed()
    (entry,) = timed.approved()
    run = queued(timed)
    match end:
        case "deny":
            timed.vote(entry, ApprovalState.DENIED, by=timed.second_approver)
        case "defer":
            timed.vote(entry, ApprovalState.DEFERRED)
        case "withdraw":
            timed.vote(entry, ApprovalState.DENIED, by=timed.analyst)
        case "expire":
            clock.at = entry.execute_by + timedelta(seconds=1)
            approvals.expire(clock=clock)
    sent = len(timed.receiver.log)
    result = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(result, Skipped)
    assert (result.code, result.record is not None) == (code, True)
    again = claims.claim(entry.pk, run, clock=clock)
    assert isinstance(again, Skipped)
    assert again.record is None
    assert len(timed.receiver.log) == sent
    assert not Execution.objects.exists()


def test_an_entry_that_a_vote_found_void_is_passed_over_as_changed(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    run = queued(world)
    configured(world, url=world.receiver.url("/elsewhere"))
    first = claims.claim(entry.pk, run, clock=world.clock)
    again = claims.claim(entry.pk, run, clock=world.clock)
    assert isinstance(first, Skipped)
    assert isinstance(again, Skipped)
    assert (first.code, again.code, again.record) == (
        SkipCode.MANIFEST_CHANGED,
        SkipCode.MANIFEST_CHANGED,
        None,
    )
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == 1


@pytest.mark.tampers
def test_a_package_whose_body_is_gone_is_not_sent(world: World) -> None:
    world.failed()
    world.approved()
    package = Record.objects.filter(record_id=AuditPackage.objects.get().audit_id)
    behind_the_back(lambda: package.update(body=None))
    passed_over(world, SkipCode.AUDIT_PACKAGE_NOT_FOUND)


# --- what was approved is what is sent ----------------------------------------------------------------------------


def test_p5_the_frozen_bytes_are_sent(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    world.ran()
    sent = world.receiver.log[-1]
    assert sent.body == bytes(entry.body)
    manifest = records.load(entry.manifest)
    for name, value in manifest["headers"].items():
        assert sent.headers[name] == value


def test_p20_every_try_of_the_same_bytes_carries_the_same_key(world: World) -> None:
    world.failed()
    world.approved()
    world.ran()
    first, second = world.receiver.log[-2:]
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert len(first.headers["idempotency-key"]) == 32


Change = Callable[[World, pytest.MonkeyPatch], object]


def other_body() -> None:
    entry = ApprovalEntry.objects.get()
    ApprovalEntry.objects.update(body=bytes(entry.body).replace(b"acknowledged", b"Acknowledged"))


def other_manifest() -> None:
    manifest = records.load(ApprovalEntry.objects.get().manifest) | {"note": "slipped in"}
    ApprovalEntry.objects.update(manifest=records.canonical(manifest))


CONFIGURED: dict[str, tuple[Change, set[str]]] = {
    "url": (
        lambda w, m: configured(w, url=w.receiver.url("/elsewhere")),
        {"connector_commitment", "destination_commitment"},
    ),
    "value behind url_ref": (
        lambda w, m: m.setenv(URL, w.receiver.url("/elsewhere")),
        {"destination_commitment"},
    ),
    # No door takes it: the address is a secret while a reference names it.
    "from url_ref to the same url": (
        lambda w, m: Connector.objects.update(url=w.receiver.url("/webhook"), url_ref=""),
        {"connector_commitment"},
    ),
    "secret value": (lambda w, m: m.setenv(TOKEN, "another-value"), {"credential_commitment"}),
    "token_ref": (
        lambda w, m: (m.setenv(f"{TOKEN}_2", "first-value"), configured(w, token_ref=f"env:{TOKEN}_2")),
        {"connector_commitment"},
    ),
    "authorization_scheme": (
        lambda w, m: configured(w, authorization_scheme="Token"),
        {"connector_commitment", "credential_commitment"},
    ),
    "api_key": (
        lambda w, m: (
            m.setenv("CAVRA_TEST_KEY", "key-value"),
            configured(w, api_key_ref="env:CAVRA_TEST_KEY"),
        ),
        {"connector_commitment", "credential_commitment"},
    ),
    "headers": (
        lambda w, m: configured(w, headers={"x-team": "blue"}),
        {"connector_commitment", "headers"},
    ),
    "allow_networks": (
        lambda w, m: configured(w, allow_networks=["127.0.0.0/8", "10.0.0.0/8"]),
        {"connector_commitment"},
    ),
    # Another product has another scheme and other headers around the same bytes.
    "product": (
        lambda w, m: configured(w, product="splunk"),
        {"connector_product", "connector_commitment", "credential_commitment", "headers"},
    ),
    "index": (lambda w, m: configured(w, index="main"), {"connector_commitment"}),
    "service": (lambda w, m: configured(w, service="payments"), {"connector_commitment"}),
    "more approvals": (
        lambda w, m: configured(w, required_approvals=2),
        {"connector_commitment", "required_approvals"},
    ),
}

TAMPERED: dict[str, tuple[Change, set[str]]] = {
    "epoch": (lambda w, m: LedgerHead.objects.update(epoch=2, origin="log/epoch-2"), {"epoch"}),
    # The idempotency key is made from the bytes.
    "frozen body": (lambda w, m: behind_the_back(other_body), {"payload", "headers"}),
    "frozen manifest": (lambda w, m: behind_the_back(other_manifest), {"note"}),
    "manifest digest": (
        lambda w, m: behind_the_back(lambda: ApprovalEntry.objects.update(manifest_digest="0" * 64)),
        {"manifest_digest"},
    ),
    "package": (
        lambda w, m: behind_the_back(lambda: AuditPackage.objects.update(record_hash="0" * 64)),
        {"audit_hash"},
    ),
    "delivery plan": (
        lambda w, m: behind_the_back(
            lambda: Case.objects.get().plan.__class__.objects.update(record_hash="0" * 64)
        ),
        {"delivery_hash"},
    ),
    "previous attempt": (
        lambda w, m: behind_the_back(lambda: Case.objects.get().attempts.update(may_have_arrived=False)),
        {"previous"},
    ),
    "requester": (
        lambda w, m: behind_the_back(lambda: ApprovalEntry.objects.update(requested_by=w.second_analyst)),
        {"requested_by"},
    ),
    "deadline": (
        lambda w, m: behind_the_back(
            lambda: ApprovalEntry.objects.update(approve_by=w.clock() + timedelta(days=99))
        ),
        {"approve_by"},
    ),
    "policy of the decision": (
        lambda w, m: RetryDecision.objects.update(
            policy=RetryDecision.objects.get().policy | {"max_retry_attempts": 10}
        ),
        {"policy"},
    ),
    "what was voted on": (
        lambda w, m: behind_the_back(lambda: Vote.objects.update(manifest_digest="0" * 64)),
        {"votes"},
    ),
    "votes": (lambda w, m: behind_the_back(lambda: Vote.objects.all().delete()), {"required_approvals"}),
    "acknowledgement demanded": (
        lambda w, m: behind_the_back(lambda: ApprovalEntry.objects.update(require_retry_ack=False)),
        {"require_retry_ack"},
    ),
}


def changed_means_void(
    world: World, change: Change, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "first-value")
    monkeypatch.setenv(URL, world.receiver.url("/webhook"))
    configured(world, token_ref=f"env:{TOKEN}")
    if not {"destination_commitment", "connector_commitment"} <= names:
        configured(world, url="", url_ref=f"env:{URL}")
    world.failed()
    (entry,) = world.approved()
    change(world, monkeypatch)
    with appended() as kinds:
        skip = passed_over_raw(world)
    assert skip.code is SkipCode.MANIFEST_CHANGED
    assert kinds == ["retry-plan", "worker-run", "retry-execution-approval-void", "retry-execution-record"]
    assert skip.record is not None
    said = skip.record.view["retry_execution_record"]
    assert set(said["changed_fields"]) == names
    void = records.payload_of(Record.objects.get(kind=APPROVAL_VOID.name))
    assert void is not None
    assert set(void["changed_fields"]) == names
    entry.refresh_from_db()
    assert (entry.state, entry.ended_at is not None) == (EntryState.VOID, True)
    assert not Execution.objects.exists()
    assert world.receiver.arrived("/elsewhere") == []


def passed_over_raw(world: World) -> Skipped:
    before = len(world.receiver.log)
    (skip,) = world.ran().outcome.skipped
    assert len(world.receiver.log) == before
    return skip


@pytest.mark.parametrize("what", CONFIGURED)
def test_p5_a_changed_connector_voids_the_approval(
    world: World, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed_means_void(world, *CONFIGURED[what], monkeypatch)


@pytest.mark.tampers
@pytest.mark.parametrize("what", TAMPERED)
def test_p5_changed_rows_void_the_approval(world: World, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_means_void(world, *TAMPERED[what], monkeypatch)


@pytest.mark.parametrize(
    "fields",
    ({"title": "Another title"}, {"max_concurrency": 1}, {"timeout_ms": 4_000}, {"min_timeout_ms": 4_000}),
)
def test_what_never_reaches_the_wire_changes_nothing(world: World, fields: dict[str, Any]) -> None:
    world.failed()
    world.approved()
    configured(world, **fields)
    assert len(world.ran().outcome.recorded) == 1


# --- the claim itself ---------------------------------------------------------------------------------------------


def test_p3_the_claim_is_durable_before_anything_is_sent(world: World) -> None:
    world.failed()
    (entry,) = world.approved()
    run = queued(world)
    sent = len(world.receiver.log)
    with appended() as kinds:
        taken = claims.claim(entry.pk, run, clock=world.clock)
    assert isinstance(taken, claims.Claimed)
    assert kinds == ["retry-execution-claim"]
    assert len(world.receiver.log) == sent
    execution, case = Execution.objects.get(), Case.objects.get()
    assert (execution.state, case.state) == (ExecutionState.CLAIMED, CaseState.SENDING)
    assert case.lease_token == execution.lease_token == taken.spec.token
    assert execution.lease_until > world.clock() + timedelta(seconds=taken.spec.timeout_s)
    entry.refresh_from_db()
    assert (entry.state, entry.decision.state) == (EntryState.CLAIMED, "used")
    said = records.payload_of(Record.objects.get(record_id=execution.claim_id))
    assert said is not None
    assert said["approval_decision_ids"] == [Vote.objects.get().decision_id]
    assert said["manifest_digest"] == entry.manifest_digest
    # Nobody claims it again.
    assert claims.claim(entry.pk, run, clock=world.clock) is Passed.USED
    assert Execution.objects.count() == 1


def test_p1_the_database_refuses_a_second_attempt_without_its_execution(world: World) -> None:
    (case,) = world.failed()
    first = case.attempts.get()
    first.pk, first.number, first.attempt_id, first._state.adding = None, 2, "rcd-forged.webhook", True
    with pytest.raises(IntegrityError), transaction.atomic():
        first.save(force_insert=True)


@pytest.mark.parametrize("state", (EntryState.PENDING, EntryState.APPROVED, EntryState.DENIED))
def test_p2_the_database_refuses_an_execution_without_its_claimed_entry(
    world: World, state: EntryState
) -> None:
    world.failed()
    (entry,) = world.requested()
    if state is not EntryState.PENDING:
        world.vote(entry, ApprovalState(state))
    run = queued(world)
    with pytest.raises(IntegrityError), transaction.atomic():
        Execution.objects.create(
            claim_id="forged",
            claim_hash="0" * 64,
            execution_id="forged",
            entry=entry,
            case=entry.case,
            attempt_no=entry.attempt_no,
            run=run,
            executed_by=world.operator,
            claimed_at=world.clock(),
            lease_token="0" * 32,
            lease_until=world.clock(),
        )


@pytest.mark.parametrize(
    "change",
    (
        {"manifest_digest": "0" * 64},
        {"body": b"{}"},
        {"attempt_no": 7},
        {"required_approvals": 5},
        {"approve_by": None},
    ),
)
def test_p5_the_database_keeps_what_an_entry_froze(world: World, change: dict[str, Any]) -> None:
    world.failed()
    (entry,) = world.requested()
    change = {
        name: entry.approve_by + timedelta(days=9) if value is None else value
        for name, value in change.items()
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        ApprovalEntry.objects.filter(pk=entry.pk).update(**change)
