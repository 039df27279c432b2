"""A morning with an outage: every state of a case at once, so that each page has something to show."""

import random
from dataclasses import dataclass
from datetime import timedelta

from playwright.sync_api import Page

from evidence.documents import NOTIFICATION_PLAN
from evidence.domain import (
    access,
    anchors,
    canaries,
    capsules,
    checkpoints,
    configuration,
    deliveries,
    erasures,
    heartbeats,
    holds,
    overrides,
    safety,
    verifications,
)
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import DeliveryRequest
from evidence.domain.keepers import Keeper
from evidence.domain.packages import PackageFilters
from evidence.enums import Administration, SafetyVerdict, Via
from evidence.models import Case, Connector, Person, Record, RetentionRule, Verification
from recovery.domain import approval_plans, playbooks, retry_plans, sets
from recovery.domain.approvals import Ballot
from recovery.domain.retry_plans import Review
from recovery.enums import ApprovalState, RetryAckState
from recovery.execution import claims, runs
from recovery.execution.claims import Claimed
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, RetryPlan, RetrySet, WorkerRun
from tests.builders import IMMEDIATE, Clock, World, connector
from tests.evidence import breaking
from tests.evidence.ledger_keys import Keys
from tests.evidence.safety_corpus import SECRETS

TITLES = {
    "splunk": "Splunk",
    "datadog": "Datadog",
    "jira": "Jira",
    "servicenow": "ServiceNow",
    "slack": "Slack",
    "teams": "Teams",
}
# How each receiver answers the morning's deliveries.
ANSWERS = {"splunk": 503, "datadog": 503, "jira": 429, "servicenow": 500, "slack": 503, "teams": 200}


@dataclass(frozen=True)
class Shot:
    """One page as one person sees it; with ``press`` the one behind the button of that name."""

    name: str
    path: str
    person: Person
    press: str = ""

    def open(self, page: Page, base: str) -> None:
        """Go there."""
        page.goto(base + self.path)
        if self.press:
            page.get_by_role("button", name=self.press, exact=True).click()
            page.wait_for_load_state()


def scene(world: World, keys: Keys) -> list[Shot]:
    """Play the morning; every page of the console with whom it is for."""
    keys.add()
    world.announced()
    world.acknowledged()
    for key, title in TITLES.items():
        connector(key, world.receiver.url(f"/{key}"), title=title)
        world.receiver.behave(f"/{key}", status=ANSWERS[key], body=b'{"text":"Server is busy","code":9}')
    done = deliveries.deliver_audit(
        DeliveryRequest(filters=PackageFilters(), providers=tuple(TITLES), retries=0, timeout_s=5.0),
        by=world.analyst,
        clock=world.clock,
    )
    for key in TITLES:
        world.receiver.behave(f"/{key}", status=200)
    cases = {case.connector.key: case for case in done.cases}
    _ask(world, cases["splunk"])
    _approve(world, cases["jira"])
    _lose(world, cases["servicenow"])
    _plan(world, cases["slack"])
    run = _settle(world, cases["datadog"])
    playbooks.generate(by=world.analyst, clock=world.clock, min_failure_count=1)
    asked, stopped = _sets(world)
    given_up = world.failed("webhook")[0]
    world.disposed(given_up)
    _take_away(world, keys, given_up, cases["datadog"])
    canaries.send(Connector.objects.get(key="splunk"), by=world.operator, clock=world.clock)
    waiting = _hold_back(world)
    _let_through(world, waiting)
    gone = _erase(world, given_up)
    world.announced()
    # A worker that stays alive for as long as anybody looks.
    long = Clock()
    long.forward(hours=1)
    heartbeats.beat("worker", clock=long)
    verifications.ask(by=world.auditor, clock=system_clock)
    verifications.run_due(clock=system_clock)
    assert Verification.objects.get().differences == 0
    # The newest head is held by nobody yet, and the log went on after the pass.
    world.announced()
    checkpoints.make(clock=world.clock)

    def page(key: str) -> str:
        return f"/console/cases/{cases[key].case_id}/"

    def edit(key: str) -> str:
        return f"/admin/evidence/connector/{Connector.objects.get(key=key).pk}/change/"

    analyst, approver, operator, auditor = world.analyst, world.approver, world.operator, world.auditor
    return [
        Shot("overview", "/console/", analyst),
        Shot("overview-no-hit", "/console/?q=nothing-like-this", analyst),
        Shot("attention", "/console/attention/", analyst),
        Shot("cases", "/console/cases/", analyst),
        Shot("case-ack", page("slack"), analyst),
        Shot("case-decide", page("splunk"), approver),
        Shot("case-not-your-turn", page("splunk"), auditor),
        Shot("case-execute", page("jira"), operator),
        Shot("case-unknown", page("servicenow"), analyst),
        Shot("case-settled", page("datadog"), auditor),
        Shot("approvals", "/console/approvals/", approver),
        Shot("recoveries", "/console/recoveries/", analyst),
        Shot("recovery", "/console/recoveries/datadog/", world.second_analyst),
        Shot("recovery-not-settled", "/console/recoveries/splunk/?outcome=resolved", analyst),
        Shot("routes", "/console/routes/", analyst),
        Shot("deliver", "/console/deliver/", analyst),
        Shot("case-abandoned", f"/console/cases/{given_up.case_id}/", auditor),
        Shot("sets", "/console/sets/", analyst),
        Shot("set-decide", f"/console/sets/{asked.set_id}/", approver),
        Shot("set-stopped", f"/console/sets/{stopped.set_id}/", operator),
        Shot("cases-failed", "/console/cases/?state=failed", analyst),
        Shot("runs", "/console/runs/", operator),
        Shot("run", f"/console/runs/{run.run_id}/", operator),
        Shot("connectors", "/console/connectors/", analyst),
        Shot("connector", "/console/connectors/splunk/", operator),
        Shot("connector-held-back", "/console/connectors/sentinel/", operator),
        Shot("connector-maintenance", "/console/connectors/pagerduty/", analyst),
        Shot("connector-healthy", "/console/connectors/teams/", auditor),
        Shot("case-parked", f"/console/cases/{waiting.case_id}/", world.second_analyst),
        Shot("connections", f"{page('splunk')}connections/", auditor),
        Shot("public-safety", "/console/public-safety/", auditor),
        Shot("connector-numbers", "/console/connectors/webhook/", approver),
        Shot("statements", "/console/statements/retries/", auditor),
        Shot("ledger", "/console/ledger/", auditor),
        Shot("erasures", "/console/erasures/", auditor),
        Shot("record-erase", f"/console/records/{given_up.plan.delivery_id}/", world.administrator),
        Shot("record-erased", f"/console/records/{gone}/", auditor),
        Shot("access-log", "/console/access-log/", auditor),
        Shot("record", f"/console/records/{cases['splunk'].plan.delivery_id}/", auditor),
        Shot("find", "/console/find/?q=splunk", auditor),
        Shot("nothing-here", "/console/nothing/", analyst),
        Shot("administration", "/admin/", world.administrator),
        Shot("administration-connector", edit("teams"), world.administrator),
        Shot("administration-test", edit("teams"), world.administrator, press="Test"),
        Shot("administration-test-failed", edit("offline"), world.administrator, press="Test"),
    ]


def _hold_back(world: World) -> Case:
    """A connector behind an open breaker, one under maintenance and one that cannot be used; the case that waits."""
    for key, title in (("sentinel", "Sentinel"), ("pagerduty", "PagerDuty")):
        connector(key, world.receiver.url(f"/{key}"), title=title, announce_through="teams")
    connector("offline", world.receiver.url("/offline"), title="Offline", token_ref="env:CAVRA_SCENE_NOT_SET")
    clock = Clock()
    breaking.opened("sentinel", clock)
    start = clock.at - timedelta(minutes=20)
    breaking.window("pagerduty", start, start + timedelta(hours=2), clock)
    world.acknowledged()
    request = DeliveryRequest(filters=PackageFilters(), providers=("sentinel",), retries=0, timeout_s=5.0)
    (case,) = deliveries.deliver_audit(request, by=world.analyst, clock=world.clock).cases
    return case


def _let_through(world: World, case: Case) -> None:
    """Text that looked like a secret: reviewed once, waiting for the auditor, and not the auditor's to review."""
    dice = random.Random(6)
    for by in (world.administrator, world.administrator, world.auditor):
        token = SECRETS["github-token"][0](dice)
        with safety.overriding("An example of the vendor's own documentation, no token of ours."):
            holds.place(case.case_id, reason=f"The report quotes {token}.", by=by, clock=world.clock)
    row = overrides.overrides(reviewed=False).last()
    assert row
    overrides.review(row, verdict=SafetyVerdict.FALSE_HIT, by=world.auditor, clock=world.clock)


def _take_away(world: World, keys: Keys, *cases: Case) -> None:
    """Each case in a capsule, and a head held outside."""
    for case in cases:
        capsules.freeze(case, by=world.auditor, clock=world.clock)
    keeper = Keeper.of(f"file:{keys.folder / 'heads'}")
    head = checkpoints.to_hand_out(clock=world.clock)
    anchors.hold(
        head,
        keeper.keep(head),
        administered_by=Administration.THIRD_PARTY,
        by=world.auditor,
        clock=world.clock,
    )


def _erase(world: World, case: Case) -> str:
    """One record erased, one proposed, one held, a rule that waits; the id of the erased one."""
    given = {"by": world.administrator, "clock": world.clock}
    basis, why = "GDPR art. 17(1)(a)", "The owner asked for it."
    first = case.attempts.get().record_id
    erasure = erasures.propose([first], basis, why, **given)
    erasures.confirm(erasure, by=world.auditor, clock=world.clock)
    erasures.propose([case.package.audit_id], basis, why, **given)
    holds.place(case.plan.delivery_id, reason="Case 12 of the court.", by=world.auditor, clock=world.clock)
    rule = RetentionRule(kind=NOTIFICATION_PLAN.name, keep_days=365, legal_basis="Records act, section 9")
    configuration.save(rule, **given)
    record = Record.objects.latest("index")
    access.note(
        world.auditor,
        access.READS["record-bytes"],
        record.record_id,
        page="record-bytes",
        via=Via.TOKEN,
        clock=world.clock,
    )
    return first


def _sets(world: World) -> tuple[RetrySet, RetrySet]:
    """An outage worked as a set, once waiting for a vote and once stopped by its canary."""
    found = []
    for status in (None, 500):
        cases = [world.failed("webhook")[0].case_id for _ in range(7)]
        row = sets.choose(
            cases, {"state": "failed", "provider": "webhook"}, by=world.analyst, clock=world.clock
        )
        sets.plan(row, IMMEDIATE, by=world.analyst, clock=world.clock)
        review = Review(provider="", state=RetryAckState.ACCEPTED, notes="receiver is back")
        sets.acknowledge(row, review, by=world.second_analyst, clock=world.clock)
        row = sets.request(row, by=world.analyst, clock=world.clock, reason="The receiver is back.")
        found.append(row)
        if status is None:
            continue
        yes = Ballot(state=ApprovalState.APPROVED, set_digest=row.digest)
        sets.decide(row, yes, by=world.approver, clock=world.clock)
        world.receiver.behave("/webhook", status=status)
        request = RunRequest(dry_run=False, set_id=row.set_id, canary=True, max_retry_deliveries=500)
        run = runs.start(request, by=world.operator, clock=world.clock).run
        runs.execute(run, clock=world.clock, seconds=30)
        world.receiver.behave("/webhook", status=200)
    return found[0], found[1]


def _plan(world: World, case: Case) -> RetryPlan:
    draft = retry_plans.plan(IMMEDIATE, by=world.analyst, clock=world.clock, cases=[case.case_id])
    return RetryPlan.objects.get(retry_plan_id=draft.record_id)


def _ask(world: World, case: Case) -> ApprovalEntry:
    key = Connector.objects.get(pk=case.connector_id).key
    review = Review(provider=key, state=RetryAckState.ACCEPTED, notes="receiver is back")
    retry_plans.acknowledge(_plan(world, case), review, by=world.second_analyst, clock=world.clock)
    approval_plans.request(by=world.analyst, clock=world.clock, cases=[case.case_id])
    return ApprovalEntry.objects.get(case=case)


def _approve(world: World, case: Case) -> None:
    world.vote(_ask(world, case))


def _start(world: World, case: Case) -> runs.Started:
    _approve(world, case)
    request = RunRequest(dry_run=False, cases=(case.case_id,))
    return runs.start(request, by=world.operator, clock=world.clock)


def _lose(world: World, case: Case) -> None:
    """Claimed, and never heard of again."""
    started = _start(world, case)
    claimed = claims.claim(started.entries[0].pk, started.run, clock=world.clock)
    assert isinstance(claimed, Claimed)
    world.unheard(claimed)


def _settle(world: World, case: Case) -> WorkerRun:
    started = _start(world, case)
    runs.execute(started.run, clock=world.clock, seconds=30)
    return started.run
