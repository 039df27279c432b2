"""Proof of a period from records alone: what was claimed, who had approved it before, what became of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from evidence import guards
from evidence.documents import PERSON, Kind
from evidence.domain import configuration, merkle
from evidence.enums import Role
from evidence.errors import InvalidInput
from evidence.models import Connector, LedgerHead, Record
from recovery.documents import (
    APPROVAL_DECISION,
    APPROVAL_EXPIRY,
    APPROVAL_PLAN,
    APPROVAL_WITHDRAWAL,
    EXECUTION_CLAIM,
    EXECUTION_RECORD,
)
from recovery.domain import proofs
from recovery.domain.proofs import Dossier, People, Stored
from recovery.enums import ApprovalState, Seen
from recovery.models import Execution
from tests.builders import Clock, World, person
from tests.receiver import Receiver
from tests.recovery.checks import assert_ledger_verifies, assert_receiver_agrees
from tests.recovery.test_statements import (
    approved,
    asked,
    becomes_void,
    fails,
    is_deferred_after_its_approval,
    is_delivered,
    is_denied,
    is_revoked,
    is_under_way,
    is_unknown,
    is_withdrawn_approved,
    nothing_leaves,
    run,
    runs_out_approved,
)

# --- judging by records alone -------------------------------------------------------------------------------------

START = datetime(2026, 6, 1, 10, tzinfo=UTC)
ENTRY, MANIFEST = "gordackretryentry-1", "ab" * 32
ANN, BEN, CLEO, DORA, BOT = "person-ann", "person-ben", "person-cleo", "person-dora", "person-bot"


def stored(index: int, kind: Kind, account: str, quoted: Sequence[Stored] = (), **payload: Any) -> Stored:
    """A record at a place in the log, one minute after the place before it."""
    at = START + timedelta(minutes=index)
    document = {
        "at": at.isoformat(),
        "actor": {"person_id": account, "name": account.removeprefix("person-")},
        "cases": ["gordackdelivery-1.webhook"],
        "references": [{"kind": one.kind, "id": one.record_id, "hash": one.digest} for one in quoted],
        "payload": payload,
    }
    return Stored(index, f"{kind.prefix}-{index}", kind.name, f"{index:064x}", at, document)


def plan(index: int, by: str, required: int = 1, **more: Any) -> Stored:
    listed = {"entry_id": ENTRY, "required_approvals": required, "requested_by": "ann", **more}
    return stored(index, APPROVAL_PLAN, by, approval_decisions=[{"entry_id": "another"}, listed])


def vote(index: int, by: str, state: str = "approved", **more: Any) -> Stored:
    said = {
        "entry_id": ENTRY,
        "approval_state": state,
        "entry_state": "approved" if state == "approved" else "pending",
        "manifest_digest": MANIFEST,
        **more,
    }
    return stored(index, APPROVAL_DECISION, by, **said)


def claim(index: int, *votes: Stored, by: str = CLEO, at_plan: int = 1) -> Stored:
    return stored(
        index,
        EXECUTION_CLAIM,
        by,
        votes,
        entry_id=ENTRY,
        execution_id=f"execution-{index}",
        approval_plan_id=f"{APPROVAL_PLAN.prefix}-{at_plan}",
        manifest_digest=MANIFEST,
    )


def lost(record: Stored, how: str = proofs.ERASED) -> Stored:
    return replace(record, document={}, lost=how, keys={"entry_id": [ENTRY]})


@dataclass(frozen=True)
class Told:
    """A claim, what else is recorded about its approval, and what is recorded about accounts."""

    claim: Stored
    others: tuple[Stored, ...]
    people: People = field(default_factory=People)

    def judged(self) -> proofs.Judgement:
        records = sorted((*self.others, self.claim), key=lambda record: record.index)
        return proofs.judge(self.claim, Dossier(ENTRY, tuple(records)), self.people)


BY_BEN, BY_ANN, BY_DORA = vote(2, BEN), vote(2, ANN), vote(3, DORA)
HUMANS = {name: [(-1, "")] for name in (ANN, BEN, CLEO, DORA)}

APPROVED: dict[str, Told] = {
    "one person who is another": Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN)),
    "two of two": Told(claim(9, BY_BEN, BY_DORA), (plan(1, ANN, required=2), BY_BEN, BY_DORA)),
    "the requester's word beside enough others": Told(
        claim(9, BY_BEN, vote(3, ANN)), (plan(1, ANN), BY_BEN, vote(3, ANN))
    ),
    "who approved claims it too": Told(claim(9, BY_BEN, by=BEN), (plan(1, ANN), BY_BEN)),
    "somebody asked again after the vote": Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, plan(5, BEN))),
    "another person deferred": Told(
        claim(9, BY_BEN), (plan(1, ANN), BY_BEN, vote(4, DORA, "deferred", entry_state="approved"))
    ),
    "nothing left at an earlier claim": Told(
        claim(9, BY_BEN),
        (
            plan(1, ANN),
            BY_BEN,
            claim(4, BY_BEN),
            replace(
                stored(5, EXECUTION_RECORD, CLEO, answer="not_sent", execution_status="failed"),
                record_id="execution-4",
            ),
        ),
    ),
    "renewed by who approves, asked for by another": Told(
        claim(9, BY_BEN), (plan(1, BEN, renews="older"), BY_BEN), People(HUMANS, {"ann": ANN})
    ),
    "a vote lost that was not needed": Told(
        claim(9, BY_BEN, lost(BY_DORA)), (plan(1, ANN), BY_BEN, lost(BY_DORA))
    ),
    "deactivated after the claim": Told(
        claim(9, BY_BEN), (plan(1, ANN), BY_BEN), People(HUMANS, deactivated={BEN: [12]})
    ),
}

NOT: dict[str, tuple[Told, str]] = {
    "by who asked": (Told(claim(9, BY_ANN), (plan(1, ANN), BY_ANN)), "somebody who had asked"),
    "by who asked again": (
        Told(claim(9, BY_DORA), (plan(1, ANN), plan(2, DORA), BY_DORA)),
        "somebody who had asked",
    ),
    "by the requester's service account": (
        Told(claim(9, vote(2, BOT)), (plan(1, ANN), vote(2, BOT)), People({**HUMANS, BOT: [(0, ANN)]})),
        "somebody who had asked",
    ),
    "asked for by a service account that was handed over": (
        Told(
            claim(9, vote(3, ANN)),
            (plan(2, BOT), vote(3, ANN)),
            People({**HUMANS, BOT: [(0, ANN), (1, DORA)]}),
        ),
        "There is no readable record",
    ),
    "renewed by who had asked": (
        Told(claim(9, BY_ANN), (plan(1, BEN, renews="older"), BY_ANN), People(HUMANS, {"ann": ANN})),
        "somebody who had asked",
    ),
    "one of two": (Told(claim(9, BY_BEN), (plan(1, ANN, required=2), BY_BEN)), "1 of 2 approvals"),
    "one person through two accounts": (
        Told(
            claim(9, BY_BEN, vote(3, BOT)),
            (plan(1, ANN, required=2), BY_BEN, vote(3, BOT)),
            People({**HUMANS, BOT: [(0, BEN)]}),
        ),
        "1 of 2 approvals",
    ),
    "nobody": (Told(claim(9), (plan(1, ANN),)), "0 of 1 approvals"),
    "a vote that is no record": (Told(claim(9, BY_BEN), (plan(1, ANN),)), "there is no such record"),
    "a vote the claim does not name": (Told(claim(9), (plan(1, ANN), BY_BEN)), "does not name it"),
    "other bytes than the claim quotes": (
        Told(claim(9, BY_BEN), (plan(1, ANN), replace(BY_BEN, digest="c" * 64))),
        "quotes other bytes",
    ),
    "bytes that were not sealed": (
        Told(claim(9, BY_BEN), (plan(1, ANN), lost(BY_BEN, proofs.ALTERED))),
        "not those that were sealed",
    ),
    "after the claim": (
        Told(claim(9, vote(10, BEN)), (plan(1, ANN), vote(10, BEN))),
        "later than the claim",
    ),
    "before the claim in the log, at a later time": (
        Told(
            claim(9, BY_BEN),
            (
                plan(1, ANN),
                replace(BY_BEN, document={**BY_BEN.document, "at": "2026-06-01T11:00:00+00:00"}),
            ),
        ),
        "later than the claim",
    ),
    "another manifest": (
        Told(claim(9, vote(2, BEN, manifest_digest="")), (plan(1, ANN), vote(2, BEN, manifest_digest=""))),
        "another manifest",
    ),
    "a word that is no approval": (
        Told(claim(9, vote(2, BEN, "deferred")), (plan(1, ANN), vote(2, BEN, "deferred"))),
        "does not approve",
    ),
    "taken back": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, vote(4, BEN, "deferred"))),
        "said otherwise",
    ),
    "deactivated before the claim": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN), People(HUMANS, deactivated={BEN: [5]})),
        "deactivated before",
    ),
    "denied by another": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, vote(4, DORA, "denied", entry_state="denied"))),
        "ended before the claim: denied",
    ),
    "withdrawn": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, stored(4, APPROVAL_WITHDRAWAL, ANN, entry_id=ENTRY))),
        "ended before the claim: withdrawn",
    ),
    "run out, by a record that was erased since": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, lost(stored(4, APPROVAL_EXPIRY, "")))),
        "ended before the claim: expired",
    ),
    "used before": (
        Told(claim(9, BY_BEN), (plan(1, ANN), BY_BEN, claim(4, BY_BEN))),
        "used before, by gordackretryclaim-4",
    ),
    "nobody asked": (Told(claim(9, BY_BEN), (BY_BEN,)), "There is no readable record"),
    "a claim with other bytes": (Told(lost(claim(9, BY_BEN), proofs.ALTERED), ()), "not the sealed ones"),
}

HIDDEN: dict[str, tuple[Told, str]] = {
    "the claim": (Told(lost(claim(9, BY_BEN)), (plan(1, ANN), BY_BEN)), "claim were erased"),
    "the vote": (Told(claim(9, BY_BEN), (plan(1, ANN), lost(BY_BEN))), "Its bytes were erased"),
    "the request": (Told(claim(9, BY_BEN), (lost(plan(1, ANN)), BY_BEN)), "no readable record"),
    "who asked again": (
        Told(claim(9, BY_DORA), (plan(1, ANN), lost(plan(2, DORA)), BY_DORA)),
        "Who had asked",
    ),
    "whose account it is": (
        Told(claim(9, vote(2, BOT)), (plan(1, ANN), vote(2, BOT)), People({**HUMANS, BOT: [(0, None)]})),
        "Who answers",
    ),
}


@pytest.mark.parametrize("told", APPROVED.values(), ids=APPROVED)
def test_an_approval_by_others_before_the_claim_counts(told: Told) -> None:
    judged = told.judged()
    assert (judged.approved, judged.reasons) == (True, ())


@pytest.mark.parametrize(("told", "sentence"), NOT.values(), ids=NOT)
def test_anything_else_is_no_such_approval(told: Told, sentence: str) -> None:
    judged = told.judged()
    assert judged.approved is False
    assert sentence in " ".join(judged.reasons)


@pytest.mark.parametrize(("told", "sentence"), HIDDEN.values(), ids=HIDDEN)
def test_what_was_erased_is_neither_yes_nor_no(told: Told, sentence: str) -> None:
    judged = told.judged()
    assert judged.approved is None
    assert sentence in " ".join(judged.reasons)


def test_votes_say_what_else_their_person_did() -> None:
    told = Told(claim(9, BY_BEN, BY_DORA, by=DORA), (plan(1, ANN), BY_BEN, BY_DORA, vote(4, ANN)))
    seen = [(v.record.by, v.against, v.asked_for_it, v.executed_it) for v in told.judged().votes]
    assert seen == [
        ("ben", "", False, False),
        ("dora", "", False, True),
        ("ann", "The claim does not name it.", True, False),
    ]


# --- periods of a real log ----------------------------------------------------------------------------------------


@pytest.fixture
def world(db: None, receiver: Receiver, clock: Clock, request: pytest.FixtureRequest) -> Iterator[World]:
    """Two connectors and a clock that the test moves."""
    made = World(receiver, providers=("webhook", "backup"), clock=clock)
    yield made
    if request.node.get_closest_marker("tampers") is None:
        assert_receiver_agrees(made)
        assert_ledger_verifies()


def proof_of(clock: Clock, since: datetime) -> proofs.Statement:
    clock.forward(seconds=1)
    return proofs.retries(since, clock(), at=clock())


def test_every_number_has_the_list_behind_it(world: World, clock: Clock) -> None:
    since = clock()
    nothing_leaves(world, clock, "webhook")
    walks: list[Callable[[World, Clock, str], object]] = [
        runs_out_approved,
        is_revoked,
        is_withdrawn_approved,
        becomes_void,
        is_deferred_after_its_approval,
        is_denied,
        is_delivered,
        fails,
        is_unknown,
    ]
    for walk in walks:
        walk(world, clock, "webhook")
        clock.forward(seconds=1)
    turned = is_unknown(world, clock, "webhook")
    world.attested(turned.case, Seen.UNDETERMINED, world.approver, world.second_analyst)
    standing = approved(world, "backup")
    is_under_way(world, clock, "webhook")
    proof = proof_of(clock, since)
    assert proof.numbers == {
        "live_retries": 6,
        "approved_by_another_before_claim": 6,
        "not_so_approved": 0,
        "approval_not_readable": 0,
        "delivered": 1,
        "failed": 1,
        "unknown": 3,
        "turned_out_later": 1,
        "nothing_left": 1,
        "outcome_not_readable": 0,
        "unused_approvals": 7,
        "records_not_readable": 0,
    }
    assert {name: len(ids) for name, ids in proof.lists.items()} == proof.numbers
    (delivered,) = proof.of("delivered")
    execution = Execution.objects.get(claim_id=delivered.claim.record_id)
    shown = delivered.as_dict()
    assert (shown["execution_id"], shown["claim"]["hash"]) == (execution.execution_id, execution.claim_hash)
    assert shown["execution"]["hash"] == execution.execution_hash
    assert (shown["claimed_by"], shown["requested_by"]) == (world.operator.username, world.analyst.username)
    assert [(one["by"], one["counts"]) for one in shown["votes"]] == [(world.approver.username, True)]
    (later,) = proof.of("turned_out_later")
    assert (later.outcome, later.turned_out_as, later.claim.case) == (
        "outcome_unknown",
        "undetermined",
        turned.case.case_id,
    )
    assert len(later.as_dict()["turned_out"]["attestations"]) == 2
    became = sorted((one.state, one.approved.case == standing.case.case_id) for one in proof.unused)
    assert became == [
        ("approved", True),
        ("denied", False),
        # Of one of these nothing left before: it was given back and ran out then.
        ("expired", False),
        ("expired", False),
        ("manifest_changed", False),
        ("pending", False),
        ("withdrawn", False),
    ]


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(world: World, clock: Clock) -> None:
    entry = approved(world, "webhook")
    clock.forward(minutes=1)
    at, moment = clock(), timedelta(microseconds=1)
    run(world, entry)
    clock.forward(minutes=1)

    def counted(since: datetime, until: datetime) -> tuple[int, int]:
        numbers = proofs.retries(since, until, at=clock()).numbers
        return numbers["live_retries"], numbers["unused_approvals"]

    assert counted(at, at + moment) == (1, 0)
    assert counted(at - moment, at) == (0, 0)
    assert counted(at + moment, at + 2 * moment) == (0, 0)
    # The approval is of an earlier period, and was used after it.
    assert counted(at - timedelta(minutes=2), at) == (0, 0)
    for until in (at, at - moment):
        with pytest.raises(InvalidInput) as caught:
            proofs.retries(at, until, at=clock())
        assert list(caught.value.errors) == ["to"]


def test_the_head_says_what_was_read(world: World, clock: Clock) -> None:
    since = clock()
    is_delivered(world, clock, "webhook")
    proof = proof_of(clock, since)
    head = LedgerHead.objects.get()
    assert (proof.head.size, proof.head.root) == (
        head.size,
        merkle.root(merkle.split(head.peaks)).hex(),
    )
    is_delivered(world, clock, "webhook")
    grown = LedgerHead.objects.get().size
    assert proof_of(clock, since).numbers["live_retries"] == 2
    # What the log of a size says, it says for ever.
    LedgerHead.objects.update(size=head.size)
    assert proof_of(clock, since).lists == proof.lists
    LedgerHead.objects.update(size=grown)


def test_a_service_account_counts_as_its_owner(world: World, clock: Clock) -> None:
    since = clock()
    owner = person(Role.APPROVER)
    bot = person(Role.APPROVER, owner=owner)
    clock.forward(minutes=1)
    entry = asked(world, "webhook")
    world.vote(entry, by=bot)
    run(world, entry)
    (retry,) = proof_of(clock, since).retries
    assert retry.judgement.approved is True
    assert retry.judgement.votes[0].record.account == bot.person_id


def test_a_longer_period_is_refused_not_cut_off(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = clock()
    for _ in range(2):
        is_delivered(world, clock, "webhook")
    monkeypatch.setitem(proofs.MOST, EXECUTION_CLAIM.name, (2, "live retries"))
    assert proof_of(clock, since).numbers["live_retries"] == 2
    for kind, words in ((EXECUTION_CLAIM, "live retries"), (APPROVAL_DECISION, "votes")):
        monkeypatch.setitem(proofs.MOST, kind.name, (1, words))
        with pytest.raises(InvalidInput, match=f"more than 1 {words}") as caught:
            proof_of(clock, since)
        assert (caught.value.code, list(caught.value.errors)) == ("period_too_long", ["to"])
        monkeypatch.setitem(proofs.MOST, kind.name, (2, words))


@pytest.fixture
def tamper() -> Callable[..., None]:
    """Change rows of the log behind the guards' back."""

    def change(kind: Kind, **values: Any) -> None:
        # PostgreSQL alters no table that a deferred constraint still looks at.
        connection.check_constraints()
        guards.drop()
        assert Record.objects.filter(kind=kind.name).update(**values)
        guards.install()

    return change


@pytest.mark.tampers
@pytest.mark.parametrize(
    ("kind", "expected"),
    (
        (EXECUTION_CLAIM, {"approval_not_readable": 1, "delivered": 1}),
        (APPROVAL_DECISION, {"approval_not_readable": 1, "delivered": 1}),
        (APPROVAL_PLAN, {"approval_not_readable": 1, "delivered": 1}),
        (EXECUTION_RECORD, {"approved_by_another_before_claim": 1, "outcome_not_readable": 1}),
        (PERSON, {"approval_not_readable": 1, "delivered": 1}),
    ),
    ids=lambda value: getattr(value, "prefix", None),
)
def test_erased_records_show_as_such(
    world: World, clock: Clock, tamper: Callable[..., None], kind: Kind, expected: dict[str, int]
) -> None:
    since = clock()
    is_delivered(world, clock, "webhook")
    tamper(kind, body=None)
    proof = proof_of(clock, since)
    assert {name: number for name, number in proof.numbers.items() if number} == {
        "live_retries": 1,
        **({} if kind is PERSON else {"records_not_readable": 1}),
        **expected,
    }
    (shown,) = proof.as_dict(profile="strict")["retries"]
    assert shown["case"].endswith(".webhook")
    assert {one["lost"] for one in proof.as_dict(profile="strict")["records_not_readable"]} <= {"erased"}


@pytest.mark.tampers
def test_bytes_that_were_not_sealed_count_for_nothing(
    world: World, clock: Clock, tamper: Callable[..., None]
) -> None:
    since = clock()
    is_delivered(world, clock, "webhook")
    tamper(APPROVAL_DECISION, body=b"{}")
    proof = proof_of(clock, since)
    assert proof.numbers["not_so_approved"] == 1
    assert [record.lost for record in proof.lost] == ["altered"]


def test_a_statement_costs_the_same_however_much_happened(world: World, clock: Clock) -> None:
    since = clock()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            proof_of(clock, since).as_dict(profile="strict")
        return len(captured)

    is_delivered(world, clock, "webhook")
    approved(world, "backup")
    before = queries()
    for _ in range(3):
        is_delivered(world, clock, "webhook")
        fails(world, clock, "webhook")
        is_revoked(world, clock, "webhook")
    assert queries() == before <= 12


def test_two_of_two_are_both_named(world: World, clock: Clock) -> None:
    since = clock()
    row = Connector.objects.get(key="webhook")
    row.required_approvals = 2
    configuration.save(row, by=None, clock=clock)
    entry = asked(world, "webhook")
    world.vote(entry)
    world.vote(entry, ApprovalState.APPROVED, world.second_approver)
    run(world, entry)
    (retry,) = proof_of(clock, since).retries
    assert (retry.judgement.required, retry.judgement.approved) == (2, True)
    assert [one.record.by for one in retry.judgement.votes] == [
        world.approver.username,
        world.second_approver.username,
    ]
