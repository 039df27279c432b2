"""What the console's form about an override of public safety accepts."""

from django import forms

from evidence.console.act_forms import IN_LEDGER, ActForm
from evidence.console.fields import NotesField
from evidence.enums import SafetyVerdict


class ReviewForm(ActForm):
    """A second person's word on what was let through."""

    verdict = forms.ChoiceField(label="What it is", choices=[(v, v) for v in SafetyVerdict])
    notes = NotesField(
        label="Notes", required=False, help_text=f"{IN_LEDGER} Do not repeat what was let through."
    )
