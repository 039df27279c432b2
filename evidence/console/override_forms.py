"""What the console's form about an override of public safety accepts."""

from typing import Any

from django import forms

from evidence.console.act_forms import IN_LEDGER, ActForm
from evidence.console.fields import NotesField
from evidence.enums import SafetyVerdict
from evidence.models import Record


class ReviewForm(ActForm):
    """A second person's word on what ``override`` let through; a page has one for each."""

    verdict = forms.ChoiceField(label="What it is", choices=[(v, v) for v in SafetyVerdict])
    notes = NotesField(
        label="Notes", required=False, help_text=f"{IN_LEDGER} Do not repeat what was let through."
    )

    def __init__(self, override: Record, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_id = f"review_{override.pk}_%s"
