"""Creates and changes people from the command line: the first administrator, service accounts, tokens."""

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from evidence.domain import people
from evidence.domain.clock import system_clock
from evidence.enums import Role
from evidence.management.refusals import as_command_error
from evidence.models import Person

PASSWORD_VARIABLE = "CAVRA_OPERATOR_PASSWORD"


class Command(BaseCommand):
    """``operator NAME --role …``: everything in one transaction, each change with its record."""

    help = "Create a person or a service account, or change one: roles, password, token, active or not."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help="Sign-in name; case does not matter.")
        parser.add_argument(
            "--role",
            dest="roles",
            action="append",
            choices=[role.value for role in Role],
            help="Repeat it for several. The roles become exactly the given ones.",
        )
        parser.add_argument(
            "--token", action="store_true", help="Print a new bearer token, alone on the last line."
        )
        parser.add_argument(
            "--password-stdin", action="store_true", help="Read the password from standard input."
        )
        parser.add_argument(
            "--owner", metavar="NAME", help="Make it a service account that this person answers for."
        )
        parser.add_argument("--full-name", help="How people read the name.")
        parser.add_argument("--email", help="Address; also counts as a name of this person.")
        active = parser.add_mutually_exclusive_group()
        active.add_argument("--deactivate", action="store_true", help="End sign-in and tokens; acts stay.")
        active.add_argument("--activate", action="store_true", help="Take a deactivation back.")
        parser.epilog = f"The environment variable {PASSWORD_VARIABLE} sets the password as well."

    def handle(self, *args: Any, **options: Any) -> None:
        password = self._password(from_stdin=options["password_stdin"])
        with as_command_error(), transaction.atomic():
            person, word = self._saved(options, password)
            token = people.issue_token(person, by=None, clock=system_clock) if options["token"] else ""
            roles = ", ".join(sorted(people.roles_of(person))) or "no role"
        state = "" if person.is_active else ", deactivated"
        self.stdout.write(f"{word} {person.kind} {person.username} ({person.person_id}): {roles}{state}")
        if token:
            self.stdout.write(token)

    def _saved(self, options: dict[str, Any], password: str | None) -> tuple[Person, str]:
        """The person with everything the options ask for, and ``created``, ``changed`` or ``unchanged``."""
        name = people.sign_in_name(options["name"])
        owner = self._owner(options["owner"])
        details = {key: options[key] for key in ("full_name", "email") if options[key] is not None}
        person = Person.objects.filter(username=name).first()
        changed = []
        created = person is None
        if person is None:
            if options["deactivate"]:
                raise CommandError(f"There is nobody named {name}.")
            if not options["roles"]:
                raise CommandError(
                    f"There is nobody named {name} yet; a new person needs at least one --role."
                )
            person = people.create(
                name, by=None, clock=system_clock, password=password, owner=owner, **details
            )
        else:
            if options["activate"] or options["deactivate"]:
                changed.append(people.set_active(person, options["activate"], by=None, clock=system_clock))
            changed.append(people.update(person, owner=owner, by=None, clock=system_clock, **details))
            if password is not None:
                changed.append(people.set_password(person, password, by=None, clock=system_clock))
        if options["roles"]:
            roles = {Role(role) for role in options["roles"]}
            changed.append(people.set_roles(person, roles, by=None, clock=system_clock))
        person.refresh_from_db()
        return person, "created" if created else "changed" if any(changed) else "unchanged"

    def _owner(self, name: str | None) -> Person | None:
        if name is None:
            return None
        owner = Person.objects.filter(username=people.sign_in_name(name)).first()
        if owner is None:
            raise CommandError(f"There is nobody named {name} who could be the owner.")
        return owner

    def _password(self, *, from_stdin: bool) -> str | None:
        """The password that was handed over, None when none was. It is never an argument: those are public."""
        password = sys.stdin.readline().rstrip("\r\n") if from_stdin else os.environ.get(PASSWORD_VARIABLE)
        if password == "":
            raise CommandError("The password is empty.")
        return password
