"""Connectors and the pause switch: what an administrator configures about sending."""

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from evidence.enums import Product
from evidence.models.people import Person

REFERENCE = RegexValidator(
    r"\A(env:[A-Za-z_][A-Za-z0-9_]*|file:[A-Za-z0-9_][A-Za-z0-9._-]*)?\Z",
    "A reference reads env:NAME or file:NAME; values are never stored.",
)


class Connector(models.Model):
    """A configured destination. Secrets are references only; evidence knows it by its key."""

    key = models.CharField(
        max_length=40,
        unique=True,
        validators=[RegexValidator(r"\A[a-z0-9_]{1,40}\Z", "Lower-case letters, digits and _ only.")],
    )
    product = models.CharField(max_length=16, choices=[(p, p) for p in Product])
    title = models.CharField(max_length=120, blank=True)
    enabled = models.BooleanField(default=True)
    url = models.CharField(max_length=500, blank=True)
    url_ref = models.CharField(max_length=120, blank=True, validators=[REFERENCE])
    headers = models.JSONField(default=dict, blank=True, help_text="Fixed, public headers: name to value.")
    authorization_ref = models.CharField(max_length=120, blank=True, validators=[REFERENCE])
    token_ref = models.CharField(max_length=120, blank=True, validators=[REFERENCE])
    authorization_scheme = models.CharField(max_length=40, default="Bearer")
    api_key_ref = models.CharField(max_length=120, blank=True, validators=[REFERENCE])
    api_key_header = models.CharField(max_length=80, default="x-api-key")
    signing_ref = models.CharField(
        max_length=120, blank=True, validators=[REFERENCE], help_text="Secret that signs what is sent."
    )
    previous_signing_ref = models.CharField(
        max_length=120,
        blank=True,
        validators=[REFERENCE],
        help_text="While the secret changes: signs as well, so that receivers may know either.",
    )
    options = models.JSONField(default=dict, blank=True, help_text="Settings of the product: name to text.")
    ca_pem = models.TextField(
        blank=True, help_text="Certificates (PEM) of the authorities to trust instead of the public ones."
    )
    proxy_url = models.CharField(max_length=500, blank=True, help_text="HTTP proxy to go through.")
    proxy_authorization_ref = models.CharField(max_length=120, blank=True, validators=[REFERENCE])
    announce_through = models.CharField(
        max_length=40, blank=True, help_text="Key of the connector that says when this one keeps failing."
    )
    index = models.CharField(max_length=80, blank=True)
    service = models.CharField(max_length=80, blank=True)
    allow_networks = models.JSONField(
        default=list, blank=True, help_text="Private networks this connector may reach, as CIDR strings."
    )
    timeout_ms = models.PositiveIntegerField(
        default=10_000, validators=[MinValueValidator(100), MaxValueValidator(30_000)]
    )
    min_timeout_ms = models.PositiveIntegerField(
        default=5_000,
        validators=[MinValueValidator(100), MaxValueValidator(30_000)],
        help_text="A live retry never waits less than this.",
    )
    max_concurrency = models.PositiveIntegerField(
        default=4, validators=[MinValueValidator(1), MaxValueValidator(64)]
    )
    required_approvals = models.PositiveIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(5)]
    )
    edited_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="+")
    edited_at = models.DateTimeField()

    class Meta:
        ordering = ("key",)
        constraints = (
            models.CheckConstraint(name="connector_product_known", condition=Q(product__in=list(Product))),
            models.CheckConstraint(name="connector_needs_approval", condition=Q(required_approvals__gte=1)),
        )

    def __str__(self) -> str:
        return self.key


class ConnectorEdit(models.Model):
    """Who changed what a connector sends or where: they may not approve what depends on it (P4)."""

    connector = models.ForeignKey(Connector, on_delete=models.PROTECT, related_name="edits")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField()

    class Meta:
        indexes = (models.Index(name="connector_edit_newest", fields=["connector", "-at"]),)

    def __str__(self) -> str:
        return f"{self.connector} by {self.person}"


class PauseSwitch(models.Model):
    """Stops live sends: all of them or one connector's. A row means paused."""

    ALL = "*"

    scope = models.CharField(
        max_length=40, unique=True, help_text="A connector key, or * for every live send."
    )
    reason = models.CharField(max_length=300)
    paused_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    paused_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "pause switches"

    def __str__(self) -> str:
        return f"paused: {self.scope}"


class Heartbeat(models.Model):
    """When a worker was last seen; read by /readyz."""

    worker = models.CharField(max_length=80, primary_key=True)
    at = models.DateTimeField()
    note = models.CharField(max_length=200, blank=True)

    def __str__(self) -> str:
        return self.worker
