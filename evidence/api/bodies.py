"""What a request body holds: shapes only, rules are the domain's.

CONTRACT, rows "null", "unknown keys" and "identity".
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.conf import settings
from rest_framework import serializers

from evidence.errors import InvalidInput

# A body never says who is acting (P21).
IDENTITY_KEYS = ("actor_claims", "actor_token")

UNKNOWN_KEY = "There is no such key here."
SHOWN_KEYS = 100
SHOWN_LENGTH = 80


class Body(serializers.Serializer):
    """One JSON object of a request.

    A null stands for an absent key, unless the field refuses it. ``aliases`` maps other names of a key to it;
    both at once have to agree. Unknown keys are refused with ``refuses_unknown`` (everywhere in the strict
    profile), else left out and named by ``ignored_keys``.
    """

    refuses_unknown: ClassVar[bool] = False
    aliases: ClassVar[Mapping[str, str]] = {}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if self.root is self:
            refuse_identity(data)
        if self.refuses_unknown or settings.CAVRA_PROFILE == "strict":
            self._refuse_unknown(data)
        return dict(super().to_internal_value(self._renamed(data)))

    def run_validation(self, data: Any = serializers.empty) -> Any:
        # The framework's own sentence for a non-object tells Python's type names.
        given = data is not serializers.empty and data is not None
        if given and not isinstance(data, Mapping):
            raise serializers.ValidationError("Must be an object.")
        return super().run_validation(data)

    def _refuse_unknown(self, data: Mapping[str, Any]) -> None:
        if unknown := [key for key in data if key not in self.fields and key not in self.aliases]:
            raise serializers.ValidationError(
                {
                    shown(key): [serializers.ErrorDetail(UNKNOWN_KEY, code="unknown_keys")]
                    for key in unknown[:SHOWN_KEYS]
                }
            )

    def _renamed(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that were really given, by their own names."""
        given: dict[str, Any] = {}
        for key, value in data.items():
            name = self.aliases.get(key, key)
            if value is None and not getattr(self.fields.get(name), "refuse_null", False):
                continue
            if name in given and given[name] != value:
                raise serializers.ValidationError(
                    {name: [serializers.ErrorDetail("Is given twice under two names.", code="contradiction")]}
                )
            given[name] = value
        return given

    @property
    def ignored_keys(self) -> list[str]:
        """Dotted paths of the keys that were left out, at most ``SHOWN_KEYS`` of them."""
        found = unknown_keys(self, self.initial_data)
        return [path for path, _ in zip(found, range(SHOWN_KEYS), strict=False)]


def refuse_identity(data: Mapping[str, Any]) -> None:
    """Raise ``InvalidInput`` when a body claims to say who is acting."""
    if claimed := [key for key in IDENTITY_KEYS if key in data]:
        raise InvalidInput(
            "Who is acting is told by the token or the session alone, never by the body.",
            code="identity_in_body",
            errors={key: ["Is not taken from a body."] for key in claimed},
        )


def unknown_keys(field: Any, data: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of keys in ``data`` that ``field``, a body or a list of them, has no field for."""
    if isinstance(field, serializers.ListField):
        for place, item in enumerate(data if isinstance(data, list) else ()):
            yield from unknown_keys(field.child, item, f"{path}{place}.")
    elif isinstance(field, Body) and isinstance(data, Mapping):
        for key, value in data.items():
            if key not in field.fields and key not in field.aliases:
                yield path + shown(key)
            else:
                yield from unknown_keys(field.fields.get(key), value, f"{path}{key}.")


def shown(key: str) -> str:
    """A key from outside as part of an answer: printable ASCII and short."""
    return ascii(key)[1:-1][:SHOWN_LENGTH]
