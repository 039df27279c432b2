"""What the console's filters accept; a value that cannot be a filter is refused before it is looked for."""

from datetime import UTC, datetime, time
from typing import Any
from urllib.parse import urlencode

from django import forms

from evidence.documents import KINDS
from evidence.domain.history import Query, relaxed
from evidence.domain.lines import kind_label
from evidence.enums import CaseState, DeliverySource
from evidence.models import Connector

# States across kinds: the word of the filter, as the console shows it, and the search key that finds it.
STATES: dict[str, tuple[str, str, str]] = {
    "delivered": ("Delivered", "delivery_success", "true"),
    "not_delivered": ("Failed", "delivery_success", "false"),
    "acknowledged": ("Acknowledged", "acknowledgement_state", "acknowledged"),
    "accepted": ("Retry accepted", "acknowledgement_state", "accepted"),
    "escalated": ("Escalated", "acknowledgement_state", "escalated"),
    "approved": ("Approved", "approval_state", "approved"),
    "denied": ("Denied", "approval_state", "denied"),
    "executed": ("Retry delivered", "execution_status", "delivered"),
    "retry_failed": ("Retry failed", "execution_status", "failed"),
    "retry_unknown": ("Retry unknown", "execution_status", "outcome_unknown"),
    "skipped": ("Retry skipped", "execution_status", "skipped"),
    "resolved": ("Recovery resolved", "closure_state", "resolved"),
}

SOURCES = {
    DeliverySource.AUDIT.value: "Audit deliveries",
    DeliverySource.NOTIFICATION.value: "Notifications",
}


# A moment as a browser's field for it writes it.
MINUTES = "%Y-%m-%dT%H:%M"


class HistoryFilter(forms.Form):
    """Which records are shown; nothing given shows the contract's kinds."""

    q = forms.CharField(label="Id, hash or reference", max_length=200, required=False)
    provider = forms.ChoiceField(label="Connector", required=False)
    state = forms.ChoiceField(
        label="State",
        required=False,
        choices=[("", "All"), *((word, label) for word, (label, _, _) in STATES.items())],
    )
    kind = forms.ChoiceField(label="Kind", required=False)
    source = forms.ChoiceField(label="Source", required=False, choices=[("", "All"), *SOURCES.items()])
    since = forms.DateField(label="Since", required=False, widget=forms.DateInput(attrs={"type": "date"}))
    case = forms.CharField(label="Case", max_length=90, required=False)

    # Search key of each field; ``q``, ``state`` and ``since`` are searches of their own.
    KEYS = {
        "provider": "provider",
        "kind": "metadata_kind",
        "source": "connector_delivery_source",
        "case": "case",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = [("", "All"), *connectors()]  # type: ignore[attr-defined]
        kinds = sorted((kind_label(name), name) for name in KINDS)
        self.fields["kind"].choices = [("", "The chain"), *((name, label) for label, name in kinds)]  # type: ignore[attr-defined]

    def keys(self) -> tuple[tuple[str, str], ...]:
        """The checked filters as search keys."""
        given = self.cleaned_data
        keys = [(key, given[name]) for name, key in self.KEYS.items() if given[name]]
        if given["state"]:
            keys.append(STATES[given["state"]][1:])
        return tuple(keys)

    def since_moment(self) -> datetime | None:
        """Midnight in UTC of the day that was chosen."""
        day = self.cleaned_data["since"]
        return datetime.combine(day, time(), UTC) if day else None

    def query(self) -> Query:
        """The checked filters as a query of the history."""
        return Query(keys=self.keys(), q=self.cleaned_data["q"], created_after=self.since_moment())

    def without(self) -> list[tuple[str, str, int]]:
        """For each filter that is set: field, field and value in words, and how many there would be without it."""
        fields = {key: name for name, key in self.KEYS.items()}
        if self.cleaned_data["state"]:
            fields[STATES[self.cleaned_data["state"]][1]] = "state"
        fields |= {"q": "q", "created_after": "since"}
        words = dict(self.shown())
        return [(fields[key], words[fields[key]], count) for key, count in relaxed(self.query())]

    def exports(self) -> str:
        """The same filters as the export's address has them."""
        since = self.since_moment()
        given = [
            *self.keys(),
            ("q", self.cleaned_data["q"]),
            ("created_after", since.isoformat() if since else ""),
        ]
        return urlencode([(name, value) for name, value in given if value])

    def shown(self) -> list[tuple[str, str]]:
        """Each filter that is set: the field's name, and field and value in words."""
        found = []
        for name in self.fields:
            value = self.cleaned_data.get(name)
            if value:
                words = dict(getattr(self.fields[name], "choices", ())).get(value, value)
                found.append((name, f"{self.fields[name].label}: {words}"))
        return found


class CaseFilter(forms.Form):
    """Which cases are shown."""

    state = forms.ChoiceField(
        label="State",
        required=False,
        choices=[
            ("", "All"),
            *((state.value, state.value.replace("_", " ").capitalize()) for state in CaseState),
        ],
    )
    provider = forms.ChoiceField(label="Connector", required=False)
    since = forms.DateTimeField(
        label="Last outcome since, UTC",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MINUTES),
    )
    until = forms.DateTimeField(
        label="Last outcome until, UTC",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MINUTES),
    )

    COLUMNS = {
        "state": "state",
        "provider": "connector__key",
        "since": "last_outcome_at__gte",
        "until": "last_outcome_at__lt",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = [("", "All"), *connectors()]  # type: ignore[attr-defined]

    def columns(self) -> dict[str, Any]:
        """The checked filters as columns of the case table."""
        given = self.cleaned_data
        return {column: given[name] for name, column in self.COLUMNS.items() if given[name]}

    def given(self) -> dict[str, str]:
        """The checked filters as text, moments in UTC."""
        return {
            name: value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
            for name, value in self.cleaned_data.items()
            if value
        }


def connectors() -> list[tuple[str, str]]:
    """Connector keys to choose from."""
    return [(key, key) for key in Connector.objects.values_list("key", flat=True)]
