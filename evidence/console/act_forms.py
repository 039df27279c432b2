"""What the console's forms about drills and deliveries accept. Rules beyond a field's shape are the verbs'."""

from datetime import datetime
from typing import Any

from django import forms

from evidence.console.fields import NotesField, ReferenceField, TextField
from evidence.console.forms import connectors
from evidence.domain import acknowledgements, drills
from evidence.enums import RouteState, ScheduleStatus
from evidence.models import Schedule

ANSWERS = {
    RouteState.ACKNOWLEDGED: "Acknowledge",
    RouteState.ESCALATED: "Escalate",
    RouteState.RESOLVED: "Resolve",
    RouteState.DISMISSED: "Dismiss",
}
DUE = {
    ScheduleStatus.NEEDS_ATTENTION: "overdue",
    ScheduleStatus.DUE_SOON: "due soon",
    ScheduleStatus.READY: "not due",
}
IN_LEDGER = "Goes into the ledger and stays there."


class ActForm(forms.Form):
    """A form of one act; its ids do not collide with those of another form on the page."""

    use_required_attribute = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_id = f"{type(self).__name__.removesuffix('Form').lower()}_%s"

    def offer(self, name: str, choices: list[tuple[str, str]]) -> None:
        """What may be chosen in the field ``name``."""
        self.fields[name].choices = choices  # type: ignore[attr-defined]


class PickedField(forms.MultipleChoiceField):
    """Rows picked from a list of routes, each named ``schedule/announcement/connector``."""

    default_error_messages = {
        "required": "Pick at least one row of the list.",
        "invalid_choice": "“%(value)s” names no row of the list.",
    }

    def valid_value(self, value: str) -> bool:
        """Whether it has the shape of a row's name; whether there is such a row, the verb says."""
        return value.count("/") == 2

    def validate(self, value: list[str]) -> None:
        """Not more than one answer may speak of."""
        super().validate(value)
        if len(value) > acknowledgements.MAX_BULK:
            raise forms.ValidationError(f"One answer is for at most {acknowledgements.MAX_BULK} rows.")


class AnswerForm(ActForm):
    """One answer to one or more rows of the list of routes."""

    routes = PickedField(label="Routes")
    state = forms.ChoiceField(
        label="Answer",
        choices=list(ANSWERS.items()),
        initial=RouteState.ACKNOWLEDGED,
        widget=forms.RadioSelect,
    )
    external_ref = ReferenceField(label="External reference", required=False)
    notes = NotesField(label="Notes", required=False, help_text=IN_LEDGER)


class AnnounceForm(ActForm):
    """Tell a drill's owners."""

    schedule_id = forms.ChoiceField(label="Drill", widget=forms.RadioSelect)
    providers = forms.MultipleChoiceField(
        label="Connectors", required=False, widget=forms.CheckboxSelectMultiple
    )
    force = forms.BooleanField(label="Tell them although nothing is due", required=False)

    def __init__(self, *args: Any, at: datetime, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        active = list(Schedule.objects.filter(active=True))
        self.offer("schedule_id", [(one.schedule_id, _described(one, at)) for one in active])
        self.offer("providers", connectors())
        if len(active) == 1:
            self.fields["schedule_id"].initial = active[0].schedule_id


class DeliverForm(ActForm):
    """Which answers make up the audit package, and where it goes."""

    schedule_id = forms.ChoiceField(label="Drill", required=False)
    provider = forms.ChoiceField(label="Told through", required=False)
    owner = TextField(
        label="Owner", required=False, help_text="Part of the owner’s or the escalation owner’s name."
    )
    delivery_providers = forms.MultipleChoiceField(
        label="Deliver to", required=False, widget=forms.CheckboxSelectMultiple
    )
    despite_lost_entries = forms.BooleanField(
        label="Send it although it may have been sent before the restore", required=False
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        known = Schedule.objects.values_list("schedule_id", flat=True)
        self.offer("schedule_id", [("", "All"), *((name, name) for name in known)])
        keys = connectors()
        self.offer("provider", [("", "All"), *keys])
        self.offer("delivery_providers", keys)


def _described(schedule: Schedule, at: datetime) -> str:
    """A drill as it is offered: its id, and how near it is."""
    due = DUE[drills.status_at(schedule, at)]
    day = schedule.next_due_at
    return f"{schedule.schedule_id}: {due}, {day.day} {day:%B %Y}"
