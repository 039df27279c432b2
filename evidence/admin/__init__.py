"""The admin: configuration is edited here through the domain, evidence is read. Nothing here writes a row by itself."""

import json
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from knox.models import get_token_model

from evidence.admin import connectors  # noqa: F401  (registers itself)
from evidence.admin.base import ConfigurationAdmin, ConfigurationForm, WithParts, person_of
from evidence.documents import KINDS
from evidence.domain import configuration, log_keys, merkle, people, retention_terms
from evidence.domain.clock import system_clock
from evidence.enums import PersonKind, Role
from evidence.models import (
    Anchor,
    Attempt,
    AuditPackage,
    Canary,
    Capsule,
    Case,
    Checkpoint,
    Connector,
    DeliveryPlan,
    EpochProposal,
    Erasure,
    ErasureItem,
    Heartbeat,
    LedgerHead,
    LedgerKey,
    LegalHold,
    MaintenanceWindow,
    NotificationPlan,
    PauseSwitch,
    Person,
    Record,
    RecordKey,
    RetentionRule,
    RoleGrant,
    Route,
    Schedule,
    ScheduleOwner,
    SealEntry,
    SendDiagnostic,
    StreamHead,
    Trouble,
    Verification,
)

admin.site.site_header = admin.site.site_title = "CAVRA administration"
admin.site.index_title = "Configuration and evidence"
# Roles are given on the page of a person, tokens by the command; both leave records.
admin.site.unregister([Group, get_token_model()])


def to_own_page(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """Passwords are set on a person's page, where the domain records it; Django's own form would just save."""
    return redirect("admin:evidence_person_change", person_of(request).pk)


admin.site.password_change = to_own_page  # type: ignore[method-assign, assignment]


def pretty(data: bytes | memoryview | None) -> SafeString | str:
    """A stored JSON document for reading; its exact bytes are served by the API."""
    if data is None:
        return "erased"
    return format_html("<pre>{}</pre>", json.dumps(json.loads(bytes(data)), indent=2, ensure_ascii=False))


# --- configuration ------------------------------------------------------------------------------------------------


class OwnerInline(admin.StackedInline):
    """Owners of a schedule, with their calendars."""

    model = ScheduleOwner
    form = ConfigurationForm
    extra = 0


class WindowInline(admin.StackedInline):
    """Maintenance windows of a schedule."""

    model = MaintenanceWindow
    form = ConfigurationForm
    extra = 0


@admin.register(Schedule)
class ScheduleAdmin(WithParts):
    """Drills: a schedule with its owners and its windows."""

    list_display = ("schedule_id", "title", "environment", "active", "interval_days", "next_due_at")
    list_filter = ("active", "environment")
    search_fields = ("schedule_id", "title")
    inlines = (OwnerInline, WindowInline)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("schedule_id",) if obj else ()


class RetentionForm(ConfigurationForm):
    """How long one kind is kept."""

    kind = forms.ChoiceField(
        choices=lambda: [(name, name) for name, kind in sorted(KINDS.items()) if kind.erasable]
    )


@admin.register(RetentionRule)
class RetentionRuleAdmin(ConfigurationAdmin):
    """How long records of a kind are kept. A rule acts once an auditor who is somebody else confirmed its terms."""

    form = RetentionForm
    list_display = ("kind", "keep_days", "legal_basis", "enabled", "edited_by", "confirmed_by", "in_force")
    list_select_related = ("edited_by", "confirmed_by")
    bookkeeping = ("edited_by", "edited_at", "confirmed_by", "confirmed_at")
    fieldsets = (
        (
            None,
            {
                "fields": ("kind", "keep_days", "legal_basis", "enabled", *bookkeeping),
                "description": "Saving a rule erases nothing. It acts once an auditor who is somebody else has "
                "confirmed it in the console, under Erasures; after an edit it waits for that again.",
            },
        ),
    )

    @admin.display(boolean=True)
    def in_force(self, rule: RetentionRule) -> bool:
        """Whether it acts: enabled, and confirmed as it stands."""
        return retention_terms.in_force(rule)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("kind", *self.bookkeeping) if obj else self.bookkeeping


class PauseForm(ConfigurationForm):
    """What to pause, and why."""

    scope = forms.ChoiceField(
        choices=lambda: [
            (PauseSwitch.ALL, "every live send"),
            *((key, key) for key in Connector.objects.values_list("key", flat=True)),
        ]
    )

    class Meta:
        model = PauseSwitch
        fields = ("scope", "reason")


@admin.register(PauseSwitch)
class PauseSwitchAdmin(ConfigurationAdmin):
    """The pause switch: adding a row pauses, deleting it resumes."""

    form = PauseForm
    list_display = ("scope", "reason", "paused_by", "paused_at")
    list_select_related = ("paused_by",)
    readonly_fields = ("paused_by", "paused_at")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("scope", "reason", "paused_by", "paused_at") if obj else ("scope", "reason")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        switch = configuration.pause(obj.scope, reason=obj.reason, by=person_of(request), clock=system_clock)
        obj.pk = switch.pk

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        configuration.resume(obj.scope, by=person_of(request), clock=system_clock)


class PersonForm(ConfigurationForm):
    """A person with roles; a password is only ever written here."""

    roles = forms.MultipleChoiceField(
        choices=[(role.value, role.value) for role in Role],
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )
    new_password = forms.CharField(
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        required=False,
        strip=False,
        help_text="Leave empty to keep what is there. Without a password nobody signs in; tokens still work.",
    )

    class Meta:
        model = Person
        fields = ("username", "full_name", "email", "owner", "is_active")
        help_texts: ClassVar = {"owner": "Makes it a service account, for which this person answers."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["roles"] = sorted(people.roles_of(self.instance))
        if isinstance(owner := self.fields.get("owner"), forms.ModelChoiceField):
            humans = models.Q(kind=PersonKind.HUMAN, is_active=True)
            owner.queryset = Person.objects.filter(humans | models.Q(pk=self.instance.owner_id))

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        owned = bool(given.get("owner"))
        if not self.instance.pk:
            self.instance.kind = PersonKind.SERVICE if owned else PersonKind.HUMAN
        elif "owner" in self.fields and owned != (self.instance.kind == PersonKind.SERVICE):
            self.add_error("owner", "A service account keeps an owner, a human has none.")
        if password := given.get("new_password"):
            self._check_password(password)
        return given

    def _check_password(self, password: str) -> None:
        if self.instance.kind == PersonKind.SERVICE:
            self.add_error("new_password", "A service account has tokens, not a password.")
            return
        try:
            validate_password(password, self.instance)
        except forms.ValidationError as error:
            self.add_error("new_password", error)


@admin.register(Person)
class PersonAdmin(ConfigurationAdmin):
    """People and their roles. Nobody is made a superuser, and nobody is deleted."""

    form = PersonForm
    list_display = ("username", "full_name", "kind", "owner", "held_roles", "is_active")
    list_filter = ("is_active", "kind", "groups")
    list_select_related = ("owner",)
    search_fields = ("username", "full_name", "email", "person_id")
    editable = ("full_name", "email", "owner", "is_active", "roles", "new_password")
    noted = ("person_id", "kind", "created_at", "deactivated_at", "last_login")

    @admin.display(description="roles")
    def held_roles(self, person: Person) -> str:
        """Roles as the list shows them."""
        return ", ".join(sorted(group.name for group in person.groups.all()))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Person]:
        return super().get_queryset(request).prefetch_related("groups")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj:
            return ("username", *self.editable, *self.noted)
        return ("username", *(name for name in self.editable if name != "is_active"))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("username", *self.noted) if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        # Fields of the form itself are none of the model's: Django is only told about the latter.
        own = ("roles", "new_password")
        kwargs["fields"] = [
            name
            for name in self.get_fields(request, obj)
            if name not in (*own, *self.get_readonly_fields(request, obj))
        ]
        return super().get_form(request, obj, change=change, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        by, given = person_of(request), form.cleaned_data
        details = {"full_name": given["full_name"], "email": given["email"], "owner": given.get("owner")}
        password = given.get("new_password") or None
        if change:
            person = Person.objects.get(pk=obj.pk)
            people.update(person, by=by, clock=system_clock, **details)
            if password:
                people.set_password(person, password, by=by, clock=system_clock)
            people.set_active(person, given["is_active"], by=by, clock=system_clock)
        else:
            person = people.create(given["username"], by=by, clock=system_clock, password=password, **details)
            obj.pk = person.pk
        people.set_roles(person, given["roles"], by=by, clock=system_clock)


# --- evidence -----------------------------------------------------------------------------------------------------


class ReadOnly:
    """Nobody adds, changes or deletes, a superuser included; the database would refuse most of it anyway."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class EvidenceInline(ReadOnly, admin.TabularInline):
    """Rows that belong to the page's own; who sees the page sees them."""

    extra = 0
    can_delete = False
    show_change_link = True
    hidden: tuple[str, ...] = ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return _columns(self.model, self.hidden)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_fields(request, obj)


class EvidenceAdmin(ReadOnly, admin.ModelAdmin):
    """A page to read, search and filter. ``hidden`` columns are never shown, ``shown`` are methods beside the rest."""

    actions = None
    view_on_site = False
    show_full_result_count = False
    list_per_page = 50
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (*_columns(self.model, self.hidden), *self.shown)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.get_fields(request, obj)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            raise PermissionDenied
        return super().changelist_view(request, extra_context)


def _columns(model: type[models.Model], hidden: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of a table that can be shown: no bytes, no bare row numbers, none that is hidden."""
    return tuple(
        column.name
        for column in model._meta.concrete_fields
        if not isinstance(column, models.BinaryField | models.AutoField) and column.name not in hidden
    )


def link_to_record(record_id: str) -> SafeString | str:
    """A link to the page of a record by its id; the id alone when it names none."""
    index = Record.objects.filter(record_id=record_id).values_list("index", flat=True).first()
    if index is None:
        return record_id or "-"
    return format_html(
        '<a href="{}">{}</a>', reverse("admin:evidence_record_change", args=[index]), record_id
    )


class KindFilter(admin.SimpleListFilter):
    """Records of one kind, from the kinds table instead of a scan."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted(KINDS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Record]) -> QuerySet[Record]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Record)
class RecordAdmin(EvidenceAdmin):
    """Evidence documents. The search knows ids, the beginning of a hash, and every filterable value."""

    list_display = ("record_id", "kind", "created_at", "index")
    list_filter = (KindFilter, "created_at")
    search_fields = ("record_id",)
    search_help_text = (
        "An id, the beginning of a record hash, or a value that records are found by (a case, a reference)."
    )
    ordering = ("-index",)
    shown = ("seal", "document")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        names = {"case", "actor"}.union(*(kind.keys for kind in KINDS.values()))
        keyed = RecordKey.objects.filter(name__in=names, value=term).values("record")
        return (
            queryset.filter(
                models.Q(record_id=term)
                | models.Q(digest__startswith=term.lower())
                | models.Q(index__in=keyed)
            ),
            False,
        )

    @admin.display(description="seal entry")
    def seal(self, record: Record) -> SafeString:
        """Link to the leaf that commits to this record."""
        address = reverse("admin:evidence_sealentry_change", args=[record.index])
        return format_html('<a href="{}">entry {}</a>', address, record.index)

    @admin.display(description="document")
    def document(self, record: Record) -> SafeString | str:
        """The stored document, indented."""
        return pretty(record.body)


@admin.register(SealEntry)
class SealEntryAdmin(EvidenceAdmin):
    """Leaves of the log."""

    list_display = ("index", "leaf", "record")
    search_fields = ("=index",)
    ordering = ("-index",)
    shown = ("leaf", "record", "content")

    @admin.display(description="leaf hash")
    def leaf(self, entry: SealEntry) -> str:
        """SHA-256(0x00 || entry), hex."""
        return bytes(entry.leaf_hash).hex()

    @admin.display(description="record")
    def record(self, entry: SealEntry) -> SafeString:
        """Link to the record of the same place."""
        address = reverse("admin:evidence_record_change", args=[entry.index])
        return format_html('<a href="{}">{}</a>', address, json.loads(bytes(entry.entry))["record"])

    @admin.display(description="entry")
    def content(self, entry: SealEntry) -> SafeString | str:
        """The entry, indented."""
        return pretty(entry.entry)


@admin.register(LedgerHead)
class LedgerHeadAdmin(EvidenceAdmin):
    """Size and root of the log."""

    list_display = ("origin", "epoch", "size", "newest_at")
    shown = ("root",)

    @admin.display(description="root hash")
    def root(self, head: LedgerHead) -> str:
        """Root of the tree over all entries, hex."""
        return merkle.root(merkle.split(head.peaks)).hex()


class RouteInline(EvidenceInline):
    """Routes of a notification plan."""

    model = Route
    hidden = ("acknowledgement_hash", "notes", "external_ref", "created_at")


class WithRecord(EvidenceAdmin):
    """Evidence whose id is also the id of its record."""

    shown: tuple[str, ...] = ("own_record",)
    record_id: str

    @admin.display(description="record")
    def own_record(self, row: Any) -> SafeString | str:
        """Link to the document about this row."""
        return link_to_record(getattr(row, self.record_id))


@admin.register(NotificationPlan)
class NotificationPlanAdmin(WithRecord):
    """Who was to be told."""

    record_id = "plan_id"
    list_display = ("plan_id", "schedule", "status", "alert_level", "created_at", "created_by")
    list_filter = ("status", "alert_level", "created_at")
    list_select_related = ("schedule", "created_by")
    search_fields = ("plan_id__exact", "schedule__schedule_id")
    inlines = (RouteInline,)


@admin.register(Route)
class RouteAdmin(WithRecord):
    """Who was told through which connector, and the newest answer."""

    record_id = "acknowledgement_id"
    list_display = ("route_id", "provider", "owner", "action", "acknowledgement_state", "created_at")
    list_filter = ("acknowledgement_state", "action", "category", "created_at")
    search_fields = (
        "route_id__exact",
        "provider__exact",
        "owner",
        "external_ref__exact",
        "acknowledgement_id__exact",
    )


class PlanInline(EvidenceInline):
    """Delivery plans of a package."""

    model = DeliveryPlan


@admin.register(AuditPackage)
class AuditPackageAdmin(WithRecord):
    """Frozen summaries of route acknowledgements."""

    record_id = "audit_id"
    list_display = ("audit_id", "created_at", "created_by")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("audit_id__exact",)
    inlines = (PlanInline,)


class CaseInline(EvidenceInline):
    """Cases of a delivery plan."""

    model = Case
    hidden = ("lease_token", "lease_until", "package")


@admin.register(DeliveryPlan)
class DeliveryPlanAdmin(WithRecord):
    """One package to one or more connectors."""

    record_id = "delivery_id"
    list_display = ("delivery_id", "package", "created_at", "created_by")
    list_filter = ("created_at",)
    list_select_related = ("package", "created_by")
    search_fields = ("delivery_id__exact", "package__audit_id__exact")
    inlines = (CaseInline,)


class AttemptInline(EvidenceInline):
    """Attempts of a case."""

    model = Attempt
    hidden = ("body_sha256", "answer_sha256", "record_hash", "retry_after_s")


@admin.register(Case)
class CaseAdmin(EvidenceAdmin):
    """Deliveries: one plan to one connector."""

    list_display = ("case_id", "connector", "state", "attempt_count", "last_outcome_at", "created_at")
    list_filter = ("state", "connector", "created_at")
    list_select_related = ("connector",)
    search_fields = ("case_id__exact", "plan__delivery_id__exact", "package__audit_id__exact")
    hidden = ("lease_token",)
    inlines = (AttemptInline,)


@admin.register(Attempt)
class AttemptAdmin(WithRecord):
    """What came of each try."""

    record_id = "record_id"
    list_display = ("attempt_id", "case", "number", "outcome", "failure_class", "status_code", "completed_at")
    list_filter = ("outcome", "failure_class", "answer", "completed_at")
    list_select_related = ("case",)
    search_fields = ("attempt_id__exact", "case__case_id__exact", "record_id__exact")
    shown = ("own_record", "excerpt")

    @admin.display(description="answer, redacted")
    def excerpt(self, attempt: Attempt) -> str:
        """The beginning of the receiver's answer, as long as it is kept."""
        kept = getattr(attempt, "receiver_answer", None)
        return kept.excerpt if kept else "-"


@admin.register(SendDiagnostic)
class SendDiagnosticAdmin(EvidenceAdmin):
    """Where sends really went. Kept for thirty days; the list names no host."""

    list_display = ("at", "connector", "attempt", "total_ms", "keep_until")
    list_filter = ("connector", "at")
    list_select_related = ("connector", "attempt")
    search_fields = ("attempt__attempt_id__exact", "attempt__case__case_id__exact")
    ordering = ("-at",)


@admin.register(Canary)
class CanaryAdmin(WithRecord):
    """What came of tests of connectors."""

    record_id = "canary_id"
    list_display = ("canary_id", "connector", "outcome", "failure_class", "by", "started_at")
    list_filter = ("outcome", "failure_class", "connector", "started_at")
    list_select_related = ("connector", "by")
    search_fields = ("canary_id__exact", "connector__key__exact")


@admin.register(Trouble)
class TroubleAdmin(WithRecord):
    """Connectors that kept failing, and through whom that was told."""

    record_id = "trouble_id"
    list_display = ("trouble_id", "connector", "since", "through", "told", "ended_at")
    list_filter = ("failure_class", "connector", "since")
    list_select_related = ("connector",)
    search_fields = ("trouble_id__exact", "connector__key__exact", "through__exact")


class ErasureItemInline(EvidenceInline):
    """Records of an erasure."""

    model = ErasureItem
    show_change_link = False


@admin.register(Erasure)
class ErasureAdmin(EvidenceAdmin):
    """What was proposed to be erased, and what became of it. Proposed and decided in the console."""

    list_display = ("erasure_id", "state", "legal_basis", "proposed_by", "decided_by", "decided_at")
    list_filter = ("state", "proposed_at")
    list_select_related = ("proposed_by", "decided_by")
    search_fields = ("erasure_id__exact", "items__record_id__exact")
    inlines = (ErasureItemInline,)


@admin.register(LegalHold)
class LegalHoldAdmin(EvidenceAdmin):
    """What is kept from being erased, and why."""

    list_display = ("hold_id", "scope", "placed_by", "placed_at", "lifted_by", "lifted_at")
    list_filter = ("placed_at",)
    list_select_related = ("placed_by", "lifted_by")
    search_fields = ("hold_id__exact", "scope__exact")


@admin.register(RoleGrant)
class RoleGrantAdmin(EvidenceAdmin):
    """Who held which role, from when to when."""

    list_display = ("person", "role", "granted_at", "granted_by", "revoked_at", "revoked_by")
    list_filter = ("role", "granted_at")
    list_select_related = ("person", "granted_by", "revoked_by")
    search_fields = ("person__username", "person__person_id__exact")


@admin.register(Heartbeat)
class HeartbeatAdmin(EvidenceAdmin):
    """When workers were last seen."""

    list_display = ("worker", "at", "note")


@admin.register(Verification)
class VerificationAdmin(EvidenceAdmin):
    """What passes over the log found."""

    list_display = ("requested_at", "state", "requested_by", "size", "differences", "finished_at")
    list_filter = ("state", "requested_at")
    list_select_related = ("requested_by",)


@admin.register(EpochProposal)
class EpochProposalAdmin(WithRecord):
    """Proposals to start a new log after a restore."""

    record_id = "proposal_id"
    list_display = ("proposal_id", "epoch", "origin", "state", "proposed_by", "decided_by", "decided_at")
    list_filter = ("state",)
    list_select_related = ("proposed_by", "decided_by")
    search_fields = ("proposal_id__exact",)


@admin.register(LedgerKey)
class LedgerKeyAdmin(EvidenceAdmin):
    """Keys that sign heads of the log; manage.py ledger_key makes and ends them."""

    list_display = ("name", "key_id", "state", "introduced_at", "ended_at", "reason")
    list_filter = ("state",)
    shown = ("vkey",)

    @admin.display(description="verifier key")
    def vkey(self, row: LedgerKey) -> str:
        """The text by which others configure it."""
        return log_keys.vkey_of(row)


@admin.register(Checkpoint)
class CheckpointAdmin(EvidenceAdmin):
    """Signed heads of the log."""

    list_display = ("size", "origin", "epoch", "created_at")
    search_fields = ("=size",)


@admin.register(Anchor)
class AnchorAdmin(WithRecord):
    """Signed heads that are held outside, by whom."""

    record_id = "anchor_id"
    list_display = ("anchor_id", "size", "means", "place", "administered_by", "attested_at", "created_at")
    list_filter = ("means", "administered_by")
    search_fields = ("anchor_id__exact", "=size")


@admin.register(Capsule)
class CapsuleAdmin(WithRecord):
    """Cases as they were taken away; the zip itself is downloaded in the console."""

    record_id = "capsule_id"
    list_display = ("capsule_id", "case_id", "records", "log_size", "created_by", "created_at", "erased")
    list_filter = ("created_at",)
    list_select_related = ("created_by",)
    search_fields = ("capsule_id__exact", "case_id__exact")
    shown = ("erased", "own_record")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Capsule]:
        """Without the bytes: a list would load every zip."""
        rows = super().get_queryset(request).defer("content")
        return rows.annotate(without_bytes=models.Q(content__isnull=True))

    @admin.display(boolean=True)
    def erased(self, capsule: Any) -> bool:
        """Whether its bytes went because a body in it was erased."""
        return bool(capsule.without_bytes)


@admin.register(StreamHead)
class StreamHeadAdmin(EvidenceAdmin):
    """The newest place in each connector's stream of events."""

    list_display = ("connector", "seq", "digest")
    list_select_related = ("connector",)
    search_fields = ("connector__key__exact",)
