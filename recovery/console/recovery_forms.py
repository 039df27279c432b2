"""What the console's forms about recoveries accept; what an outcome needs is the domain's list."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any

from django import forms

from evidence.console.fields import NotesField, ReferenceField, TextField
from evidence.domain import text
from recovery.console.forms import IN_LEDGER, ActForm
from recovery.domain import steps
from recovery.domain.closures import ClosureRequest
from recovery.enums import ClosureState

# Each outcome in words, and what it says about the recovery.
OUTCOMES = {
    ClosureState.RESOLVED: ("Resolved", "Every case has a success or was set aside."),
    ClosureState.MITIGATED: ("Mitigated", "It works for now. Comes back on its date."),
    ClosureState.DEFERRED: ("Deferred", "Not now. Comes back on its date."),
    ClosureState.ESCALATED: ("Escalated", "Somebody else has it, under a ticket."),
    ClosureState.REOPENED: ("Reopened", "It failed again. Starts a new epoch."),
}


class PlaybookForm(ActForm):
    """Which connectors a playbook speaks of; an empty field means its usual number."""

    min_failure_count = forms.IntegerField(
        label="Failures, at least", required=False, min_value=1, max_value=10_000, initial=1
    )
    lookback_hours = forms.IntegerField(
        label="In the last hours", required=False, min_value=1, max_value=8_784
    )

    def given(self) -> dict[str, Any]:
        """The checked numbers that somebody filled in."""
        return {name: number for name, number in self.cleaned_data.items() if number is not None}


class NoteField(TextField):
    """One line about a step."""

    rule = staticmethod(lambda value: text.clean(value, field="value", limit=steps.MAX_NOTE))


class StepForm(ActForm):
    """A tick, or taking one back."""

    done = forms.TypedChoiceField(
        label="Done", choices=[("true", "Done"), ("false", "Not done")], coerce=lambda word: word == "true"
    )
    note = NoteField(label="Reference or note", required=False)


class ReferencesField(forms.MultipleChoiceField):
    """Records named as proof. Which of them prove something is looked up by the verb."""

    def valid_value(self, value: str) -> bool:
        """Every word is taken for a reference."""
        return True

    def clean(self, value: Any) -> list[str]:
        """The references, each a clean line, none twice."""
        line = TextField()
        return list(dict.fromkeys(line.clean(word) for word in super().clean(value)))


class CloseForm(ActForm):
    """An outcome and what is to show for it. Who closes with nothing filled in is told what the outcome needs."""

    playbook_id = forms.CharField(max_length=40, required=False, widget=forms.HiddenInput)
    state = forms.ChoiceField(
        label="Outcome", choices=[(state, words) for state, (words, _) in OUTCOMES.items()]
    )
    verification_refs = ReferencesField(label="Verification references", required=False)
    owner = TextField(label="Owner", required=False)
    review_at = forms.DateTimeField(
        label="Comes back on (UTC)",
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        error_messages={"invalid": "Give a day and a time, such as 2026-06-08T17:00."},
    )
    reason = NotesField(label="Reason", required=False, help_text=IN_LEDGER)
    external_ref = ReferenceField(label="Ticket reference", required=False)
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)

    # What is kept when another outcome is looked at: short, and nothing that would not stand in an address.
    KEPT = ("owner", "review_at", "external_ref")

    def mark_needed(self, needed: Iterable[str]) -> None:
        """Show these fields as needed. Only to be called on a form that is done with checking."""
        for name in needed:
            self.fields[name].required = True


def closure_request(provider: str, state: ClosureState, filled: Mapping[str, Any]) -> ClosureRequest:
    """What a form with the values ``filled`` claims; a value that is missing or was no good counts as empty."""
    review_at = filled.get("review_at")
    return ClosureRequest(
        provider=provider,
        state=state,
        verification_refs=tuple(filled.get("verification_refs") or ()),
        owner=filled.get("owner", ""),
        review_at=review_at.astimezone(UTC) if review_at else None,
        reason=filled.get("reason", ""),
        external_ref=filled.get("external_ref", ""),
        notes=filled.get("notes", ""),
    )
