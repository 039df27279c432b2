"""Drills: schedules with owners and windows, notification plans and their routes."""

from django.db import models
from django.db.models import Q

from evidence.enums import AlertLevel, RouteAction, RouteState, ScheduleStatus
from evidence.models.people import Person


class Schedule(models.Model):
    """A rollback drill that recurs."""

    schedule_id = models.SlugField(max_length=80, unique=True)
    title = models.CharField(max_length=120, blank=True)
    active = models.BooleanField(default=True)
    environment = models.CharField(max_length=80, blank=True)
    interval_days = models.PositiveIntegerField()
    next_due_at = models.DateTimeField()
    due_soon_days = models.PositiveIntegerField(default=14)
    runbook_ref = models.CharField(max_length=200, blank=True)
    notification_providers = models.JSONField(
        default=list, help_text="Connector keys that are told about this drill."
    )
    acknowledgement_minutes = models.PositiveIntegerField(default=60)

    class Meta:
        ordering = ("schedule_id",)
        constraints = (
            models.CheckConstraint(name="schedule_interval_positive", condition=Q(interval_days__gt=0)),
        )

    def __str__(self) -> str:
        return self.schedule_id


class ScheduleOwner(models.Model):
    """Someone who has to answer when the drill is announced; names are the organisation's, not sign-ins."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="owners")
    position = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=120)
    providers = models.JSONField(
        default=list, blank=True, help_text="Empty: all of the schedule's connectors."
    )
    escalation_owner = models.CharField(max_length=120, blank=True)
    acknowledgement_minutes = models.PositiveIntegerField(null=True, blank=True)
    available = models.BooleanField(default=True)
    unavailable_reason = models.CharField(max_length=200, blank=True)
    unavailable_windows = models.JSONField(
        default=list, blank=True, help_text='List of {"start_at", "end_at", "reason"}.'
    )

    class Meta:
        ordering = ("position", "name")
        constraints = (models.UniqueConstraint(name="owner_once_per_schedule", fields=["schedule", "name"]),)

    def __str__(self) -> str:
        return self.name


class MaintenanceWindow(models.Model):
    """A time in which announcements of a schedule are held back."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="maintenance_windows")
    window_id = models.CharField(max_length=80)
    start_at = models.DateTimeField()
    end_at = models.DateTimeField()
    reason = models.CharField(max_length=200, blank=True)
    providers = models.JSONField(default=list, blank=True, help_text="Empty: every connector.")
    owners = models.JSONField(default=list, blank=True, help_text="Empty: every owner.")

    class Meta:
        ordering = ("start_at", "window_id")
        constraints = (
            models.UniqueConstraint(name="window_once_per_schedule", fields=["schedule", "window_id"]),
            models.CheckConstraint(
                name="window_ends_after_start", condition=Q(end_at__gt=models.F("start_at"))
            ),
        )

    def __str__(self) -> str:
        return self.window_id


class NotificationPlan(models.Model):
    """Who was to be told at one moment; what it says is in its record."""

    plan_id = models.CharField(max_length=40, unique=True)
    schedule = models.ForeignKey(Schedule, on_delete=models.PROTECT, related_name="plans")
    status = models.CharField(max_length=16, choices=[(s, s) for s in ScheduleStatus])
    alert_level = models.CharField(max_length=8, choices=[(level, level) for level in AlertLevel])
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    record_hash = models.CharField(max_length=64)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.plan_id


class Route(models.Model):
    """One (plan, connector, owner) and the owner's latest answer."""

    plan = models.ForeignKey(NotificationPlan, on_delete=models.PROTECT, related_name="routes")
    route_id = models.CharField(max_length=40, unique=True)
    provider = models.CharField(max_length=40)
    owner = models.CharField(max_length=120)
    escalation_owner = models.CharField(max_length=120, blank=True)
    acknowledgement_minutes = models.PositiveIntegerField()
    action = models.CharField(max_length=8, choices=[(a, a) for a in RouteAction])
    reason = models.CharField(max_length=300)
    category = models.CharField(max_length=24, default="healthy_schedule")
    created_at = models.DateTimeField()
    # The newest answer. Its record has everything; these are what lists and packages read.
    acknowledgement_state = models.CharField(
        max_length=16, choices=[(s, s) for s in RouteState], default=RouteState.OUTSTANDING
    )
    acknowledgement_id = models.CharField(max_length=40, blank=True)
    acknowledgement_hash = models.CharField(max_length=64, blank=True)
    acknowledged_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    acknowledged_at = models.DateTimeField(null=True)
    external_ref = models.CharField(max_length=200, blank=True)
    notes = models.TextField(blank=True)

    class Meta:
        ordering = ("-created_at", "-pk")
        constraints = (
            models.UniqueConstraint(name="route_once_per_plan", fields=["plan", "provider", "owner"]),
            models.CheckConstraint(
                name="route_state_known", condition=Q(acknowledgement_state__in=list(RouteState))
            ),
            models.CheckConstraint(
                name="route_answer_in_pair",
                condition=Q(
                    acknowledgement_state=RouteState.OUTSTANDING,
                    acknowledged_by__isnull=True,
                    acknowledged_at__isnull=True,
                    acknowledgement_id="",
                )
                | (
                    ~Q(acknowledgement_state=RouteState.OUTSTANDING)
                    & Q(acknowledged_by__isnull=False, acknowledged_at__isnull=False)
                    & ~Q(acknowledgement_id="")
                ),
            ),
        )
        indexes = (
            models.Index(name="route_newest", fields=["-created_at", "-id"]),
            models.Index(name="route_provider", fields=["provider", "-created_at"]),
            models.Index(name="route_owner", fields=["owner", "-created_at"]),
            # Read by the dashboard's count of outstanding acknowledgements.
            models.Index(
                name="route_outstanding",
                fields=["-created_at"],
                condition=Q(acknowledgement_state__in=[RouteState.OUTSTANDING, RouteState.ESCALATED]),
            ),
        )

    def __str__(self) -> str:
        return self.route_id
