"""The decisions: retry plans, approvals, executions, recoveries, closures."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RecoveryConfig(AppConfig):
    """Adds this app's kinds, guards and role permissions to those of evidence."""

    name = "recovery"
    verbose_name = "Recovery"

    def ready(self) -> None:
        from evidence import erasable, guards, installation, permissions
        from evidence.console import chrome
        from evidence.domain import access, epochs, erasures
        from recovery import checks, documents  # noqa: F401  (register themselves and the kinds)
        from recovery.console.rail import PAGES as RAIL
        from recovery.console.rail import about_connector
        from recovery.domain import keeping, replay
        from recovery.erasable import PLACES
        from recovery.execution import restored
        from recovery.guards import GUARDS
        from recovery.permissions import ROLE_PERMISSIONS
        from recovery.reads import READS

        access.register(READS)
        erasable.register(PLACES)
        erasures.register(keeper=keeping.reasons_against_erasing)
        guards.register(GUARDS)
        chrome.register(RAIL)
        chrome.register_about_connectors(about_connector)
        permissions.register(self.label, ROLE_PERMISSIONS)
        epochs.register(restored.end_old_epoch)
        replay.register()
        post_migrate.connect(installation.after_migrate, sender=self)
