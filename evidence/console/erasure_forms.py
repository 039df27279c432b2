"""What the console's forms about erasing and holding accept. What may be erased, the verbs say."""

from django import forms

from evidence.console.act_forms import IN_LEDGER, ActForm
from evidence.console.fields import NotesField, TextField
from evidence.domain import text
from evidence.enums import ErasureState


class BasisField(TextField):
    """A legal basis in one line."""

    rule = staticmethod(lambda value: text.clean(value, field="value", limit=text.MAX_REFERENCE))
    widget = forms.TextInput(attrs={"autocomplete": "off", "placeholder": "GDPR art. 17(1)(a)"})


class ProposeErasureForm(ActForm):
    """Propose that the bytes of the record go that the page shows."""

    legal_basis = BasisField(label="Legal basis")
    reason = NotesField(label="Why", help_text=f"{IN_LEDGER} Do not repeat what is to be erased.")


class DecideErasureForm(ActForm):
    """Another person confirms or refuses, or who proposed it takes it back."""

    state = forms.ChoiceField(
        label="Decision", choices=[(s, s) for s in ErasureState if s is not ErasureState.PROPOSED]
    )
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)


class PlaceHoldForm(ActForm):
    """Keep something from being erased."""

    scope = TextField(label="What it covers", help_text="A case id, a record id, or * for everything.")
    reason = NotesField(label="Why", help_text=IN_LEDGER)


class LiftHoldForm(ActForm):
    """End a hold."""

    reason = NotesField(label="Why it ends", help_text=IN_LEDGER)
