"""Connectors: what a product asks for as fields of its own, references that show whether they are set, and a test."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import PermissionDenied
from django.core.validators import RegexValidator
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from evidence.admin.base import ConfigurationForm, WithParts, person_of
from evidence.connectors.credentials import REFERENCES
from evidence.connectors.prepare import HTTP_ONLY
from evidence.connectors.products import PRODUCTS
from evidence.connectors.products.adapter import CREDENTIALS, Adapter
from evidence.connectors.redaction import redact
from evidence.domain import connector_tests
from evidence.domain.clock import system_clock
from evidence.enums import Product, Transport
from evidence.errors import NotAllowed
from evidence.models import Connector, ConnectorWindow
from evidence.models.connectors import REFERENCE

OPTION = "option_"
SIGNING = ("signing_ref", "previous_signing_ref")
PLACES = "Where", ("url", "url_ref", "allow_networks", "headers", "index", "service")
SECRETS = (
    "Secrets, by reference",
    (
        *("authorization_ref", "token_ref", "authorization_scheme", "api_key_ref", "api_key_header"),
        *SIGNING,
    ),
)
TRUST = "Trust and proxy", ("ca_pem", "proxy_url", "proxy_authorization_ref")
LIMITS = "Limits", ("timeout_ms", "min_timeout_ms", "max_concurrency", "required_approvals")


class ConnectorForm(ConfigurationForm):
    """A connector. Secrets are references; the product's own settings are fields named ``option_…``."""

    product_shown: ClassVar[Product] = Product.WEBHOOK

    announce_through = forms.ChoiceField(
        required=False, help_text="The connector that says so when this one keeps failing."
    )

    class Meta:
        model = Connector
        exclude = ("options",)
        labels: ClassVar = {
            "url": "URL",
            "url_ref": "URL as a secret",
            "authorization_ref": "Authorization header",
            "token_ref": "Token",
            "authorization_scheme": "Scheme of the token",
            "api_key_ref": "API key",
            "api_key_header": "Header of the API key",
            "signing_ref": "Signing secret",
            "previous_signing_ref": "Signing secret before",
            "ca_pem": "Certificate authorities",
            "proxy_url": "Proxy",
            "proxy_authorization_ref": "Proxy's credential",
            "timeout_ms": "Timeout in ms",
            "min_timeout_ms": "Least timeout of retries in ms",
            "max_concurrency": "Sends at once",
        }
        help_texts: ClassVar = {
            "product": "After another choice save once: the page then asks for what that product needs.",
            "url": "Where it goes. When the address is a secret itself, leave this empty and name it below.",
            "url_ref": "The secret that holds the whole address.",
            "authorization_ref": "A whole Authorization header, scheme included.",
            "token_ref": "A token or password alone.",
            "authorization_scheme": "What stands in front of the token.",
            "api_key_ref": "A key that goes into a header of its own.",
            "api_key_header": "The name of that header.",
            "proxy_authorization_ref": "A whole Proxy-Authorization header.",
            "timeout_ms": "For one send, from the first socket to the end of the answer.",
            "required_approvals": "Votes that a retry needs.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.options_shown():
            self.initial.setdefault(f"{OPTION}{name}", self.instance.options.get(name, ""))
        if isinstance(field := self.fields.get("announce_through"), forms.ChoiceField):
            keys = Connector.objects.exclude(pk=self.instance.pk).values_list("key", flat=True)
            field.choices = [("", "nobody"), *((key, key) for key in keys)]
        self._say_what_is_set()

    @classmethod
    def options_shown(cls) -> Mapping[str, Any]:
        """Settings of the product that the form is for."""
        return PRODUCTS[cls.product_shown].options

    def _say_what_is_set(self) -> None:
        if not self.instance.pk:
            return
        for found in connector_tests.references(self.instance):
            if (field := self.fields.get(found.field)) is not None:
                said = "set" if found.is_set else f"not set: it {found.problem}"
                field.help_text = f"{field.help_text} Now {said}.".strip()

    def full_clean(self) -> None:
        """What is typed is checked as it is; a page that shows it again shows no secret."""
        super().full_clean()
        if self.is_bound and self.errors:
            data = self.data.copy() if isinstance(self.data, QueryDict) else QueryDict(mutable=True)
            for name in self.fields:
                if isinstance(given := data.get(self.add_prefix(name)), str):
                    data[self.add_prefix(name)] = shown(name, given)
            self.data = data

    def clean(self) -> dict[str, Any]:
        given = super().clean()
        names = self.options_shown()
        texts = {name: given.get(f"{OPTION}{name}", "") for name in names}
        self.instance.options = {name: text for name, text in texts.items() if text}
        return given

    def add_rule_errors(self, name: str, sentences: list[str]) -> None:
        """A sentence about the options stands at the one that it begins with."""
        if name != "options":
            super().add_rule_errors(name, sentences)
            return
        for sentence in sentences:
            option = next(
                (f"{OPTION}{one}" for one in self.options_shown() if sentence.startswith(f"{one} ")), None
            )
            if option is None:
                self.add_error(None, sentence)
            elif option not in self.errors:
                self.add_error(option, sentence)


def shown(name: str, given: str) -> str:
    """A typed value as a page may show it again: what should be a reference and is none may be a secret."""
    if name in REFERENCES and not re.fullmatch(REFERENCE.regex, given.strip()):
        return ""
    return redact(given)


def _form_for(product: Product) -> type[ConnectorForm]:
    """The form with the product's own settings as fields."""
    fields: dict[str, Any] = {"product_shown": product}
    for name, option in PRODUCTS[product].options.items():
        notes = [option.help, f"Left empty it is {option.default}." if option.default else ""]
        fields[f"{OPTION}{name}"] = forms.CharField(
            label=option.label[:1].upper() + option.label[1:],
            help_text=" ".join(note for note in notes if note),
            required=option.required,
            validators=[
                RegexValidator(rf"\A(?:{option.pattern})\Z", f"This is no such value: {option.label}.")
            ],
            widget=forms.TextInput(attrs={"class": "vTextField"}),
        )
    return type("ConnectorForm", (ConnectorForm,), fields)


class ConnectorWindowInline(admin.TabularInline):
    """Times in which the receiver is down by plan: what is for it waits until they are over."""

    model = ConnectorWindow
    form = ConfigurationForm
    extra = 0
    verbose_name_plural = "Maintenance windows: what is for this connector waits and does not fail"


@admin.register(Connector)
class ConnectorAdmin(WithParts):
    """Destinations. Secrets are named by reference and never stored."""

    form = ConnectorForm
    change_form_template = "admin/evidence/connector/change_form.html"
    list_display = ("key", "product", "title", "enabled", "required_approvals", "edited_by", "edited_at")
    list_filter = ("product", "enabled")
    list_select_related = ("edited_by",)
    search_fields = ("key", "title")
    inlines = (ConnectorWindowInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("key", "edited_by", "edited_at") if obj else ("edited_by", "edited_at")

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().get_changeform_initial_data(request), "product": _product(request).value}

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = _form_for(_product(request, obj))
        # Fields of the form itself are none of the model's: Django is only told about the latter.
        kwargs["fields"] = [
            name
            for name in flatten_fieldsets(self.get_fieldsets(request, obj))
            if not name.startswith(OPTION) and name not in self.get_readonly_fields(request, obj)
        ]
        return super().get_form(request, obj, change=change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        product = _product(request, obj)
        adapter = PRODUCTS[product]
        hidden = {name for name in _useless(adapter) if not (obj and getattr(obj, name))}
        sets: list[tuple[str | None, dict[str, Any]]] = [
            (
                None,
                {
                    "fields": ("key", "product", "title", "enabled", "announce_through"),
                    "description": _about(product, adapter, add=obj is None),
                },
            )
        ]
        for name, fields in (PLACES, _options_set(product, adapter), SECRETS, TRUST, LIMITS):
            if kept := tuple(field for field in fields if field not in hidden):
                sets.append((name, {"fields": kept}))
        sets[[name for name, _ in sets].index(SECRETS[0])][1]["description"] = (
            "env:NAME is an environment variable of web server and worker, file:NAME a file in CAVRA_SECRETS_DIR. "
            "What they hold is read when it is used and shown nowhere."
        )
        return [*sets, ("Last change", {"fields": ("edited_by", "edited_at")})]

    # --- test -----------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        own = path("<int:pk>/test/", self.admin_site.admin_view(self.test), name="evidence_connector_test")
        return [own, *super().get_urls()]

    def test(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Test the connector as it is saved, and show what became of each step."""
        if not self.has_change_permission(request):
            raise PermissionDenied
        if request.method == "GET":  # somebody came back to the address of a result
            return redirect("admin:evidence_connector_change", pk)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        connector = get_object_or_404(Connector, pk=pk)
        try:
            steps = connector_tests.run(connector, by=person_of(request), clock=system_clock)
        except NotAllowed as error:
            raise PermissionDenied from error
        context = {
            **self.admin_site.each_context(request),
            "title": f"Test of {connector.key}",
            "opts": self.opts,
            "original": connector,
            "steps": steps,
            # A canary is the last step; one that was not reached left no record.
            "tested": steps[-1].word is not connector_tests.Word.NOT_REACHED,
            "failed": next((step for step in steps if step.word is connector_tests.Word.FAILED), None),
        }
        return TemplateResponse(request, "admin/evidence/connector/test.html", context)


def _product(request: HttpRequest, obj: Connector | None = None) -> Product:
    """The product that a page is about: what is posted, what is saved, what an address asks for, or the first."""
    asked = (request.POST.get("product"), obj.product if obj else None, request.GET.get("product"))
    known = [Product(one) for one in asked if one in list(Product)]
    return known[0] if known else next(iter(Product))


def _options_set(product: Product, adapter: Adapter) -> tuple[str, tuple[str, ...]]:
    return f"Settings of {product}", tuple(f"{OPTION}{name}" for name in adapter.options)


def _useless(adapter: Adapter) -> set[str]:
    """Columns that this product has no use for."""
    found = set(CREDENTIALS) - set(adapter.credentials)
    if not adapter.signs:
        found |= set(SIGNING)
    if adapter.transport is not Transport.HTTP:
        found |= set(HTTP_ONLY)
    if adapter.secret_url:
        found.add("url")
    return found


def _about(product: Product, adapter: Adapter, *, add: bool) -> SafeString:
    """What is good to know before the form of a product is filled in."""
    said = [f"{product}: success is worth “{adapter.assurance}”. {adapter.earned}"]
    if adapter.secret_url:
        said.append("Who knows its address may post there, so the address is a secret.")
    if adapter.needs_credential:
        said.append("It takes nothing without a credential.")
    about = format_html("<p>{}</p>", " ".join(said))
    if not add:
        return about
    page = reverse("admin:evidence_connector_add")
    others = format_html_join(
        ", ", '<a href="{}?product={}">{}</a>', ((page, one.value, one.value) for one in PRODUCTS)
    )
    return about + format_html("<p>The form of another product: {}.</p>", others)
