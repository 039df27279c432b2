"""What ought to be: the chain from a delivery to a settled case as plain values, without a database.

The state machine does everything twice, to the product and to this model, and compares. An ``against_…`` method
lists the codes an act may be refused with (none: it is accepted); the method of the act itself then says what it
changes. ``now`` is the machine's clock, ``newest`` the time of the log's newest entry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from evidence.enums import Answer, CaseState, Outcome, Role
from evidence.errors import Conflict
from recovery.domain.retry_policies import Policy, tightened
from recovery.enums import (
    OPEN_ENTRY_STATES,
    Act,
    ApprovalState,
    DispositionState,
    EntryState,
    ExecutionState,
    RetryAckState,
    Seen,
    SkipCode,
)

ACCEPTING = (RetryAckState.ACCEPTED, RetryAckState.RESOLVED)
SETTLED = (CaseState.DELIVERED, CaseState.SUPERSEDED, CaseState.ABANDONED)
SEEN_AS = {
    Seen.DELIVERED: (Outcome.DELIVERED, True),
    Seen.NOT_DELIVERED: (Outcome.FAILED, False),
    Seen.UNDETERMINED: (Outcome.FAILED, True),
}
# Why a case that is not failed is not settled without a delivery.
NOT_FAILED = {CaseState.UNKNOWN: "outcome_unknown", CaseState.SENDING: "sending"}
# What can be settled by two people without a delivery.
UNDELIVERED = (CaseState.FAILED, CaseState.PARKED)
# What a delivery of the same content is refused with, where it is not unsettled.
HELD_AS = {CaseState.PARKED: "delivery_parked", CaseState.ABANDONED: "delivery_abandoned"}
# Failures that say nothing about the receiver.
SPARED = {"", "blocked_address", "auth_setup", "rejected", "misconfigured", "disabled", "breaker_open"}
# How many in a row open a breaker, and how long the first and the longest canary is waited for.
IN_A_ROW, COOL_DOWN, LONGEST = 5, timedelta(seconds=60), timedelta(minutes=30)
# So much of ``Model.wire`` is the connector's row itself; the rest is its secret and what is known of the tries.
CONFIGURED = 3
# Who may do what, by what they are called to do.
MAY = {
    "analyse": {Role.ANALYST},
    "decide": {Role.APPROVER},
    "run": {Role.OPERATOR},
    "attest": {Role.ANALYST, Role.APPROVER},
    "configure": {Role.ADMINISTRATOR},
}


@dataclass
class Actor:
    """A person or, with an ``owner``, a service account; each role since when, and the last deactivation."""

    roles: dict[Role, datetime]
    owner: str = ""
    active: bool = True
    deactivated: datetime | None = None


@dataclass(frozen=True)
class Word:
    """What somebody says came of a try."""

    source: str
    outcome: Outcome
    may_have_arrived: bool
    failure_class: str = ""


@dataclass
class Try:
    """One numbered try of a case: by whom, what its own record says, and what was said later."""

    by: str
    own: Word
    at: datetime
    retry_after_s: int | None = None
    later: list[Word] = field(default_factory=list)
    attested: list[tuple[str, Seen, bool]] = field(default_factory=list)

    @property
    def known(self) -> Word:
        """What is known of it by now: a success that was seen once is not unseen."""
        said = self.later if self.own.outcome is Outcome.UNKNOWN and self.later else [self.own]
        return next((word for word in said if word.outcome is Outcome.DELIVERED), said[-1])


@dataclass
class Decision:
    """An open retry decision."""

    attempt_no: int
    policy: Policy
    not_before: datetime
    suppressed: bool
    ack: str = ""


@dataclass
class Vote:
    """One person's word on a request, through one of their accounts."""

    person: str
    account: str
    state: ApprovalState
    at: datetime


@dataclass(eq=False)
class Request:
    """An approval entry: what was frozen with it, who had a part, and what became of it."""

    pk: int
    decision: Decision
    wire: tuple[Any, ...]
    immediate: bool
    required: int
    needs_ack: bool
    requester: str
    requested_at: datetime
    approve_by: datetime
    within: timedelta
    parties: set[str]
    state: EntryState = EntryState.PENDING
    execute_by: datetime | None = None
    votes: list[Vote] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it can still be voted on or used."""
        return self.state in OPEN_ENTRY_STATES

    @property
    def deadline(self) -> datetime | None:
        """The clock that runs."""
        return self.approve_by if self.state is EntryState.PENDING else self.execute_by

    def add_party(self, person: str) -> None:
        """Somebody had a part in it later; who had approved it before had none."""
        if not any((vote.person, vote.state) == (person, ApprovalState.APPROVED) for vote in self.votes):
            self.parties.add(person)

    def approving(self) -> list[Vote]:
        """Each person's newest word, where that is an approval."""
        newest = {vote.person: vote for vote in self.votes}
        return [vote for vote in newest.values() if vote.state is ApprovalState.APPROVED]


@dataclass(eq=False)
class Claim:
    """A try that somebody claimed; ``request`` is None for a first one. ``heard``: its receipt was recorded."""

    case: "Sheet"
    request: Request | None
    by: str
    lease_until: datetime
    state: ExecutionState = ExecutionState.CLAIMED
    heard: bool = False
    about: Try | None = None


@dataclass
class Proposal:
    """To abandon a case after so many tries; waits for another person."""

    record_id: str
    by: str
    at: datetime
    tries: int
    state: DispositionState = DispositionState.PROPOSED


@dataclass(eq=False)
class Sheet:
    """One case. ``planners`` and ``acknowledgers`` are who had a part, with the try or the time of it."""

    case_id: str
    connector: str
    content: int
    by: str
    created_at: datetime
    state: CaseState = CaseState.SENDING
    last_outcome_at: datetime | None = None
    counted: int = 0
    tries: list[Try] = field(default_factory=list)
    decision: Decision | None = None
    plan_id: str = ""
    planners: list[tuple[int, str]] = field(default_factory=list)
    acknowledgers: list[tuple[datetime, str]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)

    @property
    def open_request(self) -> Request | None:
        """The request that can still be voted on or used."""
        return next((one for one in self.requests if one.is_open), None)

    @property
    def proposal(self) -> Proposal | None:
        """The newest proposal to settle it without a delivery."""
        return self.proposals[-1] if self.proposals else None

    @property
    def arrived(self) -> bool:
        """Whether some try of it is known to have arrived: nothing makes a failure of it any more (P8)."""
        return any(one.known.outcome is Outcome.DELIVERED for one in self.tries)


@dataclass
class Brake:
    """A connector's breaker, open while ``probe_at`` is set, and what its receiver asked for."""

    failures: int = 0
    # What the last canary waited for, until something is delivered.
    cool_down: timedelta = timedelta()
    probe_at: datetime | None = None
    held_until: datetime | None = None


@dataclass
class Queued:
    """A run that waits for the worker."""

    by: str
    policy: Mapping[str, Any]
    requests: list[Request]


class Model:
    """Everything together."""

    def __init__(
        self,
        actors: dict[str, Actor],
        connectors: dict[str, dict[str, Any]],
        *,
        now: datetime,
        newest: datetime,
    ) -> None:
        self.actors = actors
        self.connectors = connectors
        self.secrets = dict.fromkeys(connectors, "first")
        self.brakes = {key: Brake() for key in connectors}
        self.now, self.newest = now, newest
        self.paused: set[str] = set()
        self.policy: dict[str, Any] = {
            "max_retry_attempts": 3,
            "retry_delay_minutes": 15,
            "allow_immediate_retry": True,
            "approve_within_minutes": 24 * 60,
            "execute_within_minutes": 4 * 60,
        }
        self.policy_edits: list[tuple[datetime, str]] = []
        self.connector_edits: dict[str, list[tuple[datetime, str]]] = {key: [] for key in connectors}
        self.cases: list[Sheet] = []
        self.queued: Queued | None = None

    # --- time and people ------------------------------------------------------------------------------------------

    @property
    def at(self) -> datetime:
        """Time for rules."""
        return max(self.now, self.newest)

    @property
    def is_behind(self) -> bool:
        """Whether the clock is too far behind the log for anything live."""
        return self.newest - self.now > timedelta(seconds=60)

    def human(self, name: str) -> str:
        """Who answers for an account."""
        return self.actors[name].owner or name

    def is_active(self, name: str) -> bool:
        """Whether the account and who answers for it are active."""
        return self.actors[name].active and self.actors[self.human(name)].active

    def against_role(self, name: str, act: str) -> list[str]:
        """Whether somebody's roles allow an act of ``MAY``."""
        allowed = self.is_active(name) and MAY[act] & self.actors[name].roles.keys()
        return [] if allowed else ["role_required"]

    def _is_void(self, vote: Vote) -> bool:
        """Whether the account or its human was deactivated since."""
        accounts = [self.actors[name] for name in (vote.person, vote.account)]
        return any(not one.active or (one.deactivated and one.deactivated >= vote.at) for one in accounts)

    def counted(self, request: Request) -> list[Vote]:
        """The approvals of a request that count now."""
        return [vote for vote in request.approving() if not self._is_void(vote)]

    def _eligible(self, parties: set[str]) -> set[str]:
        """Humans who could approve what is asked for now."""
        return {
            self.human(name)
            for name, actor in self.actors.items()
            if Role.APPROVER in actor.roles
            and actor.roles[Role.APPROVER] < self.at
            and self.is_active(name)
            and self.human(name) not in parties
        }

    # --- configuration --------------------------------------------------------------------------------------------

    @property
    def ceiling(self) -> Policy:
        """The administrator's policy."""
        return Policy(
            max_retry_attempts=self.policy["max_retry_attempts"],
            retry_delay_minutes=max(self.policy["retry_delay_minutes"], 1),
            backoff_multiplier=Decimal(2),
            allow_immediate_retry=self.policy["allow_immediate_retry"],
        )

    def against_policy(self, sent: Mapping[str, Any]) -> list[str]:
        """Whether a policy that is sent is looser than the ceiling."""
        try:
            tightened(self.ceiling, sent)
        except Conflict as error:
            return [error.code]
        return []

    def wire(self, case: Sheet) -> tuple[Any, ...]:
        """What a manifest covers: where it goes, as whom, and what is known of the tries before."""
        connector = self.connectors[case.connector]
        return (
            *(connector[name] for name in ("url", "service", "required_approvals")),
            self.secrets[case.connector],
            *(one.known for one in case.tries),
        )

    def against_sending(self, connector: str) -> list[str]:
        """Why nothing live is sent to a connector now."""
        reasons = ["sending_paused"] if self.paused & {"*", connector} else []
        reasons += [] if self.connectors[connector]["enabled"] else ["connector_disabled"]
        return reasons + (["clock_behind"] if self.is_behind else [])

    # --- what holds a connector back ------------------------------------------------------------------------------

    def waits(self, connector: str) -> list[str]:
        """Why a send to a connector waits, the longest first."""
        brake = self.brakes[connector]
        found = [(brake.probe_at, "breaker_open")] if brake.probe_at else []
        if brake.held_until and brake.held_until > self.at:
            found.append((brake.held_until, "throttled"))
        return [code for _, code in sorted(found, key=lambda one: one[0], reverse=True)]

    def hear(self, connector: str, receipt: Any) -> None:
        """A receipt in time moves the breaker, unless it is open."""
        brake, failure = self.brakes[connector], receipt.failure_class or ""
        if failure == "throttled" and receipt.retry_after_s:
            until = self.at + timedelta(seconds=receipt.retry_after_s)
            brake.held_until = max(brake.held_until or until, until)
            brake.probe_at = brake.probe_at and max(brake.probe_at, until)
        if brake.probe_at:
            return
        if receipt.delivered:
            brake.failures, brake.cool_down = 0, timedelta()
        elif failure not in SPARED:
            brake.failures += 1
            if brake.failures == IN_A_ROW:
                self._cool(brake)

    def canary(self, connector: str, *, got_through: bool) -> None:
        """What a canary came to whose turn it was."""
        brake = self.brakes[connector]
        if got_through:
            self.brakes[connector] = Brake(cool_down=brake.cool_down)
        else:
            self._cool(brake)

    def _cool(self, brake: Brake) -> None:
        brake.cool_down = min(2 * brake.cool_down or COOL_DOWN, LONGEST)
        brake.probe_at = max(self.at + brake.cool_down, brake.held_until or self.at)

    def against_release(self, case: Sheet) -> list[str]:
        """Why a parked first try goes on waiting."""
        reasons = [*self.against_role(case.by, "analyse"), *self.against_sending(case.connector)]
        return [*reasons, *self.waits(case.connector)]

    # --- plans, acknowledgements, requests ------------------------------------------------------------------------

    def plan(self, who: str, sent: Mapping[str, Any], cases: Iterable[Sheet]) -> None:
        """Decide about failed cases; what an approval hangs on stays as it was asked for."""
        general = tightened(self.ceiling, sent)
        for case in cases:
            request = case.open_request
            if case.state is not CaseState.FAILED:
                continue
            if request:
                request.add_party(self.human(who))
            policy = request.decision.policy if request else general
            number = len(case.tries) + 1
            case.planners.append((number, who))
            old = case.decision
            if old and (old.attempt_no, old.policy) == (number, policy):
                continue
            case.decision = Decision(
                number, policy, self._opens(case, policy), case.counted >= policy.max_retry_attempts
            )

    def _opens(self, case: Sheet, policy: Policy) -> datetime:
        """When the window opens under a policy."""
        last = case.tries[-1]
        opens = last.at + policy.delay_after(case.counted)
        if last.retry_after_s and not policy.allow_immediate_retry:
            opens = max(opens, last.at + timedelta(seconds=last.retry_after_s))
        return opens

    def against_acknowledging(self, who: str, case: Sheet, state: RetryAckState) -> list[str]:
        """Why somebody's answer to the newest decision of a case is refused."""
        if reasons := self.against_role(who, "analyse"):
            return reasons
        if case.decision is None:
            return ["decision_closed"]
        votes = case.open_request.votes if case.open_request else []
        approved = {vote.person for vote in votes if vote.state is ApprovalState.APPROVED}
        return ["second_person_required"] if state in ACCEPTING and self.human(who) in approved else []

    def acknowledge(self, who: str, case: Sheet, state: RetryAckState) -> None:
        """The newest answer counts."""
        assert case.decision
        case.decision.ack = state
        case.acknowledgers.append((self.at, who))
        if case.open_request:
            case.open_request.add_party(self.human(who))

    def parties(self, case: Sheet, requester: str, number: int) -> set[str]:
        """Who had a part in a try of a case since the newest one failed."""
        since = case.last_outcome_at or case.created_at
        timed = [*case.acknowledgers, *self.connector_edits[case.connector], *self.policy_edits]
        had = [requester, *(who for planned, who in case.planners if planned == number)]
        return {self.human(who) for who in (*had, *(who for at, who in timed if at >= since))}

    def request(self, who: str, cases: Iterable[Sheet], *, needs_ack: bool) -> list[Sheet]:
        """Ask for approval; the cases for which a new request is due, in ``write_request``."""
        new = []
        for case in cases:
            decision, request = case.decision, case.open_request
            if decision is None or decision.suppressed or case.state is not CaseState.FAILED:
                continue
            if request and self.is_overdue(request):
                request.state, request = EntryState.EXPIRED, None
            if request:
                request.add_party(self.human(who))
            elif self.secrets[case.connector] and (decision.ack in ACCEPTING or not needs_ack):
                required = self.connectors[case.connector]["required_approvals"]
                if len(self._eligible(self.parties(case, who, decision.attempt_no))) >= required:
                    new.append(case)
        return new

    def write_request(self, pk: int, who: str, case: Sheet, *, needs_ack: bool) -> None:
        """Freeze one request."""
        assert case.decision
        case.requests.append(
            Request(
                pk=pk,
                decision=case.decision,
                wire=self.wire(case),
                immediate=self.policy["allow_immediate_retry"],
                required=self.connectors[case.connector]["required_approvals"],
                needs_ack=needs_ack,
                requester=who,
                requested_at=self.at,
                approve_by=self.at + timedelta(minutes=self.policy["approve_within_minutes"]),
                within=timedelta(minutes=self.policy["execute_within_minutes"]),
                parties=self.parties(case, who, case.decision.attempt_no),
            )
        )

    # --- votes ----------------------------------------------------------------------------------------------------

    def is_overdue(self, request: Request) -> bool:
        """Whether an open request's clock has run out."""
        return request.is_open and request.deadline is not None and self.at > request.deadline

    def is_withdrawal(self, who: str, request: Request, state: ApprovalState) -> bool:
        """Whether a vote is the requester's own no."""
        return state is ApprovalState.DENIED and self.human(who) == self.human(request.requester)

    def _barred(self, who: str, request: Request) -> list[str]:
        """Why somebody has no vote on a request: a part in it, or too young a role."""
        since = self.actors[who].roles.get(Role.APPROVER)
        too_young = since is None or since >= request.requested_at
        return ["second_person_required"] if too_young or self.human(who) in request.parties else []

    def against_vote(self, who: str, case: Sheet, request: Request, state: ApprovalState) -> list[str]:
        """Why a vote is refused; ``manifest_changed`` also ends the request."""
        if self.is_withdrawal(who, request, state):
            return self.against_withdrawing(who, request)
        if reasons := self.against_role(who, "decide") or self._barred(who, request):
            return reasons
        if not request.is_open:
            return ["entry_ended"]
        if case.state in SETTLED:
            return ["settled"]
        if self.is_overdue(request):
            return ["approval_expired"]
        approving = state is ApprovalState.APPROVED
        if approving and request.state is EntryState.APPROVED:
            return ["already_approved"]
        if approving and self.has_changed(case, request):
            return ["manifest_changed"]
        said = {vote.state for vote in request.votes if vote.person == self.human(who)}
        return ["already_decided"] if state in said or (approving and said) else []

    def has_changed(self, case: Sheet, request: Request) -> bool:
        """Whether what would be sent is not what was asked for, or nothing could be sent at all."""
        return self.wire(case) != request.wire or not self.secrets[case.connector]

    def vote(self, who: str, request: Request, state: ApprovalState) -> None:
        """One vote and what follows from it."""
        if self.is_withdrawal(who, request, state):
            request.state = EntryState.WITHDRAWN
            return
        people = {vote.person for vote in self.counted(request)} - {self.human(who)}
        people |= {self.human(who)} if state is ApprovalState.APPROVED else set()
        request.votes.append(Vote(self.human(who), who, state, self.at))
        if state in (ApprovalState.DENIED, ApprovalState.EXPIRED):
            request.state = EntryState(state)
        elif len(people) < request.required:
            request.state, request.execute_by = EntryState.PENDING, None
        elif request.state is EntryState.PENDING:
            request.state = EntryState.APPROVED
            request.execute_by = max(self.at, request.decision.not_before) + request.within

    def against_withdrawing(self, who: str, request: Request) -> list[str]:
        """Why somebody may not take a request back."""
        if reasons := self.against_role(who, "analyse"):
            return reasons
        if self.human(who) != self.human(request.requester):
            return ["requester_required"]
        return [] if request.is_open else ["stale_state"]

    def against_renewing(self, who: str, case: Sheet, request: Request) -> list[str]:
        """Why a request is not renewed."""
        if reasons := self.against_role(who, "decide") or self._barred(who, request):
            return reasons
        decision = request.decision
        if self.human(who) in self.parties(case, request.requester, decision.attempt_no):
            return ["second_person_required"]
        stands = (
            request.state is EntryState.EXPIRED
            and not any(vote.state is ApprovalState.EXPIRED for vote in request.votes)
            and request is case.requests[-1]
            and case.state is CaseState.FAILED
            and case.decision is decision
            and decision.attempt_no == len(case.tries) + 1
            and (decision.ack in ACCEPTING or not request.needs_ack)
        )
        if not stands:
            return ["not_renewable"]
        if self.has_changed(case, request):
            return ["manifest_changed"]
        return []

    def renew(self, pk: int, who: str, case: Sheet, request: Request) -> None:
        """The same request with new clocks and one more vote."""
        self.write_request(pk, request.requester, case, needs_ack=request.needs_ack)
        new = case.requests[-1]
        new.immediate = request.immediate
        new.parties |= request.parties
        self.vote(who, new, ApprovalState.APPROVED)

    def recount(self, request: Request) -> bool:
        """Back to pending when deactivated people's approvals were needed; whether it fell back."""
        gone = len(request.approving()) > len(self.counted(request)) < request.required
        if request.state is not EntryState.APPROVED or not gone:
            return False
        request.state, request.execute_by = EntryState.PENDING, None
        return True

    # --- claims and what came of them -----------------------------------------------------------------------------

    def against_claim(self, case: Sheet, request: Request, sent: Mapping[str, Any]) -> str:
        """The code with which a claim is skipped; empty when it is taken. A change is the most final reason (P5)."""
        if request.state is EntryState.VOID:
            return SkipCode.MANIFEST_CHANGED
        if request.state is EntryState.EXPIRED:
            return SkipCode.APPROVAL_EXPIRED
        if request.state is not EntryState.APPROVED:
            return SkipCode.APPROVAL_REVOKED
        usable = bool(self.secrets[case.connector])
        covered = None if usable else CONFIGURED
        if self.wire(case)[:covered] != request.wire[:covered]:
            return SkipCode.MANIFEST_CHANGED
        if self.is_overdue(request):
            return SkipCode.APPROVAL_EXPIRED
        if not usable:
            return SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED
        if case.state is not CaseState.FAILED:
            return SkipCode.APPROVAL_REVOKED
        if request.needs_ack and request.decision.ack not in ACCEPTING:
            return SkipCode.ACKNOWLEDGEMENT_WITHDRAWN
        most, opens = self.limits(case, request, sent)
        if case.counted >= most:
            return SkipCode.RETRY_LIMIT_REACHED
        if self.at < opens:
            return SkipCode.RETRY_WINDOW_NOT_OPEN
        immediate = (
            sent.get("allow_immediate_retry") and self.ceiling.allow_immediate_retry and request.immediate
        )
        waits = self.waits(case.connector)
        if immediate or request.decision.policy.allow_immediate_retry:
            waits = [code for code in waits if code != "throttled"]
        reasons = self.against_sending(case.connector)
        behind = [code for code in reasons if code == "clock_behind"]
        return next(iter([*(code for code in reasons if code not in behind), *waits, *behind]), "")

    def limits(self, case: Sheet, request: Request, sent: Mapping[str, Any]) -> tuple[int, datetime]:
        """How many tries are allowed and when the window opens: the strictest of approval, ceiling and run."""
        frozen, limit = request.decision.policy, self.ceiling
        most = min(frozen.max_retry_attempts, limit.max_retry_attempts, sent.get("max_retry_attempts", 10))
        if sent.get("allow_immediate_retry") and limit.allow_immediate_retry and request.immediate:
            # The person who executes lifts the delay (P9).
            return most, max(request.requested_at, case.tries[-1].at)
        opens = request.decision.not_before
        if frozen.allow_immediate_retry and not limit.allow_immediate_retry:
            # Approved without a delay, which was switched off since.
            opens = max(opens, case.tries[-1].at + limit.delay_after(case.counted))
        return most, opens

    def claim(self, who: str, case: Sheet, request: Request | None, lease_until: datetime) -> Claim:
        """A try is under way."""
        if request:
            request.state = EntryState.CLAIMED
            case.decision = None
        case.state = CaseState.SENDING
        case.claims.append(Claim(case, request, who, lease_until))
        return case.claims[-1]

    def against_recording(self, claim: Claim) -> list[str]:
        """A receipt is recorded once."""
        return ["stale_state"] if claim.heard else []

    def record(self, claim: Claim, receipt: Any) -> None:
        """What a receipt says, in time or late."""
        claim.heard = True
        case, left = claim.case, receipt.answer is not Answer.NOT_SENT
        outcome = Outcome.DELIVERED if receipt.delivered else Outcome.FAILED
        word = Word("attempt", outcome, receipt.may_have_arrived, receipt.failure_class or "")
        if claim.about is None:
            self.hear(case.connector, receipt)
        if claim.about is not None:
            self._record_late(claim, claim.about, word, left=left)
        elif claim.request and not left:
            claim.state = ExecutionState.NOT_SENT
            claim.request.state = EntryState.APPROVED
            case.decision = claim.request.decision
            self._becomes(case, Outcome.FAILED)
            if case.state is CaseState.DELIVERED:
                self.cancel(case)
        else:
            claim.about = Try(claim.by, word, receipt.completed_at, receipt.retry_after_s)
            case.tries.append(claim.about)
            case.counted += int(left)
            case.last_outcome_at = self.at
            claim.state = ExecutionState(outcome)
            self._becomes(case, outcome)

    def _record_late(self, claim: Claim, about: Try, word: Word, *, left: bool) -> None:
        """The receipt of a try that was given up: it settles what people have not, and a success always."""
        case, attested = claim.case, bool(about.later)
        about.later.append(Word("late_answer", word.outcome, word.may_have_arrived, word.failure_class))
        if attested and word.outcome is not Outcome.DELIVERED:
            return
        claim.state = ExecutionState(word.outcome)
        if attested and case.state is not CaseState.FAILED:
            return  # Settled, or the next try is under way.
        case.counted -= int(not left and not attested)
        self._becomes(case, word.outcome)
        if claim.request and case.state is CaseState.DELIVERED:
            self.cancel(case)

    def _becomes(self, case: Sheet, outcome: Outcome) -> None:
        """A failure, unless some try is known to have arrived (P8)."""
        case.state = CaseState.DELIVERED if case.arrived else CaseState(outcome)

    def cancel(self, case: Sheet) -> bool:
        """End what still asks for a retry; whether there was a request."""
        case.decision = None
        request = case.open_request
        if request:
            request.state = EntryState.CANCELLED
        return request is not None

    def give_up(self, claim: Claim) -> bool:
        """The lease ran out by the clock itself; whether it had."""
        if claim.state is not ExecutionState.CLAIMED or claim.lease_until >= self.now:
            return False
        case = claim.case
        claim.about = Try(claim.by, Word("attempt", Outcome.UNKNOWN, True), self.at)
        claim.state = ExecutionState.UNKNOWN
        case.tries.append(claim.about)
        case.counted += 1
        case.state, case.last_outcome_at = CaseState.UNKNOWN, self.at
        return True

    # --- people settle --------------------------------------------------------------------------------------------

    def against_attesting(self, who: str, case: Sheet) -> list[str]:
        """Why somebody's word about the newest try is not wanted."""
        if reasons := self.against_role(who, "attest"):
            return reasons
        sent_by = case.tries[-1].by if case.tries else case.by
        own = self.human(who) == self.human(sent_by)
        return (["second_person_required"] if own else []) + (
            [] if case.state is CaseState.UNKNOWN else ["not_unknown"]
        )

    def attest(self, who: str, case: Sheet, seen: Seen) -> None:
        """Two people's newest words that agree, one of an approver, settle the try."""
        about = case.tries[-1]
        about.attested.append((who, seen, Role.APPROVER in self.actors[who].roles))
        newest = {self.human(name): (name, said, approver) for name, said, approver in about.attested}
        _, _, approver = newest.pop(self.human(who))
        agreeing = [
            other
            for name, said, other in newest.values()
            if said is seen and self.is_active(name) and (other or approver)
        ]
        if agreeing:
            outcome, may_have_arrived = SEEN_AS[seen]
            about.later.append(Word("attestation", outcome, may_have_arrived))
            claim = next(one for one in case.claims if one.about is about)
            claim.state = ExecutionState(outcome)
            self._becomes(case, outcome)

    def against_proposing(self, who: str, case: Sheet) -> list[str]:
        """Why nobody may propose to settle a case without a delivery."""
        if reasons := self.against_role(who, "attest"):
            return reasons
        if case.state not in UNDELIVERED:
            return [NOT_FAILED.get(case.state, "settled")]
        open_ = case.proposal and case.proposal.state is DispositionState.PROPOSED
        return ["disposition_open"] if open_ else []

    def against_confirming(self, who: str, case: Sheet, proposal: Proposal, *, confirmed: bool) -> list[str]:
        """Why somebody does not confirm or refuse a proposal."""
        if reasons := self.against_role(who, "decide"):
            return reasons
        since = self.actors[who].roles[Role.APPROVER]
        if self.human(who) == self.human(proposal.by) or since >= proposal.at:
            return ["second_person_required"]
        if proposal.state is not DispositionState.PROPOSED:
            return ["disposition_ended"]
        if confirmed and case.state not in UNDELIVERED:
            return [NOT_FAILED.get(case.state, "settled")]
        return ["disposition_stale"] if confirmed and proposal.tries != len(case.tries) else []

    def confirm(self, case: Sheet, proposal: Proposal) -> None:
        """The case is settled without a delivery."""
        proposal.state = DispositionState.CONFIRMED
        case.state = CaseState.ABANDONED
        self.cancel(case)

    # --- what is due ----------------------------------------------------------------------------------------------

    def due(self, case: Sheet, running: Iterable[Request]) -> Act | None:
        """The act that a case waits for; ``running`` are requests that an unfinished run is about to claim."""
        request, decision = case.open_request, case.decision
        if case.state is CaseState.UNKNOWN:
            return Act.ATTEST
        if case.state is not CaseState.FAILED:
            return None
        if request:
            if request in running and request.state is EntryState.APPROVED:
                return None
            return Act.DECIDE if request.state is EntryState.PENDING else Act.EXECUTE
        if decision is None:
            return Act.PLAN
        if decision.suppressed:
            return None
        return Act.REQUEST if decision.ack in ACCEPTING else Act.ACKNOWLEDGE
