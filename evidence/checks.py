"""System checks that look into the database (``manage.py check --database default``)."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import OperationalError, connection


@register(Tags.database)
def guards_stand(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Every guard of ``evidence.guards`` is in the database as listed (P11)."""
    from evidence import guards

    if not databases or "default" not in databases:
        return []
    try:
        if "evidence_record" not in connection.introspection.table_names():
            return []
        problems = guards.differences()
    except OperationalError:
        return []
    # A warning, not an error: `migrate`, which repairs it, runs the checks first.
    return [
        Warning(problem, hint="Run manage.py migrate; it puts the guards back.", id="evidence.W001")
        for problem in problems
    ]
