"""The OpenAPI document: answers are described from the kinds, requests from the bodies."""

from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from drf_spectacular.openapi import AutoSchema as SpectacularAutoSchema
from drf_spectacular.utils import inline_serializer
from rest_framework import serializers

from evidence.api.public_safety import documented
from evidence.documents import CONTRACT_KIND, KINDS, Kind

Field = serializers.Field[Any, Any, Any, Any]

SCALARS: dict[type, type[Field]] = {
    str: serializers.CharField,
    int: serializers.IntegerField,
    float: serializers.FloatField,
    bool: serializers.BooleanField,
}


def typed(kind: Any, **options: Any) -> Field:
    """A serializer field for a type as ``Kind.fields`` names it: a scalar, ``dict``, a list of them, or with None."""
    if isinstance(kind, UnionType):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        return typed(inner, allow_null=True, **options)
    if get_origin(kind) is list:
        return serializers.ListField(child=typed(*get_args(kind)), **options)
    if kind is dict:
        return serializers.DictField(**options)
    return SCALARS[kind](**options)


def component(kind: Kind, suffix: str) -> str:
    """Name of a kind's schema."""
    return "".join(part.capitalize() for part in kind.name.removeprefix(CONTRACT_KIND).split("-")) + suffix


def payload(kind: Kind) -> serializers.Serializer[Any]:
    """The document of a kind, as it stands under its payload key."""
    return _payload(kind.name)


def envelope(kind: Kind) -> serializers.Serializer[Any]:
    """A stored record of a kind (CONTRACT §1.4)."""
    return _envelope(kind.name)


# One class for each name: the document would list two of the same name as a clash.
@cache
def _payload(name: str) -> serializers.Serializer[Any]:
    kind = KINDS[name]
    fields = {
        "schema_version": serializers.CharField(),
        "product": serializers.CharField(),
        kind.id_field: serializers.CharField(),
        kind.hash_field: serializers.CharField(help_text="SHA-256 of the stored record, hex."),
        **{name: typed(of) for name, of in kind.fields.items()},
        "controls": serializers.ListField(
            child=serializers.CharField(),
            help_text="The last one names the rules of public safety and the result.",
        ),
    }
    return inline_serializer(component(kind, "Document"), fields)


@cache
def _envelope(name: str) -> serializers.Serializer[Any]:
    kind = KINDS[name]
    known = {kind.id_field: str, kind.hash_field: str, **kind.fields}
    return inline_serializer(
        component(kind, "Record"),
        {
            **ENVELOPE,
            **{name: typed(known[name]) for name in kind.promoted if name not in ENVELOPE},
            kind.payload_key: payload(kind),
        },
    )


ENVELOPE: dict[str, Field] = {
    "schema_version": serializers.CharField(),
    "product": serializers.CharField(),
    "session_id": serializers.CharField(),
    "created_at": serializers.CharField(),
    "signer": serializers.CharField(),
    "decision_count": serializers.IntegerField(),
    "blocked_count": serializers.IntegerField(),
    "approval_required_count": serializers.IntegerField(),
    "metadata_kind": serializers.CharField(),
    "cases": serializers.ListField(child=serializers.CharField()),
    "case": serializers.CharField(required=False),
    "references": serializers.ListField(child=serializers.DictField()),
    "record_hash": serializers.CharField(),
    "leaf_index": serializers.IntegerField(),
    "claimed_actor": serializers.CharField(required=False),
}


def nullable(described: serializers.Serializer[Any]) -> serializers.Serializer[Any]:
    """The same schema where it may be null."""
    return type(described)(allow_null=True)


def answer(name: str, **fields: Field) -> serializers.Serializer[Any]:
    """The body of a successful answer."""
    return inline_serializer(name, fields)


def texts() -> Field:
    """A list of texts."""
    return serializers.ListField(child=serializers.CharField())


def objects() -> Field:
    """A list of objects."""
    return serializers.ListField(child=serializers.DictField())


class ActorAnswer(serializers.Serializer):
    """Who acted, as the service verified it."""

    actor = serializers.CharField()
    subject = serializers.CharField()
    issuer = serializers.CharField(allow_blank=True)
    groups = serializers.ListField(child=serializers.CharField())
    repository = serializers.CharField(allow_null=True)


class Problem(serializers.Serializer):
    """A refusal."""

    detail = serializers.CharField()
    code = serializers.CharField()
    errors = serializers.DictField(child=texts(), required=False)  # type: ignore[assignment]


REFUSALS: Mapping[str, tuple[int, ...]] = {"GET": (401, 403), "POST": (400, 401, 403, 404, 409)}


class AutoSchema(SpectacularAutoSchema):
    """Reads ``body_class`` and ``answer`` of our views; ``extend_schema`` still has the last word."""

    def get_request_serializer(self) -> Any:
        body = getattr(self.view, "body_class", None)
        return documented(body) if body else super().get_request_serializer()

    def get_response_serializers(self) -> Any:
        described = getattr(self.view, "answer", None)
        if described is None:
            return super().get_response_serializers()
        return {200: described, **dict.fromkeys(REFUSALS.get(self.method, ()), Problem)}

    def get_tags(self) -> list[str]:
        tag = getattr(self.view, "tag", "")
        return [tag] if tag else list(super().get_tags())

    def get_operation_id(self) -> str:
        return getattr(self.view, "operation", "") or super().get_operation_id()
