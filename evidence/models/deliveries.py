"""Audit packages, delivery plans, cases and their attempts."""

from django.db import models
from django.db.models import Q

from evidence.enums import Answer, Assurance, CaseState, FailureClass, Hold, Outcome
from evidence.models.connectors import Connector
from evidence.models.people import Person


class AuditPackage(models.Model):
    """Frozen, public-safe summary of route acknowledgements. Its id comes from its content."""

    audit_id = models.CharField(max_length=40, unique=True)
    content_hash = models.CharField(
        max_length=64, help_text="SHA-256 of the routes alone, whatever filter found them."
    )
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.audit_id


class DeliveryPlan(models.Model):
    """One audit package to one or more connectors. Its id comes from its content and an ordinal."""

    delivery_id = models.CharField(max_length=40, unique=True)
    package = models.ForeignKey(AuditPackage, on_delete=models.PROTECT, related_name="delivery_plans")
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.delivery_id


class Case(models.Model):
    """One (delivery plan, connector): delivered or not. Retries, approvals and executions belong to it.

    ``sending`` means that attempt ``attempt_count + 1`` is claimed and its lease runs; whoever presents
    ``lease_token`` may say what came of it. ``parked`` means that attempt 1 waits for its connector; its
    ``Parking`` says what was asked for. ``created_by`` is who asked for attempt 1, or took it over while it waited.

    ``stream_seq``, ``stream_prev`` and ``stream_digest`` are its place in its connector's stream of events, and
    ``head_origin`` and ``head_size`` the log's head right after its plan was sealed, which the event quotes. A case
    made before events quoted one has no head, and its event no place.
    """

    case_id = models.CharField(max_length=90, unique=True)
    plan = models.ForeignKey(DeliveryPlan, on_delete=models.PROTECT, related_name="cases")
    package = models.ForeignKey(AuditPackage, on_delete=models.PROTECT, related_name="cases")
    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="cases")
    content_hash = models.CharField(max_length=64)
    state = models.CharField(max_length=16, choices=[(s, s) for s in CaseState], default=CaseState.SENDING)
    attempt_count = models.PositiveIntegerField(default=0)
    # Tries that left the building: what limits and backoff count (P8).
    counted_attempts = models.PositiveIntegerField(default=0)
    last_outcome_at = models.DateTimeField(null=True)
    lease_token = models.CharField(max_length=32, blank=True)
    lease_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    settled_at = models.DateTimeField(null=True)
    # 0 is no place: what inserts a case has to say which one.
    stream_seq = models.PositiveBigIntegerField(db_default=0)
    stream_prev = models.CharField(max_length=64, blank=True, db_default="")
    stream_digest = models.CharField(max_length=64, db_default="")
    head_origin = models.CharField(max_length=200, blank=True, db_default="")
    head_size = models.BigIntegerField(null=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = (
            models.CheckConstraint(name="case_state_known", condition=Q(state__in=list(CaseState))),
            models.UniqueConstraint(name="case_once_per_plan", fields=["plan", "connector"]),
            # P1: the same content goes to the same connector again only after it was delivered.
            models.UniqueConstraint(
                name="case_content_undelivered_once",
                fields=["content_hash", "connector"],
                condition=~Q(state=CaseState.DELIVERED),
            ),
            models.CheckConstraint(
                name="case_lease_while_sending",
                condition=Q(state=CaseState.SENDING, lease_until__isnull=False)
                | (~Q(state=CaseState.SENDING) & Q(lease_until__isnull=True)),
            ),
            models.CheckConstraint(
                name="case_parked_untried",
                condition=~Q(state=CaseState.PARKED) | Q(attempt_count=0, counted_attempts=0),
            ),
            # Also what a stream is read by, in its order.
            models.UniqueConstraint(name="case_place_once", fields=["connector", "stream_seq"]),
            models.CheckConstraint(
                name="case_has_a_place", condition=Q(stream_seq__gte=1) & ~Q(stream_digest="")
            ),
        )
        indexes = (
            # Retry plans and playbooks read unsettled cases, oldest failure first.
            models.Index(
                name="case_unsettled",
                fields=["connector", "last_outcome_at"],
                condition=Q(state__in=[CaseState.FAILED, CaseState.UNKNOWN]),
            ),
            # Lists of cases by state and by connector, newest first.
            models.Index(name="case_by_state", fields=["state", "-id"]),
            models.Index(name="case_by_connector", fields=["connector", "-id"]),
            # The worker looks for leases that ran out.
            models.Index(name="case_leases", fields=["lease_until"], condition=Q(state=CaseState.SENDING)),
            # The worker sends what is parked, each connector's oldest first.
            models.Index(name="case_parked", fields=["connector", "id"], condition=Q(state=CaseState.PARKED)),
        )

    def __str__(self) -> str:
        return self.case_id


class StreamHead(models.Model):
    """The newest place in a connector's stream of events; locked by whoever makes a case for the connector."""

    connector = models.OneToOneField(
        Connector, on_delete=models.PROTECT, primary_key=True, related_name="stream"
    )
    seq = models.PositiveBigIntegerField(default=0)
    digest = models.CharField(max_length=64, blank=True, help_text="SHA-256 of the newest event, hex.")

    def __str__(self) -> str:
        return f"{self.connector} at {self.seq}"


class Attempt(models.Model):
    """What came of one numbered try of a case, written once. Attempts above 1 need a claimed execution."""

    attempt_id = models.CharField(max_length=70, unique=True)
    case = models.ForeignKey(Case, on_delete=models.PROTECT, related_name="attempts")
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=16, choices=[(o, o) for o in Outcome])
    answer = models.CharField(max_length=12, choices=[(a, a) for a in Answer])
    assurance = models.CharField(max_length=12, choices=[(a, a) for a in Assurance], blank=True)
    may_have_arrived = models.BooleanField()
    failure_class = models.CharField(max_length=20, choices=[(f, f) for f in FailureClass], blank=True)
    status_code = models.PositiveIntegerField(null=True)
    tries = models.PositiveIntegerField()
    bytes_sent = models.PositiveIntegerField()
    body_sha256 = models.CharField(max_length=64)
    answer_sha256 = models.CharField(max_length=64, blank=True)
    retry_after_s = models.PositiveIntegerField(null=True)
    started_at = models.DateTimeField()
    completed_at = models.DateTimeField()
    record_id = models.CharField(max_length=60)
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("case", "number")
        constraints = (
            models.UniqueConstraint(name="attempt_numbered_once", fields=["case", "number"]),
            models.CheckConstraint(name="attempt_numbers_start_at_one", condition=Q(number__gte=1)),
            models.CheckConstraint(name="attempt_outcome_known", condition=Q(outcome__in=list(Outcome))),
            # A delivered attempt earned its assurance, by an answer or, of what never answers, by being written;
            # a failed one names its class, unless nothing was tried.
            models.CheckConstraint(
                name="attempt_outcome_explained",
                condition=(
                    Q(outcome=Outcome.DELIVERED, answer=Answer.ANSWERED, failure_class="") & ~Q(assurance="")
                )
                | Q(
                    outcome=Outcome.DELIVERED,
                    answer=Answer.NO_ANSWER,
                    failure_class="",
                    assurance=Assurance.WRITTEN,
                )
                | (
                    Q(outcome=Outcome.FAILED, assurance="")
                    & (~Q(failure_class="") | Q(answer=Answer.NOT_SENT))
                )
                | Q(outcome=Outcome.UNKNOWN, assurance=""),
            ),
        )
        # How connectors do lately: trends and health read the newest days.
        indexes = (models.Index(name="attempt_by_completion", fields=["completed_at"]),)

    def __str__(self) -> str:
        return self.attempt_id


class AttemptAnswer(models.Model):
    """The first kilobyte of a receiver's answer, redacted, so that an analyst sees why. May be pruned."""

    attempt = models.OneToOneField(Attempt, on_delete=models.PROTECT, related_name="receiver_answer")
    excerpt = models.TextField(blank=True)
    keep_until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"answer to {self.attempt}"


class SendDiagnostic(models.Model):
    """Where a send really went, and how long its parts took: for who looks for a fault, for a time, never evidence.

    For administrators and auditors alone, for it holds what records must not: host, address and certificate of the
    receiver, or of the proxy before it (P18). A canary's has no attempt. Durations are in milliseconds, empty for
    what did not happen.
    """

    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="+")
    attempt = models.OneToOneField(Attempt, on_delete=models.PROTECT, null=True, related_name="diagnostic")
    at = models.DateTimeField()
    host = models.CharField(max_length=255, blank=True)
    through_proxy = models.BooleanField(default=False)
    # Text, because an address that was refused may be one that a column for addresses does not take.
    address = models.CharField(max_length=64, blank=True)
    port = models.PositiveIntegerField(null=True)
    certificate_sha256 = models.CharField(max_length=64, blank=True)
    tls_version = models.CharField(max_length=16, blank=True)
    resolve_ms = models.PositiveIntegerField(null=True)
    connect_ms = models.PositiveIntegerField(null=True)
    tls_ms = models.PositiveIntegerField(null=True)
    first_byte_ms = models.PositiveIntegerField(null=True)
    total_ms = models.PositiveIntegerField()
    keep_until = models.DateTimeField(db_index=True)

    class Meta:
        indexes = (models.Index(name="diagnostic_newest", fields=["connector", "-at"]),)

    def __str__(self) -> str:
        return f"{self.attempt or self.connector} at {self.at:%Y-%m-%d %H:%M}"


class Parking(models.Model):
    """A first attempt that was asked for and had to wait: why, as far as was known until when, and how to send it."""

    case = models.OneToOneField(Case, on_delete=models.PROTECT, related_name="parking")
    code = models.CharField(max_length=24, choices=[(h, h) for h in Hold])
    until = models.DateTimeField(null=True)
    retries = models.PositiveIntegerField()
    timeout_ms = models.PositiveIntegerField()
    parked_at = models.DateTimeField()
    record_id = models.CharField(max_length=60)
    record_hash = models.CharField(max_length=64)

    class Meta:
        constraints = (models.CheckConstraint(name="parking_code_known", condition=Q(code__in=list(Hold))),)

    def __str__(self) -> str:
        return f"{self.case} parked: {self.code}"
