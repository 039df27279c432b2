"""Query filters, each described once: API, console and exports share them (CONTRACT §9, rows "history" and "provider").

A filter set checks what was asked for (``is_valid``, ``errors`` by field) and says it as a ``history.Query``
or a queryset. Empty values are no filters.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet

from evidence.documents import CONTRACT_KIND, KINDS
from evidence.domain import connector_health, overrides, text
from evidence.domain.history import DEFAULT_LIMIT, MAX_LIMIT, MAX_OFFSET, Query
from evidence.enums import Access, AlertLevel, CaseState, ErasureState, Product, RouteAction
from evidence.errors import InvalidInput
from evidence.models import AccessLogEntry, Case, Connector, Erasure, LegalHold, Record, RecordKey, Route

Rule = Callable[[str], str]

_SOURCE = re.compile(r"[a-z0-9_]{1,120}")


def _reference(value: str) -> str:
    return text.clean(value, field="value", limit=text.MAX_REFERENCE)


def _provider(value: str) -> str:
    return text.connector_key(text.clean(value, field="value", limit=text.MAX_REFERENCE), field="value")


def _state(value: str) -> str:
    """A word of a closed list in its one form. Words that nothing has find nothing: reference clients ask for
    some of their own.
    """
    state = text.word(text.clean(value, field="value", limit=40))
    if not text.CONNECTOR_KEY.fullmatch(state):
        raise InvalidInput("", errors={"value": ["A word here has 1 to 40 of a-z, 0-9 and _."]})
    return state


def _kind(value: str) -> str:
    """A kind of ours, or one of the contract's later phases, of which there are no records here."""
    kind = _reference(value)
    if kind not in KINDS and not kind.startswith(CONTRACT_KIND):
        raise InvalidInput("", errors={"value": ["There is no such kind of record."]})
    return kind


def _source(value: str) -> str:
    """A delivery source; one that nothing has finds nothing, like a state. Its words are longer."""
    source = text.word(_reference(value))
    if not _SOURCE.fullmatch(source):
        raise InvalidInput("", errors={"value": ["A source has 1 to 120 of a-z, 0-9 and _."]})
    return source


def _case(value: str) -> str:
    """A case id; the connector key behind its dot in its one form."""
    delivery_id, dot, key = _reference(value).rpartition(".")
    return f"{delivery_id}{dot}{text.word(key)}" if dot else key


def _rule(value: str) -> str:
    """A rule of public safety; one that there is not any more may stand in an old record."""
    rule = _reference(value).lower()
    if not re.fullmatch(r"[a-z0-9-]{1,60}", rule):
        raise InvalidInput("", errors={"value": ["A rule has 1 to 60 of a-z, 0-9 and -."]})
    return rule


def _actor(value: str) -> str:
    """A sign-in name or person id; both are lower case."""
    return _reference(value).lower()


def _one_of(*words: str) -> Rule:
    def rule(value: str) -> str:
        if (word := text.word(value)) in words:
            return word
        raise InvalidInput("", errors={"value": [f"Must be one of {', '.join(words)}."]})

    return rule


_boolean = _one_of("true", "false")


class RuleField(forms.CharField):
    """Text that one rule brings into the form in which it is compared; the rule's sentence is the error."""

    def __init__(self, *, rule: Rule, **kwargs: Any) -> None:
        self.rule = rule
        super().__init__(**kwargs)

    def clean(self, value: Any) -> str:
        cleaned = super().clean(value)
        try:
            return self.rule(cleaned) if cleaned else ""
        except InvalidInput as error:
            raise ValidationError([*chain.from_iterable(error.errors.values())]) from error


class MomentField(forms.CharField):
    """A time in ISO 8601, in UTC; without an offset it is taken as UTC."""

    def clean(self, value: Any) -> datetime | None:
        cleaned = super().clean(value)
        if not cleaned:
            return None
        try:
            # A plus sign that nobody encoded arrives as a space.
            moment = datetime.fromisoformat(cleaned.replace(" ", "+") if "T" in cleaned else cleaned)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ValidationError("Must be a time like 2026-06-01T10:30:00+00:00.") from error


class RuleFilter(django_filters.CharFilter):
    """A column equals the value; ``rule`` brings the value into its one form, ``choices`` are what it may be."""

    field_class = RuleField

    def __init__(self, *, rule: Rule = _reference, choices: tuple[str, ...] = (), **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(rule=_one_of(*choices) if choices else rule, **kwargs)


class MomentFilter(django_filters.Filter):
    """A half-open bound on a time column."""

    field_class = MomentField


class KeyFilter(RuleFilter):
    """Records with this value under the search key of the filter's name (or ``key``)."""

    def __init__(self, *, key: str = "", **kwargs: Any) -> None:
        self.key = key
        super().__init__(**kwargs)

    def filter(self, query: Query, value: str) -> Query:
        """Narrow ``query`` when there is a value."""
        return query.having(self.key or self.field_name, value) if value else query


class RecordFilter(django_filters.FilterSet):
    """Filters that find records; ``query`` is what they say together."""

    schedule_id = KeyFilter(help_text="Drill schedule.")
    provider = KeyFilter(rule=_provider, help_text="Connector key; - counts as _.")
    metadata_kind = KeyFilter(rule=_kind, help_text="One kind of record.")
    acknowledgement_state = KeyFilter(
        rule=_state, help_text="State of a route's or a retry's acknowledgement."
    )
    connector_delivery_source = KeyFilter(
        rule=_source, help_text="Why connectors were called; the audit source finds the whole audit chain."
    )
    delivery_success = KeyFilter(rule=_boolean, help_text="true or false; finds connector deliveries.")
    alert_level = KeyFilter(rule=_state, help_text=f"Alert level of a document: {', '.join(AlertLevel)}.")
    audit_id = KeyFilter(help_text="Audit package.")
    delivery_id = KeyFilter(help_text="Delivery plan, event, or the record with this id.")
    cadence = KeyFilter(help_text="Cadence of a delivery plan or a worker run's schedule.")
    case = KeyFilter(rule=_case, help_text="Case, <delivery_id>.<provider>.")
    run_id = KeyFilter(help_text="Worker run.")
    retry_plan_id = KeyFilter(help_text="Retry plan.")
    approval_plan_id = KeyFilter(help_text="Approval plan.")
    approval_state = KeyFilter(rule=_state, help_text="State of an approval decision.")
    execution_status = KeyFilter(rule=_state, help_text="Status of an execution record.")
    playbook_id = KeyFilter(help_text="Recovery playbook.")
    closure_state = KeyFilter(rule=_state, help_text="Outcome of a recovery.")
    actor = KeyFilter(rule=_actor, help_text="Who acted: sign-in name or person id.")
    external_ref = KeyFilter(help_text="Ticket or change reference, as it was given.")
    created_after = MomentFilter(help_text="At this time or later.")
    created_before = MomentFilter(help_text="Before this time.")
    q = RuleFilter(
        rule=_reference,
        help_text="Any id, any reference, or the first 8 or more hex digits of a record's hash.",
    )

    class Meta:
        model = RecordKey
        fields = ()

    # The filter set of the library ends in a queryset; ours ends in a query over search keys.
    @property
    def query(self) -> Query:
        """What the filters say together; to be asked for once they are valid."""
        data = self.form.cleaned_data
        query = Query(
            q=data["q"],
            created_after=data["created_after"],
            created_before=data["created_before"],
            everything=data.get("include", "all") == "all",
        )
        for name, one in self.filters.items():
            if isinstance(one, KeyFilter):
                query = one.filter(query, data[name])
        return query


class HistoryFilter(RecordFilter):
    """Filters of the history: the contract's kinds, and ours with ``include=all`` or by naming the kind."""

    include = RuleFilter(choices=("all",), help_text="all: records of every kind.")


class EvidenceFilter(RecordFilter):
    """Filters of the plain list of evidence: every kind, and the contract's word for the actor."""

    signer = KeyFilter(key="actor", rule=_actor, help_text="The same as actor.")


class CaseFilter(django_filters.FilterSet):
    """Filters of the list of cases."""

    state = RuleFilter(choices=tuple(CaseState), help_text="State of the case.")
    provider = RuleFilter(field_name="connector__key", rule=_provider, help_text="Connector key.")
    settled = RuleFilter(rule=_boolean, method="filter_settled", help_text="true or false.")
    audit_id = RuleFilter(field_name="package__audit_id", help_text="Audit package.")
    created_after = MomentFilter(
        field_name="created_at", lookup_expr="gte", help_text="At this time or later."
    )
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt", help_text="Before this time.")

    class Meta:
        model = Case
        fields = ()

    def filter_settled(self, rows: "QuerySet[Case]", name: str, value: str) -> "QuerySet[Case]":
        """Settled cases or those that are not."""
        return rows.filter(settled_at__isnull=value == "false")


class ConnectorFilter(django_filters.FilterSet):
    """Filters of the list of connectors. ``state`` is judged by what came of tries, not by a column."""

    state = RuleFilter(
        choices=connector_health.WORST_FIRST, method="filter_state", help_text="How the connector does."
    )
    product = RuleFilter(choices=tuple(Product), help_text="What stands behind the connector.")

    class Meta:
        model = Connector
        fields = ()

    def filter_state(self, rows: "QuerySet[Connector]", name: str, value: str) -> "QuerySet[Connector]":
        """Left to who judges."""
        return rows


class RouteFilter(django_filters.FilterSet):
    """Filters of the list of routes; ``owner`` means what it means for an audit package."""

    schedule_id = RuleFilter(field_name="plan__schedule__schedule_id", help_text="Drill schedule.")
    provider = RuleFilter(rule=_provider, help_text="Connector key.")
    owner = RuleFilter(
        method="filter_owner", help_text="Part of the owner's or escalation owner's name, in any case."
    )
    action = RuleFilter(choices=tuple(RouteAction), help_text="Whether the owner is told.")
    category = RuleFilter(rule=_state, help_text="Why the owner is told or not.")

    class Meta:
        model = Route
        fields = ()

    def filter_owner(self, rows: "QuerySet[Route]", name: str, value: str) -> "QuerySet[Route]":
        """Routes of owners with this in their name."""
        return rows.filter(Q(owner__icontains=value) | Q(escalation_owner__icontains=value))


class ErasureFilter(django_filters.FilterSet):
    """Filters of the list of erasures."""

    state = RuleFilter(choices=tuple(ErasureState), help_text="State of the erasure.")
    record_id = RuleFilter(field_name="items__record_id", help_text="A record that it names.")

    class Meta:
        model = Erasure
        fields = ()


class HoldFilter(django_filters.FilterSet):
    """Filters of the list of legal holds."""

    scope = RuleFilter(help_text="What it covers: *, a case or a record.")
    standing = RuleFilter(rule=_boolean, method="filter_standing", help_text="true or false.")

    class Meta:
        model = LegalHold
        fields = ()

    def filter_standing(self, rows: "QuerySet[LegalHold]", name: str, value: str) -> "QuerySet[LegalHold]":
        """Holds that stand or those that were lifted."""
        return rows.filter(lifted_at__isnull=value == "true")


class OverrideFilter(django_filters.FilterSet):
    """Filters of the list of overrides of public safety."""

    reviewed = RuleFilter(rule=_boolean, method="filter_reviewed", help_text="true or false.")
    rule = RuleFilter(rule=_rule, method="filter_key", help_text="Rule that found something.")
    actor = RuleFilter(rule=_actor, method="filter_key", help_text="Who let it through: name or person id.")
    case = RuleFilter(rule=_case, method="filter_key", help_text="Case, <delivery_id>.<provider>.")
    record_id = RuleFilter(method="filter_key", help_text="The record that it went into.")
    created_after = MomentFilter(
        field_name="created_at", lookup_expr="gte", help_text="At this time or later."
    )
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt", help_text="Before this time.")

    # The search key behind each filter.
    KEYS = {"rule": "safety_rule", "record_id": "overridden_record_id"}

    class Meta:
        model = Record
        fields = ()

    def filter_reviewed(self, rows: "QuerySet[Record]", name: str, value: str) -> "QuerySet[Record]":
        """What somebody reviewed, or what waits."""
        return rows.filter(overrides.having_review(value == "true"))

    def filter_key(self, rows: "QuerySet[Record]", name: str, value: str) -> "QuerySet[Record]":
        """What has this value under a search key."""
        found = RecordKey.objects.filter(name=self.KEYS.get(name, name), value=value)
        return rows.filter(index__in=found.values("record"))


class AccessFilter(django_filters.FilterSet):
    """Filters of the access log."""

    person = RuleFilter(rule=_actor, method="filter_person", help_text="Sign-in name or person id.")
    subject = RuleFilter(method="filter_subject", help_text="Id of what was read, or a word like record.")
    act = RuleFilter(choices=tuple(Access), help_text="How it was read.")
    after = MomentFilter(field_name="at", lookup_expr="gte", help_text="At this time or later.")
    before = MomentFilter(field_name="at", lookup_expr="lt", help_text="Before this time.")

    class Meta:
        model = AccessLogEntry
        fields = ()

    def filter_person(
        self, rows: "QuerySet[AccessLogEntry]", name: str, value: str
    ) -> "QuerySet[AccessLogEntry]":
        """What one person read."""
        return rows.filter(Q(person_id=value) | Q(name=value))

    def filter_subject(
        self, rows: "QuerySet[AccessLogEntry]", name: str, value: str
    ) -> "QuerySet[AccessLogEntry]":
        """Who read one thing, or things of one sort."""
        return rows.filter(Q(subject_id=value) | Q(subject=value))


class PageForm(forms.Form):
    """Which page of a list: how many, and from where on."""

    limit = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_LIMIT,
        help_text=f"1 to {MAX_LIMIT}; {DEFAULT_LIMIT} unless told.",
    )
    offset = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_OFFSET,
        help_text=f"0 to {MAX_OFFSET}; a cursor reaches further.",
    )
    cursor = forms.CharField(
        required=False, max_length=120, help_text="From the previous page; goes without offset."
    )
