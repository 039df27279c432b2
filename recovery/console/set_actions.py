"""What can be done about a set, as data: label, form, the verb behind it, and what stands against it now."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms

from evidence.domain import policies, records
from evidence.domain.clock import Clock, system_clock
from evidence.errors import Conflict
from evidence.models import Person
from recovery.console import manifest_words
from recovery.console.actions import against_live_runs
from recovery.console.set_forms import (
    AcknowledgeSetForm,
    DecideSetForm,
    ExecuteSetForm,
    PlanSetForm,
    RenewSetForm,
    RequestSetForm,
)
from recovery.domain import approvals, manifests, renewals, retry_policies, set_turns, sets
from recovery.domain.approvals import Ballot
from recovery.domain.policies import barred_from_voting, reasons_against_decision
from recovery.domain.retry_plans import Review
from recovery.domain.set_turns import SetStanding
from recovery.domain.sets import Group
from recovery.enums import Act, ApprovalState, EntryState, ItemState, RetryAckState
from recovery.execution import runs
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, RetryDecision, RetrySet, Vote
from recovery.permissions import Permission

Data = Mapping[str, Any]


@dataclass(frozen=True)
class SetAction:
    """One act about a set, as ``actions.Action`` is one about a case."""

    act: Act
    label: str
    permission: str
    form: type[forms.Form]
    against: Callable[[SetStanding], list[str]]
    perform: Callable[[SetStanding, Data, Person, Clock], str]
    signed: bool = False

    def reasons(self, standing: SetStanding, person: Person) -> list[str]:
        """Everything that stands against it for this person now; empty means yes."""
        return self.against(standing) or policies.reasons_against_role(person, self.permission)


def cases(count: int) -> str:
    """A number of cases in words."""
    return f"{count:,} case{'' if count == 1 else 's'}"


# --- plan, acknowledge, ask -----------------------------------------------------------------------------------


def _against_planning(standing: SetStanding) -> list[str]:
    if standing.row.digest:
        return ["Approval was asked for; the plan stands until that ends."]
    if not standing.those(ItemState.TO_PLAN, ItemState.TO_ACKNOWLEDGE, ItemState.TO_REQUEST):
        return ["No case of this set is failed and has tries left."]
    return []


def _plan(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    policy = {"allow_immediate_retry": True} if data["immediate"] else {}
    drafts = sets.plan(standing.row, policy, by=by, clock=clock)
    return f"Planned. Recorded as {_named(drafts)}. Nothing was sent."


def _against_acknowledging(standing: SetStanding) -> list[str]:
    if standing.row.digest:
        return ["Approval was asked for already."]
    if not standing.those(ItemState.TO_ACKNOWLEDGE, ItemState.TO_REQUEST):
        return ["No retry of this set is planned."]
    return []


def to_answer(standing: SetStanding) -> str:
    """Digest of the retry decisions an answer would be about."""
    return set_turns.shown_decisions(standing.planned)


@dataclass(frozen=True)
class Decisions:
    """Retry decisions about cases of one connector: how many, as which attempts, and when the first may go."""

    connector: str
    count: int
    attempts: list[int]
    opens: datetime


def decisions(standing: SetStanding) -> list[Decisions]:
    """What an answer would be about, connector by connector."""
    by_connector: dict[str, list[RetryDecision]] = {}
    for item in standing.planned:
        if item.decision:
            by_connector.setdefault(item.case.connector.key, []).append(item.decision)
    return [
        Decisions(
            key, len(found), sorted({one.attempt_no for one in found}), min(one.not_before for one in found)
        )
        for key, found in sorted(by_connector.items())
    ]


def _acknowledge(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    if data["shown"] != to_answer(standing):
        raise Conflict(
            "Not acknowledged: retries of this set were planned again since you read it. Read it as it is now.",
            code="decision_changed",
        )
    review = Review(
        provider="",
        state=RetryAckState(data["state"]),
        external_ref=data["external_ref"],
        notes=data["notes"],
    )
    drafts = sets.acknowledge(standing.row, review, by=by, clock=clock)
    return f"Answer recorded for {cases(len(drafts))}. Nothing was sent."


def _against_asking(standing: SetStanding) -> list[str]:
    if standing.row.digest:
        return ["Approval of this set was asked for already; it is frozen."]
    if not standing.those(ItemState.TO_REQUEST):
        return ["No retry of this set is acknowledged yet."]
    return []


def _ask(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    row = sets.request(standing.row, by=by, clock=clock, reason=data["reason"])
    asked = row.items.exclude(entry=None).count()
    return f"Approval asked for {cases(asked)} as one set, {row.digest[:4]} {row.digest[4:8]}; an approver decides now."


def _named(drafts: Sequence[records.Draft]) -> str:
    return ", ".join(draft.record_id for draft in drafts)


# --- decide, renew --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One item on a ballot paper; ``changed`` names what is otherwise since it was asked for."""

    entry: ApprovalEntry
    picked: bool
    changed: list[str]


@dataclass(frozen=True)
class Part:
    """Like items on a ballot paper; ``name`` is the id of the first, ``taken_out`` says the whole part is out."""

    group: Group
    name: str
    lines: list[Line]
    taken_out: bool

    @property
    def chosen(self) -> list[ApprovalEntry]:
        """Items of this part that the vote is about."""
        return [] if self.taken_out else [line.entry for line in self.lines if line.picked]

    @property
    def changed(self) -> list[str]:
        """What is otherwise with any of them."""
        return list(dict.fromkeys(name for line in self.lines for name in line.changed))

    @property
    def is_mixed(self) -> bool:
        """Whether some of it is in and some is not."""
        return 0 < sum(line.picked for line in self.lines) < len(self.lines)

    @property
    def last_of_all(self) -> bool:
        """Whether the policy allows no try after this one."""
        entry = self.lines[0].entry
        return entry.attempt_no >= retry_policies.from_dict(entry.decision.policy).max_retry_attempts

    @property
    def sizes(self) -> tuple[int, int]:
        """The smallest and the largest body, in bytes."""
        found = [records.load(line.entry.manifest)["payload"]["size"] for line in self.lines]
        return min(found), max(found)


@dataclass(frozen=True)
class Paper:
    """What a person is shown of a set to vote on: parts, outliers first, and what is not theirs, with the reason."""

    parts: list[Part]
    barred: list[tuple[ApprovalEntry, str]]

    @property
    def chosen(self) -> list[ApprovalEntry]:
        """Exactly the items that the vote is about."""
        return [entry for part in self.parts for entry in part.chosen]

    @property
    def changed(self) -> list[ApprovalEntry]:
        """Items whose manifest does not hold any more: nobody can approve them."""
        return [line.entry for part in self.parts for line in part.lines if line.changed]

    @property
    def left(self) -> int:
        """How many items were taken out."""
        return sum(len(part.lines) for part in self.parts) - len(self.chosen)

    @property
    def digest(self) -> str:
        """The digest of ``chosen``; empty for nothing."""
        return manifests.digest_of(self.chosen) if self.chosen else ""

    @property
    def connectors(self) -> list[str]:
        """Where the chosen items go."""
        return sorted({entry.connector.key for entry in self.chosen})

    @property
    def arrived(self) -> int:
        """How many of the chosen may have arrived already."""
        return sum(len(part.chosen) for part in self.parts if part.group.may_have_arrived)

    @property
    def required(self) -> int:
        """The most approvals that one of the chosen needs."""
        return max((entry.required_approvals for entry in self.chosen), default=1)

    @property
    def size(self) -> int:
        """Bytes of all the chosen together."""
        return sum(records.load(entry.manifest)["payload"]["size"] for entry in self.chosen)


def paper(
    row: RetrySet,
    person: Person,
    at: datetime,
    *,
    picked: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Paper:
    """The pending items of a set as ``person`` may vote on them.

    ``picked`` are the ids of items that are in (None: all whose manifest still holds), ``without`` the parts that
    are out. What changed since stays on the paper: whoever puts it in ends it.
    """
    pending = list(
        approvals.entries().filter(set_items__retry_set=row, state=EntryState.PENDING).order_by("pk")
    )
    # Who does not vote at all is shown what others are.
    votes = not policies.reasons_against_role(person, Permission.DECIDE)
    barred = barred_from_voting(person, pending) if votes else {entry.pk: [] for entry in pending}
    said = set(
        Vote.objects.filter(
            entry__in=pending, person=person.principal, state=ApprovalState.APPROVED
        ).values_list("entry_id", flat=True)
    )
    out, mine = [], []
    for entry in pending:
        reasons = list(barred[entry.pk])
        if entry.pk in said:
            reasons.append("You approved this already; another approver has to decide as well.")
        reasons += [sentence for _, sentence in reasons_against_decision(entry, ApprovalState.APPROVED, at)]
        if reasons:
            out.append((entry, reasons[0]))
        else:
            mine.append(entry)
    changed = {entry.pk: _changed(entry) for entry in mine}
    parts = []
    for group in sets.groups(mine):
        lines = [
            Line(
                entry,
                not changed[entry.pk] if picked is None else entry.entry_id in picked,
                changed[entry.pk],
            )
            for entry in group.entries
        ]
        name = lines[0].entry.entry_id
        parts.append(Part(group, name, lines, name in without))
    return Paper(parts, out)


def _changed(entry: ApprovalEntry) -> list[str]:
    policy = retry_policies.from_dict(entry.decision.policy)
    return manifest_words.field_words(manifests.changed_fields(entry, policy))


def _against_deciding(standing: SetStanding) -> list[str]:
    if standing.those(ItemState.PENDING, ItemState.APPROVED, ItemState.QUEUED):
        return []
    return ["Nothing of this set waits for a decision."]


def _decide(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    state = ApprovalState(data["state"])
    # The part's first request stands for the part; taking it out takes all of it.
    taken_out = {
        line.entry.entry_id
        for part in (paper(standing.row, by, clock()).parts if data["without"] else ())
        if part.name in data["without"]
        for line in part.lines
    }
    chosen = [one for one in data["items"] if one not in taken_out]
    if not chosen:
        raise Conflict("Not recorded: every item is taken out.", code="entry_ended")
    decided = sets.decide(standing.row, _ballot(state, data), by=by, clock=clock, entry_ids=chosen)
    if state is not ApprovalState.APPROVED:
        words = "denied; these requests have ended" if state is ApprovalState.DENIED else "deferred"
        return f"{cases(len(decided.votes))} {words}. Nothing is sent."
    said = []
    if decided.votes:
        shown = data["set_digest"]
        said.append(f"{cases(len(decided.votes))} approved with {shown[:4]} {shown[4:8]}.")
    if decided.void:
        are = "is" if len(decided.void) == 1 else "are"
        said.append(f"{cases(len(decided.void))} changed since and {are} void for good; ask again.")
    return " ".join([*said, "Nothing was sent."])


def _ballot(state: ApprovalState, data: Data) -> Ballot:
    """A vote as the form says it, signed."""
    return Ballot(
        state=state,
        external_ref=data["external_ref"],
        notes=data["notes"],
        reason_code=data["reason_code"],
        set_digest=data["set_digest"],
        authenticated_by=data["signed_in"].by,
        authenticated_at=data["signed_in"].at,
    )


def lapsed(row: RetrySet, person: Person) -> tuple[list[ApprovalEntry], list[tuple[ApprovalEntry, str]]]:
    """Items that ran out: those that ``person`` may renew, and the others with the reason."""
    found = list(
        approvals.entries().filter(set_items__retry_set=row, state=EntryState.EXPIRED).order_by("pk")
    )
    barred = renewals.barred_from_renewing(person, found)
    mine, others = [], []
    for entry in found:
        reasons = barred[entry.pk] or [
            f"Not renewed: {reason}" for reason in renewals.reasons_against_renewing(entry)
        ]
        if reasons:
            others.append((entry, reasons[0]))
        else:
            mine.append(entry)
    return mine, others


def _against_renewing(standing: SetStanding) -> list[str]:
    return [] if standing.those(ItemState.EXPIRED) else ["No request of this set ran out."]


def _renew(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    ballot = _ballot(ApprovalState.APPROVED, data)
    sets.renew(standing.row, ballot, by=by, clock=clock, entry_ids=data["items"])
    return f"{cases(len(data['items']))} renewed, with your approval. Nothing was sent: an operator executes."


# --- execute --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """What a live run of a set would send: approved items by connector, and the windows that are not open yet."""

    entries: list[ApprovalEntry]
    at: datetime

    @property
    def lanes(self) -> list[tuple[str, int]]:
        """How many go to each connector."""
        keys = [entry.connector.key for entry in self.entries]
        return [(key, keys.count(key)) for key in sorted(set(keys))]

    @property
    def digest(self) -> str:
        """The digest of all of them; empty for nothing."""
        return manifests.digest_of(self.entries) if self.entries else ""

    @property
    def early(self) -> list[ApprovalEntry]:
        """Items whose retry window is not open yet, the first to open before the others."""
        found = [entry for entry in self.entries if entry.not_before > self.at]
        return sorted(found, key=lambda entry: entry.not_before)

    @property
    def until(self) -> datetime | None:
        """When the first of these approvals runs out."""
        return min((entry.execute_by for entry in self.entries if entry.execute_by), default=None)


def revocable(standing: SetStanding, person: Person) -> list[ApprovalEntry]:
    """Approved items that nobody claimed yet and that ``person`` may still deny."""
    found = [item.entry for item in standing.those(ItemState.APPROVED, ItemState.QUEUED) if item.entry]
    if not found or policies.reasons_against_role(person, Permission.DECIDE):
        return []
    barred = barred_from_voting(person, found)
    return [entry for entry in found if not barred[entry.pk]]


def load(standing: SetStanding, at: datetime) -> Load:
    """What would be sent of a set at ``at``."""
    return Load([item.entry for item in standing.those(ItemState.APPROVED) if item.entry], at)


def _against_executing(standing: SetStanding) -> list[str]:
    if standing.running:
        return ["A run of this set is under way."]
    if not standing.those(ItemState.APPROVED):
        return ["Nothing of this set is approved and unused."]
    return against_live_runs(system_clock)


def _execute(standing: SetStanding, data: Data, by: Person, clock: Clock) -> str:
    policies.require_role(by, Permission.RUN_LIVE)
    if against := _against_executing(standing):
        raise Conflict(f"Not executed. {against[0]}", code="not_executable", reasons=against)
    found = load(standing, clock())
    if data["set_digest"] != found.digest:
        raise Conflict(
            "Not executed: other approvals stand than those you were shown. Read it as it is now.",
            code="set_changed",
        )
    if len(found.early) == len(found.entries) and not data["immediate"]:
        opens = f"{found.early[0].not_before:%H:%M:%S}"
        raise Conflict(
            f"Not executed: no retry window is open; the first opens at {opens} UTC.",
            code="retry_window_not_open",
        )
    request = RunRequest(
        dry_run=False,
        set_id=standing.row.set_id,
        # What is approved from now on was not shown: it does not go with this run.
        cases=tuple(entry.case.case_id for entry in found.entries),
        canary=True,
        background=True,
        max_retry_deliveries=sets.MAX_ITEMS,
        policy={"allow_immediate_retry": True} if data["immediate"] else {},
    )
    started = runs.start(request, by=by, clock=clock)
    return f"{cases(len(started.entries))} handed to the worker as {started.run.run_id}. You can leave this page."


ACTIONS: dict[Act, SetAction] = {
    action.act: action
    for action in (
        SetAction(Act.PLAN, "Plan Audit Retry", Permission.PLAN_RETRY, PlanSetForm, _against_planning, _plan),
        SetAction(
            Act.ACKNOWLEDGE,
            "Ack Retry",
            Permission.ACKNOWLEDGE_RETRY,
            AcknowledgeSetForm,
            _against_acknowledging,
            _acknowledge,
        ),
        SetAction(
            Act.REQUEST,
            "Plan Retry Approval",
            Permission.REQUEST_APPROVAL,
            RequestSetForm,
            _against_asking,
            _ask,
        ),
        SetAction(
            Act.DECIDE,
            "Approve / Deny / Defer",
            Permission.DECIDE,
            DecideSetForm,
            _against_deciding,
            _decide,
            signed=True,
        ),
        SetAction(
            Act.EXECUTE,
            "Execute Retry",
            Permission.RUN_LIVE,
            ExecuteSetForm,
            _against_executing,
            _execute,
        ),
        SetAction(
            Act.RENEW,
            "Renew and approve",
            Permission.DECIDE,
            RenewSetForm,
            _against_renewing,
            _renew,
            signed=True,
        ),
    )
}
