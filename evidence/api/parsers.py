"""Request bodies: I-JSON objects and nothing else (RFC 7493; CONTRACT, rows "JSON" and "numbers")."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from django.conf import settings
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

MAX_DEPTH = 32
MAX_SAFE_INTEGER = 2**53 - 1
MAX_PLACES = 3

# RFC 7493, section 2.1: no surrogates, no noncharacters.
NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
UNFIT = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{NONCHARACTERS}]")


class BodyTooLarge(APIException):
    """The body is longer than this service reads."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A body has at most {limit} bytes.")


class StrictJSONParser(BaseParser):
    """One JSON object. Decimals arrive as ``Decimal``, so that no digit is lost before it is judged."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The object in ``stream``; ``ParseError`` (400) with a code for anything else."""
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        data = stream.read(limit + 1)
        if len(data) > limit:
            raise BodyTooLarge(limit)
        return parse_object(data)


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object that ``data`` holds in UTF-8.

    Raises ``ParseError``: ``not_json`` for what is no JSON object, ``duplicate_key``, ``number``, ``text`` or
    ``too_deep`` for what JSON allows and I-JSON or this service does not.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_decimal,
        )
    except UnicodeDecodeError as error:
        raise ParseError("The body is not UTF-8.", code="not_json") from error
    except RecursionError as error:
        raise ParseError("The body is nested too deep.", code="too_deep") from error
    except json.JSONDecodeError as error:
        raise ParseError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            code="not_json",
        ) from error
    if not isinstance(value, dict):
        raise ParseError("The body has to be a JSON object.", code="not_json")
    _refuse_unfit(value, MAX_DEPTH)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ParseError(f"The key {ascii(twice)[:80]} stands twice in one object.", code="duplicate_key")
    return found


def _refuse_constant(name: str) -> Any:
    raise ParseError(f"{name} is no JSON number.", code="number")


def _integer(digits: str) -> int:
    # Judged by length first: Python refuses to convert thousands of digits.
    if len(digits) <= 17 and abs(value := int(digits)) <= MAX_SAFE_INTEGER:
        return value
    raise ParseError("Integers reach to 2^53 - 1.", code="number")


def _decimal(digits: str) -> Decimal:
    """A decimal of at most three places; ``1.5000`` is ``1.5``."""
    value = Decimal(digits) if len(digits) <= 40 else Decimal("NaN")
    # Compared by exponent: converting 1e999999 would take its size in memory.
    if not value.is_finite() or value.adjusted() > 15 or abs(value) > MAX_SAFE_INTEGER:
        raise ParseError("Numbers reach to 2^53 - 1.", code="number")
    if round(value, MAX_PLACES) != value:
        raise ParseError("Numbers have at most three decimal places.", code="number")
    return value


def _refuse_unfit(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if UNFIT.search(value):
            raise ParseError("Text holds a lone surrogate or a noncharacter.", code="text")
    elif isinstance(value, dict | list):
        if not depth:
            raise ParseError(f"The body is nested deeper than {MAX_DEPTH} levels.", code="too_deep")
        for item in value if isinstance(value, list) else (*value.keys(), *value.values()):
            _refuse_unfit(item, depth - 1)
