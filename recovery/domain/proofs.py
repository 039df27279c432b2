"""Proof for the release manager: the live retries of a period, and who approved each before it was claimed.

Everything here is read from stored records and judged by their bytes; no state table is asked. What the ledger
of one size says never changes, so its head is part of the answer: whoever holds the records comes to the same.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from evidence.documents import KINDS, PERSON, Kind
from evidence.domain import merkle, records
from evidence.enums import Answer, Outcome
from evidence.errors import InvalidInput
from evidence.models import LedgerHead, Record, RecordKey
from recovery.documents import (
    APPROVAL_CANCELLATION,
    APPROVAL_DECISION,
    APPROVAL_EXPIRY,
    APPROVAL_PLAN,
    APPROVAL_RECOUNT,
    APPROVAL_VOID,
    APPROVAL_WITHDRAWAL,
    ATTESTATION,
    EXECUTION_CLAIM,
    EXECUTION_RECONCILIATION,
    EXECUTION_RECORD,
)
from recovery.enums import OPEN_ENTRY_STATES, ApprovalState, EntryState, ExecutionState

SCHEMA_VERSION = "cavra.evidence.retry-statement.v1"

# Records that one statement looks at, at most: a longer period is refused, never cut off.
MOST = {EXECUTION_CLAIM.name: (5_000, "live retries"), APPROVAL_DECISION.name: (20_000, "votes")}

# What is read about an approval, beside the claims and votes of the period itself.
_READ = (
    APPROVAL_PLAN,
    APPROVAL_DECISION,
    APPROVAL_WITHDRAWAL,
    APPROVAL_VOID,
    APPROVAL_EXPIRY,
    APPROVAL_RECOUNT,
    APPROVAL_CANCELLATION,
    EXECUTION_CLAIM,
    EXECUTION_RECORD,
    EXECUTION_RECONCILIATION,
)
# Records that say themselves how they leave an approval, and records that end it by being there.
_SAYING = (APPROVAL_DECISION.name, APPROVAL_RECOUNT.name)
_ENDS = {
    APPROVAL_CANCELLATION.name: EntryState.CANCELLED,
    APPROVAL_WITHDRAWAL.name: EntryState.WITHDRAWN,
    APPROVAL_VOID.name: EntryState.VOID,
    APPROVAL_EXPIRY.name: EntryState.EXPIRED,
}
# What a record without readable bytes is still found by.
_NAMES = ("case", "provider", "entry_id", "execution_id", "person_id")

ERASED, ALTERED = "erased", "altered"
# Outcomes of our own, beside those of an execution.
NOTHING_LEFT = "nothing_left"

# Each number of a statement and what it counts, in the order in which they are read.
NUMBERS: dict[str, str] = {
    "live_retries": (
        "Claims in the period: each took one approval before anything was sent; one of which nothing left gave "
        "it back."
    ),
    "approved_by_another_before_claim": (
        "Live retries that, before their claim, as many people had approved as were asked for, none of whom had "
        "asked for the retry. Read from the vote records that the claim quotes."
    ),
    "not_so_approved": "Live retries of which the records show no such approval.",
    "approval_not_readable": "Live retries whose approval cannot be shown any more: bytes were erased.",
    "delivered": "The receiver took it.",
    "failed": "It left, and the receiver did not take it as far as anybody knows.",
    "unknown": "No answer was recorded in time, or none yet.",
    "turned_out_later": "Of the unknown and failed ones: those of which a reconciliation says what became of them.",
    "nothing_left": "The try ended before a byte left.",
    "outcome_not_readable": "The bytes of the outcome were erased or are not those that were sealed.",
    "unused_approvals": (
        "Approvals given in the period under which nothing was sent: they ended without that, or still stand."
    ),
    "records_not_readable": (
        "Records that this statement needs and whose bytes were erased or are not those that were sealed."
    ),
}


# --- records as they are read -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """A record with the document inside it.

    ``lost`` says why there is none: the bytes were ``erased``, or they are ``altered``, not those whose hash was
    sealed. ``keys`` are the values that a lost record is still found by.
    """

    index: int
    record_id: str
    kind: str
    digest: str
    created_at: datetime
    document: Mapping[str, Any] = field(default_factory=dict)
    lost: str = ""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> "Stored":
        """A row's record; its bytes are compared with the hash that was sealed."""
        document: Mapping[str, Any] = {}
        if record.body is None:
            lost = ERASED
        elif records.digest(bytes(record.body)) != record.digest:
            lost = ALTERED
        else:
            document, lost = records.load(record.body), ""
        return cls(
            record.index, record.record_id, record.kind, record.digest, record.created_at, document, lost
        )

    @property
    def payload(self) -> Mapping[str, Any]:
        """The kind's own fields; empty for a lost record."""
        return self.document.get("payload", {})

    @property
    def at(self) -> datetime:
        """When it was made, as its bytes say; as its row says for a lost record."""
        return datetime.fromisoformat(self.document["at"]) if self.document else self.created_at

    @property
    def account(self) -> str:
        """Person id of the account that acted; empty for the service and for a lost record."""
        return self.document["actor"]["person_id"] if self.document else ""

    @property
    def by(self) -> str:
        """Name of the account that acted; empty for a lost record."""
        return self.document["actor"]["name"] if self.document else ""

    @property
    def case(self) -> str:
        """The case it is about; the first one of several."""
        return next(iter(self.document.get("cases", self.keys.get("case", ()))), "")

    def about(self, name: str) -> str:
        """A field that is a search key too, so that a lost record may still have it."""
        return str(self.payload.get(name) or next(iter(self.keys.get(name, ())), ""))

    def quoted(self, kind: Kind) -> dict[str, str]:
        """Hashes of the records of ``kind`` that it quotes, by id."""
        return {
            one["id"]: one["hash"] for one in self.document.get("references", ()) if one["kind"] == kind.name
        }

    def as_dict(self) -> dict[str, Any]:
        """How a statement names a record: enough to fetch its bytes and its seal."""
        return {
            "id": self.record_id,
            "hash": self.digest,
            "leaf_index": self.index,
            "at": records.timestamp(self.at),
            "lost": self.lost,
        }


@dataclass(frozen=True)
class Dossier:
    """Everything that was recorded about one approval entry, oldest first."""

    entry_id: str
    records: tuple[Stored, ...] = ()

    def of(self, kind: Kind) -> list[Stored]:
        """Its records of one kind."""
        return [record for record in self.records if record.kind == kind.name]

    def listed(self, plan: Stored) -> Mapping[str, Any]:
        """What an approval plan says about the entry; empty for one whose bytes are lost."""
        said = plan.payload.get("approval_decisions", ())
        return next((one for one in said if one["entry_id"] == self.entry_id), {})

    def asked(self, plan_id: str) -> Mapping[str, Any] | None:
        """What the approval plan of this id says about the entry; None without a readable one."""
        plans = [plan for plan in self.of(APPROVAL_PLAN) if plan.record_id == plan_id]
        return next((self.listed(plan) for plan in plans if not plan.lost), None)

    def asking(self, plan: Stored, people: "People") -> set[str | None]:
        """Everybody who answers for having asked with this plan.

        That is who wrote it, unless it renewed a request that had run out: it keeps who had asked for that.
        """
        listed = self.listed(plan)
        accounts: set[str | None] = set()
        if listed.get("renews"):
            accounts.add(people.named.get(listed["requested_by"]))
        if not accounts or plan is not self.of(APPROVAL_PLAN)[0]:
            accounts.add(plan.account)
        return {
            human
            for account in accounts
            for human in ({None} if account is None else people.answering(account, plan.index))
        }


@dataclass(frozen=True)
class People:
    """Who answers for an account, by the records about it (P4).

    ``said`` holds, for each account, the places of those records and the owner each names: empty for a human,
    None where the bytes are lost. ``named`` are accounts by their sign-in names, which never change.
    ``deactivated`` holds the places at which an account was.
    """

    said: Mapping[str, Sequence[tuple[int, str | None]]] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    deactivated: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def human(self, account: str, index: int) -> str | None:
        """The human who answered for an account before a place in the log; None when nobody can tell any more."""
        owners = [owner for place, owner in self.said.get(account, ()) if place < index]
        # A human stays one. A lost record may have handed a service account over.
        if not owners or "" in owners:
            return account
        return owners[-1]

    def answering(self, account: str, index: int) -> set[str | None]:
        """Everybody who answered for it until then: a handover frees nobody."""
        owners = {owner for place, owner in self.said.get(account, ()) if place < index}
        return {self.human(account, index), *(owner for owner in owners if owner)}

    def left_between(self, account: str, since: int, until: int) -> bool:
        """Whether the account, or who answered for it, was deactivated between two places: that voids its votes."""
        return any(
            since < place < until
            for who in (account, self.human(account, since))
            for place in self.deactivated.get(who or "", ())
        )


# --- judging one claim --------------------------------------------------------------------------------------------


_HIDDEN_VOTE = "Its bytes were erased."
_HIDDEN_REQUEST = "Who had asked for the retry cannot be told: a request is not readable any more."
_HIDDEN_PERSON = "Who answers for the account cannot be told: a record about it is not readable any more."
# What leaves the question open instead of answering it with no.
_HIDDEN = frozenset({_HIDDEN_VOTE, _HIDDEN_REQUEST, _HIDDEN_PERSON})


@dataclass(frozen=True)
class Vote:
    """An approval as its record says it; ``against`` is why it does not count for the claim, empty when it does."""

    record: Stored
    against: str = ""
    asked_for_it: bool = False
    executed_it: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For an answer."""
        return {
            "record": self.record.as_dict(),
            "by": self.record.by,
            "person_id": self.record.account,
            "at": records.timestamp(self.record.at),
            "counts": not self.against,
            "against": self.against,
            "asked_for_it": self.asked_for_it,
            "executed_it": self.executed_it,
        }


@dataclass(frozen=True)
class Judgement:
    """Whether a claim was approved as it had to be: true, false with ``reasons``, or None when erased bytes hide it."""

    approved: bool | None
    reasons: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()
    required: int | None = None


def judge(claim: Stored, dossier: Dossier, people: People) -> Judgement:
    """Whether enough people who had not asked for the retry had approved it before ``claim``.

    Judged by the records of the votes: their actors, their times and their places in the log against the claim's.
    A vote counts when the claim quotes exactly these bytes, when it approves the same manifest, when it stands
    before the claim, when whoever answers for its account had not asked for the retry, and when that person did
    not say otherwise before the claim. An approval that had ended or was used before is none.
    """
    if claim.lost:
        erased = claim.lost == ERASED
        sentence = (
            "The bytes of the claim were erased."
            if erased
            else "The bytes of the claim are not the sealed ones."
        )
        return Judgement(None if erased else False, (sentence,))
    quoted = claim.quoted(APPROVAL_DECISION)
    votes = tuple(
        _vote(vote, claim, dossier, people)
        for vote in dossier.of(APPROVAL_DECISION)
        if vote.record_id in quoted
        or (vote.index < claim.index and vote.payload.get("approval_state") == ApprovalState.APPROVED)
    )
    reasons = [*_ended(claim, dossier), *_used(claim, dossier)]
    open_questions: list[str] = []
    asked = dossier.asked(claim.payload["approval_plan_id"])
    required = None if asked is None else int(asked["required_approvals"])
    counted = {people.human(vote.record.account, vote.record.index) for vote in votes if not vote.against}
    if required is None:
        plans = [plan for plan in dossier.of(APPROVAL_PLAN) if plan.lost == ERASED]
        (open_questions if plans else reasons).append("There is no readable record of what was asked for.")
    elif len(counted) < required:
        missing = sorted(quoted.keys() - {vote.record.record_id for vote in votes})
        sentences = [
            f"{len(counted)} of {required} approvals by others before the claim.",
            *(f"Vote {vote.record.record_id}: {vote.against}" for vote in votes if vote.against),
            *(f"Vote {name}: there is no such record." for name in missing),
        ]
        hidden = any(vote.against in _HIDDEN for vote in votes)
        (open_questions if hidden else reasons).extend(sentences)
    approved = False if reasons else None if open_questions else True
    return Judgement(approved, (*reasons, *open_questions), votes, required)


def _vote(vote: Stored, claim: Stored, dossier: Dossier, people: People) -> Vote:
    if vote.lost:
        return Vote(
            vote, _HIDDEN_VOTE if vote.lost == ERASED else "Its bytes are not those that were sealed."
        )
    human = people.human(vote.account, vote.index)
    plans = [plan for plan in dossier.of(APPROVAL_PLAN) if plan.index < vote.index]
    askers = {who for plan in plans if not plan.lost for who in dossier.asking(plan, people)}
    return Vote(
        vote,
        _against(vote, claim, dossier, people, human=human, askers=askers, plans=plans),
        asked_for_it=human in askers,
        executed_it=human in people.answering(claim.account, claim.index),
    )


def _against(
    vote: Stored,
    claim: Stored,
    dossier: Dossier,
    people: People,
    *,
    human: str | None,
    askers: set[str | None],
    plans: Sequence[Stored],
) -> str:
    """The first reason why an approval does not count for a claim; empty when it does."""
    quoted = claim.quoted(APPROVAL_DECISION).get(vote.record_id)
    later = [
        other
        for other in dossier.of(APPROVAL_DECISION)
        if vote.index < other.index < claim.index
        and other.payload.get("approval_state") not in (None, ApprovalState.APPROVED)
        and people.human(other.account, other.index) == human
    ]
    reasons = (
        (vote.payload["approval_state"] != ApprovalState.APPROVED, "It does not approve."),
        (vote.payload["entry_id"] != claim.payload["entry_id"], "It is about another request."),
        (
            vote.payload["manifest_digest"] != claim.payload["manifest_digest"],
            "It is about another manifest.",
        ),
        (vote.index >= claim.index or vote.at > claim.at, "It is later than the claim."),
        (quoted is None, "The claim does not name it."),
        (quoted != vote.digest, "The claim quotes other bytes than these."),
        (human in askers and human is not None, "It is by somebody who had asked for the retry."),
        (bool(later), "The same person said otherwise before the claim."),
        (
            people.left_between(vote.account, vote.index, claim.index),
            "Its account was deactivated before the claim.",
        ),
        (human is None or None in askers, _HIDDEN_PERSON),
        (any(plan.lost for plan in plans), _HIDDEN_REQUEST),
    )
    return next((sentence for applies, sentence in reasons if applies), "")


def _ended(claim: Stored, dossier: Dossier) -> list[str]:
    """That the approval had ended before the claim, by which record."""
    return [
        f"The approval had ended before the claim: {state.replace('_', ' ')}, {record.record_id}."
        for record in dossier.records
        if record.index < claim.index and (state := _state_after(record)) and state not in OPEN_ENTRY_STATES
    ]


def _used(claim: Stored, dossier: Dossier) -> list[str]:
    """That an earlier claim used the approval up; one of which nothing left did not."""
    return [
        f"The approval was used before, by {other.record_id}."
        for other in dossier.of(EXECUTION_CLAIM)
        if other.index < claim.index and _outcome(_execution(other, dossier)) != NOTHING_LEFT
    ]


def _state_after(record: Stored) -> str:
    """The state of an approval after this record; empty for one that does not change it or does not say."""
    if record.kind in _SAYING:
        return str(record.payload.get("entry_state", ""))
    return _ENDS.get(record.kind, "")


# --- what became of it --------------------------------------------------------------------------------------------


def _execution(claim: Stored, dossier: Dossier) -> Stored | None:
    """The record of what came of a claim; None as long as there is none."""
    execution_id = claim.about("execution_id")
    return next((one for one in dossier.of(EXECUTION_RECORD) if one.record_id == execution_id), None)


def _outcome(execution: Stored | None) -> str:
    """What came of a try, as its own record says: an execution's state, nothing left, or how the record was lost."""
    if execution is None:
        return ExecutionState.CLAIMED
    if execution.lost:
        return execution.lost
    if execution.payload["answer"] == Answer.NOT_SENT:
        return NOTHING_LEFT
    return str(execution.payload["execution_status"])


def _turned_out(claim: Stored, dossier: Dossier) -> Stored | None:
    """The reconciliation that counts: a success that was seen once is not unseen, else the newest."""
    found = [
        one
        for one in dossier.of(EXECUTION_RECONCILIATION)
        if one.about("execution_id") == claim.about("execution_id")
    ]
    seen = (one for one in found if one.payload.get("outcome") == Outcome.DELIVERED)
    readable = [one for one in found if not one.lost] or found
    return next(seen, readable[-1] if readable else None)


@dataclass(frozen=True)
class Retry:
    """One live retry: the claim, the approvals before it, and what became of it."""

    claim: Stored
    dossier: Dossier
    judgement: Judgement

    @property
    def request(self) -> Stored | None:
        """The approval plan that asked for it."""
        plan_id = self.claim.payload.get("approval_plan_id")
        plans = self.dossier.of(APPROVAL_PLAN)
        return next((plan for plan in plans if plan.record_id == plan_id), None)

    @cached_property
    def execution(self) -> Stored | None:
        """The record of the outcome."""
        return _execution(self.claim, self.dossier)

    @cached_property
    def outcome(self) -> str:
        """What came of it, as was recorded first."""
        return _outcome(self.execution)

    @property
    def is_unknown(self) -> bool:
        """Whether no answer was recorded in time, or none yet."""
        return self.outcome in (ExecutionState.UNKNOWN, ExecutionState.CLAIMED)

    @cached_property
    def turned_out(self) -> Stored | None:
        """What an unknown outcome turned out to be."""
        later = self.outcome in (ExecutionState.UNKNOWN, ExecutionState.FAILED)
        return _turned_out(self.claim, self.dossier) if later else None

    @property
    def turned_out_as(self) -> str:
        """The word for that: delivered, failed, nothing left, undetermined, or how its record was lost."""
        if self.turned_out is None or self.turned_out.lost:
            return self.turned_out.lost if self.turned_out else ""
        said = self.turned_out.payload
        if said["answer"] == Answer.NOT_SENT:
            return NOTHING_LEFT
        if (
            said["outcome"] == Outcome.FAILED
            and said["answer"] == Answer.NO_ANSWER
            and said["may_have_arrived"]
        ):
            return "undetermined"
        return str(said["outcome"])

    def as_dict(self) -> dict[str, Any]:
        """For an answer."""
        claim, said, request = self.claim, self.execution, self.request
        fields = ("answer", "assurance", "may_have_arrived", "failure_class", "status_code")
        return {
            "claim_id": claim.record_id,
            "claim": claim.as_dict(),
            "case": claim.case,
            # A case's id ends in the connector's key.
            "provider": claim.about("provider") or claim.case.rpartition(".")[2],
            "attempt_no": claim.payload.get("attempt_no"),
            "entry_id": claim.about("entry_id"),
            "execution_id": claim.about("execution_id"),
            "run_id": claim.payload.get("run_id", ""),
            "manifest_digest": claim.payload.get("manifest_digest", ""),
            "claimed_by": claim.by,
            "claimed_by_id": claim.account,
            "claimed_at": records.timestamp(claim.at),
            "requested_by": request.by if request else "",
            "requested_by_id": request.account if request else "",
            "request": request.as_dict() if request else None,
            "required_approvals": self.judgement.required,
            "approved_by_another_before_claim": self.judgement.approved,
            "reasons": list(self.judgement.reasons),
            "votes": [vote.as_dict() for vote in self.judgement.votes],
            "outcome": self.outcome,
            "execution": None
            if said is None
            else {**said.as_dict(), **{name: said.payload.get(name) for name in fields}},
            "turned_out": None if self.turned_out is None else self._later(self.turned_out),
        }

    def _later(self, said: Stored) -> dict[str, Any]:
        return {
            "outcome": self.turned_out_as,
            "record": said.as_dict(),
            "source": said.payload.get("source", ""),
            "by": said.by,
            "may_have_arrived": said.payload.get("may_have_arrived"),
            "attestations": [
                {"id": name, "hash": digest} for name, digest in said.quoted(ATTESTATION).items()
            ],
        }


@dataclass(frozen=True)
class Unused:
    """An approval that no claim used. ``approved`` is the vote of the period with which there were enough."""

    approved: Stored
    dossier: Dossier

    @cached_property
    def last(self) -> Stored:
        """The newest record that says how the approval stands."""
        return [record for record in self.dossier.records if _state_after(record)][-1]

    @property
    def state(self) -> str:
        """What became of it: approved still stands; pending was taken back by a deferral and waits again."""
        return _state_after(self.last)

    @property
    def execute_by(self) -> datetime | None:
        """Until when it could or can be used."""
        until = self.approved.payload["execute_by"]
        return datetime.fromisoformat(until) if until else None

    @property
    def votes(self) -> list[Stored]:
        """The approvals that were given, lost ones left out."""
        return [
            vote
            for vote in self.dossier.of(APPROVAL_DECISION)
            if vote.payload.get("approval_state") == ApprovalState.APPROVED
        ]

    def as_dict(self) -> dict[str, Any]:
        """For an answer."""
        said, stands = self.approved.payload, self.state == EntryState.APPROVED
        return {
            "entry_id": self.dossier.entry_id,
            "case": self.approved.case,
            "provider": said["provider"],
            "attempt_no": said["attempt_no"],
            "approval_plan_id": said["approval_plan_id"],
            "manifest_digest": said["manifest_digest"],
            "approved_at": records.timestamp(self.approved.at),
            "execute_by": said["execute_by"],
            "votes": [
                {"record": vote.as_dict(), "by": vote.by, "person_id": vote.account} for vote in self.votes
            ],
            "state": self.state,
            "ended_at": "" if stands else records.timestamp(self.last.at),
            "ended_by": "" if stands else self.last.by,
            "ended_with": None if stands else self.last.as_dict(),
            "changed_fields": list(self.last.payload.get("changed_fields", ())),
        }


# --- the statement ------------------------------------------------------------------------------------------------


_RETRIES_OF: dict[str, Callable[[Retry], bool]] = {
    "live_retries": lambda one: True,
    "approved_by_another_before_claim": lambda one: one.judgement.approved is True,
    "not_so_approved": lambda one: one.judgement.approved is False,
    "approval_not_readable": lambda one: one.judgement.approved is None,
    "delivered": lambda one: one.outcome == ExecutionState.DELIVERED,
    "failed": lambda one: one.outcome == ExecutionState.FAILED,
    "unknown": lambda one: one.is_unknown,
    "turned_out_later": lambda one: one.turned_out is not None,
    "nothing_left": lambda one: one.outcome == NOTHING_LEFT,
    "outcome_not_readable": lambda one: one.outcome in (ERASED, ALTERED),
}


@dataclass(frozen=True)
class Head:
    """The ledger as a statement read it."""

    origin: str
    epoch: int
    size: int
    root: str

    def as_dict(self) -> dict[str, Any]:
        """For an answer."""
        return {"origin": self.origin, "epoch": self.epoch, "size": self.size, "root": self.root}


@dataclass(frozen=True)
class Statement:
    """The live retries of [``since``, ``until``) and its unused approvals, as the ledger told at ``at``.

    live_retries = approved_by_another_before_claim + not_so_approved + approval_not_readable, and
    live_retries = delivered + failed + unknown + nothing_left + outcome_not_readable.
    """

    since: datetime
    until: datetime
    at: datetime
    head: Head
    retries: tuple[Retry, ...]
    unused: tuple[Unused, ...]
    lost: tuple[Stored, ...]

    def of(self, number: str) -> list[Retry]:
        """The live retries behind one number."""
        return [retry for retry in self.retries if _RETRIES_OF[number](retry)]

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """Ids behind each number: of claims, of approval entries, of records."""
        return {
            **{name: [retry.claim.record_id for retry in self.of(name)] for name in _RETRIES_OF},
            "unused_approvals": [one.dossier.entry_id for one in self.unused],
            "records_not_readable": [record.record_id for record in self.lost],
        }

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Every number, in the order of ``NUMBERS``."""
        return {name: len(self.lists[name]) for name in NUMBERS}

    def as_dict(self, *, profile: str) -> dict[str, Any]:
        """The whole statement for an answer; ``profile`` is the one it is written under."""
        return {
            "schema_version": SCHEMA_VERSION,
            "product": records.PRODUCT,
            "profile": profile,
            "generated_at": records.timestamp(self.at),
            "period": {"from": records.timestamp(self.since), "to": records.timestamp(self.until)},
            "ledger": self.head.as_dict(),
            "numbers": self.numbers,
            "meaning": NUMBERS,
            "lists": self.lists,
            "retries": [retry.as_dict() for retry in self.retries],
            "unused_approvals": [one.as_dict() for one in self.unused],
            "records_not_readable": [{**one.as_dict(), "kind": one.kind} for one in self.lost],
        }


def retries(since: datetime, until: datetime, *, at: datetime) -> Statement:
    """The live retries claimed from ``since`` on and before ``until``, as the ledger tells at ``at``.

    Costs the same number of queries whatever happened. Raises ``InvalidInput`` for a period that does not end
    after it begins, and for one with more claims or votes than one statement looks at (``period_too_long``).
    """
    if until <= since:
        raise InvalidInput(
            "to: the period ends before it begins.", errors={"to": ["Must be later than from."]}
        )
    row = LedgerHead.objects.get()
    head = Head(row.origin, row.epoch, row.size, merkle.root(merkle.split(row.peaks)).hex())
    # Nothing that is appended while we read, so that the head says exactly what was read.
    sealed = Record.objects.order_by().filter(index__lt=head.size)
    of_period = sealed.filter(created_at__gte=since, created_at__lt=until)
    for kind, (most, words) in MOST.items():
        if of_period.filter(kind=kind)[: most + 1].count() > most:
            raise InvalidInput(
                f"to: the period has more than {most:,} {words}; ask for a shorter one.",
                code="period_too_long",
                errors={"to": [f"More than {most:,} {words} since from; choose an earlier time."]},
            )
    started = of_period.filter(kind__in=list(MOST))
    touched = RecordKey.objects.filter(name="entry_id", record__in=started.values("index")).values("value")
    about = RecordKey.objects.filter(name="entry_id", value__in=touched).values("record")
    rest = sealed.filter(index__in=about, kind__in=[kind.name for kind in _READ])
    rows = {record.index: record for found in (started, rest) for record in found}
    found = _stored(rows[index] for index in sorted(rows))
    dossiers = _dossiers(found)
    people = _people(head)
    of_these = [record for record in found if since <= record.created_at < until]
    claims = [record for record in of_these if record.kind == EXECUTION_CLAIM.name]
    return Statement(
        since,
        until,
        at,
        head,
        retries=tuple(
            Retry(claim, dossier, judge(claim, dossier, people))
            for claim in claims
            for dossier in [dossiers.get(claim.about("entry_id"), Dossier(claim.about("entry_id")))]
        ),
        unused=tuple(_unused(of_these, dossiers)),
        lost=tuple(record for record in found if record.lost),
    )


def _unused(of_period: Sequence[Stored], dossiers: Mapping[str, Dossier]) -> Iterable[Unused]:
    """Approvals complete in the period that no claim used, in the order in which they were."""
    complete = {
        vote.payload["entry_id"]: vote
        for vote in of_period
        if vote.kind == APPROVAL_DECISION.name and _state_after(vote) == EntryState.APPROVED
    }
    for entry_id, vote in complete.items():
        dossier = dossiers[entry_id]
        claims = dossier.of(EXECUTION_CLAIM)
        # A try of which nothing left gives the approval back.
        if all(_outcome(_execution(claim, dossier)) == NOTHING_LEFT for claim in claims):
            yield Unused(vote, dossier)


def _stored(rows: Iterable[Record]) -> list[Stored]:
    """Rows as they are read; those without readable bytes with what they are still found by."""
    read = [Stored.of(row) for row in rows]
    keys: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    lost = [record.index for record in read if record.lost]
    named = RecordKey.objects.filter(record__in=lost, name__in=_NAMES)
    for index, name, value in named.values_list("record", "name", "value"):
        keys[index][name].append(value)
    return [replace(one, keys=keys[one.index]) if one.lost else one for one in read]


def _dossiers(found: Iterable[Stored]) -> dict[str, Dossier]:
    """Records by the approval entries that they are about."""
    grouped: dict[str, list[Stored]] = defaultdict(list)
    for record in found:
        paths = KINDS[record.kind].keys["entry_id"]
        named = [value for path in paths for value in records.values_at(record.payload, path)]
        for entry_id in dict.fromkeys([*named, *record.keys.get("entry_id", ())]):
            if entry_id:
                grouped[entry_id].append(record)
    return {entry_id: Dossier(entry_id, tuple(about)) for entry_id, about in grouped.items()}


def _people(head: Head) -> People:
    """What the log says about accounts."""
    said: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    deactivated: dict[str, list[int]] = defaultdict(list)
    named = {}
    rows = Record.objects.filter(kind=PERSON.name, index__lt=head.size).order_by("index")
    for record in _stored(rows):
        account = record.about("person_id")
        said[account].append((record.index, None if record.lost else record.payload["owner_id"]))
        if not record.lost:
            named[record.payload["person_name"]] = account
            if record.payload["change"] == "deactivated":
                deactivated[account].append(record.index)
    return People(said, named, deactivated)
