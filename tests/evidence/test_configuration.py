"""Configuration is saved with its record or not at all; files of the reference's format become rows."""

import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from evidence.domain import configuration, drills, loading, reading
from evidence.domain.clock import system_clock
from evidence.domain.configuration import Change
from evidence.enums import Role
from evidence.errors import InvalidInput, NotAllowed, NotFound, StaleState
from evidence.models import (
    Connector,
    ConnectorEdit,
    MaintenanceWindow,
    PauseSwitch,
    Person,
    Schedule,
    ScheduleOwner,
)
from tests.builders import connector, person, schedule
from tests.evidence.connectors.authority import Authority
from tests.evidence.safety_corpus import SECRETS
from tests.evidence.watch import CONFIGURATION_CHANGE, appended

pytestmark = pytest.mark.django_db
URL = "https://siem.example.com/collect"
SYSLOG, SMTP = "syslog+tls://siem.example.com", "smtp://mail.example.com"
MAIL = {"sender": "cavra@example.com", "recipients": "soc@example.com, lead@example.com"}


@pytest.fixture
def administrator(db: None) -> Person:
    return person(Role.ADMINISTRATOR)


# --- rows -----------------------------------------------------------------------------------------------------


def test_a_save_is_one_record_naming_columns_and_no_values(administrator: Person) -> None:
    row = Connector(key="siem", product="webhook", url="https://siem.example.com/private-path-1234")
    with appended() as log:
        assert configuration.save(row, by=administrator, clock=system_clock) == Change.CREATED
    assert log.kinds == [CONFIGURATION_CHANGE]
    said = log.payloads[0]
    assert (said["subject"], said["subject_id"], said["change"]) == ("connector", "siem", "created")
    assert "url" in said["changed_fields"]
    assert "private-path-1234" not in str(log.documents)
    row.refresh_from_db()
    assert row.edited_by == administrator


def test_nothing_changed_nothing_recorded_and_the_digest_follows_the_content(administrator: Person) -> None:
    row = connector("siem", URL, by=administrator)
    edited_at = row.edited_at
    with appended() as log:
        assert configuration.save(row, by=administrator, clock=system_clock) == Change.UNCHANGED
        for title in ("one", "two", "one"):
            row.title = title
            assert configuration.save(row, by=administrator, clock=system_clock) == Change.CHANGED
    assert [payload["changed_fields"] for payload in log.payloads] == [["title"]] * 3
    first, second, third = (payload["configuration_digest"] for payload in log.payloads)
    assert first == third != second
    assert row.edited_at > edited_at


def test_only_what_reaches_the_wire_keeps_its_editor_from_approving(administrator: Person) -> None:
    row = connector("siem", URL, by=administrator)
    assert ConnectorEdit.objects.count() == 1
    row.title = "SIEM"
    configuration.save(row, by=administrator, clock=system_clock)
    assert ConnectorEdit.objects.count() == 1
    row.url = URL + "/2"
    configuration.save(row, by=administrator, clock=system_clock)
    assert list(ConnectorEdit.objects.values_list("person", flat=True)) == [administrator.pk] * 2


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMINISTRATOR])
def test_configuration_is_the_administrators_business(role: Role) -> None:
    by = person(role)
    connector("siem", URL)
    with appended() as log:
        for act in (
            lambda: configuration.save(
                Connector(key="x", product="webhook", url=URL), by=by, clock=system_clock
            ),
            lambda: configuration.pause("*", reason="because", by=by, clock=system_clock),
            lambda: configuration.resume("*", by=by, clock=system_clock),
        ):
            with pytest.raises(NotAllowed):
                act()
    assert log.kinds == []
    assert not PauseSwitch.objects.exists()


WRONG_CONNECTORS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"url": ""}, "url"),
    ({"url_ref": "env:SIEM_URL"}, "url"),
    ({"url": "ftp://siem.example.com/x"}, "url"),
    ({"url": "https://user:pw@siem.example.com/x"}, "url"),
    ({"url": "https://siem.example.com/x#y"}, "url"),
    ({"url": "https://siem.example.com/x?api_key=12345"}, "url"),
    ({"url": "https://siem.example.com/x?Sig=12345"}, "url"),
    ({"url": "http://0x7f.1/x"}, "url"),
    ({"key": "No Spaces"}, "key"),
    ({"product": "carrier-pigeon"}, "product"),
    ({"product": "splunk"}, "token_ref"),
    ({"token_ref": "plain-secret"}, "token_ref"),
    ({"token_ref": "env:SECRET_KEY"}, "token_ref"),
    ({"token_ref": "env:T", "authorization_ref": "env:A"}, "token_ref"),
    ({"headers": {"Authorization": "Bearer x"}}, "headers"),
    ({"headers": {"X-Api-Key": "x"}}, "headers"),
    ({"headers": {"Private-Token": "x"}}, "headers"),
    ({"headers": {"Cookie": "a=b"}}, "headers"),
    ({"headers": {"Content-Type": "text/plain"}}, "headers"),
    ({"headers": {"X-Team": "a\nb"}}, "headers"),
    ({"headers": {"X-Team": 1}}, "headers"),
    ({"headers": ["X-Team"]}, "headers"),
    ({"headers": {"X-Team": "a", "x-team": "b"}}, "headers"),
    ({"headers": {"X-Route": "a"}, "api_key_ref": "env:K", "api_key_header": "x-route"}, "headers"),
    ({"api_key_header": "host"}, "api_key_header"),
    ({"api_key_header": "authorization"}, "api_key_header"),
    ({"authorization_scheme": "Two Words"}, "authorization_scheme"),
    ({"allow_networks": ["8.8.8.0/24"]}, "allow_networks"),
    ({"allow_networks": ["0.0.0.0/0"]}, "allow_networks"),
    ({"allow_networks": ["10.0.0.1/8"]}, "allow_networks"),
    ({"allow_networks": "10.0.0.0/8"}, "allow_networks"),
    ({"allow_networks": [None]}, "allow_networks"),
    ({"timeout_ms": 0}, "timeout_ms"),
    ({"required_approvals": 0}, "required_approvals"),
    ({"title": "turned\u202eround"}, "title"),
    # In the clear to wherever the name leads.
    ({"product": "syslog", "url": "syslog://siem.example.com"}, "url"),
    ({"product": "syslog", "url": "syslog+tls://siem.example.com/x"}, "url"),
    ({"product": "syslog"}, "url"),
    ({"product": "syslog", "url": SYSLOG, "token_ref": "env:T"}, "token_ref"),
    ({"product": "syslog", "url": SYSLOG, "headers": {"X-Team": "a"}}, "headers"),
    ({"product": "syslog", "url": SYSLOG, "proxy_url": "http://proxy.example.com"}, "proxy_url"),
    ({"product": "syslog", "url": SYSLOG, "options": {"facility": "24"}}, "options"),
    ({"product": "syslog", "url": SYSLOG, "options": {"facility": 13}}, "options"),
    ({"product": "email", "url": SMTP}, "options"),
    ({"product": "email", "url": "smtp://user:pw@mail.example.com", "options": MAIL}, "url"),
    ({"product": "email", "url": SMTP, "options": MAIL, "token_ref": "env:T"}, "options"),
    ({"product": "email", "url": SMTP, "options": MAIL | {"username": "cavra"}}, "token_ref"),
    ({"product": "email", "url": SMTP, "options": MAIL | {"recipients": "a@b\r\nBcc: c@d"}}, "options"),
    ({"product": "email", "url": SMTP, "options": MAIL, "authorization_ref": "env:T"}, "authorization_ref"),
)


@pytest.mark.parametrize(("wrong", "field"), WRONG_CONNECTORS)
def test_a_connector_that_could_not_be_used_or_holds_a_secret_is_refused(
    wrong: dict[str, Any], field: str
) -> None:
    row = Connector(**{"key": "siem", "product": "webhook", "url": URL, **wrong})
    with appended() as log, pytest.raises(InvalidInput) as refused:
        configuration.save(row, by=None, clock=system_clock)
    assert list(refused.value.errors) == [field]
    assert log.kinds == []
    assert not Connector.objects.exists()


@pytest.mark.parametrize(
    ("rule", "wrong"),
    (
        ("github-token", lambda said: {"title": f"with {said}"}),
        ("github-token", lambda said: {"token_ref": f"file:{said}"}),
        ("github-token", lambda said: {"headers": {"X-Team": said}}),
        ("slack-webhook", lambda said: {"url": said}),
    ),
)
def test_p18_a_credential_in_any_text_of_a_connector_is_refused(
    rule: str, wrong: Callable[[str], dict[str, Any]]
) -> None:
    said = SECRETS[rule][0](random.Random(6))
    fields = wrong(said)
    row = Connector(**{"key": "siem", "product": "webhook", "url": URL, **fields})
    with pytest.raises(InvalidInput) as refused:
        configuration.save(row, by=None, clock=system_clock)
    assert list(refused.value.errors) == list(fields)
    assert f"rule {rule}" in str(refused.value.errors)
    assert said not in str(refused.value.errors)


def test_p18_a_private_key_among_the_certificates_is_refused() -> None:
    """Files with both are common, and the key would be read by every administrator."""
    authority = Authority()
    _, key = authority.issue("siem.example.com")
    row = Connector(key="siem", product="webhook", url=URL, ca_pem=authority.pem + key.decode())
    with pytest.raises(InvalidInput) as refused:
        configuration.save(row, by=None, clock=system_clock)
    assert refused.value.errors == {
        "ca_pem": ["Holds a credential (rule private-key): name a secret instead."]
    }
    row.ca_pem = authority.pem
    assert configuration.save(row, by=None, clock=system_clock) == Change.CREATED


def test_p18_a_configured_secret_in_another_field_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS", "tulips in amsterdam")
    row = Connector(key="siem", product="webhook", url=URL, token_ref="env:FLOWERS")
    configuration.save(row, by=None, clock=system_clock)
    row.headers = {"X-Team": "tulips in amsterdam"}
    with pytest.raises(InvalidInput, match="not valid") as refused:
        configuration.save(row, by=None, clock=system_clock)
    assert list(refused.value.errors) == ["headers"]


def test_a_good_connector_of_every_sort_is_accepted() -> None:
    for number, fields in enumerate(
        (
            {
                "url": URL + "?team=a",
                "headers": {"X-Team": "a"},
                "allow_networks": ["10.0.0.0/8", "fd00::/64"],
            },
            {"url_ref": "env:SIEM_URL", "authorization_ref": "env:SIEM_AUTH"},
            {"url": URL, "product": "splunk", "token_ref": "env:HEC_TOKEN", "index": "main"},
            {"url": URL, "api_key_ref": "env:KEY", "api_key_header": "x-api-key"},
            {"product": "syslog", "url": SYSLOG, "options": {"max_bytes": "65536", "hostname": "console"}},
            {"product": "syslog", "url": "syslog://siem.example.com:601", "allow_networks": ["10.0.0.0/8"]},
            {"product": "email", "url": SMTP, "options": MAIL},
            {
                "product": "email",
                "url": "smtps://mail.example.com",
                "options": MAIL | {"username": "cavra"},
                "token_ref": "env:T",
            },
        )
    ):
        row = Connector(**{"key": f"c{number}", "product": "webhook", **fields})
        assert configuration.save(row, by=None, clock=system_clock) == Change.CREATED


def test_all_wrong_columns_are_named_at_once_and_never_with_their_value() -> None:
    row = Connector(
        key="siem", product="splunk", url="https://root:hunter2@x.example.com", headers={"x-token": "hunter2"}
    )
    with pytest.raises(InvalidInput) as refused:
        configuration.save(row, by=None, clock=system_clock)
    assert set(refused.value.errors) == {"url", "headers", "token_ref"}
    assert "hunter2" not in str(refused.value.errors) + refused.value.detail


def test_names_that_evidence_speaks_of_stay() -> None:
    row = connector("siem", URL)
    row.key = "other"
    with pytest.raises(InvalidInput):
        configuration.save(row, by=None, clock=system_clock)
    drill = schedule()
    drill.schedule_id = "other"
    with pytest.raises(InvalidInput):
        configuration.save(drill, by=None, clock=system_clock)


def test_several_rows_are_saved_together_or_not_at_all() -> None:
    good = Connector(key="good", product="webhook", url=URL)
    bad = Connector(key="bad", product="webhook", url="nonsense")
    with appended() as log, pytest.raises(InvalidInput):
        configuration.save_all(
            [configuration.Entry(good), configuration.Entry(bad)], by=None, clock=system_clock
        )
    assert log.kinds == []
    assert not Connector.objects.exists()


def test_losing_a_race_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(row: Connector) -> None:
        with transaction.atomic():
            raise IntegrityError("UNIQUE constraint failed")

    monkeypatch.setattr(Connector, "save", taken)
    with appended() as log, pytest.raises(StaleState):
        configuration.save(Connector(key="siem", product="webhook", url=URL), by=None, clock=system_clock)
    assert log.kinds == []


def test_owners_and_windows_are_saved_with_their_schedule_as_one_change(administrator: Person) -> None:
    drill = schedule()
    window = {"start_at": datetime(2026, 12, 1, tzinfo=UTC), "end_at": datetime(2026, 12, 2, tzinfo=UTC)}
    kept = ScheduleOwner.objects.get(name="payments-platform").pk
    with appended() as log:
        configuration.save(
            drill,
            by=administrator,
            clock=system_clock,
            owners=[
                ScheduleOwner(name="payments-platform", position=0),
                ScheduleOwner(name="sre", position=1, providers=["webhook"]),
            ],
            maintenance_windows=[MaintenanceWindow(window_id="freeze", **window)],
        )
        again = configuration.save(
            drill,
            by=administrator,
            clock=system_clock,
            maintenance_windows=[MaintenanceWindow(window_id="freeze", **window)],
        )
    assert again == Change.UNCHANGED
    assert log.kinds == [CONFIGURATION_CHANGE]
    assert log.payloads[0]["changed_fields"] == ["maintenance_windows", "owners"]
    assert [owner.name for owner in drill.owners.all()] == ["payments-platform", "sre"]
    assert drill.owners.get(name="payments-platform").pk == kept
    assert drill.maintenance_windows.get().window_id == "freeze"


@pytest.mark.parametrize(
    ("owners", "path"),
    (
        ([{"name": "a"}, {"name": "a"}], "owners.1.name"),
        ([{"name": ""}], "owners.0.name"),
        ([{"name": "a", "providers": ["My-Hook"]}], "owners.0.providers"),
        ([{"name": "a", "providers": "webhook"}], "owners.0.providers"),
        ([{"name": "a", "acknowledgement_minutes": 0}], "owners.0.acknowledgement_minutes"),
        ([{"name": "a", "unavailable_windows": [{"start_at": "soon"}]}], "owners.0.unavailable_windows"),
        ([{"name": "a", "unavailable_windows": {"start_at": 1}}], "owners.0.unavailable_windows"),
    ),
)
def test_a_wrong_owner_keeps_the_whole_schedule_from_being_saved(
    owners: list[dict[str, Any]], path: str
) -> None:
    drill = schedule()
    drill.title = "changed"
    with appended() as log, pytest.raises(InvalidInput) as refused:
        configuration.save(
            drill, by=None, clock=system_clock, owners=[ScheduleOwner(**owner) for owner in owners]
        )
    assert list(refused.value.errors) == [path]
    assert log.kinds == []
    assert Schedule.objects.get().title == ""


def test_pausing_and_resuming_are_recorded_once(administrator: Person) -> None:
    connector("siem", URL)
    with appended() as log:
        configuration.pause("siem", reason="receiver migrates", by=administrator, clock=system_clock)
        configuration.pause("siem", reason="again", by=administrator, clock=system_clock)
        assert configuration.resume("siem", by=administrator, clock=system_clock)
        assert not configuration.resume("siem", by=administrator, clock=system_clock)
    assert [(p["subject_id"], p["change"], p["reason"]) for p in log.payloads] == [
        ("siem", "paused", "receiver migrates"),
        ("siem", "resumed", ""),
    ]
    for scope, reason, error in (
        ("nobody", "x", NotFound),
        ("*", " ", InvalidInput),
        ("*", "a\x07", InvalidInput),
    ):
        with pytest.raises(error):
            configuration.pause(scope, reason=reason, by=administrator, clock=system_clock)
    assert not PauseSwitch.objects.exists()


# --- routing policies -------------------------------------------------------------------------------------------

MORNING, NOON_ = "2026-06-01T06:00:00Z", "2026-06-01T12:00:00+00:00"
POLICY = {
    "owner_routes": {
        "release-governance": [
            {"providers": ["Slack", "my-hook"], "ack_minutes": 15, "manager": "platform-lead"},
            {"notification_providers": ["teams"], "acknowledgement_minutes": 60},
        ],
        "everybody": {"owners": ["sre", "dba"]},
    },
    "maintenance_windows": [
        {
            "id": "freeze",
            "start_at": MORNING,
            "end_at": NOON_,
            "providers": ["slack"],
            "reason": "change freeze",
        },
        {"start_at": MORNING, "end_at": NOON_, "schedule_ids": ["other"]},
    ],
    "owner_calendars": {
        "sre": {"available": False, "reason": "offsite"},
        "dba": {"unavailable_windows": [{"start_at": MORNING, "end_at": NOON_, "reason": "holiday"}]},
    },
    "default_slo": {"acknowledgement_minutes": 45},
    "comment": "ignored",
}


def test_a_routing_policy_is_read_in_every_form_of_the_contract() -> None:
    policy, ignored = loading.routing_policy(POLICY, schedule_id="payments-monthly")
    assert ignored == ["routing_policy.comment"]
    assert policy.rules == (
        drills.OwnerRule("release-governance", ("slack", "my_hook"), 15, "platform-lead"),
        drills.OwnerRule("release-governance", ("teams",), 60, ""),
        drills.OwnerRule("sre"),
        drills.OwnerRule("dba"),
    )
    (window,) = policy.windows
    span = (datetime(2026, 6, 1, 6, tzinfo=UTC), datetime(2026, 6, 1, 12, tzinfo=UTC))
    assert window == drills.Window("freeze", *span, "change freeze", ("slack",))
    assert policy.calendars["sre"] == drills.Availability(available=False, reason="offsite")
    assert policy.calendars["dba"].windows == (drills.Window("calendar", *span, "holiday"),)
    assert policy.acknowledgement_minutes == 45
    assert len(loading.routing_policy(POLICY, schedule_id="other")[0].windows) == 2


def test_rules_may_be_a_list_and_nothing_is_a_policy_too() -> None:
    listed, _ = loading.routing_policy({"routing_rules": [{"owners": ["a", "b"], "providers": ["teams"]}]})
    assert listed.rules == (drills.OwnerRule("a", ("teams",)), drills.OwnerRule("b", ("teams",)))
    for data in (None, {}, {"owner_routes": None, "maintenance_windows": None}):
        assert loading.routing_policy(data) == (drills.RoutingPolicy(), [])


def test_a_whole_number_may_be_written_with_a_fraction_of_nothing() -> None:
    for minutes in (15.0, Decimal("15.0"), Decimal("1.5e1")):
        assert loading.routing_policy({"ack_minutes": minutes})[0].acknowledgement_minutes == 15
    for minutes in (15.5, Decimal("15.5"), True, "15", float("inf"), 2.0**54):
        with pytest.raises(InvalidInput):
            loading.routing_policy({"ack_minutes": minutes})


def test_every_wrong_field_of_a_routing_policy_is_named_by_its_path() -> None:
    with pytest.raises(InvalidInput) as refused:
        loading.routing_policy(
            {
                "owner_routes": {
                    "a": {"providers": "slack", "ack_minutes": True, "escalation_owner": 3},
                    "b": [{"providers": ["no key!"]}],
                    "c": 7,
                },
                "maintenance_windows": [
                    {"start_at": NOON_, "end_at": MORNING},
                    {"start_at": "2026-06-01"},
                    None,
                ],
                "owner_calendars": {"a": {"available": "yes", "unavailable_windows": {}}},
                "acknowledgement_minutes": 1.5,
                "default_slo": [],
            }
        )
    assert set(refused.value.errors) == {
        f"routing_policy.{path}"
        for path in (
            "owner_routes.a.providers",
            "owner_routes.a.ack_minutes",
            "owner_routes.a.escalation_owner",
            "owner_routes.b.0.providers.0",
            "owner_routes.c",
            "maintenance_windows.0.end_at",
            "maintenance_windows.1.start_at",
            "maintenance_windows.1.end_at",
            "maintenance_windows.2",
            "owner_calendars.a.available",
            "owner_calendars.a.unavailable_windows",
            "acknowledgement_minutes",
            "default_slo",
        )
    }


@pytest.mark.parametrize(
    "data",
    (
        [],
        "x",
        7,
        True,
        {"owner_routes": "x"},
        {"owner_routes": [{"providers": ["slack"]}]},
        {"owner_routes": {"a": {}}, "routing_rules": {"a": {}}},
        {"owner_routes": {"a\x00b": {}}},
        {"owner_routes": {"": {}}},
        {"owner_routes": {str(n): {} for n in range(300)}},
        {"owner_routes": {str(n): [{}] * 200 for n in range(100)}},
        {"maintenance_windows": [{}] * 300},
        {"acknowledgement_minutes": 10**30},
        {"acknowledgement_minutes": 0},
        {"owner_calendars": {"a": {"unavailable_windows": [{"start_at": "0001-01-01T00:00:00+14:00"}]}}},
        {"owner_calendars": {"a": {"unavailable_windows": [{"start_at": MORNING, "end_at": 9e99}]}}},
        {"owner_routes": {"a": {"manager": "x\ud800"}}},
        {"owner_routes": {"a": {"manager": "x" * 121}}},
    ),
)
def test_no_routing_policy_whatever_its_shape_is_more_than_a_refusal(data: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        loading.routing_policy(data)
    assert all(path.startswith("routing_policy") for path in refused.value.errors)
    assert refused.value.errors


def test_reading_leaves_what_was_sent_alone() -> None:
    sent = copy.deepcopy(POLICY)
    loading.routing_policy(sent)
    assert sent == POLICY


@pytest.mark.parametrize(
    "data",
    (
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 10_000,
    ),
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        reading.parse(data)
    assert refused.value.code == "not_json"
