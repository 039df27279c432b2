"""``public_safety_override``: a key of every act's body that says why a hit of public safety is none (P18)."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from evidence.api import fields
from evidence.api.bodies import Body
from evidence.domain import safety

KEY = "public_safety_override"


class OverrideBody(Body):
    """Why what was refused is no secret. Recorded with the fields and rules, and reviewed by somebody else."""

    refuses_unknown = True

    reason = fields.Notes(required=True)


class _Around(Body):
    """What of a body is read here, so that faults have their path."""

    public_safety_override = OverrideBody(required=False)


def reason_in(data: Mapping[str, Any]) -> str:
    """The reason that a body gives for an override, empty without one.

    Raises what a wrong body raises, and ``InvalidInput`` where the reason itself is not public-safe.
    """
    body = _Around(data={KEY: data[KEY]} if KEY in data else {})
    body.is_valid(raise_exception=True)
    given: dict[str, Any] = body.validated_data
    safety.require(given)
    return str(given.get(KEY, {}).get("reason", ""))


@cache
def documented(body: type[Body]) -> type[Body]:
    """``body`` as the API's document shows it, with the key that every one of them has."""
    return type(body.__name__, (body,), {"__doc__": body.__doc__, KEY: OverrideBody(required=False)})
