"""The admin as a place to configure: every save is the domain's, recorded once, refused beside its field (P11, P22)."""

import re
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth import authenticate
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse
from knox.models import get_token_model

from evidence.domain import configuration, people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.models import Connector, ConnectorEdit, PauseSwitch, Person, Schedule
from recovery.models import RetryPolicy
from tests.builders import connector, person, schedule
from tests.evidence.watch import CONFIGURATION_CHANGE, PERSON_CHANGE, ROLE_CHANGE, appended

pytestmark = pytest.mark.django_db
URL = "https://siem.example.com/collect"
PASSWORD = "a sentence nobody guesses"


@pytest.fixture
def administrator(db: None) -> Person:
    return person(Role.ADMINISTRATOR, name="root")


@pytest.fixture
def client(administrator: Person) -> Client:
    """A browser in which the administrator is signed in."""
    client = Client()
    client.force_login(administrator)
    return client


def address(model: str, *pk: Any) -> str:
    """The page of a row, or the page that adds one."""
    return reverse(f"admin:{model}_{'change' if pk else 'add'}", args=pk)


def fields_of(page: Any) -> dict[str, Any]:
    """What a browser would send back when nothing is touched: the initial values of form and inlines."""
    context = page.context["adminform"].form
    sent: dict[str, Any] = {}
    forms = [context, *(f for inline in page.context["inline_admin_formsets"] for f in inline.formset.forms)]
    forms += [inline.formset.management_form for inline in page.context["inline_admin_formsets"]]
    for form in forms:
        for bound in form:
            widget, value = bound.field.widget, bound.value()
            if bound.name in ("DELETE",) or value is None or value is False:
                continue
            if hasattr(widget, "decompress") and not isinstance(value, list):
                for number, part in enumerate(widget.decompress(bound.initial)):
                    sent[f"{bound.html_name}_{number}"] = str(part)
                continue
            sent[bound.html_name] = value
    return sent


def errors_of(page: Any) -> set[str]:
    """Fields of the main form that the page complains about."""
    assert page.status_code == 200, "the page was left: nothing was refused"
    return set(page.context["adminform"].form.errors)


# --- who may -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", (None, *(role for role in Role if role is not Role.ADMINISTRATOR)))
def test_nobody_but_administrators_gets_into_the_admin(role: Role | None) -> None:
    client = Client()
    if role:
        client.force_login(person(role))
    for page in ("admin:index", "admin:evidence_connector_changelist", "admin:evidence_record_changelist"):
        answer = client.get(reverse(page))
        assert answer.status_code == 302
        assert "/login/" in answer["Location"]
    with appended() as log:
        assert client.post(address("evidence_connector"), {"key": "x", "url": URL}).status_code == 302
    assert log.kinds == []
    assert not Connector.objects.exists()


def test_a_former_administrator_is_out_at_once(client: Client, administrator: Person) -> None:
    assert client.get(reverse("admin:index")).status_code == 200
    people.revoke_role(administrator, Role.ADMINISTRATOR, by=None, clock=system_clock)
    assert client.get(reverse("admin:index")).status_code == 302


def test_the_admin_is_called_by_its_name_and_knows_no_groups_or_tokens(client: Client) -> None:
    page = client.get(reverse("admin:index")).content.decode()
    assert "CAVRA administration" in page
    assert not {Group, get_token_model()} & set(admin.site._registry)


@pytest.mark.parametrize("model", ("evidence_connector", "evidence_schedule", "evidence_person"))
def test_connectors_schedules_and_people_are_never_deleted(
    client: Client, administrator: Person, model: str
) -> None:
    row = {"evidence_connector": lambda: connector("siem", URL), "evidence_schedule": schedule}.get(
        model, lambda: administrator
    )()
    page = client.get(address(model, row.pk)).content.decode()
    assert "deletelink" not in page
    assert client.post(reverse(f"admin:{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    listed = client.post(
        reverse(f"admin:{model}_changelist"), {"action": "delete_selected", "_selected_action": [row.pk]}
    )
    assert listed.status_code in (200, 302)
    assert type(row).objects.filter(pk=row.pk).exists()


# --- connectors ---------------------------------------------------------------------------------------------------


def test_a_connector_is_created_and_changed_with_one_record_each(
    client: Client, administrator: Person
) -> None:
    form = fields_of(client.get(address("evidence_connector")))
    with appended() as log:
        answer = client.post(
            address("evidence_connector"),
            {**form, "key": "siem", "product": "splunk", "url": URL, "token_ref": "env:HEC", "headers": "{}"},
        )
    assert answer.status_code == 302
    assert log.kinds == [CONFIGURATION_CHANGE]
    assert log.documents[0]["actor"]["person_id"] == administrator.person_id
    row = Connector.objects.get()
    assert (row.key, row.enabled, row.edited_by) == ("siem", True, administrator)
    with appended() as log:
        page = client.get(address("evidence_connector", row.pk))
        client.post(address("evidence_connector", row.pk), {**fields_of(page), "required_approvals": 2})
        client.post(address("evidence_connector", row.pk), {**fields_of(page), "required_approvals": 2})
    assert [payload["changed_fields"] for payload in log.payloads] == [["required_approvals"]]
    assert ConnectorEdit.objects.count() == 2


def test_a_connectors_maintenance_windows_are_saved_with_it(client: Client, administrator: Person) -> None:
    row = connector("siem", URL)
    form = fields_of(client.get(address("evidence_connector", row.pk)))
    window = {
        "windows-TOTAL_FORMS": 1,
        "windows-0-window_id": "patch-day",
        "windows-0-start_at_0": "2026-12-24",
        "windows-0-start_at_1": "22:00:00",
        "windows-0-end_at_0": "2026-12-25",
        "windows-0-end_at_1": "02:00:00",
    }
    with appended() as log:
        assert client.post(address("evidence_connector", row.pk), {**form, **window}).status_code == 302
    assert [payload["changed_fields"] for payload in log.payloads] == [["windows"]]
    assert row.windows.get().window_id == "patch-day"
    too_long = {**form, **window, "windows-0-window_id": "year", "windows-0-end_at_0": "2027-12-25"}
    with appended() as log:
        refused = client.post(address("evidence_connector", row.pk), too_long)
    assert "at most 30 days long" in refused.content.decode()
    assert log.kinds == []


@pytest.mark.parametrize(
    ("wrong", "field"),
    (
        ({"url": "ftp://x"}, "url"),
        ({"url": "https://root:hunter2@siem.example.com/"}, "url"),
        ({"url": ""}, "url"),
        ({"url_ref": "hunter2", "url": ""}, "url_ref"),
        ({"token_ref": "hunter2"}, "token_ref"),
        ({"product": "splunk"}, "token_ref"),
        ({"headers": '{"Authorization": "hunter2"}'}, "headers"),
        ({"headers": "[1]"}, "headers"),
        ({"headers": "{"}, "headers"),
        ({"allow_networks": '["8.8.8.8/32"]'}, "allow_networks"),
        ({"allow_networks": "7"}, "allow_networks"),
        ({"key": "No Way"}, "key"),
        ({"timeout_ms": "-1"}, "timeout_ms"),
        ({"title": "a\u202eb"}, "title"),
    ),
)
def test_a_bad_connector_is_a_form_error_and_never_written(
    client: Client, wrong: dict[str, str], field: str
) -> None:
    form = fields_of(client.get(address("evidence_connector")))
    with appended() as log:
        page = client.post(
            address("evidence_connector"),
            {**form, "key": "siem", "product": "webhook", "url": URL, "headers": "{}", **wrong},
        )
    assert field in errors_of(page)
    assert log.kinds == []
    assert not Connector.objects.exists()


def test_blank_json_fields_are_empty_ones(client: Client) -> None:
    form = fields_of(client.get(address("evidence_connector")))
    sent = {**form, "key": "siem", "product": "webhook", "url": URL, "headers": "", "allow_networks": ""}
    assert client.post(address("evidence_connector"), sent).status_code == 302
    row = Connector.objects.get()
    assert (row.headers, row.allow_networks) == ({}, [])


def test_the_key_of_a_connector_cannot_be_changed(client: Client) -> None:
    row = connector("siem", URL)
    page = client.get(address("evidence_connector", row.pk))
    client.post(address("evidence_connector", row.pk), {**fields_of(page), "key": "other", "title": "SIEM"})
    row.refresh_from_db()
    assert (row.key, row.title) == ("siem", "SIEM")


def test_a_refusal_at_the_last_moment_is_shown_and_nothing_is_saved(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evidence.errors import StaleState

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise StaleState("Somebody else was first.")

    form = fields_of(client.get(address("evidence_connector")))
    monkeypatch.setattr(configuration, "save", refuse)
    page = client.post(
        address("evidence_connector"), {**form, "key": "siem", "product": "webhook", "url": URL}, follow=True
    )
    assert page.status_code == 200
    assert "Nothing was saved. Somebody else was first." in page.content.decode()
    assert not Connector.objects.exists()


def test_no_secret_is_on_any_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEC", "hunter2-secret-value")
    row = connector("siem", URL, product="splunk", token_ref="env:HEC")
    page = client.get(address("evidence_connector", row.pk)).content.decode()
    assert "env:HEC" in page
    assert "hunter2" not in page


# --- schedules ----------------------------------------------------------------------------------------------------


def test_a_schedule_is_created_with_owners_and_windows_as_one_record(client: Client) -> None:
    form = fields_of(client.get(address("evidence_schedule")))
    sent = {
        **form,
        "schedule_id": "payments-monthly",
        "interval_days": 30,
        "next_due_at_0": "2026-12-24",
        "next_due_at_1": "12:00:00",
        "notification_providers": '["webhook"]',
        "owners-TOTAL_FORMS": 2,
        "owners-0-position": 0,
        "owners-0-name": "release-governance",
        "owners-0-providers": "[]",
        "owners-0-unavailable_windows": "[]",
        "owners-0-available": "on",
        "owners-1-position": 1,
        "owners-1-name": "sre",
        "owners-1-providers": '["webhook"]',
        "owners-1-unavailable_windows": "",
        "owners-1-available": "on",
        "maintenance_windows-TOTAL_FORMS": 1,
        "maintenance_windows-0-window_id": "freeze",
        "maintenance_windows-0-start_at_0": "2026-12-24",
        "maintenance_windows-0-start_at_1": "00:00:00",
        "maintenance_windows-0-end_at_0": "2026-12-27",
        "maintenance_windows-0-end_at_1": "00:00:00",
        "maintenance_windows-0-providers": "[]",
        "maintenance_windows-0-owners": "[]",
    }
    with appended() as log:
        answer = client.post(address("evidence_schedule"), sent)
    assert answer.status_code == 302
    assert log.kinds == [CONFIGURATION_CHANGE]
    assert {"owners", "maintenance_windows", "interval_days"} <= set(log.payloads[0]["changed_fields"])
    row = Schedule.objects.get()
    assert [(owner.name, owner.providers) for owner in row.owners.all()] == [
        ("release-governance", []),
        ("sre", ["webhook"]),
    ]
    assert row.maintenance_windows.get().window_id == "freeze"


def test_owners_are_changed_added_and_removed_with_one_record(client: Client) -> None:
    row = schedule()
    page = client.get(address("evidence_schedule", row.pk))
    form = fields_of(page)
    with appended() as log:
        assert client.post(address("evidence_schedule", row.pk), form).status_code == 302
    assert log.kinds == []
    sent = {
        **form,
        "owners-TOTAL_FORMS": 3,
        "owners-0-escalation_owner": "cto",
        "owners-1-DELETE": "on",
        "owners-2-name": "sre",
        "owners-2-position": 5,
        "owners-2-providers": "[]",
        "owners-2-unavailable_windows": "[]",
    }
    with appended() as log:
        assert client.post(address("evidence_schedule", row.pk), sent).status_code == 302
    assert log.kinds == [CONFIGURATION_CHANGE]
    assert log.payloads[0]["changed_fields"] == ["owners"]
    assert [(owner.name, owner.escalation_owner) for owner in row.owners.all()] == [
        ("release-governance", "cto"),
        ("sre", ""),
    ]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    (
        ({"notification_providers": '["My Hook"]'}, "notification_providers"),
        ({"notification_providers": "[]"}, "notification_providers"),
        ({"interval_days": 0}, "at least 1"),
        ({"owners-0-providers": '["no key!"]'}, "A connector key has 1 to 40"),
        ({"owners-0-unavailable_windows": '[{"start_at": "soon"}]'}, "Must be a time with an offset"),
        ({"owners-1-name": "release-governance"}, "duplicate"),
        ({"owners-0-name": ""}, "required"),
    ),
)
def test_a_bad_schedule_is_a_form_error_and_never_written(
    client: Client, wrong: dict[str, Any], complaint: str
) -> None:
    row = schedule()
    form = fields_of(client.get(address("evidence_schedule", row.pk)))
    with appended() as log:
        page = client.post(address("evidence_schedule", row.pk), {**form, "title": "changed", **wrong})
    assert page.status_code == 200
    assert complaint in page.content.decode()
    assert log.kinds == []
    row.refresh_from_db()
    assert row.title == ""


# --- retry policy and pause ---------------------------------------------------------------------------------------


def test_the_retry_policy_is_there_before_anybody_saved_it_and_looking_writes_nothing(client: Client) -> None:
    with appended() as log:
        page = client.get(reverse("admin:recovery_retrypolicy_changelist"), follow=True)
    assert page.status_code == 200
    assert fields_of(page)["max_retry_attempts"] == 3
    assert not RetryPolicy.objects.exists()
    assert log.kinds == []


def test_the_retry_policy_is_changed_with_its_record_and_editor(
    client: Client, administrator: Person
) -> None:
    where = address("recovery_retrypolicy", 1)
    form = fields_of(client.get(where))
    with appended() as log:
        assert client.post(where, {**form, "max_retry_attempts": 5}).status_code == 302
        assert client.post(where, {**form, "max_retry_attempts": 6}).status_code == 302
        assert client.post(where, {**form, "max_retry_attempts": 6}).status_code == 302
    assert log.kinds == [CONFIGURATION_CHANGE] * 2
    assert log.payloads[1]["changed_fields"] == ["max_retry_attempts"]
    row = RetryPolicy.objects.get()
    assert (row.max_retry_attempts, row.edited_by) == (6, administrator)
    for name, value in (
        ("max_retry_attempts", 11),
        ("backoff_multiplier", "0.5"),
        ("retry_delay_minutes", -1),
    ):
        assert errors_of(client.post(where, {**form, name: value})) == {name}
    assert client.get(reverse("admin:recovery_retrypolicy_add")).status_code == 403
    assert (
        client.post(reverse("admin:recovery_retrypolicy_delete", args=[1]), {"post": "yes"}).status_code
        == 403
    )
    assert RetryPolicy.objects.get().max_retry_attempts == 6


def test_pausing_is_adding_and_resuming_is_deleting(client: Client, administrator: Person) -> None:
    connector("siem", URL)
    with appended() as log:
        answer = client.post(
            address("evidence_pauseswitch"), {"scope": "siem", "reason": "receiver migrates"}
        )
    assert answer.status_code == 302
    assert [(p["change"], p["subject_id"], p["reason"]) for p in log.payloads] == [
        ("paused", "siem", "receiver migrates")
    ]
    switch = PauseSwitch.objects.get()
    assert switch.paused_by == administrator
    assert client.get(address("evidence_pauseswitch", switch.pk)).status_code == 200
    assert client.post(address("evidence_pauseswitch", switch.pk), {"reason": "other"}).status_code == 403
    with appended() as log:
        gone = client.post(reverse("admin:evidence_pauseswitch_delete", args=[switch.pk]), {"post": "yes"})
    assert gone.status_code == 302
    assert [(p["change"], p["subject_id"]) for p in log.payloads] == [("resumed", "siem")]
    assert not PauseSwitch.objects.exists()


@pytest.mark.parametrize(
    ("sent", "field"),
    (
        ({"scope": "nobody", "reason": "x"}, "scope"),
        ({"scope": "*", "reason": ""}, "reason"),
        ({"scope": "*", "reason": " \n "}, "reason"),
        ({"scope": "*", "reason": "a\u200bb"}, "reason"),
        ({"reason": "x"}, "scope"),
    ),
)
def test_a_pause_without_reason_or_scope_is_a_form_error(
    client: Client, sent: dict[str, str], field: str
) -> None:
    with appended() as log:
        assert field in errors_of(client.post(address("evidence_pauseswitch"), sent))
    assert log.kinds == []


def test_pausing_twice_is_a_form_error(client: Client) -> None:
    sent = {"scope": "*", "reason": "maintenance"}
    client.post(address("evidence_pauseswitch"), sent)
    with appended() as log:
        assert "scope" in errors_of(client.post(address("evidence_pauseswitch"), sent))
    assert log.kinds == []


# --- people -------------------------------------------------------------------------------------------------------


def test_a_person_is_created_with_password_and_roles(client: Client, administrator: Person) -> None:
    with appended() as log:
        answer = client.post(
            address("evidence_person"),
            {
                "username": "ada",
                "full_name": "Ada L.",
                "email": "ada@example.com",
                "roles": ["analyst", "auditor"],
                "new_password": PASSWORD,
            },
        )
    assert answer.status_code == 302
    assert log.kinds == [PERSON_CHANGE, ROLE_CHANGE, ROLE_CHANGE]
    assert {document["actor"]["person_id"] for document in log.documents} == {administrator.person_id}
    assert PASSWORD not in str(log.documents)
    ada = Person.objects.get(username="ada")
    assert people.roles_of(ada) == {Role.ANALYST, Role.AUDITOR}
    assert authenticate(username="ada", password=PASSWORD) == ada
    assert not ada.is_superuser
    assert not ada.is_staff


def test_a_person_is_changed_with_a_record_for_each_change(client: Client) -> None:
    ada = person(Role.ANALYST, name="ada")
    where = address("evidence_person", ada.pk)
    form = fields_of(client.get(where))
    assert form["roles"] == ["analyst"]
    with appended() as log:
        assert client.post(where, form).status_code == 302
    assert log.kinds == []
    sent = {**form, "full_name": "Ada", "roles": ["approver"], "new_password": PASSWORD}
    sent.pop("is_active")
    with appended() as log:
        assert client.post(where, sent).status_code == 302
    assert log.kinds == [PERSON_CHANGE] * 3 + [ROLE_CHANGE] * 2
    assert [p["change"] for p in log.payloads] == [
        "changed",
        "password-set",
        "deactivated",
        "granted",
        "revoked",
    ]
    ada.refresh_from_db()
    assert (ada.full_name, ada.is_active, people.roles_of(ada)) == ("Ada", False, {Role.APPROVER})
    with appended() as log:
        client.post(where, {**fields_of(client.get(where)), "is_active": "on"})
    assert [p["change"] for p in log.payloads] == ["activated"]


def test_a_service_account_is_one_with_an_owner(client: Client) -> None:
    ada = person(name="ada")
    client.post(address("evidence_person"), {"username": "bot", "owner": ada.pk, "roles": ["analyst"]})
    bot = Person.objects.get(username="bot")
    assert (bot.kind, bot.owner) == ("service", ada)
    page = client.post(
        address("evidence_person"), {"username": "bot2", "owner": ada.pk, "new_password": PASSWORD}
    )
    assert errors_of(page) == {"new_password"}
    page = client.post(address("evidence_person"), {"username": "bot2", "owner": bot.pk})
    assert errors_of(page) == {"owner"}
    form = fields_of(client.get(address("evidence_person", bot.pk)))
    assert errors_of(client.post(address("evidence_person", bot.pk), {**form, "owner": ""})) == {"owner"}
    form = fields_of(client.get(address("evidence_person", ada.pk)))
    assert errors_of(client.post(address("evidence_person", ada.pk), {**form, "owner": ada.pk})) == {"owner"}
    people.set_active(ada, False, by=None, clock=system_clock)
    form = fields_of(client.get(address("evidence_person", bot.pk)))
    assert client.post(address("evidence_person", bot.pk), {**form, "full_name": "Bot"}).status_code == 302


@pytest.mark.parametrize(
    ("sent", "field"),
    (
        ({"username": ""}, "username"),
        ({"username": "two words"}, "username"),
        ({"username": "root"}, "username"),
        ({"username": "x" * 65}, "username"),
        ({"username": "ada", "email": "nowhere"}, "email"),
        ({"username": "ada", "full_name": "a\u202eb"}, "full_name"),
        ({"username": "ada", "roles": ["king"]}, "roles"),
        ({"username": "ada", "new_password": "short"}, "new_password"),
    ),
)
def test_a_bad_person_is_a_form_error_and_never_written(
    client: Client, sent: dict[str, Any], field: str
) -> None:
    with appended() as log:
        page = client.post(address("evidence_person"), sent)
    assert field in errors_of(page)
    assert (
        "short" not in re.sub("too short", "", page.content.decode()) or sent.get("new_password") != "short"
    )
    assert log.kinds == []
    assert set(Person.objects.values_list("username", flat=True)) == {"root"}


def test_nobody_is_made_more_than_their_roles(client: Client, administrator: Person) -> None:
    ada = person(Role.VIEWER, name="ada")
    where = address("evidence_person", ada.pk)
    form = fields_of(client.get(where))
    extra = {
        "is_superuser": "on",
        "is_staff": "on",
        "groups": [Group.objects.get(name=Role.ADMINISTRATOR).pk],
        "user_permissions": [1, 2, 3],
        "username": "eve",
        "person_id": "person-eve",
        "password": "x",
    }
    assert client.post(where, {**form, **extra}).status_code == 302
    before = (ada.person_id, ada.password)
    ada = Person.objects.get(pk=ada.pk)
    assert (ada.is_superuser, ada.is_staff, ada.username) == (False, False, "ada")
    assert (ada.person_id, ada.password) == before
    assert {group.name for group in ada.groups.all()} == {"viewer"}
    assert not ada.user_permissions.exists()


def test_passwords_are_only_set_on_the_page_of_a_person(client: Client, administrator: Person) -> None:
    answer = client.post(
        reverse("admin:password_change"),
        {"old_password": "correct horse battery", "new_password1": PASSWORD, "new_password2": PASSWORD},
    )
    assert answer.status_code == 302
    assert answer["Location"] == address("evidence_person", administrator.pk)
    administrator.refresh_from_db()
    assert administrator.check_password("correct horse battery")
    page = client.get(answer["Location"]).content.decode()
    assert administrator.password not in page
