"""People and roles: created, granted, revoked and deactivated only here, each with its record."""

from collections.abc import Callable, Iterable
from datetime import datetime

from django.contrib.auth.models import Group
from django.contrib.auth.models import Permission as DjangoPermission
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from knox.models import get_token_model

from evidence.documents import PERSON, ROLE
from evidence.domain import clock as clocks
from evidence.domain import ledger, policies, records, text
from evidence.domain.clock import Clock
from evidence.enums import PersonKind, Role
from evidence.errors import Conflict, InvalidInput
from evidence.models import Person, Record, RecordKey, RoleGrant
from evidence.permissions import ROLE_PERMISSIONS, Permission


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
    _require_administrator(by)
    person = Person(
        username=sign_in_name(username),
        full_name=text.clean(full_name, field="full_name", limit=text.MAX_NAME),
        email=text.clean(email, field="email", limit=254),
        kind=PersonKind.SERVICE if owner else PersonKind.HUMAN,
        owner=owner,
    )
    for field in ("username", "email"):
        _validate(person, field)
    _set_password(person, password)
    with transaction.atomic():
        _require_owner(owner)
        at = clocks.read(clock)
        person.created_at = at
        try:
            with transaction.atomic():
                person.save(force_insert=True)
        except IntegrityError as error:
            raise Conflict(
                f"There is a person named {person.username} already.", code="person_exists"
            ) from error
        ledger.append([_person_record(person, "created", at=at, by=by)])
    return person


def sign_in_name(username: str) -> str:
    """A sign-in name in its one form: NFC, lower case. ``InvalidInput`` when it cannot be one."""
    return text.clean(username, field="username", limit=64).lower()


def update(
    person: Person,
    *,
    by: Person | None,
    clock: Clock,
    full_name: str | None = None,
    email: str | None = None,
    owner: Person | None = None,
) -> bool:
    """Change what is given and not None; False when it said so already.

    ``owner`` hands a service account to another human. The sign-in name stays.
    """
    _require_administrator(by)
    with transaction.atomic():
        person = _locked(person)
        at = clocks.read(clock)
        if full_name is not None:
            person.full_name = text.clean(full_name, field="full_name", limit=text.MAX_NAME)
        if email is not None:
            person.email = text.clean(email, field="email", limit=254)
            _validate(person, "email")
        if owner is not None and owner.pk != person.owner_id:
            if person.kind != PersonKind.SERVICE:
                raise Conflict(
                    f"{person.username} is a human and has no owner.", code="not_a_service_account"
                )
            _require_owner(owner)
            person.owner = owner
        before = Person.objects.get(pk=person.pk)
        changed = [
            name
            for name in ("full_name", "email", "owner_id")
            if getattr(before, name) != getattr(person, name)
        ]
        if not changed:
            return False
        person.save(update_fields=changed)
        ledger.append([_person_record(person, "changed", at=at, by=by)])
    return True


def set_password(person: Person, password: str, *, by: Person | None, clock: Clock) -> bool:
    """Let a human sign in with ``password``; False when it is the one they have. Sessions end with the old one.

    An administrator may, and everybody for themselves.
    """
    if by is not None and by.pk != person.pk:
        _require_administrator(by)
    with transaction.atomic():
        person = _locked(person)
        at = clocks.read(clock)
        if person.check_password(password):
            return False
        _set_password(person, password)
        person.save(update_fields=["password"])
        ledger.append([_person_record(person, "password-set", at=at, by=by)])
    return True


def set_active(person: Person, active: bool, *, by: Person | None, clock: Clock) -> bool:
    """Deactivate a person (or bring one back); False when they were. Acts stay, tokens end with the deactivation."""
    _require_administrator(by)
    with transaction.atomic():
        changed = Person.objects.filter(pk=person.pk, is_active=not active)
        at = clocks.read(clock)
        values = {"deactivated_at": None} if active else {"deactivated_at": at, "last_deactivated_at": at}
        if not changed.update(is_active=active, **values):
            return False
        if not active:
            get_token_model().objects.filter(user=person).delete()
        ledger.append([_person_record(person, "activated" if active else "deactivated", at=at, by=by)])
    person.refresh_from_db()
    return True


def issue_token(person: Person, *, by: Person | None, clock: Clock) -> str:
    """A new bearer token for ``person``; returned once and stored as a digest only."""
    _require_administrator(by)
    with transaction.atomic():
        person = _locked(person)
        at = clocks.read(clock)
        if not person.is_active:
            raise Conflict(f"{person.username} is deactivated.", code="person_deactivated")
        _, token = get_token_model().objects.create(user=person)
        ledger.append([_person_record(person, "token-issued", at=at, by=by)])
    return str(token)


def grant_role(person: Person, role: Role, *, by: Person | None, clock: Clock) -> bool:
    """Give ``person`` a role; False when it was held already."""
    return _change_roles(person, lambda held: held | {role}, by=by, clock=clock)


def revoke_role(person: Person, role: Role, *, by: Person | None, clock: Clock) -> bool:
    """Take a role away; False when it was not held."""
    return _change_roles(person, lambda held: held - {role}, by=by, clock=clock)


def set_roles(person: Person, roles: Iterable[Role], *, by: Person | None, clock: Clock) -> bool:
    """Make ``roles`` exactly the roles a person holds, one record each; False when they were."""
    wanted = {Role(role) for role in roles}
    return _change_roles(person, lambda _: wanted, by=by, clock=clock)


def roles_of(person: Person) -> set[Role]:
    """Roles a person holds now."""
    held = RoleGrant.objects.filter(person=person, revoked_at=None)
    return {Role(role) for role in held.values_list("role", flat=True)}


def _change_roles(
    person: Person, change: Callable[[set[Role]], set[Role]], *, by: Person | None, clock: Clock
) -> bool:
    """Move from the roles held to what ``change`` makes of them."""
    _require_administrator(by)
    with transaction.atomic():
        _locked(person)
        at = clocks.read(clock)
        held = roles_of(person)
        wanted = change(held)
        granted, revoked = sorted(wanted - held), sorted(held - wanted)
        RoleGrant.objects.bulk_create(
            RoleGrant(person=person, role=role, granted_at=at, granted_by=by) for role in granted
        )
        RoleGrant.objects.filter(person=person, revoked_at=None, role__in=revoked).update(
            revoked_at=at, revoked_by=by
        )
        person.groups.add(*Group.objects.filter(name__in=granted))
        person.groups.remove(*Group.objects.filter(name__in=revoked))
        person.is_staff = Role.ADMINISTRATOR in wanted
        Person.objects.filter(pk=person.pk).update(is_staff=person.is_staff)
        ledger.append(
            [_role_record(person, role, "granted", at=at, by=by) for role in granted]
            + [_role_record(person, role, "revoked", at=at, by=by) for role in revoked]
        )
    return bool(granted or revoked)


def holds_role_since(person: Person, role: Role) -> datetime | None:
    """Since when the person has held the role without a break; None when they do not hold it now (P4).

    Whoever asks whether it was held *before* a moment does not count the moment itself: behind a clock that
    was set back, what comes later has the same time.
    """
    held = RoleGrant.objects.filter(person=person, role=role, revoked_at__isnull=True)
    return held.values_list("granted_at", flat=True).first()


def answering(person: Person) -> set[Person]:
    """Every human who answers, or ever answered, for what this account did: a handover frees nobody (P4)."""
    if person.kind == PersonKind.HUMAN:
        return {person}
    named = RecordKey.objects.filter(name="person_id", value=person.person_id).values("record")
    said = [records.payload_of(record) for record in Record.objects.filter(index__in=named, kind=PERSON.name)]
    owners = Person.objects.filter(person_id__in={one["owner_id"] for one in said if one})
    return {person.principal, *owners}


def claimed_actor(by: Person, name: str) -> str:
    """A name from a body that is none of the actor's own: kept, shown as unverified (P21). Else empty."""
    return "" if not name or name.casefold() in by.names else name


def _locked(person: Person) -> Person:
    return Person.objects.select_for_update(no_key=True).get(pk=person.pk)


def _require_administrator(by: Person | None) -> None:
    if by is not None:
        policies.require_role(by, Permission.CONFIGURE)


def _require_owner(owner: Person | None) -> None:
    """Somebody has to answer for a service account: a human who is active, held until the account is written."""
    if owner is None:
        return
    owner = _locked(owner)
    if owner.kind != PersonKind.HUMAN or not owner.is_active:
        raise Conflict("A service account is owned by an active human.", code="owner_not_eligible")


def _set_password(person: Person, password: str | None) -> None:
    """Put a password on an unsaved row; ``InvalidInput`` with what the password rules say against it."""
    if password is not None:
        if person.kind != PersonKind.HUMAN:
            raise Conflict("A service account has tokens, not a password.", code="service_account")
        try:
            validate_password(password, person)
        except ValidationError as error:
            raise InvalidInput(
                "The password is not accepted.", errors={"password": error.messages}
            ) from error
    person.set_password(password)


def _validate(person: Person, field: str) -> None:
    """Run the model field's own validators; ``InvalidInput`` names the field."""
    try:
        person._meta.get_field(field).clean(getattr(person, field), person)  # type: ignore[union-attr]
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


def _role_record(
    person: Person, role: Role, change: str, *, at: datetime, by: Person | None
) -> records.Draft:
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
