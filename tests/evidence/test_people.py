"""People and roles: every change has its record, nobody acts beyond their role (P10, P21, P22)."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from knox.models import get_token_model

from evidence.domain import people, policies
from evidence.domain.clock import system_clock
from evidence.enums import PersonKind, Role
from evidence.errors import Conflict, InvalidInput, NotAllowed
from evidence.models import Person, RoleGrant
from evidence.permissions import Permission
from tests.builders import Clock, person
from tests.evidence.watch import PERSON_CHANGE, ROLE_CHANGE, appended

pytestmark = pytest.mark.django_db
PASSWORD = "a sentence nobody guesses"


def held_role_before(somebody: Person, role: Role, moment: datetime) -> bool:
    since = people.holds_role_since(somebody, role)
    return since is not None and since < moment


def test_a_created_person_is_one_record_by_the_one_who_did_it() -> None:
    administrator = person(Role.ADMINISTRATOR)
    with appended() as log:
        made = people.create(
            " Ada ", by=administrator, clock=system_clock, full_name="Ada L.", password=PASSWORD
        )
    assert (made.username, made.full_name, made.kind) == ("ada", "Ada L.", PersonKind.HUMAN)
    assert log.kinds == [PERSON_CHANGE]
    assert (log.payloads[0]["change"], log.payloads[0]["person_id"]) == ("created", made.person_id)
    assert log.documents[0]["actor"]["person_id"] == administrator.person_id
    assert authenticate(username="ada", password=PASSWORD) == made


@pytest.mark.parametrize(
    ("name", "field"),
    (("", "username"), ("two words", "username"), ("zero\u200bwidth", "username"), ("x" * 65, "username")),
)
def test_what_is_no_sign_in_name_is_refused_and_nothing_is_written(name: str, field: str) -> None:
    with appended() as log, pytest.raises(InvalidInput) as refused:
        people.create(name, by=None, clock=system_clock)
    assert list(refused.value.errors) == [field]
    assert log.kinds == []
    assert not Person.objects.exists()


def test_a_weak_password_or_address_is_refused_before_anything_is_written() -> None:
    for wrong, field in (({"password": "short"}, "password"), ({"email": "nowhere"}, "email")):
        with appended() as log, pytest.raises(InvalidInput) as refused:
            people.create("ada", by=None, clock=system_clock, **wrong)
        assert list(refused.value.errors) == [field]
        assert log.kinds == []
    assert not Person.objects.exists()


def test_a_name_is_taken_once_whatever_its_case() -> None:
    person(name="ada")
    with appended() as log, pytest.raises(Conflict) as refused:
        people.create("ADA", by=None, clock=system_clock)
    assert refused.value.code == "person_exists"
    assert log.kinds == []


def test_a_service_account_has_an_active_human_owner_and_no_password() -> None:
    ada = person(name="ada")
    bot = people.create("bot", by=None, clock=system_clock, owner=ada)
    assert (bot.kind, bot.principal) == (PersonKind.SERVICE, ada)
    assert not bot.has_usable_password()
    with pytest.raises(Conflict):
        people.create("bot2", by=None, clock=system_clock, owner=bot)
    with pytest.raises(Conflict):
        people.create("bot3", by=None, clock=system_clock, owner=ada, password=PASSWORD)
    with pytest.raises(Conflict):
        people.set_password(bot, PASSWORD, by=None, clock=system_clock)
    people.set_active(ada, False, by=None, clock=system_clock)
    with pytest.raises(Conflict):
        people.create("bot4", by=None, clock=system_clock, owner=ada)
    assert set(Person.objects.values_list("username", flat=True)) == {"ada", "bot"}


def test_a_service_account_is_handed_over_and_a_human_never_gets_an_owner() -> None:
    ada, bea = person(), person()
    bot = people.create("bot", by=None, clock=system_clock, owner=ada)
    with appended() as log:
        assert people.update(bot, owner=bea, by=None, clock=system_clock)
        assert not people.update(bot, owner=bea, by=None, clock=system_clock)
    assert log.kinds == [PERSON_CHANGE]
    assert log.payloads[0]["owner_id"] == bea.person_id
    with pytest.raises(Conflict):
        people.update(ada, owner=bea, by=None, clock=system_clock)


def test_details_change_with_one_record_and_only_when_they_differ() -> None:
    ada = person(name="ada")
    with appended() as log:
        assert people.update(ada, full_name="Ada", email="ada@example.com", by=None, clock=system_clock)
        assert not people.update(ada, full_name="Ada", by=None, clock=system_clock)
    assert [payload["change"] for payload in log.payloads] == ["changed"]
    ada.refresh_from_db()
    assert ada.names == {"ada", "ada@example.com", ada.person_id}
    with pytest.raises(InvalidInput):
        people.update(ada, full_name="Ada\x00", by=None, clock=system_clock)


def test_a_password_is_set_by_administrators_and_by_oneself() -> None:
    ada, bea = person(Role.ANALYST), person(Role.ANALYST)
    with appended() as log:
        assert people.set_password(ada, PASSWORD, by=ada, clock=system_clock)
        assert not people.set_password(ada, PASSWORD, by=ada, clock=system_clock)
        with pytest.raises(NotAllowed):
            people.set_password(ada, "another fine sentence", by=bea, clock=system_clock)
    assert [payload["change"] for payload in log.payloads] == ["password-set"]
    assert PASSWORD not in str(log.documents)
    assert authenticate(username=ada.username, password=PASSWORD) == ada


def test_a_deactivated_person_acts_no_more_and_neither_do_their_accounts() -> None:
    ada = person(Role.ANALYST, name="ada")
    bot = people.create("bot", by=None, clock=system_clock, owner=ada)
    people.grant_role(bot, Role.ANALYST, by=None, clock=system_clock)
    assert not policies.reasons_against_role(Person.objects.get(pk=bot.pk), Permission.DELIVER)
    people.issue_token(ada, by=None, clock=system_clock)
    with appended() as log:
        assert people.set_active(ada, False, by=None, clock=system_clock)
        assert not people.set_active(ada, False, by=None, clock=system_clock)
    assert [payload["change"] for payload in log.payloads] == ["deactivated"]
    assert not get_token_model().objects.filter(user=ada).exists()
    assert authenticate(username="ada", password="correct horse battery") is None
    for account in (ada, Person.objects.get(pk=bot.pk)):
        assert policies.reasons_against_role(account, Permission.DELIVER)
    with pytest.raises(Conflict):
        people.issue_token(ada, by=None, clock=system_clock)
    assert people.set_active(ada, True, by=None, clock=system_clock)
    assert not policies.reasons_against_role(Person.objects.get(pk=ada.pk), Permission.DELIVER)


def test_a_token_works_and_neither_log_nor_table_holds_it() -> None:
    ada = person(Role.ANALYST)
    with appended() as log:
        token = people.issue_token(ada, by=None, clock=system_clock)
    assert [payload["change"] for payload in log.payloads] == ["token-issued"]
    stored = get_token_model().objects.get(user=ada)
    assert token not in str(log.documents) + stored.digest
    assert stored.digest == get_token_model().objects.get(token_key=token[:15]).digest


def test_roles_become_exactly_the_given_ones_with_a_record_each() -> None:
    ada = person(Role.ANALYST, Role.AUDITOR)
    with appended() as log:
        assert people.set_roles(ada, [Role.APPROVER, Role.AUDITOR], by=None, clock=system_clock)
        assert not people.set_roles(ada, [Role.AUDITOR, Role.APPROVER], by=None, clock=system_clock)
    assert log.kinds == [ROLE_CHANGE, ROLE_CHANGE]
    assert [(p["role"], p["change"]) for p in log.payloads] == [
        ("approver", "granted"),
        ("analyst", "revoked"),
    ]
    ada = Person.objects.get(pk=ada.pk)
    assert people.roles_of(ada) == {Role.APPROVER, Role.AUDITOR}
    assert {group.name for group in ada.groups.all()} == {"approver", "auditor"}
    assert not ada.has_perm(Permission.DELIVER)
    assert ada.has_perm(Permission.EXPORT)


def test_only_administrators_open_the_admin_and_only_while_they_are() -> None:
    ada = person(Role.ADMINISTRATOR)
    assert ada.is_staff
    people.revoke_role(ada, Role.ADMINISTRATOR, by=None, clock=system_clock)
    assert not Person.objects.get(pk=ada.pk).is_staff
    assert not person(Role.ANALYST, Role.APPROVER, Role.OPERATOR, Role.AUDITOR).is_staff


def test_a_role_counts_from_its_grant_and_a_new_grant_starts_again() -> None:
    noon = datetime.now(UTC) + timedelta(hours=1)
    clock = Clock(noon)
    ada = person()
    assert people.grant_role(ada, Role.APPROVER, by=None, clock=clock)
    assert not people.grant_role(ada, Role.APPROVER, by=None, clock=clock)
    assert not held_role_before(ada, Role.APPROVER, noon - timedelta(seconds=1))
    # Not at the very moment: behind a clock that was set back, what comes later has the same time.
    assert not held_role_before(ada, Role.APPROVER, noon)
    assert held_role_before(ada, Role.APPROVER, noon + timedelta(seconds=1))
    clock.forward(minutes=5)
    assert people.revoke_role(ada, Role.APPROVER, by=None, clock=clock)
    assert not people.revoke_role(ada, Role.APPROVER, by=None, clock=clock)
    assert not held_role_before(ada, Role.APPROVER, noon)
    clock.forward(minutes=5)
    people.grant_role(ada, Role.APPROVER, by=None, clock=clock)
    assert not held_role_before(ada, Role.APPROVER, noon)
    assert held_role_before(ada, Role.APPROVER, clock() + timedelta(seconds=1))
    assert RoleGrant.objects.filter(person=ada).count() == 2


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMINISTRATOR])
def test_people_are_the_administrators_business(role: Role) -> None:
    by, ada = person(role), person(Role.ANALYST)
    acts = (
        lambda: people.create("eve", by=by, clock=system_clock),
        lambda: people.update(ada, full_name="Eve", by=by, clock=system_clock),
        lambda: people.set_active(ada, False, by=by, clock=system_clock),
        lambda: people.issue_token(ada, by=by, clock=system_clock),
        lambda: people.grant_role(by, Role.APPROVER, by=by, clock=system_clock),
        lambda: people.revoke_role(ada, Role.ANALYST, by=by, clock=system_clock),
        lambda: people.set_roles(by, list(Role), by=by, clock=system_clock),
        lambda: people.set_password(ada, PASSWORD, by=by, clock=system_clock),
    )
    with appended() as log:
        for act in acts:
            with pytest.raises(NotAllowed):
                act()
    assert log.kinds == []


def test_there_are_no_superusers() -> None:
    assert "is_superuser" not in {column.name for column in Person._meta.get_fields()}
    with pytest.raises(CommandError, match=r"manage\.py operator"):
        call_command("createsuperuser", "--noinput", "--username", "root")
    assert not Person.objects.exists()
