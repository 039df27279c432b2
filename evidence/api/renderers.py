"""Answers: compact JSON in UTF-8, whatever ``Accept`` says."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.renderers import JSONRenderer as RestJSONRenderer
from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder
from rest_framework.utils.mediatypes import media_type_matches


class NumberEncoder(JSONEncoder):
    """Decimals are numbers on the wire, not text."""

    def default(self, obj: Any) -> Any:
        if isinstance(obj, Decimal):
            return int(obj) if obj == obj.to_integral_value() else float(obj)
        return super().default(obj)


class JSONRenderer(RestJSONRenderer):
    """UTF-8, no spaces, decimals as numbers."""

    encoder_class = NumberEncoder
    ensure_ascii = False
    compact = True


class AlwaysFirst(BaseContentNegotiation):
    """Answers with the view's own format: the contract's clients send any ``Accept`` or none."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        content_type = request.content_type or ""
        return next(
            (parser for parser in parsers if media_type_matches(parser.media_type or "", content_type)), None
        )

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type or ""
