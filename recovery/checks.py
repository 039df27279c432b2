"""System checks of what an administrator configured (``manage.py check --database default``)."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import OperationalError, connection


@register(Tags.database)
def approvers_suffice(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Every enabled connector can get the approvals that it asks for, from people who hold the role now (P4)."""
    from evidence.models import Connector
    from recovery.domain import quorum

    if not databases or "default" not in databases:
        return []
    try:
        if "recovery_vote" not in connection.introspection.table_names():
            return []
        people = len({one.person for one in quorum.approvers()})
        short = list(Connector.objects.filter(enabled=True, required_approvals__gt=people))
    except OperationalError:
        return []
    return [
        Warning(
            f"A retry to {connector.key} needs {connector.required_approvals} approvals; "
            f"{people} {'person holds' if people == 1 else 'people hold'} the approver role.",
            hint="Grant the role to more people, in the admin or with manage.py operator.",
            id="recovery.W001",
        )
        for connector in short
    ]
