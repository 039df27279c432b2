"""People: who acts. The user model of the project from its first migration."""

import secrets
from typing import ClassVar, NoReturn

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.core.management.base import CommandError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.functional import cached_property

from evidence.enums import PersonKind
from evidence.permissions import Permission


def new_person_id() -> str:
    """A random, meaningless id: it survives a changed name and tells nothing about the person."""
    return f"person-{secrets.token_hex(8)}"


class PersonManager(BaseUserManager["Person"]):
    """Finds people; they are made by ``evidence.domain.people.create``, which records it."""

    def get_by_natural_key(self, username: str | None) -> "Person":
        """Sign-in names are told apart without regard to case."""
        return self.get(username__iexact=username)

    def create_superuser(self, *args: object, **fields: object) -> NoReturn:
        """Nobody stands above the roles; ``createsuperuser`` says so."""
        raise CommandError("There are no superusers here. Use: manage.py operator NAME --role administrator")


class Person(AbstractBaseUser, PermissionsMixin):
    """Someone who acts. Never deleted, only deactivated.

    A service account has an ``owner`` and counts as that person wherever two persons are asked for.
    """

    person_id = models.CharField(max_length=24, unique=True, default=new_person_id, editable=False)
    username = models.CharField(
        "sign-in name",
        max_length=64,
        unique=True,
        validators=[
            RegexValidator(r"\A[a-z0-9][a-z0-9._@+-]*\Z", "Lower-case letters, digits and . _ @ + - only.")
        ],
    )
    full_name = models.CharField(max_length=120, blank=True)
    email = models.EmailField(blank=True)
    kind = models.CharField(max_length=8, choices=[(k, k) for k in PersonKind], default=PersonKind.HUMAN)
    owner = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="service_accounts"
    )
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField("may open the admin", default=False)
    created_at = models.DateTimeField()
    deactivated_at = models.DateTimeField(null=True, blank=True)
    # Kept when the person is brought back: what they had approved before counts no more.
    last_deactivated_at = models.DateTimeField(null=True, editable=False)

    # No column: nobody passes by without a role, whoever wrote the row (P22).
    is_superuser = False

    objects: ClassVar[PersonManager] = PersonManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name_plural = "people"
        ordering = ("username",)
        permissions = tuple((act.partition(".")[2], act.label) for act in Permission)
        constraints = (
            models.CheckConstraint(name="person_kind_known", condition=Q(kind__in=list(PersonKind))),
            models.CheckConstraint(
                name="person_service_has_owner",
                condition=Q(kind=PersonKind.HUMAN, owner__isnull=True)
                | Q(kind=PersonKind.SERVICE, owner__isnull=False),
            ),
            models.CheckConstraint(
                name="person_deactivated_in_pair",
                condition=Q(is_active=True, deactivated_at__isnull=True)
                | Q(is_active=False, deactivated_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return self.username

    @property
    def principal(self) -> "Person":
        """The human who answers for what this account does."""
        return self.owner or self

    @cached_property
    def role_names(self) -> tuple[str, ...]:
        """Roles this person holds, read once for each object."""
        return tuple(sorted(group.name for group in self.groups.all()))

    @property
    def names(self) -> frozenset[str]:
        """Every name by which a body may mean this very person (P21)."""
        return frozenset(
            name.casefold() for name in (self.username, self.email, self.full_name, self.person_id) if name
        )


class RoleGrant(models.Model):
    """Since when a person has held a role; closed by a revocation, never removed.

    The group membership beside it is what Django's permission checks read; this is what
    "held the role before the request" is answered from.
    """

    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="role_grants")
    role = models.CharField(max_length=16)
    granted_at = models.DateTimeField()
    granted_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")

    class Meta:
        constraints = (
            models.UniqueConstraint(
                name="role_held_once", fields=["person", "role"], condition=Q(revoked_at__isnull=True)
            ),
        )

    def __str__(self) -> str:
        return f"{self.person} as {self.role}"
