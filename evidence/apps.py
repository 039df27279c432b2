"""The facts: people, drills, packages, deliveries, attempts, records, ledger."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate, pre_migrate


class EvidenceConfig(AppConfig):
    """Keeps guards, roles and the genesis entry in place across every migration and flush."""

    name = "evidence"
    verbose_name = "Evidence"

    def ready(self) -> None:
        from evidence import checks, installation, signed_in  # noqa: F401  (checks register themselves)
        from evidence.connectors import redaction
        from evidence.domain import capsules, erasures, replay, replay_facts

        redaction.install()
        replay.register(
            tables=replay_facts.TABLES,
            rules=replay_facts.RULES,
            not_evidence=replay_facts.NOT_EVIDENCE,
            silent=replay_facts.SILENT,
            untold=replay_facts.UNTOLD,
        )
        erasures.register(eraser=capsules.forget_all)
        pre_migrate.connect(installation.before_migrate, sender=self)
        post_migrate.connect(installation.after_migrate, sender=self)
        user_logged_in.connect(signed_in.remember)
