"""What the console's filters accept; a value that cannot be a filter is refused before it is looked for."""

from typing import Any

from django import forms

from evidence.console.presenters import kind_label
from evidence.documents import KINDS
from evidence.domain.history import Query
from evidence.enums import CaseState
from evidence.models import Connector


class HistoryFilter(forms.Form):
    """Which records are shown; nothing given shows the contract's kinds."""

    q = forms.CharField(label="Id, hash or reference", max_length=200, required=False)
    provider = forms.ChoiceField(label="Connector", required=False)
    kind = forms.ChoiceField(label="Kind", required=False)
    case = forms.CharField(label="Case", max_length=90, required=False)

    # Search key of each field; ``q`` is a search of its own.
    KEYS = {"provider": "provider", "kind": "metadata_kind", "case": "case"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = [("", "All"), *connectors()]  # type: ignore[attr-defined]
        kinds = sorted((kind_label(name), name) for name in KINDS)
        self.fields["kind"].choices = [("", "The chain"), *((name, label) for label, name in kinds)]  # type: ignore[attr-defined]

    def query(self) -> Query:
        """The checked filters as a query of the history."""
        given = self.cleaned_data
        keys = tuple((key, given[name]) for name, key in self.KEYS.items() if given[name])
        return Query(keys=keys, q=given["q"])


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["provider"].choices = [("", "All"), *connectors()]  # type: ignore[attr-defined]

    def columns(self) -> dict[str, str]:
        """The checked filters as columns of the case table."""
        names = {"state": "state", "provider": "connector__key"}
        return {column: self.cleaned_data[name] for name, column in names.items() if self.cleaned_data[name]}


def connectors() -> list[tuple[str, str]]:
    """Connector keys to choose from."""
    return [(key, key) for key in Connector.objects.values_list("key", flat=True)]
