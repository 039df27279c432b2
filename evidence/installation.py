"""What has to be in place after every migrate and every flush: guards, roles, the log's first entry."""

import secrets
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connection
from django.utils import timezone


def before_migrate(sender: AppConfig, **kwargs: Any) -> None:
    """Take the guards away: a table rebuild on SQLite would lose them, an open one would refuse it."""
    from evidence import guards

    guards.drop()


def after_migrate(sender: AppConfig, **kwargs: Any) -> None:
    """Install the guards, give the roles their permissions, start the log when there is none.

    Connected for every app of ours, in their order: each call completes what its app's tables allow.
    """
    from evidence import guards
    from evidence.domain import ledger, people
    from evidence.models import LedgerHead

    guards.install()
    if LedgerHead._meta.db_table not in connection.introspection.table_names():
        return
    people.sync_roles(sender.label)
    origin = settings.CAVRA_LEDGER_ORIGIN or f"cavra-{secrets.token_hex(8)}"
    ledger.start(origin, at=timezone.now())
