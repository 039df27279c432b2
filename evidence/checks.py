"""System checks: of settings that belong together, and of the database (``manage.py check --database default``)."""

import os
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import OperationalError, connection

from evidence.enums import EpochState


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
    """The configured name of the log is the one it was started with; only a new epoch changes it afterwards."""
    from evidence.models import EpochProposal, LedgerHead

    if not databases or "default" not in databases or not settings.CAVRA_LEDGER_ORIGIN:
        return []
    try:
        if LedgerHead._meta.db_table not in connection.introspection.table_names():
            return []
        origin = LedgerHead.objects.values_list("origin", flat=True).first()
        ended = EpochProposal.objects.filter(
            state=EpochState.CONFIRMED, old_origin=settings.CAVRA_LEDGER_ORIGIN
        )
        if ended.exists():
            return []
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


@register()
def heads_are_signed(**kwargs: Any) -> list[CheckMessage]:
    """A deployment signs heads of its log: without them a rewrite of everything shows nowhere."""
    if settings.DEBUG or settings.CAVRA_LEDGER_KEYS:
        return []
    return [
        Warning(
            "CAVRA_LEDGER_KEYS names no key, so no head of the ledger is signed.",
            hint="Run manage.py ledger_key make FILE, set CAVRA_LEDGER_KEYS=file:FILE, run manage.py ledger_key add.",
            id="evidence.W005",
        )
    ]


@register(Tags.database)
def configured_keys_sign(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Every key that is configured can be read, was introduced and was not ended."""
    from evidence.domain import log_keys
    from evidence.models import LedgerKey

    if not databases or "default" not in databases or not settings.CAVRA_LEDGER_KEYS:
        return []
    try:
        if LedgerKey._meta.db_table not in connection.introspection.table_names():
            return []
        problems = log_keys.problems()
    except OperationalError:
        return []
    return [
        Warning(
            problem,
            hint="Look at manage.py ledger_key show; a new key is introduced by manage.py ledger_key add.",
            id="evidence.W006",
        )
        for problem in problems
    ]


@register()
def secrets_have_a_place(**kwargs: Any) -> list[CheckMessage]:
    """The directory of connectors' secrets can be read; a file that is missing breaks its connector alone (W27)."""
    folder = settings.CAVRA_SECRETS_DIR
    if not folder or (os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)):
        return []
    return [
        Warning(
            "CAVRA_SECRETS_DIR is no directory that can be read, so connectors that name a file there send nothing.",
            hint="Mount the secrets there, or set it to where they are.",
            id="evidence.W007",
        )
    ]


@register()
def notices_have_an_address(**kwargs: Any) -> list[CheckMessage]:
    """Whoever configured a way to tell people also said where the messages lead."""
    configured = settings.CAVRA_SENDS_MAIL or settings.CAVRA_NOTICE_CONNECTOR
    if not configured or settings.CAVRA_BASE_URL:
        return []
    return [
        Warning(
            "CAVRA_BASE_URL is not set, so nobody is told that an approval or an unknown outcome waits.",
            hint="Set it to the address of this console, e.g. https://console.example.com.",
            id="evidence.W003",
        )
    ]


@register(Tags.database)
def notice_connector_exists(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """The connector that notices go through is configured."""
    from evidence.models import Connector

    key = settings.CAVRA_NOTICE_CONNECTOR
    if not databases or "default" not in databases or not key:
        return []
    try:
        if Connector._meta.db_table not in connection.introspection.table_names():
            return []
        if Connector.objects.filter(key=key).exists():
            return []
    except OperationalError:
        return []
    return [
        Warning(
            f"CAVRA_NOTICE_CONNECTOR is {key!r}, and no connector has that key.",
            hint="Configure that connector, or leave the variable empty.",
            id="evidence.W004",
        )
    ]
