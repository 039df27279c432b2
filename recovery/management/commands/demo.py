"""``manage.py demo``: fills an empty database with real work, by the verbs that everybody uses."""

import os
import secrets
import time
import urllib.request
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from evidence.documents import DELIVERY_PLAN
from evidence.domain import acknowledgements, configuration, deliveries, drills, people
from evidence.domain.acknowledgements import Answer
from evidence.domain.clock import system_clock
from evidence.domain.configuration import Entry
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.packages import PackageFilters
from evidence.enums import Product, Role, RouteState
from evidence.errors import DomainError
from evidence.models import Case, Connector, Person, Record, RecordKey, Schedule, ScheduleOwner
from recovery.management import demo
from recovery.management.demo import Login, Logins

TOKEN_VARIABLE = "CAVRA_DEMO_SPLUNK_TOKEN"
PAYMENTS = "go_backend_python_fallback_monthly"
LEDGER = "go_backend_ledger_fallback_quarterly"

TIMEOUT_S = 5.0
STARTS_WITHIN_S = 60.0

# How a drill's owners answer.
ANSWERS: dict[str, dict[str, Any]] = {
    PAYMENTS: {"state": RouteState.ACKNOWLEDGED, "notes": "Runbook read, fallback rehearsed."},
    LEDGER: {"state": RouteState.RESOLVED, "notes": "Rehearsed with the last release."},
}
# Where the answers are delivered to, and the cadence they are labelled with.
DELIVERIES = {
    PAYMENTS: (("release_chat", "splunk", "webhook"), "weekly"),
    LEDGER: (("webhook",), "on_demand"),
}


class Command(BaseCommand):
    """People, schedules, connectors, answered drills and failed deliveries. Loading again adds nothing."""

    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        logins = self.logins()
        self.require_receiver()
        os.environ.setdefault(TOKEN_VARIABLE, secrets.token_urlsafe(24))
        try:
            self.people(logins)
            self.configuration()
            self.drills()
            self.deliveries()
        except DomainError as error:
            raise CommandError(
                f"The demo could not be loaded: {error.detail} {error.errors or ''}"
            ) from error
        self.stdout.write(
            f"Demo data: {Case.objects.count()} cases, {Record.objects.count()} records. Sign in as"
        )
        for name, (_, role) in demo.CAST.items():
            self.stdout.write(f"  {name:12} {logins.people[name].password:18} {role.value}")
        self.stdout.write(f"Bearer tokens of the same people are in {logins.path()}")

    def logins(self) -> Logins:
        """Logins of this very database, new ones when it is empty; refuses a database with work of its own."""
        log = Record.objects.get(index=0).digest
        kept = Logins.read()
        if kept is not None and kept.log == log:
            return kept
        if any(model._default_manager.exists() for model in (Person, Schedule, Connector)):
            raise CommandError(
                "This database holds work that is not the demo's. The demo is loaded into an empty one: choose "
                "another CAVRA_DATA (or DATABASE_URL)."
            )
        return Logins(log)

    def require_receiver(self) -> None:
        """The deliveries below have to fail against something that is there; it may still be starting."""
        waited_until = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                url = demo.receiver_url()
                urllib.request.urlopen(url, timeout=5).close()  # noqa: S310  (our own loopback address)
                return
            except (CommandError, OSError) as error:
                if time.monotonic() > waited_until:
                    raise CommandError(f"The demo's receiver does not answer: {error}") from error
            time.sleep(0.1)

    def people(self, logins: Logins) -> None:
        """Everybody of the cast, with a password and a token that are kept before they count."""
        for name, (full_name, role) in demo.CAST.items():
            login = logins.people.setdefault(name, Login(password=secrets.token_urlsafe(12)))
            logins.write()
            person = Person.objects.filter(username=name).first() or people.create(
                name,
                by=None,
                clock=system_clock,
                full_name=full_name,
                email=f"{name}@{demo.MAIL_DOMAIN}",
                password=login.password,
            )
            people.grant_role(person, role, by=None, clock=system_clock)
            if not login.token:
                login.token = people.issue_token(person, by=None, clock=system_clock)
                logins.write()

    def configuration(self) -> None:
        """Drills and connectors, unless they are there: what somebody changed meanwhile stays."""
        there = {str(row) for model in (Schedule, Connector) for row in model._default_manager.all()}
        missing = [entry for entry in (*schedules(), *connectors()) if str(entry.row) not in there]
        configuration.save_all(missing, by=member(Role.ADMINISTRATOR), clock=system_clock)

    def drills(self) -> None:
        """Owners are told and answer."""
        for schedule in Schedule.objects.filter(schedule_id__in=ANSWERS, plans=None):
            drills.announce(
                schedule, by=member(Role.ANALYST), clock=system_clock, retries=0, timeout_s=TIMEOUT_S
            )
            answer = Answer(
                schedule_id=schedule.schedule_id,
                provider="release_chat",
                external_ref="CHG-789",
                **ANSWERS[schedule.schedule_id],
            )
            acknowledgements.acknowledge([answer], by=member(Role.ANALYST), clock=system_clock)

    def deliveries(self) -> None:
        """The answers are delivered; most receivers are down, so most deliveries truly fail."""
        for schedule_id, (providers, cadence) in DELIVERIES.items():
            about = RecordKey.objects.filter(name="schedule_id", value=schedule_id).values("record")
            if Record.objects.filter(kind=DELIVERY_PLAN.name, index__in=about).exists():
                continue
            request = DeliveryRequest(
                filters=PackageFilters(schedule_id=schedule_id),
                providers=providers,
                cadence=cadence,
                retries=0,
                timeout_s=TIMEOUT_S,
            )
            deliveries.deliver_audit(request, by=member(Role.ANALYST), clock=system_clock)


def member(role: Role) -> Person:
    """Who of the cast holds ``role``, the first of several."""
    name = next(name for name, (_, held) in demo.CAST.items() if held is role)
    return Person.objects.get(username=name)


def schedules() -> list[Entry]:
    """An overdue drill and one that is due soon, each with two owners."""
    now = system_clock().replace(hour=9, minute=0, second=0, microsecond=0)
    payments = Schedule(
        schedule_id=PAYMENTS,
        title="Payments: fall back from Go to Python",
        environment="production",
        interval_days=30,
        next_due_at=now - timedelta(days=1),
        runbook_ref="RUNBOOK:payments-fallback",
        notification_providers=["release_chat"],
        acknowledgement_minutes=30,
    )
    ledger = Schedule(
        schedule_id=LEDGER,
        title="Ledger: fall back from Go to Python",
        environment="production",
        interval_days=90,
        next_due_at=now + timedelta(days=9),
        runbook_ref="RUNBOOK:ledger-fallback",
        notification_providers=["release_chat"],
    )
    return [
        Entry(payments, {"owners": owners(payments, "release-governance", "payments-platform")}),
        Entry(ledger, {"owners": owners(ledger, "release-governance", "ledger-platform")}),
    ]


def owners(schedule: Schedule, *names: str) -> list[ScheduleOwner]:
    """Owners of a drill, in this order, with somebody above them."""
    return [
        ScheduleOwner(schedule=schedule, position=position, name=name, escalation_owner="head-of-release")
        for position, name in enumerate(names)
    ]


def connectors() -> list[Entry]:
    """A SIEM, an intake of a partner and a chat, all of them played by the demo's receiver."""
    rows = (
        Connector(
            key="splunk",
            product=Product.SPLUNK,
            title="SIEM of the SOC",
            url=demo.receiver_url(demo.COLLECTOR),
            token_ref=f"env:{TOKEN_VARIABLE}",
            authorization_scheme="Splunk",
        ),
        Connector(
            key="webhook", product=Product.WEBHOOK, title="Audit intake", url=demo.receiver_url(demo.INTAKE)
        ),
        Connector(
            key="release_chat",
            product=Product.WEBHOOK,
            title="Release chat",
            url=demo.receiver_url(demo.CHAT),
        ),
    )
    for row in rows:
        row.allow_networks = ["127.0.0.0/8"]
    return [Entry(row) for row in rows]
