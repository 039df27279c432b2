"""What the strict profile asks of an approver beyond the role."""

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from evidence.api.authentication import BearerAuthentication
from evidence.errors import NotAllowed


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
