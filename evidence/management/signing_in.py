"""Who is at the command line: a name and its password, asked for or read from standard input."""

import getpass
import sys

from django.contrib.auth import authenticate
from django.core.management import CommandError

from evidence.domain import people
from evidence.models import Person


def signed_in(name: str, *, from_stdin: bool) -> Person:
    """The active person with this sign-in name, who gave their password; ``CommandError`` otherwise.

    The password is never an argument: those are public. A service account has none.
    """
    username = people.sign_in_name(name)
    password = (
        sys.stdin.readline().rstrip("\r\n") if from_stdin else getpass.getpass(f"Password of {username}: ")
    )
    person = authenticate(username=username, password=password)
    if not isinstance(person, Person):
        raise CommandError(f"{username} is not signed in: no such person, or not their password.")
    return person
