"""Measurements as lines of Markdown."""

from collections.abc import Sequence
from datetime import datetime

from tests.benchmarks.million import Cost, Long
from tests.benchmarks.rates import Rate
from tests.benchmarks.safety import SIZE, Looked
from tests.benchmarks.sending import CONNECTORS, WELL, Sent
from tests.benchmarks.writers import Written
from tests.torture.report import database, surroundings, table


def section(
    began: datetime,
    load: float,
    took_s: float,
    written: Written,
    rated: Sequence[Rate],
    looked: Sequence[Looked],
    sent: Sent,
    long: Long,
) -> list[str]:
    """The section of one database."""
    facts = {
        "begun": f"{began:%Y-%m-%d %H:%M} UTC",
        "took": f"{took_s:,.0f} s",
        "load when it began": f"{load:.1f} processes that ran or waited, in the last minute",
        **surroundings(),
        "database": database(),
    }
    return [
        *table(("what", "value"), list(facts.items())),
        *("", "### Writers at once", "", *of_writers(written)),
        *("", "### Records a second", "", *of_rates(rated)),
        *("", "### Public safety", "", *of_safety(looked)),
        *("", "### Queued deliveries", "", *of_sending(sent)),
        *("", "### A long log", "", *of_long(long)),
    ]


def of_writers(written: Written) -> list[str]:
    """What writers at once came to."""
    failed = "; ".join(f"{count} × {what}" for what, count in written.failed.items())
    facts = {
        "writers": f"{written.writers} processes for {written.seconds:g} s",
        "records appended": f"{written.appended:,}, {written.appended / written.seconds:,.0f} a second",
        "slowest append": f"{written.slowest_ms:,.0f} ms",
        "appends that failed (deadlocks are among these)": failed or "0",
        "entries missing or not accounted for": str(written.gaps),
        "verifications of the whole log meanwhile": str(written.passes),
        "false alarms of these": "; ".join(written.alarms) or "0",
        "differences found afterwards (forks are among these)": str(written.differences),
    }
    return table(("what", "value"), list(facts.items()))


def of_rates(rated: Sequence[Rate]) -> list[str]:
    """Records a second with and without the ledger."""
    return table(
        ("records a transaction", "records", "through the ledger", "plain tables", "share"),
        [
            (
                f"{rate.at_once:,}",
                f"{rate.records:,}",
                f"{rate.ledger:,.0f}/s",
                f"{rate.plain:,.0f}/s",
                f"{rate.share:.0%}",
            )
            for rate in rated
        ],
    )


def of_safety(looked: Sequence[Looked]) -> list[str]:
    """How long the rules take for two kilobytes."""
    return table(
        (f"{SIZE:,} characters of", "texts", "median", "slowest"),
        [
            (one.what, f"{one.texts:,}", f"{one.median_ms:,.2f} ms", f"{one.worst_ms:,.2f} ms")
            for one in looked
        ],
    )


def of_sending(sent: Sent) -> list[str]:
    """What became of queued deliveries, and how fast those went that nothing stood in the way of."""
    facts = {
        "deliveries": f"{sent.orders:,}, over {len(CONNECTORS)} connectors",
        "delivered": f"{sent.delivered:,}",
        "failed, and said so": f"{sent.failed:,}",
        "lost: no receipt, or delivered and not there": str(sent.lost),
        "not sent, and there all the same": str(sent.unfounded),
        "arrived twice": str(sent.twice),
        f"to the {len(WELL)} receivers that are well": _in_all(sent.well, sent.well_s),
        "the same bytes by a bare loop": _in_all(sent.well, sent.bare_s),
        "until the slow one's last": f"{sent.all_s:,.1f} s",
    }
    return table(("what", "value"), list(facts.items()))


def _in_all(count: int, seconds: float) -> str:
    return f"{count:,} in {seconds:,.1f} s, {count / seconds:,.0f} a second"


def of_long(long: Long) -> list[str]:
    """What reading a long log costs."""
    costs = {
        "inclusion proof": long.inclusion,
        "consistency proof": long.consistency,
        "signed head, one entry later each": long.head,
    }
    return [
        f"{long.size:,} entries, {long.filled:,} of them written directly in {long.filled_s:,.0f} s. "
        f"The first head, all leaves derived again: {long.first_head_s:,.1f} s.",
        "",
        *table(
            ("what", "rows read at most", "queries at most", "median", "slowest"),
            [(what, *_cost(cost)) for what, cost in costs.items()],
        ),
    ]


def _cost(cost: Cost) -> tuple[str, ...]:
    return str(cost.rows), str(cost.queries), f"{cost.median_ms:,.1f} ms", f"{cost.worst_ms:,.1f} ms"
