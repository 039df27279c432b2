"""Recovery playbooks: what failed per connector, and what to do about it (CONTRACT §7, §12)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max

from evidence.connectors.failures import PROPERTIES, STEPS
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records
from evidence.domain.clock import Clock
from evidence.domain.transitions import move
from evidence.enums import AlertLevel, FailureClass, Outcome
from evidence.errors import NotFound
from evidence.models import Attempt, Case, Connector, Person, Record
from recovery.documents import PLAYBOOK
from recovery.domain import fulfilment, transitions
from recovery.domain.retry_plans import UNSETTLED
from recovery.enums import RecoveryState
from recovery.models import Closure, Playbook, PlaybookItem, Recovery, RecoveryCase
from recovery.permissions import Permission

# CONTRACT §12; anything else is a webhook.
CATEGORIES = {
    "splunk": "siem",
    "sentinel": "siem",
    "datadog": "siem",
    "jira": "itsm",
    "servicenow": "itsm",
    "slack": "chatops",
    "teams": "chatops",
    "pagerduty": "chatops",
    "email": "chatops",
}

# Steps of every recovery, after those that the failures themselves point at.
CLOSING_STEPS = {
    "dry_run": "Run the audit worker dry and read what it would send.",
    "approval": "Have a second person approve the retry before it is sent live.",
    "reference": "Note the incident or change reference in the closure.",
}

BOUNDARY = (
    "This document is guidance. Credentials, tickets and receivers are worked on in their own systems by those "
    "who own them."
)

FINISHED = (RecoveryState.RESOLVED, RecoveryState.REOPENED)


@dataclass(frozen=True)
class Trouble:
    """What is known about one connector's failures when a playbook is made."""

    connector: Connector
    failures: list[Attempt]
    cases: list[Case]

    @property
    def latest_failure_at(self) -> datetime | None:
        """When the newest failure came back."""
        return max((attempt.completed_at for attempt in self.failures), default=None)

    @property
    def classes(self) -> Counter[str]:
        """How many failures of each class; a try whose outcome is unknown counts as that."""
        return Counter(attempt.failure_class or attempt.outcome for attempt in self.failures)

    @property
    def steps(self) -> dict[str, str]:
        """Steps for these failures, most frequent class first, each once."""
        keys = [
            step
            for name, _ in self.classes.most_common()
            for step in (
                PROPERTIES[FailureClass(name)].steps if name in list(FailureClass) else ("check_arrival",)
            )
        ]
        return {key: STEPS[key] for key in dict.fromkeys(keys)} | CLOSING_STEPS


def generate(
    *,
    by: Person,
    clock: Clock,
    min_failure_count: int = 2,
    lookback_hours: int = 24,
    claimed_actor: str = "",
) -> records.Draft:
    """Write a playbook for every connector that failed ``min_failure_count`` times in ``lookback_hours``.

    Opens a recovery for a connector that has none unfinished, and brings a mitigated, deferred or escalated
    one back when it failed again since or its date has come.
    """
    policies.require_role(by, Permission.PLAN_RECOVERY)
    with transaction.atomic():
        connectors = list(Connector.objects.select_for_update(no_key=True).order_by("pk"))
        at = clocks.read(clock)
        since = at - timedelta(hours=lookback_hours)
        troubles = [
            (trouble, recovery)
            for connector in connectors
            for trouble in [_trouble(connector, since)]
            for recovery in [_unfinished(connector)]
            if len(trouble.failures) >= min_failure_count
            or (recovery and (trouble.cases or date_has_come(recovery, at)))
        ]
        described = [
            (trouble, recovery, _open_or_continue(trouble, recovery, at=at)) for trouble, recovery in troubles
        ]
        documents = [_provider_playbook(trouble, current, at) for trouble, _, current in described]
        cases = sorted({case.case_id for trouble, _, _ in described for case in trouble.cases})
        draft = records.draft(
            PLAYBOOK,
            records.mint_id(PLAYBOOK),
            {
                "generated_at": records.timestamp(at),
                "generated_by": by.username,
                "alert_level": (AlertLevel.CRITICAL if documents else AlertLevel.HEALTHY).value,
                "lookback_hours": lookback_hours,
                "min_failure_count": min_failure_count,
                "provider_count": len(documents),
                "failure_count": sum(document["failure_count"] for document in documents),
                "provider_playbooks": documents,
            },
            at=at,
            by=by,
            # The seal entry names some; the document and the recovery's rows name all of them.
            cases=cases[: records.MAX_CASES_PER_RECORD],
            claimed_actor=claimed_actor,
        )
        playbook = Playbook.objects.create(
            playbook_id=draft.record_id, created_at=at, created_by=by, record_hash=draft.digest
        )
        PlaybookItem.objects.bulk_create(
            PlaybookItem(playbook=playbook, recovery=current) for _, _, current in described
        )
        ledger.append([draft])
    return draft


def playbook_by_id(playbook_id: str) -> Playbook:
    """The playbook with this id; ``NotFound`` otherwise."""
    row = Playbook.objects.filter(playbook_id=playbook_id).first()
    if row is None:
        raise NotFound("There is no playbook with this id.", code="playbook_not_found")
    return row


def _trouble(connector: Connector, since: datetime) -> Trouble:
    """Failures since ``since`` and since the connector's last resolved recovery, and the cases they are of."""
    # A reopened recovery is not resolved any more: what it was about counts again.
    resolved_at = Closure.objects.filter(
        recovery__connector=connector, recovery__state=RecoveryState.RESOLVED, state=RecoveryState.RESOLVED
    ).aggregate(newest=Max("closed_at"))["newest"]
    tries = Attempt.objects.filter(case__connector=connector, completed_at__gte=since)
    if resolved_at:
        # By the log's time, like the closure; a try's own times are the wall clock's and may lie before it.
        tries = tries.filter(case__last_outcome_at__gt=resolved_at)
    failures = list(tries.exclude(outcome=Outcome.DELIVERED).order_by("completed_at", "pk"))
    unsettled = Case.objects.filter(connector=connector, state__in=UNSETTLED)
    failed = Case.objects.filter(pk__in={attempt.case_id for attempt in failures})
    return Trouble(connector, failures, list((unsettled | failed).order_by("case_id")))


def _unfinished(connector: Connector) -> Recovery | None:
    return Recovery.objects.filter(connector=connector).exclude(state__in=FINISHED).first()


def _open_or_continue(trouble: Trouble, recovery: Recovery | None, *, at: datetime) -> Recovery:
    if recovery is None:
        last = Recovery.objects.filter(connector=trouble.connector).aggregate(last=Max("epoch"))["last"] or 0
        recovery = Recovery.objects.create(connector=trouble.connector, epoch=last + 1, opened_at=at)
    elif recovery.state != RecoveryState.OPEN and (
        _failed_since(recovery, trouble) or date_has_come(recovery, at)
    ):
        move(transitions.RECOVERIES, recovery.pk, RecoveryState.OPEN, review_at=None, owner="")
    listed = set(RecoveryCase.objects.filter(recovery=recovery).values_list("case_id", flat=True))
    RecoveryCase.objects.bulk_create(
        RecoveryCase(recovery=recovery, case=case, listed_at=at)
        for case in trouble.cases
        if case.pk not in listed
    )
    return recovery


def date_has_come(recovery: Recovery, at: datetime) -> bool:
    """Whether the day for which a recovery was put off is there."""
    return recovery.review_at is not None and recovery.review_at <= at


def _failed_since(recovery: Recovery, trouble: Trouble) -> bool:
    newest = Closure.objects.filter(recovery=recovery).aggregate(newest=Max("closed_at"))["newest"]
    latest = trouble.latest_failure_at
    return newest is not None and latest is not None and latest > newest


def _provider_playbook(trouble: Trouble, recovery: Recovery, at: datetime) -> dict[str, Any]:
    connector = trouble.connector
    codes = {attempt.status_code for attempt in trouble.failures if attempt.status_code is not None}
    steps = trouble.steps
    done = fulfilment.shown(recovery, at)
    latest = trouble.latest_failure_at
    return {
        "provider": connector.key,
        "provider_product": connector.product,
        "category": CATEGORIES.get(connector.product) or CATEGORIES.get(connector.key, "webhook"),
        "failure_count": len(trouble.failures),
        "latest_failure_at": records.timestamp(latest) if latest else "",
        "status_codes": sorted(str(code) for code in codes),
        "failure_classes": dict(sorted(trouble.classes.items())),
        "recovery_epoch": recovery.epoch,
        "recovery_state": Recovery.objects.values_list("state", flat=True).get(pk=recovery.pk),
        "cases": [case.case_id for case in trouble.cases],
        "failed_attempt_ids": [attempt.attempt_id for attempt in trouble.failures[-200:]],
        "recovery_steps": list(steps.values()),
        "steps": [
            {"step_key": key, "text": text, **_fulfilment(done.get(key))} for key, text in steps.items()
        ],
        "private_connector_boundary": BOUNDARY,
    }


def _fulfilment(shown: fulfilment.Shown | None) -> dict[str, Any]:
    """Whether a step is done, as a document says it."""
    return {
        "done": shown is not None,
        "done_by": shown.by if shown else "",
        "done_at": records.timestamp(shown.at) if shown else "",
    }


def newest_playbook(recovery: Recovery) -> Playbook | None:
    """The playbook that counts for a recovery; None before the first one."""
    item = PlaybookItem.objects.filter(recovery=recovery).select_related("playbook").order_by("-pk").first()
    return item.playbook if item else None


def listed_steps(playbook: Playbook, recovery: Recovery) -> dict[str, str]:
    """Texts of the steps that a playbook lists for a recovery's connector, by key; none once it was erased."""
    record = Record.objects.get(record_id=playbook.playbook_id)
    said = records.payload_of(record) or {"provider_playbooks": ()}
    return {
        step["step_key"]: step["text"]
        for about in said["provider_playbooks"]
        if about["provider"] == recovery.connector.key
        for step in about["steps"]
    }


def listed_cases(recovery: Recovery) -> Sequence[Case]:
    """Every case a recovery is about."""
    return list(Case.objects.filter(recovery_items__recovery=recovery).order_by("case_id"))
