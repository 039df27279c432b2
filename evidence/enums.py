"""Closed lists of words of the evidence app (DESIGN §2). Values are what the wire and the database hold."""

from enum import StrEnum


class Role(StrEnum):
    """What a person may do; a role is a Django group of the same name (P22)."""

    ANALYST = "analyst"
    APPROVER = "approver"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"


class PersonKind(StrEnum):
    """A human signs in; a service account counts as the person who owns it."""

    HUMAN = "human"
    SERVICE = "service"


class Answer(StrEnum):
    """How far one try got: nothing left, something left without an answer, the receiver answered."""

    NOT_SENT = "not_sent"
    NO_ANSWER = "no_answer"
    ANSWERED = "answered"


class Assurance(StrEnum):
    """What a positive answer of a product stands for, weakest first."""

    WRITTEN = "written"
    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"


class FailureClass(StrEnum):
    """Why a try failed; properties of each are a table in ``evidence.connectors.failures``."""

    DNS = "dns"
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    TLS = "tls"
    BLOCKED_ADDRESS = "blocked_address"
    AUTH_SETUP = "auth_setup"
    AUTH = "auth"
    GONE = "gone"
    THROTTLED = "throttled"
    REJECTED = "rejected"
    UNAVAILABLE = "unavailable"
    RESPONSE_TIMEOUT = "response_timeout"
    CONNECTION_LOST = "connection_lost"
    BAD_RESPONSE = "bad_response"
    MISCONFIGURED = "misconfigured"
    DISABLED = "disabled"
    BREAKER_OPEN = "breaker_open"


class Product(StrEnum):
    """What stands behind a connector; decides body, headers and how success is recognised."""

    WEBHOOK = "webhook"
    SPLUNK = "splunk"
    SENTINEL = "sentinel"
    DATADOG = "datadog"
    JIRA = "jira"
    SERVICENOW = "servicenow"
    SLACK = "slack"
    TEAMS = "teams"
    PAGERDUTY = "pagerduty"
    SYSLOG = "syslog"
    EMAIL = "email"


class Transport(StrEnum):
    """By which protocol a product is reached."""

    HTTP = "http"
    SYSLOG = "syslog"
    SMTP = "smtp"


class ScheduleStatus(StrEnum):
    """Report of a schedule at a moment (CONTRACT §1.5)."""

    READY = "ready"
    DUE_SOON = "due_soon"
    NEEDS_ATTENTION = "needs_attention"


class AlertLevel(StrEnum):
    """How loudly a document asks for somebody."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"


class RouteAction(StrEnum):
    """Whether a route's owner is told, or a window or calendar holds it back."""

    DELIVER = "deliver"
    SUPPRESS = "suppress"


class RouteState(StrEnum):
    """Latest answer of an owner; outstanding until there is one."""

    OUTSTANDING = "outstanding"
    ACKNOWLEDGED = "acknowledged"
    DISMISSED = "dismissed"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


class CaseState(StrEnum):
    """State of one (delivery plan, connector). ``sending``: attempt 1 is under way, its lease runs.

    ``parked``: nothing was tried yet, because something holds its connector back; the worker sends it later.
    """

    PARKED = "parked"
    SENDING = "sending"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"
    DELIVERED = "delivered"
    SUPERSEDED = "superseded_by"
    ABANDONED = "abandoned"


class BreakerState(StrEnum):
    """What a connector's breaker lets through: everything, nothing, or one canary."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Hold(StrEnum):
    """What makes sends to a connector wait, which is neither a refusal nor a failure."""

    BREAKER_OPEN = "breaker_open"
    # The receiver said with Retry-After how long it wants to be left alone.
    THROTTLED = "throttled"
    MAINTENANCE_WINDOW = "maintenance_window"


class CanaryMeans(StrEnum):
    """What a test of a connector does: it sends a fixed message, asks a question, or opens a connection."""

    MESSAGE = "message"
    QUESTION = "question"
    CONNECTION = "connection"


class Outcome(StrEnum):
    """What came of one attempt (CONTRACT: execution status without ``skipped``)."""

    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"


class DeliverySource(StrEnum):
    """Why a connector was called (``connector_delivery_source`` of CONTRACT §8.5)."""

    NOTIFICATION = "go_backend_rollback_drill_notification"
    AUDIT = "go_backend_rollback_drill_acknowledgement_audit"


class SafetyVerdict(StrEnum):
    """What a second person says about text that was let through past public safety (P18)."""

    FALSE_HIT = "false_hit"
    LEAK = "leak"


class EpochState(StrEnum):
    """Life of a proposal to start a new log: one person proposes it, another one confirms."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"


class TaskState(StrEnum):
    """Life of something that the worker does for somebody."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class KeyState(StrEnum):
    """Life of a key that signs heads of the log. ``retired``: it went in order; ``revoked``: never trust it."""

    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


class AnchorMeans(StrEnum):
    """How a head of the log is held outside the database."""

    FILE = "file"
    GIT = "git"
    RFC3161 = "rfc3161"
    TLOG_WITNESS = "tlog-witness"


class Administration(StrEnum):
    """Who could change what is held outside: what an anchor is worth."""

    US = "us"
    ORGANISATION = "organisation"
    THIRD_PARTY = "third-party"


class ErasureState(StrEnum):
    """Where an erasure stands: somebody proposed it; then another person decided, or its proposer took it back."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class Access(StrEnum):
    """How evidence was read: shown on a page or in an answer, taken away as a file of many, or as stored bytes."""

    VIEW = "view"
    EXPORT = "export"
    DOWNLOAD = "download"


class Via(StrEnum):
    """By what a reader was known."""

    SESSION = "session"
    TOKEN = "token"
