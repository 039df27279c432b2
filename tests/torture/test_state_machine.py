"""Hypothesis walks the whole chain with people, clocks, crashes and edits; the product and a small model agree.

Every try goes to a real receiver on the loopback interface, so what arrived is counted where it arrives. Each walk
ends with everything repaired: then every case that is not settled yet has to get there (P8).
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, TypeVar

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from evidence.connectors import progress, sender
from evidence.connectors.credentials import Misconfigured
from evidence.connectors.specs import Receipt
from evidence.documents import KINDS
from evidence.domain import (
    acknowledgements,
    breakers,
    configuration,
    deliveries,
    drills,
    packages,
    parking,
    people,
    sending,
)
from evidence.domain.acknowledgements import Answer as OwnersAnswer
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.domain.transitions import move
from evidence.enums import BreakerState, CaseState, FailureClass, Role, RouteState
from evidence.errors import DomainError
from evidence.models import Attempt, Case, Connector, LedgerHead, Person, Record, RoleGrant
from recovery.domain import (
    approval_plans,
    approvals,
    dispositions,
    reconciliations,
    renewals,
    retry_plans,
    transitions,
    turns,
)
from recovery.domain.approvals import Ballot
from recovery.domain.dispositions import Proposal as Proposed
from recovery.domain.reconciliations import Statement
from recovery.domain.retry_plans import Review
from recovery.enums import (
    OPEN_ENTRY_STATES,
    Act,
    ApprovalState,
    DecisionState,
    DispositionKind,
    DispositionState,
    EntryState,
    RetryAckState,
    RunState,
    Seen,
    SkipCode,
)
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed, Passed, Skipped
from recovery.execution.selection import RunRequest
from recovery.models import (
    ApprovalEntry,
    EntryParty,
    Execution,
    RetryDecision,
    RetryPlan,
    RetryPolicy,
    Vote,
    WorkerRun,
)
from tests.builders import IMMEDIATE, Clock, connector, person, schedule
from tests.evidence import breaking
from tests.receiver import Receiver
from tests.recovery.checks import assert_ledger_verifies, assert_receiver_agrees
from tests.torture.conftest import REPORT, in_full
from tests.torture.model import HELD_AS, SETTLED, Actor, Claim, Model, Proposal, Queued, Request, Sheet
from tests.torture.report import Tally

KEYS = ("webhook", "backup")
SECRET = "CAVRA_TORTURE_TOKEN"
# Nothing listens there: a try that cannot even connect.
NOWHERE = "http://127.0.0.1:1/"
MOST_CASES = 6
MOST_TRIES = 10

CAST: dict[str, tuple[Role, ...]] = {
    "ana": (Role.ANALYST,),
    "ben": (Role.ANALYST,),
    "amy": (Role.ANALYST, Role.APPROVER),
    "tom": (Role.APPROVER,),
    "kim": (Role.APPROVER,),
    "ola": (Role.APPROVER,),
    "ida": (Role.OPERATOR,),
    "ian": (Role.OPERATOR, Role.APPROVER),
    "adm": (Role.ADMINISTRATOR,),
    "max": (Role.ADMINISTRATOR, Role.APPROVER),
    # A service account of kim's: the two are one voter.
    "bot": (Role.APPROVER,),
}
OWNERS = {"bot": "kim"}
# Nobody walks as this one: answers the owners' questions that make new content.
BACKSTAGE = "sys"

# What the receiver does with a try. A crash leaves no receipt; of the last two no byte leaves.
WAYS: dict[str, dict[str, Any]] = {
    "delivered": {"status": 200},
    "failed": {"status": 503},
    "throttled": {"status": 429, "headers": {"retry-after": "1800"}},
    "hung up": {"hang_up": True},
    "crash after sending": {"status": 200},
    "crash before sending": {},
    "not sent": {},
}


def mostly(*names: str) -> st.SearchStrategy[str]:
    """Mostly one of those whose act it is, now and then anybody."""
    return st.sampled_from([*names * 4, *CAST])


numbers = st.integers(min_value=0, max_value=11)
analysts = mostly("ana", "ben", "amy")
approvers = mostly("tom", "ola", "max", "kim", "bot", "amy", "ian")
operators = mostly("ida", "ida", "ian")
administrators = mostly("adm", "max")
ways = st.sampled_from([*WAYS, "failed", "failed", "throttled"])
answers = st.sampled_from(["delivered", "failed", "failed", "throttled", "hung up"])
at_once = st.booleans()
plan_policies: st.SearchStrategy[Mapping[str, Any]] = st.sampled_from(
    [IMMEDIATE, IMMEDIATE, IMMEDIATE, {}, {"max_retry_attempts": 2}, {"retry_delay_minutes": 60}]
)
run_policies: st.SearchStrategy[Mapping[str, Any]] = st.sampled_from(
    [IMMEDIATE, IMMEDIATE, {}, {"max_retry_attempts": 2}]
)

Done = TypeVar("Done")


@dataclass
class Sent:
    """A try whose receipt is known: how it is recorded."""

    claim: Claim
    receipt: Receipt
    record: Callable[[Receipt], object]


@dataclass
class Stage:
    """What every walk starts from, made once, and what all walks counted."""

    receiver: Receiver
    clock: Clock
    started: datetime
    people: dict[str, int]
    roles: dict[str, dict[Role, datetime]]
    heard: int
    steps: Counter[str] = field(default_factory=Counter)
    acts: dict[str, Counter[str]] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)
    walks: int = 0


def step(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A rule that is counted, after which product and model agree."""

    def decorate(act: Callable[..., None]) -> Any:
        @functools.wraps(act)
        def counted(self: "Walk", **values: Any) -> None:
            self.stage.steps[act.__name__] += 1
            self.agrees = False
            act(self, **values)
            self.check()
            self.agrees = True

        return rule(**drawn)(counted)  # type: ignore[call-overload]

    return decorate


class Walk(RuleBasedStateMachine):
    """One walk, in a transaction that is rolled back. A class of its own has the ``stage``."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        stage = self.stage
        self.clock, self.receiver = stage.clock, stage.receiver
        self.clock.at = stage.started
        os.environ[SECRET] = "first"
        del self.receiver.log[stage.heard :]
        self.arrivals = stage.heard
        self.arrived: Counter[int] = Counter()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.model = Model(
            actors={name: Actor(dict(stage.roles[name]), OWNERS.get(name, "")) for name in CAST},
            connectors={
                key: {"url": self.receiver.url(f"/{key}"), "service": "", "required_approvals": 1}
                | {"enabled": True}
                for key in KEYS
            },
            now=self.clock(),
            newest=self.newest(),
        )
        self.sent: list[Sent] = []
        self.executions: dict[int, Claim] = {}
        self.content = 0
        self.edits = 0
        self.agrees = True

    @initialize(way=answers)
    def begin(self, way: str) -> None:
        """A walk begins with a case at each connector."""
        self.deliver_to(KEYS, "ana", way, now=True, anew=True)
        self.check()

    # --- doing and comparing --------------------------------------------------------------------------------------

    def does(self, act: str, verb: Callable[[], Done], against: list[str]) -> Done | None:
        """Do it and hold it against the model: the verb's result, or None when it was refused as expected."""
        counted = self.stage.acts.setdefault(act, Counter())
        size = self.size()
        try:
            done = verb()
        except DomainError as error:
            refusal = error
        else:
            counted["accepted"] += 1
            assert not against, f"{act}: accepted, expected to be refused with {against}"
            return done
        counted["refused"] += 1
        assert refusal.code in against, f"{act}: refused as {refusal.code} ({refusal}), expected {against}"
        recorded = self.size() - size
        assert recorded == (refusal.code == "manifest_changed"), f"{act}: refused, and {recorded} recorded"
        return None

    def size(self) -> int:
        """Entries of the log."""
        return LedgerHead.objects.values_list("size", flat=True).get()

    def newest(self) -> datetime:
        """Time of the log's newest entry."""
        found = LedgerHead.objects.values_list("newest_at", flat=True).get()
        assert found
        return found

    def person(self, name: str) -> Person:
        """Somebody as they are now; an instance would remember its roles."""
        return Person.objects.select_related("owner").get(pk=self.stage.people[name])

    def case(self, number: int) -> Sheet:
        """One of the cases."""
        return self.model.cases[number % len(self.model.cases)]

    def row(self, case: Sheet) -> Case:
        """A case as the product has it."""
        rows = Case.objects.select_related("plan", "package", "connector", "created_by__owner")
        return rows.get(case_id=case.case_id)

    def requests(self, *states: EntryState) -> list[tuple[Sheet, Request]]:
        """Every request, the newest first, those in ``states`` before all others."""
        found = [(case, request) for case in self.model.cases for request in case.requests]
        return sorted(found, key=lambda one: (one[1].state not in states, -one[1].pk))

    def some_request(self, number: int, *states: EntryState) -> tuple[Sheet, Request]:
        """One of the requests, mostly one in ``states``."""
        wanted = [one for one in self.requests() if one[1].state in states]
        found = wanted if wanted and number < 9 else self.requests()
        return found[number % len(found)]

    def has_requests(self) -> bool:
        """Whether anything was asked for yet."""
        return any(case.requests for case in self.model.cases)

    def check(self) -> None:
        """Product and model agree, and what must hold of any state of the product holds."""
        self.note_time()
        assert len(self.receiver.log) == self.arrivals, "something arrived that nobody sent"
        assert max(self.arrived.values(), default=0) <= 1, "an approval was used for two requests"
        self._check_cases()
        self._check_requests()

    def note_time(self) -> None:
        """The log's time goes forward, and never beyond the time for rules."""
        newest = self.newest()
        assert self.model.newest <= newest <= self.model.at, "the log's time went astray"
        self.model.newest = newest

    def _check_cases(self) -> None:
        rows = list(Case.objects.select_related("plan", "package", "connector").order_by("pk"))
        assert {row.case_id for row in rows} == {case.case_id for case in self.model.cases}
        cases = {case.case_id: case for case in self.model.cases}
        for row in rows:
            case = cases[row.case_id]
            expected = (case.state, len(case.tries), case.counted, case.state in SETTLED)
            assert (
                row.state,
                row.attempt_count,
                row.counted_attempts,
                row.settled_at is not None,
            ) == expected
        tries = Attempt.objects.order_by("case", "number").values_list("case__case_id", "number", "outcome")
        assert sorted(tries) == sorted(
            (case.case_id, number, one.own.outcome)
            for case in self.model.cases
            for number, one in enumerate(case.tries, start=1)
        )
        decisions = RetryDecision.objects.filter(state=DecisionState.OPEN)
        assert {
            case: one
            for case, *one in decisions.values_list(
                "case__case_id", "attempt_no", "suppressed", "ack_state", "not_before"
            )
        } == {
            case.case_id: [one.attempt_no, one.suppressed, one.ack, one.not_before]
            for case in self.model.cases
            if (one := case.decision)
        }
        executions = dict(Execution.objects.values_list("pk", "state"))
        assert executions == {pk: claim.state for pk, claim in self.executions.items()}
        queued = self.queued()
        for standing in turns.standings([row for row in rows if not row.settled_at]):
            case = cases[standing.case.case_id]
            assert standing.act == self.model.due(case, queued), f"whose turn {case.case_id} is"
            # A try that is under way ends with its lease; what has no try left is settled by a disposition.
            suppressed = standing.decision is not None and standing.decision.suppressed
            under_way = standing.is_sending or standing.is_queued
            assert standing.act or under_way or suppressed or case.state is CaseState.PARKED, "a dead end"

    def _check_requests(self) -> None:
        requests = {request.pk: request for _, request in self.requests()}
        entries = ApprovalEntry.objects.values_list("pk", "state", "approve_by", "execute_by", "case_id")
        rows = list(entries)
        assert {pk: (state, approve_by, execute_by) for pk, state, approve_by, execute_by, _ in rows} == {
            pk: (one.state, one.approve_by, one.execute_by) for pk, one in requests.items()
        }
        still_open = [case for _, state, _, _, case in rows if state in OPEN_ENTRY_STATES]
        assert len(still_open) == len(set(still_open)), "two open requests of one case"
        parties: dict[int, set[int]] = {pk: set() for pk in requests}
        for pk, party in EntryParty.objects.values_list("entry_id", "person_id"):
            parties[pk].add(party)
        assert parties == {
            pk: {self.stage.people[name] for name in one.parties} for pk, one in requests.items()
        }
        approving: dict[int, set[int]] = {pk: set() for pk in requests}
        for pk, voter, state in Vote.objects.order_by("pk").values_list("entry_id", "person_id", "state"):
            if state == ApprovalState.APPROVED:
                approving[pk].add(voter)
            else:
                approving[pk].discard(voter)
        for pk, one in requests.items():
            if one.state in (EntryState.APPROVED, EntryState.CLAIMED):
                assert len(approving[pk]) >= one.required, "approved by too few"

    # --- deliveries and tries -------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.model.cases) < MOST_CASES)
    @step(
        keys=st.sampled_from([KEYS[:1], KEYS[1:], KEYS]),
        who=mostly("ana"),
        way=ways,
        now=at_once,
        anew=st.booleans(),
    )
    def deliver(self, keys: tuple[str, ...], who: str, way: str, now: bool, anew: bool) -> None:
        self.deliver_to(keys, who, way, now=now, anew=anew)

    def deliver_to(self, keys: tuple[str, ...], who: str, way: str, *, now: bool, anew: bool) -> None:
        """Open a plan and try for the first time, with content of its own if ``anew``."""
        if anew:
            self.content += 1
            answer = OwnersAnswer(
                schedule_id="payments-monthly",
                provider=KEYS[0],
                state=RouteState.ACKNOWLEDGED,
                notes=f"content {self.content}",
            )
            acknowledgements.acknowledge([answer], by=self.person(BACKSTAGE), clock=self.clock)
        frozen = packages.freeze(PackageFilters(), by=self.person(BACKSTAGE), clock=self.clock)
        self.model.newest = self.newest()
        model, by = self.model, self.person(who)
        held = {
            case.connector: case.state
            for case in model.cases
            if case.content == self.content and case.state is not CaseState.DELIVERED
        }
        rows = list(Connector.objects.filter(key__in=keys))
        against = model.against_role(who, "analyse")
        against = against or [code for key in keys for code in model.against_sending(key)]
        if not against and held.keys() >= set(keys):
            codes = [HELD_AS.get(held[key], "delivery_unsettled") for key in sorted(keys)]
            against = ["delivery_unsettled" if "delivery_unsettled" in codes else codes[0]]
        request = DeliveryRequest(filters=PackageFilters(), providers=keys, retries=0, timeout_s=5.0)
        opened = self.does(
            "deliver",
            lambda: deliveries.open_plan(frozen.package, rows, request, by=by, clock=self.clock),
            against,
        )
        if opened is None:
            return
        assert {row.connector.key for row in opened.cases} == set(keys) - held.keys()
        for row in sorted(opened.cases, key=lambda row: row.connector.key):
            case = Sheet(row.case_id, row.connector.key, self.content, who, model.at)
            model.cases.append(case)
            waits = bool(model.waits(case.connector))
            assert (row.state == CaseState.PARKED) == waits
            if waits:
                case.state = CaseState.PARKED
                self.stage.ended["parked"] += 1
                continue
            assert row.lease_until
            claim = model.claim(who, case, None, row.lease_until)
            self.try_it(
                claim,
                way,
                now=now,
                token=row.lease_token,
                send=functools.partial(sending.send_cases, [row], retries=0, timeout_s=5.0),
                record=functools.partial(self.record_first, row, by),
            )

    @precondition(lambda self: any(case.state is CaseState.PARKED for case in self.model.cases))
    @step(number=numbers, way=ways, now=at_once)
    def send_what_is_parked(self, number: int, way: str, now: bool) -> None:
        parked = [case for case in self.model.cases if case.state is CaseState.PARKED]
        self.release(parked[number % len(parked)], way, now=now)

    def release(self, case: Sheet, way: str, *, now: bool) -> None:
        """A worker looks at a parked case: it tries for the first time, unless something stands against it."""
        against = self.model.against_release(case)
        taken = parking.release(self.row(case).pk, clock=self.clock)
        assert (taken is None) == bool(against), f"expected {against}"
        if taken is None:
            return
        lease_until = self.row(case).lease_until
        assert lease_until
        self.try_it(
            self.model.claim(case.by, case, None, lease_until),
            way,
            now=now,
            token=taken.lease_token,
            send=functools.partial(sending.send_cases, [taken], retries=0, timeout_s=5.0),
            record=functools.partial(self.record_first, taken, taken.created_by),
        )

    @precondition(lambda self: any(brake.probe_at for brake in self.model.brakes.values()))
    @step(number=numbers, got_through=st.booleans())
    def canary(self, number: int, got_through: bool) -> None:
        is_open = [key for key, brake in self.model.brakes.items() if brake.probe_at]
        self.send_canary(is_open[number % len(is_open)], got_through=got_through)

    def send_canary(self, key: str, *, got_through: bool) -> None:
        """The canary that an open breaker waits for, as soon as it may go."""
        probe_at = self.model.brakes[key].probe_at
        assert probe_at
        self.set_clock(max(self.model.at, probe_at))
        row = Connector.objects.get(key=key)
        assert breakers.standing([row], self.clock())[row.pk].state is BreakerState.HALF_OPEN
        breaking.canary(key, None if got_through else FailureClass.UNAVAILABLE, self.clock)
        self.model.canary(key, got_through=got_through)
        self.note_time()

    def record_first(self, row: Case, by: Person, receipt: Receipt) -> object:
        """Record what came of a first try."""
        return deliveries.record_first_attempts([row], [receipt], by=by, clock=self.clock)

    def try_it(
        self,
        claim: Claim,
        way: str,
        *,
        now: bool,
        token: str,
        send: Callable[[], Iterable[Receipt]],
        record: Callable[[Receipt], object],
    ) -> None:
        """What becomes of a claimed try: sent or not, and answered now, later or never."""
        if way == "crash before sending":
            return
        if way == "not sent":
            row = Connector.objects.get(key=claim.case.connector)
            receipt = sending.misconfigured(token, row, Misconfigured("url", "was not reached in time"))
        else:
            self.behave(way)
            before = len(self.receiver.log)
            (receipt,) = send()
            self.count(before, [receipt])
            if claim.request:
                self.arrived[claim.request.pk] += receipt.bytes_sent > 0
        if way == "crash after sending":
            return
        self.sent.append(Sent(claim, receipt, record))
        if now:
            self.hear(self.sent[-1])

    def behave(self, way: str) -> None:
        """What the receiver does from now on."""
        for path in (*KEYS, "other"):
            self.receiver.behave(f"/{path}", **WAYS[way])

    def count(self, before: int, receipts: Iterable[Receipt]) -> None:
        """As much arrived since the log had ``before`` entries as left by these receipts."""
        left = sum(receipt.bytes_sent > 0 for receipt in receipts)
        assert len(self.receiver.log) - before == left, "more or less arrived than left"
        self.arrivals += left

    def hear(self, sent: Sent) -> None:
        """A receipt comes, in time, late or once more."""
        against = self.model.against_recording(sent.claim)
        late = "late answer" if sent.claim.about else "answer"
        if self.does(late, lambda: (sent.record(sent.receipt),), against):
            self.model.record(sent.claim, sent.receipt)

    @precondition(lambda self: any(not one.claim.heard for one in self.sent))
    @step(number=numbers, again=st.sampled_from([False, False, True]))
    def answer(self, number: int, again: bool) -> None:
        """A receipt comes; sometimes it is then recorded once more, as after a commit whose answer was lost."""
        waiting = [one for one in self.sent if not one.claim.heard]
        sent = waiting[number % len(waiting)]
        self.hear(sent)
        if again:
            self.note_time()
            self.hear(sent)

    @precondition(lambda self: any(self.under_way()))
    @step(number=numbers, heard=st.booleans())
    def run_out_of_lease(self, number: int, heard: bool) -> None:
        """What is under way is not heard of in time; its answer may come right afterwards."""
        waiting = {sent.claim for sent in self.sent}
        found = [claim for claim in self.under_way() if claim in waiting or not heard]
        found = found or list(self.under_way())
        claim = found[number % len(found)]
        self.set_clock(max(self.model.at, claim.lease_until + timedelta(seconds=1)))
        self.sweep("leases")
        for sent in self.sent:
            if sent.claim is claim and heard:
                self.note_time()
                self.hear(sent)

    def under_way(self) -> Iterator[Claim]:
        """Tries that were claimed and nobody heard of yet."""
        for case in self.model.cases:
            if case.state is CaseState.SENDING:
                yield case.claims[-1]

    @precondition(has_requests)
    @step(number=numbers, who=operators, sent=run_policies, way=ways, now=at_once)
    def execute(self, number: int, who: str, sent: Mapping[str, Any], way: str, now: bool) -> None:
        self.take(*self.some_request(number, EntryState.APPROVED), who, sent, way, now=now)

    def take(
        self, case: Sheet, request: Request, who: str, sent: Mapping[str, Any], way: str, *, now: bool
    ) -> None:
        """A process runs one retry, and may crash over it."""
        model, by = self.model, self.person(who)
        asked = RunRequest(dry_run=False, policy=sent, cases=(case.case_id,))
        started = self.does(
            "run",
            lambda: runs.start(asked, by=by, clock=self.clock),
            model.against_role(who, "run") or model.against_policy(sent),
        )
        if started is None:
            return
        if request.state is EntryState.CLAIMED:
            assert claims.claim(request.pk, started.run, clock=self.clock) is Passed.USED
            self.end(started.run)
            return
        model.recount(request)
        code = model.against_claim(case, request, sent)
        done = claims.claim(request.pk, started.run, clock=self.clock)
        if isinstance(done, Claimed):
            assert not code, f"claimed, expected {code}"
            claim = self.claimed(case, request, who, done.execution)
            self.try_it(
                claim,
                way,
                now=now,
                token=done.spec.token,
                send=lambda: sender.shared().send_all([done.spec], deadline_s=10),
                record=lambda receipt: outcomes.record([(done.execution.pk, receipt)], clock=self.clock),
            )
            if now and not way.startswith("crash"):
                self.end(started.run)
        else:
            assert isinstance(done, Skipped)
            self.skipped(request, done, code)
            self.end(started.run)

    def end(self, run: WorkerRun) -> None:
        """The process of a run ends it; that of a crashed one does not, and its lease runs out."""
        move(
            transitions.RUNS,
            run.pk,
            RunState.FINISHED,
            finished_at=self.clock(),
            lease_until=None,
        )

    def claimed(self, case: Sheet, request: Request, who: str, execution: Execution) -> Claim:
        """A claim was made: with enough votes of people who may vote, all given before (P4)."""
        newest: dict[int, Vote] = {}
        for vote in Vote.objects.filter(entry=request.pk).select_related("person", "account").order_by("pk"):
            newest[vote.person_id] = vote
        counted = [
            vote
            for vote in newest.values()
            if vote.state == ApprovalState.APPROVED
            and vote.decided_at <= execution.claimed_at
            and vote.manifest_digest == execution.entry.manifest_digest
            and all(
                who.is_active and not (who.last_deactivated_at and who.last_deactivated_at >= vote.decided_at)
                for who in (vote.person, vote.account)
            )
        ]
        parties = set(EntryParty.objects.filter(entry=request.pk).values_list("person_id", flat=True))
        assert not {vote.person_id for vote in counted} & parties, "a party's vote was counted"
        assert len(counted) >= request.required, "claimed with too few votes"
        claim = self.model.claim(who, case, request, execution.lease_until)
        self.executions[execution.pk] = claim
        self.stage.acts.setdefault("claim", Counter())["accepted"] += 1
        return claim

    def skipped(self, request: Request, skip: Skipped, code: str) -> None:
        """A claim was not made, for the reason that the model has; a changed manifest ends the request."""
        assert skip.code == code, f"skipped as {skip.code} ({skip.reason}), expected {code or 'a claim'}"
        self.stage.acts.setdefault("claim", Counter())["refused"] += 1
        self.stage.ended[f"skip: {skip.code}"] += 1
        if code == "manifest_changed":
            request.state = EntryState.VOID

    @precondition(lambda self: any(one.state is EntryState.APPROVED for _, one in self.requests()))
    @step(who=operators, sent=run_policies, way=answers)
    def run_over_everything(self, who: str, sent: Mapping[str, Any], way: str) -> None:
        self.run_all(who, sent, way)

    def run_all(self, who: str, sent: Mapping[str, Any], way: str) -> None:
        """A live run with the real pump over all that is approved."""
        by = self.person(who)
        asked = RunRequest(dry_run=False, policy=sent, max_retry_deliveries=25)
        approved = [request for _, request in self.requests() if request.state is EntryState.APPROVED]
        started = self.does(
            "run over everything",
            lambda: runs.start(asked, by=by, clock=self.clock),
            self.model.against_role(who, "run") or self.model.against_policy(sent),
        )
        if started is not None:
            self.pump(started.run, approved, who, sent, way)

    def pump(
        self, run: WorkerRun, requests: Iterable[Request], who: str, sent: Mapping[str, Any], way: str
    ) -> None:
        """Execute a run that was taken, and hold what it did with each request against the model."""
        case_of = {request: case for case, request in self.requests()}
        expected: dict[int, str] = {}
        for request in requests:
            if request.state is not EntryState.CLAIMED:
                self.model.recount(request)
                expected[request.pk] = self.model.against_claim(case_of[request], request, sent)
        self.behave(way)
        before = len(self.receiver.log)
        outcome = runs.execute(run, clock=self.clock, seconds=60)
        self.count(before, [one.receipt for one in outcome.recorded])
        assert outcome.left == []
        by_pk = {request.pk: request for request in case_of}
        skipped = {skip.entry.pk: skip for skip in outcome.skipped}
        recorded = {one.execution.entry_id: one for one in outcome.recorded}
        assert {*skipped, *recorded} == {*expected}
        for pk, one in recorded.items():
            assert not expected[pk], f"claimed, expected {expected[pk]}"
            request, execution = by_pk[pk], Execution.objects.select_related("entry").get(pk=one.execution.pk)
            claim = self.claimed(case_of[request], request, who, execution)
            self.arrived[pk] += one.receipt.bytes_sent > 0
            self.model.record(claim, one.receipt)
        for pk, skip in skipped.items():
            # What came of the first ones may hold the others back.
            meanwhile = self.model.waits(case_of[by_pk[pk]].connector)
            self.skipped(by_pk[pk], skip, expected[pk] or (skip.code if skip.code in meanwhile else ""))

    @precondition(lambda self: self.model.queued is None)
    @step(who=operators, sent=run_policies)
    def leave_to_the_worker(self, who: str, sent: Mapping[str, Any]) -> None:
        by = self.person(who)
        asked = RunRequest(dry_run=False, policy=sent, max_retry_deliveries=25, background=True)
        approved = [request for _, request in self.requests() if request.state is EntryState.APPROVED]
        if self.does(
            "leave to the worker",
            lambda: runs.start(asked, by=by, clock=self.clock),
            self.model.against_role(who, "run") or self.model.against_policy(sent),
        ):
            self.model.queued = Queued(who, sent, approved)

    @precondition(lambda self: self.model.queued is not None)
    @step(way=answers)
    def worker_runs(self, way: str) -> None:
        self.work_off(way)

    def work_off(self, way: str) -> None:
        """The worker executes the run that was left to it, unless who asked may not any more."""
        queued, self.model.queued = self.model.queued, None
        assert queued
        run = WorkerRun.objects.get(state=RunState.QUEUED)
        if self.model.against_role(queued.by, "run"):
            assert runs.execute_due(clock=self.clock) == 1
            run.refresh_from_db()
            assert run.state == RunState.FINISHED
        else:
            runs.take(run, clock=self.clock)
            self.pump(run, queued.requests, queued.by, queued.policy, way)

    # --- decisions ------------------------------------------------------------------------------------------------

    @step(number=numbers, everything=st.booleans(), who=analysts, sent=plan_policies)
    def plan(self, number: int, everything: bool, who: str, sent: Mapping[str, Any]) -> None:
        self.plan_for(self.model.cases if everything else [self.case(number)], who, sent)

    def plan_for(self, cases: list[Sheet], who: str, sent: Mapping[str, Any]) -> None:
        by, named = self.person(who), [case.case_id for case in cases]
        draft = self.does(
            "plan",
            lambda: retry_plans.plan(sent, by=by, clock=self.clock, cases=named),
            self.model.against_role(who, "analyse") or self.model.against_policy(sent),
        )
        if draft:
            self.model.plan(who, sent, cases)
            for case in cases:
                if case.state is CaseState.FAILED:
                    case.plan_id = draft.record_id

    @precondition(lambda self: any(case.plan_id for case in self.model.cases))
    @step(
        number=numbers,
        who=analysts,
        state=st.sampled_from([RetryAckState.ACCEPTED, RetryAckState.ACCEPTED, *RetryAckState]),
    )
    def acknowledge(self, number: int, who: str, state: RetryAckState) -> None:
        planned = [case for case in self.model.cases if case.plan_id]
        self.acknowledge_for(planned[number % len(planned)], who, state)

    def acknowledge_for(self, case: Sheet, who: str, state: RetryAckState) -> None:
        by, row = self.person(who), self.row(case)
        plan = RetryPlan.objects.get(retry_plan_id=case.plan_id)
        review = Review(provider=case.connector, state=state, delivery_id=row.plan.delivery_id)
        if self.does(
            "acknowledge",
            lambda: retry_plans.acknowledge(plan, review, by=by, clock=self.clock),
            self.model.against_acknowledging(who, case, state),
        ):
            self.model.acknowledge(who, case, state)

    @step(
        number=numbers, everything=st.booleans(), who=analysts, needs_ack=st.sampled_from([True, True, False])
    )
    def request(self, number: int, everything: bool, who: str, needs_ack: bool) -> None:
        cases = self.model.cases if everything else [self.case(number)]
        self.request_for(cases, who, needs_ack=needs_ack)

    def request_for(self, cases: list[Sheet], who: str, *, needs_ack: bool = True) -> None:
        by, named = self.person(who), [case.case_id for case in cases]
        draft = self.does(
            "request",
            lambda: approval_plans.request(by=by, clock=self.clock, require_retry_ack=needs_ack, cases=named),
            self.model.against_role(who, "analyse"),
        )
        if draft is None:
            return
        known = [request.pk for _, request in self.requests()]
        new = dict(ApprovalEntry.objects.exclude(pk__in=known).values_list("case__case_id", "pk"))
        due = {case.case_id: case for case in self.model.request(who, cases, needs_ack=needs_ack)}
        assert new.keys() == due.keys(), "asked for approval of other cases than expected"
        for case_id, case in due.items():
            self.model.write_request(new[case_id], who, case, needs_ack=needs_ack)

    @precondition(has_requests)
    @step(
        number=numbers,
        who=approvers,
        state=st.sampled_from([ApprovalState.APPROVED, ApprovalState.APPROVED, *ApprovalState]),
        shown=st.booleans(),
    )
    def vote(self, number: int, who: str, state: ApprovalState, shown: bool) -> None:
        case, request = self.some_request(number, EntryState.PENDING, EntryState.APPROVED)
        self.vote_on(case, request, who, state, shown=shown)

    def vote_on(
        self, case: Sheet, request: Request, who: str, state: ApprovalState, *, shown: bool = True
    ) -> None:
        by, entry = self.person(who), approvals.entries().get(pk=request.pk)
        ballot = Ballot(state=state, notes="said why", manifest_digest=entry.manifest_digest if shown else "")
        against = self.model.against_vote(who, case, request, state)
        if self.does("vote", lambda: approvals.decide(entry, ballot, by=by, clock=self.clock), against):
            self.model.vote(who, request, state)
        elif against == ["manifest_changed"]:
            request.state = EntryState.VOID

    @precondition(has_requests)
    @step(number=numbers, who=analysts, own=st.booleans())
    def withdraw(self, number: int, who: str, own: bool) -> None:
        _, request = self.some_request(number, EntryState.PENDING, EntryState.APPROVED)
        self.withdraw_it(request, request.requester if own else who)

    def withdraw_it(self, request: Request, who: str) -> None:
        by, entry = self.person(who), approvals.entries().get(pk=request.pk)
        ballot = Ballot(state=ApprovalState.DENIED, notes="asked too early")
        if self.does(
            "withdraw",
            lambda: approvals.withdraw(entry, ballot, by=by, clock=self.clock),
            self.model.against_withdrawing(who, request),
        ):
            request.state = EntryState.WITHDRAWN

    @precondition(lambda self: any(one.state is EntryState.EXPIRED for _, one in self.requests()))
    @step(number=numbers, who=approvers)
    def renew(self, number: int, who: str) -> None:
        self.renew_it(*self.some_request(number, EntryState.EXPIRED), who)

    def renew_it(self, case: Sheet, request: Request, who: str) -> None:
        by, entry = self.person(who), approvals.entries().get(pk=request.pk)
        ballot = Ballot(state=ApprovalState.APPROVED)
        against = self.model.against_renewing(who, case, request)
        if self.does("renew", lambda: renewals.renew([entry], ballot, by=by, clock=self.clock), against):
            new = ApprovalEntry.objects.get(renews=request.pk)
            self.model.renew(new.pk, who, case, request)
        elif against == ["manifest_changed"]:
            request.state = EntryState.VOID

    # --- people settle --------------------------------------------------------------------------------------------

    @precondition(lambda self: any(case.state is CaseState.UNKNOWN for case in self.model.cases))
    @step(number=numbers, who=mostly("ana", "ben", "amy", "tom", "ola"), seen=st.sampled_from(Seen))
    def attest(self, number: int, who: str, seen: Seen) -> None:
        unknown = [case for case in self.model.cases if case.state is CaseState.UNKNOWN]
        found = unknown if number < 9 else self.model.cases
        self.attest_to(found[number % len(found)], who, seen)

    def attest_to(self, case: Sheet, who: str, seen: Seen) -> None:
        by, row = self.person(who), self.row(case)
        statement = Statement(seen, external_ref="INC-1")
        if self.does(
            "attest",
            lambda: reconciliations.attest(row, statement, by=by, clock=self.clock),
            self.model.against_attesting(who, case),
        ):
            self.model.attest(who, case, seen)

    @step(number=numbers, who=mostly("ana", "tom"))
    def propose_to_abandon(self, number: int, who: str) -> None:
        self.propose(self.case(number), who)

    def propose(self, case: Sheet, who: str) -> None:
        by, row = self.person(who), self.row(case)
        proposal = Proposed(DispositionKind.ABANDONED, reason="no longer wanted", external_ref="DEC-1")
        draft = self.does(
            "propose to abandon",
            lambda: dispositions.propose(row, proposal, by=by, clock=self.clock),
            self.model.against_proposing(who, case),
        )
        if draft:
            case.proposals.append(Proposal(draft.record_id, who, self.model.at, len(case.tries)))

    @precondition(lambda self: any(case.proposal for case in self.model.cases))
    @step(number=numbers, who=approvers, confirmed=st.booleans())
    def decide_on_proposal(self, number: int, who: str, confirmed: bool) -> None:
        proposed = [case for case in self.model.cases if case.proposal]
        self.decide_proposal(proposed[number % len(proposed)], who, confirmed=confirmed)

    def decide_proposal(self, case: Sheet, who: str, *, confirmed: bool) -> None:
        by, proposal = self.person(who), case.proposal
        assert proposal
        row = dispositions.disposition_by_id(proposal.record_id)
        against = self.model.against_confirming(who, case, proposal, confirmed=confirmed)
        if confirmed:
            if self.does("confirm", lambda: dispositions.confirm(row, by=by, clock=self.clock), against):
                self.model.confirm(case, proposal)
        elif self.does(
            "refuse", lambda: dispositions.refuse(row, by=by, clock=self.clock, notes="wanted"), against
        ):
            proposal.state = DispositionState.REFUSED

    # --- people, configuration, clocks ----------------------------------------------------------------------------

    @step(who=approvers, active=st.booleans())
    def activate(self, who: str, active: bool) -> None:
        self.set_active(who, active=active)

    def set_active(self, who: str, *, active: bool) -> None:
        actor, at = self.model.actors[who], self.model.at
        changed = people.set_active(self.person(who), active, by=None, clock=self.clock)
        assert changed == (actor.active is not active)
        if changed:
            actor.active = active
            actor.deactivated = actor.deactivated if active else at

    @step(who=approvers, held=st.booleans())
    def change_role(self, who: str, held: bool) -> None:
        self.set_approver(who, held=held)

    def set_approver(self, who: str, *, held: bool) -> None:
        roles, at = self.model.actors[who].roles, self.model.at
        change = people.grant_role if held else people.revoke_role
        changed = change(self.person(who), Role.APPROVER, by=None, clock=self.clock)
        assert changed == ((Role.APPROVER in roles) is not held)
        if changed and held:
            roles[Role.APPROVER] = at
        elif changed:
            del roles[Role.APPROVER]

    @step(
        key=st.sampled_from(KEYS),
        what=st.sampled_from(
            [
                "title",
                "timeout_ms",
                "url",
                "service",
                "required_approvals",
                "enabled",
                "secret",
                "paused",
                "all paused",
            ]
        ),
        who=administrators,
    )
    def edit_connector(self, key: str, what: str, who: str) -> None:
        """Change the row, the secret behind it or its pause switch; mostly it can be used again soon."""
        if what == "secret":
            self.set_secret({"first": "second", "second": "", "": "first"}[self.model.secrets[KEYS[0]]])
            return
        if what in ("paused", "all paused"):
            scope = key if what == "paused" else "*"
            self.set_paused(scope, paused=scope not in self.model.paused)
            return
        self.edits += 1
        now = self.model.connectors[key]
        urls = [self.receiver.url(f"/{key}"), self.receiver.url("/other"), NOWHERE]
        value: Any = {
            "title": f"title {self.edits}",
            "timeout_ms": 9_000 + self.edits,
            "url": urls[(urls.index(now["url"]) + 1) % len(urls)],
            "service": "" if now["service"] else "desk",
            "required_approvals": now["required_approvals"] % 2 + 1,
            "enabled": not now["enabled"],
        }[what]
        self.configure(key, who, **{what: value})

    def configure(self, key: str, who: str, **values: Any) -> None:
        """Save a connector; without ``who`` from the command line."""
        row, by = Connector.objects.get(key=key), self.person(who) if who else None
        changed = {name: value for name, value in values.items() if getattr(row, name) != value}
        for name, value in values.items():
            setattr(row, name, value)
        against = self.model.against_role(who, "configure") if who else []
        if self.does("edit connector", lambda: configuration.save(row, by=by, clock=self.clock), against):
            self.model.connectors[key].update(changed)
            if who and changed.keys() - {"title"}:
                self.model.connector_edits[key].append((self.model.at, who))

    @step(
        change=st.sampled_from(
            [
                {"max_retry_attempts": 2},
                {"max_retry_attempts": 3},
                {"max_retry_attempts": 6},
                {"retry_delay_minutes": 15},
                {"retry_delay_minutes": 30},
                {"allow_immediate_retry": False},
                {"allow_immediate_retry": True},
                {"approve_within_minutes": 60},
                {"execute_within_minutes": 30},
            ]
        ),
        who=administrators,
    )
    def edit_policy(self, change: Mapping[str, Any], who: str) -> None:
        self.configure_policy(change, who)

    def configure_policy(self, change: Mapping[str, Any], who: str) -> None:
        row, by = RetryPolicy.objects.get(), self.person(who) if who else None
        for name, value in change.items():
            setattr(row, name, value)
        against = self.model.against_role(who, "configure") if who else []
        if self.does("edit policy", lambda: configuration.save(row, by=by, clock=self.clock), against):
            if who and change.items() - self.model.policy.items():
                self.model.policy_edits.append((self.model.at, who))
            self.model.policy.update(change)

    def set_secret(self, value: str) -> None:
        os.environ[SECRET] = self.model.secrets[KEYS[0]] = value

    def set_paused(self, scope: str, *, paused: bool) -> None:
        by = Person.objects.get(pk=self.stage.people[BACKSTAGE])
        if paused:
            configuration.pause(scope, reason="looking into it", by=by, clock=self.clock)
            self.model.paused.add(scope)
        else:
            configuration.resume(scope, by=by, clock=self.clock)
            self.model.paused.discard(scope)

    @step(
        by=st.sampled_from(
            [
                *(timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=1)),
                *(timedelta(minutes=16), timedelta(minutes=35), timedelta(hours=5), timedelta(hours=25)),
                *(timedelta(seconds=-30), timedelta(minutes=-2), timedelta(hours=-3)),
            ]
        )
    )
    def move_clock(self, by: timedelta) -> None:
        self.set_clock(self.clock.at + by)

    @precondition(lambda self: self.model.now < self.model.newest)
    @step()
    def set_clock_right(self) -> None:
        self.set_clock(self.model.newest)

    def set_clock(self, at: datetime) -> None:
        self.clock.at = self.model.now = at

    # --- the worker -----------------------------------------------------------------------------------------------

    @step(name=st.sampled_from(["approvals", "votes", "settled", "leases"]))
    def worker(self, name: str) -> None:
        self.sweep(name)

    def sweep(self, name: str) -> None:
        """One step of the worker; it does as much as the model says."""
        model = self.model
        if name == "approvals":
            due = [request for _, request in self.requests() if model.is_overdue(request)]
            for request in due:
                request.state = EntryState.EXPIRED
            assert approvals.expire(clock=self.clock) == len(due)
        elif name == "votes":
            fell_back = [model.recount(request) for _, request in self.requests()]
            assert approvals.recount_all(clock=self.clock) == sum(fell_back)
        elif name == "settled":
            cancelled = [
                model.cancel(case) for case in model.cases if case.state in SETTLED and case.open_request
            ]
            assert approvals.cancel_settled(clock=self.clock) == len(cancelled)
        else:
            runs.expire_leases(clock=self.clock)
            given_up = sum(model.give_up(claim) for case in model.cases for claim in case.claims)
            done = deliveries.expire_leases(clock=self.clock) + outcomes.expire_leases(clock=self.clock)
            assert done == given_up

    # --- getting somewhere ----------------------------------------------------------------------------------------

    @step(number=numbers, acts=st.integers(min_value=1, max_value=5), way=ways, now=at_once)
    def onward(self, number: int, acts: int, way: str, now: bool) -> None:
        """Several times what a case waits for, by people whose act it is."""
        self.carry_on(number, acts, way, now=now)

    @step(number=numbers)
    def get_approved(self, number: int) -> None:
        """All that is due about a case before somebody may execute it."""
        for _ in range(5):
            if self.model.due(self.case(number), self.queued()) in (None, Act.EXECUTE):
                break
            self.act_on(self.case(number), "", now=True)
            self.note_time()

    @precondition(lambda self: any(one.is_open for _, one in self.requests()))
    @step(number=numbers, swept=st.booleans(), who=st.sampled_from(["", "tom", "ola"]))
    def let_it_run_out(self, number: int, swept: bool, who: str) -> None:
        """Nobody decides or executes in time; the worker may have noticed, and somebody renews it then."""
        case, request = self.some_request(number, EntryState.PENDING, EntryState.APPROVED)
        if request.is_open and request.deadline:
            self.set_clock(max(self.model.at, request.deadline + timedelta(seconds=1)))
        if swept or who:
            self.sweep("approvals")
        if who and request.state is EntryState.EXPIRED:
            self.note_time()
            self.renew_it(case, request, who)

    def queued(self) -> list[Request]:
        """Requests that a run left to the worker is about to claim."""
        return self.model.queued.requests if self.model.queued else []

    def carry_on(self, number: int, acts: int, way: str, *, now: bool) -> None:
        for _ in range(acts):
            self.act_on(self.case(number), way, now=now)
            self.note_time()

    def act_on(self, case: Sheet, way: str, *, now: bool) -> None:
        """What a case waits for, done by the first whose act it is."""
        model, request = self.model, case.open_request
        queued = self.queued()
        match model.due(case, queued):
            case Act.PLAN:
                self.plan_for([case], "ana", IMMEDIATE if model.policy["allow_immediate_retry"] else {})
            case Act.ACKNOWLEDGE:
                self.acknowledge_for(case, "ben", RetryAckState.ACCEPTED)
            case Act.REQUEST:
                self.request_for([case], "ana")
            case Act.DECIDE:
                assert request
                approve = ApprovalState.APPROVED
                able = [who for who in CAST if not model.against_vote(who, case, request, approve)]
                if able:
                    self.vote_on(case, request, able[0], approve)
                else:
                    self.withdraw_it(request, request.requester)
            case Act.EXECUTE:
                assert request
                sent = IMMEDIATE if model.policy["allow_immediate_retry"] else {}
                self.wait_for_the_window(case, request, sent)
                self.take(case, request, "ida", sent, way, now=now)
            case Act.ATTEST:
                able = [who for who in CAST if not model.against_attesting(who, case)]
                first = next(who for who in able if Role.APPROVER in model.actors[who].roles)
                second = next(who for who in able if model.human(who) != model.human(first))
                for who in (first, second):
                    if case.state is CaseState.UNKNOWN:
                        self.attest_to(case, who, Seen.NOT_DELIVERED)
            case _ if case.state is CaseState.PARKED:
                self.wait_for_the_connector(case)
                self.release(case, way, now=now)
            case _ if request in queued and case.state is CaseState.FAILED:
                self.work_off("failed")
            case _ if case.decision and case.decision.suppressed and case.state is CaseState.FAILED:
                self.out_of_tries(case)

    def wait_for_the_window(self, case: Sheet, request: Request, sent: Mapping[str, Any]) -> None:
        """Nobody tries before: until the window opens, by a clock that is right."""
        if self.model.is_behind:
            self.set_clock(self.model.newest)
        if self.model.brakes[case.connector].probe_at:
            self.send_canary(case.connector, got_through=True)
        if self.model.against_claim(case, request, sent) == SkipCode.RETRY_WINDOW_NOT_OPEN:
            self.set_clock(self.model.limits(case, request, sent)[1])

    def wait_for_the_connector(self, case: Sheet) -> None:
        """Until its breaker is closed and its receiver wants to hear of us again, by a clock that is right."""
        if self.model.is_behind:
            self.set_clock(self.model.newest)
        if self.model.brakes[case.connector].probe_at:
            self.send_canary(case.connector, got_through=True)
        if until := self.model.brakes[case.connector].held_until:
            self.set_clock(max(self.model.at, until))

    def out_of_tries(self, case: Sheet) -> None:
        """The administrator allows more tries, or two people settle it without one."""
        if case.counted < MOST_TRIES:
            self.configure_policy({"max_retry_attempts": MOST_TRIES}, "adm")
            self.plan_for([case], "ana", {})
        else:
            self.propose(case, "ana")
            self.set_clock(self.model.at + timedelta(seconds=1))
            self.decide_proposal(case, "tom", confirmed=True)

    # --- the end --------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.agrees:
                self.repair()
                self.settle_everything()
                connection.check_constraints()
                assert_receiver_agrees(self.stage)  # type: ignore[arg-type]
                assert_ledger_verifies()
                assert set(Record.objects.values_list("kind", flat=True)) <= set(KINDS)
                self.stage.walks += 1
                for case in self.model.cases:
                    self.stage.ended[f"case: {case.state} after {len(case.tries)}"] += 1
        finally:
            transaction.set_rollback(True)
            self.transaction.__exit__(None, None, None)

    def repair(self) -> None:
        """Everybody is back, everything is configured, and the worker has made its round two days later."""
        self.set_clock(self.model.at + timedelta(days=2))
        for who, roles in CAST.items():
            self.set_active(who, active=True)
            if Role.APPROVER in roles:
                self.set_approver(who, held=True)
        for key in KEYS:
            self.configure(key, "", url=self.receiver.url(f"/{key}"), enabled=True)
        self.configure_policy({"max_retry_attempts": MOST_TRIES, "allow_immediate_retry": True}, "")
        for scope in ("*", *KEYS):
            self.set_paused(scope, paused=False)
        self.set_secret("first")
        if self.model.queued:
            self.work_off("delivered")
        self.set_clock(self.model.at + timedelta(minutes=1))
        for name in ("leases", "approvals", "votes", "settled"):
            self.sweep(name)
        self.check()

    def settle_everything(self) -> None:
        """Nothing is a dead end: what is due is done until every case is settled (P8)."""
        for _ in range(20):
            self.set_clock(self.model.at + timedelta(minutes=1))
            due: dict[Act | None, list[Sheet]] = {}
            for case in self.model.cases:
                if case.state not in SETTLED:
                    due.setdefault(self.model.due(case, []), []).append(case)
            if not due:
                break
            if planned := due.pop(Act.PLAN, None):
                self.plan_for(planned, "ana", IMMEDIATE)
            if requested := due.pop(Act.REQUEST, None):
                self.request_for(requested, "ana")
            for case in (approved := due.pop(Act.EXECUTE, [])):
                if case.open_request:
                    self.wait_for_the_window(case, case.open_request, IMMEDIATE)
            if approved:
                self.run_all("ida", IMMEDIATE, "delivered")
            for case in [case for cases in due.values() for case in cases]:
                self.act_on(case, "delivered", now=True)
        waiting = [case for case in self.model.cases if case.state not in SETTLED]
        assert not waiting, f"these never get anywhere: {waiting}"
        self.check()


# --- the test -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(
    db: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Stage:
    """People, two connectors and an announcement; everything that is sent tells the time of the walk's clock."""
    request.config.stash[REPORT].note_database()
    monkeypatch.setenv(SECRET, "first")
    made: dict[str, Person] = {}
    for name, roles in CAST.items():
        made[name] = person(*roles, name=name, owner=made[OWNERS[name]] if name in OWNERS else None)
    made[BACKSTAGE] = person(Role.ANALYST, Role.ADMINISTRATOR, name=BACKSTAGE)
    for key in KEYS:
        connector(key, receiver.url(f"/{key}"), token_ref=f"env:{SECRET}" if key == KEYS[0] else "")
    configuration.save(RetryPolicy(), by=None, clock=system_clock)
    drills.announce(schedule(providers=KEYS[:1]), by=made[BACKSTAGE], clock=system_clock, retries=0)
    clock = Clock(datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1))

    class WalksTime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return clock()

    monkeypatch.setattr(progress, "datetime", WalksTime)
    # By that clock a try takes no time: the same walk is the same walk on a slow machine.
    monkeypatch.setattr(sender, "timedelta", lambda **_: timedelta())
    monkeypatch.setattr(sending, "datetime", WalksTime)
    grants = RoleGrant.objects.values_list("person__username", "role", "granted_at")
    roles_since: dict[str, dict[Role, datetime]] = {name: {} for name in made}
    for name, role, at in grants:
        roles_since[name][Role(role)] = at
    return Stage(
        receiver=receiver,
        clock=clock,
        started=clock(),
        people={name: one.pk for name, one in made.items()},
        roles=roles_since,
        heard=len(receiver.log),
    )


@pytest.mark.slow
def test_whatever_happens_the_product_does_what_the_model_says(stage: Stage, tally: Tally) -> None:
    staged = type("Walk", (Walk,), {"stage": stage})
    how = settings(
        max_examples=140 if in_full() else 10,
        stateful_step_count=50 if in_full() else 30,
        # The short form walks the same ways every time; a full run finds new ones and prints what failed.
        derandomize=not in_full(),
        database=None,
        deadline=None,
        print_blob=in_full(),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(staged, settings=how)
    for name, count in sorted(stage.steps.items()):
        tally.row("State machine: steps", rule=name.replace("_", " "), steps=count)
    tally.row("State machine: steps", rule=f"all, in {stage.walks} walks", steps=stage.steps.total())
    for name, ended in sorted(stage.acts.items()):
        tally.row(
            "State machine: acts", act=name, accepted=ended["accepted"], refused_as_expected=ended["refused"]
        )
    for name, count in sorted(stage.ended.items()):
        tally.row("State machine: what came of it", what=name, times=count)
    assert stage.steps.total() >= (5_000 if in_full() else 150)
