"""What a run is about: which approved entries, in which order, and which limits apply to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case as SqlCase
from django.db.models import Q, QuerySet, Value, When

from evidence.domain import breakers
from evidence.domain import policies as evidence_policies
from evidence.errors import Conflict
from evidence.models import Connector
from recovery.domain import approvals, manifests, retry_policies
from recovery.domain.policies import ACKNOWLEDGED
from recovery.domain.retry_policies import Policy
from recovery.enums import EntryState, SkipCode
from recovery.models import ApprovalEntry

MAX_PER_RUN = 25
# Left to the worker, a run may be as large as a set.
MAX_IN_BACKGROUND = 500

# Reasons that no column shows; the last claim that was tried has told.
SEEN_BY_CLAIM_ONLY = (
    SkipCode.CONNECTOR_CONFIG_NOT_CONFIGURED,
    SkipCode.AUDIT_PACKAGE_NOT_FOUND,
    SkipCode.RETRY_LIMIT_REACHED,
)


@dataclass(frozen=True)
class RunRequest:
    """What a person asks the worker for; every value is checked, none is a default that sends.

    ``policy`` holds only the keys that were given. ``cases`` None means all; ``timeout_s`` is raised to a
    connector's own minimum. ``background`` leaves the work to the worker command. ``set_id`` narrows the run
    to a set; with ``canary`` each connector's first retry goes alone, then five, then the rest, and a failure
    ends that connector's part (P17).
    """

    dry_run: bool = True
    policy: Mapping[str, Any] = field(default_factory=dict)
    providers: tuple[str, ...] = ()
    cases: tuple[str, ...] | None = None
    max_retry_deliveries: int = 5
    timeout_s: float = 10.0
    interval_minutes: int = 60
    schedule_enabled: bool = True
    cadence: str = ""
    background: bool = False
    set_id: str = ""
    canary: bool = False
    claimed_actor: str = ""

    @property
    def immediate(self) -> bool:
        """Whether the person lifts the delay for this run (P9)."""
        return bool(self.policy.get("allow_immediate_retry", False))

    def as_dict(self) -> dict[str, Any]:
        """Plain form, kept on the run's row."""
        return {
            "policy": {key: _plain(value) for key, value in self.policy.items()},
            "providers": list(self.providers),
            "cases": None if self.cases is None else list(self.cases),
            "max_retry_deliveries": self.max_retry_deliveries,
            "timeout_ms": round(self.timeout_s * 1000),
            "cadence": self.cadence,
            "background": self.background,
            "canary": self.canary,
        }


def _plain(value: Any) -> Any:
    return value if isinstance(value, int) else float(value)


def approved(request: RunRequest, at: datetime) -> list[ApprovalEntry]:
    """Approved entries a live run is about: oldest deadline first, then oldest request.

    What cannot be claimed now (window, pause, breaker, connector, acknowledgement) comes last: it never takes the
    place of another connector's entry (P17), and where there is room the run says why.
    """
    entries = _narrowed(approvals.entries().filter(state=EntryState.APPROVED), request)
    held = (
        Q(execute_by__lt=at)
        | Q(connector__enabled=False)
        | Q(connector__key__in=evidence_policies.paused_scopes())
        | Q(connector__in=Connector.objects.filter(breakers.waiting(at)))
        | (Q(require_retry_ack=True) & ~Q(decision__ack_state__in=ACKNOWLEDGED))
        | Q(last_skip__in=SEEN_BY_CLAIM_ONLY)
    )
    if not request.immediate:
        held |= Q(not_before__gt=at)
    entries = entries.annotate(held=SqlCase(When(held, then=Value(1)), default=Value(0)))
    return list(entries.order_by("held", "execute_by", "requested_at", "pk")[: request.max_retry_deliveries])


def _narrowed(entries: QuerySet[ApprovalEntry], request: RunRequest) -> QuerySet[ApprovalEntry]:
    if request.providers:
        entries = entries.filter(connector__key__in=request.providers)
    if request.cases is not None:
        entries = entries.filter(case__case_id__in=request.cases)
    if request.set_id:
        entries = entries.filter(set_items__retry_set__set_id=request.set_id)
    return entries


def require_connectors(keys: Sequence[str]) -> None:
    """Raise ``Conflict`` naming every key that is no connector: what is named is answered (P16)."""
    known = set(Connector.objects.filter(key__in=keys).values_list("key", flat=True))
    if missing := [key for key in keys if key not in known]:
        raise Conflict(
            f"Not configured: {', '.join(missing)}.", code="connector_not_configured", providers=missing
        )


@dataclass(frozen=True)
class Applied:
    """The stricter of what was approved and what this run asks for, for one entry."""

    policy: Policy
    not_before: datetime
    immediate: bool

    def as_dict(self) -> dict[str, Any]:
        """Shown in the execution record as ``applied_policy``."""
        return self.policy.as_dict()


def applied(entry: ApprovalEntry, sent: Mapping[str, Any], last_attempt_at: datetime) -> Applied:
    """Combine the entry's frozen policy with a run's (CONTRACT, row "live run").

    ``allow_immediate_retry`` lifts the delay when the administrator's policy allows it; a delay sent beside
    it is kept. Every other key, and a ceiling lowered since the approval, can only make it stricter.
    """
    frozen = retry_policies.from_dict(entry.decision.policy)
    limit = retry_policies.ceiling(retry_policies.configured())
    asked_for = bool(sent.get("allow_immediate_retry", False)) and limit.allow_immediate_retry
    immediate = asked_for and manifests.may_be_immediate(entry)
    # Approved without a delay while that was allowed; the administrator has switched it off since.
    slowed = frozen.allow_immediate_retry and not limit.allow_immediate_retry
    least = limit.retry_delay_minutes if slowed else frozen.retry_delay_minutes
    policy = Policy(
        max_retry_attempts=min(
            frozen.max_retry_attempts,
            limit.max_retry_attempts,
            sent.get("max_retry_attempts", frozen.max_retry_attempts),
        ),
        retry_delay_minutes=max(0 if immediate else least, sent.get("retry_delay_minutes", 0)),
        backoff_multiplier=max(
            frozen.backoff_multiplier,
            retry_policies.from_dict(
                {**frozen.as_dict(), **_only(sent, "backoff_multiplier")}
            ).backoff_multiplier,
        ),
        allow_immediate_retry=frozen.allow_immediate_retry or immediate,
    )
    longer = immediate or slowed or "retry_delay_minutes" in sent or "backoff_multiplier" in sent
    wait: timedelta = policy.delay_after(entry.case.counted_attempts) if longer else timedelta()
    opens = entry.requested_at if immediate else entry.not_before
    return Applied(policy, max(opens, last_attempt_at + wait), immediate)


def _only(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {key: data[key]} if key in data else {}
