"""Where Django itself shows something, through the redactor: messages, and pages and mails about a fault (P18)."""

from collections.abc import ItemsView
from types import FrameType
from typing import Any

from django.contrib.messages.storage.fallback import FallbackStorage
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeData, SafeString, mark_safe
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from evidence.connectors.redaction import redact

# A value is shown up to here, as Django does.
MAX_SHOWN = 4096


class Shown:
    """A value as it may be shown."""

    def __init__(self, value: Any) -> None:
        try:
            text = redact(repr(value))
        except Exception as error:  # noqa: BLE001 - whatever a value's own repr raises
            text = f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
        self.text = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… <{len(text)} characters>"

    def __repr__(self) -> str:
        return self.text


class Filter(SafeExceptionReporterFilter):
    """Local variables as text that was redacted as a whole: Django cuts and wraps them before it writes them."""

    def is_active(self, request: HttpRequest | None) -> bool:
        """Always; a laptop's secrets are secrets too."""
        return True

    def get_traceback_frame_variables(
        self, request: HttpRequest | None, tb_frame: FrameType
    ) -> ItemsView[str, Any]:
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return {name: Shown(value) for name, value in variables}.items()


class Reporter(ExceptionReporter):
    """Django's page and mail about a fault, whole, through the redactor."""

    def get_traceback_html(self) -> SafeString:
        return mark_safe(redact(super().get_traceback_html()))  # noqa: S308 - a fixed word was put in

    def get_traceback_text(self) -> SafeString:
        return mark_safe(redact(super().get_traceback_text()))  # noqa: S308


class Messages(FallbackStorage):
    """Messages of console and admin."""

    def add(self, level: int, message: Any, extra_tags: str | None = "") -> None:
        text = redact(str(message))
        # What was markup before is markup still: nothing but a fixed word was put in.
        shown = mark_safe(text) if isinstance(message, SafeData) else text  # noqa: S308
        super().add(level, shown, extra_tags)


class LearnSecrets:
    """Middleware: before a fault is logged or shown, learn which secrets there are."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Ask the database for the references of all connectors; a fault is no time to insist on it."""
        # Logging imports this module for its mails before there are models.
        from evidence.domain import sending

        try:
            sending.learn_secrets()
        except Error:
            return
