"""What the console's forms about dispositions accept. What each kind needs beside the reason, the verb says."""

from django import forms

from evidence.console.fields import NotesField, ReferenceField, TextField
from recovery.console.forms import IN_LEDGER, ActForm, SignedForm
from recovery.enums import DispositionKind, DispositionState

KINDS = {
    DispositionKind.SUPERSEDED_BY: "Another delivery stands in its place",
    DispositionKind.ABANDONED: "It is abandoned",
}


class ProposeDispositionForm(ActForm):
    """Propose to settle a case without a delivery."""

    kind = forms.ChoiceField(
        label="What becomes of it", choices=list(KINDS.items()), widget=forms.RadioSelect
    )
    superseded_by = TextField(
        label="Delivered case in its place",
        required=False,
        widget=forms.TextInput(attrs={"list": "successors", "autocomplete": "off"}),
        help_text="A case id: delivered to the same connector, not older than this one.",
    )
    external_ref = ReferenceField(
        label="External reference", required=False, help_text="Needed to abandon it."
    )
    reason = NotesField(label="Why", help_text=IN_LEDGER)


class DecideDispositionForm(SignedForm):
    """An approver confirms or refuses the proposal that the page showed."""

    disposition_id = forms.CharField(max_length=60, widget=forms.HiddenInput)
    state = forms.ChoiceField(
        label="Decision",
        choices=[(s, s.capitalize()) for s in (DispositionState.CONFIRMED, DispositionState.REFUSED)],
    )
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)


class WithdrawDispositionForm(ActForm):
    """The proposer takes the proposal back that the page showed."""

    disposition_id = forms.CharField(max_length=60, widget=forms.HiddenInput)
    notes = NotesField(label="Why", required=False, help_text=IN_LEDGER)
