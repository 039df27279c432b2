"""The retry policy: the administrator's ceiling, and what a caller may tighten (CONTRACT §10, P8, P9)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from evidence.domain import records
from evidence.errors import Conflict
from recovery.models import RetryPolicy

# CONTRACT §10: a delay of 0 without allow_immediate_retry counts as 1.
SHORTEST_DELAY = 1
# Growth ends here: ten tries of the slowest policy would leave the calendar.
LONGEST_DELAY = timedelta(days=365)


@dataclass(frozen=True)
class Policy:
    """How often and how soon a case is tried again. Delays are minutes."""

    max_retry_attempts: int
    retry_delay_minutes: int
    backoff_multiplier: Decimal
    allow_immediate_retry: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain form for documents; the multiplier as a JSON number."""
        return {**asdict(self), "backoff_multiplier": float(self.backoff_multiplier)}

    @property
    def digest(self) -> str:
        """SHA-256 of the policy: part of what a decision is identified by."""
        return records.digest(records.canonical(self.as_dict()))

    def delay_after(self, counted_attempts: int) -> timedelta:
        """How long to wait after the ``counted_attempts``-th try that left: base x multiplier^(n-1), at most a year."""
        factor: Decimal = self.backoff_multiplier ** max(counted_attempts - 1, 0)
        longest = LONGEST_DELAY // timedelta(minutes=1)
        return timedelta(minutes=min(int(self.retry_delay_minutes * factor), longest))


def from_dict(data: Mapping[str, Any]) -> Policy:
    """The policy that ``as_dict`` wrote."""
    return Policy(
        max_retry_attempts=data["max_retry_attempts"],
        retry_delay_minutes=data["retry_delay_minutes"],
        backoff_multiplier=Decimal(str(data["backoff_multiplier"])),
        allow_immediate_retry=data["allow_immediate_retry"],
    )


def configured() -> RetryPolicy:
    """The administrator's row, or the defaults before anybody saved one."""
    return RetryPolicy.objects.first() or RetryPolicy()


def ceiling(row: RetryPolicy) -> Policy:
    """The configured policy; ``allow_immediate_retry`` says whether a caller may ask for it."""
    return Policy(
        max_retry_attempts=row.max_retry_attempts,
        retry_delay_minutes=max(row.retry_delay_minutes, SHORTEST_DELAY),
        backoff_multiplier=Decimal(row.backoff_multiplier),
        allow_immediate_retry=row.allow_immediate_retry,
    )


def tightened(limit: Policy, sent: Mapping[str, Any]) -> Policy:
    """The policy that applies when a caller sends some keys of it.

    ``sent`` holds only the keys that were given. Raises ``Conflict`` ``policy_exceeds_limit`` naming every
    key that is looser than ``limit``. ``allow_immediate_retry`` lifts the delay when the limit allows it;
    a delay sent beside it is kept (CONTRACT §10).
    """
    immediate = bool(sent.get("allow_immediate_retry", False))
    looser: dict[str, list[str]] = {}
    if immediate and not limit.allow_immediate_retry:
        looser["allow_immediate_retry"] = ["Immediate retries are switched off by the retry policy."]
    attempts = sent.get("max_retry_attempts", limit.max_retry_attempts)
    if attempts > limit.max_retry_attempts:
        looser["max_retry_attempts"] = [f"The retry policy allows {limit.max_retry_attempts}."]
    delay = sent.get("retry_delay_minutes", 0 if immediate else limit.retry_delay_minutes)
    multiplier = Decimal(str(sent.get("backoff_multiplier", limit.backoff_multiplier)))
    if not immediate:
        delay = max(delay, SHORTEST_DELAY)
        if delay < limit.retry_delay_minutes:
            looser["retry_delay_minutes"] = [
                f"The retry policy asks for {limit.retry_delay_minutes} minutes at least."
            ]
        if multiplier < limit.backoff_multiplier:
            looser["backoff_multiplier"] = [
                f"The retry policy asks for {limit.backoff_multiplier.normalize():f} at least."
            ]
    if looser:
        raise Conflict(
            "The policy sent is looser than the retry policy.", code="policy_exceeds_limit", errors=looser
        )
    return replace(
        limit,
        max_retry_attempts=attempts,
        retry_delay_minutes=delay,
        backoff_multiplier=multiplier,
        allow_immediate_retry=immediate,
    )
