"""What the console's forms about many cases at once accept. Rules beyond a field's own shape are the verbs'."""

from django import forms

from evidence.console.act_forms import IN_LEDGER, ActForm
from evidence.console.fields import DigestField, NotesField
from recovery.console.forms import AnswerForm, ReasonedForm, VoteForm, WitnessForm
from recovery.domain import sets


class EntriesField(forms.MultipleChoiceField):
    """Ids of requests as a page listed them; whether they are of the set, the verb says."""

    widget = forms.MultipleHiddenInput
    LONGEST = 50

    def valid_value(self, value: str) -> bool:
        """Whether it has the shape of an id."""
        return len(value) <= self.LONGEST

    def validate(self, value: list[str]) -> None:
        """Not more than a set holds."""
        super().validate(value)
        if len(value) > sets.MAX_ITEMS:
            raise forms.ValidationError(f"A set holds at most {sets.MAX_ITEMS} cases.")


class ChooseForm(ActForm):
    """Nothing is typed: the set is what the filter finds."""


class PlanSetForm(ActForm):
    """Decide about the next attempt of every case."""

    immediate = forms.BooleanField(
        label="Lift the delay for these retries",
        required=False,
        help_text="An operator still has to execute them by hand.",
    )


class AcknowledgeSetForm(AnswerForm):
    """One answer to every retry decision of the set; ``shown`` is the digest of those that the page showed."""

    shown = DigestField()


class RequestSetForm(ActForm):
    """Ask a second person about all of it."""

    reason = NotesField(label="What changed since the failure", required=False, help_text=IN_LEDGER)


class DecideSetForm(VoteForm):
    """One vote on many items: ``items`` without those of the groups ``without``, and the digest of what was shown.

    A group goes by the id of its first request.
    """

    items = EntriesField(
        label="Items", error_messages={"required": "Nothing is selected: put at least one item back in."}
    )
    without = EntriesField(required=False)
    set_digest = DigestField()


class RenewSetForm(ReasonedForm):
    """Lapsed items asked for again, with one's own approval; the digest is that of what was shown."""

    items = EntriesField(label="Items")
    set_digest = DigestField()


class ExecuteSetForm(ActForm):
    """Send what was approved; the digest is that of what was shown."""

    set_digest = DigestField()
    immediate = forms.BooleanField(label="Do not wait for the retry window", required=False)


class AttestAllForm(WitnessForm):
    """What somebody saw of every unknown case of a filter; ``shown`` is the digest of those that the page named."""

    shown = DigestField()
