"""Bearer tokens: knox's table and hash, read only. Nothing here writes or deletes."""

import hmac
import re
from typing import Any

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.crypto import hash_token
from knox.models import get_token_model
from knox.settings import CONSTANTS
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from evidence import signed_in
from evidence.models import Person
from evidence.signed_in import Method, SignedIn

# RFC 6750, section 2.1: b64token.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")


class BearerAuthentication(BaseAuthentication):
    """``Authorization: Bearer <token>``.

    Without the header another way to sign in may be tried; with it, whatever is wrong with it is a 401: another
    scheme, bytes that are no token, an unknown or expired token, a deactivated person or owner.
    """

    def authenticate(self, request: Request) -> tuple[Person, Any] | None:
        header = request.META.get("HTTP_AUTHORIZATION", "")
        if not header:
            return None
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise AuthenticationFailed("Send Authorization: Bearer <token>.", code="unsupported_scheme")
        token = token.strip()
        if not TOKEN.fullmatch(token):
            raise AuthenticationFailed("This is no bearer token.", code="token_invalid")
        return self._holder(token)

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def _holder(self, token: str) -> tuple[Person, Any]:
        digest = hash_token(token)
        rows = get_token_model().objects.filter(token_key=token[: CONSTANTS.TOKEN_KEY_LENGTH])
        for row in rows.select_related("user__owner"):
            if not hmac.compare_digest(digest, row.digest):
                continue
            if row.expiry is not None and row.expiry <= timezone.now():
                raise AuthenticationFailed("This token has expired.", code="token_expired")
            if not row.user.is_active or not row.user.principal.is_active:
                raise AuthenticationFailed("This account is deactivated.", code="account_inactive")
            return row.user, row
        raise AuthenticationFailed("This token is not known.", code="token_invalid")


def signed_in_by(request: Request) -> SignedIn:
    """By what the account behind a call was known, and since when: a token, or a session."""
    if isinstance(request.successful_authenticator, BearerAuthentication):
        return SignedIn(Method.TOKEN)
    return signed_in.of(request._request)


class BearerScheme(OpenApiAuthenticationExtension):
    """The same in the OpenAPI document."""

    target_class = "evidence.api.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A token of this service."}
