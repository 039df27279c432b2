"""Builders walk the real verbs: nothing here sets a state by hand."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from evidence.domain import acknowledgements, configuration, deliveries, drills, people
from evidence.domain.acknowledgements import Answer
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Role, RouteState
from evidence.models import Case, Connector, Person, Schedule, ScheduleOwner
from recovery.domain import (
    approval_plans,
    approvals,
    closures,
    dispositions,
    playbooks,
    reconciliations,
    retry_plans,
)
from recovery.domain.approvals import Ballot
from recovery.domain.closures import ClosureRequest
from recovery.domain.dispositions import Proposal
from recovery.domain.reconciliations import Statement
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, ClosureState, DispositionKind, RetryAckState, Seen
from recovery.execution import claims, outcomes, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, ApprovalPlan, Disposition, Playbook, RetryPlan, RetryPolicy
from tests.receiver import Receiver
from tests.replay import walked_once

LOOPBACK = ["127.0.0.0/8"]
IMMEDIATE = {"allow_immediate_retry": True}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at

    def forward(self, **amount: float) -> None:
        """Move it, e.g. ``minutes=15``."""
        self.at += timedelta(**amount)


def person(*roles: Role, name: str = "", owner: Person | None = None) -> Person:
    """Somebody who holds ``roles``."""
    made = people.create(
        name or f"p{secrets.token_hex(4)}",
        by=None,
        clock=system_clock,
        password=None if owner else "correct horse battery",
        owner=owner,
    )
    for role in roles:
        people.grant_role(made, role, by=None, clock=system_clock)
    return Person.objects.get(pk=made.pk)


def connector(
    key: str, url: str, *, product: str = "webhook", by: Person | None = None, **fields: Any
) -> Connector:
    """A configured connector that may reach the loopback interface."""
    made = Connector(key=key, product=product, url=url, allow_networks=LOOPBACK, **fields)
    configuration.save(made, by=by, clock=system_clock)
    return made


def schedule(
    schedule_id: str = "payments-monthly", providers: tuple[str, ...] = ("webhook",), **fields: Any
) -> Schedule:
    """A drill that is overdue, with two owners."""
    made = Schedule(
        schedule_id=schedule_id,
        interval_days=30,
        next_due_at=datetime.now(UTC) - timedelta(days=1),
        notification_providers=list(providers),
        **fields,
    )
    owners = [
        ScheduleOwner(schedule=made, position=position, name=name, escalation_owner="head-of-release")
        for position, name in enumerate(("release-governance", "payments-platform"))
    ]
    configuration.save(made, by=None, clock=system_clock, owners=owners)
    return made


# Who is who in a world: part, role, and a name that reads well.
STAFF = (
    ("analyst", Role.ANALYST, "m.lindqvist"),
    ("second_analyst", Role.ANALYST, "k.osei"),
    ("approver", Role.APPROVER, "t.rey"),
    ("second_approver", Role.APPROVER, "a.moreau"),
    ("operator", Role.OPERATOR, "i.adeyemi"),
    ("auditor", Role.AUDITOR, "s.novak"),
    ("administrator", Role.ADMINISTRATOR, "r.novak"),
)


def staff(named: bool = False) -> dict[str, Person]:
    """The people of a world, by part."""
    return {part: person(role, name=name if named else "") for part, role, name in STAFF}


@dataclass
class World:
    """People, a receiver and connectors, with the verbs of the chain as short calls."""

    receiver: Receiver
    providers: tuple[str, ...] = ("webhook",)
    clock: Callable[[], datetime] = system_clock
    # People with names that read well, for one world at a time.
    named: bool = False
    analyst: Person = field(init=False)
    second_analyst: Person = field(init=False)
    approver: Person = field(init=False)
    second_approver: Person = field(init=False)
    operator: Person = field(init=False)
    auditor: Person = field(init=False)
    administrator: Person = field(init=False)

    def __post_init__(self) -> None:
        for part, made in walked_once(("staff", self.named), lambda: staff(self.named)).items():
            setattr(self, part, made)
        for key in self.providers:
            connector(key, self.receiver.url(f"/{key}"))
        self.schedule = schedule(providers=self.providers[:1])

    def announced(self) -> str:
        """Tell the owners; the plan's id."""
        done = drills.announce(self.schedule, by=self.analyst, clock=self.clock, retries=0)
        return done.plan.record_id

    def acknowledged(self, state: RouteState = RouteState.ACKNOWLEDGED) -> None:
        """Owners answer, so that the next package has content of its own."""
        acknowledgements.acknowledge(
            [
                Answer(
                    schedule_id=self.schedule.schedule_id,
                    provider=self.providers[0],
                    state=state,
                    notes=secrets.token_hex(4),
                )
            ],
            by=self.analyst,
            clock=self.clock,
        )

    def delivered(self, *providers: str) -> list[Case]:
        """Announce, acknowledge and deliver; the cases."""
        self.announced()
        self.acknowledged()
        done = deliveries.deliver_audit(
            DeliveryRequest(filters=PackageFilters(), providers=providers, retries=0, timeout_s=5.0),
            by=self.analyst,
            clock=self.clock,
        )
        return done.cases

    def failed(self, *providers: str, status: int = 503) -> list[Case]:
        """Cases whose first attempt truly failed; afterwards the receiver is well again."""
        keys = providers or self.providers
        for key in keys:
            self.receiver.behave(f"/{key}", status=200)
        self.announced()
        for key in keys:
            self.receiver.behave(f"/{key}", status=status)
        self.acknowledged()
        done = deliveries.deliver_audit(
            DeliveryRequest(filters=PackageFilters(), providers=providers, retries=0, timeout_s=5.0),
            by=self.analyst,
            clock=self.clock,
        )
        for key in keys:
            self.receiver.behave(f"/{key}", status=200)
        return done.cases

    def planned(self, policy: dict[str, Any] | None = None) -> RetryPlan:
        """A retry plan over everything unsettled, immediate unless said otherwise."""
        draft = retry_plans.plan(IMMEDIATE if policy is None else policy, by=self.analyst, clock=self.clock)
        return RetryPlan.objects.get(retry_plan_id=draft.record_id)

    def reviewed(self, plan: RetryPlan, state: RetryAckState = RetryAckState.ACCEPTED) -> None:
        """Every decision of a plan is acknowledged."""
        for item in plan.items.select_related("decision__case__plan", "decision__case__connector"):
            case = item.decision.case
            retry_plans.acknowledge(
                plan,
                Review(provider=case.connector.key, state=state, delivery_id=case.plan.delivery_id),
                by=self.second_analyst,
                clock=self.clock,
            )

    def requested(self, policy: dict[str, Any] | None = None) -> list[ApprovalEntry]:
        """Entries that wait for approval, from planning on."""
        self.reviewed(self.planned(policy))
        draft = approval_plans.request(by=self.analyst, clock=self.clock)
        plan = ApprovalPlan.objects.get(approval_plan_id=draft.record_id)
        return list(approvals.entries().filter(listed_in__plan=plan).order_by("pk"))

    def approved(self, policy: dict[str, Any] | None = None) -> list[ApprovalEntry]:
        """Entries that a second person approved."""
        entries = self.requested(policy)
        for entry in entries:
            self.vote(entry)
        return list(approvals.entries().filter(pk__in=[entry.pk for entry in entries]).order_by("pk"))

    def vote(
        self, entry: ApprovalEntry, state: ApprovalState = ApprovalState.APPROVED, by: Person | None = None
    ) -> None:
        """One person's word on an entry."""
        ballot = Ballot(state=state, notes="not now" if state is ApprovalState.DENIED else "")
        approvals.decide(entry, ballot, by=by or self.approver, clock=self.clock)

    def ran(self, **request: Any) -> runs.Started:
        """A live run of everything approved."""
        return runs.start_and_execute(
            RunRequest(**{"dry_run": False, "max_retry_deliveries": 25, **request}),
            by=self.operator,
            clock=self.clock,
        )

    def claimed(self) -> Claimed:
        """A claimed retry of a case of its own, by a process that does nothing more."""
        self.failed(self.providers[0])
        return self.taken(self.approved()[-1])

    def taken(self, entry: ApprovalEntry) -> Claimed:
        """The approved entry's claim, by a process that does nothing more."""
        run = runs.start(RunRequest(dry_run=False), by=self.operator, clock=self.clock).run
        claimed = claims.claim(entry.pk, run, clock=self.clock)
        assert isinstance(claimed, Claimed)
        return claimed

    def unknown(self) -> Claimed:
        """A claimed retry nobody heard of again: its case waits to be settled."""
        return self.unheard(self.claimed())

    def unheard(self, claimed: Claimed) -> Claimed:
        """The claim's lease runs out."""
        after = max(self.clock(), claimed.execution.lease_until + timedelta(seconds=1))
        assert outcomes.expire_leases(clock=lambda: after)
        claimed.execution.case.refresh_from_db()
        return claimed

    def attested(self, case: Case, seen: Seen, *people: Person) -> None:
        """Each of ``people`` saw the same at the receiver."""
        for by in people:
            reconciliations.attest(case, Statement(seen, external_ref="INC-1"), by=by, clock=self.clock)

    def proposed(
        self, case: Case, kind: DispositionKind = DispositionKind.ABANDONED, successor: Case | None = None
    ) -> Disposition:
        """A proposal to settle a failed case without a delivery."""
        proposal = Proposal(
            kind=kind,
            reason="The receiver is gone.",
            superseded_by=successor.case_id if successor else "",
            external_ref="CHG-77",
        )
        draft = dispositions.propose(case, proposal, by=self.analyst, clock=self.clock)
        return dispositions.disposition_by_id(draft.record_id)

    def disposed(
        self, case: Case, kind: DispositionKind = DispositionKind.ABANDONED, successor: Case | None = None
    ) -> Disposition:
        """The same, confirmed by an approver; the case is settled."""
        dispositions.confirm(self.proposed(case, kind, successor), by=self.approver, clock=self.clock)
        case.refresh_from_db()
        return Disposition.objects.latest("pk")

    def playbook(self) -> Playbook:
        """A playbook over every failure."""
        draft = playbooks.generate(by=self.analyst, clock=self.clock, min_failure_count=1)
        return Playbook.objects.get(playbook_id=draft.record_id)

    def closed(
        self, playbook: Playbook, provider: str, refs: tuple[str, ...], by: Person | None = None
    ) -> Any:
        """The recovery of ``provider`` closed as resolved."""
        return closures.close(
            playbook,
            ClosureRequest(provider=provider, state=ClosureState.RESOLVED, verification_refs=refs),
            by=by or self.second_analyst,
            clock=self.clock,
        )

    def policy(self, **fields: Any) -> RetryPolicy:
        """The administrator's retry policy, changed."""
        row = RetryPolicy.objects.first() or RetryPolicy()
        for name, value in fields.items():
            setattr(row, name, value)
        configuration.save(row, by=self.administrator, clock=self.clock)
        return row
