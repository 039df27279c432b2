"""People and roles: created, granted, revoked and deactivated only here, each with its record."""

from collections.abc import Iterable
from datetime import datetime

from django.contrib.auth.models import Group
from django.contrib.auth.models import Permission as DjangoPermission
from django.db import IntegrityError, transaction
from knox.models import get_token_model

from evidence.documents import PERSON, ROLE
from evidence.domain import clock as clocks
from evidence.domain import ledger, records, text
from evidence.domain.clock import Clock
from evidence.enums import PersonKind, Role
from evidence.errors import Conflict, InvalidInput
from evidence.models import Person, RoleGrant
from evidence.permissions import ROLE_PERMISSIONS


def sync_roles(app_label: str) -> None:
    """Give every role's group exactly the permissions that ``app_label``'s table lists."""
    table = ROLE_PERMISSIONS.get(app_label, {})
    known = {
        f"{app_label}.{permission.codename}": permission
        for permission in DjangoPermission.objects.filter(content_type__app_label=app_label)
    }
    for role in Role:
        group, _ = Group.objects.get_or_create(name=role)
        wanted = {known[name] for name in table.get(role, ()) if name in known}
        held = set(group.permissions.filter(content_type__app_label=app_label))
        group.permissions.add(*(wanted - held))
        group.permissions.remove(*(held - wanted))


def create(
    username: str,
    *,
    by: Person | None,
    clock: Clock,
    full_name: str = "",
    email: str = "",
    password: str | None = None,
    owner: Person | None = None,
) -> Person:
    """Create a person, or a service account when there is an ``owner``. ``by`` is None on the command line.

    Without ``password`` nobody can sign in as this person; tokens still work. Raises ``InvalidInput`` for
    a name that is no sign-in name, ``Conflict`` (``person_exists``) for one that is taken.
    """
    username = text.clean(username, field="username", limit=64).lower()
    with transaction.atomic():
        at = clocks.read(clock)
        person = Person(
            username=username,
            full_name=text.clean(full_name, field="full_name", limit=text.MAX_NAME),
            email=email,
            kind=PersonKind.SERVICE if owner else PersonKind.HUMAN,
            owner=owner,
            created_at=at,
        )
        person.set_password(password)
        for field in ("username", "email"):
            _validate(person, field)
        try:
            with transaction.atomic():
                person.save(force_insert=True)
        except IntegrityError as error:
            raise Conflict(f"There is a person named {username} already.", code="person_exists") from error
        ledger.append([_person_record(person, "created", at=at, by=by)])
    return person


def set_active(person: Person, active: bool, *, by: Person | None, clock: Clock) -> None:
    """Deactivate a person (or bring one back). Their acts stay; their tokens end with the deactivation."""
    with transaction.atomic():
        changed = Person.objects.filter(pk=person.pk, is_active=not active)
        at = clocks.read(clock)
        if not changed.update(is_active=active, deactivated_at=None if active else at):
            return
        if not active:
            get_token_model().objects.filter(user=person).delete()
        ledger.append([_person_record(person, "activated" if active else "deactivated", at=at, by=by)])
    person.refresh_from_db()


def issue_token(person: Person, *, by: Person | None, clock: Clock) -> str:
    """A new bearer token for ``person``; returned once and stored as a digest only."""
    with transaction.atomic():
        Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        at = clocks.read(clock)
        _, token = get_token_model().objects.create(user=person)
        ledger.append([_person_record(person, "token-issued", at=at, by=by)])
    return str(token)


def grant_role(person: Person, role: Role, *, by: Person | None, clock: Clock) -> bool:
    """Give ``person`` a role; False when it was held already."""
    with transaction.atomic():
        Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        at = clocks.read(clock)
        _, granted = RoleGrant.objects.get_or_create(
            person=person, role=role, revoked_at=None, defaults={"granted_at": at, "granted_by": by}
        )
        if not granted:
            return False
        person.groups.add(Group.objects.get(name=role))
        _sync_staff(person)
        ledger.append([_role_record(person, role, "granted", at=at, by=by)])
    return True


def revoke_role(person: Person, role: Role, *, by: Person | None, clock: Clock) -> bool:
    """Take a role away; False when it was not held."""
    with transaction.atomic():
        Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        at = clocks.read(clock)
        held = RoleGrant.objects.filter(person=person, role=role, revoked_at=None)
        if not held.update(revoked_at=at, revoked_by=by):
            return False
        person.groups.remove(Group.objects.get(name=role))
        _sync_staff(person)
        ledger.append([_role_record(person, role, "revoked", at=at, by=by)])
    return True


def set_roles(person: Person, roles: Iterable[Role], *, by: Person | None, clock: Clock) -> None:
    """Make ``roles`` the roles a person holds, granting and revoking one by one."""
    wanted = set(roles)
    held = {Role(role) for role in RoleGrant.objects.filter(person=person, revoked_at=None).values_list("role", flat=True)}
    for role in sorted(wanted - held):
        grant_role(person, role, by=by, clock=clock)
    for role in sorted(held - wanted):
        revoke_role(person, role, by=by, clock=clock)


def held_role_at(person: Person, role: Role, moment: datetime) -> bool:
    """Whether the person held the role at ``moment`` and holds it still (P4)."""
    return RoleGrant.objects.filter(
        person=person, role=role, granted_at__lte=moment, revoked_at__isnull=True
    ).exists()


def claimed_actor(by: Person, name: str) -> str:
    """A name from a body that is none of the actor's own: kept, shown as unverified (P21). Else empty."""
    return "" if not name or name.casefold() in by.names else name


def _sync_staff(person: Person) -> None:
    staff = RoleGrant.objects.filter(person=person, role=Role.ADMINISTRATOR, revoked_at=None).exists()
    Person.objects.filter(pk=person.pk).update(is_staff=staff)
    person.is_staff = staff


def _validate(person: Person, field: str) -> None:
    """Run the model field's own validators; ``InvalidInput`` names the field."""
    from django.core.exceptions import ValidationError

    try:
        model_field = person._meta.get_field(field)
        model_field.clean(getattr(person, field), person)  # type: ignore[union-attr]
    except ValidationError as error:
        raise InvalidInput(f"{field}: {error.messages[0]}", errors={field: error.messages}) from error


def _person_record(person: Person, change: str, *, at: datetime, by: Person | None) -> records.Draft:
    return records.draft(
        PERSON,
        records.mint_id(PERSON),
        {
            "person_id": person.person_id,
            "person_name": person.username,
            "person_kind": person.kind,
            "owner_id": person.owner.person_id if person.owner else "",
            "change": change,
            "at": records.timestamp(at),
        },
        at=at,
        by=by,
    )


def _role_record(person: Person, role: Role, change: str, *, at: datetime, by: Person | None) -> records.Draft:
    return records.draft(
        ROLE,
        records.mint_id(ROLE),
        {
            "person_id": person.person_id,
            "person_name": person.username,
            "role": role.value,
            "change": change,
            "at": records.timestamp(at),
        },
        at=at,
        by=by,
    )
