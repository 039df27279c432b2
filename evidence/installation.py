"""What has to be in place after every migrate and every flush: guards, roles, the log's first entry."""

import secrets
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection
from django.utils import timezone


def before_migrate(sender: AppConfig, **kwargs: Any) -> None:
    """Take the guards away: a table rebuild on SQLite would lose them, an open one would refuse it.

    Only when something is going to be migrated: a start with nothing to do never leaves them down. After
    a migration that fails they are down until one succeeds; check, ``/readyz`` and ``verify_ledger`` say so.
    """
    from evidence import guards

    if kwargs["using"] == DEFAULT_DB_ALIAS and kwargs["plan"]:
        guards.drop()


def after_migrate(sender: AppConfig, **kwargs: Any) -> None:
    """Install the guards, give the roles their permissions, start the log when there is none.

    Connected for every app of ours, in their order: each call completes what its app's tables allow.
    """
    from evidence import guards
    from evidence.domain import ledger, people
    from evidence.models import LedgerHead

    if kwargs["using"] != DEFAULT_DB_ALIAS:
        return
    guards.install()
    if LedgerHead._meta.db_table not in connection.introspection.table_names():
        return
    people.sync_roles(sender.label)
    origin = settings.CAVRA_LEDGER_ORIGIN or f"cavra-{secrets.token_hex(8)}"
    ledger.start(origin, at=timezone.now())
