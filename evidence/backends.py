"""Signing in, and what a role allows: asked of the tables in ``permissions.py`` alone (P22)."""

from typing import Any

from django.contrib.auth.backends import ModelBackend

from evidence.permissions import ROLE_PERMISSIONS


class RoleBackend(ModelBackend):
    """People have the permissions of their roles. A row in the database that grants more grants nothing."""

    def get_all_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        """Permissions of an active person by their roles, read once for each request; of an object: none."""
        if not user_obj.is_active or user_obj.is_anonymous or obj is not None:
            return set()
        if not hasattr(user_obj, "_role_permissions"):
            user_obj._role_permissions = {
                str(permission)
                for table in ROLE_PERMISSIONS.values()
                for role in user_obj.role_names
                for permission in table.get(role, ())
            }
        return set(user_obj._role_permissions)
