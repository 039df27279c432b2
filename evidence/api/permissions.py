"""Roles at the door: each view names the act it needs, ``policies`` says who may."""

from collections.abc import Mapping

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from evidence.domain import policies
from evidence.errors import NotAllowed


class HasPermission(BasePermission):
    """Refuses who is not signed in (401) or whose roles do not allow ``view.permission`` (403).

    ``view.permission`` is a permission name, several of which one is enough, or a mapping of HTTP methods to
    names. A method that the view does not have is none of this class's business.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not request.user.is_authenticated:
            return False
        needed = view.permission  # type: ignore[attr-defined]
        if isinstance(needed, Mapping):
            needed = needed.get(request.method, "")
        acts = needed if isinstance(needed, tuple) else (needed,) if needed else ()
        against = [policies.reasons_against_role(request.user, act) for act in acts]
        if against and all(against):
            raise NotAllowed(against[0][0], code="role_required")
        return True
