"""The administrator's policy is the ceiling; a caller may only tighten it (CONTRACT §10)."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from evidence.errors import Conflict
from recovery.domain import retry_policies
from recovery.domain.retry_policies import Policy, tightened
from recovery.models import RetryPolicy

LIMIT = Policy(3, 15, Decimal(2), allow_immediate_retry=True)
NO_IMMEDIATE = Policy(3, 15, Decimal(2), allow_immediate_retry=False)
SHORT = Policy(3, 1, Decimal(1), allow_immediate_retry=True)


@pytest.mark.parametrize(
    ("limit", "sent", "applies"),
    (
        (LIMIT, {}, (3, 15, 2, False)),
        (LIMIT, {"max_retry_attempts": 3}, (3, 15, 2, False)),
        (LIMIT, {"max_retry_attempts": 1}, (1, 15, 2, False)),
        (LIMIT, {"retry_delay_minutes": 15}, (3, 15, 2, False)),
        (LIMIT, {"retry_delay_minutes": 60}, (3, 60, 2, False)),
        (LIMIT, {"backoff_multiplier": 2.5}, (3, 15, Decimal("2.5"), False)),
        (LIMIT, {"allow_immediate_retry": False}, (3, 15, 2, False)),
        (LIMIT, {"allow_immediate_retry": True}, (3, 0, 2, True)),
        # An immediate flag with an explicit delay keeps that delay.
        (LIMIT, {"allow_immediate_retry": True, "retry_delay_minutes": 5}, (3, 5, 2, True)),
        (LIMIT, {"allow_immediate_retry": True, "backoff_multiplier": 1}, (3, 0, 1, True)),
        (NO_IMMEDIATE, {"allow_immediate_retry": False}, (3, 15, 2, False)),
        # Without the flag a delay of 0 counts as 1.
        (SHORT, {"retry_delay_minutes": 0}, (3, 1, 1, False)),
        (SHORT, {}, (3, 1, 1, False)),
    ),
)
def test_what_is_sent_tightens_the_limit(limit: Policy, sent: dict[str, Any], applies: tuple) -> None:
    policy = tightened(limit, sent)
    assert (
        policy.max_retry_attempts,
        policy.retry_delay_minutes,
        policy.backoff_multiplier,
        policy.allow_immediate_retry,
    ) == applies


@pytest.mark.parametrize(
    ("limit", "sent", "looser"),
    (
        (LIMIT, {"max_retry_attempts": 4}, {"max_retry_attempts"}),
        (LIMIT, {"retry_delay_minutes": 14}, {"retry_delay_minutes"}),
        (LIMIT, {"retry_delay_minutes": 0}, {"retry_delay_minutes"}),
        (LIMIT, {"backoff_multiplier": 1.999}, {"backoff_multiplier"}),
        (LIMIT, {"allow_immediate_retry": True, "max_retry_attempts": 1000}, {"max_retry_attempts"}),
        (NO_IMMEDIATE, {"allow_immediate_retry": True}, {"allow_immediate_retry"}),
        (
            LIMIT,
            {"max_retry_attempts": 9, "retry_delay_minutes": 1, "backoff_multiplier": 1},
            {"max_retry_attempts", "retry_delay_minutes", "backoff_multiplier"},
        ),
    ),
)
def test_w04_a_looser_policy_is_refused_and_named(
    limit: Policy, sent: dict[str, Any], looser: set[str]
) -> None:
    with pytest.raises(Conflict) as refused:
        tightened(limit, sent)
    assert refused.value.code == "policy_exceeds_limit"
    assert refused.value.errors.keys() == looser


@pytest.mark.parametrize(("counted", "minutes"), ((0, 15), (1, 15), (2, 30), (3, 60), (4, 120)))
def test_delay_grows_with_every_try_that_left(counted: int, minutes: int) -> None:
    assert LIMIT.delay_after(counted) == timedelta(minutes=minutes)


def test_an_extreme_policy_still_has_a_delay_that_a_date_can_bear() -> None:
    extreme = Policy(10, 10_080, Decimal(10), allow_immediate_retry=False)
    delays = [extreme.delay_after(counted) for counted in range(1, 11)]
    assert delays == sorted(delays)
    assert timedelta(days=365) <= delays[-1] <= timedelta(days=3660)


def test_a_stored_policy_reads_back_as_it_was() -> None:
    policy = Policy(3, 15, Decimal("1.125"), allow_immediate_retry=True)
    again = retry_policies.from_dict(policy.as_dict())
    assert again == policy
    assert again.digest == policy.digest
    assert tightened(policy, {"max_retry_attempts": 2}).digest != policy.digest


def test_the_same_policy_written_differently_is_the_same() -> None:
    assert (
        tightened(LIMIT, {"backoff_multiplier": 2.0, "retry_delay_minutes": 15}).digest
        == tightened(LIMIT, {}).digest
    )


def test_the_configured_delay_is_a_minute_at_least() -> None:
    assert retry_policies.ceiling(RetryPolicy(retry_delay_minutes=0)).retry_delay_minutes == 1
