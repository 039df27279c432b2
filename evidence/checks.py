"""System checks that look into the database (``manage.py check --database default``)."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
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


@register(Tags.database)
def origin_fits(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The configured name of the log is the one it was started with; it can never change afterwards."""
    from evidence.models import LedgerHead

    if not databases or "default" not in databases or not settings.CAVRA_LEDGER_ORIGIN:
        return []
    try:
        if LedgerHead._meta.db_table not in connection.introspection.table_names():
            return []
        origin = LedgerHead.objects.values_list("origin", flat=True).first()
    except OperationalError:
        return []
    if origin in (None, settings.CAVRA_LEDGER_ORIGIN):
        return []
    return [
        Warning(
            f"CAVRA_LEDGER_ORIGIN is {settings.CAVRA_LEDGER_ORIGIN!r}, but this database holds the log {origin!r}.",
            hint="Set it to the log's own name, or check that this is the right database.",
            id="evidence.W002",
        )
    ]
