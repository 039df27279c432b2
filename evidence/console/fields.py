"""Form fields under the same rules for text as the API's (CONTRACT, row "text")."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from evidence.domain import text
from evidence.errors import InvalidInput


class TextField(forms.CharField):
    """One line of text; ``rule`` brings it into the form in which it is kept, its sentence is the error."""

    rule: Callable[[str], str] = staticmethod(
        lambda value: text.clean(value, field="value", limit=text.MAX_NAME)
    )

    def __init__(self, **kwargs: Any) -> None:
        # The rule strips, and tells more than the widget's limit would.
        super().__init__(strip=False, **kwargs)

    def clean(self, value: Any) -> str:
        cleaned = super().clean(value)
        try:
            return self.rule(cleaned)
        except InvalidInput as error:
            raise ValidationError(
                [said for sentences in error.errors.values() for said in sentences]
            ) from error


class ReferenceField(TextField):
    """A ticket or change reference: ``SYSTEM:KEY`` or a plain key."""

    rule = staticmethod(text.external_ref)
    widget = forms.TextInput(attrs={"autocomplete": "off", "placeholder": "CHG-789"})


class NotesField(TextField):
    """Text of several lines."""

    rule = staticmethod(lambda value: text.clean(value, field="value", limit=text.MAX_NOTES, lines=True))
    widget = forms.Textarea(attrs={"rows": 2})


class DigestField(TextField):
    """A SHA-256 that a page showed and a form sends back: 64 hex digits."""

    rule = staticmethod(lambda value: text.digest(value, field="value"))
    widget = forms.HiddenInput
