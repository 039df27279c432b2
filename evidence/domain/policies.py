"""Who may do what to what: lists of reasons that feed a refusal, a disabled button and an answer alike.

An empty list means yes. Person rules and object rules are functions of their own.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from evidence.connectors.products import PRODUCTS
from evidence.domain import breakers
from evidence.domain.breakers import Standing
from evidence.enums import Hold, Product
from evidence.errors import NotAllowed
from evidence.models import Connector, PauseSwitch, Person


def reasons_against_role(person: Person, permission: str) -> list[str]:
    """Why this person's roles do not allow the act ``permission`` (``app.act``)."""
    if not person.is_active or not person.principal.is_active:
        return ["This account is deactivated."]
    if person.has_perm(permission):
        return []
    act = permission.partition(".")[2].replace("_", " ")
    roles = ", ".join(person.role_names) or "no role"
    return [f"This needs a role that may {act}. You are signed in as {person.username} with {roles}."]


def require_role(person: Person, permission: str) -> None:
    """Raise ``NotAllowed`` unless the person's roles allow the act."""
    if reasons := reasons_against_role(person, permission):
        raise NotAllowed(reasons[0], code="role_required")


# What only makes a send wait: a first delivery is parked, an approved retry keeps its approval.
WAITS = frozenset(Hold)


def reasons_against_sending(
    connector: Connector,
    paused_scopes: frozenset[str],
    at: datetime,
    standing: Mapping[int, Standing] | None = None,
) -> list[tuple[str, str]]:
    """Why nothing may be sent to ``connector`` at ``at``, as ``(code, sentence)``; what only waits (``WAITS``) last.

    ``standing`` is what ``breakers.standing`` says, for who asks about many connectors at once.
    """
    reasons = []
    if PauseSwitch.ALL in paused_scopes:
        reasons.append(("sending_paused", "Live sending is paused for all connectors."))
    if connector.key in paused_scopes:
        reasons.append(("sending_paused", f"Live sending to {connector.key} is paused."))
    if not connector.enabled:
        reasons.append(("connector_disabled", f"The connector {connector.key} is disabled."))
    known = breakers.standing([connector], at) if standing is None else standing
    return [*reasons, *((wait.code.value, wait.sentence) for wait in known[connector.pk].waits)]


def reasons_against_telling(connector: Connector) -> list[tuple[str, str]]:
    """Why nobody is told of anything through ``connector``, at any time, as ``(code, sentence)`` (W29)."""
    if not PRODUCTS[Product(connector.product)].opens_tickets:
        return []
    sentence = f"{connector.key} opens a ticket for whatever it gets, and only a delivery opens one."
    return [("opens_tickets", sentence)]


def refusals(reasons: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of reasons against sending those that do not pass by themselves."""
    return [(code, sentence) for code, sentence in reasons if code not in WAITS]


def paused_scopes() -> frozenset[str]:
    """Scopes of the pause switch that are on."""
    return frozenset(PauseSwitch.objects.values_list("scope", flat=True))
