"""Which of this app's addresses serve evidence, for the access log (P14)."""

from evidence.domain.access import Read
from evidence.enums import Access

READS: dict[str, Read] = {
    "retry-statement": Read(Access.EXPORT, "statement"),
    "recovery:statements": Read(Access.VIEW, "statement"),
    "recovery:case": Read(Access.VIEW, "case", "case_id"),
    "recovery:set": Read(Access.VIEW, "set", "set_id"),
    "recovery:recovery": Read(Access.VIEW, "recovery", "provider"),
    "go_rollback_drill_notification_acknowledgement_audit_delivery_workers": Read(Access.VIEW, "history"),
    "admin:recovery_approvalentry_change": Read(Access.VIEW, "approval row", "object_id"),
}
