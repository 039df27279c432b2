"""Runs the facts without the decisions: migrate, deliver, history, verify (see test_evidence_alone).

A program of its own, because installed apps cannot be changed once Django is set up.
"""

import json
import sys

import django

django.setup()

from datetime import UTC, datetime, timedelta  # noqa: E402
from io import StringIO  # noqa: E402

from django.core.management import call_command  # noqa: E402

from evidence import guards  # noqa: E402
from evidence.documents import CONNECTOR_DELIVERY  # noqa: E402
from evidence.domain import acknowledgements, configuration, deliveries, drills, history, people  # noqa: E402
from evidence.domain.acknowledgements import Answer  # noqa: E402
from evidence.domain.clock import system_clock as clock  # noqa: E402
from evidence.domain.deliveries import DeliveryRequest  # noqa: E402
from evidence.domain.packages import PackageFilters  # noqa: E402
from evidence.enums import Role, RouteState  # noqa: E402
from evidence.models import Connector, Person, Schedule, ScheduleOwner  # noqa: E402

NOBODY_LISTENS = "http://127.0.0.1:9/"


def configured() -> Schedule:
    connector = Connector(
        key="webhook", product="webhook", url=NOBODY_LISTENS, allow_networks=["127.0.0.0/8"]
    )
    configuration.save(connector, by=None, clock=clock)
    schedule = Schedule(
        schedule_id="drill",
        interval_days=30,
        next_due_at=datetime.now(UTC) - timedelta(days=1),
        notification_providers=["webhook"],
    )
    configuration.save(schedule, by=None, clock=clock, owners=[ScheduleOwner(schedule=schedule, name="ops")])
    return schedule


def main() -> None:
    call_command("migrate", verbosity=0)
    call_command("check", databases=["default"], fail_level="WARNING", stdout=StringIO())
    ann = people.create("ann", by=None, clock=clock)
    people.grant_role(ann, Role.ANALYST, by=None, clock=clock)
    ann = Person.objects.get(pk=ann.pk)
    schedule = configured()
    drills.announce(schedule, by=ann, clock=clock, retries=0)
    acknowledgements.acknowledge(
        [Answer(schedule_id="drill", provider="webhook", state=RouteState.ACKNOWLEDGED)], by=ann, clock=clock
    )
    done = deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), providers=("webhook",), retries=0, timeout_s=5.0),
        by=ann,
        clock=clock,
    )
    page = history.page(history.Query(keys=(("metadata_kind", CONNECTOR_DELIVERY.name),)))
    out = StringIO()
    call_command("verify_ledger", json=True, stdout=out)
    found = {
        "states": [case.state for case in done.cases],
        "history": len(page.records),
        "verified": json.loads(out.getvalue()),
        "guards": guards.differences(),
        "recovery": sorted(name for name in sys.modules if name.split(".")[0] == "recovery"),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
