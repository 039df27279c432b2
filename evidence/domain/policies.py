"""Who may do what to what: lists of reasons that feed a refusal, a disabled button and an answer alike.

An empty list means yes. Person rules and object rules are functions of their own.
"""

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


def reasons_against_sending(connector: Connector, paused_scopes: frozenset[str]) -> list[tuple[str, str]]:
    """Why nothing may be sent to ``connector`` now, as ``(code, sentence)``."""
    reasons = []
    if PauseSwitch.ALL in paused_scopes:
        reasons.append(("sending_paused", "Live sending is paused for all connectors."))
    if connector.key in paused_scopes:
        reasons.append(("sending_paused", f"Live sending to {connector.key} is paused."))
    if not connector.enabled:
        reasons.append(("connector_disabled", f"The connector {connector.key} is disabled."))
    return reasons


def paused_scopes() -> frozenset[str]:
    """Scopes of the pause switch that are on."""
    return frozenset(PauseSwitch.objects.values_list("scope", flat=True))
