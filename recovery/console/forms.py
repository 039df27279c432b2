"""What the console's forms about a case accept. Rules beyond a field's own shape are the verbs'."""

from typing import Any

from django import forms

from evidence.console.act_forms import IN_LEDGER, ActForm
from evidence.console.fields import DigestField, NotesField, ReferenceField
from evidence.console.forms import connectors
from recovery.enums import ApprovalState, RetryAckState, Seen

ANSWERS = {
    RetryAckState.ACCEPTED: "Accept",
    RetryAckState.DEFERRED: "Defer",
    RetryAckState.ESCALATED: "Escalate",
    RetryAckState.RESOLVED: "Already resolved",
    RetryAckState.DISMISSED: "Dismiss",
}
REASONS = (
    ("cause_fixed", "Cause known and fixed"),
    ("receiver_ready", "Receiver confirmed it is ready"),
    ("other", "Other, see notes"),
)
SEEN = {
    Seen.DELIVERED: "Delivered",
    Seen.NOT_DELIVERED: "Not delivered",
    Seen.UNDETERMINED: "Cannot be told",
}


class PlanForm(ActForm):
    """Decide about the next attempt."""

    immediate = forms.BooleanField(
        label="Lift the delay for this retry",
        required=False,
        help_text="An operator still has to execute it by hand.",
    )


class AnswerForm(ActForm):
    """A reader's answer to what was decided about a retry."""

    state = forms.ChoiceField(
        label="Your answer",
        choices=list(ANSWERS.items()),
        initial=RetryAckState.ACCEPTED,
        widget=forms.RadioSelect,
    )
    external_ref = ReferenceField(label="External reference", required=False)
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)


class AcknowledgeForm(AnswerForm):
    """Say that a person has read a retry decision; ``attempt_no`` and ``policy_digest`` are what the page showed."""

    attempt_no = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    policy_digest = DigestField()


class RequestForm(ActForm):
    """Ask a second person."""

    reason = NotesField(label="What changed since the failure", required=False, help_text=IN_LEDGER)


class SignedForm(ActForm):
    """An act that is signed: the password is asked for once the sign-in is no longer recent."""

    password = forms.CharField(
        label="Your password",
        required=False,
        strip=False,
        max_length=1_000,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def ask_password(self, age: str) -> None:
        """Show the field for it; ``age`` says how long ago the person signed in."""
        self.fields["password"].required = True
        self.fields["password"].label = f"{age}: your password, to sign this vote"


class ReasonedForm(SignedForm):
    """A signed act with its reason."""

    reason_code = forms.ChoiceField(label="Reason", choices=REASONS, required=False)
    external_ref = ReferenceField(label="External reference", required=False)
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)


class VoteForm(ReasonedForm):
    """One person's vote."""

    state = forms.ChoiceField(
        label="Decision",
        choices=[
            (s, s.capitalize())
            for s in (ApprovalState.APPROVED, ApprovalState.DEFERRED, ApprovalState.DENIED)
        ],
    )

    def clean(self) -> dict[str, Any]:
        """A denial says why."""
        data: dict[str, Any] = super().clean() or {}
        if data.get("state") == ApprovalState.DENIED and not data.get("notes") and "notes" not in self.errors:
            self.add_error("notes", "Say why you deny it; who asked has to know what to change.")
        return data


class DecideForm(VoteForm):
    """A vote on one request; ``entry_id`` and ``manifest_digest`` are what the page showed."""

    entry_id = forms.CharField(max_length=50, widget=forms.HiddenInput)
    manifest_digest = DigestField()


class RenewForm(ReasonedForm):
    """A lapsed request asked for again, with one's own approval; ids and digest are those of the lapsed one."""

    entry_id = forms.CharField(max_length=50, widget=forms.HiddenInput)
    manifest_digest = DigestField()


class ExecuteForm(ActForm):
    """Send once, or look at what would be sent."""

    entry_id = forms.CharField(max_length=50, widget=forms.HiddenInput)
    immediate = forms.BooleanField(label="Do not wait for the retry window", required=False)
    dry_run = forms.BooleanField(required=False)


class WitnessForm(ActForm):
    """What somebody saw at the receiver."""

    seen = forms.ChoiceField(
        label="What did you see at the receiver?", choices=list(SEEN.items()), widget=forms.RadioSelect
    )
    external_ref = ReferenceField(label="Reference")
    notes = NotesField(label="What you looked at", required=False, help_text=IN_LEDGER)


class AttestForm(WitnessForm):
    """The same of one try; ``attempt_no`` is the one that the page spoke of."""

    attempt_no = forms.IntegerField(min_value=1, widget=forms.HiddenInput)


class AskForm(ActForm):
    """Ask the connector; there is nothing to say."""


class TakeOverForm(ActForm):
    """Become the owner of a first attempt that waits."""

    reason = NotesField(label="Why you take it over", help_text=IN_LEDGER)


class WithdrawForm(ActForm):
    """The requester takes a request back."""

    entry_id = forms.CharField(max_length=50, widget=forms.HiddenInput)
    notes = NotesField(label="Why", required=False, help_text=IN_LEDGER)


class RunForm(ActForm):
    """A run over many cases: dry unless ``live`` is asked for."""

    live = forms.BooleanField(required=False)
    most = forms.IntegerField(label="At most", required=False, min_value=1, max_value=25)
    providers = forms.MultipleChoiceField(
        label="Connectors", required=False, widget=forms.CheckboxSelectMultiple
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["providers"].choices = connectors()  # type: ignore[attr-defined]
