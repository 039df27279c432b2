"""What is asked of an approver beyond the role: a session of their own in the strict profile, and a recent one."""

from typing import Any

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from evidence.api.authentication import BearerAuthentication, signed_in_by
from evidence.domain.clock import system_clock
from evidence.errors import NotAllowed
from evidence.signed_in import Method


class InteractiveWhenStrict(BasePermission):
    """In the strict profile decisions come from a session in a browser, not from a token."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if settings.CAVRA_PROFILE == "strict" and isinstance(
            request.successful_authenticator, BearerAuthentication
        ):
            raise NotAllowed(
                "Decide in an interactive session; tokens may not.", code="interactive_session_required"
            )
        return True


def signature(request: Request) -> dict[str, Any]:
    """How and when the account behind a call had signed in, as a ballot keeps it.

    Raises ``NotAllowed`` ``sign_in_too_old`` for a session that is not recent; a token has no time.
    """
    found = signed_in_by(request)
    if found.by is not Method.TOKEN and not found.is_recent(now := system_clock()):
        raise NotAllowed(f"Nothing was recorded. {found.age(now)}. Sign in again.", code="sign_in_too_old")
    return {"authenticated_by": found.by.value, "authenticated_at": found.at}
