"""What every page of configuration shares: the domain saves, and what it refuses stands beside its field."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.forms.formsets import BaseFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from evidence.domain import configuration, configuration_rules
from evidence.domain.clock import system_clock
from evidence.errors import DomainError
from evidence.models import Person


def person_of(request: HttpRequest) -> Person:
    """Who is signed in; the admin lets nobody else this far."""
    if not isinstance(request.user, Person):
        raise PermissionDenied
    return request.user


class ConfigurationForm(forms.ModelForm):
    """A form whose row is also held against the domain's rules, so that a refusal stands beside its field."""

    def clean(self) -> dict[str, Any]:
        """A time that nobody touched keeps its fraction of a second, which the page does not show."""
        given = super().clean() or self.cleaned_data
        for name in self.fields.keys() - set(self.changed_data):
            if isinstance(self.initial.get(name), datetime):
                given[name] = self.initial[name]
        return given

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        for name, sentences in configuration_rules.problems(self.instance).items():
            self.add_rule_errors(name, sentences)

    def add_rule_errors(self, name: str, sentences: list[str]) -> None:
        """Put what a rule says of a column beside its field, unless the field has an error already."""
        if name not in self.errors and name in self.fields:
            self.add_error(name, sentences)


class ConfigurationAdmin(admin.ModelAdmin):
    """A row that is saved by the domain. What it refuses at the last moment is shown, and nothing is saved."""

    form = ConfigurationForm
    actions = None
    view_on_site = False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        configuration.save(obj, by=person_of(request), clock=system_clock)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DomainError as error:
            sentences = [sentence for all_ in error.errors.values() for sentence in all_]
            messages.error(request, " ".join(["Nothing was saved.", error.detail, *sentences]))
            return HttpResponseRedirect(request.get_full_path())


class WithParts(ConfigurationAdmin):
    """A row and the rows that belong to it, saved as one change."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Wait for the parts: all of them make one record."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        parts = {formset.get_default_prefix(): _rows_of(formset) for formset in formsets}
        configuration.save(form.instance, by=person_of(request), clock=system_clock, **parts)
        for formset in formsets:  # what Django's own log and its message read
            formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []


def _rows_of(formset: BaseFormSet) -> list[models.Model]:
    """Every row that shall be there: those of all forms but the empty and the deleted ones."""
    forms_ = [form for form in formset.forms if form not in formset.deleted_forms]
    return [form.instance for form in forms_ if form.instance.pk or form.has_changed()]
