"""Strict fields: a JSON type is taken as what it is, never as what it could be converted to."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from evidence.domain import text
from evidence.domain.reading import whole
from evidence.errors import InvalidInput

MAX_PROVIDERS = 50
MAX_CASES = 200
# Length of the longest case id (``evidence.models.Case``).
MAX_CASE_ID = 90
# Every known product at once is spelled "all".
ALL = "all"

State = TypeVar("State", bound=StrEnum)


def cleaned(act: Callable[[], str]) -> str:
    """The result of a text rule of the domain, its refusal as a field error."""
    try:
        return act()
    except InvalidInput as error:
        sentences = next(iter(error.errors.values()), [error.detail])
        raise serializers.ValidationError(sentences, code=error.code) from error


class StrictBoolean(serializers.BooleanField):
    """``true`` or ``false``. With ``refuse_null`` a null is wrong instead of absent (CONTRACT, row "null")."""

    def __init__(self, *, refuse_null: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.refuse_null = refuse_null

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError("Must be true or false, as a JSON boolean.")
        return data


class CleanText(serializers.CharField):
    """Text by the rules of ``evidence.domain.text``; empty text is allowed unless the field is required."""

    def __init__(self, *, limit: int = text.MAX_REFERENCE, lines: bool = False, **kwargs: Any) -> None:
        if not kwargs.get("required"):
            kwargs.setdefault("default", "")
        super().__init__(max_length=limit, allow_blank=not kwargs.get("required"), **kwargs)
        self.limit, self.lines = limit, lines

    def run_validation(self, data: Any = serializers.empty) -> Any:
        # Not CharField's: it turns numbers into text and looks at blanks before types.
        is_empty, value = self.validate_empty_values(data)
        return value if is_empty else self.to_internal_value(value)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise serializers.ValidationError("Must be a text.")
        value = cleaned(lambda: self.rule(data))
        if self.required and not value:
            raise serializers.ValidationError("Must not be empty.")
        return value

    def rule(self, data: str) -> str:
        """The text in its one form; ``InvalidInput`` when it has none."""
        return text.clean(data, field=self.field_name or "", limit=self.limit, lines=self.lines)


class Notes(CleanText):
    """Free text of several lines."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(limit=text.MAX_NOTES, lines=True, **kwargs)


class ExternalRef(CleanText):
    """A ticket or change reference, ``SYSTEM:KEY`` or a plain key."""

    def rule(self, data: str) -> str:
        return text.external_ref(data, field=self.field_name or "")


@extend_schema_field({"type": "string", "pattern": "^([0-9A-Fa-f]{64})?$", "maxLength": 64})
class Digest(CleanText):
    """A SHA-256 as 64 hex digits, in lower case; empty unless required."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(limit=text.MAX_REFERENCE, **kwargs)

    def rule(self, data: str) -> str:
        return text.digest(data, field=self.field_name or "")


class ConnectorKey(CleanText):
    """One connector key, in its one form; absent or empty means none."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(limit=40, **kwargs)

    def rule(self, data: str) -> str:
        return text.connector_key(data, field=self.field_name or "") if data.strip() else ""


@extend_schema_field(
    {"type": "string", "default": ALL, "description": "all, one connector key, or several with commas."}
)
class ProviderList(serializers.Field[tuple[str, ...], str, Any, Any]):
    """``all`` (an empty tuple), one connector key or several with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        if "required" not in kwargs:
            kwargs.setdefault("default", ())
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> tuple[str, ...]:
        if not isinstance(data, str):
            raise serializers.ValidationError(
                "Must be a text: all, one connector key, or several with commas."
            )
        parts = [part for part in data.split(",") if part.strip()]
        if len(parts) > MAX_PROVIDERS:
            raise serializers.ValidationError(f"Names {len(parts)} connectors; {MAX_PROVIDERS} are allowed.")
        keys = dict.fromkeys(self._key(part) for part in parts)
        return () if ALL in keys else tuple(keys)

    def to_representation(self, value: Any) -> Any:
        return ",".join(value) or ALL

    def _key(self, part: str) -> str:
        return cleaned(lambda: text.connector_key(part, field=self.field_name or ""))


class StateField(serializers.ChoiceField, Generic[State]):
    """One word of a closed list; case, outer spaces and ``-`` for ``_`` do not matter."""

    def __init__(self, of: type[State], *, words: Sequence[State] = (), **kwargs: Any) -> None:
        self.words = {word.value: word for word in words or of}
        super().__init__(choices=[(word, word) for word in self.words], **kwargs)

    def to_internal_value(self, data: Any) -> State:
        word = self.words.get(text.word(data)) if isinstance(data, str) else None
        if word is None:
            raise serializers.ValidationError(f"Must be one of {', '.join(self.words)}.")
        return word


class WholeNumber(serializers.IntegerField):
    """A JSON number without a fraction between ``low`` and ``high``; ``2.0`` is 2."""

    def __init__(self, *, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(min_value=low, max_value=high, **kwargs)

    def to_internal_value(self, data: Any) -> int:
        if (number := whole(data)) is None:
            raise serializers.ValidationError("Must be a whole number.")
        return number


class Number(serializers.FloatField):
    """A JSON number between ``low`` and ``high`` with at most three places, as ``Decimal``."""

    def __init__(self, *, low: str, high: str, **kwargs: Any) -> None:
        super().__init__(min_value=float(low), max_value=float(high), **kwargs)
        self.low, self.high = Decimal(low), Decimal(high)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        is_empty, value = self.validate_empty_values(data)
        return value if is_empty else self.to_internal_value(value)

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int | float | Decimal):
            raise serializers.ValidationError("Must be a number.")
        value = Decimal(str(data))
        if not value.is_finite() or not self.low <= value <= self.high:
            raise serializers.ValidationError(f"Must be a number from {self.low} to {self.high}.")
        return value


@extend_schema_field(OpenApiTypes.DATETIME)
class Moment(serializers.Field[datetime, str, Any, Any]):
    """A time in ISO 8601 with an offset, in UTC."""

    def to_internal_value(self, data: Any) -> datetime:
        try:
            moment = datetime.fromisoformat(data)
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            pass
        raise serializers.ValidationError("Must be a time with an offset, like 2026-06-20T15:40:00+00:00.")

    def to_representation(self, value: Any) -> Any:
        return value


class TextList(serializers.ListField):
    """A list of references without repetition."""

    def __init__(self, *, limit: int, length: int = text.MAX_REFERENCE, **kwargs: Any) -> None:
        super().__init__(child=CleanText(limit=length, required=True), max_length=limit, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            raise serializers.ValidationError("Must be a list.")
        if len(data) > (self.max_length or 0):
            raise serializers.ValidationError(f"Has {len(data)} items; {self.max_length} are allowed.")
        return list(dict.fromkeys(super().to_internal_value(data)))


class BodyList(serializers.ListField):
    """A list of 1 to ``limit`` objects, each read by a body of its own."""

    def __init__(self, *, child: serializers.Serializer[Any], limit: int, **kwargs: Any) -> None:
        super().__init__(child=child, min_length=1, max_length=limit, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, list):
            raise serializers.ValidationError("Must be a list of objects.")
        if not 1 <= len(data) <= (self.max_length or 0):
            raise serializers.ValidationError(f"Has {len(data)} items; 1 to {self.max_length} are allowed.")
        return super().to_internal_value(data)


class CaseList(TextList):
    """Case ids; absent means every case."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(limit=MAX_CASES, length=MAX_CASE_ID, required=False, **kwargs)


class ObjectField(serializers.DictField):
    """A JSON object whose inside somebody else reads."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("Must be an object.")
        return dict(data)
