"""P5: whatever a manifest covers, changed through any door, ends the approval for good and sends nothing.

Two tables say what is changed and what the manifest says about it; the doors are functions over both.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import cycle, product
from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.test import Client
from django.urls import reverse

from evidence.domain import configuration, records, verification
from evidence.domain.clock import system_clock
from evidence.enums import Outcome, Role
from evidence.errors import InvalidInput
from evidence.models import Case, Connector, LedgerHead, Person, Record
from recovery.documents import APPROVAL_VOID
from recovery.domain import approvals
from recovery.domain.manifests import NEWER_WIRE_FIELDS, WIRE_FIELDS
from recovery.enums import EntryState
from recovery.execution import claims, runs
from recovery.execution.claims import Skipped
from recovery.execution.selection import RunRequest
from recovery.models import ApprovalEntry, Execution, Vote
from tests.builders import IMMEDIATE, Clock, World, connector, person
from tests.endpoints import client
from tests.http import A
from tests.receiver import Receiver
from tests.recovery.checks import assert_ledger_verifies, assert_receiver_agrees, behind_the_back

# --- what is configured about a connector -------------------------------------------------------------------------

# Variables that connectors refer to; the receiver's address stands for ``{}``.
VARIABLES = {
    "CAVRA_TEST_URL": "{}/by-reference",
    "CAVRA_TEST_OTHER_URL": "{}/elsewhere",
    "CAVRA_TEST_TOKEN": "first-value",
    "CAVRA_TEST_OTHER_TOKEN": "second-value",
}
URL, OTHER_URL, TOKEN, OTHER_TOKEN = (f"env:{name}" for name in VARIABLES)

TARGET, CREDENTIAL, CONFIGURED = "destination_commitment", "credential_commitment", "connector_commitment"


@dataclass(frozen=True)
class Field:
    """A connector as it is approved, one column's new value, and what differs in the manifest then."""

    column: str
    value: Any
    differs: set[str]
    before: Mapping[str, Any] = field(default_factory=dict)


FIELDS = {
    "renamed": Field("key", "another_name", {"connector", CONFIGURED}),
    "another_product": Field(
        "product",
        "splunk",
        {"connector_product", CONFIGURED, CREDENTIAL, "headers"},
        before={"token_ref": TOKEN},
    ),
    "another_url": Field("url", "{}/elsewhere", {CONFIGURED, TARGET}),
    "another_url_ref": Field("url_ref", OTHER_URL, {CONFIGURED, TARGET}, before={"url": "", "url_ref": URL}),
    "another_header": Field("headers", {"x-team": "blue"}, {CONFIGURED, "headers"}),
    "another_authorization": Field(
        "authorization_ref", OTHER_TOKEN, {CONFIGURED, CREDENTIAL}, before={"authorization_ref": TOKEN}
    ),
    "another_token": Field("token_ref", OTHER_TOKEN, {CONFIGURED, CREDENTIAL}, before={"token_ref": TOKEN}),
    "another_scheme": Field(
        "authorization_scheme", "Token", {CONFIGURED, CREDENTIAL}, before={"token_ref": TOKEN}
    ),
    "another_api_key": Field(
        "api_key_ref", OTHER_TOKEN, {CONFIGURED, CREDENTIAL}, before={"api_key_ref": TOKEN}
    ),
    "another_key_header": Field(
        "api_key_header", "x-other-key", {CONFIGURED, CREDENTIAL}, before={"api_key_ref": TOKEN}
    ),
    "another_index": Field("index", "main", {CONFIGURED}),
    "another_service": Field("service", "payments", {CONFIGURED}),
    "another_network": Field("allow_networks", ["127.0.0.0/8", "10.0.0.0/8"], {CONFIGURED}),
    "more_approvals": Field("required_approvals", 2, {CONFIGURED, "required_approvals"}),
    "fewer_approvals": Field(
        "required_approvals", 1, {CONFIGURED, "required_approvals"}, before={"required_approvals": 2}
    ),
}

# Values behind references, as this process's environment gives them.
SWAPPED = {
    "url_behind": Field("CAVRA_TEST_URL", "{}/elsewhere", {TARGET}, before={"url": "", "url_ref": URL}),
    "authorization_behind": Field(
        "CAVRA_TEST_TOKEN", "swapped", {CREDENTIAL}, before={"authorization_ref": TOKEN}
    ),
    "token_behind": Field("CAVRA_TEST_TOKEN", "swapped", {CREDENTIAL}, before={"token_ref": TOKEN}),
    "api_key_behind": Field("CAVRA_TEST_TOKEN", "swapped", {CREDENTIAL}, before={"api_key_ref": TOKEN}),
}

# Columns of a connector that decide neither about the bytes nor about where they go.
NOT_ON_THE_WIRE: dict[str, Any] = {
    "title": "Another title",
    "timeout_ms": 4_000,
    "min_timeout_ms": 4_000,
    "max_concurrency": 1,
    "edited_by": None,
    "edited_at": None,
    "announce_through": "somebody",
}
# Whether anything may be sent at all; what would be sent stays the same.
SWITCHES = {"enabled"}


# --- doors --------------------------------------------------------------------------------------------------------

Door = Callable[[models.Model, str, Any], object]


def saved(row: models.Model, column: str, value: Any) -> None:
    fresh = type(row)._base_manager.get(pk=row.pk)
    setattr(fresh, column, value)
    fresh.save()


def updated(row: models.Model, column: str, value: Any) -> None:
    type(row)._base_manager.filter(pk=row.pk).update(**{column: value})


def by_sql(row: models.Model, column: str, value: Any) -> None:
    found = row._meta.get_field(column)
    assert isinstance(found, models.Field)
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE "{row._meta.db_table}" SET "{found.column}" = %s WHERE "id" = %s',
            [found.get_db_prep_save(getattr(value, "pk", value), connection), row.pk],
        )


def configured(row: models.Model, column: str, value: Any) -> None:
    """As the command that loads connectors saves one."""
    fresh = type(row)._base_manager.get(pk=row.pk)
    setattr(fresh, column, value)
    configuration.save(fresh, by=None, clock=system_clock)


def in_the_admin(row: models.Model, column: str, value: Any) -> None:
    """An administrator changes one input of the page and sends it."""
    browser = Client()
    browser.force_login(person(Role.ADMINISTRATOR))
    page = reverse("admin:evidence_connector_change", args=[row.pk])
    context = browser.get(page).context
    form = context["adminform"].form
    shown = {bound.name: bound.value() for bound in form}
    sent = {name: given for name, given in shown.items() if given not in (None, False)}
    for inline in context["inline_admin_formsets"]:  # the windows, of which there are none
        counts = inline.formset.management_form
        sent |= {
            counts.add_prefix(name): counts.get_initial_for_field(f, name)
            for name, f in counts.fields.items()
        }
    if column in shown:
        found = form.fields[column]
        sent[column] = found.prepare_value(value) if isinstance(value, dict | list) else value
    assert browser.post(page, sent).status_code == 302


ROW_DOORS: tuple[Door, ...] = (saved, updated, by_sql)
CONNECTOR_DOORS: tuple[Door, ...] = (*ROW_DOORS, configured, in_the_admin)
# A connector's name stays, whoever configures it.
NO_SUCH_DOOR = {(configured, "key"), (in_the_admin, "key")}


# --- the world ----------------------------------------------------------------------------------------------------


@dataclass
class Many:
    """A world with one connector for each row of a table, and the environment they refer to."""

    world: World
    environment: pytest.MonkeyPatch

    @property
    def receiver(self) -> Receiver:
        return self.world.receiver

    def filled(self, value: Any) -> Any:
        """A value of a table with the receiver's address in its place."""
        return value.format(self.receiver.url("")) if isinstance(value, str) else value

    def connect(self, table: Mapping[str, Field]) -> None:
        """A connector for each row, as it is when its retry is approved."""
        for key, one in table.items():
            connector(key, **{"url": self.receiver.url(f"/{key}"), **one.before})

    def failed(self, *keys: str) -> None:
        """One delivery to these connectors, which all fail and are well again afterwards."""
        paths = [*(f"/{key}" for key in keys), "/by-reference"]
        self.world.announced()
        for path in paths:
            self.receiver.behave(path, status=503)
        self.world.acknowledged()
        client_of(self.world.analyst, A, {"delivery_provider": ",".join(keys), "retries": 0})
        for path in paths:
            self.receiver.behave(path, status=200)

    def approved(self) -> dict[str, ApprovalEntry]:
        """Approved entries by their connector's key, with as many votes as each needs."""
        entries = self.world.requested()
        for entry in entries:
            self.world.vote(entry)
            if entry.required_approvals > 1:
                self.world.vote(entry, by=self.world.second_approver)
        return by_key(entries)

    def change(self, door: Door, table: Mapping[str, Field], keys: Mapping[str, ApprovalEntry]) -> None:
        """Every row's column gets its new value through ``door``."""
        for key, one in table.items():
            door(keys[key].connector, one.column, self.filled(one.value))

    def swap(self, table: Mapping[str, Field]) -> None:
        """The environment gives other values."""
        for one in table.values():
            self.environment.setenv(one.column, self.filled(one.value))


def by_key(entries: list[ApprovalEntry]) -> dict[str, ApprovalEntry]:
    found = {
        entry.connector.key: entry
        for entry in approvals.entries().filter(pk__in=[entry.pk for entry in entries])
    }
    assert len(found) == len(entries)
    return found


def client_of(who: Person, path: str, body: dict[str, Any], expect: int = 200) -> Any:
    answer = client(who).post(path, body, format="json")
    assert answer.status_code == expect, answer.json()
    return answer.json()


def _many(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Many]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value.format(receiver.url("")))
    yield Many(World(receiver, **options), monkeypatch)


@pytest.fixture
def many(
    db: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Many]:
    """The world of most tests here; log and receiver are compared afterwards, as everywhere."""
    for made in _many(receiver, monkeypatch):
        yield made
        if request.node.get_closest_marker("tampers") is None:
            assert_receiver_agrees(made.world)
            assert_ledger_knows_the_names()


@pytest.fixture
def timed_many(db: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[Many]:
    """The same, with a clock that stands until it is moved."""
    for made in _many(receiver, monkeypatch, clock=clock):
        yield made
        assert_receiver_agrees(made.world)
        assert_ledger_knows_the_names()


def assert_ledger_knows_the_names() -> None:
    """A connector that a door renamed is named wherever rows refer to it, and nothing else is; back again, all is well.

    Its name is one that no verb changes, so the records keep to the one they were written with.
    """
    old, new = "renamed", FIELDS["renamed"].value
    if row := Connector.objects.filter(key=new).first():
        referring = {f"case {case.case_id}, connector" for case in Case.objects.filter(connector=row)}
        referring |= {
            f"approval entry {entry.entry_id}, connector"
            for entry in ApprovalEntry.objects.filter(connector=row)
        }
        assert {(one.what, one.expected, one.found) for one in verification.verify()} == {
            *((what, old, new) for what in referring),
            (f"stream head {old}, row", "one", "none"),
            (f"stream head {new}, record", "one that speaks of it", "none"),
        }
        updated(row, "key", old)
    assert_ledger_verifies()


def ran(world: World) -> dict[str, dict[str, Any]]:
    """A live run over the API; its results by entry."""
    answer = client_of(world.operator, f"{A}/worker-run", {"dry_run": False, "max_retry_deliveries": 25})
    return {result["decision"]["entry_id"]: result for result in answer["retry_results"]}


def assert_void(many: Many, entries: Mapping[str, ApprovalEntry], differs: Mapping[str, set[str]]) -> None:
    """A live run finds each entry changed, says what changed, ends it for good and sends nothing."""
    sent, executions = len(many.receiver.log), Execution.objects.count()
    results = ran(many.world)
    wrong = {}
    for key, entry in entries.items():
        result = results[entry.entry_id]
        said = result["execution_record"] or {}
        found = (result["skipped"], said.get("execution_status"), set(said.get("changed_fields", ())))
        if found != ("manifest_changed", "skipped", differs[key]):
            wrong[key] = found
    assert wrong == {}
    voids = {
        said["entry_id"]: set(said["changed_fields"])
        for record in Record.objects.filter(kind=APPROVAL_VOID.name)
        if (said := records.payload_of(record))
    }
    assert {key: voids.get(entry.entry_id) for key, entry in entries.items()} == differs
    final(entries)
    # Nothing brings it back.
    assert not set(ran(many.world)) & {entry.entry_id for entry in entries.values()}
    final(entries)
    assert (len(many.receiver.log), Execution.objects.count()) == (sent, executions)


def final(entries: Mapping[str, ApprovalEntry], state: EntryState = EntryState.VOID) -> None:
    rows = ApprovalEntry.objects.filter(pk__in=[entry.pk for entry in entries.values()])
    assert {(row.state, row.ended_at is not None) for row in rows} == {(state, True)}


def assert_asked_again(many: Many, count: int) -> None:
    """Plan, review, request, approve and execute once more: everything is delivered as it is now."""
    entries = many.approved()
    assert len(entries) == count
    sent = len(many.receiver.log)
    statuses = {
        (result["skipped"], (result["execution_record"] or {}).get("execution_status"))
        for result in ran(many.world).values()
    }
    assert statuses == {(None, "delivered")}
    assert len(many.receiver.log) == sent + count


# --- a connector, changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", CONNECTOR_DOORS)
def test_p5_a_changed_connector_voids_the_approval_whatever_the_door(many: Many, door: Door) -> None:
    table = {key: one for key, one in FIELDS.items() if (door, one.column) not in NO_SUCH_DOOR}
    many.connect(table)
    many.failed(*table)
    entries = many.approved()
    many.change(door, table, entries)
    assert_void(many, entries, {key: one.differs for key, one in table.items()})
    if door is in_the_admin:  # afterwards all doors look alike
        assert_asked_again(many, len(table))


def test_p5_where_a_name_cannot_be_changed_the_approval_stands(many: Many) -> None:
    one = {"renamed": FIELDS["renamed"]}
    many.connect(one)
    many.failed("renamed")
    entries = many.approved()
    with pytest.raises(InvalidInput) as refused:
        many.change(configured, one, entries)
    assert list(refused.value.errors) == ["key"]
    many.change(in_the_admin, one, entries)  # the page has no such input
    assert not Connector.objects.filter(key=one["renamed"].value).exists()
    (result,) = ran(many.world).values()
    assert result["execution_record"]["execution_status"] == "delivered"


def test_p5_a_swapped_environment_voids_the_approval(many: Many) -> None:
    many.connect(SWAPPED)
    many.failed(*SWAPPED)
    entries = many.approved()
    many.swap(SWAPPED)
    assert_void(many, entries, {key: one.differs for key, one in SWAPPED.items()})
    assert_asked_again(many, len(SWAPPED))
    assert many.receiver.arrived("/elsewhere")


def test_p5_what_does_not_decide_about_the_wire_changes_nothing(many: Many) -> None:
    keys = {f"same_{number}": Field("", "", set()) for number, _ in enumerate(CONNECTOR_DOORS)}
    many.connect({**keys, "somebody": Field("", "", set())})
    many.failed(*keys)
    entries = many.approved()
    editor, at = person(), system_clock()
    for door, entry in zip(CONNECTOR_DOORS, entries.values(), strict=True):
        for column, value in NOT_ON_THE_WIRE.items():
            door(entry.connector, column, {"edited_by": editor, "edited_at": at}.get(column, value))
    assert {Connector.objects.values_list("title", "max_concurrency").get(key=key) for key in keys} == {
        ("Another title", 1)
    }
    statuses = [result["execution_record"]["execution_status"] for result in ran(many.world).values()]
    assert statuses == ["delivered"] * len(keys)


# --- votes on what was changed ------------------------------------------------------------------------------------


def voted_over_the_api(many: Many, entry: ApprovalEntry) -> list[str]:
    """The approver's vote is refused; the fields that the refusal names."""
    body = {
        "provider": entry.connector.key,
        "delivery_id": entry.case.plan.delivery_id,
        "audit_id": entry.case.package.audit_id,
        "manifest_digest": entry.manifest_digest,
    }
    path = f"{A}/retry-execution-approval-plans/{entry.plan.approval_plan_id}/decisions"
    refused = client_of(many.world.approver, path, body, expect=409)
    assert refused["code"] == "manifest_changed"
    # Nobody else approves it afterwards either.
    late = client_of(many.world.second_approver, path, body, expect=409)
    assert late["code"] == "entry_ended"
    named: list[str] = refused["changed_fields"]
    return named


def voted_in_the_console(many: Many, entry: ApprovalEntry) -> list[str]:
    """The same on the case's page."""
    browser = Client()
    browser.force_login(many.world.approver)
    answer = browser.post(
        f"/console/cases/{entry.case.case_id}/decide/",
        {"state": "approved", "entry_id": entry.entry_id, "manifest_digest": entry.manifest_digest},
    )
    assert answer.status_code == 409
    assert "what would be sent has changed" in answer.content.decode()
    void = records.payload_of(Record.objects.filter(kind=APPROVAL_VOID.name).latest("index"))
    assert void is not None
    assert void["entry_id"] == entry.entry_id
    named: list[str] = void["changed_fields"]
    return named


# A name is how a caller finds an entry: under the old one nobody finds that of a renamed connector.
VOTED = {key: one for key, one in (FIELDS | SWAPPED).items() if one.column != "key"}


@pytest.mark.parametrize(
    ("vote", "keys"),
    (
        (voted_over_the_api, set(VOTED)),
        (voted_in_the_console, {"another_url", "more_approvals", "url_behind"}),
    ),
    ids=("api", "console"),
)
def test_p5_a_vote_on_what_was_changed_is_refused_and_recorded(
    many: Many, vote: Callable[[Many, ApprovalEntry], list[str]], keys: set[str]
) -> None:
    table = {key: one for key, one in VOTED.items() if key in keys}
    many.connect(table)
    many.failed(*table)
    entries = by_key(many.world.requested())
    many.change(updated, {key: one for key, one in table.items() if key in FIELDS}, entries)
    many.swap({key: one for key, one in table.items() if key in SWAPPED})
    sent = len(many.receiver.log)
    named = {key: set(vote(many, entry)) for key, entry in entries.items()}
    assert named == {key: one.differs for key, one in table.items()}
    final(entries)
    assert not Vote.objects.exists()
    assert Record.objects.filter(kind=APPROVAL_VOID.name).count() == len(table)
    assert ran(many.world) == {}
    assert len(many.receiver.log) == sent


# --- after the end ------------------------------------------------------------------------------------------------


def test_p5_what_changes_after_the_approval_ran_out_is_not_sent_either(
    timed_many: Many, clock: Clock
) -> None:
    many, world = timed_many, timed_many.world
    many.connect(FIELDS | SWAPPED)
    many.failed(*FIELDS, *SWAPPED)
    entries = many.approved()
    queued = runs.start(
        RunRequest(dry_run=False, background=True, max_retry_deliveries=25), by=world.operator, clock=clock
    ).run
    clock.at = max(entry.execute_by for entry in entries.values() if entry.execute_by) + timedelta(seconds=1)
    assert approvals.expire(clock=clock) == len(entries)
    # Each row through another door, then the environment.
    for (key, one), door in zip(FIELDS.items(), cycle(CONNECTOR_DOORS), strict=False):
        many.change(updated if (door, one.column) in NO_SUCH_DOOR else door, {key: one}, entries)
    many.swap(SWAPPED)
    sent = len(many.receiver.log)
    # The run that was left to the worker names them still; a new one does not.
    runs.take(queued, clock=clock)
    late = [claims.claim(entry.pk, queued, clock=clock) for entry in entries.values()]
    assert {one.code.value for one in late if isinstance(one, Skipped)} == {"approval_expired"}
    assert len(late) == len(entries)
    assert world.ran(policy=IMMEDIATE).entries == []
    final(entries, EntryState.EXPIRED)
    assert len(many.receiver.log) == sent
    assert not Execution.objects.exists()


def test_p5_what_changed_and_then_ran_out_is_not_sent_either(timed_many: Many, clock: Clock) -> None:
    many, world = timed_many, timed_many.world
    table = {key: FIELDS[key] for key in ("another_url", "another_token", "another_header")}
    many.connect(table)
    many.failed(*table)
    entries = many.approved()
    many.change(updated, table, entries)
    clock.at = max(entry.execute_by for entry in entries.values() if entry.execute_by) + timedelta(seconds=1)
    sent = len(many.receiver.log)
    outcome = world.ran(policy=IMMEDIATE).outcome
    assert {skip.code.value for skip in outcome.skipped} <= {"approval_expired", "manifest_changed"}
    assert (len(outcome.skipped), outcome.recorded) == (len(table), [])
    approvals.expire(clock=clock)
    assert not ApprovalEntry.objects.filter(state__in=[EntryState.PENDING, EntryState.APPROVED]).exists()
    assert world.ran(policy=IMMEDIATE).entries == []
    assert len(many.receiver.log) == sent


# --- rows behind the product's back -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A column that the manifest covers: which row, its new value, and what differs in the manifest then.

    ``free`` where the product itself moves the column, so that no guard freezes it; ``alone`` where cases of
    one delivery share the row, so that the case gets a delivery of its own. ``tries`` were made before.
    """

    of: Callable[[ApprovalEntry], models.Model]
    column: str
    value: Callable[[ApprovalEntry], Any]
    differs: set[str]
    free: bool = False
    alone: bool = False
    tries: int = 1


def entry_row(entry: ApprovalEntry) -> models.Model:
    return entry


def attempt_row(entry: ApprovalEntry) -> models.Model:
    return entry.case.attempts.get(number=1)


def spare(entry: ApprovalEntry) -> Case:
    """A case of another connector with another package and another plan; the newest of all."""
    return Case.objects.latest("pk")


def unused(entry: ApprovalEntry) -> int:
    """A connector that nothing was sent to: every place in its stream is free."""
    return Connector.objects.get(key="unused").pk


def longer(entry: ApprovalEntry, **amount: int) -> dict[str, Any]:
    return dict(records.load(entry.decision.policy)) | amount


COLUMNS = {
    # The idempotency key is made from the bytes.
    "body": Column(
        entry_row,
        "body",
        lambda entry: bytes(entry.body).replace(b"acknowledged", b"Acknowledged"),
        {"payload", "headers"},
    ),
    "manifest": Column(
        entry_row,
        "manifest",
        lambda entry: records.canonical(records.load(entry.manifest) | {"note": "slipped in"}),
        {"note"},
    ),
    "manifest_digest": Column(entry_row, "manifest_digest", lambda entry: "0" * 64, {"manifest_digest"}),
    "acknowledgement": Column(entry_row, "require_retry_ack", lambda entry: False, {"require_retry_ack"}),
    "not_before": Column(
        entry_row, "not_before", lambda entry: entry.not_before - timedelta(hours=1), {"not_before"}
    ),
    "approve_by": Column(
        entry_row, "approve_by", lambda entry: entry.approve_by + timedelta(days=99), {"approve_by"}
    ),
    "execute_within": Column(
        entry_row, "execute_within_minutes", lambda entry: 99_999, {"execute_within_minutes"}
    ),
    "requester": Column(
        entry_row,
        "requested_by_id",
        lambda entry: Person.objects.exclude(pk=entry.requested_by_id).latest("pk").pk,
        {"requested_by"},
    ),
    "attempt_of_entry": Column(entry_row, "attempt_no", lambda entry: 3, {"attempt_no"}),
    "sender_of_entry": Column(entry_row, "connector_id", lambda entry: spare(entry).connector_id, {TARGET}),
    "policy": Column(
        lambda entry: entry.decision,
        "policy",
        lambda entry: entry.decision.policy | {"max_retry_attempts": 10},
        {"policy"},
        free=True,
    ),
    # The idempotency key and the message id are the case's.
    "case": Column(
        lambda entry: entry.case, "case_id", lambda entry: "gordackdelivery-0.other", {"case", "headers"}
    ),
    "attempts_of_case": Column(
        lambda entry: entry.case, "attempt_count", lambda entry: 2, {"attempt_no"}, free=True
    ),
    "connector_of_case": Column(
        lambda entry: entry.case,
        "connector_id",
        unused,
        {"connector", CONFIGURED},
    ),
    "package_of_case": Column(
        lambda entry: entry.case,
        "package_id",
        lambda entry: spare(entry).package_id,
        {"audit_id", "audit_hash"},
    ),
    "plan_of_case": Column(
        lambda entry: entry.case, "plan_id", lambda entry: spare(entry).plan_id, {"delivery_hash"}
    ),
    "package": Column(
        lambda entry: entry.case.package, "record_hash", lambda entry: "0" * 64, {"audit_hash"}, alone=True
    ),
    "plan": Column(
        lambda entry: entry.case.plan, "record_hash", lambda entry: "0" * 64, {"delivery_hash"}, alone=True
    ),
    "arrival": Column(attempt_row, "may_have_arrived", lambda entry: False, {"previous"}),
    "failure": Column(attempt_row, "failure_class", lambda entry: "throttled", {"previous"}),
    "outcome": Column(attempt_row, "outcome", lambda entry: Outcome.UNKNOWN, {"previous"}),
    "attempt": Column(attempt_row, "attempt_id", lambda entry: "rcd-0000000000000000.x", {"previous"}),
}

# What needs a world of its own: rows that every entry shares, and a case that was tried twice.
APART = {
    "epoch": Column(lambda entry: LedgerHead.objects.get(), "epoch", lambda entry: 2, {"epoch"}, free=True),
    "requester's id": Column(
        lambda entry: entry.requested_by, "person_id", lambda entry: "person-0000", {"requested_by"}
    ),
    "earlier try": Column(attempt_row, "may_have_arrived", lambda entry: False, {"earlier"}, tries=2),
}


def asked_columns(many: Many, table: Mapping[str, Column]) -> dict[str, ApprovalEntry]:
    """An approved entry for each row of the table."""
    keys = {key: Field("", "", set()) for key in [*table, "spare", "unused"]}
    many.connect(keys)
    many.failed(*(key for key, one in table.items() if not one.alone))
    for key, one in table.items():
        if one.alone:
            many.failed(key)
    entries = many.approved()
    many.failed("spare")
    return entries


def test_p5_the_database_refuses_to_change_what_a_manifest_covers(many: Many) -> None:
    entries = asked_columns(many, COLUMNS)
    table = {key: one for key, one in (COLUMNS | APART).items() if not one.free}
    for (key, one), door in product(table.items(), ROW_DOORS):
        entry = entries.get(key) or next(iter(entries.values()))
        row = one.of(entry)
        before = type(row)._base_manager.filter(pk=row.pk).values().get()
        with pytest.raises(IntegrityError, match=r"frozen|append-only"), transaction.atomic():
            door(row, one.column, one.value(entry))
        assert type(row)._base_manager.filter(pk=row.pk).values().get() == before


@pytest.mark.tampers
@pytest.mark.parametrize("door", ROW_DOORS)
def test_p5_where_no_guard_stands_the_claim_refuses_what_was_changed(many: Many, door: Door) -> None:
    entries = asked_columns(many, COLUMNS)
    changes = [(one.of(entries[key]), one.column, one.value(entries[key])) for key, one in COLUMNS.items()]
    behind_the_back(lambda: [door(*change) for change in changes])
    assert_void(many, entries, {key: one.differs for key, one in COLUMNS.items()})


@pytest.mark.tampers
def test_p5_a_quorum_that_was_lowered_in_the_request_alone_is_none(many: Many) -> None:
    many.connect({"two": FIELDS["fewer_approvals"]})
    many.failed("two")
    (entry,) = many.world.requested()
    many.world.vote(entry)
    at = system_clock()
    behind_the_back(
        lambda: ApprovalEntry.objects.filter(pk=entry.pk).update(
            required_approvals=1,
            state=EntryState.APPROVED,
            approved_at=at,
            execute_by=at + timedelta(hours=1),
        )
    )
    assert_void(many, {"two": entry}, {"two": {"required_approvals"}})


@pytest.mark.tampers
@pytest.mark.parametrize("what", APART)
def test_p5_what_else_a_manifest_covers_voids_the_approval_too(many: Many, what: str) -> None:
    one = APART[what]
    connector("alone", many.receiver.url("/alone"))
    many.failed("alone")
    many.receiver.behave("/alone", status=503)
    for _ in range(one.tries - 1):
        many.approved()
        ran(many.world)
    many.receiver.behave("/alone", status=200)
    for door in ROW_DOORS:
        entries = many.approved()
        row, value = one.of(entries["alone"]), one.value(entries["alone"])
        before = getattr(row, one.column)
        behind_the_back(partial(door, row, one.column, value))
        assert_void(many, entries, {"alone": one.differs})
        behind_the_back(partial(updated, row, one.column, before))
    assert_asked_again(many, 1)


# --- completeness -------------------------------------------------------------------------------------------------


def test_every_column_of_a_connector_is_on_the_wire_or_known_not_to_be() -> None:
    columns = {column.name for column in Connector._meta.concrete_fields} - {"id"}
    off = set(NOT_ON_THE_WIRE) | SWITCHES
    on = {*WIRE_FIELDS, *NEWER_WIRE_FIELDS}
    assert not on & off
    assert columns == on | off, "say here or in WIRE_FIELDS whether this column decides about the wire"
    assert {one.column for one in FIELDS.values()} == set(WIRE_FIELDS)
    # Who changes what reaches the wire is a party to it; the rest makes nobody one.
    assert off >= configuration.CONNECTOR_NOT_ON_WIRE & columns


def test_every_reference_of_a_connector_is_swapped_in_the_environment() -> None:
    references = {column for column in WIRE_FIELDS if column.endswith("_ref")}
    assert {
        column for one in SWAPPED.values() for column in one.before if column.endswith("_ref")
    } == references


def test_every_field_of_a_manifest_is_changed_by_a_row_here(many: Many) -> None:
    connector("any", many.receiver.url("/any"))
    many.failed("any")
    (entry,) = many.world.requested()
    table: list[Field | Column] = [*FIELDS.values(), *SWAPPED.values(), *COLUMNS.values(), *APART.values()]
    changed = {name for one in table for name in one.differs}
    # A manifest's version and its method are words of the code; the run's own wish is not a row's.
    assert records.load(entry.manifest).keys() - changed <= {"v", "method", "immediate_by_operator"}
