"""The commands an operator of the service has: what they print, what they write, how they refuse."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from knox.auth import TokenAuthentication

from evidence.domain import drills, people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Connector, Person, Schedule
from tests.builders import person
from tests.evidence.connectors.authority import Authority
from tests.evidence.watch import CONFIGURATION_CHANGE, PERSON_CHANGE, ROLE_CHANGE, appended

pytestmark = pytest.mark.django_db
PASSWORD = "a sentence nobody guesses"
Run = Callable[..., str]
Write = Callable[[Any], str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls a command; what it printed."""
    monkeypatch.delenv("CAVRA_OPERATOR_PASSWORD", raising=False)

    def called(*arguments: str) -> str:
        out = io.StringIO()
        call_command(*arguments, stdout=out, stderr=out)
        return out.getvalue()

    return called


@pytest.fixture
def file(tmp_path: Path) -> Write:
    """Writes something as JSON (bytes as they are); the file's path."""

    def written(content: Any) -> str:
        path = tmp_path / "configuration.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return written


# --- operator -----------------------------------------------------------------------------------------------------


def test_operator_creates_a_person_with_roles_and_prints_the_token_alone_on_the_last_line(run: Run) -> None:
    with appended() as log:
        printed = run("operator", "Ada", "--role", "analyst", "--role", "approver", "--token")
    token = printed.splitlines()[-1]
    user, _ = TokenAuthentication().authenticate_credentials(token.encode())
    assert user.username == "ada"
    assert people.roles_of(user) == {Role.ANALYST, Role.APPROVER}
    assert log.kinds == [PERSON_CHANGE, ROLE_CHANGE, ROLE_CHANGE, PERSON_CHANGE]
    assert {document["actor"]["name"] for document in log.documents} == {"system"}
    assert not user.has_usable_password()


def test_operator_makes_the_roles_exactly_the_given_ones_and_leaves_them_without(run: Run) -> None:
    run("operator", "ada", "--role", "analyst", "--role", "auditor")
    with appended() as log:
        run("operator", "ada", "--role", "auditor", "--role", "viewer")
        assert "unchanged" in run("operator", "ada", "--role", "viewer", "--role", "auditor")
        assert "unchanged" in run("operator", "ada")
    assert log.kinds == [ROLE_CHANGE, ROLE_CHANGE]
    assert people.roles_of(Person.objects.get()) == {Role.AUDITOR, Role.VIEWER}


def test_operator_takes_the_password_from_the_environment_or_standard_input(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAVRA_OPERATOR_PASSWORD", PASSWORD)
    printed = run("operator", "ada", "--role", "administrator")
    assert PASSWORD not in printed
    assert authenticate(username="ada", password=PASSWORD)
    with appended() as log:
        run("operator", "ada")
    assert log.kinds == []
    monkeypatch.setattr("sys.stdin", io.StringIO("another fine sentence\nsecond line\n"))
    run("operator", "ada", "--password-stdin")
    assert authenticate(username="ada", password="another fine sentence")


def test_operator_makes_service_accounts_that_somebody_answers_for(run: Run) -> None:
    ada = person(Role.ANALYST, name="ada")
    run("operator", "bot", "--role", "analyst", "--owner", "Ada", "--token")
    bot = Person.objects.get(username="bot")
    assert bot.principal == ada
    bea = person(name="bea")
    run("operator", "bot", "--owner", "bea")
    bot.refresh_from_db()
    assert bot.principal == bea


def test_operator_deactivates_and_activates(run: Run) -> None:
    token = run("operator", "ada", "--role", "analyst", "--token").splitlines()[-1]
    assert "deactivated" in run("operator", "ada", "--deactivate")
    with pytest.raises(Exception, match="Invalid token"):
        TokenAuthentication().authenticate_credentials(token.encode())
    run("operator", "ada", "--activate")
    assert Person.objects.get().is_active


@pytest.mark.parametrize(
    "arguments",
    (
        ("ada",),
        ("ada", "--deactivate"),
        ("ada", "--role", "king"),
        ("two words", "--role", "analyst"),
        ("", "--role", "analyst"),
        ("bot", "--role", "analyst", "--owner", "nobody"),
        ("bot", "--role", "analyst", "--owner", "known-bot"),
        ("known", "--owner", "other"),
        ("known", "--deactivate", "--token"),
        ("known", "--role", "approver", "--email", "nowhere"),
        ("known", "--full-name", "a\x07b", "--role", "approver"),
        ("ada", "--role", "analyst", "--password-stdin"),
        ("known", "--role", "approver", "--password-stdin"),
    ),
)
def test_operator_refuses_with_a_sentence_and_half_writes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    known, _ = person(Role.ANALYST, name="known"), person(name="other")
    people.create("known-bot", by=None, clock=system_clock, owner=known)
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    before = list(Person.objects.order_by("pk").values())
    with appended() as log, pytest.raises(CommandError) as refused:
        run("operator", *arguments)
    assert str(refused.value)
    assert refused.value.returncode == 1
    assert "short" not in str(refused.value).replace("too short", "")
    assert log.kinds == []
    assert list(Person.objects.order_by("pk").values()) == before
    assert people.roles_of(known) == {Role.ANALYST}


# --- load_schedule ------------------------------------------------------------------------------------------------

SCHEDULE: dict[str, Any] = {
    "schema_version": "cavra.go-backend-rollback-drill-schedule.v1",
    "schedule_id": "go_backend_monthly",
    "environment": "production-pilot",
    "status": "active",
    "interval_days": 30,
    "next_due_at": "2026-06-20T15:40:00Z",
    "owners": ["release-governance", "payments"],
    "notification_providers": ["slack", "My-Hook"],
    "owner_routes": {
        "release-governance": {
            "providers": ["slack"],
            "acknowledgement_minutes": 30,
            "escalation_owner": "platform-lead",
        }
    },
    "maintenance_windows": [
        {
            "window_id": "change-freeze",
            "start_at": "2026-05-21T18:00:00Z",
            "end_at": "2026-05-21T20:00:00Z",
            "providers": ["slack"],
            "owners": ["payments"],
            "reason": "change freeze",
        }
    ],
    "owner_calendars": {
        "payments": {
            "unavailable_windows": [
                {"start_at": "2026-05-22T00:00:00Z", "end_at": "2026-05-22T08:00:00Z", "reason": "holiday"}
            ]
        }
    },
    "runbook_ref": "docs/runbook.md",
}


def test_load_schedule_turns_the_references_file_into_rows_that_announce_alike(run: Run, file: Write) -> None:
    with appended() as log:
        assert run("load_schedule", file(SCHEDULE)) == "schedule go_backend_monthly: created\n"
    assert log.kinds == [CONFIGURATION_CHANGE]
    row = Schedule.objects.get()
    assert row.notification_providers == ["slack", "my_hook"]
    assert row.next_due_at == datetime(2026, 6, 20, 15, 40, tzinfo=UTC)
    policy = drills.policy_of(row)
    assert policy.rules == (
        drills.OwnerRule("release-governance", ("slack",), 30, "platform-lead"),
        drills.OwnerRule("payments"),
    )
    assert policy.windows[0].covers("slack", "payments", policy.windows[0].start_at)
    (away,) = policy.calendars["payments"].windows
    assert away.end_at - away.start_at == timedelta(hours=8)


def test_load_schedule_again_records_nothing_and_a_change_once(run: Run, file: Write) -> None:
    run("load_schedule", file(SCHEDULE))
    row = Schedule.objects.get()
    Schedule.objects.update(title="kept", due_soon_days=7)
    with appended() as log:
        assert "unchanged" in run("load_schedule", file(SCHEDULE))
    assert log.kinds == []
    smaller = {
        **SCHEDULE,
        "interval_days": 60,
        "owners": ["payments"],
        "owner_routes": None,
        "status": "paused",
    }
    with appended() as log:
        assert "changed" in run("load_schedule", file([smaller]))
    assert log.payloads[0]["changed_fields"] == ["active", "interval_days", "owners"]
    row.refresh_from_db()
    assert (row.active, row.interval_days, row.title, row.due_soon_days) == (False, 60, "kept", 7)
    assert [owner.name for owner in row.owners.all()] == ["payments"]


def test_load_schedule_merges_an_owners_rules_and_names_what_it_ignores(run: Run, file: Write) -> None:
    rules = [{"providers": ["slack"]}, {"providers": ["my_hook"]}]
    printed = run(
        "load_schedule", file({**SCHEDULE, "owner_routes": {"sre": rules}, "drill_lead": "somebody"})
    )
    assert "ignored: drill_lead" in printed
    owner = Schedule.objects.get().owners.get(name="sre")
    assert owner.providers == ["slack", "my_hook"]


def test_load_schedule_takes_several_and_all_or_none(run: Run, file: Write) -> None:
    second = {**SCHEDULE, "schedule_id": "second"}
    with appended() as log:
        printed = run("load_schedule", file({"schedules": [SCHEDULE, second]}))
    assert log.kinds == [CONFIGURATION_CHANGE] * 2
    assert len(printed.splitlines()) == 2
    with appended() as log, pytest.raises(CommandError):
        run(
            "load_schedule",
            file([{**SCHEDULE, "interval_days": 90}, {**second, "interval_days": 0}]),
        )
    assert log.kinds == []
    assert set(Schedule.objects.values_list("interval_days", flat=True)) == {30}


def test_load_schedule_names_every_bad_field_at_once(run: Run, file: Write) -> None:
    wrong = {
        "schema_version": "cavra.other.v1",
        "schedule_id": "has spaces",
        "environment": 7,
        "status": "sleeping",
        "interval_days": "30",
        "next_due_at": "2026-06-20",
        "owners": [],
        "notification_providers": [],
        "owner_routes": {"sre": [{"ack_minutes": 5}, {"ack_minutes": 6}], "dba": {"providers": [None]}},
        "maintenance_windows": [{"window_id": "w"}],
        "owner_calendars": {"stranger": {}},
    }
    with appended() as log, pytest.raises(CommandError) as refused:
        run("load_schedule", file(wrong))
    named = {line.strip().partition(": ")[0] for line in str(refused.value).splitlines()[1:]}
    assert named == {
        "schema_version",
        "schedule_id",
        "environment",
        "status",
        "interval_days",
        "next_due_at",
        "owners",
        "notification_providers",
        "runbook_ref",
        "owner_routes",
        "owner_routes.dba.providers.0",
        "maintenance_windows.0.start_at",
        "maintenance_windows.0.end_at",
        "owner_calendars",
    }
    assert log.kinds == []
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    "content",
    (
        b"",
        b"status: active\n",
        b"[" * 100_000,
        b'{"schedule_id": "a", "schedule_id": "b"}',
        b" " * (2 * 1024 * 1024 + 1),
        [],
        {"schedules": []},
        {"schedules": {}},
        "text",
        None,
        [None],
        [SCHEDULE, SCHEDULE],
        {**SCHEDULE, "maintenance_windows": [SCHEDULE["maintenance_windows"][0]] * 2},
        {**SCHEDULE, "runbook_ref": "a\u0000b"},
        {**SCHEDULE, "owners": ["x" * 121]},
        {**SCHEDULE, "next_due_at": 1781970000},
    ),
)
def test_load_schedule_refuses_what_is_no_schedule(run: Run, file: Write, content: Any) -> None:
    with appended() as log, pytest.raises(CommandError) as refused:
        run("load_schedule", file(content))
    assert str(refused.value)
    assert log.kinds == []
    assert not Schedule.objects.exists()


# --- load_connectors ----------------------------------------------------------------------------------------------

CONNECTORS: dict[str, Any] = {
    "connectors": {
        "Webhook": {"url": "http://127.0.0.1:9/hook", "headers": {"X-Team": "release"}},
        "splunk": {
            "url_env": "SPLUNK_URL",
            "token_env": "SPLUNK_TOKEN",
            "index": "evidence",
            "timeout_seconds": 2.5,
        },
        "eu-splunk": {"product": "splunk", "url": "https://hec.example.com/x", "authorization_env": "EU"},
        "gitlab": {
            "url": "https://gitlab.example.com/x",
            "api_key_env": "GITLAB_KEY",
            "enabled": False,
            "method": "post",
        },
    }
}


@pytest.mark.parametrize("wrapped", ("connectors", "providers", ""))
def test_load_connectors_reads_the_references_file(run: Run, file: Write, wrapped: str) -> None:
    content = {wrapped: CONNECTORS["connectors"]} if wrapped else CONNECTORS["connectors"]
    with appended() as log:
        printed = run("load_connectors", file(content), "--allow-network", "127.0.0.0/8", "10.0.0.0/8")
    assert log.kinds == [CONFIGURATION_CHANGE] * 4
    assert "gitlab is sent to as a plain webhook" in printed
    rows = {row.key: row for row in Connector.objects.all()}
    assert {key: row.product for key, row in rows.items()} == {
        "webhook": "webhook",
        "splunk": "splunk",
        "eu_splunk": "splunk",
        "gitlab": "webhook",
    }
    assert rows["webhook"].headers == {"X-Team": "release"}
    assert (rows["splunk"].url_ref, rows["splunk"].token_ref) == ("env:SPLUNK_URL", "env:SPLUNK_TOKEN")
    assert (rows["splunk"].index, rows["splunk"].timeout_ms) == ("evidence", 2500)
    assert rows["eu_splunk"].authorization_ref == "env:EU"
    assert (rows["gitlab"].api_key_ref, rows["gitlab"].enabled) == ("env:GITLAB_KEY", False)
    assert {tuple(row.allow_networks) for row in rows.values()} == {("127.0.0.0/8", "10.0.0.0/8")}


NO_PRODUCT = ("azure_repos", "github", "github_actions", "gitlab", "intune", "jamf", "jenkins", "linux")


def test_load_connectors_takes_every_name_of_the_reference(run: Run, file: Write) -> None:
    url = "https://receiver.example.com/x"
    ticket = {"url": url, "token_env": "TICKETS"}
    given = {
        **{name: {"url": url} for name in (*NO_PRODUCT, "webhook")},
        "splunk": {"url": url, "token_env": "HEC"},
        "datadog": {"url": url, "api_key_env": "DD"},
        "slack": {"url_env": "SLACK_URL"},
        "teams": {"url_file": "teams-url"},
        "pagerduty": {"url": url, "token_env": "PD"},
        "jira": {**ticket, "options": {"project": "PAY"}},
        "servicenow": ticket,
        "sentinel": {
            "url": url,
            "token_env": "CLIENT_SECRET",
            "options": {
                "token_url": "https://login.example.com/t/oauth2/v2.0/token",
                "client_id": "11111111-2222-3333-4444-555555555555",
                "dcr": "dcr-" + "0" * 32,
                "stream": "Custom-Cavra_CL",
            },
        },
        "second": {"product": "github", "url": url},
    }
    printed = run("load_connectors", file(given))
    rows = {row.key: row.product for row in Connector.objects.all()}
    assert rows == {name: "webhook" if name in (*NO_PRODUCT, "second") else name for name in given}
    # Named are those, and only those, that nothing is made for.
    noticed = {line.partition(" ")[0] for line in printed.splitlines() if "plain webhook" in line}
    assert noticed == {*NO_PRODUCT, "second"}


def test_load_connectors_reads_signatures_options_trust_and_proxy(run: Run, file: Write) -> None:
    pem = Authority().pem
    hook = {
        "url": "https://receiver.example.com/x",
        "signing_env": "NEW",
        "previous_signing_file": "old-signing",
        "ca_pem": pem,
        "proxy_url": "http://proxy.example.com:3128",
        "proxy_authorization_env": "PROXY",
    }
    run("load_connectors", file({"webhook": {"url": hook["url"]}}))
    splunk = {
        "url": "https://hec.example.com/services/collector",
        "token_env": "HEC",
        "options": {"channel": "FE0ECFAD-13D5-401B-847D-77833BD77131"},
        "announce_through": "WebHook",
    }
    run("load_connectors", file({"webhook": hook, "splunk": splunk}))
    row = Connector.objects.get(key="webhook")
    assert (row.signing_ref, row.previous_signing_ref) == ("env:NEW", "file:old-signing")
    assert (row.ca_pem, row.proxy_url, row.proxy_authorization_ref) == (pem, hook["proxy_url"], "env:PROXY")
    row = Connector.objects.get(key="splunk")
    assert (row.options, row.announce_through) == (splunk["options"], "webhook")
    # A file that does not speak of them leaves them as they are.
    run("load_connectors", file({"webhook": {"url": hook["url"]}}))
    row = Connector.objects.get(key="webhook")
    assert (row.signing_ref, row.ca_pem, row.proxy_url) == ("env:NEW", pem, hook["proxy_url"])


def test_load_connectors_reads_maintenance_windows(run: Run, file: Write) -> None:
    plain = {"url": "https://receiver.example.com/x"}
    night = {"window_id": "patch-day", "start_at": "2026-12-24T22:00:00Z", "end_at": "2026-12-25T02:00:00Z"}
    run("load_connectors", file({"webhook": {**plain, "maintenance_windows": [night]}}))
    row = Connector.objects.get(key="webhook")
    assert row.windows.get().window_id == "patch-day"
    # A file that does not speak of them leaves them as they are; an empty list takes them away.
    run("load_connectors", file({"webhook": plain}))
    assert row.windows.count() == 1
    long = {**night, "end_at": "2027-03-01T00:00:00Z"}
    with pytest.raises(CommandError) as refused:
        run("load_connectors", file({"webhook": {**plain, "maintenance_windows": [long]}}))
    assert "maintenance_windows.0.end_at" in str(refused.value)
    assert row.windows.get().end_at.year == 2026
    run("load_connectors", file({"webhook": {**plain, "maintenance_windows": []}}))
    assert not row.windows.exists()


@pytest.mark.parametrize(
    ("key", "changes", "field"),
    (
        ("slack", {"url": "https://hooks.slack.com/services/T0/B0/hunter2hunter2", "token_env": None}, "url"),
        ("teams", {"url": "https://x.logic.azure.com/workflows/hunter2", "token_env": None}, "url"),
        ("slack", {"url_env": "SLACK", "url": None}, "token_env"),
        ("splunk", {"options": {"channel": "hunter2"}}, "options"),
        ("splunk", {"options": {"colour": "hunter2"}}, "options"),
        ("splunk", {"options": ["hunter2"]}, "options"),
        ("splunk", {"options": {"channel": 7}}, "options"),
        ("splunk", {"ca_pem": "hunter2"}, "ca_pem"),
        ("splunk", {"ca_pem": 7}, "ca_pem"),
        ("splunk", {"proxy_url": "http://hunter2:x@proxy.example"}, "proxy_url"),
        ("splunk", {"signing_env": "SIGN"}, "signing_env"),
        ("splunk", {"announce_through": 7}, "announce_through"),
        ("splunk", {"product": 7}, "product"),
        ("datadog", {}, "token_env"),
        ("pagerduty", {"token_env": None}, "token_env"),
        ("sentinel", {}, "options"),
    ),
)
def test_load_connectors_says_what_a_product_does_not_take(
    run: Run, file: Write, key: str, changes: dict[str, Any], field: str
) -> None:
    given = {"url": "https://receiver.example.com/x", "token_env": "TOKEN", **changes}
    with pytest.raises(CommandError) as refused:
        run(
            "load_connectors",
            file({key: {name: value for name, value in given.items() if value is not None}}),
        )
    assert f"  connectors.{key}.{field}: " in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert not Connector.objects.exists()
    if field == "url":
        assert "url_env" in str(refused.value)


def test_load_connectors_again_records_nothing_and_keeps_what_files_do_not_speak_of(
    run: Run, file: Write
) -> None:
    run("load_connectors", file(CONNECTORS), "--allow-network", "127.0.0.0/8")
    Connector.objects.update(required_approvals=2, max_concurrency=7)
    with appended() as log:
        run("load_connectors", file(CONNECTORS))
    assert log.kinds == []
    changed = {"connectors": {"WEBHOOK": {"url": "http://127.0.0.1:9/other"}}}
    with appended() as log:
        assert run("load_connectors", file(changed)) == "connector webhook: changed\n"
    assert log.payloads[0]["changed_fields"] == ["headers", "url"]
    row = Connector.objects.get(key="webhook")
    assert (row.required_approvals, row.max_concurrency, row.allow_networks) == (2, 7, ["127.0.0.0/8"])


def test_load_connectors_reads_every_reference_from_a_variable_or_a_file(run: Run, file: Write) -> None:
    given = {
        "url": "https://siem.example.com/x",
        "token_file": "hec-token",
    }
    run("load_connectors", file({"webhook": given}))
    row = Connector.objects.get()
    assert (row.token_ref, row.api_key_ref) == ("file:hec-token", "")
    for wrong, named in (
        ({"token_file": "../x"}, "token_file"),
        ({"token_file": "a", "token_env": "A"}, "token_file"),
        ({"url": "", "url_file": "a/b"}, "url_file"),
        ({"password": "hunter2"}, "password"),
        ({"authorization_file": "a", "token_file": "b"}, "token_file"),
    ):
        with pytest.raises(CommandError) as refused:
            run("load_connectors", file({"webhook": {"url": given["url"], **wrong}}))
        assert f"  connectors.webhook.{named}: " in str(refused.value)
        assert "hunter2" not in str(refused.value)


def test_load_connectors_lists_every_fault_of_every_connector_without_values(run: Run, file: Write) -> None:
    content = {
        "connectors": {
            "good": {"url": "https://siem.example.com/x"},
            "literal": {
                "url": "https://siem.example.com/x",
                "token": "hunter2-token",
                "authorization": "Basic hunter2",
                "api_key": "hunter2-key",
            },
            "headers": {
                "url": "https://siem.example.com/x",
                "headers": {"Authorization": "hunter2", "X-Api-Key": "hunter2"},
            },
            "user": {"url": "https://root:hunter2@siem.example.com/x"},
            "method": {"url": "https://siem.example.com/x", "method": "PUT"},
            "nowhere": {"enabled": "yes"},
            "splunk": {"url_env": "not a name", "timeout_seconds": 0},
            "product": {"url": "https://siem.example.com/x", "product": "pigeon"},
            "own": {"url": "https://siem.example.com/x", "token_env": "SECRET_KEY"},
            "no way": {},
            "my-hook": {"url": "https://siem.example.com/x"},
            "my_hook": {"url": "https://siem.example.com/x"},
            "list": [],
        }
    }
    with appended() as log, pytest.raises(CommandError) as refused:
        run("load_connectors", file(content))
    named = {line.strip().partition(": ")[0] for line in str(refused.value).splitlines()[1:]}
    assert named == {
        f"connectors.{path}"
        for path in (
            "literal.token",
            "literal.authorization",
            "literal.api_key",
            "headers.headers",
            "user.url",
            "method.method",
            "nowhere.enabled",
            "nowhere.url",
            "splunk.url_env",
            "splunk.url",
            "splunk.timeout_seconds",
            "splunk.token_env",
            "product.product",
            "own.token_env",
            "no way",
            "my_hook",
            "list",
        )
    }
    assert "hunter2" not in str(refused.value)
    assert log.kinds == []
    assert not Connector.objects.exists()


@pytest.mark.parametrize(
    ("content", "networks"),
    (
        (b"connectors:\n  slack: {}\n", ()),
        ({}, ()),
        ({"connectors": {}}, ()),
        ({"connectors": {}, "providers": {}}, ()),
        ({"connectors": []}, ()),
        ([], ()),
        (None, ()),
        (CONNECTORS, ("8.8.8.0/24",)),
        (CONNECTORS, ("everything",)),
        ({"connectors": {str(n): {"url": "https://a.example.com"} for n in range(201)}}, ()),
    ),
)
def test_load_connectors_refuses_what_is_no_connector_file(
    run: Run, file: Write, content: Any, networks: tuple[str, ...]
) -> None:
    with appended() as log, pytest.raises(CommandError) as refused:
        run("load_connectors", file(content), *(("--allow-network", *networks) if networks else ()))
    assert str(refused.value)
    assert log.kinds == []
    assert not Connector.objects.exists()


@pytest.mark.parametrize("command", ("load_connectors", "load_schedule"))
def test_a_file_that_is_not_there_or_is_yaml_is_refused_with_a_hint(
    run: Run, tmp_path: Path, command: str
) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        run(command, str(tmp_path / "missing.json"))
    with pytest.raises(CommandError, match="cannot be read"):
        run(command, str(tmp_path))
    yaml = tmp_path / "connectors.yaml"
    yaml.write_text("connectors:\n  slack: {}\n")
    with pytest.raises(CommandError, match="Only JSON is read"):
        run(command, str(yaml))
